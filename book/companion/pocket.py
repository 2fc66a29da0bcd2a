"""The pocket universe: labels of ten inputs and networks so small that a page trains many of them in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from mmoe_lib.models import MMoE, OMoE, SharedBottom, SingleTask
from mmoe_lib.tasks.synthetic import Constants

POCKET = Constants("pocket", c=0.5, alpha=(4.0, 5.0), beta=(math.pi, math.pi), num_inputs=10)
"""Chosen for teaching."""
CORRELATION = 0.5
LEARNING_RATE = 5e-3
ROWS = 32
STEPS = 4_000

SIZES: Mapping[str, int] = {
    "experts": 4,
    "expertUnits": 8,
    "towerUnits": 3,
    "bottomUnits": 29,
    "singleUnits": 18,
}

POCKET_MODELS: dict[str, partial[Any]] = {
    "Single-Task": partial(
        SingleTask, bottom_widths=(SIZES["singleUnits"],), tower_widths=(SIZES["towerUnits"],)
    ),
    "Shared-Bottom": partial(
        SharedBottom, bottom_widths=(SIZES["bottomUnits"],), tower_widths=(SIZES["towerUnits"],)
    ),
    "OMoE": partial(
        OMoE,
        num_experts=SIZES["experts"],
        expert_widths=(SIZES["expertUnits"],),
        tower_widths=(SIZES["towerUnits"],),
    ),
    "MMoE": partial(
        MMoE,
        num_experts=SIZES["experts"],
        expert_widths=(SIZES["expertUnits"],),
        tower_widths=(SIZES["towerUnits"],),
    ),
}
LEARNED = 0.15
PAGE_SEED = 1
PAGE_RUNS = 8
