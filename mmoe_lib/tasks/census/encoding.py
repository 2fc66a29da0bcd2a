"""Census-Income (KDD) as two multi-task problems (section 6.3 of the MMoE paper).

`load` gives the tables, real or simulated; `encode` turns them into what a model sees. The paper does not
state its encoding; what is done here:

- The 31 nominal columns that may be inputs are one-hot over the categories of the official training file,
  plus one "unknown" column each for anything else. The list is fixed, so the columns are the same for train,
  validation and test, and for any choice of rows.
- The seven numbers are scaled to [0, 1] by their range in the training table; validation and test are clipped
  to it, so that no input is larger than what a model has learned from.
- The four money columns are taken as log(1 + dollars) first. Nine in ten people have 0 and the largest values
  are the top code 99,999, beside which a plain scaling would press the typical dividend of some hundred
  dollars to 0.
- Education, marital status, the income label and the instance weight are never inputs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mmoe_lib.tasks.census import simulated as stand_in
from mmoe_lib.tasks.census.columns import (
    COLUMNS,
    CONTINUOUS,
    COUNTS,
    GROUPS,
    MONEY,
    NEVER_INPUTS,
    NOMINAL,
    Group,
    Label,
    categories,
)
from mmoe_lib.tasks.census.files import UCI_117, read
from mmoe_lib.tasks.download import Release

INPUTS = tuple(column for column in COLUMNS if column not in NEVER_INPUTS)
"""The 38 columns that a model sees."""

UNKNOWN = "(unknown)"


@dataclass(frozen=True)
class CensusTables:
    """The two tables as they are, before any encoding.

    Attributes:
        train: 42 columns; nominal ones as pandas categoricals, numbers as int32, the weight as float32.
        test: the same columns with the same dtypes.
        simulated: whether this is the stand-in; figures and tables made from it must say so.
        source: a sentence on the origin for readers, without paths or times.
        sha256: the sum of every file behind the tables, by name.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    simulated: bool
    source: str
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class CensusData:
    """What a model is trained and judged on. All tensors are float32 on the CPU.

    Attributes:
        x_train: inputs (N, d) in [0, 1].
        y_train: labels (N, 2), 0 or 1, the main task first.
        x_validation: one half of the test table.
        y_validation: its labels.
        x_test: the other half.
        y_test: its labels.
        feature_names: the d inputs, e.g. "age" or "sex=Female".
        task_names: main and auxiliary task.
        group: the group of tasks.
        simulated: whether this is the stand-in.
        source: as in `CensusTables`.
    """

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_validation: torch.Tensor
    y_validation: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    feature_names: tuple[str, ...]
    task_names: tuple[str, str]
    group: Group
    simulated: bool
    source: str


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    simulated: bool = False,
    seed: int = 0,
    train_rows: int | None = None,
    test_rows: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    release: Release = UCI_117,
) -> CensusTables:
    """Load the real tables, or the simulated stand-in when asked for, never one for the other.

    The real files are looked for in `path`, in the folder named by the environment variable MMOE_DATA, and in
    the cache; else they are downloaded into it. Their sums are checked.

    Args:
        path: a folder with the files or with a folder census-income/ that holds them.
        simulated: draw the stand-in instead; no file of the real set is touched.
        seed: of the stand-in, and of the random subset of rows.
        train_rows: how many rows; None for the real count. Of the real tables these are drawn without
            replacement.
        test_rows: the same for test.
        cache: the folder of downloads and the fast form; None for `data/cache` of a checkout, else the
            user's.
        release: the files expected.

    Raises:
        ValueError: a file is not the official one (cut short, Adult, wrong sum), more rows are asked for than
            there are, or `path` and `simulated` are both given.
        FileNotFoundError: `path` or MMOE_DATA is no folder or holds no such files.
        DownloadError: an OSError; no address gave the files.
        OSError: the files must be downloaded and the cache cannot be written.
    """
    if simulated:
        if path is not None:
            raise ValueError(
                "path= names real files and simulated=True asks for the stand-in: give one of the two"
            )
        counts = [file.rows for file in release.files]
        train_rows = counts[0] if train_rows is None else train_rows
        test_rows = counts[1] if test_rows is None else test_rows
        train = stand_in.draw(train_rows, np.random.default_rng([seed, 0]))
        test = stand_in.draw(test_rows, np.random.default_rng([seed, 1]))
        source = (
            f"simulated stand-in for {release.title}, drawn from aggregate counts with seed {seed}, "
            f"{train_rows:,} + {test_rows:,} rows"
        )
        counted = {COUNTS.name: hashlib.sha256(COUNTS.read_bytes()).hexdigest()}
        return CensusTables(train, test, simulated=True, source=source, sha256=counted)

    train, test, sums = read(release.find_or_download(path, cache=cache), cache=cache, release=release)
    source = f"{release.title}, {len(train):,} + {len(test):,} rows, sums checked"
    if train_rows is not None or test_rows is not None:
        train = some_rows(train, train_rows, np.random.default_rng([seed, 0]))
        test = some_rows(test, test_rows, np.random.default_rng([seed, 1]))
        source += f"; of these {len(train):,} + {len(test):,} drawn with seed {seed}"
    return CensusTables(train, test, simulated=False, source=source, sha256=sums)


