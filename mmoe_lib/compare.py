"""Is the difference between methods real? Their runs, one number each, compared with intervals and a word about size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

LARGER, SMALLER, SAME, OPEN = "larger", "smaller", "no difference that matters", "open"
MOST_RUNS = 1_000_000
"""More are not counted: no such number of runs decides."""
FAR = 3.5
"""Modified z-scores above this are pointed out: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993."""


@dataclass(frozen=True)
class RunComparison:
    """What the runs of some methods say.

    Attributes:
        methods: A row a method: runs, died, died_low and died_high (an exact 95 % interval of the share that died),
            mean and standard_deviation of the others, outliers (their places, from 0).
        pairs: A row a pair: first, second, difference (second minus first), low, high, word, opposite_order,
            runs_needed, one_run_decides.
        level: Of confidence of each interval: that asked for, corrected for the number of pairs after Bonferroni.
    """

    methods: pd.DataFrame
    pairs: pd.DataFrame
    level: float


def compare_runs(
    results: Mapping[str, ArrayLike | Sequence[float | None]],
    smallest: float,
    *,
    paired: bool = False,
    dead: float | None = None,
    level: float = 0.95,
) -> RunComparison:
    r"""Compare methods by their runs: intervals, a word about size, and what a rerun would show.

    The difference of two means has Welch's interval, or where run r of both has the same seed Student's of the
    differences, :math:`D \pm t_\nu s`, with :math:`s` the standard error and :math:`\nu` its degrees of freedom. The
    word is "larger" or "smaller" (the second against the first) when the interval excludes 0 and the estimate reaches
    `smallest`; "no difference that matters" when the interval lies inside of plus and minus `smallest`; else "open".
    `opposite_order` is the chance that as many new runs put the two methods in the other order: the new difference
    less the old one, over :math:`\sqrt 2 s`, has Student's distribution, so it is
    :math:`T_\nu(-|D| / (\sqrt 2 s))` (Killeen, An alternative to null-hypothesis significance tests, 2005).
    `runs_needed` is the number of runs of each method from which on the word would not be open, were means and
    spreads to stay; infinite above a million. `one_run_decides` where leaving out one run gives another word.

    Args:
        results: Numbers by method, one a run; None and what is not finite is a run that died. A DataFrame of columns,
            too.
        smallest: The smallest difference that matters, in the unit of the numbers.
        paired: Whether run r of every method has the same seed.
        dead: What a run scores that learned nothing, such as an AUC of 0.5; runs within `smallest` of it died.
        level: Of confidence of all intervals together.

    Raises:
        ValueError: If there are fewer than two methods, a method has fewer than two runs that did not die, paired
            methods have unequal numbers of runs, or an argument is out of its range.
        ImportError: If scipy is not installed.
    """
    if not (math.isfinite(smallest) and smallest >= 0 and 0 < level < 1):
        raise ValueError(
            f"got smallest={smallest}, level={level}, expected a number from 0 on and one between 0 and 1: "
            "say from which difference on it matters to you"
        )
    runs = {str(name): _numbers(str(name), values) for name, values in results.items()}
    if len(runs) < 2:
        raise ValueError(f"got {len(runs)} methods, expected two or more: give the runs of each by its name")
    if paired and len({len(values) for values in runs.values()}) > 1:
        counts = {name: len(values) for name, values in runs.items()}
        raise ValueError(f"got {counts} runs, expected as many of each: paired runs share their seeds")
    died = {name: _died(values, smallest, dead) for name, values in runs.items()}
    methods = pd.DataFrame([_method(name, values, died[name]) for name, values in runs.items()])
    couples = list(combinations(runs, 2))
    one_level = 1 - (1 - level) / len(couples)
    pairs = []
    for first, second in couples:
        if paired:
            both = ~(died[first] | died[second])
            samples = [runs[second][both] - runs[first][both]]
        else:
            samples = [runs[second][~died[second]], runs[first][~died[first]]]
        if min(map(len, samples)) < 2:
            raise ValueError(
                f"{first} and {second} have {min(map(len, samples))} runs that did not die to compare, "
                "expected two or more: one run has no spread"
            )
        pairs.append({"first": first, "second": second, **_pair(samples, smallest, one_level)})
    return RunComparison(methods, pd.DataFrame(pairs), one_level)


def _numbers(name: str, values: ArrayLike | Sequence[float | None]) -> NDArray[np.float64]:
    column = np.asarray(values, dtype=object)
    if column.ndim != 1:
        raise ValueError(f"{name} has results of shape {column.shape}, expected one number a run")
    return np.asarray(pd.to_numeric(pd.Series(column), errors="coerce"), dtype=np.float64)


def _died(values: NDArray[np.float64], smallest: float, dead: float | None) -> NDArray[np.bool_]:
    lost = ~np.isfinite(values)
    return lost if dead is None else lost | (np.abs(values - dead) <= smallest)


def _method(name: str, values: NDArray[np.float64], died: NDArray[np.bool_]) -> dict[str, Any]:
    learned, count, lost = values[~died], len(values), int(died.sum())
    beta = _stats().beta
    far: list[int] = []
    if len(learned):
        middle = np.median(learned)
        width = np.median(np.abs(learned - middle))
        # 0.6745 |x - median| / MAD: the modified z-score
        far = np.flatnonzero(~died & (0.6745 * np.abs(values - middle) > FAR * width) & (width > 0)).tolist()
    return {
        "method": name,
        "runs": count,
        "died": lost,
        # Clopper and Pearson, 1934
        "died_low": float(beta.ppf(0.025, lost, count - lost + 1)) if lost else 0.0,
        "died_high": float(beta.ppf(0.975, lost + 1, count - lost)) if lost < count else 1.0,
        "mean": float(learned.mean()) if len(learned) else math.nan,
        "standard_deviation": float(learned.std(ddof=1)) if len(learned) > 1 else math.nan,
        "outliers": tuple(far),
    }


def _pair(samples: Sequence[NDArray[np.float64]], smallest: float, level: float) -> dict[str, Any]:
    """Of one sample of differences, or of two samples, the first minus the second."""
    difference, variances, counts = _moments(samples)
    error, freedom = _error(variances, counts)
    half = half_width(variances, counts, level)
    word = _word(difference, half, smallest)
    without = [
        _moments(
            [np.delete(sample, row) if place == which else sample for place, sample in enumerate(samples)]
        )
        for which, one in enumerate(samples)
        if len(one) > 2  # of two, the other alone has no spread
        for row in (int(one.argmin()), int(one.argmax()))
    ]
    words = {_word(mean, half_width(spreads, numbers, level), smallest) for mean, spreads, numbers in without}
    if difference == 0 or error == 0:
        opposite = 0.0 if difference else 0.5
    else:
        opposite = float(_stats().t.cdf(-abs(difference) / (math.sqrt(2) * error), freedom))
    return {
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
        "word": word,
        "opposite_order": opposite,
        "runs_needed": _needed(difference, variances, smallest, level),
        "one_run_decides": word != OPEN and words != {word},
    }


def _moments(samples: Sequence[NDArray[np.float64]]) -> tuple[float, list[float], list[int]]:
    """The difference of the means, every sample's variance and its number of runs."""
    difference = float(samples[0].mean() - (samples[1].mean() if len(samples) > 1 else 0))
    return difference, [float(sample.var(ddof=1)) for sample in samples], [len(sample) for sample in samples]


