"""Metrics of many runs at once, computed where the scores lie: of predictions, and of what gates do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def auc(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Area under the ROC curve of each run: P(score of a positive > score of a negative), ties half.

    Args:
        scores: One row a run, (..., N): logits or probabilities, higher meaning more likely 1.
        labels: 0 or 1, (N,), shared by all runs; rows whose label is NaN are left out.
        weights: Of the rows, (N,), 0 or more: a pair counts by the product of its two weights. None for 1 each.

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
    known = ~labels.isnan()
    if weights is not None:
        known &= weights > 0
        weights = weights[known].double()
    scores, labels = scores[..., known], labels[known]
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
    negatives, order = scores[..., ~positive].contiguous().sort(dim=-1)
    positives = scores[..., positive].contiguous()
    # For each positive: how many negatives lie below it, and how many below it or level with it.
    below = torch.searchsorted(negatives, positives, side="left")
    below_or_level = torch.searchsorted(negatives, positives, side="right")
    if weights is not None:
        # Summed weights instead of numbers: those of the first 0, 1, ... negatives from below.
        of_negatives = weights[~positive][order].cumsum(dim=-1)
        summed = torch.nn.functional.pad(of_negatives, (1, 0))
        halves = (summed.gather(-1, below) + summed.gather(-1, below_or_level)) / 2
        of_positives = weights[positive]
        return (halves * of_positives).sum(dim=-1) / (of_positives.sum() * of_negatives[..., -1])
    # sum over pairs of [s+ > s-] + [s+ = s-] / 2, exact in integers
    pairs = (below + below_or_level).sum(dim=-1).double() / 2
    return pairs / (num_positive * num_negative)


def accuracy(probabilities: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The share of rows whose most likely class is the right one, of each run.

    Args:
        probabilities: Of C classes, (..., N, C).
        labels: Classes 0 to C - 1, (N,); rows whose label is NaN are left out.
        weights: Of the rows, (N,); None for 1 each.

    Returns:
        (...), float64; NaN where no row has a label.
    """
    known = ~labels.isnan()
    right = probabilities[..., known, :].argmax(dim=-1) == labels[known]
    return _mean(right.double(), None if weights is None else weights[known])


def log_loss(probabilities: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Minus the mean logarithm of the probability of the right class, in nats; arguments and result as `accuracy`.

    A probability of 0 counts as the smallest that its type can tell from 1, as in scikit-learn.
    """
    known = ~labels.isnan()
    least = torch.finfo(probabilities.dtype).eps
    index = labels[known].long()[:, None].expand(*probabilities.shape[:-2], -1, 1)
    right = probabilities[..., known, :].gather(-1, index).squeeze(-1)
    return _mean(-right.double().clamp(least, 1.0).log(), None if weights is None else weights[known])


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Of values (..., N) with weights (N,)."""
    if weights is None:
        return values.mean(dim=-1)
    return (values * weights).sum(dim=-1) / weights.sum()


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
