"""Unequal units: the synthetic tasks at p = 0.5, one of them measured in another unit, and what balances them.

The labels of task 2 are multiplied by a unit u, so that its squared error counts u^2 times in a plain sum; nothing
else about the tasks changes. With u = 1 there is nothing to balance, and a balancer should do no harm. Losses are
told in the unit of the paper whatever the unit of training was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from companion.extensions import extension
from companion.study.cells import Cell, chunks
from companion.study.extensions.gates import CORRELATION, fresh_rows
from companion.study.extensions.rare_labels import BALANCERS, FIXED, PLAIN
from companion.study.presets import Preset
from mmoe_lib.tasks import synthetic as task
from mmoe_lib.training import DivergedError, Ensemble, TrainingSettings, fit, squared_error
from mmoe_lib.training.losses import weighted

UNITS = (1.0, 10.0)
"""Of task 2: as in the paper, and ten times as large numbers, so a hundred times the squared error."""
MODEL = "MMoE"


@dataclass(frozen=True)
class Choices:
    """How the runs of a cell are trained; columns of every row.

    Attributes:
        task_correlation: p, the cosine of the two tasks' weights.
        unit: Labels of task 2 are multiplied by it.
        remedy: "plain sum", "fixed weights" or a name of `rare_labels.BALANCERS`.
        weight: Of task 2's loss, beside 1 of task 1's.
        steps: Minibatches.
        batch_size: Rows of each.
    """

    task_correlation: float
    unit: float
    remedy: str
    weight: float
    steps: int
    batch_size: int


def reported_cells(preset: Preset, rates: Mapping[str, float]) -> list[Cell[Choices]]:
    """MMoE with every balancer in both units; with fixed weights u^-2, which undo the unit, where there is one.

    Args:
        preset: How much.
        rates: Learning rates by model; all ways to balance take MMoE's.
    """
    cells = []
    for unit in UNITS:
        for remedy in (PLAIN, *((FIXED,) if unit != 1 else ()), *BALANCERS):
            weight = unit**-2 if remedy == FIXED else 1.0
            choices = Choices(
                CORRELATION, unit, remedy, weight, preset.extension_steps, preset.synthetic_batch_size
            )
            setting = f"unit {unit:g}: {remedy}"
            cells += [
                Cell(MODEL, setting, rates[MODEL], seeds, choices)
                for seeds in chunks(preset.extension_unit_runs, preset.synthetic_chunk)
            ]
    return cells


def _weights(choices: Choices) -> tuple[float, float]:
    """Weights 1 and w of the two losses, scaled to a sum of 2, as those of a plain sum have it."""
    scale = 2 / (1 + choices.weight)
    return scale, scale * choices.weight


def _in_unit(batches: Iterator[tuple[Tensor, Tensor]], unit: float) -> Iterator[tuple[Tensor, Tensor]]:
    for x, y in batches:
        yield x, y * y.new_tensor([1.0, unit])


COLUMNS = ("diverged_step", "loss_1", "loss_2", "loss_mean")
"""What `run` gives beside the seed."""


def run(cell: Cell[Choices], device: torch.device | str = "cpu") -> pd.DataFrame:
    """The rows of one cell: final losses on fresh rows, in the unit of the paper.

    Columns: seed; diverged_step (0: never); loss_1, loss_2, loss_mean, NaN where a run diverged.
    """
    choices = cell.choices
    constants = task.CALIBRATED
    build = extension(cell.model).build

    def batches(device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        pool = task.InputPool.draw(device=device)
        drawn = task.stream(
            choices.task_correlation, cell.seeds, choices.batch_size, constants, pool=pool, device=device
        )
        return _in_unit(drawn, choices.unit)

    settings = TrainingSettings(
        choices.steps,
        cell.learning_rate,
        balancer=BALANCERS.get(choices.remedy),
        on_divergence="record",
    )
    loss = weighted(squared_error, _weights(choices))
    try:
        ensemble, history = fit(
            partial(build, constants.num_inputs, 2),
            cell.seeds,
            batches,
            loss,
            settings,
            device=device,
            progress=False,
        )
    except DivergedError as error:  # every run did
        nothing: dict[str, Any] = {"seed": cell.seeds, "diverged_step": error.step}
        return pd.DataFrame(nothing | dict.fromkeys(("loss_1", "loss_2", "loss_mean"), float("nan")))
    losses = _losses(ensemble, choices, cell.seeds)
    rows = pd.DataFrame(
        {
            "seed": cell.seeds,
            "diverged_step": history.diverged_step.tolist(),
            "loss_1": losses[:, 0].tolist(),
            "loss_2": losses[:, 1].tolist(),
            "loss_mean": losses.mean(dim=1).tolist(),
        }
    ).round(6)
    rows.loc[rows["diverged_step"] > 0, "loss_1":] = float("nan")
    return rows


@torch.no_grad()
def _losses(ensemble: Ensemble, choices: Choices, seeds: tuple[int, ...]) -> Tensor:
    """Test losses (R, 2)."""
    parts = fresh_rows(choices.task_correlation, seeds, task.CALIBRATED, ensemble.device)
    losses = torch.zeros(len(ensemble), 2)
    for x, y in parts:
        predicted = ensemble.predict(x) / y.new_tensor([1.0, choices.unit])
        losses += (predicted - y).square().mean(dim=1).cpu() / len(parts)
    return losses
