"""MMoE with terms in its loss that sharpen or spread its gates, use experts alike, and keep them different."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmoe_lib.models.mixture import MMoE


def entropy(p: Tensor) -> Tensor:
    """Entropy in nats of the distributions in the last dimension: (..., n) to (...,).

    A weight of 0 counts as 0, and its gradient is finite, so that a gate that settled on one expert still trains.
    """
    # H(p) = -sum_i p_i log p_i
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(dim=-1)


def gate_entropy(g: Tensor) -> Tensor:
    """How evenly a gate spreads over the experts of an example: 1 over all alike, 0 on one.

    Args:
        g: Gate weights (B, K, n), rows summing to 1.

    Returns:
        A scalar, 0 where there is one expert.
    """
    # mean_{b,k} H(g^k(x_b)) / log n
    return entropy(g).mean() / math.log(max(2, g.shape[-1]))


def use_imbalance(g: Tensor) -> Tensor:
    """How unequally a batch uses the experts: 0 where all are used alike, n - 1 where all rows read one.

    It is the squared coefficient of variation of the experts' mean weights, as in the loss of Shazeer et al.,
    "Outrageously Large Neural Networks", ICLR 2017, section 4. Sharp gates may be balanced: each row may read
    one expert, if different rows read different ones.

    Args:
        g: Gate weights (B, K, n), rows summing to 1.

    Returns:
        A scalar, the mean over the tasks.
    """
    # mean_k (n sum_i (mean_b g^k_i(x_b))^2 - 1)
    return (g.shape[-1] * g.mean(dim=0).square().sum(dim=-1) - 1).mean()


def expert_similarity(f: Tensor) -> Tensor:
    """How much the experts say the same: 1 where all outputs are parallel, 0 where they are orthogonal.

    Args:
        f: Outputs of the experts (B, n, h). One of length 0 counts as orthogonal to all, and gets no gradient.

    Returns:
        A scalar, 0 where there is one expert.
    """
    n = f.shape[-2]
    unit = F.normalize(f, dim=-1, eps=1e-6)  # (B, n, h)
    cosines = unit @ unit.transpose(-1, -2)  # (B, n, n)
    # mean over rows and pairs i < j of cos^2(f_i(x), f_j(x))
    return cosines.square().triu(diagonal=1).sum(dim=(-1, -2)).mean() / max(1, n * (n - 1) / 2)


class RegularisedMMoE(MMoE):
    """MMoE, the same function of x, with a `penalty` that training adds to the loss of a run.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        num_experts: n; with one there is nothing to choose, and a gate stays as it was drawn.
        expert_widths: Units of the layers of each expert.
        tower_widths: Hidden units of each tower h_k.
        entropy: Weight of `gate_entropy`: a positive one sharpens the gates, a negative one spreads them.
        balance: Weight of `use_imbalance`, 0 or more.
        orthogonality: Weight of `expert_similarity`, 0 or more.
        generator: Draws the initial weights.

    Raises:
        ValueError: If a weight is not finite, `balance` or `orthogonality` is negative, or there are no experts, no
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
        entropy: float = 0.0,
        balance: float = 0.0,
        orthogonality: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        if not math.isfinite(entropy):
            raise ValueError(f"entropy is {entropy}, expected a finite number: below 0 spreads the gates")
        for name, value in {"balance": balance, "orthogonality": orthogonality}.items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"{name} is {value}, expected a number of 0 or more: a negative one undoes it"
                )
        super().__init__(num_inputs, num_tasks, num_experts, expert_widths, tower_widths, generator=generator)
        # numbers of numpy's would be tensors to torch.compile
        self.entropy, self.balance, self.orthogonality = float(entropy), float(balance), float(orthogonality)

    def penalty(self, x: Tensor) -> Tensor:
        """What is added to the loss of a run, a scalar: its batch (B, d) decides."""
        # entropy E(g) + balance C(g) + orthogonality S(f)
        penalty = self.gates.weight.new_zeros(())
        if self.entropy or self.balance:  # what has no weight is not computed
            g = self.gate_weights(x)
            penalty = penalty + self.entropy * gate_entropy(g) + self.balance * use_imbalance(g)
        if self.orthogonality:
            penalty = penalty + self.orthogonality * expert_similarity(self.experts(x))
        return penalty
