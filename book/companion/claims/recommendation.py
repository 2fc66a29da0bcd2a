"""Claims 10 to 12, on recommendation: table 3, figure 6, and what serving costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.claims.claim import Claim, Comparison
from companion.claims.comparing import of_clusters
from companion.claims.verdict import ABOUT, DOUBLE, GATE, GATE_GAP, POINTS, TIMING_NOISE, larger, same
from companion.results import (
    LEARNED_NOTHING,
    gate_concentration,
    paired_runs,
    paired_superiority,
    paper_gates,
    recommendation_paper,
    serving_row,
    trained_runs,
)

OPTIMISERS = ("SGD", "Adam")
"""The paper prints SGD; Adam is what one would use today."""


def ranker_died(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which runs died: at the end a task's AUC is that of a guess (`LEARNED_NOTHING`), or training diverged.

    Args:
        rows: Columns test_engagement_auc_3, test_satisfaction_auc_3, diverged_step; one row per run.
    """
    aucs = rows[["test_engagement_auc_3", "test_satisfaction_auc_3"]]
    return (aucs < LEARNED_NOTHING).any(axis=1) | aucs.isna().any(axis=1) | (rows["diverged_step"] > 0)


def _orders(runs: pd.DataFrame) -> NDArray[np.int64]:
    """By run, which order of the rows it visited; each its own where rows do not say."""
    if "order" in runs:
        return runs["order"].to_numpy(dtype=np.int64)
    return np.arange(len(runs), dtype=np.int64)


_CLUSTERED = (
    "95 % interval with the order of the rows as its unit: Student's over the means of the orders, and never narrower "
    "than the bootstrap over seeds"
)


def claim_10(rows: pd.DataFrame) -> Claim:
    """MMoE is best on engagement AUC and R2 at every checkpoint, and L2-Constrained is below Shared-Bottom.

    Args:
        rows: Rows of one preset of `data/results/kuairand.csv`: model, setting, seed, order, diverged_step and scores.

    Raises:
        ValueError: If a method was not run with both optimisers.
    """
    paper = recommendation_paper().set_index("model")
    pairs = [("MMoE", other) for other in paper.index if other != "MMoE"] + [
        ("Shared-Bottom", "L2-Constrained")
    ]
    comparisons, seeds = [], []
    compared = rows[rows["model"].isin(paper.index) & rows["setting"].isin(OPTIMISERS)]
    learned = compared[~ranker_died(compared)]
    for optimiser in OPTIMISERS:
        for measure, title in (("auc", "AUC"), ("r2", "R2")):
            for third in (1, 2, 3):
                value = f"test_engagement_{measure}_{third}"
                for better, worse in pairs:
                    first, second = paired_runs(
                        trained_runs(learned, optimiser, better),
                        trained_runs(learned, optimiser, worse),
                        f"{better} and {worse}",
                    )
                    comparisons.append(
                        of_clusters(
                            f"{optimiser}, {title} after {third}/3: {better} minus {worse}",
                            100 * (first[value] - second[value]).to_numpy(dtype=np.float64),
                            _orders(first),
                            larger("points"),
                            float(100 * (paper.loc[better, value] - paper.loc[worse, value])),
                            paired_superiority(*_everyone(compared, optimiser, value, better, worse)),
                        )
                    )
                    seeds.append(len(first))
    return Claim(
        10,
        "Recommendation: MMoE is best on engagement AUC and R2 at every checkpoint, L2-Constrained below "
        "Shared-Bottom (table 3)",
        f"mean difference of runs of the same seed in points (1/100), where both learned, {_CLUSTERED}; matters from "
        f"{POINTS:g} point. Beside it, over all seeds, the share of them in which the one that is said to be better is, "
        "with an exact interval that takes seeds as independent. No correction for the number of comparisons: the word is "
        "that of one, named in advance",
        tuple(comparisons),
        min(seeds),
        int((compared["diverged_step"] > 0).sum()),
        headline="SGD, AUC after 3/3: MMoE minus Shared-Bottom",
        died=int(ranker_died(compared).sum()),
        of_runs=len(compared),
    )


