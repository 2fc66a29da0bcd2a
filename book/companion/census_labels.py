"""The labels of Census-Income's tasks: how frequent each is, and how the two of a group go together."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from mmoe_lib.tasks.census import CensusTables
from mmoe_lib.tasks.census.columns import LABELS, Group
from mmoe_lib.tasks.census.encoding import answers_to, group_of, some_rows

Part = Literal["train", "test"]


def label_rates(tables: CensusTables) -> pd.DataFrame:
    """The share of positive answers to each label: a row a label, the columns train and test."""
    return pd.DataFrame(
        {
            part: {label.name: float(answers_to(table, label).mean()) for label in LABELS}
            for part, table in (("train", tables.train), ("test", tables.test))
        }
    )


def label_correlation(
    tables: CensusTables, group: str | Group, *, rows: int | None = None, seed: int = 0, part: Part = "train"
) -> float:
    """The absolute Pearson correlation of a group's two labels, the paper's measure of relatedness.

    Args:
        tables: from `load`.
        group: which two labels.
        rows: over so many random rows (the paper: 10,000); None for all.
        seed: draws these rows.
        part: of which table.

    Raises:
        ValueError: an unknown group, more rows than there are, or a label that is the same for all rows.
    """
    group = group_of(group)
    table = some_rows(tables.train if part == "train" else tables.test, rows, np.random.default_rng(seed))
    main, auxiliary = answers_to(table, group.main), answers_to(table, group.auxiliary)
    for label, answers in ((group.main, main), (group.auxiliary, auxiliary)):
        if answers.all() or not answers.any():
            raise ValueError(
                f"'{label.name}' is the same for all {len(table):,} rows: no correlation, take more rows"
            )
    return float(abs(np.corrcoef(main, auxiliary)[0, 1]))
