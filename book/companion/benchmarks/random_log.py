"""A random log of KuaiRand's shape, for benchmarks: columns of its types and widths, and nothing can be learnt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial

import torch
from torch import Tensor

from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.kuairand.columns import (
    PREVIOUS_SPARSE,
    USER_DENSE,
    USER_SPARSE,
    VIDEO_DENSE,
    VIDEO_SPARSE,
)
from mmoe_lib.tasks.kuairand.features import NUM_OUTCOMES, FeatureTables, Impressions
from mmoe_lib.tasks.kuairand.history import HISTORY

NUM_USERS, NUM_VIDEOS = 27_000, 7_500
CHUNK = 1 << 18
"""Rows that are drawn and written at a time."""


NUM_REQUESTS = 16
"""Requests that a method answers in turn, so that none finds all its vectors in the nearest cache."""


def random_tables(
    num_users: int = NUM_USERS, num_videos: int = NUM_VIDEOS, *, seed: int = 0
) -> FeatureTables:
    """Feature tables of KuaiRand's widths: ids of users and videos their own, all else drawn at random."""
    generator = seeded_generator(seed, "feature tables")
    start = 0

    def table(rows: int, names: tuple[str, ...], dense: int) -> Tensor:
        nonlocal start
        ids = torch.empty(rows, len(names))
        for at, name in enumerate(names):
            values = rows if name in ("user_id", "video_id") else 50
            ids[:, at] = start + (
                torch.arange(rows) if values == rows else torch.randint(values, (rows,), generator=generator)
            )
            start += values
        return torch.cat([ids, torch.rand(rows, dense, generator=generator)], dim=1)

    users = table(num_users + 1, USER_SPARSE, len(USER_DENSE))
    videos = table(num_videos + 2, VIDEO_SPARSE, len(VIDEO_DENSE))
    return FeatureTables(
        user_table=users,
        video_table=videos,
        num_user_sparse=len(USER_SPARSE),
        num_video_sparse=len(VIDEO_SPARSE),
        vocabulary=start + NUM_OUTCOMES,
        outcome_start=start,
        sparse_names=(*USER_SPARSE, *VIDEO_SPARSE, *PREVIOUS_SPARSE, "previous_outcome"),
        dense_names=(*USER_DENSE, *VIDEO_DENSE, *HISTORY),
    )


def random_impressions(features: FeatureTables, num_rows: int, *, seed: int = 0) -> Iterator[Impressions]:
    """A log of random impressions in pieces of `CHUNK` rows, sorted by user as the real one is.

    About 35 % are watched for long and 2 % are liked, whatever the inputs.
    """
    users, videos = len(features.user_table), len(features.video_table)
    for start in range(0, num_rows, CHUNK):
        rows = min(CHUNK, num_rows - start)
        generator = seeded_generator(seed, f"impressions from {start}")
        draw = partial(torch.rand, generator=generator)
        yield Impressions(
            user=((start + torch.arange(rows)) * users // num_rows).int(),
            video=torch.randint(videos - 2, (rows,), generator=generator).int(),
            previous=torch.randint(videos, (rows,), generator=generator).int(),
            outcome=torch.randint(NUM_OUTCOMES, (rows,), generator=generator).to(torch.uint8),
            history=draw(rows, len(HISTORY)),
            labels=(draw(rows, 2) < torch.tensor([0.35, 0.02])).to(torch.uint8),
        )


def random_log(features: FeatureTables, num_rows: int) -> Impressions:
    """A random log in one piece."""
    pieces = list(random_impressions(features, num_rows))
    names = [field.name for field in fields(Impressions)]
    return Impressions(**{name: torch.cat([getattr(piece, name) for piece in pieces]) for name in names})


def kuairand_tables() -> FeatureTables:
    """Random feature tables with as many ids as the encoding of the 1,045,516 rows of KuaiRand-Pure: 40,311."""
    return random_tables(num_users=27_285, num_videos=11_368)


def requests(
    features: FeatureTables, rows: int, number: int = NUM_REQUESTS, *, seed: int = 0
) -> list[Tensor]:
    """Inputs (rows, S + F) of so many requests, each one user with `rows` random candidates."""
    (drawn,) = random_impressions(features, rows * number, seed=seed)
    inputs = []
    for start in range(0, rows * number, rows):
        # What is known of the user is the same in all rows of a request.
        user = {
            name: getattr(drawn, name)[start].expand(len(drawn)) for name in ("user", "previous", "outcome")
        }
        x, _ = features.rows(replace(drawn, **user), slice(start, start + rows))
        inputs.append(x)
    return inputs
