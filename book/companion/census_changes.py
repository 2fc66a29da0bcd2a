"""What is changed on Census-Income beside the study itself: each change with its name, its group of tasks and its strength.

The study trains them, the tables show them. A row of a results file holds a change by its `setting`; its name and
strength are found again by that, among the changes that there are, and never read out of the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from mmoe_lib.tasks.census import GROUPS

AS_IN_THE_STUDY = "as in the study"


@dataclass(frozen=True)
class Change:
    """One change on one group of tasks.

    Attributes:
        group: "income" or "education".
        name: What readers call it.
        alpha: What L2-Constrained's pull is set to; NaN where that is not what is changed.
    """

    group: str
    name: str
    alpha: float = float("nan")

    @property
    def setting(self) -> str:
        """The text that stands in a results file."""
        return f"{self.group}: {self.name}"


CHOICES: Mapping[str, Mapping[str, str | float]] = {
    AS_IN_THE_STUDY: {},
    "another order of the rows": {"order": 1},
    "batch 256": {"batch_size": 256},
    "batch 4096": {"batch_size": 4096},
    "two layers": {"depth": 2},
    "4 x the units": {"units": 4},
    "2 x the epochs": {"epochs": 2},
    "money on a plain scale": {"variant": "money on a plain scale"},
    "numbers standardised": {"variant": "numbers standardised"},
    "duplicates of training rows left out": {"variant": "duplicates of training rows left out"},
}
"""What the paper leaves open, changed one at a time on income; numbers of units and epochs are factors."""

TRAPS: Mapping[str, tuple[str, ...]] = {
    "income": (
        "education kept",
        "weight kept",
        "education and weight kept",
        "columns misaligned",
        "numbers unscaled",
    ),
    "education": (
        "weight kept",
        "columns misaligned",
        "numbers unscaled",
        "bachelor's or higher",
        "some college or higher",
    ),
}
"""What other re-implementations did, a variant of the encoding each."""

ALPHAS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
"""What L2-Constrained's pull is set to, all else as tuned: how much of its result is the pull?"""

ALL_RANKS_1 = {"rank_inputs": 1, "rank_units": 1, "rank_tasks": 1}

TUCKER: Mapping[str, Mapping[str, float | Mapping[str, int]]] = {
    "as tuned": {},
    **{f"r1 = {rank}": {"ranks": {"rank_inputs": rank}} for rank in (1, 2, 4)},
    "all ranks 1": {"ranks": ALL_RANKS_1},
    "r3 = 1": {"ranks": {"rank_tasks": 1}},
    "factors x 0.3": {"start": 0.3},
    "factors x 0.1": {"start": 0.1},
    "rate 0.001": {"learning_rate": 1e-3},
    "rate 0.0001": {"learning_rate": 1e-4},
    "rate 0.0001 and all ranks 1": {"learning_rate": 1e-4, "ranks": ALL_RANKS_1},
    "rate 0.0001 and factors x 0.3": {"learning_rate": 1e-4, "start": 0.3},
    "one epoch": {"epochs": 1},
}
"""What could bring Tensor-Factorization down to the paper's 0.68 to 0.75: ranks, initial factors, learning rate."""


def choices_of(group: str) -> list[Change]:
    """What the paper leaves open, on income; the study's own choice alone on education."""
    return [Change(group, name) for name in (CHOICES if group == "income" else (AS_IN_THE_STUDY,))]


def traps_of(group: str) -> list[Change]:
    """The traps of a group."""
    return [Change(group, name) for name in TRAPS[group]]


def alphas_of(group: str) -> list[Change]:
    """The strengths of L2-Constrained's pull."""
    return [Change(group, f"alpha = {alpha:g}", alpha) for alpha in ALPHAS]


def tucker_of(group: str) -> list[Change]:
    """The changes of Tensor-Factorization."""
    return [Change(group, name) for name in TUCKER]


CHANGES = tuple(
    change
    for group in GROUPS
    for some in (choices_of, traps_of, alphas_of, tucker_of)
    for change in some(group)
)
"""All of them."""


def with_changes(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows with the columns change (its name) and alpha of what their setting stands for.

    Raises:
        ValueError: If a setting stands for none of `CHANGES`.
    """
    known = {change.setting: change for change in CHANGES}
    strange = [setting for setting in rows["setting"].unique() if setting not in known]
    if strange:
        raise ValueError(
            f"setting is {strange[0]!r}, expected one of {len(known)} changes such as {CHANGES[1].setting!r}: the rows "
            "are of another version, run the study again"
        )
    changes = [known[setting] for setting in rows["setting"]]
    return rows.assign(change=[one.name for one in changes], alpha=[one.alpha for one in changes])