def _everyone(
    rows: pd.DataFrame, optimiser: str, value: str, better: str, worse: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A score of two methods on the seeds that both were run with; a run that diverged lies below all."""
    chosen = rows[rows["setting"] == optimiser].copy()
    chosen.loc[chosen["diverged_step"] > 0, value] = np.nan
    table = chosen.pivot_table(index="seed", columns="model", values=value, dropna=False)
    runs = chosen.pivot_table(index="seed", columns="model", values="diverged_step", dropna=False)
    both = runs[[better, worse]].notna().all(axis=1)
    scores = table.loc[both, [better, worse]].fillna(-np.inf)
    return scores[better].to_numpy(dtype=np.float64), scores[worse].to_numpy(dtype=np.float64)


def claim_11(rows: pd.DataFrame) -> Claim:
    """The gate of the sparser task, satisfaction, concentrates on one expert (figure 6).

    Args:
        rows: Rows of one preset of `data/results/kuairand.csv`; those of MMoE are taken.

    Raises:
        ValueError: If MMoE was not run with both optimisers.
    """
    gates = paper_gates()
    printed, even = gates.groupby("task")["weight"].max(), 1 / gates["rank"].nunique()
    comparisons, seeds = [], []
    compared = rows[(rows["model"] == "MMoE") & rows["setting"].isin(OPTIMISERS)]
    for optimiser in OPTIMISERS:
        runs = trained_runs(compared[~ranker_died(compared)], optimiser, "MMoE").reset_index()
        found, orders = gate_concentration(runs), _orders(runs)
        rare, other = (found[name].to_numpy(dtype=np.float64) for name in ("largest_2", "largest_1"))
        comparisons += [
            of_clusters(
                f"{optimiser}: largest mean weight of satisfaction's gate, above an even share",
                rare - even,
                orders,
                larger("gate"),
                float(printed[2] - even),
                None,
            ),
            of_clusters(
                f"{optimiser}: largest mean gate weight, satisfaction's minus engagement's",
                rare - other,
                orders,
                larger("gate gap"),
                float(printed[2] - printed[1]),
                paired_superiority(rare, other),
            ),
        ]
        seeds.append(len(found))
    return Claim(
        11,
        "The gate of the sparser task, satisfaction, concentrates on one expert, engagement's does less (figure 6)",
        f"mean over runs of the largest mean weight of satisfaction's gate above an even share of {even:g}, which "
        f"concentrates from {GATE:g} (halfway to a single expert), and of its difference from engagement's, which matters "
        f"from {GATE_GAP:g} (a third of the paper's); {_CLUSTERED}",
        tuple(comparisons),
        min(seeds),
        int((compared["diverged_step"] > 0).sum()),
        headline="SGD: largest mean weight of satisfaction's gate, above an even share",
        died=int(ranker_died(compared).sum()),
        of_runs=len(compared),
    )


def claim_12(serving: pd.DataFrame) -> Claim:
    """MMoE costs about as much as Shared-Bottom to serve; L2-Constrained and Cross-Stitch double it.

    Args:
        serving: `data/results/benchmark_serving.csv`, one row a method.

    Raises:
        ValueError: If a method was not measured.
    """
    comparisons = []
    base = serving_row(serving, "Shared-Bottom")
    for model in ("MMoE", "L2-Constrained", "Cross-Stitch"):
        row = serving_row(serving, model)
        multiply_adds = float(row["multiply_adds"] / base["multiply_adds"])
        ratios = {"multiply-adds": (multiply_adds,) * 3} | {
            f"p50 at {name}": tuple(float(row[f"ratio_{batch}{end}"]) for end in ("", "_low", "_high"))
            for batch, name in ((1, "1 row"), (1000, "1,000 rows"))
        }
        ratios |= {
            f"compiled p50 at {name}": tuple(
                float(row[f"compiled_ratio_{batch}{end}"]) for end in ("", "_low", "_high")
            )
            for batch, name in ((1, "1 row"), (1000, "1,000 rows"))
        }
        for what, (ratio, low, high) in ratios.items():
            noise = 0.0 if what == "multiply-adds" else TIMING_NOISE  # these are counted
            comparisons.append(
                Comparison(
                    f"{what}: {model}'s over Shared-Bottom's",
                    ratio,
                    low,
                    high,
                    same("about" if model == "MMoE" else "double", noise),
                    np.nan if model == "MMoE" else 2.0,  # the paper's word for it is "double"
                )
            )
    return Claim(
        12,
        "MMoE costs about as much as Shared-Bottom to serve, L2-Constrained and Cross-Stitch double it (section 6.4)",
        "ratio to Shared-Bottom: of the multiply-adds of one row, which are exact, and of the p50 latencies, plain and "
        "under torch.compile, median over rounds in which all methods are measured in turn, from the lowest to the highest "
        f"round; the whole interval up to {ABOUT:g} (about as much), or within {DOUBLE[0]:g} to {DOUBLE[1]:g} (double); an end "
        f"within {100 * TIMING_NOISE:g} % of an edge, the noise of a time that is measured again, leaves it open",
        tuple(comparisons),
        int(serving["rounds"].min()),
        headline="p50 at 1,000 rows: MMoE's over Shared-Bottom's",
    )
