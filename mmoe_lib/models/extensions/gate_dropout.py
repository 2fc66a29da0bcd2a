"""MMoE whose gates lose experts at random while they train, against gates that settle on one expert too early."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmoe_lib.models.layers import check_inputs
from mmoe_lib.models.mixture import MMoE


class GateDropoutMMoE(MMoE):
    """MMoE in training of which each gate weight is set to 0 with a probability, the rest scaled to sum to 1.

    The random numbers come as further columns of the input, so a forward pass is a function of its arguments: with
    inputs (B, d) nothing is dropped, with (B, d + K n) the last K n columns are uniform draws from [0, 1).
    `mmoe_lib.training.batches.with_noise` adds them to minibatches.

    Source: Zhao et al., "Recommending What Video to Watch Next", RecSys 2019, section 4.2: 10 % against polarisation.

    Args:
        dropout: Probability with which a weight is dropped, 0 to below 1.
        Others: As for `MMoE`.

    Raises:
        ValueError: If dropout is not in [0, 1), there are no experts, no tasks or a width of 0.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        num_experts: int,
        expert_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        dropout: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(num_inputs, num_tasks, num_experts, expert_widths, tower_widths, generator=generator)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}, expected 0 to below 1: a probability such as 0.1")
        self.dropout, self.num_noise = dropout, num_tasks * num_experts

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d), or (B, d + K n) with draws that decide what is dropped, to outputs (B, K)."""
        if x.shape[-1] != self.num_inputs + self.num_noise:
            return super().forward(x)
        check_inputs(x, self.num_inputs + self.num_noise, self.gates.weight)
        noise = torch.unflatten(x[:, self.num_inputs :], -1, (self.num_tasks, self.num_experts))  # (B, K, n)
        x = x[:, : self.num_inputs]
        f, logits = (
            self.experts(x),
            torch.unflatten(self.gates(x), -1, noise.shape[1:]),
        )  # (B, n, h), (B, K, n)
        dropped = noise < self.dropout
        dropped = dropped & ~dropped.all(dim=-1, keepdim=True)  # a gate that lost all loses none
        # g~_i = m_i g_i / sum_j m_j g_j, as a softmax of what is kept: the g_j may all be too small for their sum
        g = torch.softmax(logits.masked_fill(dropped, -torch.inf), dim=-1)
        mixed = (g.unsqueeze(-1) * f.unsqueeze(-3)).sum(dim=-2)  # (B, K, h)
        return self.towers(*mixed.unbind(dim=-2))  # (B, K)
