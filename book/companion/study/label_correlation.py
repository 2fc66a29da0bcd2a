"""Figure 2 by sampling: the label correlation at each of the paper's weight cosines, a row a trial."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from companion.study.cells import Cell
from companion.study.presets import Preset
from companion.synthetic_labels import sample_label_correlations

COSINES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
"""The points that the paper's figure 2 shows."""

POINTS = 10_000
"""Examples a trial, as in the paper."""

NO_MODEL = "-"
"""Stands where other rows have a model: nothing is trained, so the learning rate is 0."""


@dataclass(frozen=True)
class Choices:
    """What is drawn; columns of every row.

    Attributes:
        weight_cosine: Of the two tasks' weights.
        points: Examples a trial.
    """

    weight_cosine: float
    points: int


def label_cells(preset: Preset) -> list[Cell[Choices]]:
    """One cell a point of figure 2, with a seed a trial."""
    trials = tuple(range(preset.label_correlation_trials))
    return [Cell(NO_MODEL, f"cosine = {p:g}", 0.0, trials, Choices(p, POINTS)) for p in COSINES]


def run_labels(cell: Cell[Choices], device: torch.device | str = "cpu") -> pd.DataFrame:
    """The trials of a cell.

    Args:
        cell: One of `label_cells`.
        device: Of the study; labels are drawn on the CPU whatever it is.

    Returns:
        One row a trial: seed, label_correlation.
    """
    found = sample_label_correlations(
        cell.choices.weight_cosine, len(cell.seeds), cell.choices.points, seed=cell.seeds[0]
    )
    return pd.DataFrame({"seed": cell.seeds, "label_correlation": found.numpy().round(6)})
