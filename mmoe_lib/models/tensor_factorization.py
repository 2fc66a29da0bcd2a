"""Networks whose weights are slices of one factorised tensor (section 6.1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmoe_lib.models.layers import Towers, check_inputs, check_widths

Ranks = tuple[int, int, int]


class TuckerLayer(nn.Module):
    """The weight matrices of K tasks, m x n each, as one tensor in Tucker's form, and ReLU.

    The factors start with normal numbers whose variances multiply to that of PyTorch's linear layer, so that
    the weights, products of four random numbers summed over the ranks, are neither tiny nor huge.

    Args:
        num_inputs: m.
        num_outputs: n.
        num_tasks: k.
        ranks: r1 <= m, r2 <= n, r3 <= k.
        generator: Draws the initial factors.

    Raises:
        ValueError: If a width is 0 or a rank is larger than its side of the tensor.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        num_tasks: int,
        ranks: Ranks,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sides = (num_inputs, num_outputs, num_tasks)
        check_widths(num_inputs=num_inputs, num_outputs=num_outputs, num_tasks=num_tasks, ranks=ranks)
        if len(ranks) != 3 or any(rank > side for rank, side in zip(ranks, sides, strict=True)):
            raise ValueError(
                f"ranks are {tuple(ranks)}, expected three of at most {sides} (inputs, units, tasks): a larger "
                "rank adds nothing"
            )

        # PyTorch's linear layer draws U(-1/sqrt(m), 1/sqrt(m)): variance 1 / (3 m). A weight here is a sum of
        # r1 r2 r3 products of a number of S and one of each U: with the U's at variance 1 / rank the sum has
        # the variance of S.
        def normal(*shape: int, variance: float) -> nn.Parameter:
            values = torch.empty(*shape)
            return nn.Parameter(nn.init.normal_(values, 0.0, math.sqrt(variance), generator=generator))

        self.core = normal(*ranks, variance=1 / (3 * num_inputs))  # S
        self.inputs = normal(num_inputs, ranks[0], variance=1 / ranks[0])  # U1
        self.outputs = normal(num_outputs, ranks[1], variance=1 / ranks[1])  # U2
        self.tasks = normal(num_tasks, ranks[2], variance=1 / ranks[2])  # U3
        bound = 1 / math.sqrt(num_inputs)
        bias = torch.empty(num_tasks, 1, num_outputs)
        self.bias = nn.Parameter(nn.init.uniform_(bias, -bound, bound, generator=generator))

    def weights(self) -> Tensor:
        """The whole tensor W, (m, n, k): task t's matrix is W[:, :, t]."""
        # W = S x_1 U1 x_2 U2 x_3 U3
        return torch.einsum("abc,ma,nb,kc->mnk", self.core, self.inputs, self.outputs, self.tasks)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, m), the same for all tasks, or (k, B, m) to (k, B, n).

        W is never built: the factors are applied one after the other, which costs m r1 + k (r1 r2 + r2 n)
        instead of m n k multiply-adds an example where all tasks read the same x.
        """
        slices = torch.tensordot(self.tasks, self.core, dims=([1], [2]))  # S x_3 U3: (k, r1, r2)
        # h_t = ReLU(x W_t + b_t) = ReLU(((x U1) (S x_3 U3)_t) U2' + b_t)
        return torch.relu((x @ self.inputs) @ slices @ self.outputs.T + self.bias)


class TensorFactorization(nn.Module):
    """K networks whose hidden layers' weights are slices of Tucker tensors; the towers are each task's own.

    Source: section 6.1 of the paper, after Yang and Hospedales, "Deep Multi-task Representation Learning: A
    Tensor Factorisation Approach", ICLR 2017.

    Args:
        num_inputs: Width d of the input.
        num_tasks: K.
        bottom_widths: Units of the factorised layers.
        tower_widths: Hidden units of each tower.
        ranks: r1, r2, r3 of each factorised layer, or one triple for a single layer.
        generator: Draws the initial weights.

    Raises:
        ValueError: If there is no task, no factorised layer or a width of 0, not one triple of ranks a layer, or
            a rank larger than its side of the tensor.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tasks: int,
        bottom_widths: Sequence[int],
        tower_widths: Sequence[int] = (),
        *,
        ranks: Ranks | Sequence[Ranks],
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_widths(num_tasks=num_tasks, num_inputs=num_inputs, bottom_widths=bottom_widths)
        of_layers = [ranks] if all(isinstance(rank, int) for rank in ranks) else list(ranks)
        if len(of_layers) != len(bottom_widths):
            raise ValueError(
                f"bottom_widths is {tuple(bottom_widths)} and ranks {ranks}, expected at least one layer and "
                "r1, r2, r3 for each"
            )
        self.num_inputs, self.num_tasks = num_inputs, num_tasks
        self.layers = nn.ModuleList(
            TuckerLayer(inputs, outputs, num_tasks, triple, generator)  # type: ignore[arg-type]
            for (inputs, outputs), triple in zip(
                itertools.pairwise([num_inputs, *bottom_widths]), of_layers, strict=True
            )
        )
        self.towers = Towers(num_tasks, bottom_widths[-1], tower_widths, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, d) to outputs (B, K)."""
        check_inputs(x, self.num_inputs, next(self.parameters()))
        hidden = x
        for layer in self.layers:
            hidden = layer(hidden)  # (K, B, h)
        return self.towers(*hidden.unbind(dim=-3))  # (B, K)
