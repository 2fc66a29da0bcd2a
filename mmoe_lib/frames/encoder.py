"""Columns of a frame as what a network reads, by rules that the training rows alone decide.

Numbers and booleans become one column each, categories and text one column a value; where there are too many values,
or where it is asked for, ids that a vector is learned for, which are whole numbers from the first to the last. No row
is dropped and no column is added in silence: what is missing, or was never seen in training, is encoded as the classes
below say.
"""

from __future__ import annotations

import math
import operator
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mmoe_lib.frames.columns import (
    LARGEST,
    Floats,
    check_columns,
    check_seen,
    check_text,
    codes_of,
    kind_of,
    moments,
    numbers_of,
    warn,
    whole,
)
from mmoe_lib.models.embeddings import Inputs

MAX_CATEGORIES = 1000
"""Distinct values above which a column of text becomes ids with an embedding instead of a column a value."""

MAX_LENGTH = 50
"""Values of a list that are read, at most."""

FAR = 1e4
"""Standard deviations from the training mean above which a number is warned about: its unit is likely another."""

UNKNOWN = "(unknown)"
"""What the column of missing and unseen values is called among the names of a category's columns."""


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
        """Mean and standard deviation of the values (N,) that are not NaN.

        Raises:
            ValueError: If float32 does not tell them apart.
        """
        return cls(name, *moments(f"column {name!r}", values))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The name of the one column."""
        return (self.name,)

    def encode(self, column: pd.Series[Any], out: NDArray[np.float32]) -> None:
        """Write the column (N,) into zeros (N, 1).

        Raises:
            ValueError: If it holds anything but numbers, infinity, or what lies too far from the training mean.
        """
        values = numbers_of(column)
        if values is None:
            raise ValueError(
                f"column {self.name!r} holds {kind_of(column)} values, expected numbers as in training: convert it"
            )
        if not self.scale or not len(values):
            return
        with np.errstate(over="ignore"):
            scaled = (values - self.mean) / self.scale
        missing = np.isnan(scaled)
        scaled[missing] = 0.0
        far = float(np.abs(scaled).max())
        told = f"{far:.0e} standard deviations from the mean {self.mean:g} of training"
        if far > LARGEST:
            raise ValueError(f"column {self.name!r} lies {told}, expected numbers as in training: clip it")
        if far > FAR:
            warn(f"column {self.name!r} lies up to {told}: is it in the same unit?")
        if len(values) > 1 and missing.all():
            warn(f"column {self.name!r} has no value in these {len(values)} rows: all count as the mean")
        out[:, 0] = scaled


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
    def fit(cls, name: str, codes: NDArray[np.intp], texts: Sequence[str]) -> Category:
        """The values that occur, from codes (N,), -1 where missing, and their texts."""
        counts: dict[str, int] = {}
        for text, count in zip(texts, np.bincount(codes[codes >= 0], minlength=len(texts)), strict=True):
            counts[text] = counts.get(text, 0) + int(count)
        values = tuple(sorted(counts))
        if (codes < 0).any() or not values:
            return cls(name, values, (*[0.0] * len(values), 1.0))
        return cls(name, values, (*[counts[value] / len(codes) for value in values], 0.0))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the V + 1 columns."""
        return tuple(f"{self.name}={value}" for value in (*self.values, UNKNOWN))

    def encode(self, column: pd.Series[Any], out: NDArray[np.float32]) -> None:
        """Write the column (N,) into zeros (N, V + 1)."""
        places = places_of(self.name, column, {value: place for place, value in enumerate(self.values)})
        known = np.flatnonzero(places >= 0)
        out[known, places[known]] = 1.0
        out[places < 0] = np.array(self.unknown, dtype=np.float32)


@dataclass(frozen=True)
class Embedding:
    """How a column of ids is embedded.

    Attributes:
        width: Numbers of each vector; None takes the fourth root of the number of values, rounded up (Google
            Developers, Introducing TensorFlow Feature Columns, 2017).
        min_count: Training rows that an id needs for a vector of its own; the rarer ones share that of the unknown.
        buckets: Vectors that all ids share by a hash of their text (CRC-32 modulo buckets), instead of one each: for
            ids that keep coming. None hashes nothing.

    Raises:
        ValueError: If a number is out of range.
    """

    width: int | None = None
    min_count: int = 2
    buckets: int | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("width", self.width),
            ("min_count", self.min_count),
            ("buckets", self.buckets),
        ):
            if value is not None:
                whole(f"{name} of an embedding", value, 1)


