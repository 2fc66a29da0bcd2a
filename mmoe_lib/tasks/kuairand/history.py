"""The order of a user's impressions, and what was known of the earlier ones when the next was shown.

Everything here looks back only. Rows of one user with the same time are one request: they were shown
together, so none knows another's outcome, and all know the state before the first of them. No average over
labels of other rows is used either (the smoothing below takes fixed prior shares), so an impression's own
label cannot reach its inputs by way of a statistic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmoe_lib.tasks.kuairand.columns import LOG_COLUMNS

HISTORY = (
    "impressions_before",
    "long_view_share_before",
    "like_share_before",
    "long_view_share_last_5",
    "same_video_before",
    "same_author_before",
    "long_view_share_same_author",
)
"""The columns of `history` in order; the counts are log(1 + count), the shares lie in [0, 1]."""

COUNTS = (0, 4, 5)
"""Which columns of `history` are log counts, to be scaled by their range in train."""

LAST = 5
"""How many impressions back the short-term share looks."""

PRIOR_LONG_VIEW, PRIOR_LIKE = 1 / 3, 1 / 50
"""The shares of a user about whom nothing is known, close to those of the log. They are constants and not
averages of the train rows, because an average would carry each row's own label into its inputs."""

PSEUDO_ROWS = 5.0
"""How many impressions the prior counts for in a share over all impressions."""

PSEUDO_ROWS_FEW = 1.0
"""The same in a share over few impressions: the last five, and those of one author."""


