"""What a balancer sees and does: norms and angles of the tasks' gradients, and its weights, along rare-label runs.

The runs are those of `rare_labels` with a hundredth of the rare task's positives, MMoE, with every remedy that weighs
tasks anew at each step, trained once more and watched. Gradients are those on the parameters that both tasks share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.study.cells import Cell, chunks
from companion.study.extensions import rare_labels
from companion.study.extensions.rare_labels import BALANCERS, PLAIN, RARE_TASK, Choices, Sources
from companion.study.presets import Preset
from mmoe_lib.training.balancing import Balancer, Weigh


@dataclass(frozen=True)
class PlainSum:
    """Weight 1 for every task: what a step without a balancer does, for those who want to watch it."""

    shared_only: ClassVar[bool] = False

    def start(self, num_runs: int, num_tasks: int) -> Weigh:
        """Weights of 1."""
        return lambda losses, gramians: torch.ones_like(losses)


@dataclass(frozen=True)
class Watched:
    """A balancer whose every step is told to somebody; it balances as it did.

    Attributes:
        balancer: What decides.
        tell: Called with a step's weights (R, K) and Gramians (R, K, K).
    """

    balancer: Balancer
    tell: Callable[[Tensor, Tensor], None]

    @property
    def shared_only(self) -> bool:
        """As the balancer has it."""
        return self.balancer.shared_only

    def start(self, num_runs: int, num_tasks: int) -> Weigh:
        """The balancer's own start; every step's weights are passed on."""
        decide = self.balancer.start(num_runs, num_tasks)

        def weigh(losses: Tensor, gramians: Tensor) -> Tensor:
            weights = decide(losses, gramians)
            self.tell(weights, gramians)
            return weights

        return weigh


MODEL, SHARE, PARTS = "MMoE", 0.01, 10
"""What is watched, and in how many equal parts of its training a run is told."""
WATCHED: Mapping[str, Balancer] = {PLAIN: PlainSum(), **BALANCERS}
MEASURES = ("weight", "ratio", "cosine", "conflict")
"""Of each part: the rare task's share of the two weights, the mean logarithm (base 10) of the norm of its gradient
over that of the other, the mean cosine of the two, and the share of steps in which the cosine is negative."""


def watched_cells(
    preset: Preset, data_set: str, rates: Mapping[tuple[str, float], float]
) -> list[Cell[Choices]]:
    """The plain sum and every balancer on the first draws.

    Args:
        preset: How much.
        data_set: "census" or "kuairand".
        rates: Learning rates by model and share, those of `rare_labels`.
    """
    draws = min(preset.rare_draws, rare_labels.DRAWS_AT_ONCE)
    cells = []
    for remedy in WATCHED:
        choices = Choices(data_set, SHARE, remedy, 1.0, rare_labels.num_epochs(preset, data_set))
        for seeds in chunks(draws, rare_labels.DRAWS_AT_ONCE):
            setting = rare_labels.setting(data_set, SHARE, remedy)
            cells.append(Cell(MODEL, setting, rates[MODEL, SHARE], seeds, choices))
    return cells


COLUMNS = (*(f"{name}_{part}" for name in MEASURES for part in range(1, PARTS + 1)), "test_rare_auc")
"""What `run` gives beside the seed."""


def run(cell: Cell[Choices], sources: Sources, device: torch.device | str = "cpu") -> pd.DataFrame:
    """The rows of one cell.

    Columns: seed; weight_1 .. weight_10, and so for each of `MEASURES`, NaN where a gradient was 0 throughout;
    test_rare_auc, that of `rare_labels`, since these are the same runs.
    """
    choices = cell.choices
    rare, steps = RARE_TASK[choices.data_set], list[dict[str, Tensor]]()

    def note(weights: Tensor, gramians: Tensor) -> None:
        steps.append(measures(weights, gramians, rare))

    found = rare_labels.run(cell, sources, device, balancer=Watched(WATCHED[choices.remedy], note))
    columns: dict[str, object] = {"seed": cell.seeds}
    runs = len(cell.seeds)
    for name in MEASURES:
        along = torch.stack([step[name] for step in steps]).numpy() if steps else np.empty((0, runs))
        for part, rows in enumerate(np.array_split(along, PARTS), start=1):
            columns[f"{name}_{part}"] = _mean(rows)
    return pd.DataFrame(columns | {"test_rare_auc": found["test_rare_auc"]}).round(6)


def measures(weights: Tensor, gramians: Tensor, rare: int) -> dict[str, Tensor]:
    """`MEASURES` of one step, each (R,), NaN where a gradient is 0.

    Args:
        weights: (R, 2).
        gramians: Inner products of the two gradients (R, 2, 2).
        rare: Which of the tasks is the rare one.
    """
    squares = torch.diagonal(gramians, dim1=1, dim2=2)  # ||g_k||^2, (R, 2)
    # cos = g_1' g_2 / (||g_1|| ||g_2||)
    cosine = gramians[:, 0, 1] / squares.prod(dim=1).sqrt()
    ratio = (squares[:, rare] / squares[:, 1 - rare]).log10() / 2
    there = torch.isfinite(ratio) & torch.isfinite(cosine)
    cosine, ratio = (values.where(there, torch.nan) for values in (cosine, ratio))
    conflict = (cosine < 0).float().where(there, torch.nan)
    share = weights[:, rare] / weights.sum(dim=1)
    told = {"weight": share, "ratio": ratio, "cosine": cosine, "conflict": conflict}
    return {name: values.detach().cpu() for name, values in told.items()}


def _mean(rows: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> list[float]:
    """The mean over steps (S, R) of what is finite; NaN where nothing is."""
    there = np.isfinite(rows)
    sums, counts = np.where(there, rows, 0).sum(axis=0, dtype=float), there.sum(axis=0)
    return [
        float(total / count) if count else float("nan") for total, count in zip(sums, counts, strict=True)
    ]
