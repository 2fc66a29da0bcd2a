"""How fast are many runs as one computation? python -m companion.benchmarks training measures it here.

`training` measures the models of section 5.1, `census` the seven methods at the settings that tuning chose for the
income group, on random inputs of the census shape.

Every contender is a process of its own that is ready and waits; in each round each is let run for a moment,
one after another, so that a machine whose speed drifts is slow for all of them alike. The table shows medians.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from companion.benchmarks.measure import Benchmark, Settings, Work, peak_memory, work_for
from companion.benchmarks.random_people import CENSUS_INPUTS, random_people
from companion.checkout import ROOT
from companion.study.cells import read_rows
from companion.study.search_space import METHODS, build, read_settings
from companion.study.tuning import best_settings
from companion.study.workers import fast_environment
from mmoe_lib.models import L2Constrained, count_multiply_adds, paper_model
from mmoe_lib.progress import progress_bar
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.synthetic import InputPool, make_labels, stream, task_weights
from mmoe_lib.training import Adam, Ensemble, binary_cross_entropy, epochs, squared_error
from mmoe_lib.training.advance import advance_of
from mmoe_lib.training.step import Step

P = 0.5
CENSUS_BATCH = 1024
PEAK_SIZE = 1024
"""Side of the square matrices whose product is this machine's peak."""


class PlainMMoE(nn.Module):
    """MMoE as most people write it: a list of experts, a list of gates, a list of towers (section 5.1's sizes).

    The same function of its weights as `mmoe_lib.models.MMoE`, here only to be measured against.
    """

    def __init__(self, num_tasks: int = 2) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(100, 16), nn.ReLU()) for _ in range(8))
        self.gates = nn.ModuleList(nn.Linear(100, 8, bias=False) for _ in range(num_tasks))
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)) for _ in range(num_tasks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, 100) to outputs (B, K)."""
        experts = torch.stack([expert(x) for expert in self.experts], dim=1)  # (B, n, h)
        outputs = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            weights = torch.softmax(gate(x), dim=-1)  # (B, n)
            outputs.append(tower((weights.unsqueeze(-1) * experts).sum(dim=1)))  # (B, 1)
        return torch.cat(outputs, dim=-1)


@dataclass(frozen=True)
class Contender:
    """Something that is measured.

    Attributes:
        kind: "plain loop", "ensemble", "ensemble, eager", "inference" or "matmul peak".
        model: Its name, or "-".
        batch: Rows of a minibatch, or of a request.
        runs: R.
        threads: Of each process.
        processes: That do the same at the same time.
        inputs: "pool" or "fresh", of a training; a plain loop always draws its own.
        device: Where.
        settings: A census method's own settings; "" for the synthetic shape.
    """

    kind: str
    model: str = "-"
    batch: int = 0
    runs: int = 1
    threads: int = 1
    processes: int = 1
    inputs: str = "pool"
    device: str = "cpu"
    settings: str = ""

    @property
    def num_inputs(self) -> int:
        """Width of its inputs."""
        return CENSUS_INPUTS if self.settings else 100

    def build(self, num_inputs: int | None = None, generator: torch.Generator | None = None) -> nn.Module:
        """One run of its model."""
        builder = (
            build(self.model, read_settings(self.settings)) if self.settings else paper_model(self.model)
        )
        return builder(num_inputs or self.num_inputs, 2, generator=generator)


def training_flops(contender: Contender) -> int:
    """Floating point operations of one training step of one run: two a multiply-add, forward and backward.

    Backward computes a gradient for every weight, and one for every layer's input but for x itself. Labels,
    ReLU, softmax, Adam and the penalty of L2-Constrained are left out.
    """
    width = contender.num_inputs
    forward, wider = (count_multiply_adds(contender.build(inputs)) for inputs in (width, width + 1))
    reads_x = (wider - forward) * width
    return 2 * contender.batch * (2 * forward + forward - reads_x)


def _matmul(contender: Contender) -> Work:
    a, b = torch.randn(2, PEAK_SIZE, PEAK_SIZE, device=contender.device)
    product = torch.empty_like(a)

    def work() -> int:
        torch.mm(a, b, out=product)
        return 2 * PEAK_SIZE**3

    return work


def _plain_loop(contender: Contender) -> Work:
    """What a user would write: fresh inputs, one module, torch.optim.Adam."""
    torch.manual_seed(0)
    if contender.settings:
        return _plain_census_loop(contender)
    model = PlainMMoE() if contender.model == "MMoE" else contender.build()
    model = model.to(contender.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = task_weights(P, seeded_generator(0, "directions")).float().to(contender.device)

    def work() -> int:
        x = torch.randn(contender.batch, 100, device=contender.device)
        y = make_labels(x, weights, torch.randn(contender.batch, 2, device=contender.device))
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimiser.step()
        return 1

    return work


def _census_batches(contender: Contender) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows with as many ones as an encoded person has, the same for all runs."""
    generator = seeded_generator(0, "benchmark")
    x, y = random_people(20 * CENSUS_BATCH, generator)
    return epochs(x.to(contender.device), y.to(contender.device), contender.batch)


