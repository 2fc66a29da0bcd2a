"""The columns to predict: binary or real, what the network is trained on, and how well it predicts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmoe_lib.frames.encoder import Floats, check_columns, numbers_of
from mmoe_lib.metrics import auc
from mmoe_lib.training import binary_cross_entropy, squared_error


@dataclass(frozen=True)
class Target:
    """A column to predict, a task of the model.

    Attributes:
        name: Of the column.
        binary: Whether it holds 0 and 1, or False and True, and its output is a logit; else it is real.
        mean: Of a real target over the training rows; 0 of a binary one.
        scale: Standard deviation of a real target over the training rows; 1 of a binary one.
    """

    name: str
    binary: bool
    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def fit(cls, frame: pd.DataFrame, name: str) -> Target:
        """Binary if the training rows hold 0 and 1 (or booleans) and nothing else, real otherwise.

        Raises:
            ValueError: If a value is missing, infinite or no number, or all are the same.
        """
        values = complete_numbers(frame, name)
        if not len(values) or values.min() == values.max():
            raise ValueError(
                f"target {name!r} holds {len(set(values.tolist()))} distinct value in the {len(values)} training rows, "
                "expected at least two: there is nothing to learn"
            )
        if set(values.tolist()) == {0.0, 1.0}:
            return cls(name, binary=True)
        return cls(name, binary=False, mean=float(values.mean()), scale=float(values.std()))

    def values(self, frame: pd.DataFrame) -> Floats:
        """The column in its own unit, (N,).

        Raises:
            ValueError: If it is missing, a value is missing, infinite or no number, or a binary target holds others
                than 0 and 1.
        """
        values = complete_numbers(frame, self.name)
        if self.binary and not np.isin(values, (0, 1)).all():
            raise ValueError(
                f"target {self.name!r} holds {values[~np.isin(values, (0, 1))][0]:g}, expected 0 and 1 as in training"
            )
        return values

    def score(self, predicted: Floats, frame: pd.DataFrame) -> tuple[str, float]:
        """The metric's name and value: AUC of a binary target, R2 of a real one.

        R2 = 1 - sum (y - predicted)^2 / sum (y - mean y)^2, over the rows of the frame.

        Raises:
            ValueError: If the frame holds one value only, or its column is not as `values` wants it.
        """
        values = self.values(frame)
        if not len(values) or values.min() == values.max():
            raise ValueError(
                f"target {self.name!r} has one value in these rows, expected at least two to compare"
            )
        if self.binary:
            return "AUC", float(auc(torch.tensor(predicted), torch.tensor(values)))
        around_mean = np.square(values - values.mean()).sum()
        return "R2", float(1 - np.square(values - predicted).sum() / around_mean)


def labels_of(targets: Sequence[Target], frame: pd.DataFrame) -> Tensor:
    """What the network is trained on, (N, K) float32: 0 and 1, and real targets with mean 0 and variance 1."""
    labels = [(target.values(frame) - target.mean) / target.scale for target in targets]
    return torch.from_numpy(np.stack(labels, axis=1).astype(np.float32))


class MixedLoss:
    """One loss a task: cross-entropy of binary targets, squared error of real ones in standard deviations.

    Args:
        targets: K of them.
        device: Where outputs and labels lie.
    """

    def __init__(self, targets: Sequence[Target], device: torch.device | str = "cpu") -> None:
        self.binary = torch.tensor([target.binary for target in targets], device=device)

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Outputs and labels (B, K) to mean losses (K,)."""
        # Both are computed for all tasks and are finite for any finite number, so the one not taken adds no gradient.
        return torch.where(self.binary, binary_cross_entropy(outputs, labels), squared_error(outputs, labels))


class OwnUnits(torch.nn.Module):
    """Outputs (..., K) of a network as predictions: probabilities, and real targets in their own unit.

    Args:
        targets: K of them.
        dtype: Of the predictions.
    """

    def __init__(self, targets: Sequence[Target], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("binary", torch.tensor([target.binary for target in targets]))
        self.register_buffer("mean", torch.tensor([target.mean for target in targets], dtype=dtype))
        self.register_buffer("scale", torch.tensor([target.scale for target in targets], dtype=dtype))

    binary: Tensor
    mean: Tensor
    scale: Tensor

    def forward(self, outputs: Tensor) -> Tensor:
        """Map (..., K) to (..., K)."""
        outputs = outputs.to(self.mean.dtype)
        # sigmoid(logit), or mean + scale * output
        return torch.where(self.binary, torch.sigmoid(outputs), self.mean + self.scale * outputs)


def complete_numbers(frame: pd.DataFrame, name: str) -> Floats:
    """The target's column as (N,); raises ValueError if it is not there, not numbers, infinite or incomplete."""
    check_columns(frame, [name])
    values = numbers_of(frame[name])
    if values is None:
        raise ValueError(
            f"target {name!r} holds no numbers, expected numbers or booleans: compare or convert it first, "
            f'such as frame[{name!r}] == "yes"'
        )
    missing = int(np.isnan(values).sum())
    if missing:
        raise ValueError(
            f"target {name!r} has {missing} missing values, expected none: drop these rows first"
        )
    return values
