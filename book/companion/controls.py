"""Controls of the synthetic study: each takes one thing away from a mixture, or gives it to a network without gates.

All are of about the size that the paper gives its models (13,056 numbers in its way of counting) unless their name says
how many experts they have. `mmoe_lib.models.CONTROL_SIZES` has the two that need no module of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmoe_lib.models import PAPER_SIZES, MMoE, OMoE
from mmoe_lib.models.layers import ModelBuilder, Towers, check_inputs, linear
from mmoe_lib.models.sizes import CONTROL_SIZES


class OwnMixtures(nn.Module):
    """K mixtures that share nothing: what the mixture does where no task can help or hinder another.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        num_experts: Of each task.
        expert_widths: Units of the layers of each expert.
        tower_widths: Hidden units of each tower.
        generator: Draws the initial weights.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        num_experts: int,
        expert_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.mixtures = nn.ModuleList(
            OMoE(num_inputs, 1, num_experts, expert_widths, tower_widths, generator=generator)
            for _ in range(num_tasks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        return torch.cat([mixture(x) for mixture in self.mixtures], dim=-1)


class GatedBottom(nn.Module):
    """Shared-Bottom whose units are each gated by the input: products as in a mixture, but no experts and no softmax.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        units: Of the bottom.
        tower_widths: Hidden units of each tower.
        generator: Draws the initial weights.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        units: int,
        tower_widths: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_inputs = num_inputs
        self.values = linear(num_inputs, units, generator)
        self.gate = linear(num_inputs, units, generator, bias=False)
        self.towers = Towers(num_tasks, units, tower_widths, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        check_inputs(x, self.num_inputs, self.values.weight)
        # f(x) = relu(W x + b) sigmoid(V x)
        shared = torch.relu(self.values(x)) * torch.sigmoid(self.gate(x))  # (B, h)
        return self.towers(*[shared] * len(self.towers.towers))  # (B, K)


class ConstantGateOMoE(OMoE):
    """OMoE whose gate is the same for every input: the mean of its experts."""

    def gate_weights(self, x: Tensor) -> Tensor:
        """(B, d) to (B, K, n), all 1 / n."""
        check_inputs(x, self.num_inputs, self.gate.weight)
        experts = self.experts.num_experts
        return x.new_full((len(x), self.num_tasks, experts), 1 / experts)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        check_inputs(x, self.num_inputs, self.gate.weight)
        mixed = self.experts(x).mean(dim=-2)  # (B, h)
        return self.towers(*[mixed] * self.num_tasks)  # (B, K)


class FrozenGateMMoE(MMoE):
    """MMoE whose gates stay as they were drawn: they read the input, and learn nothing."""

    def gate_weights(self, x: Tensor) -> Tensor:
        """How much of each expert each task reads: (B, d) to (B, K, n); no gradient passes to the gates."""
        check_inputs(x, self.num_inputs, self.gates.weight)
        logits = nn.functional.linear(x, self.gates.weight.detach())
        return torch.softmax(torch.unflatten(logits, -1, (self.num_tasks, self.num_experts)), dim=-1)


def averaged_gates(model: MMoE | OMoE, x: Tensor) -> Tensor:
    """What a trained mixture answers when every gate is replaced by its mean over the inputs.

    Args:
        model: One run.
        x: Inputs (B, d).

    Returns:
        Outputs (B, K).
    """
    f = model.experts(x)  # (B, n, h)
    g = model.gate_weights(x).mean(dim=0)  # (K, n)
    mixed = torch.einsum("kn,bnh->bkh", g, f)
    outputs: Tensor = model.towers(*mixed.unbind(dim=-2))
    return outputs


_own: dict[str, Any] = {"expert_widths": (16,), "tower_widths": (8,)}
_mixture: dict[str, Any] = {"num_experts": 8, **_own}
CONTROLS: dict[str, ModelBuilder] = {
    # Half the experts a task, so as many in all as OMoE has; then as many a task.
    "Own-Mixtures-4": partial(OwnMixtures, num_experts=4, **_own),
    "Own-Mixtures-8": partial(OwnMixtures, num_experts=8, **_own),
    "Gated-Bottom-62": partial(GatedBottom, units=62, tower_widths=(8,)),
    "OMoE-Constant-Gate": partial(ConstantGateOMoE, **_mixture),
    "MMoE-Frozen-Gates": partial(FrozenGateMMoE, **_mixture),
}
"""Builders of the controls that are modules of their own, by name."""


def builder_of(name: str) -> ModelBuilder:
    """The builder of one of the paper's models, or of a control.

    Raises:
        ValueError: If there is no such name.
    """
    sizes: dict[str, Any] = {**PAPER_SIZES, **CONTROL_SIZES, **CONTROLS}
    if name not in sizes:
        raise ValueError(f"model is {name!r}, expected one of {', '.join(sizes)}: choose one of these")
    builder: ModelBuilder = sizes[name]
    return builder
