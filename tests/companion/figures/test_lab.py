"""The lab's engine computes what the library does, and its page answers the reader."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from companion import pocket
from companion.figures.interactive import fragment as fragments
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.synthetic import Constants, make_labels, stream
from mmoe_lib.training import Adam, Ensemble, squared_error
from mmoe_lib.training.step import Step

ENGINE = Path(fragments.__file__).with_name("engine.js")
MODELS = ("Single-Task", "Shared-Bottom", "OMoE", "MMoE")
STEPS = 200
ROWS = 32
RATE = 5e-3


def node() -> str:
    """A JavaScript engine: node, or the one that comes with playwright."""
    found = shutil.which("node")
    specification = find_spec("playwright")
    if found is None and specification is not None and specification.origin is not None:
        found = str(Path(specification.origin).parent / "driver" / "node")
    assert found is not None, "there is no node: run `make environment`, which brings playwright's"
    return found


def run(code: str, given: object, folder: Path) -> Any:
    """What a script gives back that has the engine, `given` and a function to read lists of numbers."""
    file = folder / "given.json"
    file.write_text(json.dumps(given), encoding="utf-8")
    script = (
        f"{ENGINE.read_text(encoding='utf-8')}\nconst engine = makeEngine();\n"
        f"const given = JSON.parse(require('fs').readFileSync({json.dumps(str(file))}));\n"
        f"const found = (() => {{ {code} }})();\nconsole.log(JSON.stringify(found));"
    )
    done = subprocess.run([node(), "-"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def flat(parameters: dict[str, Tensor]) -> list[float]:
    """One run's parameters in the engine's order: layer, its biases, gates, then tower after tower."""
    own = {
        name.replace("experts.first", "layer").replace("bottom.layers.0", "layer"): value[0]
        for name, value in parameters.items()
    }
    if "networks.0.0.layers.0.weight" in own:  # separate networks: one layer above the other
        order = [f"networks.{k}.0.layers.0.{kind}" for kind in ("weight", "bias") for k in (0, 1)]
    else:
        order = ["layer.weight", "layer.bias", *[name for name in own if name.startswith("gate")]]
    for k in (0, 1):
        tower = f"networks.{k}.1" if "networks.0.0.layers.0.weight" in own else f"towers.towers.{k}"
        order += [
            f"{tower}.{layer}.{kind}"
            for layer in ("hidden.layers.0", "output")
            for kind in ("weight", "bias")
        ]
    assert sorted(order) == sorted(own)
    return [float(value) for name in order for value in own[name].flatten()]


def sizes() -> dict[str, int]:
    return {"inputs": pocket.POCKET.num_inputs, **pocket.SIZES}


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    drawn = stream(0.5, [3], ROWS, pocket.POCKET)
    return [next(drawn) for _ in range(STEPS)]


def ensemble_of(model: str) -> Ensemble:
    build: Callable[..., nn.Module] = partial(pocket.POCKET_MODELS[model], pocket.POCKET.num_inputs, 2)
    return Ensemble(build, [3])


def columns(values: Tensor) -> list[float]:
    """Rows (B, n) unit by unit, as the engine has them."""
    return [float(value) for value in values.T.flatten()]


@pytest.mark.parametrize("model", MODELS)
def test_two_hundred_steps_are_the_librarys(
    model: str, batches: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    ensemble = ensemble_of(model)
    start = flat(ensemble.parameters)
    step = Step(ensemble, squared_error, torch.tensor([RATE]), Adam())
    losses = [step(x, y, number)[0][0].tolist() for number, (x, y) in enumerate(batches, start=1)]
    x, y = batches[0]
    given = {
        "model": model,
        "sizes": sizes(),
        "rate": RATE,
        "start": start,
        "batches": [[columns(x[0]), columns(y[0])] for x, y in batches],
    }
    code = f"""
      const plan = engine.makePlan(given.model, given.sizes);
      const network = new engine.Network(plan, {ROWS});
      const weights = Float32Array.from(given.start);
      const [gradient, mean, square] = [0, 0, 0].map(() => new Float32Array(plan.count));
      const losses = given.batches.map(([x, y], step) => {{
        network.forward(weights, Float32Array.from(x));
        const found = network.backward(weights, Float32Array.from(x), Float32Array.from(y), gradient, [0, 0]);
        engine.adam(weights, gradient, mean, square, given.rate, step + 1);
        return found.slice();
      }});
      return {{ losses, weights: Array.from(weights), outputs: Array.from(network.forward(weights, Float32Array.from(given.batches[0][0]))) }};
    """
    found = run(code, given, tmp_path)
    with torch.no_grad():
        outputs = ensemble.predict(x)[0]
    assert len(found["weights"]) == len(start)
    assert np.abs(np.array(found["weights"]) - start).max() > 0.05, "the weights moved"
    assert np.array(found["losses"]) == pytest.approx(np.array(losses), abs=1e-5)
    assert np.array(found["weights"]) == pytest.approx(np.array(flat(ensemble.parameters)), abs=1e-5)
    assert np.array(found["outputs"]) == pytest.approx(np.array(columns(outputs)), abs=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_the_gradient_is_that_of_finite_differences(
    model: str, batches: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    x, y = batches[0]
    given = {
        "model": model,
        "sizes": sizes(),
        "start": flat(ensemble_of(model).parameters),
        "x": columns(x[0]),
        "y": columns(y[0]),
    }
    # In double precision, so that the differences are not rounded away.
    code = f"""
      const plan = engine.makePlan(given.model, given.sizes);
      const network = new engine.Network(plan, {ROWS});
      for (const [name, room] of Object.entries(network)) {{
        if (room instanceof Float32Array) network[name] = new Float64Array(room.length);
      }}
      if (!plan.gates) [network.mixed, network.mixedDelta] = [network.units, network.unitsDelta];
      const [weights, gradient, spare] = [given.start, given.start, given.start].map((list) => Float64Array.from(list));
      const loss = (into) => {{
        network.forward(weights, given.x);
        const [one, other] = network.backward(weights, given.x, given.y, into, [0, 0]);
        return one + other;
      }};
      loss(gradient);
      const differences = given.start.map((value, i) => {{
        const ends = [1e-6, -1e-6].map((moved) => {{
          weights[i] = value + moved;
          return loss(spare);
        }});
        weights[i] = value;
        return (ends[0] - ends[1]) / 2e-6;
      }});
      return {{ gradient: Array.from(gradient), differences }};
    """
    found = run(code, given, tmp_path)
    assert np.abs(found["gradient"]).max() > 0.05
    assert found["gradient"] == pytest.approx(found["differences"], abs=1e-7)


def test_labels_and_directions_are_the_librarys(tmp_path: Path) -> None:
    constants = Constants("some", c=0.7, alpha=(2.0, 3.5, 5.0), beta=(0.3, math.pi, 1.0), num_inputs=6)
    generator = seeded_generator(0, "test")
    x, noise = torch.randn(8, 6, generator=generator), torch.randn(8, 2, generator=generator)
    given = {
        "universe": {"c": 0.7, "alpha": constants.alpha, "beta": constants.beta, "inputs": 6},
        "x": columns(x),
        "eps": columns(noise),
    }
    code = """
      const task = engine.taskWeights(0.3, given.universe, new engine.Random(5, 1));
      const y = engine.labels(given.x, task, given.universe, 0.1, given.eps, new Float64Array(16));
      return { task: Array.from(task), y: Array.from(y) };
    """
    found = run(code, given, tmp_path)
    weights = torch.tensor(found["task"]).view(2, 6)
    assert weights.norm(dim=1).tolist() == pytest.approx([0.7, 0.7])
    assert float(weights[0] @ weights[1]) / 0.49 == pytest.approx(0.3)
    labels = make_labels(x, weights, noise, constants)
    assert found["y"] == pytest.approx(columns(labels), abs=1e-5)


def test_random_numbers_are_standard_and_streams_differ(tmp_path: Path) -> None:
    code = """
      const draw = (...words) => Array.from(new engine.Random(...words).fillNormal(new Float64Array(40001)));
      const plan = engine.makePlan("MMoE", given.sizes);
      const weights = engine.initialWeights(plan, new engine.Random(1, 3, 3), new Float32Array(plan.count));
      return { streams: [draw(0, 2), draw(1, 2), draw(0, 1), draw(1000, 2)], again: draw(0, 2), weights: Array.from(weights), plan };
    """
    found = run(code, {"sizes": sizes()}, tmp_path)
    streams = np.array(found["streams"])
    assert found["again"] == found["streams"][0]
    assert streams.mean(axis=1) == pytest.approx(np.zeros(4), abs=0.02)
    assert streams.std(axis=1) == pytest.approx(np.ones(4), abs=0.02)
    assert (streams**4).mean(axis=1) == pytest.approx(3 * np.ones(4), abs=0.25)
    assert np.corrcoef(streams) == pytest.approx(np.eye(4), abs=0.02)
    assert np.abs(np.corrcoef(streams[0][:-1], streams[0][1:])[0, 1]) < 0.02
    # U(-1 / sqrt(n), 1 / sqrt(n)) of a layer's n inputs
    weights, bound = np.array(found["weights"]), 1 / math.sqrt(pocket.POCKET.num_inputs)
    first = np.abs(weights[: found["plan"]["towers"][0]["hidden"]])
    assert 0.97 * bound < first.max() <= bound
    assert first.mean() == pytest.approx(bound / 2, rel=0.1)


LAB = """
  const settings = { universe: given.universe, sizes: given.sizes, p: 0.5, sigma: 0.1, rate: 0.005, rows: 32, testRows: 64 };
  const lab = (models, seeds) => new engine.Lab({ ...settings, models }, seeds);
