"""Claims 1 to 8, on synthetic data.

Runs of one seed share initial weights, directions and inputs at every correlation, so they are compared in
pairs, and intervals come from resampling seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from companion.claims.claim import Claim, Comparison
from companion.results import paired_interval

Array = NDArray[np.float64]

MODELS = ("Shared-Bottom", "OMoE", "MMoE")
CORRELATIONS = (0.5, 0.9, 1.0)
BIN = 1 / 30
"""Width of a bin of the paper's figure 5: the finest difference between two runs that it shows."""
COMPARABLE = 2 * BIN
"""Lowest losses that the paper calls comparable lie 0.03 to 0.06 apart in its figure 5."""
BEST_SHARE = 0.05
"""The lowest losses are the mean of this share of the runs: the very lowest of 200 says little."""


@dataclass(frozen=True)
class Runs:
    """Final losses of one preset of the synthetic study, a column a model and correlation, a row a seed.

    Attributes:
        losses: Test loss of task 1; index seed, columns (model, p).
        diverged: How many runs of these settings diverged; their seeds are left out of every setting, so that
            all settings are compared on the same seeds.
    """

    losses: pd.DataFrame
    diverged: int = 0

    @classmethod
    def of(cls, rows: pd.DataFrame, models: Sequence[str] = MODELS) -> Runs:
        """Take the runs of some models from rows of the study.

        Raises:
            ValueError: If a setting is missing, or the settings were run with different seeds.
        """
        chosen = rows[rows["model"].isin(models)]
        table = chosen.pivot_table(
            index="seed", columns=["model", "task_correlation"], values="loss_1", dropna=False
        )
        counts = chosen.groupby(["model", "task_correlation"]).size()
        wanted = [(model, p) for model in models for p in CORRELATIONS]
        missing = [setting for setting in wanted if setting not in counts.index]
        if missing:
            raise ValueError(
                f"there are no runs of {missing[0]}, expected some of every setting: run the study"
            )
        if counts.min() != counts.max() or len(table) != counts.iloc[0]:
            raise ValueError(
                f"settings have {counts.min()} to {counts.max()} runs over {len(table)} seeds, expected the same "
                "seeds of each: finish the study"
            )
        diverged = int((chosen["diverged_step"] > 0).sum())
        return cls(table.dropna(), diverged)

    def __len__(self) -> int:
        return len(self.losses)

    def of_setting(self, model: str, p: float) -> Array:
        """Losses of one setting by seed."""
        return self.losses[model, p].to_numpy(dtype=np.float64)


def _mean_difference(what: str, worse: Array, better: Array, paper: float) -> Comparison:
    """Supports when `worse` is above `better` in the mean: the interval of the paired difference is above 0."""
    estimate, low, high = paired_interval(lambda a, b: (a - b).mean(axis=-1), worse, better)
    test = stats.wilcoxon(worse, better, alternative="greater") if (worse != better).any() else None
    return Comparison(what, estimate, low, high, float(test.pvalue) if test else 1.0, low > 0, paper)


def _falls_with_correlation(
    runs: Runs, model: str, paper: Mapping[tuple[str, float], float]
) -> list[Comparison]:
    comparisons = []
    for below, above in itertools.pairwise(CORRELATIONS):
        comparisons.append(
            _mean_difference(
                f"{model}: loss at p = {below:g} minus at p = {above:g}",
                runs.of_setting(model, below),
                runs.of_setting(model, above),
                paper.get((model, below), np.nan) - paper.get((model, above), np.nan),
            )
        )
    return comparisons


_DIFFERENCE = (
    "mean difference of runs of the same seed, 95 % bootstrap interval over seeds, Wilcoxon's signed-rank test; "
    "supports when the interval lies above 0"
)


def claim_1(rows: pd.DataFrame, paper: Mapping[tuple[str, float], float]) -> Claim:
    """Shared-Bottom's loss falls as the task correlation rises (figure 3, 16 shared units)."""
    runs = Runs.of(rows, ["Shared-Bottom-16"])
    comparisons = _falls_with_correlation(runs, "Shared-Bottom-16", paper)
    return Claim(
        1,
        "Shared-Bottom's loss falls as the task correlation rises (figure 3)",
        _DIFFERENCE,
        tuple(comparisons),
        len(runs),
        runs.diverged,
        headline="Shared-Bottom-16: loss at p = 0.5 minus at p = 0.9",
    )


def claim_2(rows: pd.DataFrame, paper: Mapping[tuple[str, float], float]) -> Claim:
    """For every model, a higher correlation is better (figure 4)."""
    runs = Runs.of(rows)
    comparisons = [c for model in MODELS for c in _falls_with_correlation(runs, model, paper)]
    return Claim(
        2,
        "For every model, higher correlation is better (figure 4)",
        _DIFFERENCE,
        tuple(comparisons),
        len(runs),
        runs.diverged,
        headline="MMoE: loss at p = 0.5 minus at p = 0.9",
    )


