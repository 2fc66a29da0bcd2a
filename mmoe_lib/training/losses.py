"""Losses of one run: outputs and labels (B, K) to one mean loss a task, (K,)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of each task (synthetic tasks)."""
    return (outputs - labels).square().mean(dim=0)


def binary_cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each binary task; outputs are logits."""
    return F.binary_cross_entropy_with_logits(outputs, labels, reduction="none").mean(dim=0)


def weighted(loss: Loss, weights: Sequence[float]) -> Loss:
    """The same loss with a fixed weight a task: sum_k w_k L_k is then what is minimised.

    Raises:
        ValueError: If a weight is negative or not finite.
    """
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"weights are {tuple(weights)}, expected finite numbers of 0 or more, one a task")
    given = tuple(float(weight) for weight in weights)

    def of_tasks(outputs: Tensor, labels: Tensor) -> Tensor:
        return loss(outputs, labels) * outputs.new_tensor(given)

    return of_tasks


def class_balanced(positive_weights: Sequence[float]) -> Loss:
    """Cross-entropy in which a positive label counts w_k times: -(w_k y log p + (1 - y) log(1 - p)).

    Args:
        positive_weights: w_k, one a task; the number of negatives over that of positives makes both classes count
            alike.
    """
    given = tuple(float(weight) for weight in positive_weights)

    def of_tasks(outputs: Tensor, labels: Tensor) -> Tensor:
        weights = outputs.new_tensor(given)
        return F.binary_cross_entropy_with_logits(outputs, labels, pos_weight=weights, reduction="none").mean(
            dim=0
        )

    return of_tasks


def focal(gamma: float = 2.0) -> Loss:
    """Focal loss, -(1 - p_t)^gamma log p_t, p_t the probability of the true class (Lin et al., ICCV 2017), equation 4.

    Args:
        gamma: 0 gives cross-entropy; the larger, the less an example counts that is predicted well.

    Raises:
        ValueError: If gamma is negative.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}, expected 0 or more: a negative one rewards good examples most")

    def of_tasks(outputs: Tensor, labels: Tensor) -> Tensor:
        # log p_t = log sigmoid(z) for a positive, log sigmoid(-z) for a negative
        log_p = F.logsigmoid(torch.where(labels > 0.5, outputs, -outputs))  # (B, K)
        # 1 - p_t = sigmoid of the opposite sign; through its logarithm, whose gradient is finite where it is 0
        log_rest = F.logsigmoid(torch.where(labels > 0.5, -outputs, outputs))
        return -(torch.exp(gamma * log_rest) * log_p).mean(dim=0)

    return of_tasks
