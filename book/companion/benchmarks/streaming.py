"""Does a log that memory does not hold train as fast? python -m companion.benchmarks streaming measures it.

Three processes train the same MMoE ranker with Adam on batches of 1024: on a log held in memory, on the same log
streamed from disk, and on one so many times as long, streamed. All wait; in each round each is let run for some
seconds, one after another, so that a machine whose speed drifts is slow for all of them alike. The logs are
random: their columns have KuaiRand's types, widths and numbers of users and videos, and nothing can be learnt.

Before the first round the files are dropped from the system's cache where it lets us, so that the long log comes
from the disk and not from memory that nobody counts. Memory is the peak of the process, mapped pages included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.benchmarks.measure import Benchmark, Settings, peak_memory
from companion.benchmarks.random_log import CHUNK, random_impressions, random_tables
from companion.study.rankers import build_ranker
from companion.study.workers import WorkerDiedError, fast_environment
from mmoe_lib.models import Ranker
from mmoe_lib.progress import progress_bar
from mmoe_lib.tasks.kuairand.features import FeatureTables
from mmoe_lib.tasks.kuairand.store import ImpressionStore, open_store, write
from mmoe_lib.training import Adam, Ensemble, binary_cross_entropy
from mmoe_lib.training.batches import joined_epochs
from mmoe_lib.training.step import Step
from mmoe_lib.training.streaming import streamed_epochs

BATCH = 1024


@dataclass(frozen=True)
class Contender:
    """A training that is measured.

    Attributes:
        log: "in memory" or "streamed".
        folder: Its store.
    """

    log: str
    folder: Path

    def batches(self, store: ImpressionStore) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """Its minibatches without end."""
        if self.log == "streamed":
            return streamed_epochs(
                store.columns,
                store.take_pairs,
                BATCH,
            )
        part = store.impressions()
        return joined_epochs(lambda rows: store.features.pairs(part, rows), len(part), BATCH)


def ranker(features: FeatureTables) -> Callable[..., Ranker]:
    """The model that is trained: MMoE of the recommendation study."""
    return build_ranker("MMoE", len(features.sparse_names), len(features.dense_names), features.vocabulary)


def _contend(contender: Contender, pipe: Connection) -> None:
    """The life of a contender's process: get ready, then train for as long as each message says."""
    torch.set_num_threads(1)
    try:
        store = open_store(contender.folder)
        batches = contender.batches(store)
        ensemble = Ensemble(ranker(store.features), [0])
        step, numbers = Step(ensemble, binary_cross_entropy, torch.full((1,), 1e-3), Adam()), count(1)
        for _ in range(5):
            step(*next(batches), next(numbers))
    except (ValueError, OSError) as error:
        pipe.send(error)
        return
    pipe.send(None)
    while (seconds := float(pipe.recv())) > 0:
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            step(*next(batches), next(numbers))
            done += BATCH
        pipe.send(done / (time.perf_counter() - start))
    pipe.send(peak_memory())


