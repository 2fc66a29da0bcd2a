"""The paper's claims, each with its statistic, interval, test and verdict, from rows of runs.

A claim is a list of comparisons, each an estimate with an interval that supports the claim, contradicts it or leaves
it open, by a smallest difference that matters. One of them, named in advance, gives the claim its word.
"""

from companion.claims.census import census_died, claim_9
from companion.claims.claim import (
    BY_THEOREM,
    CONTRADICTED,
    HEADLINE_RULE,
    SUPPORTED,
    VERDICTS,
    Claim,
    Comparison,
    claims_table,
    comparisons_table,
)
from companion.claims.recommendation import claim_10, claim_11, claim_12, ranker_died
from companion.claims.scorecard import (
    ClaimRow,
    commands_markdown,
    scorecard,
    scorecard_markdown,
    short_scorecard_markdown,
    verdict_counts,
)
from companion.claims.synthetic import (
    Runs,
    claim_1,
    claim_2,
    claim_3,
    claim_4,
    claim_5,
    claim_6,
    claim_7,
    claim_8,
    died,
    synthetic_claims,
)
from companion.claims.verdict import (
    CONTRADICTS,
    MARGINS,
    OPEN,
    RULE,
    SUPPORTS,
    Larger,
    Margin,
    Within,
    larger,
    margins_markdown,
    same,
)

__all__ = [
    "BY_THEOREM",
    "CONTRADICTED",
    "CONTRADICTS",
    "HEADLINE_RULE",
    "MARGINS",
    "OPEN",
    "RULE",
    "SUPPORTED",
    "SUPPORTS",
    "VERDICTS",
    "Claim",
    "ClaimRow",
    "Comparison",
    "Larger",
    "Margin",
    "Runs",
    "Within",
    "census_died",
    "claim_1",
    "claim_2",
    "claim_3",
    "claim_4",
    "claim_5",
    "claim_6",
    "claim_7",
    "claim_8",
    "claim_9",
    "claim_10",
    "claim_11",
    "claim_12",
    "claims_table",
    "commands_markdown",
    "comparisons_table",
    "died",
    "larger",
    "margins_markdown",
    "ranker_died",
    "same",
    "scorecard",
    "scorecard_markdown",
    "short_scorecard_markdown",
    "synthetic_claims",
    "verdict_counts",
]
