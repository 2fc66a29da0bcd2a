"""The paper's models: one gate for all tasks (OMoE), and a gate a task (MMoE), sections 4.1 and 4.2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmoe_lib.models.layers import Experts, Towers, check_inputs, check_widths, linear


class OMoE(nn.Module):
    """One-gate Mixture-of-Experts: experts shared by all tasks, mixed by one gate.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        num_experts: n; with one there is nothing to choose, and a gate stays as it was drawn.
        expert_widths: Units of the layers of each expert.
        tower_widths: Hidden units of each tower h_k.
        generator: Draws the initial weights.

    Raises:
        ValueError: If there are no experts, no tasks or a width of 0.
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
        self.num_inputs, self.num_tasks = num_inputs, num_tasks
        self.experts = Experts(num_inputs, num_experts, expert_widths, generator)
        self.gate = linear(num_inputs, num_experts, generator, bias=False)  # W_g in R^{n x d}
        self.towers = Towers(num_tasks, self.experts.num_outputs, tower_widths, generator)

    def gate_weights(self, x: Tensor) -> Tensor:
        """How much of each expert each task reads: (B, d) to (B, K, n), rows summing to 1."""
        check_inputs(x, self.num_inputs, self.gate.weight)
        shared = torch.softmax(self.gate(x), dim=-1)  # g(x): (B, n)
        return shared.unsqueeze(1).expand(-1, self.num_tasks, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        check_inputs(x, self.num_inputs, self.gate.weight)
        f = self.experts(x)  # (B, n, h)
        g = torch.softmax(self.gate(x), dim=-1)  # (B, n)
        # (5)  y = sum_i g(x)_i f_i(x)
        mixed = (g.unsqueeze(-1) * f).sum(dim=-2)  # (B, h)
        # y_k = h_k(y)
        return self.towers(*[mixed] * self.num_tasks)  # (B, K)


class MMoE(nn.Module):
    """Multi-gate Mixture-of-Experts: experts shared by all tasks, mixed by a gate of each task's own.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        num_experts: n; with one there is nothing to choose, and a gate stays as it was drawn.
        expert_widths: Units of the layers of each expert.
        tower_widths: Hidden units of each tower h_k.
        generator: Draws the initial weights.

    Raises:
        ValueError: If there are no experts, no tasks or a width of 0.
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
        check_widths(num_tasks=num_tasks)
        self.num_inputs, self.num_tasks, self.num_experts = num_inputs, num_tasks, num_experts
        self.experts = Experts(num_inputs, num_experts, expert_widths, generator)
        # The K matrices W_gk in R^{n x d}, one above the other.
        self.gates = linear(num_inputs, num_tasks * num_experts, generator, bias=False)
        self.towers = Towers(num_tasks, self.experts.num_outputs, tower_widths, generator)

    def gate_weights(self, x: Tensor) -> Tensor:
        """How much of each expert each task reads: (B, d) to (B, K, n), rows summing to 1."""
        check_inputs(x, self.num_inputs, self.gates.weight)
        # (8)  g^k(x) = softmax(W_gk x)
        return torch.softmax(torch.unflatten(self.gates(x), -1, (self.num_tasks, self.num_experts)), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        check_inputs(x, self.num_inputs, self.gates.weight)
        f = self.experts(x)  # (B, n, h)
        g = self.gate_weights(x)  # (B, K, n)
        # (7)  f^k(x) = sum_i g^k(x)_i f_i(x)
        # As a product and a sum: compiled, this runs faster than bmm or einsum.
        mixed = (g.unsqueeze(-1) * f.unsqueeze(-3)).sum(dim=-2)  # (B, K, h)
        # (6)  y_k = h_k(f^k(x))
        return self.towers(*mixed.unbind(dim=-2))  # (B, K)
