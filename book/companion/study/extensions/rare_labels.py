"""Unequal tasks: positives of one task are taken away; does the other press it down, and does a remedy help?

Of the training rows that are positive for the rare task a tenth or a hundredth is kept, drawn at random; every other
row stays, and validation and test are as they were. The task is income on Census-Income, where 12,382 of 199,523 rows
are positive, and satisfaction on KuaiRand. Every run has a draw of its own, its seed's; runs of one seed are
compared in pairs, which share what was kept and the order of the rows. Each run keeps the epoch with the best mean of the two tasks' validation AUCs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from companion.extensions import EXTENSIONS
from companion.study.cells import Cell, chunks
from companion.study.census import BATCH_SIZE, CensusSource
from companion.study.extensions.census import GROUP
from companion.study.kuairand import RankingSource, of_finite_runs, probabilities
from companion.study.presets import Preset
from companion.study.rankers import build_ranker
from companion.study.synthetic import TUNING_SEED
from mmoe_lib.metrics import auc
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import DivergedError, Ensemble, TrainingSettings, binary_cross_entropy, fit
from mmoe_lib.training.balancing import Balancer, GradientSurgery, GradNorm, UncertaintyWeighting
from mmoe_lib.training.batches import Take, own_epochs
from mmoe_lib.training.losses import Loss, class_balanced, focal, weighted

SHARES = (1.0, 0.1, 0.01)
"""Of the rare task's positives, how many are kept."""
MODELS = ("Single-Task", "Shared-Bottom", "MMoE")
PLAIN = "plain sum"
FIXED = "fixed weights"
WEIGHTS = (0.1, 0.3, 3.0, 10.0)
"""Of the rare task's loss beside 1 of the other, tried in tuning as 1 is; scaled to a sum of 2."""
LARGE_WEIGHTS = (10.0, 30.0, 100.0)
"""About as large as the weights that balancers end with, for comparison with these on the same draws."""
TUNED = {"census": (1e-3, 3e-3, 1e-2), "kuairand": (1e-3, 3e-3)}
"""Adam's learning rates that each model tries at each share."""
DRAWS_AT_ONCE = 4
"""Draws that are trained as one ensemble."""
RARE_TASK = {"census": 0, "kuairand": 1}
"""Income, and satisfaction."""

REMEDIES: Mapping[str, Balancer | str | None] = {
    PLAIN: None,
    FIXED: "weights",
    "class weights": "class weights",
    "focal loss": "focal",
    "uncertainty weighting": UncertaintyWeighting(),
    "GradNorm": GradNorm(),
    "PCGrad": GradientSurgery("PCGrad"),
    "CAGrad": GradientSurgery("CAGrad"),
    "Nash-MTL": GradientSurgery("Nash-MTL", every=10),
    "UPGrad": GradientSurgery("UPGrad"),
}
"""By name: a balancer, or what the loss is changed to. Nash-MTL solves its problem anew every tenth step."""
BALANCERS: Mapping[str, Balancer] = {
    name: remedy for name, remedy in REMEDIES.items() if not (remedy is None or isinstance(remedy, str))
}
"""Those remedies that weigh the tasks anew at every step."""


@dataclass(frozen=True)
class Choices:
    """How the runs of a cell are trained; columns of every row.

    Attributes:
        data_set: "census" or "kuairand".
        share: Of the rare task's positives that are kept.
        remedy: A name of `REMEDIES`.
        weight: Of the rare task's loss, beside 1 of the other's.
        epochs: Passes over the training rows at most.
    """

    data_set: str
    share: float
    remedy: str
    weight: float
    epochs: int


def setting(data_set: str, share: float, remedy: str, weight: float = 1.0) -> str:
    """The name of a setting, such as "census 0.1: focal loss"."""
    tried = f" {weight:g}" if remedy == FIXED else ""
    return f"{data_set} {share:g}: {remedy}{tried}"