def encode(tables: CensusTables, group: str | Group, *, split_seed: int = 0) -> CensusData:
    """Encode the tables for one group of tasks, as the module's docstring describes.

    Args:
        tables: from `load`.
        group: "income", "education", or a group of one's own.
        split_seed: decides which rows of the test table are validation and which are test; halves, at random.

    Raises:
        ValueError: an unknown group, fewer than two test rows, or a label whose values occur in no table.
    """
    group = group_of(group)
    if len(tables.test) < 2 or len(tables.train) == 0:
        raise ValueError(
            f"{len(tables.train)} train and {len(tables.test)} test rows are too few to encode and split"
        )
    validation, test = (tables.test.iloc[rows] for rows in halves_of(len(tables.test), split_seed))

    numbers = numbers_of(tables.train)
    low, high = numbers.min(axis=0), numbers.max(axis=0)
    x_train, x_validation, x_test = (_inputs(part, low, high) for part in (tables.train, validation, test))
    y_train, y_validation, y_test = (_labels(part, group) for part in (tables.train, validation, test))
    return CensusData(
        x_train=x_train,
        y_train=y_train,
        x_validation=x_validation,
        y_validation=y_validation,
        x_test=x_test,
        y_test=y_test,
        feature_names=_feature_names(),
        task_names=(group.main.name, group.auxiliary.name),
        group=group,
        simulated=tables.simulated,
        source=tables.source,
    )


def group_of(group: str | Group) -> Group:
    """The group of that name, or the group itself.

    Raises:
        ValueError: there is none of that name.
    """
    if isinstance(group, Group):
        return group
    if group not in GROUPS:
        raise ValueError(f"unknown group {group!r}, expected one of {', '.join(map(repr, GROUPS))}")
    return GROUPS[group]


def halves_of(rows: int, split_seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which rows of the test table are validation, and which are test."""
    order = np.random.default_rng(split_seed).permutation(rows)
    return order[: rows // 2], order[rows // 2 :]


def some_rows(table: pd.DataFrame, rows: int | None, generator: np.random.Generator) -> pd.DataFrame:
    """So many random rows of a table, in their order; all of them for None.

    Raises:
        ValueError: there are not so many rows.
    """
    if rows is None:
        return table
    if not 0 < rows <= len(table):
        raise ValueError(f"{rows:,} rows asked for, expected 1 to {len(table):,}")
    chosen = np.sort(generator.choice(len(table), size=rows, replace=False))
    return table.iloc[chosen].reset_index(drop=True)


def answers_to(table: pd.DataFrame, label: Label) -> NDArray[np.float64]:
    """1 where the label is positive, else 0.

    Raises:
        ValueError: the label asks for a value that its column never holds.
    """
    # A value that is misspelt, or has a blank too many, would silently give a label that is never true.
    strange = label.positive.difference(table[label.column].cat.categories)
    if strange:
        raise ValueError(
            f"'{label.name}' asks for {sorted(strange)}, which {label.column} never holds: check the text"
        )
    return table[label.column].isin(label.positive).to_numpy().astype(np.float64)


def _labels(table: pd.DataFrame, group: Group) -> torch.Tensor:
    columns = [answers_to(table, label) for label in (group.main, group.auxiliary)]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))


def numbers_of(table: pd.DataFrame) -> NDArray[np.float64]:
    """The seven numbers (N, 7), money on a log scale."""
    return np.stack(
        [
            np.log1p(table[column].to_numpy(np.float64))
            if column in MONEY
            else table[column].to_numpy(np.float64)
            for column in CONTINUOUS
        ],
        axis=1,
    )


def scaled_by_range(
    numbers: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """To [0, 1] by a range and clipped to it; 0 where the range is a single value."""
    width = np.where(high > low, high - low, 1.0)
    return np.clip((numbers - low) / width, 0.0, 1.0)


def _nominal_inputs() -> tuple[str, ...]:
    return tuple(column for column in NOMINAL if column in INPUTS)


def _feature_names() -> tuple[str, ...]:
    one_hot = (f"{c}={value}" for c in _nominal_inputs() for value in (*categories()[c], UNKNOWN))
    return (*CONTINUOUS, *one_hot)


def _inputs(table: pd.DataFrame, low: NDArray[np.float64], high: NDArray[np.float64]) -> torch.Tensor:
    """Numbers scaled by the training range, then one one-hot block a nominal column: (N, d)."""
    x = np.zeros((len(table), len(_feature_names())), dtype=np.float32)
    x[:, : len(CONTINUOUS)] = scaled_by_range(numbers_of(table), low, high)
    hot = np.stack(hot_columns(table), axis=1)  # (N, 31): which inputs are 1
    np.put_along_axis(x, hot, np.float32(1.0), axis=1)
    return torch.from_numpy(x)


def hot_columns(table: pd.DataFrame) -> list[NDArray[np.int64]]:
    """For each nominal column the index of the input that is 1, for every row."""
    start = len(CONTINUOUS)
    hot = []
    for column in _nominal_inputs():
        listed = {value: start + index for index, value in enumerate(categories()[column])}
        unknown = start + len(listed)
        # By the value's name, not its code, so that a table with categories of its own cannot be misaligned.
        # The last entry serves code -1, a missing value.
        position = [listed.get(str(value), unknown) for value in table[column].cat.categories]
        hot.append(np.array([*position, unknown])[table[column].cat.codes.to_numpy()])
        start = unknown + 1
    return hot