def _receive(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise WorkerDiedError(
            "a training process died, expected it to answer: see whether memory ran out, and start again"
        ) from error


def measure(
    contenders: list[Contender], rounds: int, seconds: float, *, progress: bool = True
) -> pd.DataFrame:
    """Train each contender in a process of its own, in turn.

    Returns:
        One row a contender: log, rows (of the log), disk_mb, per_second (rows trained on, the median of the
        rounds), lowest and highest, ratio (to the first contender, the median over rounds), memory_mb (peak).

    Raises:
        ValueError: If a store is damaged.
        FileNotFoundError: If there is none.
        WorkerDiedError: If a process died.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    speeds = np.empty((rounds, len(contenders)))
    try:
        with fast_environment():
            for contender in contenders:
                ours, theirs = context.Pipe()
                process = context.Process(target=_contend, args=(contender, theirs), daemon=True)
                process.start()
                theirs.close()
                pipes.append(ours)
                processes.append(process)
                if (error := _receive(ours)) is not None:
                    raise error
        for number in progress_bar(range(rounds), label="measuring", unit="round", show=progress):
            for at, pipe in enumerate(pipes):
                pipe.send(seconds)
                speeds[number, at] = _receive(pipe)
        for pipe in pipes:
            pipe.send(0.0)
        memory = [_receive(pipe) for pipe in pipes]
    finally:
        for process in processes:
            process.terminate()
            process.join()
    stores = [open_store(contender.folder) for contender in contenders]
    return pd.DataFrame(
        {
            "log": [contender.log for contender in contenders],
            "rows": [len(store) for store in stores],
            "disk_mb": [sum(f.stat().st_size for f in store.folder.iterdir()) / 2**20 for store in stores],
            "per_second": np.median(speeds, axis=0),
            "lowest": speeds.min(axis=0),
            "highest": speeds.max(axis=0),
            "ratio": np.median(speeds / speeds[:, :1], axis=0),
            "memory_mb": [peak / 2**20 for peak in memory],
        }
    )


def drop_from_cache(folder: Path) -> None:
    """Ask the system to forget what it has cached of the files in a folder; does nothing where it cannot."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())  # pages that are not yet on the disk cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def show(rows: pd.DataFrame) -> str:
    """The rows of `measure` as a table of text."""
    digits = dict.fromkeys(["rows", "disk_mb", "per_second", "lowest", "highest", "memory_mb"], 0) | {
        "ratio": 3
    }
    table = rows.astype(object)
    for name, places in digits.items():
        table[name] = [f"{value:,.{places}f}" for value in rows[name]]
    names = {
        "disk_mb": "MB on disk",
        "per_second": "rows/s",
        "ratio": "x in memory",
        "memory_mb": "peak MB",
    }
    return table.rename(columns=names).to_string(index=False)


def run(
    num_rows: int,
    times: int,
    rounds: int,
    seconds: float,
    folder: Path | None = None,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Write a log and one that is so many times as long into a temporary folder, measure, delete them.

    Args:
        num_rows: Of the short log.
        times: How many times as long the other one is.
        rounds: Each contender's turns.
        seconds: Of a turn.
        folder: Where the temporary folder is made; None for the system's place.
        progress: Show progress bars.

    Returns:
        The rows of `measure`.

    Raises:
        ValueError: If a number is too small.
        OSError: If the folder cannot be written or the disk is full.
    """
    for name, value, least in (("rows", num_rows, BATCH), ("times", times, 1), ("rounds", rounds, 1)):
        if value < least:
            raise ValueError(f"{name} is {value}, expected {least} or more")
    if seconds <= 0:
        raise ValueError(f"seconds is {seconds}, expected more than 0")
    features = random_tables()
    with tempfile.TemporaryDirectory(dir=folder, prefix="mmoe-streaming-") as place:
        folders = [Path(place) / name for name in ("short", "long")]
        for store, rows in zip(folders, (num_rows, num_rows * times), strict=True):
            pieces = random_impressions(features, rows)
            label, chunks = f"writing {rows:,} rows", -(-rows // CHUNK)
            write(
                store, progress_bar(pieces, total=chunks, label=label, unit="piece", show=progress), features
            )
            drop_from_cache(store)
        short, long = folders
        contenders = [
            Contender("in memory", short),
            Contender("streamed", short),
            Contender("streamed", long),
        ]
        return measure(contenders, rounds, seconds, progress=progress)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="of the short log (default 1,000,000, as KuaiRand-Pure)"
    )
    parser.add_argument(
        "--times", type=int, default=100, help="how often the long log holds as many (default 100, 4 GB)"
    )
    parser.add_argument("--folder", type=Path, help="where the logs are written (default: the system's /tmp)")


def _measured(settings: Settings, options: argparse.Namespace) -> pd.DataFrame:
    return run(
        options.rows,
        options.times,
        settings.rounds,
        settings.seconds,
        options.folder,
        progress=settings.progress,
    )


BENCHMARK = Benchmark(
    "streaming",
    "Does a log that memory does not hold train as fast: rows a second and peak memory?",
    _measured,
    show,
    rounds=7,
    seconds=20.0,
    add_arguments=_add_arguments,
    told=lambda options: f" --rows {options.rows} --times {options.times}",
    on_gpu=False,
)