def _plain_census_loop(contender: Contender) -> Work:
    model, batches = contender.build().to(contender.device), _census_batches(contender)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def work() -> int:
        x, y = next(batches)
        optimiser.zero_grad()
        loss = binary_cross_entropy(model(x), y).sum()
        if isinstance(model, L2Constrained):
            loss = loss + model.penalty(x)
        loss.backward()
        optimiser.step()
        return 1

    return work


def _ensemble(contender: Contender) -> Work:
    seeds, device = range(contender.runs), contender.device
    ensemble = Ensemble(contender.build, seeds, device=device)
    rates = torch.full((len(ensemble),), 1e-3, device=device)
    step = Step(ensemble, binary_cross_entropy if contender.settings else squared_error, rates, Adam())
    if contender.settings:
        batches = _census_batches(contender)
    else:
        pool = InputPool.draw(device=device) if contender.inputs == "pool" else None
        batches = stream(P, seeds, contender.batch, pool=pool, device=device)
    advance, numbers = advance_of(step, batches, compile=contender.kind != "ensemble, eager"), count(1)

    def work() -> int:
        advance(next(numbers), 1)
        return len(ensemble)

    return work


def _inference(contender: Contender) -> Work:
    model = contender.build().to(contender.device).eval()
    x = torch.randn(contender.batch, contender.num_inputs, device=contender.device)

    @torch.inference_mode()
    def work() -> int:
        model(x)
        return 1

    return work


_WORK = {
    "matmul peak": _matmul,
    "plain loop": _plain_loop,
    "ensemble": _ensemble,
    "ensemble, eager": _ensemble,
    "inference": _inference,
}


def _contend(contender: Contender, pipe: Connection) -> None:
    """The life of a contender's process: get ready, then work for as long as each message says."""
    torch.set_num_threads(contender.threads)
    work = _WORK[contender.kind](contender)
    for _ in range(5):
        work()
    pipe.send("ready")
    while True:
        seconds: float = pipe.recv()
        if seconds <= 0:
            pipe.send(peak_memory())
            return
        pipe.send(work_for(work, seconds, contender.device))


@dataclass
class _Process:
    """A contender's processes, ready and waiting, and what was measured so far."""

    contender: Contender
    pipes: list[Connection] = field(default_factory=list)
    rounds: list[tuple[float, float, float]] = field(default_factory=list)
    memory: int = 0

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        threads = str(self.contender.threads)
        os.environ.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        for _ in range(self.contender.processes):
            ours, theirs = context.Pipe()
            context.Process(target=_contend, args=(self.contender, theirs), daemon=True).start()
            theirs.close()
            self.pipes.append(ours)

    def wait(self) -> None:
        for pipe in self.pipes:
            pipe.recv()

    def run(self, seconds: float) -> None:
        for pipe in self.pipes:
            pipe.send(seconds)
        results = [pipe.recv() for pipe in self.pipes]
        self.rounds.append((sum(r[0] for r in results), results[0][1], results[0][2]))

    def stop(self) -> None:
        for pipe in self.pipes:
            pipe.send(0.0)
            self.memory = max(self.memory, pipe.recv())


def contenders(device: str = "cpu") -> Iterator[Contender]:
    """Everything that the table compares."""
    yield Contender("matmul peak", device=device)
    for batch in (32, 128, 256):
        yield Contender("plain loop", "MMoE", batch, inputs="fresh", device=device)
        if device == "cpu":
            yield Contender("plain loop", "MMoE", batch, threads=2, inputs="fresh")
            runs = {32: 20, 128: 10, 256: 8}[batch]
            yield Contender("ensemble", "MMoE", batch, runs)
            yield Contender("ensemble", "MMoE", batch, runs, processes=2)
        else:
            yield Contender("ensemble", "MMoE", batch, 200, device=device)
    runs = 20 if device == "cpu" else 200
    yield Contender("ensemble", "MMoE", 32, runs, inputs="fresh", device=device)
    yield Contender("ensemble, eager", "MMoE", 32, runs, device=device)
    yield Contender("ensemble", "MMoE", 32, 1, device=device)
    for model in ("Shared-Bottom", "OMoE"):
        yield Contender("plain loop", model, 32, inputs="fresh", device=device)
        yield Contender("ensemble", model, 32, runs, device=device)
    for model in ("Shared-Bottom", "OMoE", "MMoE"):
        for batch in (1, 4096):
            yield Contender("inference", model, batch, device=device)


def census_contenders(device: str = "cpu", preset: str = "paper") -> Iterator[Contender]:
    """The seven methods at the settings of the census study, training and answering.

    Raises:
        ValueError: If tuning has not chosen them.
    """
    trials = read_rows(ROOT / "data" / "results" / "census_tuning.csv")
    chosen = best_settings(trials[trials["preset"] == preset]) if len(trials) else {}
    yield Contender("matmul peak", device=device)
    for method in METHODS:
        if (method, "income") not in chosen:
            raise ValueError(
                f"there are no trials of {method}, income, expected some: run the census study first"
            )
        settings = chosen[method, "income"].settings
        yield Contender("plain loop", method, CENSUS_BATCH, inputs="census", device=device, settings=settings)
        # As the study trains: on a CPU compiling such steps does not pay.
        kind, runs = ("ensemble, eager", 20) if device == "cpu" else ("ensemble", 400)
        yield Contender(kind, method, CENSUS_BATCH, runs, inputs="census", device=device, settings=settings)
        for batch in (1, 4096):
            yield Contender("inference", method, batch, inputs="census", device=device, settings=settings)


