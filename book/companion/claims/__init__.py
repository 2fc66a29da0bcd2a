"""The paper's claims, each with its statistic, interval, test and verdict, from rows of runs.

A claim is a list of comparisons, and each comparison an estimate with an interval that either supports the
claim or does not. All of them support it: it holds. Some: it holds in part. None: it does not hold.
"""

from companion.claims.census import claim_9
from companion.claims.claim import HEADLINE_RULE, Claim, Comparison, claims_table, comparisons_table
from companion.claims.recommendation import claim_10, claim_11, claim_12
from companion.claims.scorecard import (
    VERDICTS,
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
    synthetic_claims,
)

__all__ = [
    "HEADLINE_RULE",
    "VERDICTS",
    "Claim",
    "ClaimRow",
    "Comparison",
    "Runs",
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
    "scorecard",
    "scorecard_markdown",
    "short_scorecard_markdown",
    "synthetic_claims",
    "verdict_counts",
]
