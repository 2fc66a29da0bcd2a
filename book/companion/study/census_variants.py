"""Census-Income encoded otherwise: slips of other re-implementations, and choices that the paper leaves open.

Each variant changes one thing in `census.encode`, so that a study can measure how much AUC that one thing
moves. Rows, split and labels are those of `encode` unless the variant is about them. Two of them leave the
range [0, 1] of the inputs, as their names say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from companion.census_changes import AS_IN_THE_STUDY
from mmoe_lib.tasks.census import CensusData, CensusTables, encode
from mmoe_lib.tasks.census.columns import COLUMNS, CONTINUOUS, EDUCATION, WEIGHT, Group, Label, categories
from mmoe_lib.tasks.census.encoding import (
    UNKNOWN,
    group_of,
    halves_of,
    hot_columns,
    numbers_of,
    scaled_by_range,
)

__all__ = ["AS_IN_THE_STUDY", "VARIANTS", "encode_variant", "misaligned_columns"]

_Halves = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows of the test table: validation, test

VARIANTS: Mapping[str, str] = MappingProxyType(
    {
        AS_IN_THE_STUDY: "One-hot by a fixed list, numbers scaled by the training range, money on a log scale.",
        "education kept": "Education is one of the inputs, although it is a label of the other group of tasks.",
        "weight kept": "The instance weight is one of the inputs, although a classifier must not use it.",
        "education and weight kept": "Education and the instance weight are both among the inputs.",
        "columns misaligned": (
            "Train and test are made one-hot apart and what is missing is appended last, so that columns shift."
        ),
        "numbers unscaled": "The seven numbers are inputs as the file has them, up to 99,999.",
        "money on a plain scale": "Money is scaled by the training range without the logarithm.",
        "numbers standardised": "The seven numbers have mean 0 and standard deviation 1 in training.",
        "bachelor's or higher": "The education label leaves out associate degrees.",
        "some college or higher": "The education label also counts those who left college without a degree.",
        "duplicates of training rows left out": (
            "Nobody in validation or test is the same as a training row in all but the instance weight."
        ),
    }
)
"""What each variant does, in a sentence for a table."""

_KEPT = {
    "education kept": (EDUCATION.column,),
    "weight kept": (WEIGHT,),
    "education and weight kept": (EDUCATION.column, WEIGHT),
}

_EDUCATION_LABELS = {
    "bachelor's or higher": Label(
        "education at least bachelor's degree",
        EDUCATION.column,
        EDUCATION.positive - {"Associates degree-academic program", "Associates degree-occup /vocational"},
    ),
    "some college or higher": Label(
        "education at least some college",
        EDUCATION.column,
        EDUCATION.positive | {"Some college but no degree"},
    ),
}


def encode_variant(
    tables: CensusTables, group: str | Group, variant: str, *, split_seed: int = 0
) -> CensusData:
    """Encode the tables as `encode` does, but for one change.

    With "columns misaligned", `feature_names` are those of the training inputs; in validation and test some
    columns hold something else, which is the point.

    Args:
        tables: from `load`.
        group: as for `encode`.
        variant: one of `VARIANTS`.
        split_seed: as for `encode`; validation and test hold the same rows, less those that a variant leaves
            out.

    Returns:
        The data; `source` names the variant, unless it is the study's own.

    Raises:
        ValueError: what `encode` raises, an unknown variant, one that does not suit the group, or every row
            of a half is left out.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}, expected one of {', '.join(map(repr, VARIANTS))}")
    group = group_of(group)
    labels = (group.main, group.auxiliary)
    if EDUCATION.column in _KEPT.get(variant, ()) and EDUCATION.column in (label.column for label in labels):
        raise ValueError(
            f"{variant!r} would give group {group.name!r} its own label as an input: take group 'income'"
        )
    if variant in _EDUCATION_LABELS:
        if group.main.column != EDUCATION.column:
            raise ValueError(
                f"{variant!r} is another education label, and the main task of group {group.name!r} is not "
                "about education: take group 'education'"
            )
        # The correlation that the paper prints stays: it is for this group, whatever its label was.
        group = replace(group, main=_EDUCATION_LABELS[variant])

    data = encode(tables, group, split_seed=split_seed)
    if variant == AS_IN_THE_STUDY:
        return data
    halves = halves_of(len(tables.test), split_seed)
    if variant in _KEPT:
        data = _with_columns(data, tables, halves, _KEPT[variant])
    elif variant in _NUMBERS:
        for x, table in zip(_inputs(data), _parts(tables, halves), strict=True):
            # In place: nobody else holds what `encode` has just made.
            x[:, : len(CONTINUOUS)] = torch.from_numpy(
                _NUMBERS[variant](table, tables.train).astype(np.float32)
            )
    elif variant == "columns misaligned":
        train, test = _layouts(tables)
        x_train, x_validation, x_test = _inputs(data)
        data = replace(
            data,
            x_train=x_train[:, train],
            x_validation=x_validation[:, test],
            x_test=x_test[:, test],
            feature_names=tuple(data.feature_names[index] for index in train),
        )
    elif variant == "duplicates of training rows left out":
        data = _without_duplicates(data, tables, halves)
    return replace(data, source=f"{tables.source}; variant: {variant}")


def misaligned_columns(tables: CensusTables) -> int:
    """How many columns of "columns misaligned" mean one thing in train and another in validation and test."""
    train, test = _layouts(tables)
    return int((train != test).sum())


