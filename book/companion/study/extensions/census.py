"""On Census-Income, group 1: every extension at one size, its learning rate tuned on a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from companion.extensions import EXTENSIONS, extension, noise_columns
from companion.study.cells import Cell
from companion.study.census import BATCH_SIZE, SCORES, CensusSource, score, train_runs
from companion.study.extensions.gates import has_gates
from companion.study.presets import Preset
from companion.study.scores import GATE_MEASURES, polarisation
from companion.study.synthetic import TUNING_SEED
from mmoe_lib.training import DivergedError

GROUP = "income"
RATES = (1e-3, 3e-3, 1e-2)
"""Tuning in chapter 4 chose rates from 0.002 to 0.014 for the seven methods of the paper."""


@dataclass(frozen=True)
class Choices:
    """How the runs of a cell are trained; columns of every row.

    Attributes:
        group: Of tasks.
        epochs: Passes over the training rows.
        batch_size: Rows of a minibatch.
        order: Seed of the order in which the rows are visited.
    """

    group: str
    epochs: int
    batch_size: int = BATCH_SIZE
    order: int = 0


def tuning_cells(preset: Preset) -> list[Cell[Choices]]:
    """Every model whose rate is its own at every rate, on runs that are not reported."""
    seeds = tuple(range(TUNING_SEED, TUNING_SEED + preset.census_tuning_runs))
    choices = Choices(GROUP, preset.census_epochs)
    names = [name for name in EXTENSIONS if EXTENSIONS[name].own_rate]
    return [Cell(name, GROUP, rate, seeds, choices) for name in names for rate in RATES]


def chosen_rates(tuning: pd.DataFrame) -> dict[str, float]:
    """The rate with the best mean validation AUC over both tasks for each model, MMoE's for a regularised one.

    The median over runs decides, not the mean: one run whose tower died says little about a rate.

    Args:
        tuning: Rows of the tuning file, of one preset.

    Raises:
        ValueError: If a model has no AUC at any rate.
    """
    both = tuning[["validation_main_auc", "validation_auxiliary_auc"]].mean(axis=1, skipna=False)
    medians = both.groupby([tuning["model"], tuning["learning_rate"]]).median()
    chosen = {}
    for name in EXTENSIONS:
        if not EXTENSIONS[name].own_rate:
            continue
        found = medians[name].dropna() if name in medians.index else medians.iloc[:0]
        if found.empty:
            raise ValueError(
                f"{name} has no AUC at any rate, expected one: run the tuning, or add lower rates"
            )
        chosen[name] = float(str(found.idxmax()))
    return {name: chosen.get(name, chosen["MMoE"]) for name in EXTENSIONS}


def reported_cells(preset: Preset, rates: Mapping[str, float]) -> list[Cell[Choices]]:
    """All models, all models' first runs before the next; every chunk of runs visits the rows in an order of its own."""
    cells = []
    for order, start in enumerate(range(0, preset.extension_census_runs, preset.census_chunk)):
        seeds = tuple(range(start, min(start + preset.census_chunk, preset.extension_census_runs)))
        choices = Choices(GROUP, preset.census_epochs, order=order)
        cells += [Cell(name, GROUP, rates[name], seeds, choices) for name in EXTENSIONS]
    return cells


COLUMNS = (*SCORES, *GATE_MEASURES, "diverged_step", "train_rows")
"""What `run` gives beside the seed."""


def run(cell: Cell[Choices], source: CensusSource, device: torch.device | str = "cpu") -> pd.DataFrame:
    """The rows of one cell: the AUCs of `companion.study.census.score`, and `GATE_MEASURES` on the test half."""
    choices = cell.choices
    data = source.data(choices.group)
    try:
        ensemble, history = train_runs(
            extension(cell.model).build,
            data,
            cell.seeds,
            learning_rate=cell.learning_rate,
            epochs=choices.epochs,
            batch_size=choices.batch_size,
            order=choices.order,
            noise=noise_columns(cell.model, 2),
            device=device,
            on_divergence="record",
            progress=False,
        )
    except DivergedError as error:  # every run did
        nothing: dict[str, Any] = {"seed": cell.seeds}
        nothing |= dict.fromkeys((*SCORES, *GATE_MEASURES), float("nan"))
        return pd.DataFrame(nothing).assign(diverged_step=error.step, train_rows=len(data.x_train))
    rows = score(ensemble, data)
    if has_gates(cell.model):
        weights = ensemble.gate_weights(data.x_test.to(ensemble.device)).cpu()
        use = {name: values.tolist() for name, values in polarisation(weights).items()}
    else:
        use = dict.fromkeys(GATE_MEASURES, [float("nan")] * len(cell.seeds))
    return (
        rows.assign(**use)
        .round(6)
        .assign(diverged_step=history.diverged_step.tolist(), train_rows=len(data.x_train))
    )
