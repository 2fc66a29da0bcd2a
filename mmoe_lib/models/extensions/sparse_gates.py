"""MMoE whose gates read k experts an example and leave the others out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmoe_lib.models.layers import check_inputs
from mmoe_lib.models.mixture import MMoE


class TopKMMoE(MMoE):
    """MMoE in which each gate keeps the k largest of its n logits; all other weights are exactly 0.

    All experts are computed and then mixed, as in `MMoE`: this is the function, not the saving. With k = n it is
    `MMoE`. A logit that is left out gets no gradient. Of equal logits, only as many are kept as make k.

    With k = 1 the weight that is kept is 1 whatever its logit, and its gradient would be 0: such a gate would stay as
    it was drawn. It gets the gradient of that weight among all n instead, which is what the Switch Transformer scales
    its one expert with, passed straight through.

    Source: Shazeer et al., "Outrageously Large Neural Networks", ICLR 2017, equations 3 and 5, without the noise
    that theirs adds to the logits. For k = 1 Fedus et al., "Switch Transformers", JMLR 2022, equation 2, and Bengio
    et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013, section 4.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        num_experts: n; with one there is nothing to choose, and a gate stays as it was drawn.
        expert_widths: Units of the layers of each expert.
        tower_widths: Hidden units of each tower h_k.
        k: Experts that each gate keeps, 1 to n.
        generator: Draws the initial weights.

    Raises:
        ValueError: If k is not in 1..n, or there are no experts, no tasks or a width of 0.
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
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(num_inputs, num_tasks, num_experts, expert_widths, tower_widths, generator=generator)
        if not 1 <= k <= num_experts:
            raise ValueError(f"k is {k}, expected 1 to {num_experts}, the number of experts")
        self.k = k

    def gate_weights(self, x: Tensor) -> Tensor:
        """How much of each expert each task reads: (B, d) to (B, K, n), k of a row above 0, summing to 1."""
        check_inputs(x, self.num_inputs, self.gates.weight)
        logits = torch.unflatten(self.gates(x), -1, (self.num_tasks, self.num_experts))  # (B, K, n)
        chosen = logits.topk(self.k, dim=-1).indices  # (B, K, k)
        experts = torch.arange(self.num_experts, device=x.device)
        kept = (chosen.unsqueeze(-1) == experts).any(dim=-2)  # (B, K, n)
        # g^k(x) = softmax(KeepTopK(W_gk x)), where KeepTopK sets all but the k largest to -infinity
        weights = torch.softmax(logits.masked_fill(~kept, -torch.inf), dim=-1)
        if self.k > 1:
            return weights
        # p(x) = softmax(W_gk x), whose value is taken away again
        p = torch.softmax(logits, dim=-1).masked_fill(~kept, 0)
        return weights + (p - p.detach())
