"""What a ranking by several predictions would give, from impressions that were logged.

`tradeoff` re-orders impressions that a user really had: it needs no assumption about what was never shown,
but it only ranks what the platform had picked already. `direct_replay` estimates what another policy would earn
an impression, from impressions that were shown at random.
Both look at the outcome of one impression at a time: how a user's mood or stay changes with the ranking is in
no log of another policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


@dataclass(frozen=True)
class Tradeoff:
    """Engagement and satisfaction of the impressions ranked first, for R runs and W weights.

    Attributes:
        weights: Weight of the satisfaction prediction, (W,).
        engagement: Mean engagement label of the impressions ranked first, (R, W), float64.
        satisfaction: Likewise the mean satisfaction label.
        num_users: Users with at least two impressions, over whom the means are taken.
        num_impressions: Their impressions, before the top share is taken.
    """

    weights: Tensor
    engagement: Tensor
    satisfaction: Tensor
    num_users: int
    num_impressions: int


def tradeoff(
    engagement_scores: Tensor,
    satisfaction_scores: Tensor,
    labels: Tensor,
    users: Tensor,
    weights: Sequence[float],
    *,
    top: float = 0.5,
) -> Tradeoff:
    """Rank each user's impressions by a weighted mix of two predictions and look at those ranked first.

    score = (1 - w) * p_engagement + w * p_satisfaction * (mean p_engagement / mean p_satisfaction)

    The ratio of the run's mean predictions over these rows brings the rare label onto the scale of the frequent
    one, so that w = 1/2 counts both alike, and no label is looked at to do so. Of a user with n impressions
    the first ceil(top * n) count; their labels are averaged within the user and then over users, so each user
    counts once. Users with one impression have nothing to rank and are left out.

    Equal scores at the cut share the places that are left: each counts with the probability of being among
    them in a random order. So neither the order of the rows nor their labels decide a tie.

    Args:
        engagement_scores: Predicted probabilities of engagement, one row a run, (R, N).
        satisfaction_scores: Likewise of satisfaction, (R, N).
        labels: 0 or 1, engagement and satisfaction, (N, 2).
        users: Whose impression each row is, whole numbers in any order, (N,).
        weights: Weights w of satisfaction, W numbers in [0, 1].
        top: Share of a user's impressions that is looked at, above 0 and at most 1.

    Returns:
        Means of the two labels for each run and weight, on the device of the scores.

    Raises:
        ValueError: Shapes that do not fit, scores that are NaN, negative or zero in all rows, labels other
            than 0 and 1, weights or a share out of range, or no user with two impressions.
    """
    _check_tradeoff(engagement_scores, satisfaction_scores, labels, users, weights, top)
    engagement, satisfaction = engagement_scores.double(), satisfaction_scores.double()
    ratio = engagement.mean(dim=1, keepdim=True) / satisfaction.mean(dim=1, keepdim=True)  # (R, 1)
    satisfaction = satisfaction * ratio
    outcomes = labels.double()

    groups = _rows_of_users(users)
    sums = torch.zeros(len(engagement), len(weights), 2, dtype=torch.float64, device=engagement.device)
    for rows in groups:  # users of the same number of impressions n: (users, n)
        first = _places(rows.shape[1], top)
        one, two, of_rows = engagement[:, rows], satisfaction[:, rows], outcomes[rows]
        for place, weight in enumerate(weights):
            chosen = _chance_of_top((1 - weight) * one + weight * two, first)  # (R, users, n)
            sums[:, place] += torch.einsum("run,unk->rk", chosen, of_rows) / first
    num_users = sum(len(rows) for rows in groups)
    means = sums / num_users
    return Tradeoff(
        weights=torch.tensor(weights, dtype=torch.float64, device=means.device),
        engagement=means[..., 0],
        satisfaction=means[..., 1],
        num_users=num_users,
        num_impressions=sum(rows.numel() for rows in groups),
    )


def _places(num_rows: int, top: float) -> int:
    """ceil(top * n), safe from 0.1 * 30 being a little above 3."""
    return max(1, int(np.ceil(top * num_rows - 1e-9)))


def _rows_of_users(users: Tensor) -> list[Tensor]:
    """Row numbers of users with the same count of rows, one (users, n) matrix for each count n of at least 2."""
    order = users.argsort(stable=True)
    counts = torch.unique_consecutive(users[order], return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    groups = []
    for size in counts.unique().tolist():
        if size >= 2:
            offsets = torch.arange(size, device=users.device)
            groups.append(order[starts[counts == size].unsqueeze(1) + offsets])
    return groups


def _chance_of_top(scores: Tensor, first: int) -> Tensor:
    """Chance of each of n scores to be among the `first` highest, ties in random order: (..., n), sums to it."""
    cut = scores.sort(dim=-1, descending=True).values[..., first - 1 : first]
    above = (scores > cut).double()
    level = (scores == cut).double()
    left = first - above.sum(dim=-1, keepdim=True)
    return above + level * (left / level.sum(dim=-1, keepdim=True))


def _check_tradeoff(
    engagement: Tensor,
    satisfaction: Tensor,
    labels: Tensor,
    users: Tensor,
    weights: Sequence[float],
    top: float,
) -> None:
    """Raise one line about the first thing that `tradeoff` cannot work with."""
    num_rows = len(users)
    fits = engagement.dim() == 2 and engagement.shape == satisfaction.shape
    if not fits or engagement.shape[1] != num_rows or labels.shape != (num_rows, 2) or users.dim() != 1:
        raise ValueError(
            f"scores have shapes {tuple(engagement.shape)} and {tuple(satisfaction.shape)}, labels "
            f"{tuple(labels.shape)}, users {tuple(users.shape)}, expected (R, N), (R, N), (N, 2) and (N,)"
        )
    for name, scores in (("engagement", engagement), ("satisfaction", satisfaction)):
        if not bool((torch.isfinite(scores) & (scores >= 0)).all()):
            raise ValueError(
                f"{name} scores hold NaN, infinity or negative numbers, expected probabilities: apply the sigmoid to logits"
            )
        if not bool((scores > 0).any(dim=1).all()):
            raise ValueError(
                f"{name} scores of a run are all 0, expected some above: their mean sets the scale"
            )
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError("labels hold values other than 0 and 1, expected only these: binarise them first")
    if len(weights) == 0 or not all(0 <= weight <= 1 for weight in weights):
        raise ValueError(f"weights are {list(weights)}, expected some numbers from 0 to 1")
    if not 0 < top <= 1:
        raise ValueError(f"top is {top}, expected a share above 0 and at most 1")
    if num_rows == 0 or int(torch.unique(users, return_counts=True)[1].max()) < 2:
        raise ValueError("no user has two impressions, expected at least one: there is nothing to rank")


@dataclass(frozen=True)
class Estimate:
    """A value with the interval that the bootstrap of users gives.

    Attributes:
        value: The estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DirectReplay:
    """What a policy would earn a request, from the requests where the log happened to agree with it.

    Attributes:
        value: Mean reward of the matching requests, with its interval.
        match_rate: Share of the requests that match, with its interval; 1 / m in expectation when one of m
            candidates was shown at random, whatever the policy: an interval that excludes it says it was not.
        num_requests: Requests in the log.
        num_matches: Those whose shown candidate the policy ranks first; a tie of k counts 1 / k.
        num_users: Users of all requests.
    """

    value: Estimate
    match_rate: Estimate
    num_requests: int
    num_matches: float
    num_users: int