def claim_3(rows: pd.DataFrame, paper: Mapping[tuple[str, float], float]) -> Claim:
    """MMoE's gap between correlations is much smaller; at p = 1 MMoE and OMoE agree (figure 4)."""
    runs, comparisons = Runs.of(rows), []
    mmoe = runs.of_setting("MMoE", 0.5), runs.of_setting("MMoE", 1.0)

    def smaller(a: Array, b: Array, c: Array, d: Array) -> Array:
        return ((a - b) - (c - d)).mean(axis=-1)

    def paper_gap(model: str) -> float:
        return paper.get((model, 0.5), np.nan) - paper.get((model, 1.0), np.nan)

    for model in ("OMoE", "Shared-Bottom"):
        other = runs.of_setting(model, 0.5), runs.of_setting(model, 1.0)
        estimate, low, high = paired_interval(smaller, *other, *mmoe)
        test = stats.wilcoxon(other[0] - other[1], mmoe[0] - mmoe[1], alternative="greater")
        comparisons.append(
            Comparison(
                f"gap between p = 0.5 and p = 1: {model}'s minus MMoE's",
                estimate,
                low,
                high,
                float(test.pvalue),
                low > 0,
                paper_gap(model) - paper_gap("MMoE"),
            )
        )
    omoe = runs.of_setting("OMoE", 1.0)
    estimate, low, high = paired_interval(lambda a, b: (a - b).mean(axis=-1), omoe, mmoe[1])
    comparisons.append(
        Comparison(
            "at p = 1: OMoE's loss minus MMoE's",
            estimate,
            low,
            high,
            float(stats.wilcoxon(omoe, mmoe[1]).pvalue),
            low > -BIN and high < BIN,
            paper.get(("OMoE", 1.0), np.nan) - paper.get(("MMoE", 1.0), np.nan),
        )
    )
    return Claim(
        3,
        "MMoE's gap between correlations is much smaller than the others'; at correlation 1 MMoE and OMoE agree "
        "(figure 4)",
        "difference of the mean gaps, paired by seed, 95 % bootstrap interval, Wilcoxon; supports above 0. Agreement: "
        "the whole interval within one bin of figure 5 (1/30)",
        tuple(comparisons),
        len(runs),
        runs.diverged,
        headline="gap between p = 0.5 and p = 1: Shared-Bottom's minus MMoE's",
    )


def claim_4(rows: pd.DataFrame, paper: Mapping[tuple[str, float], float]) -> Claim:
    """Both MoE models beat Shared-Bottom at every correlation, on average (figure 4)."""
    runs = Runs.of(rows)
    comparisons = [
        _mean_difference(
            f"p = {p:g}: Shared-Bottom's loss minus {model}'s",
            runs.of_setting("Shared-Bottom", p),
            runs.of_setting(model, p),
            paper.get(("Shared-Bottom", p), np.nan) - paper.get((model, p), np.nan),
        )
        for p in CORRELATIONS
        for model in ("OMoE", "MMoE")
    ]
    return Claim(
        4,
        "Both mixture models beat Shared-Bottom at every correlation, on average (figure 4)",
        _DIFFERENCE,
        tuple(comparisons),
        len(runs),
        runs.diverged,
        headline="p = 0.5: Shared-Bottom's loss minus MMoE's",
    )


def _spread_ratio(
    runs: Runs, wide: tuple[str, float], narrow: tuple[str, float]
) -> tuple[float, float, float, float]:
    first, second = runs.of_setting(*wide), runs.of_setting(*narrow)
    estimate, low, high = paired_interval(lambda a, b: a.std(axis=-1) / b.std(axis=-1), first, second)
    return estimate, low, high, float(stats.levene(first, second, center="median").pvalue)


def _paper_ratio(
    paper: Mapping[tuple[str, float], Array], wide: tuple[str, float], narrow: tuple[str, float]
) -> float:
    return float(paper[wide].std() / paper[narrow].std()) if {wide, narrow} <= set(paper) else float("nan")


_SPREAD = (
    "ratio of the standard deviations over runs, 95 % bootstrap interval over seeds, Brown-Forsythe's test"
)


def claim_5(rows: pd.DataFrame, paper: Mapping[tuple[str, float], Array]) -> Claim:
    """Shared-Bottom's spread of final losses is much larger than the mixture models' (figure 5).

    `paper` holds the runs of figure 5's histograms.
    """
    runs, comparisons = Runs.of(rows), []
    for p in CORRELATIONS:
        for model in ("OMoE", "MMoE"):
            estimate, low, high, p_value = _spread_ratio(runs, ("Shared-Bottom", p), (model, p))
            printed = _paper_ratio(paper, ("Shared-Bottom", p), (model, p))
            comparisons.append(
                Comparison(
                    f"p = {p:g}: Shared-Bottom's spread over {model}'s",
                    estimate,
                    low,
                    high,
                    p_value,
                    low > 1,
                    printed,
                )
            )
    return Claim(
        5,
        "Shared-Bottom's spread of final losses is much larger than the mixture models' (figure 5)",
        _SPREAD + "; supports when the interval lies above 1",
        tuple(comparisons),
        len(runs),
        runs.diverged,
        headline="p = 0.5: Shared-Bottom's spread over MMoE's",
    )


