"""Losses of one run: outputs and labels (B, K) to one mean loss a task, (K,).

A label that is NaN is missing: its row does not count for that task, and does for the others.

A loss may join tasks. Of a purchase that can only follow a click, ESMM (Ma et al., SIGIR 2018, doi
10.1145/3209978.3210104, equations 1 to 3) trains the chance of a click and its product with the chance of a purchase
given a click, both known for every row, so that the second holds for rows without a click too:

>>> from functools import partial
>>> import torch
>>> from mmoe_lib.models import MMoE
>>> from mmoe_lib.training import Ensemble, TrainingSettings, epochs, train
>>> def entire_space(outputs, labels):  # logits of click and of purchase given click; labels click, click and purchase
...     chances = torch.sigmoid(outputs)
...     both = torch.stack([chances[:, 0], chances.prod(dim=1)], dim=1)
...     return torch.nn.functional.binary_cross_entropy(both, labels, reduction="none").mean(dim=0)
>>> generator = torch.Generator().manual_seed(0)
>>> x = torch.randn(2000, 2, generator=generator)
>>> click, wants = (x + torch.randn(2000, 2, generator=generator) > 0).unbind(dim=1)
>>> y = torch.stack([click, click & wants], dim=1).float()
>>> runs = Ensemble(partial(MMoE, 2, num_tasks=2, num_experts=2, expert_widths=(8,)), seeds=[0])
>>> settings = TrainingSettings(steps=200, learning_rate=0.01)
>>> _ = train(runs, epochs(x, y, 100), entire_space, settings, progress=False)
>>> given_click = torch.sigmoid(runs.predict(x)[0, :, 1])  # of all rows, of which half were clicked
>>> bool(abs(given_click.mean() - wants.float().mean()) < 0.03)
True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def mean_of_known(losses: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over the rows that have a label, 0 for a task that has none in the batch.

    Args:
        losses: Of each row and task, (B, K), finite where a label is missing too.
        labels: (B, K), NaN where missing.
        weights: Of the rows, (B,): sum w l / n over the n rows with a label; None for 1 each.
    """
    known = ~labels.isnan()
    losses = losses if weights is None else losses * weights[:, None]
    return torch.where(known, losses, 0.0).sum(dim=0) / known.sum(dim=0).clamp_min(1)


def squared_errors(outputs: Tensor, labels: Tensor) -> Tensor:
    """The squared error of each row and task, (B, K); 0 where the label is missing."""
    return torch.where(labels.isnan(), 0.0, outputs - labels).square()


def cross_entropies(outputs: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each row and binary task, (B, K); with label 0 where it is missing."""
    return F.binary_cross_entropy_with_logits(outputs, labels.nan_to_num(), reduction="none")


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of each task (synthetic tasks)."""
    return mean_of_known(squared_errors(outputs, labels), labels)


def binary_cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each binary task; outputs are logits."""
    return mean_of_known(cross_entropies(outputs, labels), labels)


def _of_labels(loss: Loss, label_range: tuple[float, float] | None) -> Loss:
    """The loss itself, which says which labels it takes: training refuses others."""
    if label_range is not None:
        loss.label_range = label_range  # type: ignore[attr-defined]
    return loss


_of_labels(binary_cross_entropy, (0.0, 1.0))


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

    return _of_labels(of_tasks, getattr(loss, "label_range", None))


def class_balanced(positive_weights: Sequence[float]) -> Loss:
    """Cross-entropy in which a positive label counts w_k times: -(w_k y log p + (1 - y) log(1 - p)).

    Args:
        positive_weights: w_k, one a task; the number of negatives over that of positives makes both classes count
            alike.
    """
    given = tuple(float(weight) for weight in positive_weights)

    def of_tasks(outputs: Tensor, labels: Tensor) -> Tensor:
        weights, known = outputs.new_tensor(given), labels.nan_to_num()
        losses = F.binary_cross_entropy_with_logits(outputs, known, pos_weight=weights, reduction="none")
        return mean_of_known(losses, labels)

    return _of_labels(of_tasks, (0.0, 1.0))


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
        return mean_of_known(-torch.exp(gamma * log_rest) * log_p, labels)

    return _of_labels(of_tasks, (0.0, 1.0))
