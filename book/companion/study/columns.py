"""What may stand in the columns of a results file: looked at whenever one is read, before anything is trained."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

RUN_COLUMNS = ("chunk", "compiled", "device_model")
"""How a run was trained on its machine: with how many others, compiled or not, on what. Empty in rows written before
there were these columns; a file gets them when rows are added to it."""


@dataclass(frozen=True)
class Numbers:
    """What a column of numbers may hold.

    Attributes:
        low: At least.
        high: At most.
        whole: Whole numbers alone.
        required: Whether none may be empty.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    required: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.high < math.inf:
            return f"{kind} from {self.low:g} to {self.high:g}"
        return kind if self.low == -math.inf else f"{kind} of {self.low:g} or more"


KEY_TEXTS = ("model", "setting", "preset")
TEXTS = frozenset(
    {
        *KEY_TEXTS,
        *("commit", "command", "device", "torch_version", "data", "device_model"),
        *("constants", "inputs", "initialiser", "group", "settings", "variant"),
        *("optimiser", "data_set", "remedy", "state"),
        *("design", "kind", "own_initialiser"),
        *("schedule", "row_order"),
        *("target_1", "target_2"),
    }
)
"""Columns of text; all others are numbers."""

_COUNT = Numbers(0, whole=True, required=True)
_SHARE = Numbers(0, 1.001)  # rounded, and a sum of rounded ones
_RULES: tuple[tuple[str, Numbers], ...] = (
    (
        "seed|steps|batch_size|epochs|order|depth|num_tasks|experts|points|specification|units|best_pass|pair|inputs_kept",
        _COUNT,
    ),
    ("learning_rate", Numbers(0, required=True)),
    ("task_correlation|weight_cosine", Numbers(-1, 1, required=True)),
    ("share|share_[12]|gate_dropout", Numbers(0, 1, required=True)),
    ("alpha|unit|weight|start|decay|parameters", Numbers(0, required=True)),
    ("diverged_step|train_rows|positives|best_epoch|requests|experts_used", Numbers(0, whole=True)),
    ("chunk", Numbers(1, whole=True)),
    (
        "noise_variance|own_rate|c|slowest|fastest|roughness|signal_variance|off_figure_2",
        Numbers(0, required=True),
    ),
    ("universe|own_batch_size|sines|(slow|middle|fast)_sines", _COUNT),
    ("linear_share|even_share", Numbers(0, 1, required=True)),
    ("seconds|.+_se|(loss|averaged|curve|second_curve|error)_.+", Numbers(0)),
    (r".+_auc(_\d+)?|auc_\d+|(value|low|high|top|shown)_(engagement|satisfaction)(_\d+)?", Numbers(0, 1)),
    (r".+_r2(_\d+)?", Numbers(high=1)),
    (r"gate_(\d+_\d+|distance|largest|entropy(_\d+)?)|conflict_\d+", _SHARE),
    (r"label_correlation|cosine_\d+", Numbers(-1.001, 1.001)),
)
"""By a column's whole name; any other number may be anything."""


@cache
def rule_of(column: str) -> Numbers:
    """What a column of numbers may hold."""
    return next((rule for names, rule in _RULES if re.fullmatch(names, column)), Numbers())


def check_columns(rows: pd.DataFrame, file: str) -> None:
    """Refuse a table of which a value is of another kind, or out of range.

    Args:
        rows: As they were read.
        file: Its name, for the message.

    Raises:
        ValueError: If there is such a value; names its line.
    """
    for name in _suspects(rows):
        column, expected = rows[name], ""
        if name in TEXTS:
            bad, expected = column.isna() & (name in KEY_TEXTS), "a text"
        elif name == "compiled":
            # As text: beside a value that is neither, pandas reads these two as words.
            bad = column.notna() & ~column.astype(str).isin(["True", "False"])
            expected = "True or False"
        else:
            rule = rule_of(str(name))
            numbers = pd.to_numeric(column, errors="coerce").astype(float)
            bad = numbers.isna() & (column.notna() | rule.required)
            bad |= numbers.notna() & ~numbers.between(rule.low, rule.high)
            if rule.whole:
                bad |= numbers.notna() & (numbers % 1 != 0)
            expected = str(rule)
        if bad.any():
            place = int(bad.to_numpy().argmax())
            value = column.iloc[place]
            shown = "empty" if pd.isna(value) else repr(str(value))
            raise ValueError(
                f"{file}, line {place + 2}: {name} is {shown}, expected {expected}: restore the file from git, or "
                "delete the line to run it again"
            )


def _suspects(rows: pd.DataFrame) -> list[str]:
    """The columns to look at one by one: those that are no numbers, and numbers that break a rule."""
    numbers = rows[[name for name in rows.select_dtypes("number") if name not in TEXTS]]
    rules = [rule_of(str(name)) for name in numbers.columns]
    low, high = (np.array([getattr(rule, end) for rule in rules]) for end in ("low", "high"))
    whole, required = (
        np.array([getattr(rule, one) for rule in rules], bool) for one in ("whole", "required")
    )
    values = numbers.to_numpy(float)  # (rows, columns)
    empty = np.isnan(values)
    with np.errstate(invalid="ignore"):  # infinity is no whole number
        bad = empty & required | ~empty & ((values < low) | (values > high) | whole & (values % 1 != 0))
    right = set(numbers.columns[~bad.any(axis=0)])
    return [name for name in rows.columns if name not in right]


def with_run_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with all `RUN_COLUMNS`, empty where they have none, in front of the seconds."""
    rest = [name for name in rows.columns if name not in RUN_COLUMNS]
    place = rest.index("seconds") if "seconds" in rest else len(rest)
    whole = rows.reindex(columns=[*rest[:place], *RUN_COLUMNS, *rest[place:]])
    kinds = {"chunk": "Int64", "compiled": "boolean", "device_model": "object"}
    return whole.astype(kinds)
