"""What a model sees of KuaiRand's impressions: feature tables of users and videos, and rows put together.

The features of a user are the same in all of his impressions, so they are kept once, and an impression holds
only their row. A batch is put together from the tables when it is needed (`FeatureTables.rows`): the million
impressions take 60 MB this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmoe_lib.tasks.kuairand.columns import (
    PREVIOUS_SPARSE,
    USER_DENSE,
    USER_SPARSE,
    VIDEO_DENSE,
    VIDEO_SPARSE,
)
from mmoe_lib.tasks.kuairand.history import HISTORY

NUM_OUTCOMES = 5
"""No previous impression, or one of the four combinations of its two labels."""

EXACT_IN_FLOAT32 = 1 << 24
"""Whole numbers below this are exact in float32, so that ids may stand beside numbers in one tensor."""

_PREVIOUS_AT = tuple(VIDEO_SPARSE.index(name) for name in PREVIOUS_SPARSE)


@dataclass(frozen=True)
class Impressions:
    """The impressions of one part as columns, N rows, sorted by user and then by time.

    Attributes:
        user: (N,) int32, row of `FeatureTables.user_table`.
        video: (N,) int32, row of `FeatureTables.video_table`.
        previous: (N,) int32, row of `video_table` of the video this user saw before; the last row (NO_VIDEO)
            when there is none.
        outcome: (N,) uint8, of the previous impression: 0 when there is none, else 1 + long_view + 2 * is_like.
        history: (N, H) float32 in [0, 1], the counts of `HISTORY`, known before the impression.
        labels: (N, 2) uint8, engagement and satisfaction.
    """

    user: Tensor
    video: Tensor
    previous: Tensor
    outcome: Tensor
    history: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.user)

    def to(self, device: torch.device | str) -> Impressions:
        """The same on another device."""
        return Impressions(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True)
class FeatureTables:
    """The features of users and videos, and how the inputs of an impression are put together from them.

    Attributes:
        user_table: (U + 1, a) float32: ids of the sparse features (rows of the one embedding table), then
            the dense ones in [0, 1]. The last row is the user without features.
        video_table: (V + 2, b) float32, likewise; row V is the video without features, row V + 1 NO_VIDEO, which
            stands for "no previous video". In both every id is that of the unknown bucket, every number 0.
        num_user_sparse: how many of the a columns are ids.
        num_video_sparse: how many of the b columns are ids.
        vocabulary: rows of the embedding table. Every sparse feature has its own slice, which begins with its
            unknown bucket; the previous video shares the slices of the candidate.
        outcome_start: where the 5 ids of `Impressions.outcome` begin.
        sparse_names: of the ids in x, in order.
        dense_names: of the numbers in x, in order.
    """

    user_table: Tensor
    video_table: Tensor
    num_user_sparse: int
    num_video_sparse: int
    vocabulary: int
    outcome_start: int
    sparse_names: tuple[str, ...]
    dense_names: tuple[str, ...]

    def pairs(self, part: Impressions, index: Tensor | slice) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Put together the inputs and labels of B impressions of a part, ids as whole numbers.

        Args:
            part: on the device of the tables.
            index: which rows, as a tensor (B,) of row numbers or a slice.

        Returns:
            The S ids (B, S) int64 of user, video, previous video and outcome, and the F numbers (B, F) float32 in
            [0, 1] of user, video and history: a pair, as `mmoe_lib.models.Ranker` takes it.
            y (B, 2) float32: engagement and satisfaction, 0 or 1.
        """
        user = self.user_table.index_select(0, part.user[index])
        video = self.video_table.index_select(0, part.video[index])
        before = self.video_table.index_select(0, part.previous[index])
        previous = [before[:, at : at + 1] for at in _PREVIOUS_AT]
        outcome = part.outcome[index].to(torch.float32).add_(self.outcome_start).unsqueeze(1)
        a, b = self.num_user_sparse, self.num_video_sparse
        # The tables hold ids beside numbers, all below 2^24, which float32 counts exactly: `feature_tables`.
        ids = torch.cat([user[:, :a], video[:, :b], *previous, outcome], dim=1).long()
        numbers = torch.cat([user[:, a:], video[:, b:], part.history[index]], dim=1)
        return (ids, numbers), part.labels[index].to(torch.float32)

    def rows(self, part: Impressions, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """The same in one tensor, for what reads nothing but numbers: an exported program, or other models.

        Returns:
            x (B, S + F) float32: the S ids, exact whole numbers below 2^24, then the F numbers in [0, 1].
            y (B, 2) float32, as from `pairs`.
        """
        x, y = self.pairs(part, index)
        return torch.cat(x, dim=1), y

    def to(self, device: torch.device | str) -> FeatureTables:
        """The same on another device."""
        return FeatureTables(
            user_table=self.user_table.to(device),
            video_table=self.video_table.to(device),
            num_user_sparse=self.num_user_sparse,
            num_video_sparse=self.num_video_sparse,
            vocabulary=self.vocabulary,
            outcome_start=self.outcome_start,
            sparse_names=self.sparse_names,
            dense_names=self.dense_names,
        )


def feature_tables(
    users: pd.DataFrame,
    videos: pd.DataFrame,
    user_rows: NDArray[np.int64],
    video_rows: NDArray[np.int64],
    *,
    min_count: int,
) -> FeatureTables:
    """Encode the two tables by what occurs in train.

    Args:
        users: the user table, U rows.
        videos: the video table, V rows.
        user_rows: (U + 1,) in how many train rows each user occurs; the last entry is of users without
            features.
        video_rows: (V + 2,) the same of videos, V + 1 without use.
        min_count: a value that occurs in fewer train rows goes to its feature's unknown bucket, as does a
            missing one.

    Raises:
        ValueError: more ids than float32 can hold exactly.
    """
    user_sparse, start = _sparse(
        [users[name] for name in USER_SPARSE], user_rows[: len(users)], 0, min_count, spare=1
    )
    tags = videos["tag"].str.split(",", n=1).str[0]
    columns = [tags if name == "tag" else videos[name] for name in VIDEO_SPARSE]
    video_sparse, start = _sparse(columns, video_rows[: len(videos)], start, min_count, spare=2)
    if start + NUM_OUTCOMES > EXACT_IN_FLOAT32:
        raise ValueError(
            f"{start + NUM_OUTCOMES:,} ids, expected at most {EXACT_IN_FLOAT32:,}, which float32 holds exactly: "
            "raise min_count"
        )

    user_dense = _dense(
        [np.log1p(users[name].clip(lower=0)) for name in USER_DENSE], user_rows[: len(users)], spare=1
    )
    numbers = {
        "video_duration": np.log1p(videos["video_duration"]),
        "upload_dt": (
            pd.to_datetime(videos["upload_dt"], format="%Y-%m-%d") - pd.Timestamp(2022, 1, 1)
        ).dt.days,
    }
    video_dense = _dense(
        [numbers.get(name, videos[name]) for name in VIDEO_DENSE], video_rows[: len(videos)], spare=2
    )
    return FeatureTables(
        user_table=torch.from_numpy(np.concatenate([user_sparse, user_dense], axis=1)),
        video_table=torch.from_numpy(np.concatenate([video_sparse, video_dense], axis=1)),
        num_user_sparse=len(USER_SPARSE),
        num_video_sparse=len(VIDEO_SPARSE),
        vocabulary=start + NUM_OUTCOMES,
        outcome_start=start,
        sparse_names=(
            *USER_SPARSE,
            *VIDEO_SPARSE,
            *(f"previous_{name}" for name in PREVIOUS_SPARSE),
            "previous_outcome",
        ),
        dense_names=(*USER_DENSE, *VIDEO_DENSE, *HISTORY),
    )


def scaled(numbers: NDArray[np.float64], in_train: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scale a column (R,) to [0, 1] by its range over the rows that occur in train, clipped; missing gives 0."""
    known = numbers[in_train & ~np.isnan(numbers)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    width = high - low if high > low else 1.0
    return np.nan_to_num(np.clip((numbers - low) / width, 0.0, 1.0), nan=0.0).astype(np.float32)


def _sparse(
    columns: Sequence[pd.Series], train_rows: NDArray[np.int64], start: int, min_count: int, *, spare: int
) -> tuple[NDArray[np.float32], int]:
    """The ids of R + spare rows, the spare ones all unknown, and where the next feature's ids begin."""
    table = np.empty((len(train_rows) + spare, len(columns)), dtype=np.float32)
    for at, column in enumerate(columns):
        codes, values = pd.factorize(column, sort=True)  # a missing value gets code -1
        known = codes >= 0
        counts = np.bincount(codes[known], weights=train_rows[known], minlength=len(values))
        listed = counts >= min_count
        # The last entry serves code -1.
        ids = np.append(np.where(listed, start + np.cumsum(listed), start), start)
        table[: len(codes), at] = ids[codes]
        table[len(codes) :, at] = start
        start += 1 + int(listed.sum())
    return table, start


def _dense(columns: Sequence[pd.Series], train_rows: NDArray[np.int64], *, spare: int) -> NDArray[np.float32]:
    """The scaled numbers of R + spare rows, the spare ones 0."""
    table = np.zeros((len(train_rows) + spare, len(columns)), dtype=np.float32)
    for at, column in enumerate(columns):
        table[: len(train_rows), at] = scaled(column.to_numpy(np.float64, na_value=np.nan), train_rows > 0)
    return table
