"""The two models between which the paper's question lies: share nothing, or share the bottom."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmoe_lib.models.layers import FullyConnected, Tower, Towers, check_inputs, check_widths, inputs_of_tasks


class SingleTask(nn.Module):
    """K networks that share nothing: y_k = h_k(f_k(x)).

    One module holds all K so that it answers the same call as the others. With a loss that is a sum
    over tasks, no gradient passes between them: each trains as it would alone.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        bottom_widths: Units of the layers of each f_k.
        tower_widths: Hidden units of each h_k.
        generator: Draws the initial weights.

    Raises:
        ValueError: If there is no task or a width of 0.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        bottom_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_widths(num_tasks=num_tasks)
        self.num_inputs, self.num_tasks = num_inputs, num_tasks
        self.networks = nn.ModuleList()
        for _ in range(num_tasks):
            bottom = FullyConnected(num_inputs, bottom_widths, generator)
            self.networks.append(nn.Sequential(bottom, Tower(bottom.num_outputs, tower_widths, generator)))

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d), or (B, K, d) with one of each task's own, to outputs (B, K)."""
        inputs = inputs_of_tasks(x, self.num_inputs, self.num_tasks, next(self.parameters()))
        return torch.stack([network(own) for network, own in zip(self.networks, inputs, strict=True)], dim=-1)


class SharedBottom(nn.Module):
    """The Shared-Bottom model of section 3.1: y_k = h_k(f(x)) (equation 1).

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        bottom_widths: Units of the layers of f, shared by all tasks.
        tower_widths: Hidden units of each h_k.
        generator: Draws the initial weights.

    Raises:
        ValueError: If there is no task or a width of 0.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        bottom_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_inputs, self.num_tasks = num_inputs, num_tasks
        self.bottom = FullyConnected(num_inputs, bottom_widths, generator)
        self.towers = Towers(num_tasks, self.bottom.num_outputs, tower_widths, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        check_inputs(x, self.num_inputs, next(self.parameters()))
        shared = self.bottom(x)  # f(x): (B, h)
        # (1)  y_k = h_k(f(x))
        return self.towers(*[shared] * self.num_tasks)  # (B, K)
