"""MMoE whose experts hear each other before they are mixed: a transformer block over the experts' outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmoe_lib.models.layers import check_inputs, linear
from mmoe_lib.models.mixture import MMoE


class TransformerBlock(nn.Module):
    """Self-attention and a feed-forward network over n tokens, each after a layer norm and added to what it read.

    There is no embedding of a token's place and no dropout: permuted tokens give permuted outputs.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, with the norms before the parts (pre-norm)
    as in Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020.

    Args:
        width: Numbers h of a token.
        heads: Attention heads, a divisor of h.
        generator: Draws the initial weights.

    Raises:
        ValueError: If `heads` does not divide `width`, or a token has one number, of which a layer norm leaves 0.
    """

    def __init__(self, width: int, heads: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"width is {width}, expected 2 or more: a layer norm makes 0 of a single unit")
        if heads < 1 or width % heads:
            raise ValueError(
                f"heads is {heads}, expected a divisor of {width}, the units of an expert's output"
            )
        self.heads = heads
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = linear(width, 3 * width, generator)
        self.attended = linear(width, width, generator)
        self.wide, self.narrow = linear(width, 2 * width, generator), linear(2 * width, width, generator)

    def _attend(self, tokens: Tensor) -> Tensor:
        parts = torch.unflatten(
            self.queries_keys_values(tokens), -1, (3, self.heads, -1)
        )  # (B, n, 3, H, h/H)
        q, k, v = (part.transpose(-2, -3) for part in parts.unbind(dim=-3))  # each (B, H, n, h/H)
        # A = softmax(Q K^T / sqrt(h/H)) V
        # By hand: on a CPU, F.scaled_dot_product_attention has no rule for vmap, warns, and takes twice as long.
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)  # (B, H, n, n)
        attended: Tensor = self.attended((weights @ v).transpose(-2, -3).flatten(-2))  # (B, n, h)
        return attended

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, n, h) to tokens (B, n, h)."""
        # t' = t + Attention(Norm(t))
        tokens = tokens + self._attend(self.norm_attention(tokens))
        # t'' = t' + W2 relu(W1 Norm(t'))
        return tokens + self.narrow(torch.relu(self.wide(self.norm_feed_forward(tokens))))


class TransformerMMoE(MMoE):
    """MMoE that mixes the experts' outputs after a transformer block over them.

    The n experts' outputs are n tokens of width h, in which each expert may take up what the others found. The gates
    read x, as those of `MMoE`. Where the block adds nothing, this is `MMoE`.

    Source: ours; `TransformerBlock` names the block's.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        num_experts: n; with one there is nothing to choose, and a gate stays as it was drawn.
        expert_widths: Units of the layers of each expert.
        tower_widths: Hidden units of each tower h_k.
        heads: Attention heads, a divisor of an expert's output units.
        generator: Draws the initial weights.

    Raises:
        ValueError: If `heads` does not divide h, h is 1, or there are no experts, no tasks or a width of 0.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        num_experts: int,
        expert_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        heads: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(num_inputs, num_tasks, num_experts, expert_widths, tower_widths, generator=generator)
        self.block = TransformerBlock(self.experts.num_outputs, heads, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        check_inputs(x, self.num_inputs, self.gates.weight)
        tokens = self.block(self.experts(x))  # (B, n, h)
        g = self.gate_weights(x)  # (B, K, n)
        # (7)  f^k(x) = sum_i g^k(x)_i t_i(x)
        mixed = (g.unsqueeze(-1) * tokens.unsqueeze(-3)).sum(dim=-2)  # (B, K, h)
        # (6)  y_k = h_k(f^k(x))
        return self.towers(*mixed.unbind(dim=-2))  # (B, K)
