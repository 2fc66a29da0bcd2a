"""Minibatches of a data set that fits in memory, shared by all runs of an ensemble."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mmoe_lib.seeds import seeded_generator


def check_finite(name: str, values: Tensor) -> None:
    """Raise ValueError naming the first entry of a (N, ...) tensor that is NaN or infinite."""
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        place = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{name} hold {float(values[tuple(place)])} at {place}, expected finite numbers: clean the data first"
        )


def epochs(x: Tensor, y: Tensor, batch_size: int, *, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Minibatches without end; every epoch visits the rows in a new random order.

    Rows that do not fill a last batch are left out of that epoch, so that all batches are of one size.
    All runs of an ensemble see the same batches: then one matrix product serves every run.

    Args:
        x: Inputs (N, d).
        y: Labels (N, K).
        batch_size: Rows B of a minibatch, at most N.
        seed: Decides the order of the rows.

    Yields:
        Inputs (B, d) and labels (B, K).

    Raises:
        ValueError: If x or y holds NaN or infinity, lengths differ, or B is not in 1..N.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} rows of inputs and {len(y)} of labels, expected as many: pair them up")
    if not 1 <= batch_size <= len(x):
        raise ValueError(f"batch_size is {batch_size}, expected 1 to {len(x)}, the number of rows")
    check_finite("inputs", x)
    check_finite("labels", y)
    return _epochs(x, y, batch_size, seeded_generator(seed, "order of the rows"))


def _epochs(
    x: Tensor, y: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for start in range(0, len(x) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            yield x[rows], y[rows]