def measure(
    chosen: Sequence[Contender], rounds: int, seconds: float, *, progress: bool = True
) -> pd.DataFrame:
    """One row a contender, medians of the rounds.

    Columns: those of `Contender`; per_second: steps of a single run, or requests, in all processes together;
    lowest and highest of the rounds; ratio: to the plain loop of one thread on the same model and batch;
    user_ratio: to the plain loop of two threads; gflops and peak_share: of a training, a process, against the
    measured matrix product; p50_ms and p99_ms: of one call; memory_mb: most of any process.
    """
    with fast_environment():
        before = dict(os.environ)
        processes = [_Process(contender) for contender in chosen]
        try:
            for process in progress_bar(processes, label="getting ready", unit="contender", show=progress):
                process.start()
                process.wait()
        finally:
            os.environ.clear()
            os.environ.update(before)
    for _ in progress_bar(range(rounds), label="measuring", unit="round", show=progress):
        for process in processes:
            process.run(seconds)
    for process in processes:
        process.stop()
    return pd.DataFrame(_with_ratios([_row(process) for process in processes]))


def _row(process: _Process) -> dict[str, Any]:
    speeds = [speed for speed, _, _ in process.rounds]
    per_second, half, most = np.median(np.array(process.rounds), axis=0)
    return asdict(process.contender) | {
        "per_second": float(per_second),
        "lowest": min(speeds),
        "highest": max(speeds),
        "p50_ms": float(half),
        "p99_ms": float(most),
        "memory_mb": process.memory / 2**20,
    }


def _with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds what compares a row with the plain loops and with the matrix product; NaN where nothing does."""
    plain = {
        (row["model"], row["batch"], row["threads"]): row["per_second"]
        for row in rows
        if row["kind"] == "plain loop"
    }
    peak = next((row["per_second"] for row in rows if row["kind"] == "matmul peak"), math.nan)
    for row in rows:
        trains = row["kind"] in ("plain loop", "ensemble", "ensemble, eager")
        for name, threads in (("ratio", 1), ("user_ratio", 2)):
            other = plain.get((row["model"], row["batch"], threads), math.nan)
            row[name] = row["per_second"] / other if trains else math.nan
        flops = 1.0 if row["kind"] == "matmul peak" else math.nan
        if trains:
            contender = Contender(**{f.name: row[f.name] for f in fields(Contender) if f.name in row})
            flops = training_flops(contender) / contender.processes
        row["gflops"] = row["per_second"] * flops / 1e9
        row["peak_share"] = row["per_second"] * flops / peak
    return rows


SHOWN = {
    "kind": "contender",
    "model": "model",
    "batch": "batch",
    "runs": "R",
    "processes": "processes",
    "threads": "threads",
    "inputs": "inputs",
    "per_second": "steps/s",
    "ratio": "x plain",
    "user_ratio": "x plain, 2 threads",
    "gflops": "GFLOP/s a process",
    "peak_share": "share of peak",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "memory_mb": "MB a process",
}
_DIGITS = {
    "steps/s": 0,
    "MB a process": 0,
    "GFLOP/s a process": 1,
    "share of peak": 2,
    "p50 ms": 3,
    "p99 ms": 3,
}


def show(rows: pd.DataFrame) -> str:
    """The rows of `measure` as a table of text."""
    table = rows[list(SHOWN)].rename(columns=SHOWN)
    for name in table.columns[7:]:
        digits = _DIGITS.get(name, 1)
        table[name] = ["" if np.isnan(value) else f"{value:,.{digits}f}" for value in table[name]]
    table = table.astype(object)
    table.loc[rows["kind"].isin(["inference", "matmul peak"]), ["R", "inputs"]] = ""
    table.loc[rows["kind"] == "matmul peak", ["batch", "steps/s"]] = ""
    return table.to_string(index=False)


def _measured(contenders_of: Callable[[str], Iterator[Contender]]) -> Callable[..., pd.DataFrame]:
    def measured(settings: Settings, options: argparse.Namespace) -> pd.DataFrame:
        chosen = list(contenders_of(settings.device))
        return measure(chosen, settings.rounds, settings.seconds, progress=settings.progress)

    return measured


SYNTHETIC = Benchmark(
    "training",
    "How fast are many runs as one computation, with the models of section 5.1?",
    _measured(contenders),
    show,
    rounds=7,
    seconds=1.0,
)
CENSUS = Benchmark(
    "census",
    "The same for the seven methods of chapter 4, on random inputs of the census shape.",
    _measured(census_contenders),
    show,
    rounds=7,
    seconds=1.0,
)
