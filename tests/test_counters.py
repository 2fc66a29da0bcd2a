"""Counter-based random numbers: Philox's published answers, and the moments of what is made of its words."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from mmoe_lib import counters

# The known answers that come with Random123 (kat_vectors, philox4x32 10): counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def _words(text: str, device: str = "cpu") -> tuple[Tensor, ...]:
    return tuple(torch.tensor(int(word, 16), device=device) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_answers(counter: str, key: str, expected: str, device: str) -> None:
    found = counters.philox(_words(key, device), _words(counter, device))  # type: ignore[arg-type]
    assert [f"{int(word):08x}" for word in found] == expected.split()


def test_normal_numbers_are_normal_and_independent_of_each_other(device: str) -> None:
    keys = counters.keys_of([3, 4], "test", device)
    first, second = counters.normal(keys, 100_001, torch.tensor(7, device=device), dtype=torch.float64).cpu()
    for drawn in (first, second):
        assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3
    others = [
        second,  # another run
        counters.normal(keys, 100_001, torch.tensor(8, device=device), dtype=torch.float64)[0].cpu(),
        counters.normal(keys, 100_001, torch.tensor(7, device=device), part=1, dtype=torch.float64)[0].cpu(),
        first.roll(1),
        first.roll(25_001),  # the next of four numbers from one counter
    ]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 4 / 100_001**0.5
        assert abs(float(torch.corrcoef(torch.stack([first**2, other**2]))[0, 1])) < 4 / 100_001**0.5


def test_no_number_is_infinite_where_a_word_is_zero_or_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log u at u = 0 would be; the uniform number is (word + 1) / 2^32, from 2^-32 to 1."""
    for word in (0, 2**32 - 1):
        same = torch.full((1, 2), word)
        monkeypatch.setattr(counters, "philox", lambda keys, counters, same=same: (same,) * 4)
        assert bool(counters.normal(counters.keys_of([0], "test"), 8, torch.tensor(0)).isfinite().all())


def test_integers_are_uniform_below_their_bound(device: str) -> None:
    keys = counters.keys_of(range(20_000), "test", device)
    drawn = counters.below(keys, 6, torch.tensor(2**33, device=device)).cpu()
    counts = torch.bincount(drawn)
    assert len(counts) == 6
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert int(counters.below(keys, 2**31, torch.tensor(0, device=device)).max()) > 2**30


def test_a_draw_depends_on_the_whole_of_its_number() -> None:
    keys = counters.keys_of([0], "test")
    low, high = (counters.normal(keys, 4, torch.tensor(number)) for number in (5, 5 + 2**32))
    assert not torch.equal(low, high)


def test_keys_are_those_of_seed_and_purpose() -> None:
    keys = counters.keys_of([1, 2], "training")
    assert torch.equal(keys[1:], counters.keys_of([2], "training"))
    assert not torch.equal(keys, counters.keys_of([1, 2], "validation"))
    assert int(keys.min()) >= 0
    assert int(keys.max()) < 2**32
    with pytest.raises(ValueError, match="seed is -1, expected 0 or more"):
        counters.keys_of([-1], "training")
