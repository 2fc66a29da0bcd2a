"""Claim 9, on Census-Income: the order of the seven methods in tables 1 and 2."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.claims.claim import Claim, Comparison
from companion.claims.comparing import of_samples
from companion.claims.verdict import BY_FAR, POINTS, larger
from companion.results import LEARNED_NOTHING, census_paper

WORST = "Tensor-Factorization"

BETTER_THAN_SHARED_BOTTOM = ("L2-Constrained", "Cross-Stitch", "OMoE")
"""The multi-task methods that Shared-Bottom is said to be worse than, beside MMoE."""

TASKS = ("test_main_auc", "test_auxiliary_auc")


def census_died(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which runs died: the AUC of one of the two tasks is that of a guess (`LEARNED_NOTHING`), or training diverged.

    Args:
        rows: Columns test_main_auc, test_auxiliary_auc, diverged_step; one row per run.
    """
    aucs = rows[list(TASKS)]
    return (aucs < LEARNED_NOTHING).any(axis=1) | aucs.isna().any(axis=1) | (rows["diverged_step"] > 0)


def claim_9(rows: pd.DataFrame) -> Claim:
    """MMoE is best on the main task, Shared-Bottom the worst but for Tensor-Factorization, that by far.

    Args:
        rows: Rows of one preset of `data/results/census.csv`: model, setting (the group), test_main_auc,
            test_auxiliary_auc, diverged_step. All runs: those that died are counted apart and ranked below the others.

    Raises:
        ValueError: If a method was not run on a group, or fewer than two of its runs learned.
    """
    comparisons: list[Comparison] = []
    for group in ("income", "education"):
        of_group = rows[rows["setting"] == group]
        missing = set(census_paper(group)["model"]) - set(of_group["model"])
        if missing:
            raise ValueError(
                f"there are no runs of {sorted(missing)[0]}, {group}, expected some of every method: run the study"
            )
        learned, everyone = _samples(of_group[~census_died(of_group)]), _samples(of_group)
        paper = 100 * census_paper(group).set_index("model")["test_main_auc"]
        lost = [model for model in paper.index if len(learned.get(model, ())) < 2]
        if lost:
            raise ValueError(
                f"fewer than two runs of {lost[0]}, {group}, learned both tasks, expected two or more: run more seeds"
            )
        pairs = [("MMoE", other, "points") for other in paper.index if other != "MMoE"]
        pairs += [(better, "Shared-Bottom", "points") for better in BETTER_THAN_SHARED_BOTTOM]
        next_worst = min(set(learned) - {WORST}, key=lambda model: float(learned[model].mean()))
        comparisons += [
            of_samples(
                f"{group}: {better} minus {worse}",
                learned[better],
                learned[worse],
                larger(margin),
                float(paper[better] - paper[worse]),
                (everyone[better], everyone[worse]),
            )
            for better, worse, margin in pairs
        ]
        comparisons.append(
            of_samples(
                f"{group}: the worst other method minus {WORST}",
                learned[next_worst],
                learned[WORST],
                larger("by far"),
                float(paper.drop(WORST).min() - paper[WORST]),
                (everyone[next_worst], everyone[WORST]),
            )
        )
    counts = rows.groupby(["model", "setting"]).size()
    return Claim(
        9,
        "Census: MMoE is best on the main task, Shared-Bottom nearly always the worst multi-task method but for "
        "Tensor-Factorization, which is the worst by far (tables 1 and 2)",
        "difference of the mean test AUCs in points (1/100) over runs that learned both tasks, Welch's 95 % interval, which "
        f"covers other seeds{_one_order(rows)}; matters from {POINTS:g} point, “by far” from {BY_FAR:g} point. Beside it, "
        "over all runs, the probability that a run of the one that is said to be better has the higher AUC (Mann and "
        "Whitney's U over the number of pairs), runs that died included. No correction for the number of comparisons: the "
        "word is that of one, named in advance",
        tuple(comparisons),
        int(counts.min()),
        int((rows["diverged_step"] > 0).sum()),
        headline="income: MMoE minus Shared-Bottom",
        died=int(census_died(rows).sum()),
        of_runs=len(rows),
    )


def _samples(rows: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Main-task AUCs in points by method; a run without one lies below all."""
    points = 100 * rows["test_main_auc"].fillna(-1.0)
    return {str(model): sample.to_numpy(dtype=np.float64) for model, sample in points.groupby(rows["model"])}


def _one_order(rows: pd.DataFrame) -> str:
    one = "order" in rows and (rows["order"] == rows["order"].iloc[0]).all()
    return " and not another order of the rows, since all runs have the same" if one else ""
