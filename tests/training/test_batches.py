"""Minibatches put together as they are needed, and minibatches with noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, islice

import pytest
import torch
from torch import Tensor

from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import epochs
from mmoe_lib.training.batches import joined_epochs, own_epochs, with_noise

Batch = tuple[Tensor, Tensor]


def _data(rows: int = 10) -> Batch:
    x = torch.randn(rows, 3, generator=seeded_generator(0, "test"))
    return x, torch.arange(float(rows)).unsqueeze(1)


# --- rows joined when they are needed --------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10])
@pytest.mark.parametrize("seed", [0, 7])
def test_joined_epochs_are_epochs_of_the_same_seed(batch_size: int, seed: int) -> None:
    x, y = _data()
    joined = joined_epochs(lambda rows: (x[rows], y[rows]), 10, batch_size, seed=seed)
    number = 3 * (10 // batch_size) + 1  # three epochs and a batch of the next
    for (a, b), (c, d) in islice(zip(joined, epochs(x, y, batch_size, seed=seed), strict=True), number):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
        assert torch.equal(a, x[b[:, 0].long()])  # inputs and labels of the same rows


def _rows(batch_size: int, number: int, seed: int = 0) -> list[list[int]]:
    """The row numbers of the first batches of 10 rows."""
    batches = joined_epochs(lambda rows: (rows, rows), 10, batch_size, seed=seed)
    return [rows.tolist() for rows, _ in islice(batches, number)]


def test_an_epoch_visits_each_row_at_most_once() -> None:
    left_out = set()
    orders = []
    batches = _rows(3, 60)
    assert {len(rows) for rows in batches} == {3}
    for start in range(0, 60, 3):  # 10 rows in batches of 3: three an epoch
        order = list(chain.from_iterable(batches[start : start + 3]))
        assert len(set(order)) == 9
        assert set(order) <= set(range(10))
        left_out |= set(range(10)) - set(order)
        orders.append(order)
    assert len({tuple(order) for order in orders}) == 20  # a new order every time
    assert len(left_out) > 5  # and another row left out


def test_an_epoch_of_batches_that_fit_visits_every_row() -> None:
    for batch_size in (1, 2, 5, 10):
        number = 10 // batch_size
        batches = _rows(batch_size, 2 * number)
        for epoch in (batches[:number], batches[number:]):
            assert sorted(chain.from_iterable(epoch)) == list(range(10))


def test_the_order_of_the_rows_is_that_of_the_seed() -> None:
    before = torch.random.get_rng_state()
    assert _rows(5, 6, seed=3) == _rows(5, 6, seed=3)
    assert _rows(5, 6, seed=3) != _rows(5, 6, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)  # no global generator was touched


def test_rows_are_put_together_only_when_they_are_asked_for() -> None:
    taken: list[Tensor] = []

    def take(rows: Tensor) -> Batch:
        taken.append(rows)
        return rows, rows

    batches = joined_epochs(take, 10, 4)
    assert taken == []
    for number in range(1, 6):
        next(batches)
        assert len(taken) == number
    assert all(rows.shape == (4,) and rows.dtype == torch.long for rows in taken)


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_that_the_rows_do_not_fill_is_refused_in_one_line(batch_size: int) -> None:
    message = f"batch_size is {batch_size}, expected 1 to 10, the number of rows"
    with pytest.raises(ValueError, match=message) as caught:  # at once, not with the first batch
        joined_epochs(lambda rows: (rows, rows), 10, batch_size)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        epochs(*_data(), batch_size)


# --- noise -----------------------------------------------------------------------------------------


def _noisy(seed: int, number: int, columns: int = 4, rows: int = 10) -> list[Batch]:
    return list(islice(with_noise(epochs(*_data(rows), 5), columns, seed=seed), number))


def test_the_minibatches_themselves_stay_in_front_of_the_noise() -> None:
    for (x, y), (noisy, labels) in zip(islice(epochs(*_data(), 5), 5), _noisy(0, 5), strict=True):
        assert noisy.shape == (5, 3 + 4)
        assert noisy.dtype == x.dtype
        assert torch.equal(noisy[:, :3], x)
        assert torch.equal(labels, y)
    for (x, _), (same, _) in zip(islice(epochs(*_data(), 5), 5), _noisy(0, 5, columns=0), strict=True):
        assert torch.equal(same, x)


def test_noise_is_that_of_the_seed_and_new_in_every_batch() -> None:
    before = torch.random.get_rng_state()
    once, again, other = (torch.stack([x[:, 3:] for x, _ in _noisy(seed, 6)]) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)  # no global generator was touched
    assert torch.equal(once, again)
    assert not bool((once == other).any())
    assert len(once.unique()) == once.numel()  # no number twice: not between batches, rows or columns


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_noise_is_uniform(dtype: torch.dtype) -> None:
    x = torch.zeros(5_000, 2, dtype=dtype)
    noise = torch.cat([x[:, 2:] for x, _ in islice(with_noise(iter([(x, x)] * 4), 3, seed=5), 4)])
    assert noise.dtype == dtype
    noise = noise.double()
    assert bool(((noise >= 0) & (noise < 1)).all())
    for column in noise.T:
        # the largest distance of the distribution function from the diagonal: 1.95 / sqrt(N) once in a thousand
        places = torch.arange(1, len(column) + 1) / len(column)
        assert float((column.sort().values - places).abs().max()) < 1.95 / math.sqrt(len(column))
    correlations = torch.corrcoef(noise.T) - torch.eye(3)
    assert float(correlations.abs().max()) < 4 / math.sqrt(len(noise))


def test_runs_with_minibatches_of_their_own_get_noise_of_their_own() -> None:
    x, y = torch.randn(2, 5, 3, generator=seeded_generator(0, "test")), torch.zeros(2, 5, 1)
    noisy, labels = next(with_noise(iter([(x, y)]), 4))
    assert noisy.shape == (2, 5, 7)
    assert torch.equal(noisy[..., :3], x)
    assert labels is y
    assert not bool((noisy[0, :, 3:] == noisy[1, :, 3:]).any())


def test_noise_ends_with_the_minibatches_and_takes_none_before_its_turn() -> None:
    given: list[int] = []

    def batches() -> Iterator[Batch]:
        for number in range(3):
            given.append(number)
            yield torch.zeros(2, 3), torch.zeros(2, 1)

    noisy = with_noise(batches(), 1)
    assert given == []
    next(noisy)
    assert given == [0]
    assert len(list(noisy)) == 2


def test_runs_with_rows_of_their_own_see_what_each_would_see_alone() -> None:
    x, y = torch.arange(40.0).reshape(20, 2), torch.arange(20.0).reshape(20, 1)
    rows = torch.stack([torch.arange(0, 12), torch.arange(8, 20)])

    def take(some: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[some], y[some]

    together = own_epochs(take, rows, 5, seeds=(3, 4))
    alone = [
        joined_epochs(lambda some, own=own: take(own[some]), 12, 5, seed=seed)  # type: ignore[misc]
        for own, seed in zip(rows, (3, 4), strict=True)
    ]
    for _ in range(7):
        inputs, labels = next(together)
        assert inputs.shape == (2, 5, 2)
        for run, batches in enumerate(alone):
            expected_x, expected_y = next(batches)
            assert torch.equal(inputs[run], expected_x)
            assert torch.equal(labels[run], expected_y)
    with pytest.raises(ValueError, match="batch_size is 13"):
        own_epochs(take, rows, 13, seeds=(3, 4))
    with pytest.raises(ValueError, match="there are 1 seeds and rows of 2 runs"):
        own_epochs(take, rows, 5, seeds=(3,))
