"""Where to train: a device that is there, the one that is likely faster, and what is said when its memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class DeviceMemoryError(RuntimeError):
    """The runs that were to be trained at once do not fit into the GPU's memory."""


def checked_device(device: torch.device | str) -> torch.device:
    """The device of that name ("auto": a GPU when there is one).

    Raises:
        ValueError: If torch knows no such device, or it is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        checked = torch.device(device)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device is {str(device)!r}, expected one that this machine has: use 'cpu' ({reason})"
        ) from error
    return checked


@contextmanager
def within_memory(runs: int) -> Iterator[None]:
    """Turns torch's page about memory that is full into a line that names fewer runs.

    Raises:
        DeviceMemoryError: Instead of torch's error.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        fewer = (
            f"fewer: train them in chunks of {runs // 2} or less"
            if runs > 1
            else "less: take smaller batches"
        )
        raise DeviceMemoryError(
            f"{runs} runs at once need more memory than the GPU has free, expected {fewer}"
        ) from error