def direct_replay(
    scores: ArrayLike,
    shown: ArrayLike,
    rewards: ArrayLike,
    users: ArrayLike,
    *,
    generator: np.random.Generator,
    resamples: int = 2_000,
    confidence: float = 0.95,
) -> DirectReplay:
    """Value of ranking m candidates by a score, where one of them, drawn uniformly, was shown.

    A request counts where the policy's top candidate is the one that was shown (Li, Chu, Langford & Wang
    2011). Since the shown one was drawn without looking at the scores, these requests are a fair sample of all
    of them, and their mean reward is the policy's. It also holds for candidates that are drawn afterwards
    around the shown one, as long as the shown one was itself drawn uniformly from the same pool. Candidates
    that tie for the top share the match: in a random order each would come first as often.

    Args:
        scores: The policy's score of each candidate, (Q, m) with m of at least 2.
        shown: Column of the candidate that was shown, (Q,), 0 to m - 1.
        rewards: What followed it, (Q,), finite.
        users: Whose request it was, (Q,).
        generator: Source of the bootstrap's randomness.
        resamples: How many bootstrap samples of users.
        confidence: Share of the bootstrap samples inside the interval.

    Returns:
        The policy's mean reward a request, and how many requests it rests on.

    Raises:
        ValueError: Empty or unequal columns, scores or rewards that are NaN or infinite, `shown` outside the
            candidates, or no request where the policy's top candidate was shown.
    """
    candidates = np.asarray(scores, dtype=np.float64)
    if candidates.ndim != 2 or candidates.shape[1] < 2 or not len(candidates):
        raise ValueError(
            f"scores have shape {candidates.shape}, expected (requests, candidates): some requests of at least 2"
        )
    if not np.isfinite(candidates).all():
        raise ValueError("scores hold NaN or infinity, expected finite numbers: the model has diverged")
    num_requests, num_candidates = candidates.shape
    reward = _column("rewards", rewards, num_requests)
    user = _users(users, num_requests)
    place = np.asarray(shown)
    whole = place.shape == (num_requests,) and np.issubdtype(place.dtype, np.integer)
    if not whole or (place < 0).any() or (place >= num_candidates).any():
        raise ValueError(
            f"shown must hold one whole number from 0 to {num_candidates - 1} for each of {num_requests} requests"
        )
    at_top = candidates == candidates.max(axis=1, keepdims=True)
    match = at_top[np.arange(num_requests), place] / at_top.sum(axis=1)
    if not match.any():
        raise ValueError(
            f"the policy's top candidate was shown in none of {num_requests} requests: no match, no estimate"
        )
    of_users = _sums(user, np.stack([match * reward, match, np.ones_like(match)], axis=1))
    drawn = _bootstrap(of_users, resamples, confidence, generator)
    matched = float(match.sum())
    return DirectReplay(
        value=_interval(float(match @ reward) / matched, drawn[:, 0], drawn[:, 1], confidence),
        match_rate=_interval(matched / num_requests, drawn[:, 1], drawn[:, 2], confidence),
        num_requests=num_requests,
        num_matches=matched,
        num_users=len(of_users),
    )