@dataclass(frozen=True)
class Sources:
    """Where the data of both sets come from; small enough to be sent to a worker."""

    census: CensusSource
    kuairand: RankingSource

    def sums(self, data_set: str) -> str:
        """The sums of one set's files, for a row's origin."""
        return self.census.sums() if data_set == "census" else self.kuairand.sums()


def tuning_cells(preset: Preset, data_set: str) -> list[Cell[Choices]]:
    """Every model at every rate and share with the plain sum, on a draw and runs of their own."""
    return [
        _tuning_cell(preset, data_set, model, share, rate)
        for share in SHARES
        for model in MODELS
        for rate in TUNED[data_set]
    ]


def weight_cells(
    preset: Preset, data_set: str, rates: Mapping[tuple[str, float], float]
) -> list[Cell[Choices]]:
    """MMoE at every fixed weight and share, each at its best rate."""
    return [
        _tuning_cell(preset, data_set, model, share, rates[model, share], weight)
        for share in SHARES
        for model in _remedied(share)
        for weight in WEIGHTS
    ]


def _tuning_cell(
    preset: Preset, data_set: str, model: str, share: float, rate: float, weight: float = 1.0
) -> Cell[Choices]:
    seeds = tuple(range(TUNING_SEED, TUNING_SEED + preset.rare_tuning_runs))
    remedy = PLAIN if weight == 1.0 else FIXED
    choices = Choices(data_set, share, remedy, weight, num_epochs(preset, data_set))
    return Cell(model, setting(data_set, share, remedy, weight), rate, seeds, choices)


def num_epochs(preset: Preset, data_set: str) -> int:
    """Passes over the training rows of a set."""
    # Half of the study's passes: with a hundred positives more of them only learn these by heart.
    return min(3, preset.census_epochs) if data_set == "census" else 1


def _remedied(share: float) -> tuple[str, ...]:
    """The models with which remedies are tried: MMoE, where positives were taken away."""
    return ("MMoE",) if share < 1 else ()


def chosen(tuning: pd.DataFrame, data_set: str, column: str) -> dict[tuple[str, float], float]:
    """The learning rate, or the weight, with the best median of the two tasks' mean validation AUC.

    Args:
        tuning: Rows of the tuning file, of one preset.
        data_set: "census" or "kuairand".
        column: "learning_rate", for which rows of the plain sum count, or "weight", for which all at the chosen rate.

    Returns:
        By model and share.

    Raises:
        ValueError: If a model has no AUC at a share.
    """
    rows = tuning[tuning["data_set"] == data_set]
    if column == "learning_rate":
        rows = rows[rows["remedy"] == PLAIN]
    best = {}
    if column == "weight":
        rates = chosen(tuning, data_set, "learning_rate")
        at_rate = [
            rates[str(model), float(share)] == rate
            for model, share, rate in zip(rows["model"], rows["share"], rows["learning_rate"], strict=True)
        ]
        rows = rows[at_rate]
    for share in SHARES:
        for model in MODELS if column == "learning_rate" else _remedied(share):
            here = rows[(rows["model"] == model) & (rows["share"] == share)]
            medians = here.groupby(column)["validation_mean_auc"].median().dropna()
            if medians.empty:
                raise ValueError(
                    f"{model} with a share of {share:g} has no AUC on {data_set}, expected one: run the tuning"
                )
            best[model, share] = float(str(medians.idxmax()))
    return best


def reported_cells(
    preset: Preset,
    data_set: str,
    rates: Mapping[tuple[str, float], float],
    weights: Mapping[tuple[str, float], float],
) -> list[Cell[Choices]]:
    """All models and remedies on the first draws, then on the next.

    Where tuning chose the weight 1, fixed weights are the plain sum, and are run all the same.
    """
    cells = []
    for seeds in chunks(preset.rare_draws, DRAWS_AT_ONCE):
        for share in SHARES:
            for model in MODELS:
                for remedy in REMEDIES if model in _remedied(share) else (PLAIN,):
                    weight = weights[model, share] if remedy == FIXED else 1.0
                    choices = Choices(data_set, share, remedy, weight, num_epochs(preset, data_set))
                    name = f"{data_set} {share:g}: {remedy}"
                    cells.append(Cell(model, name, rates[model, share], seeds, choices))
    return cells


