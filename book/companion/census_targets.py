"""Binary targets that Census-Income holds beside the paper's three, and which inputs would give each of them away.

Every value of a nominal column that 1 to 99 % of the training rows have is a yes-or-no question about a person, and ten
thresholds on the numbers are further ones: 195 targets, some 18,000 pairs of them. A model must not see a target's own
column, nor one that is a recode or a subset of it. `FAMILIES` lists what belongs together by the meaning of the columns;
`telling_columns` adds, for each target, every column from which it can be read with next to no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmoe_lib.tasks.census.columns import COLUMNS, NOMINAL, WEIGHT, categories

RAREST, COMMONEST = 0.01, 0.99
"""Shares of training rows between which a value is a target."""
TELLS = 0.99
"""A column from which a target can be told with at least this AUC is left out of its inputs."""

FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # "Not in universe" in one of these is so in nearly all: who works, where, as what, for how long, at which wage.
        "work": (
            *("class_worker", "det_ind_code", "det_occ_code", "major_ind_code", "major_occ_code", "num_emp"),
            *(
                "full_or_part_emp",
                "unemp_reason",
                "weeks_worked",
                "union_member",
                "wage_per_hour",
                "own_or_self",
            ),
        ),
        "schooling": ("education", "hs_college"),
        # The summary is a recode of the detailed family status; who files jointly is married.
        "household": ("det_hh_fam_stat", "det_hh_summ", "fam_under_18", "marital_stat", "tax_filer_stat"),
        # Asked in one of the two years alone, so that the year tells whether they were.
        "moves": (
            *("mig_chg_msa", "mig_chg_reg", "mig_move_reg", "mig_same", "mig_prev_sunbelt"),
            *("region_prev_res", "state_prev_res", "year"),
        ),
        "origin": ("country_father", "country_mother", "country_self", "citizenship", "hisp_origin", "race"),
        "veterans": ("vet_question", "vet_benefits"),
        "wealth": ("capital_gains", "capital_losses", "stock_dividends", "income_50k"),
        "age": ("age",),
        "sex": ("sex",),
    }
)
"""Columns that say the same things, by name of the family; every column but the weight is in one."""

FAMILY_OF: Mapping[str, str] = MappingProxyType(
    {column: family for family, columns in FAMILIES.items() for column in columns}
)

THRESHOLDS: tuple[tuple[str, int], ...] = (
    ("age", 18),
    ("age", 40),
    ("age", 65),
    ("wage_per_hour", 1),
    ("capital_gains", 1),
    ("capital_losses", 1),
    ("stock_dividends", 1),
    ("num_emp", 1),
    ("weeks_worked", 1),
    ("weeks_worked", 52),
)
"""Numbers that are asked whether they are at least so much."""


@dataclass(frozen=True)
class Target:
    """One question about a person: has the column this value, or is the number at least so large?

    Attributes:
        column: It is read from.
        value: Of a nominal column; empty for a number.
        least: Of a number.
    """

    column: str
    value: str = ""
    least: int = 0

    @property
    def name(self) -> str:
        """As results files have it: without commas, quotes and line breaks."""
        text = f"{self.column} is {self.value}" if self.value else f"{self.column} at least {self.least}"
        return text.replace(",", ";").replace('"', "'")

    @property
    def family(self) -> str:
        """The family of its column."""
        return FAMILY_OF[self.column]

    def answers(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Yes or no for every row of a census table."""
        column = table[self.column]
        return (column == self.value).to_numpy() if self.value else (column >= self.least).to_numpy()


def candidates() -> tuple[Target, ...]:
    """All questions that may be targets, in a fixed order: those of `targets` are the ones that are not too rare."""
    nominal = (Target(column, value) for column in NOMINAL for value in categories()[column])
    return (*nominal, *(Target(column, least=least) for column, least in THRESHOLDS))


def targets(train: pd.DataFrame) -> list[Target]:
    """The candidates whose share of yes in a training table is between `RAREST` and `COMMONEST`."""
    return [target for target in candidates() if RAREST <= float(target.answers(train).mean()) <= COMMONEST]


def target_of(name: str) -> Target:
    """The target that a results file names.

    Raises:
        ValueError: If there is none.
    """
    found = [target for target in candidates() if target.name == name]
    if len(found) != 1:
        raise ValueError(f"target is {name!r}, which Census-Income does not hold: take one of `candidates()`")
    return found[0]


def telling_columns(target: Target, train: pd.DataFrame) -> tuple[str, ...]:
    """The columns that must not be inputs beside a target: its family, and those from which it can be told.

    Of a column the best that anyone can do is the share of yes among the rows with its value; what that reaches as AUC
    on the rows it was counted on is held against `TELLS`. The weight is always left out.

    Raises:
        ValueError: If the target has one class in the table.
    """
    answers = target.answers(train)
    if answers.all() or not answers.any():
        raise ValueError(
            f"'{target.name}' has one class in {len(train):,} rows: take more rows, or another target"
        )
    family = FAMILIES[target.family]
    told = [
        column
        for column in COLUMNS
        if column not in family and column != WEIGHT and auc_of_column(train[column], answers) >= TELLS
    ]
    return (*family, *told, WEIGHT)


def auc_of_column(column: pd.Series[int] | pd.Series[str], answers: NDArray[np.bool_]) -> float:
    """The AUC of the share of yes among the rows with the same value, on these rows."""
    codes = pd.factorize(column)[0]
    yes = np.bincount(codes, answers)
    no = np.bincount(codes) - yes
    order = np.argsort(yes / (yes + no), kind="stable")
    yes, no = yes[order], no[order]
    # A pair of a yes and a no counts 1 where the yes has the higher share, 1/2 where both have the same value.
    below = np.cumsum(no) - no
    return float((yes * (below + no / 2)).sum() / (yes.sum() * no.sum()))
