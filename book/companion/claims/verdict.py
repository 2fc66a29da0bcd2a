"""What one comparison says of a claim: it supports it, contradicts it, or leaves it open, by a rule about size.

A claim that something is larger *supports* when the whole interval lies above nothing (0, or 1 for a ratio) and the
estimate reaches the smallest difference that matters. It *contradicts* when the whole interval lies below that
difference: then the effect is reversed, or smaller than matters. All else is *open*. Where the paper's own difference
is smaller than matters, contradiction needs an interval below the paper's own, so that a rerun that finds the
paper's number is never called its contradiction.

A claim that two things are the same *supports* when the whole interval lies within a band, and contradicts when the
whole interval lies outside: an interval that merely holds "no difference" shows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SUPPORTS = "supports"
"""What a comparison says that shows what the claim says, in a size that matters."""
CONTRADICTS = "contradicts"
"""What a comparison says that excludes it."""
OPEN = "open"
"""What a comparison says that does neither; a claim is open when its headline is."""

RULE = (
    "A comparison that claims a difference *supports* when its whole interval lies above nothing (0, or 1 for a ratio) "
    "and its estimate reaches the smallest difference that matters; it *contradicts* when its whole interval lies below "
    "that difference (or below the paper's own, where that is smaller), so that the effect is reversed or too small to "
    "matter; else it is *open*. A comparison that claims equality supports when its whole interval lies within the band, "
    "contradicts when its whole interval lies outside, else it is open. Where leaving out a single run gives another "
    "word, one run decides and the comparison is open"
)
"""The rule in words, as the pages print it."""


@dataclass(frozen=True)
class Larger:
    """The paper says: larger than nothing, and so much that it matters.

    Attributes:
        matters: The smallest estimate that matters.
        nothing: What stands for no effect: 0 of a difference, 1 of a ratio.
        margin: Which entry of `MARGINS` it is.
    """

    matters: float
    nothing: float = 0.0
    margin: str = ""

    def word(self, estimate: float, low: float, high: float, paper: float = float("nan")) -> str:
        """One of: supports, contradicts, open."""
        if low > self.nothing and estimate >= self.matters:
            return SUPPORTS
        return CONTRADICTS if high < self.excluded_below(paper) else OPEN

    def excluded_below(self, paper: float) -> float:
        """An interval below this contradicts: the smallest that matters, or the paper's own where it is smaller."""
        return self.matters if np.isnan(paper) else min(self.matters, max(paper, self.nothing))

    def note(self, paper: float) -> str:
        """What must be said of the paper's own number: that it is too small to matter; empty when nothing."""
        return "the paper's own is smaller" if paper < self.matters else ""

    def effect(self, number: float) -> float:
        """How far a number lies from nothing."""
        return number - self.nothing

    def shown(self, digits: int) -> str:
        """From where on a difference matters, as text."""
        return f"{self.matters:.{digits}f}"


@dataclass(frozen=True)
class Within:
    """The paper says: the same, or "double": the whole interval within a band.

    Attributes:
        low: The band's lower edge; minus infinity where lower is no contradiction.
        high: Its upper edge.
        margin: Which entry of `MARGINS` it is.
        noise: What a number moves by when it is measured again, as a share of it; an end nearer to an edge than
            that is neither inside nor outside.
    """

    low: float
    high: float
    margin: str = ""
    noise: float = 0.0

    def word(self, estimate: float, low: float, high: float, paper: float = float("nan")) -> str:
        """One of: supports, contradicts, open."""
        wider, narrower = 1 + self.noise, 1 - self.noise
        if low * narrower > self.low and high * wider < self.high:
            return SUPPORTS
        return CONTRADICTS if low * narrower > self.high or high * wider < self.low else OPEN

    def note(self, paper: float) -> str:
        """What must be said of the paper's own number: that it lies outside the band; empty when nothing."""
        return "the paper's own is outside" if paper < self.low or paper > self.high else ""

    def effect(self, number: float) -> float:
        """NaN: what is claimed is that there is none."""
        return float("nan")

    def shown(self, digits: int) -> str:
        """The band as text."""
        if np.isneginf(self.low):
            return f"up to {self.high:.{digits}f}"
        return f"{self.low:.{digits}f} to {self.high:.{digits}f}"


Rule = Larger | Within


