"""How sure a mean is, and whether two differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

SMALL_SAMPLE = 20
"""Below this many runs a mean's interval is Student's: a bootstrap of 5 runs covers the truth 83 times in 100."""


def mean_interval(values: ArrayLike, *, level: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """Mean of independent runs with a confidence interval.

    From `SMALL_SAMPLE` runs on a percentile bootstrap of 10,000 resamples, below it Student's t.

    Args:
        values: One number a run.
        level: Of confidence.
        seed: Of the resampling.

    Returns:
        Mean, lower and upper end.

    Raises:
        ValueError: If there are fewer than two values, or one is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise ValueError(
            f"got {sample.size} values of shape {sample.shape}, expected two or more finite numbers in one row: "
            "an interval needs repeated runs, and diverged ones are to be counted apart"
        )
    mean = float(sample.mean())
    if len(sample) < SMALL_SAMPLE:
        return _students(mean, sample, level)
    return mean, *_bootstrap(lambda values: values.mean(axis=-1), [sample], level, seed)


def summarise(rows: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Mean, 95 % interval and number of runs of one column for each group of rows.

    Returns:
        One row a group, in order of appearance: the columns `by`, then mean, low, high, runs.
    """
    summaries = [
        (*key, *mean_interval(group[value]), len(group)) for key, group in rows.groupby(list(by), sort=False)
    ]
    return pd.DataFrame(summaries, columns=[*by, "mean", "low", "high", "runs"])


def difference_interval(
    ours: ArrayLike, theirs: ArrayLike, *, level: float = 0.95
) -> tuple[float, float, float]:
    """Difference of two means of independent runs, `ours` minus `theirs`, with Welch's confidence interval.

    Returns:
        Difference, lower and upper end.

    Raises:
        ValueError: If either side has fewer than two values.
    """
    first, second = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"got {len(first)} and {len(second)} runs, expected two or more of each: one run has no spread"
        )
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(level)
    return float(first.mean() - second.mean()), float(interval.low), float(interval.high)


def paired_interval(
    statistic: Callable[..., NDArray[np.float64]], *columns: ArrayLike, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """A statistic of several columns of runs with a confidence interval.

    From `SMALL_SAMPLE` rows on a percentile bootstrap of 10,000 resamples of rows; row r of every column is the same
    seed, so a resample takes the same rows of all. Below it Student's t of the jackknife's pseudo-values, which of a
    mean of differences are the differences themselves.

    Args:
        statistic: Columns (..., N) to (...), computed along the last dimension.
        columns: One number a seed each, all of length N.
        level: Of confidence.
        seed: Of the resampling.

    Returns:
        The statistic of all rows, lower and upper end.

    Raises:
        ValueError: If there are fewer than two rows, lengths differ, or a value is not finite.
    """
    samples = [np.asarray(column, dtype=np.float64) for column in columns]
    lengths = {sample.shape for sample in samples}
    finite = all(bool(np.isfinite(sample).all()) for sample in samples)
    if len(lengths) != 1 or samples[0].ndim != 1 or len(samples[0]) < 2 or not finite:
        raise ValueError(
            f"got columns of shapes {sorted(lengths)}, expected as many finite numbers, two or more, in each: "
            "pairs need both runs, and diverged ones are to be counted apart"
        )
    estimate, count = float(statistic(*samples)), len(samples[0])
    if count < SMALL_SAMPLE:
        without = [float(statistic(*(np.delete(sample, row) for sample in samples))) for row in range(count)]
        # N theta - (N - 1) theta_(-r), theta_(-r) the statistic without row r
        return _students(estimate, count * estimate - (count - 1) * np.array(without), level)
    return estimate, *_bootstrap(statistic, samples, level, seed)


def _students(estimate: float, values: NDArray[np.float64], level: float) -> tuple[float, float, float]:
    """Student's interval around an estimate that is, or is nearly, the mean of independent values."""
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return estimate, estimate - float(half), estimate + float(half)


def _bootstrap(
    statistic: Callable[..., NDArray[np.float64]],
    samples: Sequence[NDArray[np.float64]],
    level: float,
    seed: int,
) -> tuple[float, float]:
    found = stats.bootstrap(
        samples,
        lambda *columns, axis: statistic(*columns),  # always the last one
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def show_interval(mean: float, low: float, high: float, *, digits: int = 4) -> str:
    """The text "mean [low, high]"."""
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values of a family of tests, corrected by Holm's step-down method.

    With k tests the smallest is multiplied by k, the next by k - 1 and so on; none becomes smaller than one before
    it, or larger than 1. If each that lies below 0.05 is called a difference, the chance that any of them is none
    is at most 0.05.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given)
    # p~_(i) = max over j <= i of min(1, (k - j + 1) p_(j))
    stepped = np.minimum(1.0, given[order] * np.arange(len(given), 0, -1))
    corrected = np.empty_like(given)
    corrected[order] = np.maximum.accumulate(stepped)
    return corrected


def exact_rate(count: int, total: int) -> tuple[float, float, float]:
    """A share of runs with Clopper and Pearson's exact 95 % interval.

    Raises:
        ValueError: If there are no runs.
    """
    if total < 1:
        raise ValueError(f"got {count} of {total} runs, expected one run or more: a rate needs runs")
    interval = stats.binomtest(count, total).proportion_ci(0.95, method="exact")
    return count / total, float(interval.low), float(interval.high)


def paired_superiority(better: ArrayLike, worse: ArrayLike) -> tuple[float, float, float]:
    """In which share of the pairs `better` lies above `worse`, with an exact 95 % interval; equal pairs say nothing.

    Infinite values are ranked, so that a run without a score can stand below every other.

    Returns:
        The share of the pairs that differ, lower and upper end; 0.5, 0, 1 where none does.

    Raises:
        ValueError: If lengths differ, or a value is NaN.
    """
    first, second = np.asarray(better, dtype=np.float64), np.asarray(worse, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or np.isnan(first).any() or np.isnan(second).any():
        raise ValueError(
            f"got shapes {first.shape} and {second.shape}, expected two rows of as many numbers: give a run without a "
            "score an infinite one"
        )
    above, below = int((first > second).sum()), int((first < second).sum())
    return exact_rate(above, above + below) if above + below else (0.5, 0.0, 1.0)


def superiority(better: ArrayLike, worse: ArrayLike) -> tuple[float, float, float]:
    """The probability that a run of one sample lies above a run of another, ties counting half.

    It is Mann and Whitney's U over the number of pairs; the interval is that of Brunner and Munzel's statistic: each
    run's placement among the other sample has a variance of its own. Infinite values are ranked.

    Source: Brunner and Munzel, "The nonparametric Behrens-Fisher problem", 2000.

    Raises:
        ValueError: If a sample has fewer than two values, or one is NaN.
    """
    first, second = np.asarray(better, dtype=np.float64), np.asarray(worse, dtype=np.float64)
    if min(len(first), len(second)) < 2 or np.isnan(first).any() or np.isnan(second).any():
        raise ValueError(
            f"got {len(first)} and {len(second)} runs, expected two or more numbers of each: one run has no spread"
        )
    # placements (N,) and (M,): the share of the other sample that lies below, or above
    above = ((first[:, None] > second) + 0.5 * (first[:, None] == second)).mean(axis=1)
    passed = ((first[:, None] > second) + 0.5 * (first[:, None] == second)).mean(axis=0)
    probability = float(above.mean())
    parts = above.var(ddof=1) / len(first), passed.var(ddof=1) / len(second)
    error = float(np.sqrt(sum(parts)))
    if error == 0:
        return probability, probability, probability
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1))
    half = float(stats.t.ppf(0.975, freedom)) * error
    return probability, max(0.0, probability - half), min(1.0, probability + half)


