"""Adam and plain SGD on stacked parameters: elementwise, so one update is the update of every run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class Optimiser(Protocol):
    """What a training step needs to know of an optimiser.

    Attributes:
        buffers: How many tensors of the parameter's shape it keeps for each.
    """

    buffers: ClassVar[int]

    def corrections(self, step: int | Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Factors of step t = 1, 2, ...: of the learning rate, and what `update` gets as its correction.

        A step that is a tensor, 0-dim float64, gives such tensors where the factors depend on it.
        """
        ...

    def update(
        self, parameter: Tensor, gradient: Tensor, kept: tuple[Tensor, ...], rates: Tensor, correction: Tensor
    ) -> None:
        """Move one stacked parameter (R, ...) of every run, and what is kept for it, in place."""
        ...


@dataclass(frozen=True)
class SGD:
    """Plain stochastic gradient descent, as section 6.4 states it: theta <- theta - rate g."""

    buffers: ClassVar[int] = 0

    def corrections(self, step: int | Tensor) -> tuple[float | Tensor, float | Tensor]:
        """1 and 1: nothing changes from step to step."""
        return 1.0, 1.0

    def update(
        self, parameter: Tensor, gradient: Tensor, kept: tuple[Tensor, ...], rates: Tensor, correction: Tensor
    ) -> None:
        """Move one stacked parameter (R, ...) of every run by its gradient (R, ...), in place; rates are (R,)."""
        # theta <- theta - rate g
        parameter.sub_(rates.view(-1, *[1] * (parameter.dim() - 1)) * gradient)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015), algorithm 1, with PyTorch's defaults.

    Attributes:
        beta1: Decay of the running mean of gradients.
        beta2: Decay of the running mean of squared gradients.
        epsilon: Added to the denominator.
        weight_decay: Times each weight, added to its gradient, as torch.optim.Adam does; 0 for none.
    """

    buffers: ClassVar[int] = 2

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def corrections(self, step: int | Tensor) -> tuple[float | Tensor, float | Tensor]:
        """The factors 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) of step t = 1, 2, ..."""
        if isinstance(step, Tensor):
            return 1 / (1 - self.beta1**step), 1 / torch.sqrt(1 - self.beta2**step)
        return 1 / (1 - self.beta1**step), 1 / math.sqrt(1 - self.beta2**step)

    def update(
        self, parameter: Tensor, gradient: Tensor, kept: tuple[Tensor, ...], rates: Tensor, correction: Tensor
    ) -> None:
        """Move one stacked parameter (R, ...) of every run, and its two running means, in place.

        Args:
            parameter: theta, (R, ...).
            gradient: The gradient of each run's own loss, (R, ...).
            kept: m and v, each (R, ...).
            rates: Learning rate of each run times the first of `corrections(t)`, (R,).
            correction: The second of them, a tensor so that a compiled step is not compiled anew each time.
        """
        mean, square = kept
        rates = rates.view(-1, *[1] * (parameter.dim() - 1))
        # g <- g + decay theta
        if self.weight_decay:
            gradient = gradient.add(parameter, alpha=self.weight_decay)
        # m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g^2
        mean.lerp_(gradient, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        # theta <- theta - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
        # Whatever is the same for all elements was divided before: a division a number costs more than all else.
        parameter.sub_(rates * mean / (torch.sqrt(square) * correction + self.epsilon))
