"""One update of every run."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from mmoe_lib.models.embeddings import Inputs
from mmoe_lib.training.balancing import Balancer, Weigh, gramian, own_parameters
from mmoe_lib.training.batches import parts_of
from mmoe_lib.training.ensemble import Ensemble
from mmoe_lib.training.losses import Loss
from mmoe_lib.training.optimisers import Optimiser


class Step:
    """Loss, gradient and update of every run, in place.

    Args:
        ensemble: The runs.
        loss: Outputs and labels (B, K) to one loss a task (K,).
        learning_rates: One a run, (R,).
        optimiser: Adam or SGD.
    """

    def __init__(self, ensemble: Ensemble, loss: Loss, learning_rates: Tensor, optimiser: Optimiser) -> None:
        self.ensemble, self.loss, self.optimiser = ensemble, loss, optimiser
        self.learning_rates = learning_rates
        self.kept = {
            name: tuple(torch.zeros_like(value) for _ in range(optimiser.buffers))
            for name, value in ensemble.parameters.items()
        }

    def part(self, start: int, stop: int) -> Step:
        """The step of the runs from start to stop - 1, on the same memory."""
        part = copy.copy(self)
        part.ensemble = self.ensemble.part(start, stop)
        part.learning_rates = self.learning_rates[start:stop]
        part.kept = {name: tuple(one[start:stop] for one in kept) for name, kept in self.kept.items()}
        return part

    def __call__(self, x: Inputs, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Move every run by one step; returns its losses before it, (R, K), and the sum of the inputs.

        The sum is not finite where an input is not: a cheap look at every number of the batch. Labels are the loss's
        matter, which may leave out those that are NaN.
        """
        return self.checked_update(x, y, *self.scales(step))

    def scales(self, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """What the update of step t multiplies with: a rate a run (R,), and the correction of the squares.

        Args:
            step: t, a number, or a 0-dim float64 tensor on the runs' device, so that a captured graph can count.
        """
        first, second = self.optimiser.corrections(step)
        rates = self.learning_rates
        if isinstance(second, Tensor):
            return rates * first, second.to(rates.dtype)
        return rates * first, torch.full((), second, dtype=rates.dtype, device=rates.device)

    def checked_update(
        self, x: Inputs, y: Tensor, rates: Tensor, correction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The step itself, without Python numbers that change, and the sum of the batch: this is what is compiled."""
        losses = self.update(x, y, rates, correction)
        return losses, torch.stack([part.sum().to(losses.dtype) for part in parts_of(x)]).sum()

    def update(self, x: Inputs, y: Tensor, rates: Tensor, correction: Tensor) -> Tensor:
        """The step itself; returns the losses before it, (R, K)."""
        gradients, losses = self.ensemble.gradients(self.loss, x, y)
        for name, parameter in self.ensemble.parameters.items():
            self.optimiser.update(parameter, gradients[name], self.kept[name], rates, correction)
        self.ensemble.move_on()
        return losses.detach()


class BalancedStep(Step):
    """A step in which a balancer decides how much each task's gradient counts, in place.

    Args:
        ensemble: The runs.
        loss: Outputs and labels (B, K) to one loss a task (K,).
        learning_rates: One a run, (R,).
        optimiser: Adam or SGD.
        balancer: Turns losses and gradients into weights.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        loss: Loss,
        learning_rates: Tensor,
        optimiser: Optimiser,
        balancer: Balancer,
    ) -> None:
        super().__init__(ensemble, loss, learning_rates, optimiser)
        self.balancer, self.own = balancer, own_parameters(ensemble.module(0))
        self.weigh: Weigh | None = None

    def update(self, x: Inputs, y: Tensor, rates: Tensor, correction: Tensor) -> Tensor:
        """The step itself; returns the losses before it, (R, K)."""
        gradients, losses = self.ensemble.task_gradients(self.loss, x, y)  # (R, K, ...), (R, K)
        if self.weigh is None:
            self.weigh = self.balancer.start(*losses.shape)
        weights = self.weigh(losses.detach(), gramian(gradients, self.own))  # (R, K)
        for name, parameter in self.ensemble.parameters.items():
            rows = gradients[name]
            if not (self.balancer.shared_only and name in self.own):
                rows = rows * weights.view(*weights.shape, *[1] * (rows.dim() - 2))
            # g = sum_k lambda_k g_k
            self.optimiser.update(parameter, rows.sum(dim=1), self.kept[name], rates, correction)
        self.ensemble.move_on()
        return losses.detach()
