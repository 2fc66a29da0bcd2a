"""Train all seeds of one model, from their first weights to their last."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from mmoe_lib.training.ensemble import Ensemble
from mmoe_lib.training.history import History
from mmoe_lib.training.loop import Evaluate, TrainingSettings, train
from mmoe_lib.training.losses import Loss

BatchesOn = Callable[[torch.device], Iterable[tuple[Tensor, Tensor]]]
"""The device to minibatches there, without end."""


def fit(
    build: Callable[..., nn.Module],
    seeds: Iterable[int],
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

    `build` and `seeds` are as for `Ensemble`, what follows is as for `train`; `batches` gives the minibatches once it
    is known on which device they are needed.

    Raises:
        DivergedError: As `train`.
        ValueError: What `Ensemble` and `train` refuse.
    """
    ensemble = Ensemble(build, seeds, device=device)
    minibatches = batches(ensemble.device)
    return ensemble, train(ensemble, minibatches, loss, settings, evaluate, progress=progress, label=label)