@dataclass(frozen=True)
class Margin:
    """A smallest difference that matters.

    Attributes:
        name: What is measured.
        shown: The difference, as the pages print it.
        claims: Which claims use it, as text.
        reason: Why this one.
    """

    name: str
    shown: str
    claims: str
    reason: str


LOSS = 1 / 30
"""Of mean losses, gaps between them, and the lowest losses."""
SPREAD = 1.25
"""Of ratios of spreads."""
POINTS = 0.1
"""Of AUC and R2, in points (1/100)."""
BY_FAR = 1.0
"""Of AUC where the paper says "by far", in points."""
GATE = 0.375
"""Of a gate's largest mean weight above an even share: halfway from 1/4 to 1."""
GATE_GAP = 0.11
"""Of the difference between the largest mean weights of two gates."""
ABOUT = 1.25
"""A cost up to this many times Shared-Bottom's is "about as much"."""
DOUBLE = (1.75, 2.25)
"""A cost between these many times Shared-Bottom's is "double"."""
TIMING_NOISE = 0.02
"""Share by which a ratio of latencies moves when it is measured again."""

MARGINS: dict[str, Margin] = {
    "loss": Margin(
        "squared error",
        "1/30 = 0.033",
        "1 to 4, 7",
        "one bin of the paper's figure 5, the finest difference between two runs that it shows",
    ),
    "spread": Margin(
        "ratio of spreads",
        "1.25",
        "5, 6",
        "the paper says “much larger”; with 200 runs a ratio of two spreads is known to about 15 %, so less than a "
        "quarter could not be read off its figure 5",
    ),
    "order": Margin(
        "label correlation",
        "more than 0",
        "8",
        "the claim is about order only: a cosine stands in for a correlation that rises with it",
    ),
    "points": Margin(
        "AUC and R2",
        "0.1 point",
        "9, 10",
        "another order of the rows alone moves a mean AUC here by up to half of it, so less would be read into noise; of R2 "
        "it is a hundredth of what any ranker reaches. Some of the paper's own differences are smaller: that is said beside",
    ),
    "by far": Margin(
        "AUC, “by far”", "1 point", "9", "ten times the smallest that matters; the paper has 15 and more"
    ),
    "gate": Margin(
        "largest mean weight of a gate over 4 experts, above an even share of 1/4",
        "0.375",
        "11",
        "“concentrates”: at least halfway from an even share to a single expert",
    ),
    "gate gap": Margin(
        "largest mean weight, one gate's minus the other's", "0.11", "11", "a third of the paper's difference"
    ),
    "about": Margin(
        "cost over Shared-Bottom's, “about as much”",
        "up to 1.25",
        "12",
        "a quarter more is a fifth machine beside four; less vanishes in how the load of a service varies",
    ),
    "double": Margin(
        "cost over Shared-Bottom's, “double”",
        "1.75 to 2.25",
        "12",
        "nearer to two than to one and a half or two and a half. Single-Task and L2-Constrained are the same two networks "
        "when they serve, yet their ratios differ by up to 1.5 %: an end within 2 % of an edge leaves the comparison open",
    ),
}
"""The smallest differences that matter, with reasons; fixed before the words were computed."""


def larger(margin: str) -> Larger:
    """The rule for a claimed difference, by the name of its margin."""
    sizes = {
        "loss": (LOSS, 0.0),
        "spread": (SPREAD, 1.0),
        "order": (0.0, 0.0),
        "points": (POINTS, 0.0),
        "by far": (BY_FAR, 0.0),
        "gate": (GATE, 0.0),
        "gate gap": (GATE_GAP, 0.0),
    }
    return Larger(*sizes[margin], margin)


def same(margin: str, noise: float = 0.0) -> Within:
    """The rule for a claimed equality (or, for costs, a claimed multiple), by the name of its margin."""
    bands = {
        "loss": (-LOSS, LOSS),
        "spread": (1 / SPREAD, SPREAD),
        "about": (-np.inf, ABOUT),
        "double": DOUBLE,
    }
    return Within(*bands[margin], margin, noise)


def margins_markdown() -> str:
    """`MARGINS` as a table."""
    lines = ["| What is measured | Matters from | Claims | Why |", "|---|---|---|---|"]
    lines += [f"| {m.name} | {m.shown} | {m.claims} | {m.reason} |" for m in MARGINS.values()]
    return "\n".join(lines)
