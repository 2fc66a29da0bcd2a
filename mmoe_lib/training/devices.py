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


CPU_ROWS_A_SECOND = 600_000
"""Rows that one core trains a section 5.1 model on, compiled and in an ensemble (the book's benchmark `training`)."""
GPU_START, GPU_STEP = 15.0, 1.5e-3
"""Seconds before the first step on a GPU, and of a step replayed from a graph that was not compiled, for any number of
runs up to some hundred: chapter 1 with the laptop preset on an H100, other work beside it."""


def faster_device(
    device: torch.device | str, *, runs: int, batch_size: int, steps: int, num_inputs: int = 100
) -> torch.device:
    """The device of that name; "auto" is a GPU only where it is likely to be done sooner than one core of the CPU.

    A GPU takes as long for one run as for a hundred, and more than a CPU for one: it is for many runs, or large
    batches, and many steps. The estimates, rows / 600,000 s on a CPU and 15 s + steps x 1.5 ms on a GPU, are of models
    as small as the paper's.

    Args:
        device: "cpu", "cuda" or another that torch knows, or "auto".
        runs: Trained together.
        batch_size: Rows of a minibatch of each.
        steps: Minibatches.
        num_inputs: Width of a row; the estimate for a CPU grows with it.

    Raises:
        ValueError: If torch knows no such device, or it is not there.
    """
    if device != "auto":
        return checked_device(device)
    on_cpu = runs * batch_size * steps * (num_inputs / 100) / CPU_ROWS_A_SECOND
    if not torch.cuda.is_available() or on_cpu < GPU_START + steps * GPU_STEP:
        return torch.device("cpu")
    return torch.device("cuda")


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
