"""MMoE with gates that come to choose at most k experts by gradient descent: DSelect-k."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmoe_lib.models.extensions.regularised_gates import entropy as entropy_of
from mmoe_lib.models.layers import Experts, Towers, check_inputs, check_widths, linear


def smooth_step(z: Tensor, gamma: float = 1.0) -> Tensor:
    """A step from 0 (z <= -gamma/2) to 1 (z >= gamma/2), cubic between, with a continuous derivative.

    Any shape. Unlike a sigmoid it reaches 0 and 1, where its derivative is 0: a code that got there stays.

    Source: Hazimeh et al., "The Tree Ensemble Layer", ICML 2020.
    """
    # S(z) = 1/2 + 3 z / (2 gamma) - 2 z^3 / gamma^3 = u^2 (3 - 2 u) with u = z / gamma + 1/2
    u = (z / gamma + 0.5).clamp(0, 1)
    return u.square() * (3 - 2 * u)


def single_expert_weights(codes: Tensor) -> Tensor:
    """Weights of n = 2^m experts from m binary codes in [0, 1], relaxed: (..., m) to (..., n), summing to 1.

    Codes of 0 and 1 are the binary number of one expert, the first code its highest digit; it gets all the weight.
    """
    # r_i(z) = prod_j S(z_j)^{b_ij} (1 - S(z_j))^{1 - b_ij}, where b_i is i in binary: an outer product over j
    weights = torch.ones_like(codes[..., :1])
    for code in codes.split(1, dim=-1):
        weights = (weights.unsqueeze(-1) * torch.stack([1 - code, code], dim=-1)).flatten(-2)
    return weights


class DSelectKMMoE(nn.Module):
    """MMoE whose gates are DSelect-k: k selectors, each of which learns to choose a single expert.

    A selector has log2(n) codes between 0 and 1, functions of the example; once they are 0 or 1, it reads one expert,
    so a gate reads k at most (two selectors may agree). Until then it reads several. How fast the codes become
    binary is what `entropy` decides: `penalty` is the entropy of the selectors.

    Source: Hazimeh et al., "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to
    Multi-Task Learning", NeurIPS 2021, in its form that depends on the example. Biases and the small initial weights
    are those of the authors' program: uniform to gamma / 100 for the codes, so that they start near 1/2 and not
    where their gradient is 0, and to 0.05 for the selectors' logits. Theirs adds the entropies of a batch up; here
    they are averaged over it, so that the weight means the same for any batch. Theirs also takes an n that is no
    power of 2, with a further penalty against codes of experts that do not exist; this one does not.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        num_experts: n, a power of 2.
        expert_widths: Units of the layers of each expert.
        tower_widths: Hidden units of each tower h_k.
        k: Selectors a gate, 1 to n; one alone needs no logit that weighs it against others.
        gamma: Width of the smooth-step function between 0 and 1.
        entropy: Weight of the selectors' entropy in the loss, 0 or more.
        generator: Draws the initial weights.

    Raises:
        ValueError: If n is not a power of 2, k is not in 1..n, gamma or entropy is out of range, or there are no
            tasks or a width of 0.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        num_experts: int,
        expert_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        k: int = 2,
        gamma: float = 1.0,
        entropy: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_widths(num_tasks=num_tasks, num_experts=num_experts)
        if num_experts == 1 or num_experts & (num_experts - 1):
            raise ValueError(
                f"num_experts is {num_experts}, expected a power of 2 such as 4 or 8: each expert has a binary code"
            )
        if not 1 <= k <= num_experts:
            raise ValueError(f"k is {k}, expected 1 to {num_experts}, the number of experts")
        if not (math.isfinite(gamma) and gamma > 0):
            raise ValueError(f"gamma is {gamma}, expected a number above 0: it is the width of a step")
        if not (math.isfinite(entropy) and entropy >= 0):
            raise ValueError(f"entropy is {entropy}, expected a number of 0 or more: a negative one spreads")
        self.num_inputs, self.num_tasks, self.num_selectors = num_inputs, num_tasks, k
        # numbers of numpy's would be tensors to torch.compile
        self.gamma, self.entropy = float(gamma), float(entropy)
        self.experts = Experts(num_inputs, num_experts, expert_widths, generator)
        num_codes = num_experts.bit_length() - 1  # m = log2(n)
        self.codes = linear(num_inputs, num_tasks * k * num_codes, generator)
        self.selector_logits = linear(num_inputs, num_tasks * k, generator) if k > 1 else None
        for layer, bound in {self.codes: self.gamma / 100, self.selector_logits: 0.05}.items():
            for parameter in layer.parameters() if layer else ():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        self.towers = Towers(num_tasks, self.experts.num_outputs, tower_widths, generator)

    def selectors(self, x: Tensor) -> Tensor:
        """What each selector chooses: (B, d) to (B, K, k, n), rows summing to 1."""
        check_inputs(x, self.num_inputs, self.codes.weight)
        # z = W x + b
        z = torch.unflatten(self.codes(x), -1, (self.num_tasks, self.num_selectors, -1))  # (B, K, k, m)
        return single_expert_weights(smooth_step(z, self.gamma))

    def gate_weights(self, x: Tensor) -> Tensor:
        """How much of each expert each task reads: (B, d) to (B, K, n), rows summing to 1."""
        r = self.selectors(x)  # (B, K, k, n)
        if self.selector_logits is None:
            return r.squeeze(-2)
        alpha = torch.unflatten(
            self.selector_logits(x), -1, (self.num_tasks, self.num_selectors)
        )  # (B, K, k)
        # q(x) = sum_l softmax(alpha)_l r(z^(l))
        return (torch.softmax(alpha, dim=-1).unsqueeze(-1) * r).sum(dim=-2)

    def penalty(self, x: Tensor) -> Tensor:
        """What is added to the loss of a run, a scalar: its batch (B, d) decides."""
        if not self.entropy:  # what has no weight is not computed
            return self.codes.weight.new_zeros(())
        # entropy mean_{b,k} sum_l H(r(z^(l)))
        return self.entropy * entropy_of(self.selectors(x)).sum(dim=-1).mean()

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        check_inputs(x, self.num_inputs, self.codes.weight)
        f = self.experts(x)  # (B, n, h)
        g = self.gate_weights(x)  # (B, K, n)
        # (7)  f^k(x) = sum_i g^k(x)_i f_i(x)
        mixed = (g.unsqueeze(-1) * f.unsqueeze(-3)).sum(dim=-2)  # (B, K, h)
        # (6)  y_k = h_k(f^k(x))
        return self.towers(*mixed.unbind(dim=-2))  # (B, K)
