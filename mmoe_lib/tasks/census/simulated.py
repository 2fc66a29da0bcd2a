"""A simulated stand-in for Census-Income, for machines that can have neither the files nor a network.

It has the same columns, categories, label rates and label correlations as the real set; no row of that set is
stored. What is stored, in `counts.csv`, are aggregate counts of the 199,523 training rows: the rows
fall into eight cells by their three labels (income > 50K, education at least associate degree, never
married), and within a cell each column is counted on its own: how often each category, or each range of a
number, occurs. A row of the stand-in is one cell drawn by its count, then one value a column drawn by that
cell's counts, so the columns are independent given the three labels. This keeps what each column says about
the labels, one column at a time, and loses what columns say together. Independent columns add up their
evidence, so labels are easier to tell than in the real data: an AUC on the stand-in is no estimate of the AUC
there.

No stored number speaks about two columns of one person other than the labels, so no row can be rebuilt.

Counted from Census-Income (KDD), UCI Machine Learning Repository, data set 117 (doi 10.24432/C5N30T), donated
by Terran Lane and Ronny Kohavi from the US Census Bureau's Current Population Surveys 1994-95, CC BY 4.0.

The book's checkout has the program that counted them, `companion.study.census_counts`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmoe_lib.tasks.census.columns import (
    COLUMNS,
    COUNTS,
    NOMINAL,
    WEIGHT,
    categories,
)

CELLS = tuple(f"{income}{education}{marital}" for income in "01" for education in "01" for marital in "01")
"""The eight label cells, named by the answers to income > 50K, at least associate degree, never married."""

# The first value of each bin of a number; a bin ends before the next one begins, the last at LARGEST. Zero
# and the top codes (90 years, 52 weeks, 99,999 dollars) are bins of their own.
BIN_STARTS: dict[str, tuple[int, ...]] = {
    "age": (*range(0, 90, 5), 90),
    "wage_per_hour": (0, 1, 250, 400, 500, 600, 700, 800, 1000, 1250, 1500, 2000, 3000, 5000),
    "capital_gains": (0, 1, 1000, 2000, 3000, 4000, 5000, 7500, 10000, 15000, 20000, 30000, 99999),
    "capital_losses": (0, 1, 500, 1000, 1250, 1500, 1750, 2000, 2250, 2500, 3000),
    "stock_dividends": (0, 1, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 99999),
    "num_emp": (0, 1, 2, 3, 4, 5, 6),
    "weeks_worked": (0, 1, 13, 26, 39, 52),
    WEIGHT: (0, 250, 500, 750, 1000, 1250, 1500, 1750, 2000, 2500, 3000, 4000, 6000, 10000),
}
LARGEST = {
    "age": 90,
    "wage_per_hour": 9999,
    "capital_gains": 99999,
    "capital_losses": 4608,
    "stock_dividends": 99999,
    "num_emp": 6,
    "weeks_worked": 52,
    WEIGHT: 19999,
}


def draw(rows: int, generator: np.random.Generator) -> pd.DataFrame:
    """Draw people of the stand-in.

    The same generator state gives the same table on every machine: only uniform numbers are drawn, and they
    are compared with whole counts.

    Args:
        rows: how many.
        generator: the source of randomness, e.g. `numpy.random.default_rng(seed)`.

    Returns:
        A frame of `rows` rows and the 42 columns, typed as the real tables are: nominal columns as pandas
        categoricals over the categories of the official training file, numbers as int32, the weight as
        float32.

    Raises:
        ValueError: `rows` is not positive.
    """
    if rows < 1:
        raise ValueError(f"the stand-in needs at least one row, got {rows}")
    counts = _read_counts()
    in_cell = counts["income_50k"].to_numpy().sum(axis=0)
    # Sorted by cell while drawing, so that each cell is one slice of every column; shuffled at the end.
    ends = np.searchsorted(np.sort(_pick(in_cell, rows, generator)), np.arange(len(CELLS)), side="right")
    slices = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    order = generator.permutation(rows)

    columns: dict[str, Any] = {}
    for column in COLUMNS:
        table = counts[column].to_numpy()  # (values, cells)
        picked = np.empty(rows, dtype=np.int64)
        for cell, of_cell in enumerate(slices):
            picked[of_cell] = _pick(table[:, cell], of_cell.stop - of_cell.start, generator)
        if column in NOMINAL:
            dtype = pd.CategoricalDtype(list(categories()[column]))
            columns[column] = pd.Categorical.from_codes(picked[order], dtype=dtype)
        else:
            columns[column] = _within_bins(column, picked, generator)[order]
    return pd.DataFrame(columns)


def _pick(counts: NDArray[np.int64], rows: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """`rows` indices, each drawn with a probability proportional to its count."""
    cumulative = np.cumsum(counts)
    tickets = (generator.random(rows) * cumulative[-1]).astype(np.int64)
    return np.searchsorted(cumulative, tickets, side="right")


def _within_bins(column: str, bins: NDArray[np.int64], generator: np.random.Generator) -> NDArray[Any]:
    """A number for each bin index: uniform over the bin's whole numbers, or its hundredths for the weight."""
    steps = 100 if column == WEIGHT else 1
    starts = np.array(BIN_STARTS[column]) * steps
    widths = np.diff(np.append(starts, (LARGEST[column] + 1) * steps))
    numbers = starts[bins] + (generator.random(len(bins)) * widths[bins]).astype(np.int64)
    return (numbers / steps).astype(np.float32) if column == WEIGHT else numbers.astype(np.int32)


def _read_counts() -> dict[str, pd.DataFrame]:
    """For each column a frame of counts: a row a category or bin, a column a cell."""
    table = pd.read_csv(COUNTS, dtype={"value": str}, keep_default_na=False)
    return {
        str(column): rows[list(CELLS)] for column, rows in table.groupby("column", sort=False, observed=True)
    }
