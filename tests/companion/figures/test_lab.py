"""The lab's engine computes what the library does, and its page answers the reader."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from test_pages_in_browser import LOOKS, MEASURE, OWN_ADDRESSES, listen, try_figure
from torch import Tensor, nn

from companion import pocket, results
from companion.figures import interactive
from companion.figures.interactive import fragment as fragments
from companion.study.pocket import pocket_document, run_model
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.synthetic import Constants, make_labels, stream
from mmoe_lib.training import Adam, Ensemble, squared_error
from mmoe_lib.training.step import Step

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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
    x = batches[0][0]
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


# The page


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a page that holds the lab alone."""
    file = tmp_path_factory.mktemp("lab") / "lab.html"
    head = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>lab</title>'
    file.write_text(f"{head}<article>{interactive.lab().html}</article>", encoding="utf-8")
    return file.as_uri()


QUICK = "#lab&p=0.9&models=Shared-Bottom,MMoE&noise=0.2&rate=0.01&runs=2&steps=1000&seed=3"
LONG = 60_000  # milliseconds, on a machine that has other things to do


def words(page: Page) -> str:
    return page.locator("output").inner_text()


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def wait_for(page: Page, text: str) -> None:
    page.wait_for_function(
        "text => document.querySelector('output')?.innerText.includes(text)", arg=text, timeout=LONG
    )


def test_the_lab_is_small() -> None:
    assert len(interactive.lab().html.encode()) < 100_000


def test_the_lab_trains_pauses_and_goes_back(browser: Browser, address: str) -> None:
    page = browser.new_page()
    errors, requests = listen(page)
    page.goto(address + QUICK)
    wait_for(page, "p = 0.9, noise 0.2, learning rate 0.01, 2 runs a model, 1,000 steps, seed 3.")
    assert "Ready, not started" in words(page)
    assert page.get_by_label("MMoE", exact=True).is_checked()
    assert not page.get_by_label("OMoE", exact=True).is_checked()
    step = page.get_by_label("step, back and forth")
    assert step.is_disabled()

    press(page, "Start")
    page.wait_for_function("() => Number(document.querySelector('progress').value) > 0.05", timeout=LONG)
    press(page, "Pause")
    wait_for(page, "Paused")
    page.wait_for_timeout(300)  # what was on its way has come
    before = page.locator("progress").evaluate("it => it.value")
    page.wait_for_timeout(300)
    assert page.locator("progress").evaluate("it => it.value") == before
    step.focus()
    page.keyboard.press("Home")
    wait_for(page, "Paused, step 0.")
    start = words(page)
    page.keyboard.press("ArrowRight")
    wait_for(page, "Paused, step 10.")

    press(page, "Continue")
    wait_for(page, "Done, step 1,000.")
    assert page.locator("output").get_attribute("aria-live") == "polite"
    page.get_by_label("run shown below").press("ArrowRight")
    wait_for(page, "Below: run 2, task 1.")
    page.get_by_label("task shown below").select_option("task 2")
    wait_for(page, "Below: run 2, task 2.")
    end = words(page)
    assert len(page.locator(".panels > svg").nth(1).locator("circle").all()) == 4  # a dot a run

    # the same settings give the same runs
    press(page, "Reset")
    wait_for(page, "Ready, not started.")
    press(page, "Start")
    wait_for(page, "Done, step 1,000.")
    assert words(page) == end
    assert start.splitlines()[2:] != end.splitlines()[2:]
    press(page, "Another seed")
    wait_for(page, "seed 4.")
    assert "seed=4" in page.evaluate("location.hash")
    assert errors == []
    assert {urlsplit(request).scheme for request in requests} <= set(OWN_ADDRESSES)
    page.close()


