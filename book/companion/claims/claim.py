"""A claim of the paper as a list of comparisons, and the tables that show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.results import show_interval

HEADLINE_RULE = (
    "MMoE against Shared-Bottom where the claim compares the two, else the first pair that it names; at the least "
    "related tasks, in the paper's first table, with the paper's optimiser, at the end of training; of the costs, the "
    "time of a request of 1,000 rows"
)
"""Which comparison of a claim stands for it in the scorecard: chosen by what the claim says, not by what was found."""


@dataclass(frozen=True)
class Comparison:
    """One number that speaks for or against a claim.

    Attributes:
        what: What is compared.
        estimate: Of our runs.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p_value: Of the test that the claim names; NaN where the interval alone decides.
        supports: Whether it supports the claim.
        paper: The same number from the paper's figures; NaN where they do not show it.

    Raises:
        ValueError: If the estimate does not lie in its interval, as when the ends are swapped.
    """

    what: str
    estimate: float
    low: float
    high: float
    p_value: float
    supports: bool
    paper: float = float("nan")

    def __post_init__(self) -> None:
        if not self.low <= self.estimate <= self.high:
            raise ValueError(
                f"{self.what}: estimate {self.estimate} with the interval {self.low} to {self.high}, expected low <= "
                "estimate <= high: swap the ends when a difference is turned round"
            )


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and what our runs say about it.

    Attributes:
        number: As in the list of claims that the book tests.
        statement: The claim, in our words.
        statistic: What is computed, how its interval is made, and what counts as support.
        comparisons: One or more.
        runs: Runs of each setting behind it.
        diverged: Runs that diverged, over all settings; they have no loss, so they are counted here.
        headline: What is compared by the one that stands for the claim, by `HEADLINE_RULE`; the first when empty.

    Raises:
        ValueError: If there is no comparison, or none is called like the headline.
    """

    number: int
    statement: str
    statistic: str
    comparisons: tuple[Comparison, ...]
    runs: int
    diverged: int = 0
    headline: str = ""

    def __post_init__(self) -> None:
        names = [comparison.what for comparison in self.comparisons]
        if not names or (self.headline and self.headline not in names):
            raise ValueError(
                f"claim {self.number} has the headline {self.headline!r}, expected one of its {len(names)} comparisons: "
                "write it as the comparison says what is compared"
            )

    @property
    def headline_comparison(self) -> Comparison:
        """The one comparison that stands for the claim."""
        named = [comparison for comparison in self.comparisons if comparison.what == self.headline]
        return named[0] if named else self.comparisons[0]

    @property
    def supporting(self) -> int:
        """How many of the comparisons support it."""
        return sum(comparison.supports for comparison in self.comparisons)

    @property
    def verdict(self) -> str:
        """One of: holds, holds in part, does not hold."""
        support = [comparison.supports for comparison in self.comparisons]
        return "holds" if all(support) else "holds in part" if any(support) else "does not hold"


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row a claim: what it says, how many of its comparisons support it, and the verdict."""
    return pd.DataFrame(
        {
            "claim": [claim.statement for claim in claims],
            "support": [f"{claim.supporting} of {len(claim.comparisons)}" for claim in claims],
            "runs a setting": [claim.runs for claim in claims],
            "diverged": [claim.diverged for claim in claims],
            "verdict": [claim.verdict for claim in claims],
        },
        index=pd.Index([claim.number for claim in claims], name="number"),
    )


def comparisons_table(claim: Claim, *, digits: int = 3) -> pd.DataFrame:
    """The comparisons of one claim as text: ours with interval, the paper's number, the test, the support."""
    return pd.DataFrame(
        {
            "ours": [show_interval(c.estimate, c.low, c.high, digits=digits) for c in claim.comparisons],
            "paper": ["" if np.isnan(c.paper) else f"{c.paper:.{digits}f}" for c in claim.comparisons],
            "p-value": [_p_value(c.p_value) for c in claim.comparisons],
            "supports": ["yes" if c.supports else "no" for c in claim.comparisons],
        },
        index=pd.Index([c.what for c in claim.comparisons], name=f"claim {claim.number}"),
    )


def _p_value(value: float) -> str:
    return "" if np.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"
