"""What the simulated Census-Income is drawn from, counted from the real training file.

`python -m companion.study.census_counts` counts again, over the stored counts of `mmoe_lib.tasks.census`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmoe_lib.tasks.census.columns import COLUMNS, COUNTS, EDUCATION, INCOME, LABELS, MARITAL, NOMINAL, Label
from mmoe_lib.tasks.census.files import UCI_117, parse
from mmoe_lib.tasks.census.simulated import BIN_STARTS, CELLS, LARGEST


def count(people: pd.DataFrame) -> pd.DataFrame:
    """Count a table into what `counts.csv` holds.

    Args:
        people: the official training table, 42 columns.

    Returns:
        A frame with the columns `column`, `value` (a category, or the range of a bin such as "5-9") and one
        column of counts for each of the eight cells.
    """

    def answers(label: Label) -> NDArray[np.int64]:
        return people[label.column].isin(label.positive).to_numpy().astype(np.int64)

    cell = 4 * answers(INCOME) + 2 * answers(EDUCATION) + answers(MARITAL)
    parts = []
    for column in COLUMNS:
        if column in NOMINAL:
            values = [str(value) for value in people[column].cat.categories]
            index = people[column].cat.codes.to_numpy()
        else:
            starts = BIN_STARTS[column]
            ends = [*(start - 1 for start in starts[1:]), LARGEST[column]]
            values = [
                f"{start}-{end}" if end > start else str(start)
                for start, end in zip(starts, ends, strict=True)
            ]
            numbers = people[column].to_numpy()
            if numbers.min() < 0 or numbers.max() >= LARGEST[column] + 1:
                raise ValueError(
                    f"{column} leaves the bins 0 to {LARGEST[column]:,}: not the official training file"
                )
            index = np.searchsorted(np.array(starts), numbers, side="right") - 1
        table = np.zeros((len(values), len(CELLS)), dtype=np.int64)
        np.add.at(table, (index, cell), 1)
        part = pd.DataFrame(table, columns=list(CELLS))
        part.insert(0, "column", column)
        part.insert(1, "value", values)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def main(arguments: list[str] | None = None) -> int:
    """Count the real training file again."""
    parser = argparse.ArgumentParser(prog="python -m companion.study.census_counts", description=main.__doc__)
    parser.add_argument(
        "target", type=Path, nargs="?", default=COUNTS, help="where to (default: the stored counts)"
    )
    target = parser.parse_args(arguments).target
    train, _, _ = parse(UCI_117.find_or_download(), listed=dict.fromkeys(NOMINAL, ()))
    count(train).to_csv(target, index=False, lineterminator="\n")
    print(f"counted {len(train):,} rows into {target.name} by {', '.join(label.name for label in LABELS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
