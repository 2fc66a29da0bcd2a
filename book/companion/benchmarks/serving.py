"""What does each method of section 6.4 cost to serve? python -m companion.benchmarks serving measures it here.

All methods are measured in one process with one thread. In each round every method answers for a moment, the
methods in random order, so that a machine whose speed drifts is slow for all of them alike; ratios compare a method
with Shared-Bottom in the same round. A request is one user with some candidate videos.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.benchmarks.measure import Benchmark, Settings, Work, interleaved, measure_apart
from companion.benchmarks.random_log import kuairand_tables, requests
from companion.study.rankers import METHODS, build_ranker
from mmoe_lib.export import export_model
from mmoe_lib.models import Ranker, count_multiply_adds, count_parameters
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training.devices import checked_device

REFERENCE = "Shared-Bottom"
REQUEST_ROWS = (1, 1000)
"""Candidates of a request."""

THROUGHPUT_ROWS = 4096
"""Rows of a batch that is computed for its own sake, as when a catalogue is scored overnight."""


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
    models = {
        name: build_ranker(name, *shape)(generator=seeded_generator(0, "initialisation")) for name in METHODS
    }
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


BENCHMARK = Benchmark(
    "serving",
    "What does each method of the recommendation study cost to serve, relative to Shared-Bottom?",
    lambda settings, options: measure_apart(measure, settings),
    show,
    rounds=15,
    seconds=0.5,
)