def clustered_interval(values: ArrayLike, clusters: ArrayLike) -> tuple[float, float, float]:
    """The mean of numbers that come in clusters, with a 95 % interval that no cluster can make too narrow.

    The unit that varies is the cluster: Student's interval of the clusters' means, widened to `mean_interval` where
    that one reaches further. With every number its own cluster, or all in one, it is `mean_interval` alone; of one
    cluster nothing is known but its own numbers.

    Raises:
        ValueError: If lengths differ, or there are fewer than two values.
    """
    sample, names = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    if sample.shape != names.shape:
        raise ValueError(
            f"got {sample.size} values and {names.size} clusters, expected as many of each: name each value's cluster"
        )
    mean, low, high = mean_interval(sample)
    found = [sample[names == name].mean() for name in np.unique(names)]
    if not 1 < len(found) < len(sample):
        return mean, low, high
    middle, cluster_low, cluster_high = _students(float(np.mean(found)), np.array(found), 0.95)
    half = (cluster_high - cluster_low) / 2
    return mean, min(low, mean - half, middle - half), max(high, mean + half, middle + half)


def most_influential(statistic: Callable[..., NDArray[np.float64]], *columns: ArrayLike) -> list[int]:
    """The rows without which a statistic is highest and lowest: the first to look at when one run may decide."""
    samples = [np.asarray(column, dtype=np.float64) for column in columns]
    without = [
        float(statistic(*(np.delete(sample, row) for sample in samples))) for row in range(len(samples[0]))
    ]
    return sorted({int(np.argmin(without)), int(np.argmax(without))})
