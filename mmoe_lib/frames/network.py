"""The modules between an encoded frame and its predictions: embeddings below any model, the mean of runs above it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmoe_lib.frames.encoder import Ids
from mmoe_lib.frames.targets import OwnUnits, Target
from mmoe_lib.models.embeddings import INITIAL_SPREAD, Inputs
from mmoe_lib.models.layers import ModelBuilder
from mmoe_lib.training import Ensemble


class EmbeddedModel(nn.Module):
    """Vectors of ids side by side with the numbers, as the input of any model.

    Args:
        num_numbers: Columns of the numbers, d.
        num_outputs: Of the model above.
        columns: The columns of ids, each with a table of its own.
        top: Builds the model above, called as top(num_inputs, num_outputs, generator=...).
        generator: Draws the initial weights.
    """

    def __init__(
        self,
        num_numbers: int,
        num_outputs: int,
        *,
        columns: Sequence[Ids],
        top: ModelBuilder,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.lengths = [column.length for column in columns]
        tables = [torch.empty(column.rows, column.width) for column in columns]
        self.tables = nn.ParameterList(
            nn.init.normal_(table, std=INITIAL_SPREAD, generator=generator) for table in tables
        )
        self.top = top(
            num_numbers + sum(column.width for column in columns), num_outputs, generator=generator
        )

    def below(self, x: tuple[Tensor, Tensor]) -> Tensor:
        """What the model above reads: ids (B, S) and numbers (B, d) to (B, widths + d)."""
        ids, numbers = x
        vectors = []
        for table, own in zip(
            self.tables, ids.split(self.lengths, dim=-1), strict=True
        ):  # (V, D), (B, length)
            there = (own > 0).to(table.dtype).unsqueeze(-1)
            # mean over the ids that are there
            vectors.append((F.embedding(own, table) * there).sum(dim=-2) / there.sum(dim=-2).clamp_min(1))
        return torch.cat([*vectors, numbers], dim=-1)

    def gate_weights(self, x: tuple[Tensor, Tensor]) -> Tensor:
        """How much of each expert each output reads, (B, O, n).

        Raises:
            TypeError: If the model above has no gates.
        """
        if not hasattr(self.top, "gate_weights"):
            raise TypeError(f"{type(self.top).__name__} has no gates, expected a mixture such as MMoE")
        weights: Tensor = self.top.gate_weights(self.below(x))  # type: ignore[operator]
        return weights

    def penalty(self, x: tuple[Tensor, Tensor]) -> Tensor:
        """What the model above adds to the loss of a run."""
        own: Callable[[Tensor], Tensor] | None = getattr(self.top, "penalty", None)
        return own(self.below(x)) if own else self.tables[0].new_zeros(())

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        """Map ids (B, S) and numbers (B, d) to outputs (B, O)."""
        outputs: Tensor = self.top(self.below(x))
        return outputs


class MeanOfRuns(nn.Module):
    """Encoded rows to predictions (B, O): each run's in their own unit, then their mean."""

    def __init__(self, ensemble: Ensemble, targets: Sequence[Target]) -> None:
        super().__init__()
        self.runs = nn.ModuleList(ensemble.module(run) for run in range(len(ensemble)))
        self.own_units = OwnUnits(targets, ensemble.dtype).to(ensemble.device)

    def forward(self, x: Inputs) -> Tensor:
        """Map encoded rows to (B, O)."""
        return torch.stack([self.own_units(run(x)) for run in self.runs]).mean(dim=0)


def rest_untrained_ids(ensemble: Ensemble, columns: Sequence[Ids], ids: Tensor) -> None:
    """Give rows of the tables that no training row (N, S) reads the mean vector of the training rows, in place."""
    for number, (column, own) in enumerate(
        zip(columns, ids.split([column.length for column in columns], dim=-1), strict=True)
    ):
        table = ensemble.parameters[f"tables.{number}"]  # (R, V, D)
        counts = torch.bincount(own[own > 0].flatten(), minlength=column.rows).to(table)
        table[:, counts == 0] = (counts @ table / counts.sum()).unsqueeze(1)
