"""How fast do rankers train, against code as it is usually written? python -m companion.benchmarks ranking measures it.

The model is the MMoE ranker of the recommendation study, batches have 1024 rows, the optimiser is Adam, and the log
is random, of KuaiRand-Pure's shape. All contenders train in one process with one thread, in turn, in rounds of
random order (`measure.interleaved`). What is compared is rows a second, of all runs together:

- a plain loop with a `DataLoader`: one embedding module a feature, lists of experts, gates and towers, as
  libraries in the manner of DeepCTR-Torch build them and as their users train them;
- the same with batches cut from a permutation, which is as fast as such a loop gets without rewriting the model;
- this library's ensemble of 1, 10 and 20 runs, as plain calls and compiled.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from companion.benchmarks.measure import Benchmark, Settings, Work, interleaved, measure_apart
from companion.benchmarks.random_log import kuairand_tables, random_log
from companion.study.kuairand import BATCH_SIZE
from companion.study.rankers import (
    EMBEDDING_WIDTH,
    EXPERTS,
    LOWER_UNITS,
    TASKS,
    TOP_UNITS,
    TOWER_UNITS,
    build_ranker,
)
from mmoe_lib.tasks.kuairand.columns import USER_SPARSE, VIDEO_SPARSE
from mmoe_lib.tasks.kuairand.features import NUM_OUTCOMES, FeatureTables, Impressions
from mmoe_lib.training import Adam, Ensemble, binary_cross_entropy
from mmoe_lib.training.advance import advance_of
from mmoe_lib.training.batches import joined_epochs
from mmoe_lib.training.devices import checked_device
from mmoe_lib.training.step import Step

NUM_ROWS = 817_187
"""As in train of the part of KuaiRand-Pure that the study has."""

RUNS = (1, 10, 20)
LEARNING_RATE = 1e-3
PLAIN = ("plain loop, DataLoader", "plain loop, sliced")


def feature_slices(features: FeatureTables) -> dict[str, tuple[int, int]]:
    """Where each sparse feature's ids begin in the vocabulary, and how many there are, by the feature's name.

    The previous video's ids are the candidate's.
    """
    sparse = {
        USER_SPARSE: features.user_table[:, : features.num_user_sparse],
        VIDEO_SPARSE: features.video_table[:, : features.num_video_sparse],
    }
    names = [name for group in sparse for name in group]
    starts = [int(start) for table in sparse.values() for start in table.amin(dim=0).tolist()]
    ends = [*starts[1:], features.outcome_start]
    slices = {name: (start, end - start) for name, start, end in zip(names, starts, ends, strict=True)}
    return slices | {"outcome": (features.outcome_start, NUM_OUTCOMES)}


class PlainRanker(nn.Module):
    """The MMoE ranker as users of libraries in the manner of DeepCTR-Torch have it.

    The same function of its weights as `build_ranker("MMoE", ...)`, here only to be measured against. Its ids count
    from 0 in each feature: `plain_inputs`.

    Args:
        names: The sparse features, in the order of the columns.
        slices: Of `feature_slices`.
        num_dense: Dense features.
    """

    def __init__(self, names: tuple[str, ...], slices: Mapping[str, tuple[int, int]], num_dense: int) -> None:
        super().__init__()
        self.names = [_table_name(name) for name in names]
        self.embeddings = nn.ModuleDict(
            {name: nn.Embedding(size, EMBEDDING_WIDTH) for name, (_, size) in slices.items()}
        )
        widths = [len(names) * EMBEDDING_WIDTH + num_dense, *LOWER_UNITS]
        self.bottom = nn.Sequential(
            *(
                part
                for inputs, outputs in itertools.pairwise(widths)
                for part in (nn.Linear(inputs, outputs), nn.ReLU())
            )
        )
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(widths[-1], TOP_UNITS), nn.ReLU()) for _ in range(EXPERTS)
        )
        self.gates = nn.ModuleList(nn.Linear(widths[-1], EXPERTS, bias=False) for _ in range(TASKS))
        (units,) = TOWER_UNITS
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(TOP_UNITS, units), nn.ReLU(), nn.Linear(units, 1)) for _ in range(TASKS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, S + F) to outputs (B, K)."""
        vectors = [self.embeddings[name](x[:, at].long()) for at, name in enumerate(self.names)]
        shared = self.bottom(torch.cat([*vectors, x[:, len(self.names) :]], dim=-1))  # (B, d)
        experts = torch.stack([expert(shared) for expert in self.experts], dim=1)  # (B, n, h)
        outputs = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            weights = torch.softmax(gate(shared), dim=-1)  # (B, n)
            outputs.append(tower((weights.unsqueeze(-1) * experts).sum(dim=1)))  # (B, 1)
        return torch.cat(outputs, dim=-1)


def _table_name(feature: str) -> str:
    """The name of the embedding module that a column of ids reads."""
    return feature.removeprefix("previous_")


def plain_inputs(x: Tensor, names: tuple[str, ...], slices: Mapping[str, tuple[int, int]]) -> Tensor:
    """Inputs (B, S + F) with ids that count from 0 in each feature instead of through one table."""
    starts = torch.tensor([slices[_table_name(name)][0] for name in names], dtype=x.dtype, device=x.device)
    return torch.cat([x[:, : len(names)] - starts, x[:, len(names) :]], dim=1)


