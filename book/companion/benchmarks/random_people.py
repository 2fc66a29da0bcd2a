"""Random people of Census-Income's shape, for benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

CENSUS_INPUTS = 517
"""Columns of an encoded person."""


def random_people(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (rows, 517) with as many ones as an encoded person has, and two labels (rows, 2)."""
    x = (torch.rand(rows, CENSUS_INPUTS, generator=generator) < 33 / CENSUS_INPUTS).float()
    y = (torch.rand(rows, 2, generator=generator) < 0.3).float()
    return x, y
