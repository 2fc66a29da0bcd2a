"""KuaiRand-Pure as a ranking problem with two tasks, in place of the paper's production data (section 6.4).

A row is an impression: a short video shown to a user. Given the user, the candidate video, and what this user
saw before, predict whether the candidate is watched for long (engagement) and liked (satisfaction).

- Split by date: train to 24 April, validation 25 to 30 April, test 1 to 8 May 2022. Rows without a date, which
  only a reconstructed first log has, are train.
- Inputs: ids and categories, as rows of one embedding table; numbers scaled to [0, 1] by their range in train;
  the user's previous video and its outcome; counts over the user's earlier impressions
  (`history`). Outcomes of the same request and averages over the month are never inputs.
- Vocabulary and ranges come from train. None of them is computed from labels, so a label reaches no input but
  those of later impressions of the same user.
- The columns date, hourmin and tab are no inputs, because the reconstructed rows have none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mmoe_lib.tasks.download import Release
from mmoe_lib.tasks.kuairand.columns import (
    ENGAGEMENT,
    FIRST_LOG,
    LABELS,
    RANDOM_LOG,
    SATISFACTION,
    SECOND_LOG,
    TASK_NAMES,
    USERS,
    VIDEOS,
)
from mmoe_lib.tasks.kuairand.features import FeatureTables, Impressions, feature_tables, scaled
from mmoe_lib.tasks.kuairand.files import (
    KUAIRAND_PURE,
    read_log,
    read_users,
    read_videos,
)
from mmoe_lib.tasks.kuairand.history import (
    COUNTS,
    Sequences,
    check_order,
    history,
    in_order,
    one_kind_of_order,
)


@dataclass(frozen=True)
class KuaiRandTables:
    """The tables as they are, before any encoding.

    Attributes:
        log: impressions, 19 columns; exact duplicates dropped; sorted by user and then by time, rows without
            a time first and in file order. Ids int64, labels uint8, the others float64, NaN where blank.
        users: the user table, 31 columns.
        videos: the video table, 12 columns.
        random: impressions of videos drawn at random, 19 columns; None when that log is not there.
        simulated: whether they are drawn; figures and tables made from such tables must say so.
        source: a sentence on the origin for readers, without paths or times. It names the rows used.
        sha256: the sum of every file's text, by name.
    """

    log: pd.DataFrame
    users: pd.DataFrame
    videos: pd.DataFrame
    random: pd.DataFrame | None
    simulated: bool
    source: str
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class RankingData:
    """What a model is trained and judged on.

    Attributes:
        features: feature tables; `features.rows(data.train, index)` gives inputs and labels.
        train: impressions of the first period.
        validation: of the second.
        test: of the third.
        task_names: engagement (the main task) and satisfaction.
        simulated: as in `KuaiRandTables`.
        source: as in `KuaiRandTables`.
        random: impressions of random videos in the test period, None when there is no such log. They see the
            history of the standard log and are no part of anybody's history.
    """

    features: FeatureTables
    train: Impressions
    validation: Impressions
    test: Impressions
    task_names: tuple[str, str]
    simulated: bool
    source: str
    random: Impressions | None = None

    @property
    def num_sparse(self) -> int:
        """S, how many of the inputs are ids; they come first."""
        return len(self.features.sparse_names)

    @property
    def num_dense(self) -> int:
        """F, how many of the inputs are numbers in [0, 1]."""
        return len(self.features.dense_names)

    @property
    def num_inputs(self) -> int:
        """S + F."""
        return self.num_sparse + self.num_dense


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    release: Release = KUAIRAND_PURE,
) -> KuaiRandTables:
    """Load the real tables.

    The files are looked for in `path`, in the folder named by the environment variable MMOE_DATA, and in
    the cache; else the archive is downloaded into it and its md5 checked. The logs may be complete or a part.

    Args:
        path: a folder with the files or with a folder kuairand-pure/ or KuaiRand-Pure/data/ that holds them.
        cache: the folder of downloads; None for `data/cache` of a checkout, else the user's.
        release: the archive expected.

    Raises:
        ValueError: a file is damaged, lacks columns or holds what cannot be (labels other than 0 and 1,
            negative durations, an id twice in a feature table, no time in the second log).
        FileNotFoundError: `path` or MMOE_DATA is no folder or holds no such files.
        DownloadError: an OSError; no address gave the archive.
        OSError: the archive must be downloaded and the cache cannot be written.
    """
    files = release.find_or_download(path, cache=cache)
    sums: dict[str, str] = {}
    first, sums[FIRST_LOG] = read_log(files[FIRST_LOG], times_may_be_blank=True)
    second, sums[SECOND_LOG] = read_log(files[SECOND_LOG], times_may_be_blank=False)
    users, sums[USERS] = read_users(files[USERS])
    videos, sums[VIDEOS] = read_videos(files[VIDEOS])
    random = None
    if RANDOM_LOG in files:
        raw, sums[RANDOM_LOG] = read_log(files[RANDOM_LOG], times_may_be_blank=False)
        random = in_order(raw)[0]
    rows = len(first) + len(second)
    one_kind_of_order(first, str(files[FIRST_LOG]))
    log, dropped = in_order(pd.concat([first, second], ignore_index=True))
    source = (
        f"{release.title}, {rows:,} of {release.complete_rows:,} rows; {dropped:,} exact duplicates among them "
        "dropped"
    )
    return KuaiRandTables(log, users, videos, random, simulated=False, source=source, sha256=sums)


def some_users(tables: KuaiRandTables, number: int, *, seed: int = 0) -> KuaiRandTables:
    """The same tables with the impressions of some random users only; their sentence on the origin says so.

    Raises:
        ValueError: If there are not so many users.
    """
    everyone = np.sort(tables.log["user_id"].unique())
    if not 1 <= number <= len(everyone):
        raise ValueError(f"{number:,} users asked for, expected 1 to {len(everyone):,}")
    chosen = np.random.default_rng(seed).choice(everyone, size=number, replace=False)
    log = tables.log[tables.log["user_id"].isin(chosen)].reset_index(drop=True)
    random = tables.random
    if random is not None:
        random = random[random["user_id"].isin(chosen)].reset_index(drop=True)
    source = f"{tables.source}; of these {len(log):,} rows of {number:,} random users"
    return KuaiRandTables(
        log, tables.users, tables.videos, random, tables.simulated, source, sha256=tables.sha256
    )


def encode(
    tables: KuaiRandTables, *, train_end: int = 20220424, validation_end: int = 20220430, min_count: int = 10
) -> RankingData:
    """Split by date and encode, as the module's docstring describes.

    Args:
        tables: from `load`.
        train_end: the last day of train, as yyyymmdd.
        validation_end: the last day of validation; what comes later is test.
        min_count: a value that occurs in fewer train rows is not listed: it goes to the unknown bucket.

    Raises:
        ValueError: the periods are out of order, a part has no rows, the log is not sorted, or min_count is
            below 1.
    """
    if train_end >= validation_end:
        raise ValueError(
            f"train ends {train_end} and validation ends {validation_end}: expected train before validation before "
            "test, give train_end < validation_end"
        )
    if min_count < 1:
        raise ValueError(f"min_count is {min_count}, expected 1 or more")
    both, counted = _with_random(tables, validation_end)
    date = np.nan_to_num(both["date"].to_numpy(np.float64), nan=0.0)
    parts = {
        "train": counted & (date <= train_end),
        "validation": counted & (date > train_end) & (date <= validation_end),
        "test": counted & (date > validation_end),
    }
    for name, chosen in parts.items():
        if not chosen.any():
            raise ValueError(
                f"no row is {name} when train ends {train_end} and validation {validation_end} (the log's days are "
                f"{_days(tables.log)}): choose other days"
            )

    user = _rows_of(both["user_id"], tables.users["user_id"])
    video = _rows_of(both["video_id"], tables.videos["video_id"])
    train = parts["train"]
    no_video = len(tables.videos) + 1
    features = feature_tables(
        tables.users,
        tables.videos,
        np.bincount(user[train], minlength=len(tables.users) + 1),
        np.bincount(video[train], minlength=no_video + 1),
        min_count=min_count,
    )
    labels = both[list(LABELS)].to_numpy(np.uint8)
    authors = pd.factorize(tables.videos["author_id"])[0]  # -1 where blank
    engagement, satisfaction = (both[name].to_numpy(np.int64) for name in (ENGAGEMENT, SATISFACTION))
    counts, before = history(
        Sequences(
            # By id and not by feature row, which users and videos without features would share.
            user=pd.factorize(both["user_id"])[0].astype(np.int64),
            time=both["time_ms"].to_numpy(np.float64),
            video=pd.factorize(both["video_id"])[0].astype(np.int64),
            author=np.append(authors, -1)[video].astype(np.int64),
            long_view=engagement,
            like=satisfaction,
            counted=counted,
        )
    )
    for column in COUNTS:
        counts[:, column] = scaled(counts[:, column].astype(np.float64), train)
    previous = np.where(before >= 0, video[before], no_video)
    outcome = np.where(before >= 0, 1 + engagement[before] + 2 * satisfaction[before], 0)

    def part(chosen: NDArray[np.bool_]) -> Impressions:
        return Impressions(
            user=torch.from_numpy(user[chosen].astype(np.int32)),
            video=torch.from_numpy(video[chosen].astype(np.int32)),
            previous=torch.from_numpy(previous[chosen].astype(np.int32)),
            outcome=torch.from_numpy(outcome[chosen].astype(np.uint8)),
            history=torch.from_numpy(counts[chosen]),
            labels=torch.from_numpy(labels[chosen]),
        )

    return RankingData(
        features=features,
        **{name: part(chosen) for name, chosen in parts.items()},
        task_names=TASK_NAMES,
        simulated=tables.simulated,
        source=tables.source,
        random=None if tables.random is None else part(~counted),
    )


def _with_random(tables: KuaiRandTables, validation_end: int) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """The log with the random impressions of the test period in their places, and which rows are of the log."""
    needed = ["user_id", "video_id", "date", "time_ms", *LABELS]
    log = tables.log[needed]
    check_order(log)
    if tables.random is None:
        return log, np.ones(len(log), dtype=np.bool_)
    random = tables.random.loc[tables.random["date"] > validation_end, needed]
    both = pd.concat([log, random], ignore_index=True)
    counted = np.arange(len(both)) < len(log)
    # The sort is stable: the log's rows keep their order.
    order = np.lexsort((np.nan_to_num(both["time_ms"].to_numpy(), nan=-np.inf), both["user_id"].to_numpy()))
    return both.iloc[order].reset_index(drop=True), counted[order]


def _rows_of(ids: pd.Series, listed: pd.Series) -> NDArray[np.int64]:
    """The row of each id in a feature table; one past its end for an id that is not there."""
    rows = pd.Index(listed).get_indexer(pd.Index(ids)).astype(np.int64)
    return np.where(rows < 0, len(listed), rows)


def _days(log: pd.DataFrame) -> str:
    dated = log["date"].dropna()
    blank = len(log) - len(dated)
    told = [f"{int(dated.min())} to {int(dated.max())}"] if len(dated) else []
    if blank:
        told.append(f"{blank:,} rows without a day, which are train")
    return " and ".join(told) or "none"
