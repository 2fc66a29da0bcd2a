"""Universes: draws of what the paper leaves open, beginning with the two nearest to its figures.

The constants of the label are not published. Among the sets that meet figure 2 a search found two in which trained
models come nearest to figure 5 (`NEAREST_40` and `NEAREST_10` of `companion.synthetic_labels`). Here they are trained
again with runs of this project's own, the paper's number of them, beside separate networks and a Shared-Bottom of two
layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from companion.study import synthetic
from companion.study.cells import Cell, chunks
from companion.study.presets import Preset
from companion.study.synthetic import CORRELATIONS, DEFAULT_RATE, Choices

NEAREST = ("nearest-40", "nearest-10")
"""Names of the constants, the nearest first."""
NEAREST_MODELS = (
    "MMoE",
    "Shared-Bottom",
    "OMoE",
    "Shared-Bottom-96-32",
    "Single-Task",
    "Shared-Bottom-16",
    "Single-Task-61",
)
BATCH_SIZE = 64


def nearest_cells(preset: Preset, constants: str) -> list[Cell[Choices]]:
    """Every model at the paper's correlations in one of the two universes, a model after the other."""
    return [
        Cell(
            model,
            f"p = {p:g}",
            DEFAULT_RATE,
            seeds,
            Choices(p, preset.nearest_steps, BATCH_SIZE, constants=constants),
        )
        for model in NEAREST_MODELS
        for p in CORRELATIONS
        for seeds in chunks(preset.nearest_runs, preset.synthetic_chunk)
    ]


def run(cell: Cell[Choices], device: torch.device | str = "cpu") -> pd.DataFrame:
    """The rows of one cell, as `run_stack` gives them."""
    return run_stack([cell], device)[0]


def run_stack(cells: Sequence[Cell[Choices]], device: torch.device | str = "cpu") -> list[pd.DataFrame]:
    """The rows of each of some `alike` cells, as those of the synthetic study, with the curves of both tasks."""
    return synthetic.run_stack(cells, device, both_curves=True)
