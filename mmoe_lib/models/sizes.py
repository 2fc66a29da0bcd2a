"""The sizes that the paper's synthetic experiments use, by name."""

from __future__ import annotations

from functools import partial
from typing import Any

from mmoe_lib.models.baselines import SharedBottom, SingleTask
from mmoe_lib.models.layers import ModelBuilder
from mmoe_lib.models.mixture import MMoE, OMoE

PAPER_SIZES: dict[str, partial[Any]] = {
    # Section 3.3, figure 3: 16 shared units, towers of 8.
    "Shared-Bottom-16": partial(SharedBottom, bottom_widths=(16,), tower_widths=(8,)),
    # Section 5.1, figures 4 and 5: all three count 13,056 parameters in the paper's way of counting,
    # weights of bottom (or experts) and of the towers' first layer: 8 experts of 16 units, towers of
    # 8, and 113 = 13056 / (100 + 8 * 2) shared units.
    "Shared-Bottom": partial(SharedBottom, bottom_widths=(113,), tower_widths=(8,)),
    "OMoE": partial(OMoE, num_experts=8, expert_widths=(16,), tower_widths=(8,)),
    "MMoE": partial(MMoE, num_experts=8, expert_widths=(16,), tower_widths=(8,)),
    # Not in section 5.1: the Shared-Bottom-113 network once a task, the paper's own baseline of section 6.
    "Single-Task": partial(SingleTask, bottom_widths=(113,), tower_widths=(8,)),
}
"""Builders of the models with the sizes of the synthetic experiments, by name."""

CONTROL_SIZES: dict[str, ModelBuilder] = {
    # As many numbers as Shared-Bottom's 13,255, in two layers: 13,346. What depth does without any gate.
    "Shared-Bottom-96-32": partial(SharedBottom, bottom_widths=(96, 32), tower_widths=(8,)),
    # Separate networks that together have as many numbers: 13,332.
    "Single-Task-61": partial(SingleTask, bottom_widths=(61,), tower_widths=(8,)),
}
"""Models that the paper does not train, of as many parameters as those of section 5.1."""


def paper_model(name: str) -> ModelBuilder:
    """The builder of one of `PAPER_SIZES` or `CONTROL_SIZES`.

    Raises:
        ValueError: If there is no such name.
    """
    sizes = PAPER_SIZES | CONTROL_SIZES
    if name not in sizes:
        raise ValueError(f"model is {name!r}, expected one of {', '.join(sizes)}: choose one of these")
    return sizes[name]
