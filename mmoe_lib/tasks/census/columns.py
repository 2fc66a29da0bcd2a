"""The columns of Census-Income (KDD): which are numbers, which are labels, which a model may see.

Source: UCI data set 117 (doi 10.24432/C5N30T), whose `census-income.names` describes the attributes, and section 6.3
of the MMoE paper for the two task groups.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

# fmt: off
COLUMNS = (
    "age", "class_worker", "det_ind_code", "det_occ_code", "education", "wage_per_hour", "hs_college",
    "marital_stat", "major_ind_code", "major_occ_code", "race", "hisp_origin", "sex", "union_member",
    "unemp_reason", "full_or_part_emp", "capital_gains", "capital_losses", "stock_dividends",
    "tax_filer_stat", "region_prev_res", "state_prev_res", "det_hh_fam_stat", "det_hh_summ",
    "instance_weight", "mig_chg_msa", "mig_chg_reg", "mig_move_reg", "mig_same", "mig_prev_sunbelt",
    "num_emp", "fam_under_18", "country_father", "country_mother", "country_self", "citizenship",
    "own_or_self", "vet_question", "vet_benefits", "weeks_worked", "year", "income_50k",
)
# fmt: on
"""The 42 columns in the order of the files, which have no header."""

CONTINUOUS = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "num_emp",
    "weeks_worked",
)
"""The seven numeric attributes, all of them whole numbers."""

MONEY = ("wage_per_hour", "capital_gains", "capital_losses", "stock_dividends")
"""The skewed ones: 89 to 98 of 100 people have 0, the others anything up to 99,999."""

WEIGHT = "instance_weight"
"""How many Americans a row stands for (MARSUPWT); `names` says that a classifier must not use it."""

NOMINAL = tuple(column for column in COLUMNS if column not in (*CONTINUOUS, WEIGHT))
"""The 33 nominal attributes and the income label; codes such as det_ind_code and year are names."""

NEVER_INPUTS = ("education", "marital_stat", WEIGHT, "income_50k")
"""What no model sees, in either group: the columns that the three labels are read from, and the weight."""

COUNTS = Path(__file__).with_name("counts.csv")
"""Aggregate counts of the training file, which also list the categories. See `simulated`."""


@dataclass(frozen=True)
class Label:
    """A yes-or-no question about a person: is the value of `column` one of `positive`?"""

    name: str
    column: str
    positive: frozenset[str]


INCOME = Label("income > 50K", "income_50k", frozenset({"50000+."}))

# Associate degrees count: of the definitions of "at least college" this one gives the paper's correlation
# (0.24 against the printed 0.2373; bachelor's or higher gives 0.198, some college or higher 0.288).
EDUCATION = Label(
    "education at least associate degree",
    "education",
    frozenset(
        {
            "Associates degree-academic program",
            "Associates degree-occup /vocational",
            "Bachelors degree(BA AB BS)",
            "Masters degree(MA MS MEng MEd MSW MBA)",
            "Prof school degree (MD DDS DVM LLB JD)",
            "Doctorate degree(PhD EdD)",
        }
    ),
)

MARITAL = Label("never married", "marital_stat", frozenset({"Never married"}))

LABELS = (INCOME, EDUCATION, MARITAL)


@dataclass(frozen=True)
class Group:
    """Two tasks that are learned together.

    Attributes:
        name: what `encode` is asked for.
        main: the task whose validation AUC chooses settings.
        auxiliary: the task learned beside it.
        paper_correlation: the absolute Pearson correlation of the two labels that the paper prints, from
            10,000 random rows (so its standard deviation is 0.006 to 0.008).
    """

    name: str
    main: Label
    auxiliary: Label
    paper_correlation: float


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "income": Group("income", INCOME, MARITAL, 0.1768),
        "education": Group("education", EDUCATION, MARITAL, 0.2373),
    }
)
"""The two groups of section 6.3."""


@functools.cache
def categories() -> Mapping[str, tuple[str, ...]]:
    """For every nominal column the values of the whole official training file, sorted.

    A fixed list rather than what some rows happen to hold, so that the width of an encoding depends neither
    on the rows drawn nor on the test file.
    """
    listed: dict[str, list[str]] = {column: [] for column in NOMINAL}
    with COUNTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["column"] in listed:
                listed[row["column"]].append(row["value"])
    return MappingProxyType({column: tuple(values) for column, values in listed.items()})