def in_order(log: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Drop exact duplicates and sort by user and then by time.

    Rows without a time come first and keep their order. They are never duplicates: two of them that look the
    same may be two impressions.

    Args:
        log: the 19 columns, in any order of rows.

    Returns:
        The sorted log and how many rows were dropped.
    """
    timed = log["time_ms"].notna().to_numpy()
    again = log.duplicated().to_numpy() & timed
    log, timed = log[~again], timed[~again]
    # Ties are broken by the rows' content, so that the order in the file does not matter where times are known.
    video = np.where(timed, log["video_id"].to_numpy(), 0)
    tied = timed & log.duplicated(["user_id", "time_ms", "video_id"], keep=False).to_numpy()
    rank = np.zeros(len(log), dtype=np.int64)
    places = np.flatnonzero(tied)
    by_content = log[tied].reset_index(drop=True).sort_values(list(LOG_COLUMNS)).index.to_numpy()
    rank[places[by_content]] = np.arange(len(places))
    order = np.lexsort((rank, video, _time(log), log["user_id"].to_numpy()))
    return log.iloc[order].reset_index(drop=True), int(again.sum())


def one_kind_of_order(log: pd.DataFrame, name: str) -> None:
    """Raise ValueError when a user has rows with and without a time in one log: their order is not known."""
    blank = log["time_ms"].isna().groupby(log["user_id"]).mean()
    mixed = blank[(blank > 0) & (blank < 1)]
    if len(mixed):
        raise ValueError(
            f"{name}: user {mixed.index[0]} has rows with and without time_ms ({len(mixed):,} such users), so their "
            "order is not known: fill all times of a user or blank them all"
        )


def check_order(log: pd.DataFrame) -> None:
    """Raise ValueError when a log is not sorted as `in_order` does it."""
    user, time = log["user_id"].to_numpy(), _time(log)
    same = user[1:] == user[:-1]
    if (user[1:] < user[:-1]).any() or (same & (time[1:] < time[:-1])).any():
        raise ValueError(
            "the log is not sorted by user_id and time_ms, expected tables as load gives them: use in_order"
        )


def _time(log: pd.DataFrame) -> NDArray[np.float64]:
    """Times for sorting: rows without one come first."""
    return np.nan_to_num(log["time_ms"].to_numpy(np.float64), nan=-np.inf)


@dataclass(frozen=True)
class Sequences:
    """Impressions of many users, sorted by user and then by time; N rows.

    Attributes:
        user: (N,) any whole number for each user, rows of one user together.
        time: (N,) milliseconds, NaN where only the order is known; such rows are requests of their own.
        video: (N,) a number from 0 up for each video.
        author: (N,) a number from 0 up for each author, -1 where the author is not known.
        long_view: (N,) 0 or 1.
        like: (N,) 0 or 1.
        counted: (N,) bool, which rows are part of the history of later ones; the others only look back.
    """

    user: NDArray[np.int64]
    time: NDArray[np.float64]
    video: NDArray[np.int64]
    author: NDArray[np.int64]
    long_view: NDArray[np.int64]
    like: NDArray[np.int64]
    counted: NDArray[np.bool_]


def history(rows: Sequences) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The counts of `HISTORY` and the row of the impression before.

    Returns:
        The counts (N, 7), not yet scaled, and (N,) the index of the last counted row before the request, -1
        when the user has none.
    """
    request = _requests(rows.user, rows.time)
    counted = rows.counted.astype(np.int64)
    long_view, like = rows.long_view * counted, rows.like * counted

    of_user = _Before(rows.user, request)
    seen = of_user.sum(counted)
    of_video = _Before(_pairs(rows.user, rows.video), request)
    known = rows.author >= 0
    of_author = _Before(_pairs(rows.user, rows.author + 1), request)
    author_seen = np.where(known, of_author.sum(counted), 0)
    author_long = np.where(known, of_author.sum(long_view), 0)
    last_seen, last_long, previous = _last(of_user, counted, long_view)

    columns = (
        np.log1p(seen),
        _share(of_user.sum(long_view), seen, PRIOR_LONG_VIEW, PSEUDO_ROWS),
        _share(of_user.sum(like), seen, PRIOR_LIKE, PSEUDO_ROWS),
        _share(last_long, last_seen, PRIOR_LONG_VIEW, PSEUDO_ROWS_FEW),
        np.log1p(of_video.sum(counted)),
        np.log1p(author_seen),
        _share(author_long, author_seen, PRIOR_LONG_VIEW, PSEUDO_ROWS_FEW),
    )
    return np.stack([column.astype(np.float32) for column in columns], axis=1), previous


class _Before:
    """Sums over the earlier rows of a group (e.g. of a user), leaving out those of the same request."""

    def __init__(self, group: NDArray[np.int64], request: NDArray[np.int64]) -> None:
        # A stable sort keeps time order within a group, so that "earlier" is a range of rows.
        self.order = np.argsort(group, kind="stable")
        new_group = _changes(group[self.order])
        new_request = new_group | _changes(request[self.order])
        self.group_start = _starts(new_group)
        self.request_start = _starts(new_request)

    def sum(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sum of `values` over the earlier rows, for every row (N,)."""
        total = _running(values[self.order])
        result = np.empty(len(values), dtype=np.int64)
        result[self.order] = total[self.request_start] - total[self.group_start]
        return result


def _last(
    of_user: _Before, counted: NDArray[np.int64], long_view: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Over the last counted rows of the user, at most `LAST`: how many, their long views, and the last one."""
    # Rows are sorted by user already, so the order of `of_user` is that of the rows.
    place = np.flatnonzero(counted)
    ranks = _running(counted)
    first, end = ranks[of_user.group_start], ranks[of_user.request_start]
    start = np.maximum(first, end - LAST)
    long_so_far = _running(long_view[place])
    previous = np.full(len(counted), -1, dtype=np.int64)
    some = end > first
    previous[some] = place[end[some] - 1]
    return end - start, long_so_far[end] - long_so_far[start], previous


def _requests(user: NDArray[np.int64], time: NDArray[np.float64]) -> NDArray[np.int64]:
    """A number for each request; a NaN differs from every time, so rows without a time stand alone."""
    return np.cumsum(_changes(user) | _changes(time))


def _changes(values: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a value differs from the one before; the first always does."""
    changed = np.ones(len(values), dtype=np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed


def _starts(new: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For every row where its run begins."""
    return np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))


def _running(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of the first k values, for k from 0 to N."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(values, dtype=np.int64)])


def _pairs(user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each pair of a user and a video or author."""
    return user * (int(item.max(initial=0)) + 1) + item


def _share(
    part: NDArray[np.int64], whole: NDArray[np.int64], prior: float, pseudo_rows: float
) -> NDArray[np.float64]:
    return (part + prior * pseudo_rows) / (whole + pseudo_rows)
