"""Trade-off curves against a plain loop, and off-policy estimates on logs whose true value is known."""

import math
import time
from itertools import permutations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from companion.study.policies import direct_replay, tradeoff

# --- trade-off ---


def by_loop(
    engagement: NDArray[np.float64],
    satisfaction: NDArray[np.float64],
    labels: NDArray[np.int64],
    users: NDArray[np.int64],
    weight: float,
    top: float,
) -> NDArray[np.float64]:
    """One run and weight, one user after the other; scores without ties."""
    mixed = (1 - weight) * engagement + weight * satisfaction * engagement.mean() / satisfaction.mean()
    means = []
    for user in np.unique(users):
        rows = np.flatnonzero(users == user)
        if len(rows) < 2:
            continue
        best = rows[np.argsort(-mixed[rows])][: math.ceil(round(top * len(rows), 6))]
        means.append(labels[best].mean(axis=0))
    return np.mean(means, axis=0)


@pytest.mark.parametrize("top", [0.1, 0.5, 0.9, 1.0])
def test_it_agrees_with_a_loop_over_users(top: float) -> None:
    random = np.random.default_rng(4)
    users = random.integers(100, 160, 600)
    users[:3] = 1, 2, 3  # users of one impression
    scores = random.random((2, 3, 600))
    scores[1] *= 0.04
    labels = (random.random((600, 2)) < scores[:, 0].T * [1, 10]).astype(np.int64)
    weights = [0.0, 0.3, 1.0]
    engagement, satisfaction = torch.from_numpy(scores)
    ours = tradeoff(
        engagement, satisfaction, torch.from_numpy(labels), torch.from_numpy(users), weights, top=top
    )
    assert ours.engagement.shape == ours.satisfaction.shape == (3, 3)
    for r in range(3):
        for w, weight in enumerate(weights):
            expected = by_loop(scores[0, r], scores[1, r], labels, users, weight, top)
            assert float(ours.engagement[r, w]) == pytest.approx(expected[0], abs=1e-12)
            assert float(ours.satisfaction[r, w]) == pytest.approx(expected[1], abs=1e-12)
    counts = np.unique(users, return_counts=True)[1]
    assert ours.num_users == (counts > 1).sum()
    assert ours.num_impressions == counts[counts > 1].sum() <= 597


def test_the_weight_moves_from_one_label_to_the_other() -> None:
    # One user, four impressions: two of them engage, the other two satisfy, and the predictions know it.
    labels = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]])
    engagement = torch.tensor([[0.9, 0.8, 0.1, 0.2]])
    satisfaction = torch.tensor([[0.001, 0.002, 0.009, 0.008]])
    users = torch.zeros(4, dtype=torch.int32)
    curve = tradeoff(engagement, satisfaction, labels, users, [0.0, 0.4, 0.6, 1.0])
    # Brought to one scale the two mirror each other: 0.4 still ranks by engagement, 0.6 by satisfaction.
    assert curve.engagement.tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert curve.satisfaction.tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert curve.weights.tolist() == [0.0, 0.4, 0.6, 1.0]


def test_each_user_counts_once_and_half_is_rounded_up() -> None:
    # Three rows: the best two count, one of them engages. Two rows: the best one counts and engages.
    users = torch.tensor([7, 3, 7, 3, 7, 5])
    labels = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 0], [1, 1], [1, 1]])
    scores = torch.tensor([[0.9, 0.6, 0.8, 0.5, 0.1, 0.9]])
    curve = tradeoff(scores, scores, labels, users, [0.0])
    assert curve.engagement.tolist() == [[(1 / 2 + 1) / 2]]
    assert curve.satisfaction.tolist() == [[(0 + 1) / 2]]
    assert (curve.num_users, curve.num_impressions) == (2, 5)


def test_ties_count_as_in_a_random_order() -> None:
    """The mean over every order of the rows, ties broken by order, is what one call gives in any order."""
    scores = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.2]])
    labels = torch.tensor([[0, 1], [1, 0], [1, 1], [0, 0], [1, 1]])
    users = torch.zeros(5, dtype=torch.int64)
    first = 3
    by_order = []
    for order in permutations(range(5)):
        ranked = sorted(order, key=lambda row: -float(scores[0, row]))  # sorted is stable
        by_order.append(labels[ranked[:first]].double().mean(dim=0))
    expected = torch.stack(by_order).mean(dim=0).tolist()
    for rows in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        curve = tradeoff(scores[:, rows], scores[:, rows], labels[rows], users, [0.0, 0.5])
        assert curve.engagement[0].tolist() == pytest.approx([expected[0]] * 2)
        assert curve.satisfaction[0].tolist() == pytest.approx([expected[1]] * 2)


