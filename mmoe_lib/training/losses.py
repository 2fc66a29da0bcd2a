"""Losses of one run: outputs and labels (B, K) to one mean loss a task, (K,)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of each task (synthetic tasks)."""
    return (outputs - labels).square().mean(dim=0)


def binary_cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each binary task; outputs are logits."""
    return F.binary_cross_entropy_with_logits(outputs, labels, reduction="none").mean(dim=0)
