"""Train all seeds of one model, from their first weights to their last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmoe_lib.training.ensemble import Ensemble
from mmoe_lib.training.history import History
from mmoe_lib.training.loop import Evaluate, TrainingSettings, train
from mmoe_lib.training.losses import Loss

BatchesOn = Callable[[torch.device], Iterable[tuple[Any, Tensor]]]
"""The device to minibatches there, without end."""


def fit(
    build: Callable[..., nn.Module],
    seeds: Sequence[int],
    batches: BatchesOn,
    loss: Loss,
    settings: TrainingSettings,
    evaluate: Evaluate | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
    label: str = "training",
) -> tuple[Ensemble, History]:
    """Make an ensemble of one model and train all of its runs together, as `train` does.

    Args:
        build: Makes the model of one run, as for `Ensemble`.
        seeds: One a run.
        batches: Gives the minibatches once it is known where they are needed.
        loss: Outputs and labels (B, K) to one loss a task (K,).
        settings: How long, how fast, when to stop.
        evaluate: Computes the metrics; needed when `settings.evaluate_every` is not 0.
        device: Where to train.
        progress: Show a progress bar.
        label: What the bar says.

    Raises:
        DivergedError: As `train`; its `ensemble` holds the state that is kept.
        ValueError: What `Ensemble` and `train` refuse.
    """
    ensemble = Ensemble(build, seeds, device=device)
    minibatches = batches(ensemble.device)
    return ensemble, train(ensemble, minibatches, loss, settings, evaluate, progress=progress, label=label)
