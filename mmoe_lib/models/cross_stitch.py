"""Networks of their own that exchange activations after every hidden layer (section 6.1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmoe_lib.models.layers import Towers, check_widths, inputs_of_tasks, linear


class CrossStitchUnit(nn.Module):
    """A trainable K x K matrix of scalars that mixes the activations of K networks.

    Args:
        num_tasks: K.
        own: What each network keeps of its own activations at the start; the rest comes in equal parts from the
            others. 1 starts with networks that do not exchange anything.

    Raises:
        ValueError: If `own` is not finite.
    """

    def __init__(self, num_tasks: int, own: float = 0.9) -> None:
        super().__init__()
        if not math.isfinite(own):
            raise ValueError(f"own is {own}, expected a finite number such as 0.9")
        if num_tasks == 1:
            own = 1.0  # there is no other network to take the rest from
        other = (1 - own) / max(1, num_tasks - 1)
        self.alpha = nn.Parameter(torch.full((num_tasks, num_tasks), other).fill_diagonal_(own))

    def forward(self, activations: Tensor) -> Tensor:
        """Map activations (B, K, h) to mixed activations (B, K, h)."""
        # [x~_1; x~_2] = [[a_11, a_12], [a_21, a_22]] [x_1; x_2]
        return self.alpha @ activations


class CrossStitch(nn.Module):
    """K networks of one shape with a cross-stitch unit after every layer of their bottoms.

    The unit's output feeds the next layer, so with one bottom layer and towers of one hidden layer it stands
    between two hidden layers, as in the paper. With identity matrices that are not trained this is `SingleTask`.

    Source: section 6.1 of the paper, after Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR
    2016; the start of 0.9 and 0.1 is theirs.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        bottom_widths: Units of the layers of each network that are stitched.
        tower_widths: Hidden units after the last unit, the paper's "cross-stitch layer size".
        own: What a network keeps of its own activations at the start.
        generator: Draws the initial weights.

    Raises:
        ValueError: If there is no task, no stitched layer or a width of 0, or `own` is not finite.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        bottom_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        own: float = 0.9,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_widths(num_tasks=num_tasks, num_inputs=num_inputs, bottom_widths=bottom_widths)
        if not bottom_widths:
            raise ValueError(
                "bottom_widths is empty, expected at least one layer: there is nothing to stitch"
            )
        self.num_inputs, self.num_tasks = num_inputs, num_tasks
        self.layers = nn.ModuleList(
            nn.ModuleList(linear(inputs, outputs, generator) for _ in range(num_tasks))
            for inputs, outputs in itertools.pairwise([num_inputs, *bottom_widths])
        )
        self.stitches = nn.ModuleList(CrossStitchUnit(num_tasks, own) for _ in bottom_widths)
        self.towers = Towers(num_tasks, bottom_widths[-1], tower_widths, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d), or (B, K, d) with one of each task's own, to outputs (B, K)."""
        inputs = list(inputs_of_tasks(x, self.num_inputs, self.num_tasks, self.stitches[0].alpha))  # type: ignore[arg-type]
        for layers, stitch in zip(self.layers, self.stitches, strict=True):
            hidden = [torch.relu(layer(own)) for layer, own in zip(layers, inputs, strict=True)]  # type: ignore[call-overload]
            mixed = stitch(torch.stack(hidden, dim=-2))  # (B, K, h)
            inputs = list(mixed.unbind(dim=-2))
        return self.towers(*inputs)  # (B, K)
