"""What a ranking would earn on impressions that were shown at random: KuaiRand's random log, where it is there."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from companion.study.cells import Cell
from companion.study.kuairand import (
    Choices,
    Chosen,
    RankingSource,
    probabilities,
    reported_cells,
    train_rankers,
)
from companion.study.policies import Estimate, direct_replay
from companion.study.presets import Preset
from mmoe_lib.tasks.kuairand import KuaiRandTables, RankingData, encode
from mmoe_lib.training import DivergedError

CANDIDATES = 10
"""Videos among which a ranking chooses, one of which was shown."""

COMPARED = ("Single-Task", "Shared-Bottom", "MMoE")
"""The models of the paper's table 4."""

MIXES = (0.0, 0.5, 1.0)
"""Weights of satisfaction in the score, as in `companion.study.policies.tradeoff`."""


COLUMNS = (
    *(
        f"{what}_{name}_{index}"
        for index in range(len(MIXES))
        for name in ("engagement", "satisfaction")
        for what in ("value", "low", "high")
    ),
    "shown_engagement",
    "shown_satisfaction",
    "requests",
)
"""What `run_off_policy` gives beside the seed."""


def off_policy_cells(preset: Preset, chosen: dict[tuple[str, str], Chosen]) -> list[Cell[Choices]]:
    """The first runs of the compared methods with Adam, trained as in `reported_cells`."""
    return [
        cell
        for cell in reported_cells(preset, chosen)
        if cell.choices.order == 0 and cell.choices.optimiser == "Adam" and cell.model in COMPARED
    ]


def with_candidates(tables: KuaiRandTables, number: int, *, seed: int = 0) -> KuaiRandTables:
    """Put each impression of the random log among others that could have been shown in its place.

    The shown video was drawn from the pool of all videos, so together with `number` - 1 further draws from the
    pool it is one of `number` candidates that was shown at random.

    Args:
        tables: With a random log.
        number: Candidates of a request, 2 or more.
        seed: Of the draws.

    Returns:
        The tables with `number` rows in place of each random impression, the shown one first. The labels of the
        others are copies of its own and mean nothing.

    Raises:
        ValueError: If there is no random log, or fewer than two candidates are asked for.
    """
    if tables.random is None:
        raise ValueError(
            "there is no random log, expected log_random_4_22_to_5_08_pure.csv beside the others"
        )
    if number < 2:
        raise ValueError(f"number of candidates is {number}, expected 2 or more: a ranking needs a choice")
    generator = np.random.default_rng(seed)
    repeated = tables.random.loc[tables.random.index.repeat(number)].reset_index(drop=True)
    drawn = generator.choice(tables.videos["video_id"].to_numpy(), size=len(repeated))
    first = np.arange(len(repeated)) % number == 0
    repeated["video_id"] = np.where(first, repeated["video_id"], drawn)
    return replace(tables, random=repeated)


@lru_cache(maxsize=1)
def _data(source: RankingSource) -> RankingData:
    return encode(with_candidates(source.tables(), CANDIDATES))


def run_off_policy(cell: Cell[Choices], source: RankingSource, device: torch.device | str) -> pd.DataFrame:
    """Train the seeds of a cell and estimate what their rankings would earn, one row a run.

    Columns for each weight of `MIXES`, in order 0, 1, 2: value_engagement_i and value_satisfaction_i, the mean label
    of requests in which the ranking's first candidate is the one that was shown (direct replay); low_ and high_, the
    95 % interval over users; shown_engagement and shown_satisfaction, of all random impressions; requests.

    Raises:
        ValueError: If there is no random log.
    """
    data = _data(source)
    assert data.random is not None
    try:
        ensemble, _ = train_rankers(
            cell.model,
            data,
            cell.seeds,
            cell.choices,
            learning_rate=cell.learning_rate,
            device=device,
            on_divergence="record",
            progress=False,
        )
        predicted = probabilities(ensemble, data, data.random).double().numpy()  # (R, Q m, 2)
    except DivergedError:  # every run did
        predicted = np.full((len(cell.seeds), len(data.random), 2), np.nan)
    labels = data.random.labels[::CANDIDATES].numpy()  # (Q, 2), of the shown
    users = data.random.user[::CANDIDATES].numpy()
    shown = np.zeros(len(users), dtype=np.int64)
    rows = []
    for seed, scores in zip(cell.seeds, predicted, strict=True):
        row: dict[str, Any] = {"seed": seed}
        ratio = scores[:, 0].mean() / scores[:, 1].mean()
        for index, weight in enumerate(MIXES):
            mix = (1 - weight) * scores[:, 0] + weight * ratio * scores[:, 1]
            for task, name in enumerate(("engagement", "satisfaction")):
                found = (
                    direct_replay(
                        mix.reshape(-1, CANDIDATES),
                        shown,
                        labels[:, task],
                        users,
                        generator=np.random.default_rng(0),
                    ).value
                    if np.isfinite(mix).all()
                    else Estimate(np.nan, np.nan, np.nan)  # the run diverged
                )
                row |= {
                    f"value_{name}_{index}": found.value,
                    f"low_{name}_{index}": found.low,
                    f"high_{name}_{index}": found.high,
                }
        rows.append(row)
    means = labels.mean(axis=0)
    return (
        pd.DataFrame(rows)
        .round(6)
        .assign(
            shown_engagement=round(float(means[0]), 6),
            shown_satisfaction=round(float(means[1]), 6),
            requests=len(users),
        )
    )