"""


def universe() -> dict[str, Any]:
    constants = pocket.POCKET
    return {
        "c": constants.c,
        "alpha": constants.alpha,
        "beta": constants.beta,
        "inputs": constants.num_inputs,
    }


def test_a_run_is_the_same_alone_and_among_others(tmp_path: Path) -> None:
    code = f"""{LAB}
      const all = lab(given.models, [4, 7]);
      const alone = lab(["MMoE"], [7]);
      all.advance(30);
      for (let step = 0; step < 30; step += 1) alone.advance(1);
      const [seen, own] = [all.look(), alone.look()];
      return {{ step: seen.step, all: Array.from(seen.losses), alone: Array.from(own.losses) }};
    """
    found = run(code, {"universe": universe(), "sizes": sizes(), "models": MODELS}, tmp_path)
    assert found["step"] == 30
    assert len(found["all"]) == 2 * 4 * 2
    assert found["all"][-2:] == found["alone"]
    assert len(set(found["all"])) == 16


def test_a_probe_sees_the_label_that_a_run_has_learned(tmp_path: Path) -> None:
    code = f"""{LAB}
      const all = lab(["Single-Task", "MMoE"], [0]);
      const before = all.seeds[0].runs.map(({{ weights }}) => Array.from(weights));
      all.advance(3000);
      const places = Array.from({{ length: 41 }}, (_, k) => -2 + 0.1 * k);
      const probe = new engine.Probe(all.settings, 0, places);
      const looks = all.plans.map(({{ name }}, j) => probe.look(name, all.seeds[0].runs[j].weights));
      return {{ looks, start: probe.look("MMoE", before[1]), truth: probe.truth, losses: Array.from(all.look().losses) }};
    """
    found = run(code, {"universe": universe(), "sizes": sizes()}, tmp_path)
    constants, places = pocket.POCKET, np.linspace(-2, 2, 41) * pocket.POCKET.c
    signal = places + sum(
        np.sin(a * places + b) for a, b in zip(constants.alpha, constants.beta, strict=True)
    )
    assert found["truth"] == pytest.approx(signal, abs=1e-9)
    single, mmoe = found["looks"]
    assert single["gates"] == []
    assert np.array(mmoe["gates"]).shape == (2, pocket.SIZES["experts"])
    assert np.array(mmoe["gates"]).sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    for k, loss in enumerate(found["losses"][2:]):
        if loss < 0.1:
            assert np.corrcoef(mmoe["learned"][k], signal)[0, 1] > 0.95
    assert min(found["losses"]) < 0.1
    assert np.abs(np.corrcoef(found["start"]["learned"][0], signal)[0, 1]) < 0.95