@dataclass(frozen=True)
class Ids:
    """A column of ids, or of lists of ids, as rows of a table of vectors.

    Row 0 stands for nothing and fills up lists, row 1 for missing, rare and unseen ids, the others for the ids seen in
    training in the order of `values`, or for the buckets. Lists are read as the mean of their vectors, an empty one as
    a missing id. An id is compared by its text and never passes through a float. The vectors of rows that no training
    row reads, such as row 1 where nothing was missing or rare, become the mean vector of the training rows.

    Attributes:
        name: Of the column.
        values: Text of the ids with a vector of their own, sorted; none where they are hashed.
        buckets: Of the hash; 0 where there is none.
        width: Numbers of each vector.
        length: Ids of a row that are read; 1 where the column holds no lists.
    """

    name: str
    values: tuple[str, ...]
    buckets: int
    width: int
    length: int

    @classmethod
    def fit(cls, column: pd.Series[Any], how: Embedding) -> Ids:
        """The ids that occur often enough, and the longest list.

        Raises:
            ValueError: If none occurs often enough.
        """
        name, length = str(column.name), 1
        if kind_of(column) == "lists":
            column = _exploded(column)
            length = min(MAX_LENGTH, int(column.index.value_counts().max()))
        codes, texts = codes_of(column)
        if how.buckets:
            return cls(name, (), int(how.buckets), how.width or _width(how.buckets), length)
        counts = np.bincount(codes[codes >= 0], minlength=len(texts))
        values = tuple(
            sorted({text for text, count in zip(texts, counts, strict=True) if count >= how.min_count})
        )
        if not values:
            raise ValueError(
                f"column {name!r} holds {len(texts):,} distinct values, expected some in {how.min_count} rows or more: "
                "leave it out of the inputs, or give Embedding(min_count=1)"
            )
        return cls(name, values, 0, how.width or _width(len(values)), length)

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return 2 + (self.buckets or len(self.values))

    def encode(self, column: pd.Series[Any], out: NDArray[np.int64]) -> None:
        """Write the column (N,) into zeros (N, length)."""
        if kind_of(column) == "lists":
            if self.length == 1 and len(column):
                warn(
                    f"column {self.name!r} holds lists where training had one value: the first of each is read"
                )
            column = _exploded(column)
        else:
            column = column.reset_index(drop=True)
        known = {value: place for place, value in enumerate(self.values)}
        ids = places_of(self.name, column, known, self.buckets) + 2  # -1 becomes row 1
        rows = column.index.to_numpy()
        places = np.arange(len(rows)) - np.searchsorted(rows, rows)  # within the list
        read = places < self.length
        if self.length > 1 and not read.all():
            warn(
                f"column {self.name!r} holds lists of more than {self.length} values: the others are not read"
            )
        out[rows[read], places[read]] = ids[read]


