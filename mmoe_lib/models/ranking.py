"""The ranking model of section 6.4: embeddings, fully connected layers that all tasks share, and a top to compare."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmoe_lib.models.embeddings import Embeddings, Inputs
from mmoe_lib.models.l2_constrained import L2Constrained
from mmoe_lib.models.layers import FullyConnected, ModelBuilder


class Ranker(nn.Module):
    """Embeddings and lower layers in front of any of the other models, which reads them as its input.

    The paper's Shared-Bottom is this with `SharedBottom` of the last shared layer as its top; its MMoE "replaces only
    the top shared layer" by experts of the same output width, which read the lower layers, as the gates do.
    Networks that share nothing have all layers in the top and `own_embeddings`.

    Its input is a pair: ids (B, S), whole numbers, and numbers (B, F). One tensor (B, S + F) of both, ids first, is
    taken as well, as long as its type counts every id: the table may then have 256 rows in bfloat16, 2^24 in float32.

    Args:
        num_sparse: Sparse features S.
        num_dense: Dense features F.
        vocabulary: Ids of all sparse features together.
        num_tasks: K.
        top: Builds the rest, called as top(num_inputs, num_tasks, generator=...).
        lower_widths: Units of the shared layers below it.
        embedding_width: Numbers D of each id's vector.
        own_embeddings: Whether each task has a table of its own; the top then gets an input a task.
        unknown: The row that an id beyond the table reads; None refuses such an id.
        generator: Draws the initial weights.

    Raises:
        ValueError: If a width is 0, own embeddings are asked for below shared layers, or the table has no such row.
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
        unknown: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if own_embeddings and lower_widths:
            raise ValueError(
                f"own_embeddings is True with shared lower_widths {tuple(lower_widths)}, expected one of the two: "
                "networks that share nothing have all layers in the top"
            )
        if unknown is not None and not 0 <= unknown < vocabulary:
            raise ValueError(
                f"unknown is {unknown}, expected a row of the table, 0 to {vocabulary - 1}, or None"
            )
        self.num_sparse, self.num_tasks, self.vocabulary, self.unknown = (
            num_sparse,
            num_tasks,
            vocabulary,
            unknown,
        )
        self.num_inputs = num_sparse + num_dense
        self.embeddings = Embeddings(
            vocabulary, embedding_width, num_tasks if own_embeddings else 1, generator
        )
        self.lower = FullyConnected(num_sparse * embedding_width + num_dense, lower_widths, generator)
        self.top = top(self.lower.num_outputs, num_tasks, generator=generator)

    def check_ids(self, x: Inputs) -> None:
        """Raise unless every id has a row: of inputs with any leading dimensions, and before runs are stacked.

        Raises:
            ValueError: If an id lies beyond the table and there is no row for unknown ones, or is no whole number.
        """
        ids, _ = self._split(x)
        given = x[..., : self.num_sparse] if isinstance(x, Tensor) else x[0]
        if given.is_floating_point() and not bool((given == ids).all()):
            wrong = float(given[given != ids][0])
            raise ValueError(f"an id is {wrong:g}, expected whole numbers: give ids as an integer tensor")
        self._check_bounds(ids)

    def _check_bounds(self, ids: Tensor) -> None:
        if self.unknown is None and ids.numel():
            low, high = (int(bound) for bound in torch.aminmax(ids))
            if low < 0 or high >= self.vocabulary:
                raise ValueError(
                    f"ids go from {low} to {high}, expected 0 to {self.vocabulary - 1}, the rows of the table: encode "
                    "others as a row for the unknown, or name it as the argument unknown"
                )

    def _split(self, x: Inputs) -> tuple[Tensor, Tensor]:
        """Ids (..., S) and what stands beside them (..., F), each of its own type."""
        table = self.embeddings.table
        if isinstance(x, Tensor) and not x.is_floating_point():
            x = x, x.new_empty((*x.shape[:-1], 0), dtype=table.dtype)
        if not isinstance(x, Tensor):
            ids, dense = x
            if ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex():
                raise TypeError(f"ids are {ids.dtype}, expected whole numbers: torch.int64")
            if ids.shape[:-1] != dense.shape[:-1] or ids.shape[-1] != self.num_sparse:
                raise ValueError(
                    f"ids have shape {tuple(ids.shape)} and numbers {tuple(dense.shape)}, expected (batch, "
                    f"{self.num_sparse}) and (batch, {self.num_inputs - self.num_sparse})"
                )
        elif self.vocabulary > (counted := round(2 / torch.finfo(x.dtype).eps)) and self.num_sparse:
            raise ValueError(
                f"ids of {self.vocabulary:,} rows come as {x.dtype}, which counts to {counted:,}, expected a pair: an "
                "integer tensor of ids and one of numbers"
            )
        else:
            ids, dense = x[..., : self.num_sparse], x[..., self.num_sparse :]
        if dense.dtype != table.dtype:
            raise TypeError(
                f"input is {dense.dtype}, expected {table.dtype} like the weights: convert one of them"
            )
        return ids.long(), dense

    def below(self, x: Inputs) -> Tensor:
        """What the top reads: inputs (B, S + F) to (B, d), or (B, K, d) where each task has its own embeddings.

        Columns of x beyond the features, such as the noise of gate dropout, are passed on unseen to a top that all
        tasks share.

        Raises:
            ValueError: If x has another number of columns, or an id beyond the table.
            TypeError: If x is not of the weights' number type.
        """
        table = self.embeddings.table
        shape = x.shape if isinstance(x, Tensor) else (*x[0].shape[:-1], x[0].shape[-1] + x[1].shape[-1])
        if len(shape) != 2 or shape[1] < self.num_inputs or (len(table) > 1 and shape[1] > self.num_inputs):
            raise ValueError(
                f"input has shape {tuple(shape)}, expected (batch, {self.num_inputs}): the ids of "
                f"{self.num_sparse} sparse features, then the dense ones"
            )
        ids, dense = self._split(x)
        if not (torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(ids)):
            self._check_bounds(
                ids
            )  # within an ensemble or a graph numbers cannot be looked at: they were before
        if self.unknown is not None:
            ids = torch.where((ids >= 0) & (ids < self.vocabulary), ids, self.unknown)
        num_dense = self.num_inputs - self.num_sparse
        tasks = [
            torch.cat([vectors, dense[:, :num_dense]], dim=-1) for vectors in self.embeddings(ids)
        ]  # each (B, S D + F)
        if len(tasks) > 1:
            return torch.stack(tasks, dim=1)
        return torch.cat([self.lower(tasks[0]), dense[:, num_dense:]], dim=-1)

    def gate_weights(self, x: Inputs) -> Tensor:
        """How much of each expert each task reads: (B, S + F) to (B, K, n), rows summing to 1.

        Raises:
            TypeError: If the top has no gates.
        """
        if not hasattr(self.top, "gate_weights"):
            raise TypeError(f"{type(self.top).__name__} has no gates, expected a mixture such as MMoE")
        weights: Tensor = self.top.gate_weights(self.below(x))  # type: ignore[operator]
        return weights

    def penalty(self, x: Inputs) -> Tensor:
        """What is added to the loss of a run: what the top asks for, L2-Constrained's pull on the embeddings too."""
        table = self.embeddings.table
        if not isinstance(self.top, L2Constrained):
            own: Callable[[Tensor], Tensor] | None = getattr(self.top, "penalty", None)
            return own(self.below(x)) if own else table.new_zeros(())
        # alpha ||theta_1 - theta_2||^2, summed over all pairs of tasks
        pairs = itertools.combinations(table.unbind(), 2)
        distance = sum(((one - other).square().sum() for one, other in pairs), start=table.new_zeros(()))
        return (
            self.top.penalty(table) + self.top.alpha * distance
        )  # theirs is of weights alone, whatever they read

    def forward(self, x: Inputs) -> Tensor:
        """Map inputs (B, S + F), ids first, to outputs (B, K)."""
        outputs: Tensor = self.top(self.below(x))
        return outputs