def large_weight_cells(
    preset: Preset, data_set: str, rates: Mapping[tuple[str, float], float]
) -> list[Cell[Choices]]:
    """MMoE at the smallest share with large fixed weights, on the reported draws; nothing is chosen by them."""
    share, epochs = min(SHARES), num_epochs(preset, data_set)
    return [
        Cell(
            "MMoE",
            setting(data_set, share, FIXED, weight),
            rates["MMoE", share],
            seeds,
            Choices(data_set, share, FIXED, weight, epochs),
        )
        for weight in LARGE_WEIGHTS
        for seeds in chunks(preset.rare_draws, DRAWS_AT_ONCE)
    ]


def kept_rows(positive: Tensor, share: float, draw: int) -> Tensor:
    """Which rows stay when only a share of the positives does: row numbers, ascending.

    Args:
        positive: (N,) true where the rare task's label is positive.
        share: Of the positives that stays, rounded to whole rows.
        draw: Seed of the choice. A smaller share keeps some of what a larger one keeps.

    Raises:
        ValueError: If the share is not in 0 to 1, or no positive would be left.
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"share is {share}, expected more than 0 and at most 1: a part of the positives stays"
        )
    places = positive.nonzero().squeeze(1)
    order = places[torch.randperm(len(places), generator=seeded_generator(draw, "kept positives"))]
    kept = round(share * len(places))
    if not kept:
        raise ValueError(
            f"a share of {share} of {len(places)} positives is none, expected one or more: keep more"
        )
    stays = torch.ones(len(positive), dtype=torch.bool)
    stays[order[kept:]] = False
    return stays.nonzero().squeeze(1)


def loss_of(choices: Choices, positives: Tensor) -> Loss:
    """The loss that a remedy asks for; cross-entropy for a balancer and for the plain sum.

    Args:
        choices: Names the remedy.
        positives: The share of positives of each task in the training rows, (K,).

    Raises:
        ValueError: If there is no such remedy.
    """
    if choices.remedy not in REMEDIES:
        raise ValueError(
            f"remedy is {choices.remedy!r}, expected one of {', '.join(REMEDIES)}: choose one of these"
        )
    remedy = REMEDIES[choices.remedy]
    if remedy == "weights":
        pair = [1.0, 1.0]
        pair[RARE_TASK[choices.data_set]] = choices.weight
        return weighted(binary_cross_entropy, [2 * weight / sum(pair) for weight in pair])
    if remedy == "class weights":
        # negatives over positives: both classes of a task then count alike
        return class_balanced(((1 - positives) / positives).tolist())
    return focal() if remedy == "focal" else binary_cross_entropy


COLUMNS = (
    "test_rare_auc",
    "test_other_auc",
    "validation_mean_auc",
    "best_epoch",
    "positives",
    "diverged_step",
)
"""What `run` gives beside the seed."""


def run(
    cell: Cell[Choices],
    sources: Sources,
    device: torch.device | str = "cpu",
    *,
    balancer: Balancer | None = None,
) -> pd.DataFrame:
    """The rows of one cell.

    Columns: seed; test_rare_auc and test_other_auc, validation_mean_auc over both tasks; best_epoch; positives, how
    many of the rare task's are left; diverged_step (0: never).

    Args:
        cell: What to train.
        sources: Of the data.
        device: Where to train.
        balancer: Takes the place of the remedy's own, so that it can be watched.
    """
    choices = cell.choices
    table = _census(cell, sources) if choices.data_set == "census" else _kuairand(cell, sources)
    rare = RARE_TASK[choices.data_set]
    rows = _rows_of_draws(table.labels[:, rare] > 0, choices.share, cell.seeds)
    kept = table.labels[rows[0]].float()  # as many positives in every draw
    steps = len(kept) // BATCH_SIZE
    settings = TrainingSettings(
        choices.epochs * steps,
        cell.learning_rate,
        evaluate_every=steps,
        monitor="mean_auc",
        balancer=balancer or _balancer(choices),
        on_divergence="record",
    )
    try:
        ensemble, history = fit(
            table.build,
            cell.seeds,
            lambda device: own_epochs(
                table.take_on(device), rows, BATCH_SIZE, seeds=cell.seeds, device=device
            ),
            loss_of(choices, kept.mean(dim=0)),
            settings,
            lambda ensemble: {"mean_auc": table.aucs(ensemble, "validation").mean(dim=1)},
            device=device,
            progress=False,
        )
    except DivergedError as error:  # every run did
        names = ("test_rare_auc", "test_other_auc", "validation_mean_auc")
        return pd.DataFrame({"seed": cell.seeds} | dict.fromkeys(names, np.nan)).assign(
            best_epoch=0, positives=0, diverged_step=error.step
        )
    found = table.aucs(ensemble, "test")  # (R, 2)
    return pd.DataFrame(
        {
            "seed": cell.seeds,
            "test_rare_auc": found[:, rare].numpy(),
            "test_other_auc": found[:, 1 - rare].numpy(),
            "validation_mean_auc": table.aucs(ensemble, "validation").mean(dim=1).numpy(),
            "best_epoch": (history.best_step // steps).tolist(),
            "positives": int(kept[:, rare].sum()),
            "diverged_step": history.diverged_step.tolist(),
        }
    ).round(6)


@dataclass(frozen=True)
class _Table:
    """What the runs of a cell are trained and judged on.

    Attributes:
        build: Makes one run.
        take_on: The device to what puts training rows together there.
        labels: Of all training rows, (N, 2).
        aucs: Of both tasks on "validation" or "test", (R, 2); NaN in a run that diverged.
    """

    build: Callable[..., nn.Module]
    take_on: Callable[[torch.device], Callable[[Tensor], tuple[Any, Tensor]]]
    labels: Tensor
    aucs: Callable[[Ensemble, str], Tensor]


def _census(cell: Cell[Choices], sources: Sources) -> _Table:
    data = sources.census.data(GROUP)
    judged = {
        "validation": (data.x_validation, data.y_validation),
        "test": (data.x_test, data.y_test),
    }

    def take_on(device: torch.device) -> Take:
        x, y = data.x_train.to(device), data.y_train.to(device)
        return lambda rows: (x[rows], y[rows])

    def aucs(ensemble: Ensemble, part: str) -> Tensor:
        x, y = judged[part]
        return _both(ensemble.predict(x.to(ensemble.device)).cpu(), y)

    inputs, tasks = data.x_train.shape[1], data.y_train.shape[1]
    return _Table(partial(EXTENSIONS[cell.model].build, inputs, tasks), take_on, data.y_train, aucs)


def _kuairand(cell: Cell[Choices], sources: Sources) -> _Table:
    data = sources.kuairand.data()
    judged = {"validation": data.validation, "test": data.test}

    def take_on(device: torch.device) -> Callable[[Tensor], tuple[tuple[Tensor, Tensor], Tensor]]:
        features, impressions = data.features.to(device), data.train.to(device)
        return lambda rows: features.pairs(impressions, rows)

    def aucs(ensemble: Ensemble, part: str) -> Tensor:
        return _both(probabilities(ensemble, data, judged[part]), judged[part].labels.float())

    build = build_ranker(cell.model, data.num_sparse, data.num_dense, data.features.vocabulary)
    return _Table(build, take_on, data.train.labels, aucs)


def _rows_of_draws(positive: Tensor, share: float, draws: Sequence[int]) -> Tensor:
    return torch.stack([kept_rows(positive, share, draw) for draw in draws])  # (R, N)


def _both(predicted: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([of_finite_runs(auc, predicted[..., task], labels[:, task]) for task in (0, 1)], dim=1)


def _balancer(choices: Choices) -> Balancer | None:
    remedy = REMEDIES[choices.remedy]
    return None if isinstance(remedy, str) else remedy
