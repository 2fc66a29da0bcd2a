"""The frame of all benchmarks: works that take turns, a fresh process, a table of text, and rows with their origin."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from companion.study.origin import Origin
from companion.study.workers import Failed, WorkerDiedError, side_by_side
from mmoe_lib.progress import progress_bar
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training.devices import checked_device

Work = Callable[[], int]
"""Does a little and says how many steps, requests or operations that was."""

Key = TypeVar("Key", bound=Hashable)
Measured = tuple[float, float, float]
"""How much was done a second, and the 50th and 99th percentile of the milliseconds a call took."""


def work_for(work: Work, seconds: float, device: str) -> tuple[float, float, float]:
    """How much is done a second, and the 50th and 99th percentile of the milliseconds a call takes."""
    done, times = 0, []
    start = before = time.perf_counter()
    while before - start < seconds:
        done += work()
        now = time.perf_counter()
        times.append(now - before)
        before = now
    if device != "cpu":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    half, most = np.percentile(times, [50, 99]) * 1e3
    return done / elapsed, float(half), float(most)


def interleaved(
    works: Mapping[Key, Work],
    rounds: int,
    seconds: float,
    device: torch.device | str = "cpu",
    *,
    seed: int = 0,
    progress: bool = True,
) -> dict[Key, list[Measured]]:
    """Let every work run for some seconds in each round, in an order drawn anew; what each round measured.

    A first round of a few calls each, which is not counted, warms up.
    """
    for work in progress_bar(works.values(), label="warming up", unit="work", show=progress):
        for _ in range(3):
            work()
    keys, measured = list(works), {key: list[Measured]() for key in works}
    generator = seeded_generator(seed, "order of the works")
    for _ in progress_bar(range(rounds), label="measuring", unit="round", show=progress):
        for at in torch.randperm(len(keys), generator=generator).tolist():
            measured[keys[at]].append(work_for(works[keys[at]], seconds, str(device)))
    return measured


def peak_memory() -> int:
    """Most bytes that this process has held in memory so far, mapped pages included; 0 where no system tells.

    From /proc where there is one: what getrusage gives a process begins, on Linux, with the peak of the one that
    started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        rounds: Of which the table shows medians.
        seconds: Of each measurement in a round.
        device: Where.
        progress: Show progress bars.
    """

    rounds: int = 15
    seconds: float = 0.5
    device: str = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, expected 1 or more")
        if self.seconds <= 0:
            raise ValueError(f"seconds is {self.seconds}, expected more than 0")


def measure_apart(function: Callable[[Settings], pd.DataFrame], settings: Settings) -> pd.DataFrame:
    """What a function measures in a fresh process, which starts with `companion.study.workers.fast_environment`.

    Raises:
        WorkerDiedError: If the process died.
        ValueError: If the function raised; with what it said.
    """
    ((_, rows),) = side_by_side(function, [settings], 1)
    if isinstance(rows, Failed):
        raise WorkerDiedError(rows.reason) if rows.died else ValueError(rows.reason)
    return rows


def nothing_more(parser: argparse.ArgumentParser) -> None:
    """Adds no arguments."""


@dataclass(frozen=True)
class Benchmark:
    """One question that is measured, as the command line runs it.

    Attributes:
        name: What it is called there.
        question: What it answers, in a line.
        measure: Gives its rows for settings and the options of the command line.
        show: Its rows as a table of text.
        rounds: How many, when nothing else is asked for.
        seconds: Of each measurement in a round, likewise.
        add_arguments: Adds options that only this one has.
        told: What of these options stands in the command of its rows.
        on_gpu: Whether it can be measured on a GPU.
    """

    name: str
    question: str
    measure: Callable[[Settings, argparse.Namespace], pd.DataFrame]
    show: Callable[[pd.DataFrame], str]
    rounds: int
    seconds: float
    add_arguments: Callable[[argparse.ArgumentParser], None] = nothing_more
    told: Callable[[argparse.Namespace], str] = lambda options: ""
    on_gpu: bool = True


def add_arguments(parser: argparse.ArgumentParser, benchmark: Benchmark) -> None:
    """The arguments that all benchmarks have, and its own."""
    parser.add_argument(
        "--rounds",
        type=int,
        default=benchmark.rounds,
        help=f"of which the table shows medians (default {benchmark.rounds})",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=benchmark.seconds,
        help=f"of each measurement and round (default {benchmark.seconds:g})",
    )
    parser.add_argument("--csv", type=Path, help="also write the rows with their origin there")
    if benchmark.on_gpu:
        parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    benchmark.add_arguments(parser)


def run_benchmark(benchmark: Benchmark, options: argparse.Namespace) -> int:
    """Measure with the options of `add_arguments`, print the table, write the file; the exit status."""
    try:
        device = checked_device(options.device if benchmark.on_gpu else "cpu")
        rows = benchmark.measure(Settings(options.rounds, options.seconds, str(device)), options)
        print(benchmark.show(rows))
        if options.csv is not None:
            command = f"python -m companion.benchmarks {benchmark.name}{benchmark.told(options)}"
            origin = Origin.now(command, "-", device, "synthetic")
            rows.round(4).assign(**origin.columns()).to_csv(options.csv, index=False)
    except (ValueError, OSError, WorkerDiedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
