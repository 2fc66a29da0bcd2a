"""Columns of a frame as the numbers that a network reads, by rules that the training rows alone decide.

Numbers and booleans become one column each, categories and text one column a value. No row is dropped and no column
is added in silence: what is missing, or was never seen in training, is encoded as the classes below say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_CATEGORIES = 1000
"""Distinct values above which a column of text is refused: it is most likely a name or a number of a row."""

UNKNOWN = "(unknown)"
"""What the column of missing and unseen values is called among the names of a category's columns."""

Floats = NDArray[np.float64]

_NUMBERS = ("boolean", "integer", "floating", "mixed-integer-float", "decimal", "empty")
_TEXT = ("string", "categorical", "mixed-integer")


@dataclass(frozen=True)
class Number:
    """A column of numbers or booleans (True is 1), scaled to mean 0 and variance 1 over the training rows.

    A missing value counts as the training mean, so it is encoded as 0; how many are missing is not told to the model.
    A column that has one value in training, or none, is encoded as 0 whatever it holds later: nothing was learned.

    Attributes:
        name: Of the column.
        mean: Over the training rows that have a value.
        scale: Their standard deviation; 0 where it is constant.
    """

    name: str
    mean: float
    scale: float

    @classmethod
    def fit(cls, name: str, values: Floats) -> Number:
        """Mean and standard deviation of the values (N,) that are not NaN."""
        present = values[~np.isnan(values)]
        if not len(present):
            return cls(name, 0.0, 0.0)
        # By the range: the deviation of a constant is not 0 when its mean was rounded.
        constant = present.min() == present.max()
        return cls(name, float(present.mean()), 0.0 if constant else float(present.std()))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The name of the one column."""
        return (self.name,)

    def encode(self, column: pd.Series[Any]) -> Floats:
        """The column (N,) as (N, 1).

        Raises:
            ValueError: If it holds anything but numbers, or infinity.
        """
        values = numbers_of(column)
        if values is None:
            raise ValueError(
                f"column {self.name!r} holds {_kind(column)} values, expected numbers as in training: convert it"
            )
        # (x - mean) / scale
        scaled = (values - self.mean) / (self.scale or 1.0) * (self.scale > 0)
        return np.nan_to_num(scaled)[:, None]


@dataclass(frozen=True)
class Category:
    """A column of categories or text, one column a value seen in training and a last one for all others.

    Values are compared by their text, so the number 1 is the text "1". Missing values and those not seen in training
    share the last column. Where no training row is missing, the weights of that column would be left as they were
    drawn; then such a value is encoded as the mean training row instead, which is the share of each value.

    Attributes:
        name: Of the column.
        values: Text of the values of the training rows, V, sorted.
        unknown: How any other value is encoded, (V + 1).
    """

    name: str
    values: tuple[str, ...]
    unknown: tuple[float, ...]

    @classmethod
    def fit(cls, name: str, texts: Sequence[str | None]) -> Category:
        """The values (N,) that occur; None is missing.

        Raises:
            ValueError: If there are more than `MAX_CATEGORIES`.
        """
        values = sorted({text for text in texts if text is not None})
        if len(values) > MAX_CATEGORIES:
            raise ValueError(
                f"column {name!r} holds {len(values):,} distinct values, expected at most {MAX_CATEGORIES:,}: "
                "leave it out of the inputs, or group its values"
            )
        if None in texts or not values:
            return cls(name, tuple(values), (*[0.0] * len(values), 1.0))
        counts = Counter(texts)
        return cls(name, tuple(values), (*[counts[value] / len(texts) for value in values], 0.0))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the V + 1 columns."""
        return tuple(f"{self.name}={value}" for value in (*self.values, UNKNOWN))

    def encode(self, column: pd.Series[Any]) -> Floats:
        """The column (N,) as (N, V + 1)."""
        rows = np.vstack([np.eye(len(self.values), len(self.values) + 1), self.unknown])
        places: dict[str | None, int] = {value: place for place, value in enumerate(self.values)}
        return rows[np.array([places.get(text, -1) for text in texts_of(column)], dtype=np.intp)]


