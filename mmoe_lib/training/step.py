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
from mmoe_lib.training.optimisers import Optimiser, Schedule


class Step:
    """Loss, gradient and update of every run, in place.

    Args:
        ensemble: The runs.
        loss: Outputs and labels (B, K) to one loss a task (K,).
        learning_rates: One a run, (R,).
        optimiser: Adam or SGD.
        schedule: What the learning rates are multiplied with at each step; None leaves them as they are.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        loss: Loss,
        learning_rates: Tensor,
        optimiser: Optimiser,
        schedule: Schedule | None = None,
    ) -> None:
        self.ensemble, self.loss, self.optimiser, self.schedule = ensemble, loss, optimiser, schedule
        self.learning_rates = learning_rates
        self.kept = {
            name: tuple(torch.zeros_like(ensemble.parameters[name]) for _ in range(optimiser.buffers))
            for name in ensemble.trained
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

    def scales(self, step: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the update of step t multiplies with: a rate a run, the correction of the squares, and a decay a run.

        Args:
            step: t, a number, or a 0-dim float64 tensor on the runs' device, so that a captured graph can count.
        """
        first, second = self.optimiser.corrections(step)
        rates = self.learning_rates
        if self.schedule is not None:
            number = torch.as_tensor(step, dtype=torch.float64, device=rates.device)
            rates = rates * self.schedule(number).to(rates.dtype)
        kept = 1 - rates * self.optimiser.weight_decay
        if isinstance(second, Tensor):
            return rates * first, second.to(rates.dtype), kept
        return rates * first, torch.full((), second, dtype=rates.dtype, device=rates.device), kept

    def checked_update(
        self, x: Inputs, y: Tensor, rates: Tensor, correction: Tensor, kept: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The step itself, without Python numbers that change, and the sum of the batch: this is what is compiled."""
        losses = self.update(x, y, rates, correction, kept)
        return losses, torch.stack([part.sum().to(losses.dtype) for part in parts_of(x)]).sum()

    def update(self, x: Inputs, y: Tensor, rates: Tensor, correction: Tensor, kept: Tensor) -> Tensor:
        """The step itself; returns the losses before it, (R, K)."""
        gradients, losses = self.ensemble.gradients(self.loss, x, y)
        self.decay(kept)
        for name, gradient in gradients.items():
            self.optimiser.update(
                self.ensemble.parameters[name], gradient, self.kept[name], rates, correction
            )
        self.ensemble.move_on()
        return losses.detach()

    def decay(self, kept: Tensor) -> None:
        """Shrink the weights of each run to its share (R,) of them, in place."""
        if self.optimiser.weight_decay:
            for name in self.ensemble.trained:
                parameter = self.ensemble.parameters[name]
                parameter.mul_(kept.view(-1, *[1] * (parameter.dim() - 1)))


class BalancedStep(Step):
    """A step in which a balancer decides how much each task's gradient counts, in place.

    Args:
        ensemble: The runs.
        loss: Outputs and labels (B, K) to one loss a task (K,).
        learning_rates: One a run, (R,).
        optimiser: Adam or SGD.
        balancer: Turns losses and gradients into weights.
        schedule: As for `Step`.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        loss: Loss,
        learning_rates: Tensor,
        optimiser: Optimiser,
        balancer: Balancer,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(ensemble, loss, learning_rates, optimiser, schedule)
        self.balancer, self.own = balancer, own_parameters(ensemble.module(0))
        self.weigh: Weigh | None = None

    def update(self, x: Inputs, y: Tensor, rates: Tensor, correction: Tensor, kept: Tensor) -> Tensor:
        """The step itself; returns the losses before it, (R, K)."""
        gradients, losses = self.ensemble.task_gradients(self.loss, x, y)  # (R, K, ...), (R, K)
        if self.weigh is None:
            self.weigh = self.balancer.start(*losses.shape)
        weights = self.weigh(losses.detach(), gramian(gradients, self.own))  # (R, K)
        self.decay(kept)
        for name, rows in gradients.items():
            if not (self.balancer.shared_only and name in self.own):
                rows = rows * weights.view(*weights.shape, *[1] * (rows.dim() - 2))
            # g = sum_k lambda_k g_k
            parameter = self.ensemble.parameters[name]
            self.optimiser.update(parameter, rows.sum(dim=1), self.kept[name], rates, correction)
        self.ensemble.move_on()
        return losses.detach()
