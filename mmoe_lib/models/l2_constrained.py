"""Networks of their own, held together by a penalty on the distance of their weights (section 6.1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmoe_lib.models.baselines import SingleTask


class L2Constrained(SingleTask):
    """K networks of one shape, y_k = f(x; theta_k), whose parameters are drawn towards each other.

    The loss of a run is sum_k L(y_k, f(x; theta_k)) plus `penalty`, which training adds. Every pair of tasks is
    drawn together, so two tasks give the paper's formula. With alpha = 0 this is `SingleTask`.

    Source: section 6.1 of the paper, after Duong et al., "Low Resource Dependency Parsing", ACL 2015.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        bottom_widths: Units of the layers of each network.
        tower_widths: Hidden units of each network's last part.
        alpha: Strength of the pull, 0 or more.
        generator: Draws the initial weights.

    Raises:
        ValueError: If alpha is negative or not finite, or there is no task or a width of 0.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        bottom_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        alpha: float,
        generator: torch.Generator | None = None,
    ) -> None:
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(
                f"alpha is {alpha}, expected a number of 0 or more: a negative one pushes the networks apart"
            )
        super().__init__(num_inputs, num_tasks, bottom_widths, tower_widths, generator=generator)
        self.alpha = float(alpha)  # a number of numpy's would be a tensor to torch.compile

    def penalty(self, x: Tensor) -> Tensor:
        """What is added to the loss of a run, a scalar; it depends on the weights alone, not on the batch."""
        # alpha ||theta_1 - theta_2||^2, summed over all pairs of tasks
        thetas = [list(network.parameters()) for network in self.networks]
        distances = [
            (one - other).square().sum()
            for theta, phi in itertools.combinations(thetas, 2)
            for one, other in zip(theta, phi, strict=True)
        ]
        return self.alpha * sum(distances, start=next(self.parameters()).new_zeros(()))
