"""The columns to predict: binary, real or of classes, what the network is trained on, and how well it predicts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from mmoe_lib.frames.columns import (
    Floats,
    check_columns,
    check_text,
    codes_of,
    kind_of,
    moments,
    numbers_of,
    warn,
)
from mmoe_lib.metrics import accuracy, auc, log_loss
from mmoe_lib.training.losses import cross_entropies, mean_of_known, squared_errors

MAX_CLASSES = 100
"""Distinct values above which a target of text is refused: it is most likely a name or a number of a row."""


@dataclass(frozen=True)
class Target:
    """A column to predict, a task of the model.

    A value that is missing is a label that is missing: the row does not count for this target, and does for the others.

    Attributes:
        name: Of the column.
        binary: Whether it holds 0 and 1, or False and True, and its output is a logit; else it is real, or of classes.
        mean: Of a real target over the training rows; 0 of others.
        scale: Standard deviation of a real target over the training rows; 1 of others.
        classes: Text of the classes of the training rows; none of a binary or real target. Each has an output of its
            own, the logit of a softmax.
    """

    name: str
    binary: bool
    mean: float = 0.0
    scale: float = 1.0
    classes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, frame: pd.DataFrame, name: str, *, classes: bool = False) -> Target:
        """Of classes if it holds text or categories, binary if 0 and 1 (or booleans) and nothing else, real otherwise.

        Args:
            frame: The training rows.
            name: Of the column.
            classes: Take numbers for classes too.

        Raises:
            ValueError: If no value is there, all are the same, one is infinite, they are neither numbers nor text, or
                there are more than `MAX_CLASSES` classes.
        """
        check_columns(frame, [name])
        column = frame[name]
        kind = kind_of(column)
        if not column.notna().any():
            raise ValueError(
                f"target {name!r} has no label in the {len(column)} training rows, expected some: there is nothing to "
                "learn"
            )
        if kind not in ("numbers", "text"):
            raise ValueError(
                f"target {name!r} holds {kind} values and no numbers, expected numbers, booleans, text or categories: "
                f'compare or convert it first, such as frame[{name!r}] == "yes"'
            )
        if classes or kind == "text":
            texts = codes_of(column)[1]
            if kind == "text" and not isinstance(column.dtype, pd.CategoricalDtype):
                check_text(name, texts)
            if len(texts) > MAX_CLASSES:
                raise ValueError(
                    f"target {name!r} holds {len(texts):,} classes, expected at most {MAX_CLASSES}: convert it to "
                    "numbers, or group its values"
                )
            named = sorted(set(texts), key=_in_order)
            _check_several(name, len(named), len(column))
            return cls(name, binary=False, classes=tuple(named))
        values = _numbers(column)
        distinct = np.unique(values[~np.isnan(values)])
        _check_several(name, len(distinct), len(column))
        if distinct.tolist() == [0.0, 1.0]:
            return cls(name, binary=True)
        _check_meant_as_real(name, distinct)
        mean, scale = moments(f"target {name!r}", values)
        return cls(name, binary=False, mean=mean, scale=scale)

    @property
    def outputs(self) -> int:
        """How many outputs of the network it takes."""
        return len(self.classes) or 1

    @property
    def kind(self) -> str:
        """What its predictions are, for people."""
        if self.classes:
            return "probabilities of classes"
        return "probability" if self.binary else "value in the column's own unit"

    @property
    def names(self) -> tuple[str, ...]:
        """What its predictions are called: as the column, or a name for each class."""
        return tuple(f"{self.name}={value}" for value in self.classes) or (self.name,)

    def values(self, frame: pd.DataFrame) -> Floats:
        """The column in its own unit, or the numbers of its classes from 0, (N,); NaN where missing.

        A class that training had not counts as missing, with a warning.

        Raises:
            ValueError: If it is not there, a value is infinite or no number, or a binary target holds others than 0
                and 1.
        """
        check_columns(frame, [self.name])
        column = frame[self.name]
        if self.classes:
            codes, texts = codes_of(column)
            places = {value: float(place) for place, value in enumerate(self.classes)}
            strange = [text for text in texts if text not in places]
            if strange:
                warn(
                    f"target {self.name!r} holds {strange[0]!r}, which no training row had: such rows do not count for it"
                )
            return np.array([*(places.get(text, np.nan) for text in texts), np.nan])[codes]
        values = _numbers(column)
        odd = values[~np.isnan(values) & ~np.isin(values, (0, 1))]
        if self.binary and len(odd):
            raise ValueError(f"target {self.name!r} holds {odd[0]:g}, expected 0 and 1 as in training")
        return values

    def scores(
        self, predicted: Floats, frame: pd.DataFrame, weights: Floats | None = None
    ) -> list[tuple[str, float]]:
        """Metrics and their values over the rows that have a label, each row with its weight (N,).

        AUC of a binary target; of a real one R2 = 1 - sum w (y - predicted)^2 / sum w (y - mean y)^2; of classes the
        accuracy and the log loss in nats. NaN, with a warning, where there is nothing to compare: no label, or one
        value of a binary or real target.

        Args:
            predicted: Predictions (N, outputs).
            frame: Holds the column.
            weights: Of the rows; None for 1 each.

        Raises:
            ValueError: If the column is not as `values` wants it.
        """
        values = self.values(frame)
        w = np.ones(len(values)) if weights is None else weights
        known = ~np.isnan(values) & (w > 0)
        predicted, values, w = predicted[known], values[known], w[known]
        names = ("accuracy", "log loss") if self.classes else ("AUC",) if self.binary else ("R2",)
        distinct = len(np.unique(values))
        if distinct < 2 and not (self.classes and distinct):
            warn(
                f"target {self.name!r} has {'one value' if distinct else 'no label'} in these rows, expected "
                f"{'some' if self.classes else 'at least two to compare'}: its {' and '.join(names)} is NaN"
            )
            return [(name, float("nan")) for name in names]
        if self.binary:
            weight = None if weights is None else torch.tensor(w)
            return [("AUC", float(auc(torch.tensor(predicted[:, 0]), torch.tensor(values), weight)))]
        if self.classes:
            given = torch.tensor(predicted), torch.tensor(values), torch.tensor(w)
            return [("accuracy", float(accuracy(*given))), ("log loss", float(log_loss(*given)))]
        around_mean = (w * np.square(values - np.average(values, weights=w))).sum()
        return [("R2", float(1 - (w * np.square(values - predicted[:, 0])).sum() / around_mean))]


def weights_of(frame: pd.DataFrame, name: str | None) -> Floats | None:
    """The column of weights (N,), or None without a name.

    Raises:
        ValueError: If it is not there, or not finite numbers of 0 or more, some above 0.
    """
    if name is None:
        return None
    check_columns(frame, [name])
    weights = numbers_of(frame[name])
    if weights is None or np.isnan(weights).any() or (weights < 0).any() or not (weights > 0).any():
        held = (
            f"{kind_of(frame[name])} values"
            if weights is None
            else f"{int(np.isnan(weights).sum())} missing values"
            if np.isnan(weights).any()
            else f"{weights.min():g} to {weights.max():g}"
            if len(weights)
            else "no rows"
        )
        raise ValueError(
            f"column {name!r} of the weights holds {held}, expected finite numbers of 0 or more in every row, not all 0"
        )
    return weights


def labels_of(targets: Sequence[Target], frame: pd.DataFrame, weights: Floats | None = None) -> Tensor:
    """What the network is trained on, (N, K) float32, NaN where missing.

    0 and 1, real targets with mean 0 and variance 1, numbers of classes; the rows' weights (N,), if there are any, stand
    behind as a further column.
    """
    labels = [(target.values(frame) - target.mean) / target.scale for target in targets]
    columns = labels if weights is None else [*labels, weights]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))


class MixedLoss:
    """One loss a task: cross-entropy of binary targets and of classes, squared error of real ones in standard deviations.

    A label that is NaN is left out. The O outputs are one a target, or one a class.

    Args:
        targets: K of them.
        device: Where outputs and labels lie.
        weights: Whether the labels have a further column, the rows' weights.
        tasks: What each task's loss is multiplied with; None for 1 each.

    Attributes:
        num_tasks: K.
        num_labels: Columns of the labels.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        device: torch.device | str = "cpu",
        *,
        weights: bool = False,
        tasks: Sequence[float] | None = None,
    ) -> None:
        self.num_tasks, self.num_labels = len(targets), len(targets) + weights
        self.binary = torch.tensor([target.binary for target in targets], device=device)
        self.tasks = None if tasks is None else torch.tensor(tasks, device=device)
        starts = np.cumsum([0, *(target.outputs for target in targets)]).tolist()
        self.first = torch.tensor(starts[:-1], device=device)
        self.classes = {
            task: slice(starts[task], starts[task + 1])
            for task, target in enumerate(targets)
            if target.classes
        }

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Outputs (B, O) and labels (B, K), or (B, K + 1) with weights, to mean losses (K,)."""
        y = labels[:, : self.num_tasks]
        first = outputs[:, self.first] if self.classes else outputs  # (B, K)
        # All are computed for all tasks and are finite for any finite number, so those not taken add no gradient.
        rows = torch.where(self.binary, cross_entropies(first, y), squared_errors(first, y))
        if self.classes:
            whole = y.nan_to_num().long()
            columns = list(rows.unbind(dim=1))
            for task, own in self.classes.items():
                columns[task] = F.cross_entropy(outputs[:, own], whole[:, task], reduction="none")
            rows = torch.stack(columns, dim=1)
        weights = labels[:, -1] if self.num_labels > self.num_tasks else None
        losses = mean_of_known(rows, y, weights)
        return losses if self.tasks is None else losses * self.tasks.to(losses.dtype)


class OwnUnits(torch.nn.Module):
    """Outputs (..., O) of a network as predictions: probabilities, and real targets in their own unit.

    Args:
        targets: K of them, with O outputs.
        dtype: Of the predictions.
    """

    def __init__(self, targets: Sequence[Target], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        each = [target for target in targets for _ in range(target.outputs)]
        self.sizes = [target.outputs for target in targets]
        self.register_buffer("binary", torch.tensor([target.binary for target in each]))
        self.register_buffer("mean", torch.tensor([target.mean for target in each], dtype=dtype))
        self.register_buffer("scale", torch.tensor([target.scale for target in each], dtype=dtype))

    binary: Tensor
    mean: Tensor
    scale: Tensor

    def forward(self, outputs: Tensor) -> Tensor:
        """Map (..., O) to (..., O)."""
        outputs = outputs.to(self.mean.dtype)
        # sigmoid(logit), or mean + scale * output
        single = torch.where(self.binary, torch.sigmoid(outputs), self.mean + self.scale * outputs)
        if max(self.sizes) == 1:
            return single
        pairs = zip(single.split(self.sizes, dim=-1), outputs.split(self.sizes, dim=-1), strict=True)
        return torch.cat(
            [one if one.shape[-1] == 1 else torch.softmax(logits, dim=-1) for one, logits in pairs], dim=-1
        )


def _numbers(column: pd.Series[Any]) -> Floats:
    values = numbers_of(column)
    if values is None:
        raise ValueError(
            f"target {column.name!r} holds {kind_of(column)} values, expected numbers or booleans as in training"
        )
    return values


def _check_several(name: str, distinct: int, rows: int) -> None:
    if distinct < 2:
        raise ValueError(
            f"target {name!r} holds {distinct} distinct value in the {rows} training rows, expected at least two: there "
            "is nothing to learn"
        )


def _check_meant_as_real(name: str, distinct: Floats) -> None:
    """Warn where the values of a real target look like labels."""
    if len(distinct) > 10 or (len(distinct) > 2 and not (distinct == distinct.round()).all()):
        return
    told = ", ".join(f"{value:g}" for value in distinct)
    if {*distinct.tolist()} == {-1.0, 0.0, 1.0}:
        meant = f"if -1 stands for a missing label: frame[{name!r}].mask(frame[{name!r}] == -1)"
    elif len(distinct) == 2:
        meant = f"for a probability: frame[{name!r}] == {distinct[1]:g}"
    else:
        meant = f"for probabilities: classes=[{name!r}]"
    warn(f"target {name!r} holds {told} and is predicted as a real value; {meant}")


def _in_order(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
