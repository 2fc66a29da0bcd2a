"""Losses that weigh tasks, classes or examples."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from mmoe_lib.models import SharedBottom
from mmoe_lib.training import Ensemble, TrainingSettings, train
from mmoe_lib.training.losses import (
    Loss,
    binary_cross_entropy,
    class_balanced,
    focal,
    squared_error,
    weighted,
)


def _batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(50, 2, generator=generator) < 0.3).double()


@pytest.mark.parametrize(
    "loss", [squared_error, binary_cross_entropy, class_balanced((3.0, 1.0)), focal(1.0)]
)
def test_a_label_that_is_nan_is_a_row_less_for_that_task(loss: Loss) -> None:
    outputs, labels = _batch()
    outputs.requires_grad_()
    missing = torch.arange(50) % 3 == 0
    labels[missing, 1] = torch.nan
    losses = loss(outputs, labels)
    alone = outputs[~missing][:, [1, 1]], labels[~missing][:, [1, 1]]
    torch.testing.assert_close(losses[0], loss(outputs[:, [0, 0]], labels[:, [0, 0]])[0])
    torch.testing.assert_close(losses[1], loss(*alone)[1])
    (gradient,) = torch.autograd.grad(losses.sum(), outputs)
    assert gradient[missing, 1].abs().max() == 0
    assert (gradient[~missing, 1] != 0).all()
    assert loss(outputs, torch.full_like(labels, torch.nan)).tolist() == [0, 0]


def test_task_weights_multiply_the_losses() -> None:
    outputs, labels = _batch()
    expected = squared_error(outputs, labels) * torch.tensor([0.5, 4.0])
    torch.testing.assert_close(weighted(squared_error, (0.5, 4.0))(outputs, labels), expected)
    with pytest.raises(ValueError, match="expected finite numbers of 0 or more"):
        weighted(squared_error, (1.0, -1.0))


def test_a_positive_of_weight_three_counts_as_three() -> None:
    logits, labels = _batch()
    for task in (0, 1):
        positive = labels[:, task] > 0
        repeated = torch.cat([logits[:, task], logits[positive, task], logits[positive, task]])
        targets = torch.cat([labels[:, task], torch.ones(2 * int(positive.sum()), dtype=torch.float64)])
        whole = binary_cross_entropy(repeated[:, None], targets[:, None])[0] * len(repeated) / len(logits)
        torch.testing.assert_close(class_balanced((3.0, 3.0))(logits, labels)[task], whole)


def test_focal_loss_has_its_closed_form() -> None:
    logits, labels = _batch()
    torch.testing.assert_close(focal(0.0)(logits, labels), binary_cross_entropy(logits, labels))
    # at p = 1/2: (1/2)^2 log 2
    half = focal(2.0)(torch.zeros(4, 1, dtype=torch.float64), torch.tensor([[0.0], [1.0], [1.0], [0.0]]))
    assert float(half) == pytest.approx(0.25 * math.log(2))
    p = torch.sigmoid(logits)
    true = torch.where(labels > 0.5, p, 1 - p)
    torch.testing.assert_close(focal(1.5)(logits, labels), (-((1 - true) ** 1.5) * true.log()).mean(dim=0))
    with pytest.raises(ValueError, match="gamma is -1"):
        focal(-1.0)


@pytest.mark.parametrize("logit", [-200.0, -30.0, 0.0, 30.0, 200.0])
def test_focal_loss_has_a_finite_gradient_everywhere(logit: float) -> None:
    outputs = torch.full((2, 1), logit, requires_grad=True)
    loss = focal(2.0)(outputs, torch.tensor([[0.0], [1.0]])).sum()
    loss.backward()
    assert outputs.grad is not None
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(outputs.grad).all())


@pytest.mark.parametrize(
    "loss",
    [binary_cross_entropy, weighted(binary_cross_entropy, [1.0, 2.0]), class_balanced([3.0, 1.0]), focal()],
    ids=["plain", "weighted", "class-balanced", "focal"],
)
def test_losses_of_probabilities_refuse_another_number_for_a_missing_label(loss: Loss) -> None:
    ensemble = Ensemble(partial(SharedBottom, 3, 2, (4,)), (0,))
    x, y = torch.ones(8, 3), torch.zeros(8, 2)
    y[2, 1] = -1
    with pytest.raises(ValueError, match=r"labels lie outside of 0 to 1, such as -1"):
        train(ensemble, [(x, y)], loss, TrainingSettings(1), progress=False)


def test_a_loss_of_real_labels_takes_any() -> None:
    assert not hasattr(weighted(squared_error, [1.0, 2.0]), "label_range")
