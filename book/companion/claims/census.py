"""Claim 9, on Census-Income: the order of the seven methods in tables 1 and 2."""

from __future__ import annotations

import numpy as np
import pandas as pd

from companion.claims.claim import Claim, Comparison
from companion.results import census_paper, difference_interval, pairwise_differences

WORST = "Tensor-Factorization"
BY_FAR = 1.0
"""AUC points: "the worst by far" is at least this much below the next. In the paper it is 15 to 25."""

BETTER_THAN_SHARED_BOTTOM = ("L2-Constrained", "Cross-Stitch", "OMoE")
"""The multi-task methods that Shared-Bottom is said to be worse than, beside MMoE."""


def claim_9(rows: pd.DataFrame) -> Claim:
    """MMoE is best on the main task, Shared-Bottom the worst but for Tensor-Factorization, that by far.

    Args:
        rows: Rows of one preset of `data/results/census.csv`: model, setting (the group), test_main_auc,
            test_auxiliary_auc, diverged_step.

    Raises:
        ValueError: If a method was not run on a group.
    """
    comparisons: list[Comparison] = []
    for group in ("income", "education"):
        missing = set(census_paper(group)["model"]) - set(rows.loc[rows["setting"] == group, "model"])
        if missing:
            raise ValueError(
                f"there are no runs of {sorted(missing)[0]}, {group}, expected some of every method: run the study"
            )
        differences = pairwise_differences(rows, group)
        paper = 100 * census_paper(group).set_index("model")["test_main_auc"]
        others = [model for model in paper.index if model != "MMoE"]
        for better, worse in [("MMoE", other) for other in others] + [
            (better, "Shared-Bottom") for better in BETTER_THAN_SHARED_BOTTOM
        ]:
            comparisons.append(_comparison(group, differences, better, worse, paper))
        comparisons.append(_by_far(group, rows, paper))
    counts = rows.groupby(["model", "setting"]).size()
    return Claim(
        9,
        "Census: MMoE is best on the main task, Shared-Bottom nearly always the worst multi-task method but for "
        "Tensor-Factorization, which is the worst by far (tables 1 and 2)",
        "difference of the mean test AUCs in points (1/100), Welch's 95 % interval, Welch's test with Holm's correction "
        "over all pairs of a group; supports when the interval lies above 0 and the corrected p-value below 0.05. By "
        f"far: the whole interval above {BY_FAR:g} point",
        tuple(comparisons),
        int(counts.min()),
        int((rows["diverged_step"] > 0).sum()),
        headline="income: MMoE minus Shared-Bottom",
    )


def _comparison(
    group: str, differences: pd.DataFrame, better: str, worse: str, paper: pd.Series[float]
) -> Comparison:
    pair = differences[
        differences["first"].isin([better, worse]) & differences["second"].isin([better, worse])
    ].iloc[0]
    points, low, high = float(pair["points"]), float(pair["low"]), float(pair["high"])
    if pair["first"] != better:
        points, low, high = -points, -high, -low
    p_value = float(pair["p_value"])
    return Comparison(
        f"{group}: {better} minus {worse}",
        points,
        low,
        high,
        p_value,
        low > 0 and p_value < 0.05,
        float(paper[better] - paper[worse]),
    )


def _by_far(group: str, rows: pd.DataFrame, paper: pd.Series[float]) -> Comparison:
    points = 100 * rows[rows["setting"] == group].set_index("model")["test_main_auc"].dropna()
    next_worst = str(points.drop(WORST).groupby(level=0).mean().idxmin())
    estimate, low, high = difference_interval(points[[next_worst]], points[[WORST]])
    return Comparison(
        f"{group}: the worst other method minus {WORST}",
        estimate,
        low,
        high,
        np.nan,
        low > BY_FAR,
        float(paper.drop(WORST).min() - paper[WORST]),
    )
