"""Independent streams of random numbers from one seed a run."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def seed_word(seed: int, purpose: str) -> int:
    """64 bits for one purpose of one run, from numpy's SeedSequence.

    Raises:
        ValueError: If the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more: choose a non-negative integer")
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])
    return int(sequence.generate_state(1, np.uint64)[0])


def seeded_generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose of one run.

    The initialisation, the task's directions and the training data of run 7 must not share their
    numbers, nor may run 7 and run 8. numpy's SeedSequence mixes seed and purpose so that none do.

    Args:
        seed: The run's seed, 0 or more.
        purpose: What the numbers are for, such as "initialisation"; another word is another stream.
        device: Where the numbers will be drawn. A CPU and a GPU draw different numbers from one seed.

    Raises:
        ValueError: If the seed is negative.
    """
    generator = torch.Generator(device=device)
    generator.manual_seed(seed_word(seed, purpose) >> 1)
    return generator