def plain_batches(kind: str, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Minibatches without end, as the plain loop of that kind makes them."""
    if kind == "plain loop, DataLoader":
        loader = DataLoader(TensorDataset(x, y), batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
        while True:
            yield from loader
    while True:
        order = torch.randperm(len(x), device=x.device)
        for rows in order.split(BATCH_SIZE)[: len(x) // BATCH_SIZE]:
            yield x[rows], y[rows]


def plain_work(kind: str, model: PlainRanker, x: Tensor, y: Tensor) -> Work:
    """A training step of one run, as a user would write it."""
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    loss_function = nn.BCEWithLogitsLoss()
    batches = plain_batches(kind, x, y)

    def work() -> int:
        inputs, labels = next(batches)
        optimiser.zero_grad()
        outputs = model(inputs)
        loss = sum(loss_function(outputs[:, task], labels[:, task]) for task in range(TASKS))
        loss.backward()
        optimiser.step()
        return len(inputs)

    return work


def ensemble_work(
    kind: str, features: FeatureTables, log: Impressions, runs: int, device: torch.device | str
) -> Work:
    """A training step of so many runs, "ensemble" compiled, "ensemble, eager" as plain calls."""
    build = build_ranker("MMoE", len(features.sparse_names), len(features.dense_names), features.vocabulary)
    ensemble = Ensemble(build, range(runs), device=device)
    step = Step(ensemble, binary_cross_entropy, torch.full((runs,), LEARNING_RATE, device=device), Adam())
    batches = joined_epochs(partial(features.pairs, log), len(log), BATCH_SIZE, device=device)
    advance, numbers = advance_of(step, batches, compile=kind != "ensemble, eager"), count(1)

    def work() -> int:
        advance(next(numbers), 1)
        return runs * BATCH_SIZE

    return work


def measure(settings: Settings, num_rows: int = NUM_ROWS, runs: tuple[int, ...] = RUNS) -> pd.DataFrame:
    """Measure all contenders in this process.

    Returns:
        One row a contender: kind, runs, batch; rows_per_second of all runs, the median of the rounds, lowest and
        highest of them; ratio, the median over rounds of its rows a second over those of the loop with a
        DataLoader, ratio_low and ratio_high, the lowest and highest; ratio_sliced, likewise over the sliced loop;
        step_ms, the median of a step; rounds.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = checked_device(settings.device)
    features = kuairand_tables()
    slices, names = feature_slices(features), features.sparse_names
    features, log = features.to(device), random_log(features, num_rows).to(device)
    x, y = features.rows(log, slice(0, len(log)))
    x = plain_inputs(x, names, slices)
    works: dict[tuple[str, int], Work] = {}
    for kind in PLAIN:
        model = PlainRanker(names, slices, len(features.dense_names)).to(device)
        works[kind, 1] = plain_work(kind, model, x, y)
    for number in runs:
        for kind in ("ensemble, eager", "ensemble"):
            works[kind, number] = ensemble_work(kind, features, log, number, device)
    measured = interleaved(works, settings.rounds, settings.seconds, device, progress=settings.progress)
    return pd.DataFrame(_rows(measured)).assign(rounds=settings.rounds)


def _rows(measured: Mapping[tuple[str, int], list[tuple[float, float, float]]]) -> list[dict[str, Any]]:
    speeds = {key: np.array(rounds)[:, 0] for key, rounds in measured.items()}
    rows = []
    for key, own in speeds.items():
        ratio, sliced = (own / speeds[kind, 1] for kind in PLAIN)
        rows.append(
            {
                "kind": key[0],
                "model": "MMoE",
                "runs": key[1],
                "batch": BATCH_SIZE,
                "rows_per_second": np.median(own),
                "lowest": own.min(),
                "highest": own.max(),
                "ratio": np.median(ratio),
                "ratio_low": ratio.min(),
                "ratio_high": ratio.max(),
                "ratio_sliced": np.median(sliced),
                "step_ms": np.median(np.array(measured[key])[:, 1]),
            }
        )
    return rows


def show(rows: pd.DataFrame) -> str:
    """The rows of `measure` as a table of text."""
    shown = rows[["kind", "runs"]].astype(object)
    shown["rows/s"] = [f"{value:,.0f}" for value in rows["rows_per_second"]]
    shown["x DataLoader"] = [
        f"{middle:.2f} ({low:.2f} to {high:.2f})"
        for middle, low, high in rows[["ratio", "ratio_low", "ratio_high"]].to_numpy()
    ]
    shown["x sliced"] = [f"{value:.2f}" for value in rows["ratio_sliced"]]
    shown["ms a step"] = [f"{value:.2f}" for value in rows["step_ms"]]
    return shown.to_string(index=False)


BENCHMARK = Benchmark(
    "ranking",
    "How fast does the MMoE ranker train, against plain loops at batch 1024?",
    lambda settings, options: measure_apart(measure, settings),
    show,
    rounds=7,
    seconds=2.0,
)
