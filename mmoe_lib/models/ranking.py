"""The ranking model of section 6.4: embeddings, fully connected layers that all tasks share, and a top to compare."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmoe_lib.models.embeddings import Embeddings
from mmoe_lib.models.l2_constrained import L2Constrained
from mmoe_lib.models.layers import FullyConnected, ModelBuilder


class Ranker(nn.Module):
    """Embeddings and lower layers in front of any of the other models, which reads them as its input.

    The paper's Shared-Bottom is this with `SharedBottom` of the last shared layer as its top; its MMoE "replaces only
    the top shared layer" by experts of the same output width, which read the lower layers, as the gates do.
    Networks that share nothing have all layers in the top and `own_embeddings`.

    Args:
        num_sparse: Sparse features S.
        num_dense: Dense features F.
        vocabulary: Ids of all sparse features together.
        num_tasks: K.
        top: Builds the rest, called as top(num_inputs, num_tasks, generator=...).
        lower_widths: Units of the shared layers below it.
        embedding_width: Numbers D of each id's vector.
        own_embeddings: Whether each task has a table of its own; the top then gets an input a task.
        generator: Draws the initial weights.

    Raises:
        ValueError: If a width is 0, or own embeddings are asked for below shared layers.
    """

    def __init__(
        self,
        num_sparse: int,
        num_dense: int,
        vocabulary: int,
        num_tasks: int,
        top: ModelBuilder,
        *,
        lower_widths: Sequence[int] = (),
        embedding_width: int = 4,
        own_embeddings: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if own_embeddings and lower_widths:
            raise ValueError(
                f"own_embeddings is True with shared lower_widths {tuple(lower_widths)}, expected one of the two: "
                "networks that share nothing have all layers in the top"
            )
        self.num_sparse, self.num_tasks, self.vocabulary = num_sparse, num_tasks, vocabulary
        self.num_inputs = num_sparse + num_dense
        self.embeddings = Embeddings(
            vocabulary, embedding_width, num_tasks if own_embeddings else 1, generator
        )
        self.lower = FullyConnected(num_sparse * embedding_width + num_dense, lower_widths, generator)
        self.top = top(self.lower.num_outputs, num_tasks, generator=generator)

    def below(self, x: Tensor) -> Tensor:
        """What the top reads: inputs (B, S + F) to (B, d), or (B, K, d) where each task has its own embeddings.

        Columns of x beyond the features, such as the noise of gate dropout, are passed on unseen to a top that all
        tasks share.

        Raises:
            ValueError: If x has another number of columns.
            TypeError: If x is not of the weights' number type.
        """
        table = self.embeddings.table
        if x.dim() != 2 or x.shape[1] < self.num_inputs or (len(table) > 1 and x.shape[1] > self.num_inputs):
            raise ValueError(
                f"input has shape {tuple(x.shape)}, expected (batch, {self.num_inputs}): the ids of "
                f"{self.num_sparse} sparse features, then the dense ones"
            )
        if x.dtype != table.dtype:
            raise TypeError(
                f"input is {x.dtype}, expected {table.dtype} like the weights: convert one of them"
            )
        ids, dense = x[:, : self.num_sparse].long(), x[:, self.num_sparse : self.num_inputs]
        tasks = [torch.cat([vectors, dense], dim=-1) for vectors in self.embeddings(ids)]  # each (B, S D + F)
        if len(tasks) > 1:
            return torch.stack(tasks, dim=1)
        return torch.cat([self.lower(tasks[0]), x[:, self.num_inputs :]], dim=-1)

    def gate_weights(self, x: Tensor) -> Tensor:
        """How much of each expert each task reads: (B, S + F) to (B, K, n), rows summing to 1.

        Raises:
            TypeError: If the top has no gates.
        """
        if not hasattr(self.top, "gate_weights"):
            raise TypeError(f"{type(self.top).__name__} has no gates, expected a mixture such as MMoE")
        weights: Tensor = self.top.gate_weights(self.below(x))  # type: ignore[operator]
        return weights

    def penalty(self, x: Tensor) -> Tensor:
        """What is added to the loss of a run: what the top asks for, L2-Constrained's pull on the embeddings too."""
        table = self.embeddings.table
        if not isinstance(self.top, L2Constrained):
            own: Callable[[Tensor], Tensor] | None = getattr(self.top, "penalty", None)
            return own(self.below(x)) if own else table.new_zeros(())
        # alpha ||theta_1 - theta_2||^2, summed over all pairs of tasks
        pairs = itertools.combinations(table.unbind(), 2)
        distance = sum(((one - other).square().sum() for one, other in pairs), start=table.new_zeros(()))
        return self.top.penalty(x) + self.top.alpha * distance

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, S + F), ids first, to outputs (B, K)."""
        outputs: Tensor = self.top(self.below(x))
        return outputs
