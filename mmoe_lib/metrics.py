"""Metrics of many runs at once, computed where the scores lie: of predictions, and of what gates do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def auc(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under the ROC curve of each run: P(score of a positive > score of a negative), ties half.

    Args:
        scores: One row a run, (..., N): logits or probabilities, higher meaning more likely 1.
        labels: 0 or 1, (N,), shared by all runs.

    Returns:
        AUC of each run, (...), float64.

    Raises:
        ValueError: If labels are not 0 or 1, of one class only, or of another length than the scores,
            or if a score is not finite.
    """
    if labels.dim() != 1 or scores.shape[-1] != labels.shape[0]:
        raise ValueError(
            f"scores have shape {tuple(scores.shape)} and labels {tuple(labels.shape)}, expected (..., N) and (N,)"
        )
    positive = labels == 1
    if not bool((positive | (labels == 0)).all()):
        raise ValueError("labels hold values other than 0 and 1, expected only these: binarise them first")
    num_positive = int(positive.sum())
    num_negative = len(labels) - num_positive
    if num_positive == 0 or num_negative == 0:
        raise ValueError(
            f"labels hold {num_positive} ones and {num_negative} zeros, expected some of both: AUC compares them"
        )
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("scores hold NaN or infinity, expected finite numbers: the model has diverged")
    negatives = scores[..., ~positive].contiguous().sort(dim=-1).values
    positives = scores[..., positive].contiguous()
    # For each positive: how many negatives lie below it, and how many below it or level with it.
    below = torch.searchsorted(negatives, positives, side="left")
    below_or_level = torch.searchsorted(negatives, positives, side="right")
    # sum over pairs of [s+ > s-] + [s+ = s-] / 2, exact in integers
    pairs = (below + below_or_level).sum(dim=-1).double() / 2
    return pairs / (num_positive * num_negative)


@dataclass(frozen=True)
class GateUse:
    """What the gates of R runs do, on the mean over rows.

    Attributes:
        means: The mean weight of each expert for each task, (R, K, n).
        distance: How differently the first two tasks mix, the mean total variation between their gates, (R,).
        entropy: The mean entropy of each task's gate in nats, (R, K): log n for a uniform one, 0 for a gate that
            always picks one expert.
    """

    means: Tensor
    distance: Tensor
    entropy: Tensor


def gate_use(weights: Tensor) -> GateUse:
    """What the gates do, from gate weights (R, N, K, n) of N rows, K >= 2."""
    # total variation: half the sum of absolute differences
    distance = (weights[:, :, 0] - weights[:, :, 1]).abs().sum(dim=-1).mean(dim=1) / 2
    # H(g) = - sum_i g_i log g_i
    entropy = torch.special.entr(weights).sum(dim=-1).mean(dim=1)
    return GateUse(weights.mean(dim=1), distance, entropy)