def test_constant_scores_give_each_users_mean_label() -> None:
    users = torch.tensor([0, 0, 0, 1, 1])
    labels = torch.tensor([[1, 0], [1, 0], [0, 0], [0, 0], [0, 1]])
    flat = torch.full((2, 5), 0.3)
    curve = tradeoff(flat, flat, labels, users, [0.0, 1.0], top=0.2)
    assert curve.engagement.flatten().tolist() == pytest.approx([1 / 3] * 4)
    assert curve.satisfaction.flatten().tolist() == pytest.approx([0.25] * 4)


def test_twenty_runs_of_a_whole_window_take_seconds() -> None:
    random = torch.Generator().manual_seed(1)
    users = (torch.rand(130_000, generator=random) ** 2 * 20_000).to(torch.int32)
    engagement = torch.rand(20, 130_000, generator=random)
    satisfaction = torch.rand(20, 130_000, generator=random) / 50
    labels = (torch.rand(130_000, 2, generator=random) < 0.3).to(torch.uint8)
    start = time.process_time()
    curve = tradeoff(engagement, satisfaction, labels, users, [w / 10 for w in range(11)])
    assert time.process_time() - start < 8  # 1 s on a free core
    assert curve.engagement.shape == (20, 11)
    assert curve.engagement.sub(0.3).abs().max() < 0.02  # scores that know nothing


def good() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.full((1, 4), 0.5), torch.full((1, 4), 0.5), torch.zeros(4, 2), torch.tensor([1, 1, 2, 2])


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -1.0])
def test_scores_that_are_no_probabilities_are_refused(which: int, wrong: float) -> None:
    arguments = good()
    arguments[which][0, 2] = wrong
    with pytest.raises(ValueError, match="expected probabilities"):
        tradeoff(*arguments, [0.5])


