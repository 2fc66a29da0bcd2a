"""Random numbers as a function of a key and a counter: no state, so any of them can be drawn at any time, anywhere.

A generator must be walked along, one for each run. Here a number depends on its run's key and on its place alone, so
that all runs draw at once, a captured GPU graph can draw, and run r draws the same alone as among a thousand others.

Source: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011), Philox 4x32 of ten rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmoe_lib.seeds import seed_word

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF

Words = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four numbers of 32 bits in int64 tensors, which broadcast against each other."""


def keys_of(seeds: Sequence[int], purpose: str, device: torch.device | str = "cpu") -> Tensor:
    """One key a run from its seed and what the numbers are for: two words of 32 bits each, (R, 2) int64.

    Raises:
        ValueError: If a seed is negative.
    """
    words = [seed_word(seed, purpose) for seed in seeds]
    return torch.tensor([[word & _MASK, word >> 32] for word in words], dtype=torch.int64, device=device)


def philox(keys: tuple[Tensor, Tensor], counters: Words) -> Words:
    """Philox 4x32-10: four random words for every key and counter.

    Args:
        keys: Two words of 32 bits.
        counters: Four words; another counter gives independent numbers.

    Returns:
        Four words, of the shape to which keys and counters broadcast.
    """
    c0, c1, c2, c3 = counters
    k0, k1 = keys
    for _ in range(_ROUNDS):
        # The product of two words has 64 bits; that int64 is signed does not change them.
        even, odd = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        # (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0))
        c0, c1, c2, c3 = (
            (odd >> 32) & _MASK ^ c1 ^ k0,
            odd & _MASK,
            (even >> 32) & _MASK ^ c3 ^ k1,
            even & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _words(keys: Tensor, count: int, number: Tensor, part: int) -> Words:
    """`count` counters for each key (R, 2) of draw `number` (a 0-dim int64 tensor): four words (R, count)."""
    place = torch.arange(count, dtype=torch.int64, device=keys.device).unsqueeze(0)  # (1, count)
    k0, k1 = keys[:, 0:1], keys[:, 1:2]  # (R, 1)
    # Multiplied in the first round are the words of `number`: of a range the compiler would make 32-bit products.
    return philox((k0, k1), (number & _MASK, place, number >> 32, torch.full_like(place, part)))


def normal(
    keys: Tensor, count: int, number: Tensor, *, part: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal numbers, (R, count), of draw `number` of each run.

    Args:
        keys: From `keys_of`, (R, 2).
        count: How many a run.
        number: Which draw, a 0-dim int64 tensor on the keys' device.
        part: Draws of another part of the same number are independent.
        dtype: Of the result.
    """
    a, b, c, d = (word.to(dtype) for word in _words(keys, -(-count // 4), number, part))
    # Box and Muller: r = sqrt(-2 log u), u uniform in (0, 1], is the distance, and 2 pi v, v in [0, 1), the angle
    unit = 2.0**-32
    distance, angle = torch.sqrt(-2 * torch.log((a + 1) * unit)), b * (2 * math.pi * unit)
    distance_2, angle_2 = torch.sqrt(-2 * torch.log((c + 1) * unit)), d * (2 * math.pi * unit)
    drawn = torch.cat(
        [
            distance * torch.cos(angle),
            distance * torch.sin(angle),
            distance_2 * torch.cos(angle_2),
            distance_2 * torch.sin(angle_2),
        ],
        dim=1,
    )
    return drawn[:, :count]


def below(keys: Tensor, bound: int, number: Tensor, *, part: int = 0) -> Tensor:
    """One integer from 0 to bound - 1 a run, (R,) int64, of draw `number`; bound is at most 2^31."""
    word = _words(keys, 1, number, part)[0][:, 0]
    # floor(u bound), u = word / 2^32: off from uniform by at most bound / 2^32
    return (word * bound) >> 32
