"""What does each method of section 6.4 cost to serve? python -m mmoe_lib.serving_benchmark measures it here.

All methods are measured in one process with one thread. In each round every method answers for a moment, the
methods in random order, so that a machine whose speed drifts is slow for all of them alike; ratios compare a method
with Shared-Bottom in the same round. A request is one user with some candidate videos.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmoe_lib.benchmark import Work, work_for
from mmoe_lib.export import export_model
from mmoe_lib.models import Ranker, count_multiply_adds, count_parameters
from mmoe_lib.progress import progress_bar
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.streaming_benchmark import random_impressions, random_tables
from mmoe_lib.study.kuairand import METHODS, build_ranker
from mmoe_lib.study.origin import Origin
from mmoe_lib.study.workers import WorkerDiedError, Workers
from mmoe_lib.tasks.kuairand_features import FeatureTables
from mmoe_lib.training.ensemble import checked_device

REFERENCE = "Shared-Bottom"
REQUEST_ROWS = (1, 1000)
"""Candidates of a request."""

THROUGHPUT_ROWS = 4096
"""Rows of a batch that is computed for its own sake, as when a catalogue is scored overnight."""

NUM_REQUESTS = 16
"""Requests that a method answers in turn, so that none finds all its vectors in the nearest cache."""

Key = TypeVar("Key", bound=Hashable)
Measured = tuple[float, float, float]
"""How much was done a second, and the 50th and 99th percentile of the milliseconds a call took."""


def kuairand_tables() -> FeatureTables:
    """Random feature tables with as many ids as the encoding of the 1,045,516 rows of KuaiRand-Pure: 40,311."""
    return random_tables(num_users=27_285, num_videos=11_368)


def requests(
    features: FeatureTables, rows: int, number: int = NUM_REQUESTS, *, seed: int = 0
) -> list[Tensor]:
    """Inputs (rows, S + F) of so many requests, each one user with `rows` random candidates."""
    (drawn,) = random_impressions(features, rows * number, seed=seed)
    inputs = []
    for start in range(0, rows * number, rows):
        # What is known of the user is the same in all rows of a request.
        user = {
            name: getattr(drawn, name)[start].expand(len(drawn)) for name in ("user", "previous", "outcome")
        }
        x, _ = features.rows(replace(drawn, **user), slice(start, start + rows))
        inputs.append(x)
    return inputs


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


def _answering(model: Callable[[Tensor], Tensor], inputs: list[Tensor]) -> Work:
    """One call answers one of the inputs, and is over when the answer is there."""
    rows, waiting = len(inputs[0]), cycle(inputs)

    @torch.inference_mode()
    def work() -> int:
        outputs = model(next(waiting))
        if outputs.is_cuda:
            torch.cuda.synchronize()
        return rows

    return work


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
        if self.rounds < 1 or self.seconds <= 0:
            raise ValueError(
                f"rounds is {self.rounds} and seconds {self.seconds}, expected 1 or more, and more than 0"
            )


def measure(settings: Settings) -> pd.DataFrame:
    """Measure all methods in this process.

    Returns:
        One row a method: model; parameters, embedding_parameters (of these) and multiply_adds of an example. For b
        of `REQUEST_ROWS`: p50_ms_b and p99_ms_b of a request to the module, medians of the rounds; ratio_b, the
        median over rounds of its p50 over that of Shared-Bottom, ratio_b_low and ratio_b_high, the lowest and
        highest of them; exported_p50_ms_b, of the `torch.export` program; compiled_p50_ms_b, compiled_ratio_b and its _low
        and _high, the same of the module under torch.compile. rows_per_second at `THROUGHPUT_ROWS`, and
        throughput_ratio, likewise. rounds.
    """
    torch.set_num_threads(1)
    features = kuairand_tables()
    shape = len(features.sparse_names), len(features.dense_names), features.vocabulary
    device = checked_device(settings.device)
    inputs = {
        rows: [x.to(device) for x in requests(features, rows)] for rows in (*REQUEST_ROWS, THROUGHPUT_ROWS)
    }
    models = {name: build_ranker(name, *shape)(seeded_generator(0, "initialisation")) for name in METHODS}
    works: dict[tuple[str, str, int], Work] = {}
    for name, model in models.items():
        exported = export_model(model, model.num_inputs).module().to(device)
        model.to(device).eval()
        for rows in REQUEST_ROWS:
            works[name, "module", rows] = _answering(model, inputs[rows])
            works[name, "exported", rows] = _answering(exported, inputs[rows])
            torch.compiler.reset()  # else one process compiles a few models only, and the others not, without a word
            compiled = torch.compile(copy.deepcopy(model), dynamic=False)
            works[name, "compiled", rows] = _answering(compiled, inputs[rows])
            works[name, "compiled", rows]()  # compiles now
        works[name, "module", THROUGHPUT_ROWS] = _answering(model, inputs[THROUGHPUT_ROWS])
    measured = interleaved(works, settings.rounds, settings.seconds, device, progress=settings.progress)
    table = {key: np.array(rounds) for key, rounds in measured.items()}  # (rounds, 3)
    return pd.DataFrame([_row(name, model, table) for name, model in models.items()]).assign(
        rounds=settings.rounds
    )


def _row(name: str, model: Ranker, table: Mapping[tuple[str, str, int], Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": name,
        "parameters": count_parameters(model),
        "embedding_parameters": count_parameters(model.embeddings),
        "multiply_adds": count_multiply_adds(model),
    }
    for rows in REQUEST_ROWS:
        own, other = table[name, "module", rows], table[REFERENCE, "module", rows]
        _, row[f"p50_ms_{rows}"], row[f"p99_ms_{rows}"] = np.median(own, axis=0)
        ratios = own[:, 1] / other[:, 1]
        row[f"ratio_{rows}"] = np.median(ratios)
        row[f"ratio_{rows}_low"], row[f"ratio_{rows}_high"] = ratios.min(), ratios.max()
        own, other = table[name, "compiled", rows], table[REFERENCE, "compiled", rows]
        row[f"compiled_p50_ms_{rows}"] = np.median(own[:, 1])
        ratios = own[:, 1] / other[:, 1]
        row[f"compiled_ratio_{rows}"] = np.median(ratios)
        row[f"compiled_ratio_{rows}_low"], row[f"compiled_ratio_{rows}_high"] = ratios.min(), ratios.max()
        row[f"exported_p50_ms_{rows}"] = np.median(table[name, "exported", rows][:, 1])
    own, other = (table[model, "module", THROUGHPUT_ROWS][:, 0] for model in (name, REFERENCE))
    row["rows_per_second"], row["throughput_ratio"] = np.median(own), np.median(own / other)
    return row


def measure_apart(function: Callable[[Settings], pd.DataFrame], settings: Settings) -> pd.DataFrame:
    """What a function measures in a fresh process, which starts with `mmoe_lib.study.workers.fast_environment`.

    Raises:
        WorkerDiedError: If the process died.
    """
    ((_, rows),) = Workers(function, 1).results([settings])
    return rows


def show(rows: pd.DataFrame) -> str:
    """The rows of `measure` as a table of text."""
    shown = rows[["model", "parameters", "multiply_adds"]].astype(object)
    for name in ("parameters", "multiply_adds"):
        shown[name] = [f"{value:,}" for value in rows[name]]
    for batch in REQUEST_ROWS:
        for name in (f"p50_ms_{batch}", f"p99_ms_{batch}", f"exported_p50_ms_{batch}"):
            shown[name] = [f"{value:.3f}" for value in rows[name]]
        shown[f"ratio_{batch}"] = [
            f"{middle:.2f} ({low:.2f} to {high:.2f})"
            for middle, low, high in rows[
                [f"ratio_{batch}", f"ratio_{batch}_low", f"ratio_{batch}_high"]
            ].to_numpy()
        ]
    shown["rows_per_second"] = [f"{value:,.0f}" for value in rows["rows_per_second"]]
    shown["throughput_ratio"] = [f"{value:.2f}" for value in rows["throughput_ratio"]]
    return shown.to_string(index=False)


def add_arguments(parser: argparse.ArgumentParser, rounds: int, seconds: float) -> None:
    """The arguments of a benchmark that is measured in rounds."""
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"of which the table shows medians (default {rounds})"
    )
    parser.add_argument(
        "--seconds", type=float, default=seconds, help=f"of each measurement and round (default {seconds:g})"
    )
    parser.add_argument("--csv", type=Path, help="also write the rows with their origin there")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")


def run_command(
    name: str,
    options: argparse.Namespace,
    function: Callable[[Settings], pd.DataFrame],
    show: Callable[[pd.DataFrame], str],
) -> int:
    """Measure apart with the options of `add_arguments`, print the table, write the file; the exit status."""
    try:
        device = checked_device(options.device)
        rows = measure_apart(function, Settings(options.rounds, options.seconds, str(device)))
        print(show(rows))
        if options.csv is not None:
            origin = Origin.now(f"python -m mmoe_lib.{name}", "-", device, "synthetic")
            rows.round(4).assign(**origin.columns()).to_csv(options.csv, index=False)
    except (ValueError, OSError, WorkerDiedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Measure what each method of the recommendation study costs to serve, relative to Shared-Bottom."""
    parser = argparse.ArgumentParser(prog="python -m mmoe_lib.serving_benchmark", description=main.__doc__)
    add_arguments(parser, rounds=15, seconds=0.5)
    return run_command("serving_benchmark", parser.parse_args(arguments), measure, show)


if __name__ == "__main__":
    sys.exit(main())
