"""Comparisons made of runs: interval, rank statistic, and whether one run decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from companion.claims.claim import Comparison, Interval
from companion.claims.verdict import OPEN, Rule
from companion.results import (
    clustered_interval,
    difference_interval,
    mean_interval,
    most_influential,
    paired_interval,
    superiority,
)

Array = NDArray[np.float64]


def of_pairs(
    what: str,
    statistic: Callable[..., Array],
    columns: tuple[Array, ...],
    rule: Rule,
    paper: float,
    *,
    counted: bool = True,
) -> Comparison:
    """A statistic of columns of runs that share their seeds, row by row.

    Whether one run decides is asked of what is `counted` alone.
    """
    return _compared(
        what,
        lambda *rows: paired_interval(statistic, *rows),
        columns,
        lambda: most_influential(statistic, *columns) if counted else [],
        rule,
        paper,
        None,
    )


def of_means(
    what: str, differences: Array, rule: Rule, paper: float, ranks: Interval | None = None
) -> Comparison:
    """The mean over seeds of a difference of runs that share them."""
    return _compared(what, mean_interval, (differences,), lambda: _extremes(differences), rule, paper, ranks)


def of_clusters(
    what: str,
    differences: Array,
    clusters: NDArray[np.int64],
    rule: Rule,
    paper: float,
    ranks: Interval | None,
) -> Comparison:
    """The mean of differences of seeds that share an order of the rows with others: orders are the unit."""
    columns = (differences, clusters)
    return _compared(what, clustered_interval, columns, lambda: _extremes(differences), rule, paper, ranks)


def _extremes(values: Array) -> list[int]:
    return sorted({int(values.argmin()), int(values.argmax())})


def _compared(
    what: str,
    interval: Callable[..., Interval],
    columns: tuple[NDArray[Any], ...],
    suspects: Callable[[], Sequence[int]],
    rule: Rule,
    paper: float,
    ranks: Interval | None,
) -> Comparison:
    """A comparison, and whether one run decides it.

    That is asked of the rows that move the estimate most, up and down: without each of them the interval is made again.
    Of a mean these are the rows that also widen it most. What is open stays open, so it is not asked there.
    """
    whole = interval(*columns)
    word = rule.word(*whole, paper)
    decides = word != OPEN and any(
        rule.word(*interval(*(np.delete(column, row) for column in columns)), paper) != word
        for row in suspects()
    )
    return Comparison(what, *whole, rule, paper, ranks, decides)


def of_samples(
    what: str,
    better: Array,
    worse: Array,
    rule: Rule,
    paper: float,
    everyone: tuple[Array, Array],
) -> Comparison:
    """The difference of the means of two independent samples, with Welch's interval.

    Args:
        what: What is compared.
        better: Runs that learned of what is said to be better.
        worse: Of the other.
        rule: Of the comparison.
        paper: The paper's difference.
        everyone: All runs of both, those that died included, for the rank statistic.
    """
    interval = difference_interval(better, worse)
    word = rule.word(*interval, paper)
    left_out = [(np.delete(better, row), worse) for row in _extremes(better)]
    left_out += [(better, np.delete(worse, row)) for row in _extremes(worse)]
    decides = word != OPEN and any(
        rule.word(*difference_interval(*samples), paper) != word for samples in left_out
    )
    return Comparison(what, *interval, rule, paper, superiority(*everyone), decides)
