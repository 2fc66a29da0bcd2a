"""Sparse features as trainable vectors (section 6.4.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmoe_lib.models.layers import check_widths

Inputs = Tensor | tuple[Tensor, Tensor]
"""Inputs (B, d), or a pair of them side by side: ids (B, S), whole numbers, and numbers (B, F)."""

INITIAL_SPREAD = 0.05
"""Standard deviation of the initial vectors, ours: the paper names none. An id that is never trained keeps its own."""


class Embeddings(nn.Module):
    """One table for the ids of all sparse features, each feature with a slice of rows of its own.

    Args:
        vocabulary: Rows V of the table, over all features.
        width: Numbers D of each vector.
        copies: Tables with ids in common; networks that share nothing have one each.
        generator: Draws the initial vectors.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(
        self, vocabulary: int, width: int, copies: int = 1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        check_widths(vocabulary=vocabulary, width=width, copies=copies)
        table = torch.empty(copies, vocabulary, width)
        self.table = nn.Parameter(nn.init.normal_(table, std=INITIAL_SPREAD, generator=generator))

    def forward(self, ids: Tensor) -> list[Tensor]:
        """Map ids (B, S) to the vectors of its features side by side, (B, S D), one tensor a copy."""
        return [F.embedding(ids, table).flatten(-2) for table in self.table.unbind()]