def _column(name: str, values: ArrayLike, length: int) -> NDArray[np.float64]:
    """One finite number a row."""
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (length,):
        raise ValueError(f"{name} has shape {column.shape}, expected {(length,)}: one for each request")
    if not np.isfinite(column).all():
        raise ValueError(f"{name} holds NaN or infinity, expected finite numbers")
    return column


def _users(users: ArrayLike, length: int) -> NDArray[np.int64]:
    """Users numbered from 0."""
    column: NDArray[Any] = np.asarray(users)
    if column.shape != (length,):
        raise ValueError(f"users has shape {column.shape}, expected {(length,)}: one for each row")
    return np.unique(column, return_inverse=True)[1].astype(np.int64)


def _sums(users: NDArray[np.int64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of each column over each user's rows: (N,), (N, C) -> (users, C)."""
    return np.stack([np.bincount(users, weights=column) for column in columns.T], axis=1)


def _bootstrap(
    of_users: NDArray[np.float64], resamples: int, confidence: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Column sums over users drawn with replacement, as many as there are: (users, C) -> (resamples, C)."""
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"resamples is {resamples} and confidence {confidence}, expected at least 1 and a share between 0 and 1"
        )
    num_users = len(of_users)
    if num_users < 2:
        raise ValueError("all rows are of one user, expected several: the interval comes from drawing users")
    # One sample at a time: a matrix of 2,000 samples of 27,000 users would take 400 MB.
    samples = []
    for _ in range(resamples):
        times = np.bincount(generator.integers(num_users, size=num_users), minlength=num_users)
        samples.append(times @ of_users)
    return np.stack(samples)


def _interval(
    value: float, above: NDArray[np.float64], below: NDArray[np.float64], confidence: float
) -> Estimate:
    """Percentile interval of the ratio; samples of users without a single match have no ratio and are left out."""
    ratios = above[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))