def _error(variances: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """The standard error of the difference, and its degrees of freedom after Welch and Satterthwaite."""
    parts = [variance / count for variance, count in zip(variances, counts, strict=True)]
    total = sum(parts)
    if total == 0:
        return 0.0, 1.0
    return math.sqrt(total), 1 / sum(
        (part / total) ** 2 / (count - 1) for part, count in zip(parts, counts, strict=True)
    )


def half_width(variances: Sequence[float], counts: Sequence[int], level: float) -> float:
    """Half of Student's interval of a mean, of one sample, or Welch's of the difference of two.

    Args:
        variances: Of each sample, with n - 1.
        counts: Of each sample, 2 or more.
        level: Of confidence, such as 0.95.
    """
    error, freedom = _error(variances, counts)
    return error * float(_stats().t.ppf((1 + level) / 2, freedom))


def _word(difference: float, half: float, smallest: float) -> str:
    if abs(difference) >= smallest and abs(difference) > half:
        return LARGER if difference > 0 else SMALLER
    return SAME if abs(difference) + half < smallest else OPEN


def _needed(difference: float, variances: Sequence[float], smallest: float, level: float) -> float:
    def decided(count: int) -> bool:
        return _word(difference, half_width(variances, [count] * len(variances), level), smallest) != OPEN

    high = 2
    while not decided(high):
        high *= 2
        if high > MOST_RUNS:
            return math.inf
    low = high // 2  # not decided, or 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return float(high)


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError("compare_runs needs scipy: run `pip install scipy`") from error
    return stats
