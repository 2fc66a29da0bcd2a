"""Adam and plain SGD on stacked parameters: elementwise, so one update is the update of every run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

Schedule = Callable[[Tensor], Tensor]
"""The number t = 1, 2, ... of a step, 0-dim float64, to what all learning rates are multiplied with at it."""


def cosine(steps: int, *, warm_up: int = 0, last: float = 0.0) -> Schedule:
    """A schedule that rises evenly to 1 over the first steps and then falls to its last value along half a cosine.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, one period of it.

    Args:
        steps: T, all of them; later ones keep the last value.
        warm_up: W, how many of them rise: step t has t / W.
        last: What step T has, 0 to 1.

    Raises:
        ValueError: If the warm-up leaves no step, or `last` is out of range.
    """
    if not 0 <= warm_up < steps:
        raise ValueError(f"warm_up is {warm_up} of {steps} steps, expected 0 or more, and fewer than all")
    if not 0 <= last <= 1:
        raise ValueError(f"last is {last}, expected 0 to 1: a share of the learning rate")

    def at(step: Tensor) -> Tensor:
        done = ((step - warm_up) / (steps - warm_up)).clamp(0, 1)
        falling = last + (1 - last) * (1 + torch.cos(math.pi * done)) / 2
        return torch.where(step < warm_up, step / max(1, warm_up), falling)

    return at


class Optimiser(Protocol):
    """What a training step needs to know of an optimiser.

    Attributes:
        buffers: How many tensors of the parameter's shape it keeps for each.
        weight_decay: By how much of its rate a step shrinks the weights before it moves them.
    """

    buffers: ClassVar[int]

    @property
    def weight_decay(self) -> float:
        """See above."""
        ...

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


def _check_decay(weight_decay: float) -> None:
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(
            f"weight_decay is {weight_decay}, expected 0 or more: a negative one lets weights grow"
        )


@dataclass(frozen=True)
class SGD:
    """Plain stochastic gradient descent, as section 6.4 states it: theta <- theta - rate g.

    Attributes:
        weight_decay: Shrinks every weight by rate times this at each step; 0 leaves it out.

    Raises:
        ValueError: If it is negative or not finite.
    """

    buffers: ClassVar[int] = 0

    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_decay(self.weight_decay)

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
        weight_decay: Shrinks every weight by rate times this at each step, apart from the gradient (Loshchilov and
            Hutter, "Decoupled Weight Decay Regularization", ICLR 2019): AdamW; 0 leaves it out.

    Raises:
        ValueError: If weight_decay is negative or not finite.
    """

    buffers: ClassVar[int] = 2

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_decay(self.weight_decay)

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
        # m <- beta1 m + (1 - beta1) g;   v <- beta2 v + (1 - beta2) g^2
        mean.lerp_(gradient, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        # theta <- theta - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
        # Whatever is the same for all elements was divided before: a division a number costs more than all else.
        parameter.sub_(rates * mean / (torch.sqrt(square) * correction + self.epsilon))