def _inputs(data: CensusData) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return data.x_train, data.x_validation, data.x_test


def _parts(tables: CensusTables, halves: _Halves) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    validation, test = halves
    return tables.train, tables.test.iloc[validation], tables.test.iloc[test]


# --- columns kept ---


def _with_columns(
    data: CensusData, tables: CensusTables, halves: _Halves, columns: Sequence[str]
) -> CensusData:
    """Append what `encode` leaves out."""
    names = [name for column in columns for name in _added_names(column)]
    x_train, x_validation, x_test = (
        torch.cat([x, *(_added(table, column, tables.train) for column in columns)], dim=1)
        for x, table in zip(_inputs(data), _parts(tables, halves), strict=True)
    )
    return replace(
        data,
        x_train=x_train,
        x_validation=x_validation,
        x_test=x_test,
        feature_names=(*data.feature_names, *names),
    )


def _added_names(column: str) -> list[str]:
    if column == WEIGHT:
        return [WEIGHT]
    return [f"{column}={value}" for value in (*categories()[column], UNKNOWN)]


def _added(table: pd.DataFrame, column: str, train: pd.DataFrame) -> torch.Tensor:
    """The inputs of one column: a number scaled by the training range, or a one-hot block."""
    if column == WEIGHT:
        weights, of_train = (part[[WEIGHT]].to_numpy(np.float64) for part in (table, train))
        scaled = scaled_by_range(weights, of_train.min(axis=0), of_train.max(axis=0))  # (N, 1)
        return torch.from_numpy(scaled.astype(np.float32))
    listed = categories()[column]
    hot = np.zeros((len(table), len(listed) + 1), dtype=np.float32)
    # Values outside of the list have code -1, which is the last input: unknown.
    hot[np.arange(len(table)), table[column].cat.set_categories(listed).cat.codes.to_numpy()] = 1.0
    return torch.from_numpy(hot)


# --- numbers on other scales ---


def _as_in_the_file(table: pd.DataFrame) -> NDArray[np.float64]:
    """The seven numbers (N, 7) as they are."""
    return table[list(CONTINUOUS)].to_numpy(np.float64)


def _by_range(table: pd.DataFrame, train: pd.DataFrame) -> NDArray[np.float64]:
    """Scaled to [0, 1] by the training range, no logarithm."""
    of_train = _as_in_the_file(train)
    return scaled_by_range(_as_in_the_file(table), of_train.min(axis=0), of_train.max(axis=0))


def _standardised(table: pd.DataFrame, train: pd.DataFrame) -> NDArray[np.float64]:
    """(x - mean) / sd by the training table, money on a log scale; 0 for a number that never varies there."""
    of_train = numbers_of(train)
    low, high = of_train.min(axis=0), of_train.max(axis=0)
    # By the range and not by sd > 0: the sd of equal numbers may be a rounding error.
    deviation = np.where(high > low, of_train.std(axis=0), np.inf)
    return (numbers_of(table) - of_train.mean(axis=0)) / deviation


_NUMBERS: Mapping[str, Callable[[pd.DataFrame, pd.DataFrame], NDArray[np.float64]]] = {
    "numbers unscaled": lambda table, train: _as_in_the_file(table),
    "money on a plain scale": _by_range,
    "numbers standardised": _standardised,
}


# --- columns misaligned ---


def _layouts(tables: CensusTables) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which input of the fixed layout stands in each column of train, and which in each column of test.

    As `pandas.get_dummies` on each table by itself lays them out: the numbers, then the values that occur in
    the table, in the fixed order; then what only the other table has, filled with zeros. keras-mmoe does so
    for the one value that the real test file lacks. Values that train lacks, which happens when only some
    rows are taken, are appended to train in the same way.
    """
    train, test = (
        np.concatenate([np.unique(hot) for hot in hot_columns(table)])
        for table in (tables.train, tables.test)
    )
    numbers = np.arange(len(CONTINUOUS))
    return (
        np.concatenate([numbers, train, np.setdiff1d(test, train)]),
        np.concatenate([numbers, test, np.setdiff1d(train, test)]),
    )


# --- duplicates ---


def _without_duplicates(data: CensusData, tables: CensusTables, halves: _Halves) -> CensusData:
    """Leave out the validation and test rows that training has already shown."""
    new = ~_occurs_in_train(tables)
    validation, test = (torch.from_numpy(new[rows]) for rows in halves)
    for name, keep in (("validation", validation), ("test", test)):
        if not keep.any():
            raise ValueError(
                f"all {len(keep):,} {name} rows occur in training, expected new ones among them: take more rows"
            )
    return replace(
        data,
        x_validation=data.x_validation[validation],
        y_validation=data.y_validation[validation],
        x_test=data.x_test[test],
        y_test=data.y_test[test],
    )


def _occurs_in_train(tables: CensusTables) -> NDArray[np.bool_]:
    """For each row of the test table whether training has one with the same values, the weight aside."""
    columns = [column for column in COLUMNS if column != WEIGHT]
    both = pd.concat([tables.train[columns], tables.test[columns]], ignore_index=True)
    # Equal rows get the same number. No hash, so no collision, and half a second for the whole set.
    person = both.groupby(columns, sort=False, observed=True, dropna=False).ngroup().to_numpy()
    return np.isin(person[len(tables.train) :], person[: len(tables.train)])
