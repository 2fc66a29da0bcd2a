"""Adam on stacked parameters: elementwise, so one update is the update of every run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015), algorithm 1, with PyTorch's defaults.

    Attributes:
        beta1: Decay of the running mean of gradients.
        beta2: Decay of the running mean of squared gradients.
        epsilon: Added to the denominator.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def corrections(self, step: int) -> tuple[float, float]:
        """The factors 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) of step t = 1, 2, ..."""
        return 1 / (1 - self.beta1**step), 1 / math.sqrt(1 - self.beta2**step)

    def update(
        self,
        parameter: Tensor,
        gradient: Tensor,
        mean: Tensor,
        square: Tensor,
        rates: Tensor,
        correction: Tensor,
    ) -> None:
        """Move one stacked parameter (R, ...) of every run, and its two running means, in place.

        Args:
            parameter: theta, (R, ...).
            gradient: The gradient of each run's own loss, (R, ...).
            mean: m, (R, ...).
            square: v, (R, ...).
            rates: Learning rate of each run times the first of `corrections(t)`, (R,).
            correction: The second of them, a tensor so that a compiled step is not compiled anew each time.
        """
        rates = rates.view(-1, *[1] * (parameter.dim() - 1))
        # m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g^2
        mean.lerp_(gradient, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        # theta <- theta - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
        # Whatever is the same for all elements was divided before: a division a number costs more than all else.
        parameter.sub_(rates * mean / (torch.sqrt(square) * correction + self.epsilon))
