"""MMoE whose gates look at what the experts say, not at the input: attention over the experts' outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmoe_lib.models.layers import Experts, Towers, check_inputs, check_widths, linear


class AttentionMMoE(nn.Module):
    """Experts that all tasks share, mixed for each task by the attention of a query of its own.

    Each task has a learned query of a numbers; the keys are a linear map of the experts' outputs. A gate of `MMoE`
    weighs expert i by its number in the list; here the weight depends on i through the expert's output alone.

    Source: ours; the attention is that of Vaswani et al., "Attention Is All You Need", NeurIPS 2017, equation 1.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        num_experts: n; with one there is nothing to choose, and a gate stays as it was drawn.
        expert_widths: Units of the layers of each expert.
        tower_widths: Hidden units of each tower h_k.
        query_width: Numbers a of a query and of a key.
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
        query_width: int = 16,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_widths(num_tasks=num_tasks, query_width=query_width)
        self.num_inputs, self.num_tasks, self.query_width = num_inputs, num_tasks, query_width
        self.experts = Experts(num_inputs, num_experts, expert_widths, generator)
        self.keys = linear(self.experts.num_outputs, query_width, generator, bias=False)  # W in R^{a x h}
        # The K queries q_k in R^a, one above the other: as a linear layer it gives q_k . key of every task.
        self.queries = linear(query_width, num_tasks, generator, bias=False)
        self.towers = Towers(num_tasks, self.experts.num_outputs, tower_widths, generator)

    def _attention(self, f: Tensor) -> Tensor:
        # g^k_i = softmax_i(q_k . W f_i(x) / sqrt(a))
        scores = self.queries(self.keys(f)) / math.sqrt(self.query_width)  # (B, n, h) to (B, n, K)
        return torch.softmax(scores, dim=-2).transpose(-1, -2)  # (B, K, n)

    def gate_weights(self, x: Tensor) -> Tensor:
        """How much of each expert each task reads: (B, d) to (B, K, n), rows summing to 1."""
        check_inputs(x, self.num_inputs, self.keys.weight)
        return self._attention(self.experts(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        check_inputs(x, self.num_inputs, self.keys.weight)
        f = self.experts(x)  # (B, n, h)
        g = self._attention(f)  # (B, K, n)
        # (7)  f^k(x) = sum_i g^k_i f_i(x)
        mixed = (g.unsqueeze(-1) * f.unsqueeze(-3)).sum(dim=-2)  # (B, K, h)
        # (6)  y_k = h_k(f^k(x))
        return self.towers(*mixed.unbind(dim=-2))  # (B, K)