@dataclass(frozen=True)
class FrameEncoder:
    """The input columns of a frame as one tensor, or as ids and numbers, always in the same order.

    Attributes:
        columns: How each is encoded, in the order of the tensors.
    """

    columns: tuple[Number | Category | Ids, ...]

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        inputs: Sequence[str],
        embeddings: Mapping[str, Embedding] | None = None,
    ) -> FrameEncoder:
        """Take means, deviations and values from the training rows.

        Args:
            frame: The training rows, no others.
            inputs: Names of its columns to read.
            embeddings: How the columns that are to be ids are embedded, by name. Lists, and text or categories of more
                than `MAX_CATEGORIES` values, are ids in any case.

        Raises:
            ValueError: If there is no row or no input, a column is missing, infinite, or neither numbers, text nor
                lists (such as dates), or an embedding is asked for a column that is no input.
        """
        if not len(frame) or not inputs:
            raise ValueError(
                f"the frame has {len(frame)} rows and {len(inputs)} input columns, expected at least one of each"
            )
        check_columns(frame, inputs)
        embeddings = embeddings or {}
        strange = [name for name in embeddings if name not in inputs]
        if strange:
            raise ValueError(f"embeddings name {strange[0]!r}, expected columns among the inputs")
        return cls(tuple(_fitted(frame[name], embeddings.get(name)) for name in inputs))

    @property
    def ids(self) -> tuple[Ids, ...]:
        """Those of the columns that are embedded."""
        return tuple(column for column in self.columns if isinstance(column, Ids))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A name for each column of the numbers, d in all."""
        return tuple(
            name for column in self.columns if not isinstance(column, Ids) for name in column.feature_names
        )

    def encode(self, frame: pd.DataFrame) -> Inputs:
        """The rows of a frame as (N, d), float32; with embedded columns a pair: ids (N, S), int64, and (N, d).

        A list takes its `length` columns of the ids. The frame's columns may stand in any order; others are not
        looked at.

        Raises:
            ValueError: If a column is missing, or holds text or infinity where training had numbers.
        """
        check_columns(frame, [column.name for column in self.columns])
        numbers = np.zeros((len(frame), len(self.feature_names)), dtype=np.float32)
        ids = np.zeros((len(frame), sum(column.length for column in self.ids)), dtype=np.int64)
        at = {True: 0, False: 0}
        for column in self.columns:
            embedded = isinstance(column, Ids)
            width = column.length if isinstance(column, Ids) else len(column.feature_names)
            out: Any = (ids if embedded else numbers)[:, at[embedded] : at[embedded] + width]
            column.encode(frame[column.name], out)
            at[embedded] += width
        if not self.ids:
            return torch.from_numpy(numbers)
        return torch.from_numpy(ids), torch.from_numpy(numbers)

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
        kinds = {kind.__name__: kind for kind in (Number, Category, Ids)}
        columns: list[Number | Category | Ids] = []
        try:
            for given in plain:
                if given["kind"] not in kinds:
                    raise ValueError(f"kind is {given['kind']!r}, expected {', '.join(map(repr, kinds))}")
                kind: Any = kinds[given["kind"]]
                columns.append(kind(**{one.name: _READ[one.type](given[one.name]) for one in fields(kind)}))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no encoder, expected what to_plain gives ({error!r})") from error
        return cls(tuple(columns))


_READ: dict[Any, Callable[[Any], object]] = {
    "str": str,
    "int": operator.index,
    "float": float,
    "tuple[str, ...]": lambda values: tuple(map(str, values)),
    "tuple[float, ...]": lambda values: tuple(map(float, values)),
}


def _fitted(column: pd.Series[Any], how: Embedding | None) -> Number | Category | Ids:
    kind, name = kind_of(column), str(column.name)
    if kind not in ("numbers", "text", "lists"):
        raise ValueError(
            f"column {name!r} holds {kind} values, expected numbers, booleans, categories, text or lists: convert it, "
            "or leave it out of the inputs"
        )
    if how or kind == "lists":
        return Ids.fit(column, how or Embedding())
    numbers = numbers_of(column)
    if numbers is not None:
        return Number.fit(name, numbers)
    codes, texts = codes_of(column)
    if not isinstance(column.dtype, pd.CategoricalDtype):
        check_text(name, texts)
    if len(texts) > MAX_CATEGORIES:
        return Ids.fit(column, Embedding())
    return Category.fit(name, codes, texts)


def _width(values: int) -> int:
    return math.ceil(values**0.25)


def _exploded(column: pd.Series[Any]) -> pd.Series[Any]:
    """A row a value of the lists, their index the number of the row that they stood in."""
    return column.reset_index(drop=True).explode()


def places_of(
    name: str, column: pd.Series[Any], known: Mapping[str, int], buckets: int = 0
) -> NDArray[np.intp]:
    """The place of each value (N,) among the known ones or the buckets; -1 for missing and unseen."""
    codes, texts = codes_of(column)
    if buckets:
        found = [zlib.crc32(text.encode()) % buckets for text in texts]
    else:
        check_seen(name, texts, known, len(column))
        found = [known.get(text, -1) for text in texts]
    return np.array([*found, -1], dtype=np.intp)[codes]  # code -1 takes the last
