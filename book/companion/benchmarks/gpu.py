"""How fast a GPU trains many runs, against the plain loop, and JAX where it is there.

Training of section 5.1's MMoE on synthetic data with Adam, in float32 without TF32, steps of a single run a second.
"whole" is what a long study does: minibatches from a pool and the compiled step, its kernels measured first, in graphs;
"fresh" draws its inputs instead; "step" repeats one minibatch; "feed" draws minibatches only; "not tuned" and "not
compiled" do less before they start. Every contender is a process of its own, one after another: when four compiled side
by side, so that kernels were measured while others used the card, the first shape reached half of what it had before.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.benchmarks.measure import Benchmark, Settings
from mmoe_lib.models import paper_model
from mmoe_lib.progress import progress_bar
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.synthetic import InputPool, make_labels, stream, task_weights
from mmoe_lib.training import Adam, Ensemble, TrainingSettings, squared_error, train
from mmoe_lib.training.advance import LANES, advance_of
from mmoe_lib.training.batches import Drawn
from mmoe_lib.training.step import Step

P = 0.5
SHAPES = ((200, 32), (200, 64), (200, 256), (1000, 64))
"""Runs and rows of a minibatch."""
MORE_SHAPES = ((20, 32), (4000, 64))
SHORT = ((8, 1_500), (24, 15_000), (200, 5_000))
"""Runs and steps of trainings that may not be worth a GPU: whole, with all that comes before the first step."""
TRAINED = ("whole", "fresh", "step", "not tuned", "not compiled")
_BLOCK = 100
"""Steps between two looks at the clock."""

Run = Callable[[], int]
"""Does some steps, and says how many steps of a single run that was."""


def _ensemble(runs: int, device: str) -> tuple[Ensemble, Step]:
    build = paper_model("MMoE")
    ensemble = Ensemble(partial(build, 100, 2), range(runs), device=device)
    return ensemble, Step(ensemble, squared_error, torch.full((runs,), 1e-3, device=device), Adam())


def _batches(runs: int, batch: int, device: str, inputs: str) -> Iterator[tuple[Tensor, Tensor]]:
    pool = InputPool.draw(device=device) if inputs == "pool" else None
    return stream(P, range(runs), batch, pool=pool, device=device)


def _training(kind: str, runs: int, batch: int, device: str) -> Run:
    _, step = _ensemble(runs, device)
    batches = _batches(runs, batch, device, "fresh" if kind == "fresh" else "pool")
    if kind == "step":
        batches = _Again(next(batches))
    advance = advance_of(step, batches, compile=kind != "not compiled", tune=kind != "not tuned")
    first = 1

    def work() -> int:
        nonlocal first
        advance(first, _BLOCK)
        first += _BLOCK
        return _BLOCK * runs

    return work


class _Again:
    """One minibatch for ever."""

    def __init__(self, batch: tuple[Tensor, Tensor]) -> None:
        self.batch, self.position = tuple(value.contiguous() for value in batch), 0

    def __iter__(self) -> _Again:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        self.position += 1
        x, y = self.batch
        return x, y

    def draw(self, number: Tensor) -> tuple[Tensor, Tensor]:
        """The same."""
        x, y = self.batch
        return x, y


def _feed(runs: int, batch: int, device: str) -> Run:
    batches = _batches(runs, batch, device, "pool")
    assert isinstance(batches, Drawn)
    draw = torch.compile(batches.draw, dynamic=False)
    number, graph = torch.zeros((), dtype=torch.int64, device=device), torch.cuda.CUDAGraph()

    def twenty() -> None:
        for _ in range(20):
            draw(number)
            number.add_(1)

    twenty()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        twenty()

    def work() -> int:
        for _ in range(_BLOCK // 20):
            graph.replay()
        return _BLOCK * runs

    return work


def _plain_loop(batch: int, device: str) -> Run:
    """What a user would write: fresh inputs, one module, torch.optim.Adam."""
    model = paper_model("MMoE")(100, 2).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = task_weights(P, seeded_generator(0, "directions")).float().to(device)

    def work() -> int:
        for _ in range(_BLOCK):
            x = torch.randn(batch, 100, device=device)
            y = make_labels(x, weights, torch.randn(batch, 2, device=device))
            optimiser.zero_grad()
            squared_error(model(x), y).sum().backward()
            optimiser.step()
        return _BLOCK

    return work


def _jax(runs: int, batch: int) -> Run:
    """The same in JAX: vmap of a scan of steps, matrix products in the precision "highest"."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_matmul_precision", "highest")
    experts, units, tasks, d, tower = 8, 16, 2, 100, 8
    keys = jax.random.split(jax.random.PRNGKey(0), 9)

    def uniform(key: Any, shape: tuple[int, ...], inputs: int) -> Any:
        return jax.random.uniform(key, (runs, *shape), minval=-(inputs**-0.5), maxval=inputs**-0.5)

    parameters = {
        "experts": uniform(keys[0], (d, experts * units), d),
        "experts_bias": uniform(keys[1], (experts * units,), d),
        "gates": uniform(keys[2], (d, tasks * experts), d),
        "towers": uniform(keys[3], (tasks, units, tower), units),
        "towers_bias": uniform(keys[4], (tasks, tower), units),
        "outputs": uniform(keys[5], (tasks, tower), tower),
        "outputs_bias": uniform(keys[6], (tasks,), tower),
    }
    weights = jnp.stack(
        [task_weights(P, seeded_generator(s, "directions")).float().numpy() for s in range(runs)]
    )
    pool = jax.random.normal(keys[8], (2**24,))
    alpha = jnp.array([3.627, 6.449, 10.7, 13.654])

    def losses(theta: Any, x: Any, y: Any) -> Any:
        f = jax.nn.relu(x @ theta["experts"] + theta["experts_bias"]).reshape(-1, experts, units)
        g = jax.nn.softmax((x @ theta["gates"]).reshape(-1, tasks, experts), -1)
        mixed = jnp.einsum("bkn,bnh->bkh", g, f)
        hidden = jax.nn.relu(jnp.einsum("bkh,kht->bkt", mixed, theta["towers"]) + theta["towers_bias"])
        outputs = jnp.einsum("bkt,kt->bk", hidden, theta["outputs"]) + theta["outputs_bias"]
        each = ((outputs - y) ** 2).mean(0)
        return each.sum(), each

    def one(state: Any, key: Any, w: Any) -> Any:
        theta, m, v, t = state
        place, noise = jax.random.split(key)
        start = jax.random.randint(place, (), 0, 2**24 - batch * d)
        x = jax.lax.dynamic_slice(pool, (start,), (batch * d,)).reshape(batch, d)
        z = x @ w.T
        y = z + jnp.sin(alpha * z[..., None] + jnp.pi / 2).sum(-1) + 0.1 * jax.random.normal(noise, z.shape)
        gradient, each = jax.grad(losses, has_aux=True)(theta, x, y)
        t = t + 1
        m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, gradient)
        v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, gradient)
        first, second = 1 / (1 - 0.9**t), 1 / jnp.sqrt(1 - 0.999**t)
        theta = jax.tree.map(
            lambda a, b, c: a - 1e-3 * first * b / (jnp.sqrt(c) * second + 1e-8), theta, m, v
        )
        return (theta, m, v, t), each

    def block(state: Any, key: Any, w: Any) -> Any:
        return jax.lax.scan(lambda s, k: one(s, k, w), state, jax.random.split(key, 50))

    def zeros() -> Any:
        return jax.tree.map(jnp.zeros_like, parameters)

    fifty = jax.jit(jax.vmap(block), donate_argnums=0)
    held = [(parameters, zeros(), zeros(), jnp.zeros(runs))]
    drawn = jax.random.split(jax.random.PRNGKey(1), runs)

    def work() -> int:
        for _ in range(_BLOCK // 50):
            state, each = fifty(held[0], drawn, weights)
            held[0] = state
        jax.block_until_ready(each)
        return _BLOCK * runs

    return work


def _short(runs: int, steps: int, device: str) -> dict[str, float]:
    """Seconds of one whole training of so many steps in this process, which has only imported torch."""
    start = time.perf_counter()
    ensemble, _ = _ensemble(runs, device)
    batches = stream(P, range(runs), 32, device=device)
    train(ensemble, batches, squared_error, TrainingSettings(steps), progress=False)
    return {"seconds": time.perf_counter() - start}


def measure_one(
    kind: str, runs: int, batch: int, device: str, rounds: int, seconds: float
) -> dict[str, float]:
    """What one contender reaches: the median of the rounds, their lowest and highest, and seconds until it was ready."""
    start = time.perf_counter()
    if kind == "short":
        return _short(runs, batch, device)
    if kind == "JAX":
        work = _jax(runs, batch)
    elif kind == "plain loop":
        work = _plain_loop(batch, device)
    elif kind == "feed":
        work = _feed(runs, batch, device)
    else:
        work = _training(kind, runs, batch, device)
    work()
    _wait(device)
    ready = time.perf_counter() - start
    speeds = []
    for _ in range(rounds):
        before, done = time.perf_counter(), 0
        while time.perf_counter() - before < seconds:
            done += work()
            _wait(device)
        speeds.append(done / (time.perf_counter() - before))
    return {
        "per_second": float(np.median(speeds)),
        "lowest": min(speeds),
        "highest": max(speeds),
        "ready_seconds": ready,
    }


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def contenders(device: str) -> Iterator[tuple[str, int, int, str]]:
    """Kind, runs, rows of a minibatch (of a short training its steps), device; the most wanted first."""
    jax = importlib.util.find_spec("jax") is not None
    for runs, batch in SHAPES:
        yield "whole", runs, batch, device
        if jax:
            yield "JAX", runs, batch, device
    yield from (("feed", runs, batch, device) for runs, batch in SHAPES)
    for batch in (32, 256):
        yield from (("plain loop", 1, batch, where) for where in (device, "cpu"))
    for runs, steps in SHORT:
        yield from (("short", runs, steps, where) for where in (device, "cpu"))
    yield from (("whole", runs, batch, device) for runs, batch in MORE_SHAPES)
    for kind in ("not tuned", "not compiled"):
        yield from ((kind, runs, batch, device) for runs, batch in ((200, 32), (1000, 64)))
    yield from (("fresh", 1000, 64, device), ("step", 200, 32, device), ("step", 1000, 64, device))


def _command(contender: tuple[str, int, int, str], settings: Settings) -> list[str]:
    told = json.dumps([*contender, settings.rounds, settings.seconds])
    return [sys.executable, "-m", "companion.benchmarks.gpu", told]


def measure(chosen: Sequence[tuple[str, int, int, str]], settings: Settings, minutes: float) -> pd.DataFrame:
    """One row a contender, each in a process of its own; none is started after so many minutes.

    Columns: kind, runs, batch or steps, where ("cpu" or "cuda"), what `measure_one` gives, and JAX's version.
    """
    rows, start = [], time.monotonic()
    for kind, runs, size, where in progress_bar(
        chosen, label="measuring", unit="contender", show=settings.progress
    ):
        if time.monotonic() - start > 60 * minutes:
            print(f"the time is over before {kind}, {runs} x {size}", file=sys.stderr)
            break
        done = subprocess.run(
            _command((kind, runs, size, where), settings), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
            print(f"{kind}, {runs} x {size}: {reason}", file=sys.stderr)
            continue
        found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        named = {"steps": size} if kind == "short" else {"batch": size}
        if kind in TRAINED:
            named["lanes"] = LANES
        rows.append({"kind": kind, "runs": runs, **named, "where": where, **found})
    columns = [
        "kind",
        "runs",
        "batch",
        "steps",
        "where",
        "lanes",
        "per_second",
        "lowest",
        "highest",
        "ready_seconds",
        "seconds",
    ]
    jax = importlib.metadata.version("jax") if importlib.util.find_spec("jax") else "none"
    return pd.DataFrame(rows).reindex(columns=columns).assign(jax_version=jax)


def _measured(settings: Settings, options: argparse.Namespace) -> pd.DataFrame:
    if settings.device == "cpu":
        raise ValueError("device is 'cpu', expected a GPU: for a CPU there is the benchmark `training`")
    return measure(list(contenders(settings.device)), settings, options.minutes)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(device="cuda")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="after which no contender is started (default 30)"
    )


def _show(rows: pd.DataFrame) -> str:
    return rows.drop(columns="jax_version").round(1).to_string(index=False, na_rep="")


BENCHMARK = Benchmark(
    "gpu",
    "How fast does a GPU train many runs, against a plain loop and JAX?",
    _measured,
    _show,
    rounds=5,
    seconds=0.3,
    add_arguments=_add_arguments,
)


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Kernels are compiled in the process: workers of torch's own take longer to start than to compile these few.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    print(json.dumps(measure_one(*json.loads(sys.argv[1]))))