def claim_6(rows: pd.DataFrame, paper: Mapping[tuple[str, float], Array]) -> Claim:
    """OMoE is as robust as MMoE at p = 1 and clearly less at p = 0.5 (figure 5).

    `paper` holds the runs of figure 5's histograms.
    """
    runs, comparisons = Runs.of(rows), []
    for p in (1.0, 0.5):
        estimate, low, high, p_value = _spread_ratio(runs, ("OMoE", p), ("MMoE", p))
        printed = _paper_ratio(paper, ("OMoE", p), ("MMoE", p))
        supports = low <= 1 <= high if p == 1 else low > 1
        comparisons.append(
            Comparison(
                f"p = {p:g}: OMoE's spread over MMoE's", estimate, low, high, p_value, supports, printed
            )
        )
    return Claim(
        6,
        "OMoE is as robust as MMoE at correlation 1 and clearly less at 0.5 (figure 5)",
        _SPREAD + "; supports when the interval holds 1 at p = 1, and lies above 1 at p = 0.5",
        tuple(comparisons),
        len(runs),
        runs.diverged,
        headline="p = 0.5: OMoE's spread over MMoE's",
    )


def _best(losses: Array) -> Array:
    count = max(1, round(BEST_SHARE * losses.shape[-1]))
    return np.sort(losses, axis=-1)[..., :count].mean(axis=-1)


def claim_7(rows: pd.DataFrame, paper: Mapping[tuple[str, float], Array]) -> Claim:
    """The lowest losses of the three models are comparable (figure 5).

    `paper` holds the runs of figure 5's histograms.
    """
    runs, comparisons = Runs.of(rows), []

    def distance(*losses: Array) -> Array:
        best = np.stack([_best(values) for values in losses])
        return best.max(axis=0) - best.min(axis=0)

    for p in CORRELATIONS:
        settings = [(model, p) for model in MODELS]
        estimate, low, high = paired_interval(distance, *(runs.of_setting(*setting) for setting in settings))
        printed = (
            float(distance(*(paper[s] for s in settings))) if set(settings) <= set(paper) else float("nan")
        )
        comparisons.append(
            Comparison(
                f"p = {p:g}: largest minus smallest of the three models' lowest losses",
                estimate,
                low,
                high,
                float("nan"),
                high < COMPARABLE,
                printed,
            )
        )
    return Claim(
        7,
        "The lowest losses of the three models are comparable (figure 5)",
        f"mean of the lowest {BEST_SHARE:.0%} of the runs, 95 % bootstrap interval over seeds; supports when the whole "
        "interval lies within two bins of figure 5 (2/30), which is what the paper's own figure spans",
        tuple(comparisons),
        len(runs),
        runs.diverged,
        headline="p = 0.5: largest minus smallest of the three models' lowest losses",
    )


def claim_8(samples: Mapping[float, Sequence[float]], paper: Mapping[float, float]) -> Claim:
    """The label correlation rises with the weight cosine (figure 2).

    Args:
        samples: By cosine, one label correlation a trial, from independent trials.
        paper: By cosine, the mean that figure 2 shows.
    """
    cosines, comparisons = sorted(samples), []
    for below, above in itertools.pairwise(cosines):
        first, second = np.asarray(samples[above]), np.asarray(samples[below])
        test = stats.ttest_ind(first, second, equal_var=False, alternative="two-sided")
        interval = test.confidence_interval(0.95)
        comparisons.append(
            Comparison(
                f"label correlation at cosine {above:g} minus at {below:g}",
                float(first.mean() - second.mean()),
                float(interval.low),
                float(interval.high),
                float(test.pvalue),
                bool(interval.low > 0),
                paper.get(above, np.nan) - paper.get(below, np.nan),
            )
        )
    return Claim(
        8,
        "Label correlation rises with weight cosine, so that the cosine can stand in for it (figure 2)",
        "difference of the means of neighbouring cosines, Welch's 95 % interval and test over trials; supports above 0",
        tuple(comparisons),
        min(len(values) for values in samples.values()),
    )


_ON_MEANS: tuple[Callable[[pd.DataFrame, Mapping[tuple[str, float], float]], Claim], ...] = (
    claim_1,
    claim_2,
    claim_3,
    claim_4,
)
_ON_SPREADS = (claim_5, claim_6, claim_7)


def synthetic_claims(
    rows: pd.DataFrame,
    paper_losses: Mapping[tuple[str, float], float],
    paper_runs: Mapping[tuple[str, float], Array],
) -> list[Claim]:
    """Claims 1 to 7, from rows of the synthetic study.

    Args:
        rows: One preset of `data/results/synthetic.csv`.
        paper_losses: Last mean loss of the paper's figures 3 and 4 by model and correlation.
        paper_runs: `companion.results.histogram_runs` of its figure 5.
    """
    return [claim(rows, paper_losses) for claim in _ON_MEANS] + [
        claim(rows, paper_runs) for claim in _ON_SPREADS
    ]