def test_what_cannot_be_ranked_is_refused() -> None:
    engagement, satisfaction, labels, users = good()
    with pytest.raises(ValueError, match="expected \\(R, N\\)"):
        tradeoff(engagement, satisfaction, labels[:, 0], users, [0.5])
    with pytest.raises(ValueError, match="expected \\(R, N\\)"):
        tradeoff(engagement[0], satisfaction[0], labels, users, [0.5])
    with pytest.raises(ValueError, match="no user has two"):
        tradeoff(engagement, satisfaction, labels, torch.arange(4), [0.5])
    with pytest.raises(ValueError, match="satisfaction scores of a run are all 0"):
        tradeoff(engagement, 0 * satisfaction, labels, users, [0.5])
    with pytest.raises(ValueError, match="other than 0 and 1"):
        tradeoff(engagement, satisfaction, labels + 2, users, [0.5])
    for weights in ([], [0.5, 1.1], [-0.1], [math.nan]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            tradeoff(engagement, satisfaction, labels, users, weights)
    for top in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected a share"):
            tradeoff(engagement, satisfaction, labels, users, [0.5], top=top)


# --- direct replay ---


def draw_requests(
    random: np.random.Generator, num_users: int, size: int, *, fair: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(scores, shown, rewards, users): a candidate's quality is uniform, and the chance of its reward.

    The policy's score is the quality itself, so its true value is the mean of the largest of `size` uniform
    numbers: size / (size + 1). An unfair log shows the second best twice as often as each other.
    """
    users = np.repeat(np.arange(num_users), random.integers(1, 10, num_users))
    quality = random.random((len(users), size))
    shown = random.integers(0, size, len(users))
    if not fair:
        second = np.argsort(-quality, axis=1)[:, 1]
        shown = np.where(random.random(len(users)) < 0.5, second, shown)
    rewards = (random.random(len(users)) < quality[np.arange(len(users)), shown]).astype(np.int64)
    return quality, shown, rewards, users


def test_replay_is_unbiased_and_its_interval_covers_the_truth() -> None:
    random = np.random.default_rng(21)
    logs, size = 400, 4
    errors, covered, rates = np.empty(logs), np.empty(logs, dtype=bool), np.empty(logs)
    for log in range(logs):
        found = direct_replay(*draw_requests(random, 300, size), generator=random, resamples=500)
        errors[log] = found.value.value - size / (size + 1)
        covered[log] = found.value.low <= size / (size + 1) <= found.value.high
        rates[log] = found.match_rate.low <= 1 / size <= found.match_rate.high
    assert abs(errors.mean() / (errors.std() / np.sqrt(logs))) < 3
    assert covered.mean() == pytest.approx(0.95, abs=0.035)
    assert rates.mean() == pytest.approx(0.95, abs=0.035)


def test_the_match_rate_tells_a_log_that_was_not_random() -> None:
    random = np.random.default_rng(22)
    fair = direct_replay(*draw_requests(random, 2_000, 4), generator=random, resamples=200)
    unfair = direct_replay(*draw_requests(random, 2_000, 4, fair=False), generator=random, resamples=200)
    assert fair.match_rate.low < 0.25 < fair.match_rate.high
    assert unfair.match_rate.high < 0.25


def test_the_bootstrap_draws_users_not_rows() -> None:
    """Every request written nine times by its user says nothing new: the interval stays as wide."""
    scores, shown, rewards, _ = draw_requests(np.random.default_rng(13), 400, 2)
    users, nine = np.arange(len(shown)), np.repeat(np.arange(len(shown)), 9)

    def replay(rows: NDArray[np.int64], users: NDArray[np.int64]) -> tuple[float, float]:
        generator = np.random.default_rng(0)
        found = direct_replay(scores[rows], shown[rows], rewards[rows], users, generator=generator).value
        return found.value, found.high - found.low

    once, again, as_rows = replay(users, users), replay(nine, nine), replay(nine, np.arange(len(nine)))
    assert again == pytest.approx(once)
    assert as_rows[1] == pytest.approx(once[1] / 3, rel=0.1)


def test_more_confidence_gives_a_wider_interval_and_the_same_generator_the_same_one() -> None:
    requests = draw_requests(np.random.default_rng(1), 100, 3)

    def width(confidence: float) -> float:
        generator = np.random.default_rng(5)
        found = direct_replay(*requests, generator=generator, confidence=confidence).value
        return found.high - found.low

    assert width(0.95) == width(0.95)
    assert width(0.5) < width(0.95) < width(0.99)


def test_replay_by_hand_with_a_tie() -> None:
    # Matches: the first request in full, the second by half (two candidates tie), the third not at all.
    found = direct_replay(
        [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]],
        [0, 1, 0],
        [1, 0, 1],
        [1, 2, 3],
        generator=np.random.default_rng(0),
    )
    assert found.value.value == pytest.approx(1 / 1.5)
    assert found.num_matches == 1.5
    assert found.match_rate.value == pytest.approx(0.5)
    assert (found.num_requests, found.num_users) == (3, 3)
    assert 0 <= found.value.low <= found.value.high <= 1  # samples of user 3 alone have no value


def test_constant_scores_give_the_mean_reward() -> None:
    _, shown, rewards, users = draw_requests(np.random.default_rng(24), 100, 3)
    found = direct_replay(
        np.zeros((len(shown), 3)), shown, rewards, users, generator=np.random.default_rng(0)
    )
    assert found.value.value == pytest.approx(rewards.mean())
    assert found.match_rate.value == pytest.approx(1 / 3)


def test_what_cannot_be_replayed_is_refused() -> None:
    generator = np.random.default_rng(0)
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    with pytest.raises(ValueError, match="in none of 2 requests"):
        direct_replay(scores, [1, 0], [1, 1], [0, 1], generator=generator)
    with pytest.raises(ValueError, match="model has diverged"):
        direct_replay(np.where(scores > 0.8, np.nan, scores), [0, 1], [1, 1], [0, 1], generator=generator)
    for shown in ([0, 2], [-1, 0], [0], [0.5, 1.0]):
        with pytest.raises(ValueError, match="one whole number from 0 to 1 for each of 2"):
            direct_replay(scores, shown, [1, 1], [0, 1], generator=generator)
    for shape in ((0, 2), (2, 1), (2,)):
        with pytest.raises(ValueError, match="at least 2"):
            direct_replay(np.zeros(shape), [0, 1], [1, 1], [0, 1], generator=generator)
    with pytest.raises(ValueError, match="rewards holds NaN"):
        direct_replay(scores, [0, 1], [1, math.nan], [0, 1], generator=generator)
    with pytest.raises(ValueError, match="rewards has shape"):
        direct_replay(scores, [0, 1], [1, 1, 0], [0, 1], generator=generator)
    with pytest.raises(ValueError, match="users has shape"):
        direct_replay(scores, [0, 1], [1, 1], [0], generator=generator)
    with pytest.raises(ValueError, match="of one user"):
        direct_replay(scores, [0, 1], [1, 1], [3, 3], generator=generator)
    with pytest.raises(ValueError, match="resamples is 0"):
        direct_replay(scores, [0, 1], [1, 1], [0, 1], generator=generator, resamples=0)
