"""A claim of the paper as a list of comparisons, and the tables that show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.claims.verdict import CONTRADICTS, OPEN, SUPPORTS, Rule
from companion.results import exact_rate, show_interval

HEADLINE_RULE = (
    "MMoE against Shared-Bottom where the claim compares the two; MMoE where it speaks of every model; else the first "
    "pair that it names. Where it says that something depends on the correlation, the ends of the range, 0.5 against 1, "
    "since neighbours say little; else the least related tasks. The paper's first table, its optimiser, the end of "
    "training; of the costs, the time of a request of 1,000 rows"
)
"""Which comparison of a claim gives it its word: chosen by what the claim says, not by what was found."""

BY_THEOREM = "holds by theorem"
"""The word of a claim that no run can refute; see `Claim.theorem`."""
SUPPORTED = "supported"
"""The word of a claim whose headline supports it."""
CONTRADICTED = "contradicted"
"""The word of a claim whose headline contradicts it."""

VERDICTS = (BY_THEOREM, SUPPORTED, OPEN, CONTRADICTED)
"""What can be said of a claim, best first."""

_OF_HEADLINE = {SUPPORTS: SUPPORTED, CONTRADICTS: CONTRADICTED, OPEN: OPEN}

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Comparison:
    """One number that supports a claim, contradicts it, or leaves it open.

    Attributes:
        what: What is compared.
        estimate: Of our runs that learned.
        low: Lower end of its 95 % interval.
        high: Upper end.
        rule: What the claim says of the number, and the smallest difference that matters.
        paper: The same number from the paper's figures; NaN where they do not show it.
        ranks: Probability that a run of the one that is said to be better is the better one, with its interval, over
            all runs, those that died included; None where it has no meaning.
        one_run_decides: Whether leaving out a single run would give another word than supports or contradicts.

    Raises:
        ValueError: If an estimate does not lie in its interval, as when the ends are swapped.
    """

    what: str
    estimate: float
    low: float
    high: float
    rule: Rule
    paper: float = float("nan")
    ranks: Interval | None = None
    one_run_decides: bool = False

    def __post_init__(self) -> None:
        for estimate, low, high in ((self.estimate, self.low, self.high), self.ranks or (0.0, 0.0, 0.0)):
            if not low <= estimate <= high:
                raise ValueError(
                    f"{self.what}: estimate {estimate} with the interval {low} to {high}, expected low <= "
                    "estimate <= high: swap the ends when a difference is turned round"
                )

    @property
    def word(self) -> str:
        """One of: supports, contradicts, open."""
        if self.one_run_decides:
            return OPEN
        return self.rule.word(self.estimate, self.low, self.high, self.paper)

    @property
    def supports(self) -> bool:
        """Whether it supports the claim."""
        return self.word == SUPPORTS

    @property
    def of_paper(self) -> float:
        """Our effect over the paper's; NaN where the paper shows none, or one that goes against its own words."""
        paper = self.rule.effect(self.paper)
        return self.rule.effect(self.estimate) / paper if paper > 1e-9 else float("nan")

    @property
    def note(self) -> str:
        """What must be said beside the word; empty when nothing."""
        notes = (self.rule.note(self.paper), "one run decides" if self.one_run_decides else "")
        return "; ".join(note for note in notes if note)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and what our runs say about it.

    Attributes:
        number: As in the list of claims that the book tests.
        statement: The claim, in our words.
        statistic: What is computed, how its interval is made, and which smallest difference matters.
        comparisons: One or more.
        runs: Runs of each setting behind it.
        diverged: Runs that diverged, over all settings.
        headline: What is compared by the one that gives the claim its word, by `HEADLINE_RULE`; the first when empty.
        died: Runs that did not learn one of their tasks, over all settings; those that diverged are among them.
        of_runs: All runs of all settings; 0 where nothing was trained.
        theorem: Why it must hold, where a theorem says so; empty elsewhere.
        beside: Comparisons by other measures, shown and not counted.

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
    died: int = 0
    of_runs: int = 0
    theorem: str = ""
    beside: tuple[Comparison, ...] = ()

    def __post_init__(self) -> None:
        names = [comparison.what for comparison in self.comparisons]
        if not names or (self.headline and self.headline not in names):
            raise ValueError(
                f"claim {self.number} has the headline {self.headline!r}, expected one of its {len(names)} comparisons: "
                "write it as the comparison says what is compared"
            )

    @property
    def headline_comparison(self) -> Comparison:
        """The one comparison that gives the claim its word."""
        named = [comparison for comparison in self.comparisons if comparison.what == self.headline]
        return named[0] if named else self.comparisons[0]

    def count(self, word: str) -> int:
        """How many of the comparisons say this: supports, contradicts, or open."""
        return sum(comparison.word == word for comparison in self.comparisons)

    @property
    def counts(self) -> str:
        """How many comparisons are for it, against it, and open, as text."""
        return f"{self.count(SUPPORTS)} for, {self.count(CONTRADICTS)} against, {self.count(OPEN)} open"

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`: the headline's word; of a theorem, that it holds, unless our own rows contradict it."""
        if self.theorem and not self.count(CONTRADICTS):
            return BY_THEOREM
        return _OF_HEADLINE[self.headline_comparison.word]

    @property
    def died_text(self) -> str:
        """How many runs died, and the rate with Clopper and Pearson's exact 95 % interval; empty without runs."""
        if not self.of_runs:
            return ""
        rate, low, high = exact_rate(self.died, self.of_runs)
        interval = show_interval(100 * rate, 100 * low, 100 * high, digits=1)
        return f"{self.died} of {self.of_runs:,}: {interval} %"


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row per claim: what it says, its word, the counts, our headline effect over the paper's, and what died."""
    return pd.DataFrame(
        {
            "claim": [claim.statement for claim in claims],
            "verdict": [claim.verdict for claim in claims],
            "comparisons": [claim.counts for claim in claims],
            "headline, ours/paper": [ratio_text(claim.headline_comparison.of_paper) for claim in claims],
            "runs per setting": [claim.runs for claim in claims],
            "runs that died": [claim.died_text for claim in claims],
        },
        index=pd.Index([claim.number for claim in claims], name="number"),
    )


def comparisons_table(claim: Claim, *, digits: int = 3) -> pd.DataFrame:
    """The comparisons of one claim as text, then those beside them, which are not counted.

    Columns: ours with interval, the paper's number, ours over the paper's, from where on a difference matters, the
    word; and, where runs are compared by rank, in what percent of the pairs the better one is better.
    """
    shown = (*claim.comparisons, *claim.beside)
    table = pd.DataFrame(
        {
            "ours": [show_interval(c.estimate, c.low, c.high, digits=digits) for c in shown],
            "paper": ["" if np.isnan(c.paper) else f"{c.paper:.{digits}f}" for c in shown],
            "ours/paper": [ratio_text(c.of_paper) for c in shown],
            "matters from": [c.rule.shown(digits) for c in shown],
            "word": [c.word + (f" ({c.note})" if c.note else "") for c in shown],
        },
        index=pd.Index(
            [c.what for c in claim.comparisons] + [f"beside, not counted: {c.what}" for c in claim.beside],
            name=f"claim {claim.number}",
        ),
    )
    if any(c.ranks for c in shown):
        table["better, % of pairs"] = [ranks_text(c) for c in shown]
    return table


def ranks_text(comparison: Comparison) -> str:
    """In what percent of the pairs of runs the one that is said to be better is; empty where that has no meaning."""
    if comparison.ranks is None:
        return ""
    return show_interval(*(100 * part for part in comparison.ranks), digits=0)


def ratio_text(value: float) -> str:
    """Our effect over the paper's as text; empty where there is none."""
    return "" if np.isnan(value) else f"{value:.2f}".replace("-0.00", "0.00")