@dataclass(frozen=True)
class FrameEncoder:
    """The input columns of a frame as one tensor, always in the same order.

    Attributes:
        columns: How each is encoded, in the order of the tensor.
    """

    columns: tuple[Number | Category, ...]

    @classmethod
    def fit(cls, frame: pd.DataFrame, inputs: Sequence[str]) -> FrameEncoder:
        """Take means, deviations and values from the training rows.

        Args:
            frame: The training rows, no others.
            inputs: Names of its columns to read.

        Raises:
            ValueError: If there is no row or no input, a column is missing, infinite, neither numbers nor text (dates,
                lists), or has more than `MAX_CATEGORIES` values.
        """
        if not len(frame) or not inputs:
            raise ValueError(
                f"the frame has {len(frame)} rows and {len(inputs)} input columns, expected at least one of each"
            )
        check_columns(frame, inputs)
        fitted: list[Number | Category] = []
        for name in inputs:
            numbers = numbers_of(frame[name])
            if numbers is not None:
                fitted.append(Number.fit(name, numbers))
            elif _kind(frame[name]) in _TEXT:
                fitted.append(Category.fit(name, texts_of(frame[name])))
            else:
                raise ValueError(
                    f"column {name!r} holds {_kind(frame[name])} values, expected numbers, booleans, categories or "
                    "text: convert it, or leave it out of the inputs"
                )
        return cls(tuple(fitted))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A name for each column of the tensor, d in all."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def encode(self, frame: pd.DataFrame) -> Tensor:
        """The rows of a frame as (N, d), float32. Its columns may stand in any order; others are not looked at.

        Raises:
            ValueError: If a column is missing, or holds text or infinity where training had numbers.
        """
        check_columns(frame, [column.name for column in self.columns])
        parts = [column.encode(frame[column.name]) for column in self.columns]
        return torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))

    def to_plain(self) -> list[dict[str, Any]]:
        """Lists, text and numbers that hold all of it, as JSON can."""
        return [
            {"kind": type(column).__name__}
            | {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in vars(column).items()
            }
            for column in self.columns
        ]

    @classmethod
    def from_plain(cls, plain: Sequence[Mapping[str, Any]]) -> FrameEncoder:
        """What `to_plain` gave, also after a way through JSON.

        Raises:
            ValueError: If it is anything else.
        """
        columns: list[Number | Category] = []
        try:
            for fields in plain:
                if fields["kind"] == "Number":
                    columns.append(Number(str(fields["name"]), float(fields["mean"]), float(fields["scale"])))
                elif fields["kind"] == "Category":
                    values, unknown = map(str, fields["values"]), map(float, fields["unknown"])
                    columns.append(Category(str(fields["name"]), tuple(values), tuple(unknown)))
                else:
                    raise ValueError(f"kind is {fields['kind']!r}, expected 'Number' or 'Category'")
        except (KeyError, TypeError) as error:
            raise ValueError(f"no encoder, expected what to_plain gives ({error!r})") from error
        return cls(tuple(columns))


def check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise ValueError unless the frame has each of these columns once."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(
            f"the frame has no column {', '.join(map(repr, missing))}, expected it beside {list(frame.columns)[:5]}: "
            "add it, or correct its name"
        )
    twice = [name for name in names if isinstance(frame[name], pd.DataFrame)]
    if twice:
        raise ValueError(
            f"the frame has column {twice[0]!r} more than once, expected once: rename or drop the others"
        )


def numbers_of(column: pd.Series[Any]) -> Floats | None:
    """A column of numbers or booleans as (N,), NaN where missing; None if it holds anything else.

    Raises:
        ValueError: If a number is infinite.
    """
    if _kind(column) not in _NUMBERS:
        return None
    values: Floats = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        raise ValueError(
            f"column {column.name!r} holds infinity, expected finite numbers: clean the data first"
        )
    return values


def texts_of(column: pd.Series[Any]) -> list[str | None]:
    """The text of each value, None where missing; a whole number is written without a point."""
    return [
        None
        if missing
        else str(int(value))
        if isinstance(value, float) and value.is_integer()
        else str(value)
        for value, missing in zip(column.tolist(), column.isna(), strict=True)
    ]


def _kind(column: pd.Series[Any]) -> str:
    """What pandas takes the values for; of a categorical column "categorical", whatever its values are."""
    return str(pd.api.types.infer_dtype(column, skipna=True))