def test_the_address_holds_the_settings(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    wait_for(page, "Ready")
    assert page.evaluate("location.hash") == ""
    page.get_by_label("task correlation p").press("ArrowRight")
    page.get_by_label("OMoE", exact=True).uncheck()
    page.get_by_label("runs of each model").press("Home")
    found = words(page)
    assert "p = 0.6" in found
    assert "2 runs a model" in found
    link = page.url
    assert "p=0.6" in link
    page.close()
    page = browser.new_page()
    page.goto(link)
    wait_for(page, "Ready")
    assert words(page) == found
    assert not page.get_by_label("OMoE", exact=True).is_checked()
    # what is not there is left as it was
    page.goto(address + "#lab&p=7&models=none&rate=x&seed=-1&unknown=%")
    page.reload()
    wait_for(page, "p = 0.5")
    press(page, "Copy the link")
    page.wait_for_function(
        "() => /link is copied|address now holds/.test(document.querySelector('output').innerText)"
    )
    page.close()


NO_WORKERS = {
    "none can be made": "window.Worker = function () { throw new Error('no workers here'); };",
    "none starts": "window.Worker = class { postMessage() { setTimeout(() => this.onerror(new Event('error'))); } terminate() {} };",
}


@pytest.mark.parametrize("how", NO_WORKERS)
def test_without_workers_the_page_trains_itself(browser: Browser, address: str, how: str) -> None:
    page = browser.new_page(reduced_motion="reduce")
    errors, _ = listen(page)
    page.add_init_script(NO_WORKERS[how])
    page.goto(address + QUICK)
    wait_for(page, "Ready")
    press(page, "Start")
    wait_for(page, "Done, step 1,000.")
    assert errors == []
    page.close()


@pytest.mark.parametrize("look", LOOKS)
def test_the_lab_fits_and_stands_out(browser: Browser, address: str, look: str) -> None:
    page = browser.new_page(**LOOKS[look], reduced_motion="reduce")
    page.goto(address + QUICK)
    wait_for(page, "Ready")
    try_figure(page, page.locator("figure.mmoe-interactive"), f"the lab, {look}")
    press(page, "Start")
    wait_for(page, "Done")
    facts = page.evaluate(MEASURE)
    assert facts["width"] <= LOOKS[look]["viewport"]["width"]
    assert facts["tooWide"] == []
    assert facts["pale"] == []
    assert facts["wordless"] == []
    assert facts["interactive"] == ["lab"]
    assert page.locator("svg .title").count() == 4
    cut = page.locator(".panels > svg").evaluate_all(
        """pictures => pictures.flatMap((picture) => [...picture.querySelectorAll(":scope > text")].filter((text) => {
          const [own, box] = [text.getBoundingClientRect(), picture.getBoundingClientRect()];
          return own.left < box.left - 1 || own.right > box.right + 1;
        }).map((text) => text.textContent))"""
    )
    assert cut == [], "these words leave their picture"
    page.close()


# The picture


def test_the_stored_runs_confirm_the_effect() -> None:
    document = results.read_pocket()
    assert document["origin"]["data"] == "synthetic"
    assert document["steps"][-1] == pocket.STEPS
    assert set(document["models"]) == set(MODELS)
    parameters = [model["parameters"] for model in document["models"].values()]
    assert max(parameters) < 1.1 * min(parameters)
    learned = results.pocket_learned(document, pocket.learned_below())
    # Few of Shared-Bottom's runs, nearly all of MMoE's: so far apart that a reader sees it.
    assert {name: learned[name] for name in ("Shared-Bottom", "MMoE")} == {"Shared-Bottom": 7, "MMoE": 27}


def test_the_page_has_the_modules_universe() -> None:
    data = interactive.lab_data()
    assert data["universe"]["beta"] == pytest.approx(pocket.POCKET.beta, abs=1e-5)
    assert data["values"]["steps"].count(pocket.STEPS) == 1
    for steps in data["values"]["steps"]:
        assert steps % data["looks"] == 0


def test_the_picture_shows_every_run() -> None:
    backend = mpl.get_backend()
    plt.switch_backend("agg")
    document = results.read_pocket()
    curves, ends = interactive.lab_picture(document, "A finding").axes
    runs = document["training"]["runs"]
    assert len(curves.lines) == 2 * runs
    assert [len(np.asarray(line.get_xdata())) for line in ends.lines[:4]] == [runs] * 4
    assert all(axes.get_xlabel() for axes in (curves, ends))
    plt.close("all")
    plt.switch_backend(backend)


def test_a_small_study_has_every_model_and_run() -> None:
    document = pocket_document(runs=2, steps=4, looks=2)
    assert document["steps"] == [0, 2, 4]
    for name, model in document["models"].items():
        assert np.array(model["losses"]).shape == (2, 3), name
    again, _ = run_model("MMoE", [1], 4, 2)
    assert again[0] == pytest.approx(document["models"]["MMoE"]["losses"][1], abs=1e-3)
