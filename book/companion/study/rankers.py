"""The rankers of the recommendation study: the methods of section 6.4 on embeddings, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mmoe_lib.models import CrossStitch, L2Constrained, MMoE, OMoE, Ranker, SharedBottom, SingleTask
from mmoe_lib.models.extensions import GateDropoutMMoE
from mmoe_lib.models.layers import ModelBuilder

METHODS = ("Single-Task", "Shared-Bottom", "L2-Constrained", "Cross-Stitch", "OMoE", "MMoE")
"""Single-Task and the rows of table 3, in the paper's order. Tensor-Factorization is left out as in the paper."""

TASKS = 2

LOWER_UNITS = (64, 32)
TOP_UNITS = 32
TOWER_UNITS = (16,)
EXPERTS = 4
EMBEDDING_WIDTH = 4
"""Sizes are ours but for the four experts of figure 6: the paper says "several" shared layers, and one a tower."""


def build_ranker(
    method: str,
    num_sparse: int,
    num_dense: int,
    vocabulary: int,
    *,
    alpha: float = 0.0,
    experts: int = EXPERTS,
    gate_dropout: float = 0.0,
) -> Callable[..., Ranker]:
    """What makes one run of a method from the generator of its initial weights.

    Shared-Bottom: embeddings, shared layers of 64, 32 and 32 units, a tower of 16 a task. OMoE and MMoE: the same,
    with the last shared layer replaced by experts of 32 units. Single-Task, L2-Constrained and Cross-Stitch: two
    networks of Shared-Bottom's size, each with embeddings of its own.

    Args:
        method: One of `METHODS`.
        num_sparse: Sparse features.
        num_dense: Dense features.
        vocabulary: Ids of all sparse features.
        alpha: Of L2-Constrained.
        experts: Of OMoE and MMoE.
        gate_dropout: Of MMoE.

    Raises:
        ValueError: If there is no such method, or it has no gates to drop weights of.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}: choose one of these")
    if gate_dropout and method != "MMoE":
        raise ValueError(f"gate_dropout is {gate_dropout} for {method}, expected 0: only MMoE has it here")
    networks: dict[str, Any] = {"bottom_widths": (*LOWER_UNITS, TOP_UNITS), "tower_widths": TOWER_UNITS}
    mixture: dict[str, Any] = {
        "num_experts": experts,
        "expert_widths": (TOP_UNITS,),
        "tower_widths": TOWER_UNITS,
    }
    tops: dict[str, ModelBuilder] = {
        "Single-Task": partial(SingleTask, **networks),
        "Shared-Bottom": partial(SharedBottom, bottom_widths=(TOP_UNITS,), tower_widths=TOWER_UNITS),
        "L2-Constrained": partial(L2Constrained, **networks, alpha=alpha),
        "Cross-Stitch": partial(CrossStitch, **networks),
        "OMoE": partial(OMoE, **mixture),
        "MMoE": partial(GateDropoutMMoE, **mixture, dropout=gate_dropout)
        if gate_dropout
        else partial(MMoE, **mixture),
    }
    shares = method in ("Shared-Bottom", "OMoE", "MMoE")
    return partial(
        Ranker,
        num_sparse,
        num_dense,
        vocabulary,
        TASKS,
        tops[method],
        lower_widths=LOWER_UNITS if shares else (),
        embedding_width=EMBEDDING_WIDTH,
        own_embeddings=not shares,
    )
