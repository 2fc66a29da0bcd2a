"""Measures of many runs at once that only the studies report: how sure an AUC is, R2, how polarised gates are."""

from __future__ import annotations

import torch
from torch import Tensor

from mmoe_lib.metrics import auc, gate_use


def auc_standard_error(scores: Tensor, labels: Tensor) -> Tensor:
    """Standard error of the AUC of each run, over samples of rows: DeLong, DeLong & Clarke-Pearson (1988).

    It says how far the AUC would move with another test set of the same size drawn from the same rows, the
    model left as it is; rows count as independent, so where a user has many rows it is a little too small. The
    AUC is a mean over positives of the share of negatives below them, and likewise over negatives. With
    variances s+ and s- of these shares over n+ positives and n- negatives (both divided by n - 1), the
    squared error is s+ / n+ + s- / n-.

    Args:
        scores: One row a run, (..., N): logits or probabilities, higher meaning more likely 1.
        labels: 0 or 1, (N,), shared by all runs, at least two of each.

    Returns:
        Standard error of each run's AUC, (...), float64, in the AUC's own units (0 to 1).

    Raises:
        ValueError: What `auc` refuses, and a class with a single row, whose share has no variance.
    """
    auc(scores, labels)  # refuses what has no AUC
    positive = labels == 1
    fewest = min(int(positive.sum()), int((~positive).sum()))
    if fewest < 2:
        raise ValueError(
            f"labels hold {fewest} row of one class, expected at least 2: the standard error needs their variance"
        )
    positives = scores[..., positive].contiguous().sort(dim=-1).values
    negatives = scores[..., ~positive].contiguous().sort(dim=-1).values
    of_positives = _share_below(negatives, positives).var(dim=-1) / positives.shape[-1]
    of_negatives = _share_below(positives, negatives).var(dim=-1) / negatives.shape[-1]
    return (of_positives + of_negatives).sqrt()


def _share_below(ordered: Tensor, values: Tensor) -> Tensor:
    """For each value the share of `ordered` (ascending) that lies below it, ties half, float64."""
    below = torch.searchsorted(ordered, values, side="left")
    below_or_level = torch.searchsorted(ordered, values, side="right")
    return (below + below_or_level).double() / (2 * ordered.shape[-1])


def r_squared(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Share of the labels' variance that the predicted probabilities of each run explain.

    R2 = 1 - sum (label - probability)^2 / sum (label - mean label)^2: 0 for predicting the mean label of
    these rows, 1 for knowing every label, negative for what is worse than the mean.

    Args:
        probabilities: One row a run, (..., N), between 0 and 1; logits are refused.
        labels: 0 or 1, (N,), shared by all runs.

    Returns:
        R2 of each run, (...), float64.

    Raises:
        ValueError: If labels are not 0 or 1, of one class only, or of another length than the probabilities,
            or if a probability is NaN or leaves 0 to 1.
    """
    if labels.dim() != 1 or probabilities.shape[-1] != labels.shape[0]:
        raise ValueError(
            f"probabilities have shape {tuple(probabilities.shape)} and labels {tuple(labels.shape)}, "
            "expected (..., N) and (N,)"
        )
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError("labels hold values other than 0 and 1, expected only these: binarise them first")
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise ValueError(
            "probabilities hold NaN or values outside 0 to 1, expected probabilities: apply the sigmoid to logits"
        )
    targets = labels.double()
    around_mean = (targets - targets.mean()).square().sum()
    if float(around_mean) == 0:
        raise ValueError("labels hold one class only, expected some of both: R2 divides by their variance")
    residual = (targets - probabilities.double()).square().sum(dim=-1)
    return 1 - residual / around_mean


GATE_MEASURES = ("gate_entropy", "gate_largest", "experts_used", "gate_distance")
"""What `polarisation` gives."""


def polarisation(weights: Tensor) -> dict[str, Tensor]:
    """How polarised the gates of each run are, from gate weights (R, N, K, n): `GATE_MEASURES`, each (R,).

    gate_entropy is the mean entropy of a gate over that of a uniform one; gate_largest the mean over tasks of the
    largest of a gate's mean weights; experts_used how many experts any gate gives a hundredth or more on the mean;
    gate_distance the mean total variation between the gates of the first two tasks.
    """
    use = gate_use(weights)
    # H(g) / log n
    uniform = torch.log(torch.tensor(float(weights.shape[-1])))
    entropy = torch.special.entr(weights).sum(dim=-1).mean(dim=(1, 2)) / uniform
    largest = use.means.amax(dim=-1).mean(dim=1)
    used = (use.means.amax(dim=1) >= 0.01).sum(dim=-1).float()
    return dict(zip(GATE_MEASURES, (entropy, largest, used, use.distance), strict=True))


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision of each run: the mean over positives of the precision among rows scored as high or higher.

    AP = sum_n (R_n - R_(n-1)) P_n over the distinct thresholds n, without interpolation, as scikit-learn has it.

    Args:
        scores: One row a run, (..., N): logits or probabilities, higher meaning more likely 1.
        labels: 0 or 1, (N,), shared by all runs.

    Returns:
        (...), float64.

    Raises:
        ValueError: What `auc` refuses.
    """
    auc(scores, labels)  # refuses what has no order
    ordered, order = scores.sort(dim=-1, descending=True)
    hits = (labels == 1).double()[order].cumsum(dim=-1)  # positives among the n highest
    ranks = torch.arange(1, scores.shape[-1] + 1, dtype=torch.float64, device=scores.device)
    # Rows of equal scores are one threshold, which stands at the last of them.
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[..., :-1] = ordered[..., :-1] != ordered[..., 1:]
    precision = hits / ranks
    reached = torch.where(last, hits, torch.zeros_like(hits))
    before = torch.cat([torch.zeros_like(reached[..., :1]), reached.cummax(dim=-1).values[..., :-1]], dim=-1)
    return (torch.where(last, hits - before, torch.zeros_like(hits)) * precision).sum(dim=-1) / hits[..., -1]


def log_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of each run: -[y log s(z) + (1 - y) log(1 - s(z))], s the sigmoid.

    Args:
        logits: One row a run, (..., N).
        labels: 0 or 1, (N,), shared by all runs.

    Returns:
        (...), float64.
    """
    logits = logits.double()
    return torch.nn.functional.binary_cross_entropy_with_logits(
        logits, labels.double().expand_as(logits), reduction="none"
    ).mean(dim=-1)
