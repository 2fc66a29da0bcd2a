"""The pocket universe: labels of ten inputs, and networks so small that a page trains many of them in seconds.

It is chosen for teaching, for the very effect that it shows, and is evidence for nothing but itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from mmoe_lib.models import MMoE, OMoE, SharedBottom, SingleTask
from mmoe_lib.tasks.synthetic import Constants, noiseless_labels

# How it was chosen. First more than a hundred universes of one to three sines were tried, with 3 to 8 experts of 2 to 12
# units and towers of 3 to 8: Shared-Bottom and MMoE, 8 to 16 runs of 2,500 to 4,000 steps with the engine of chapter 3's
# lab. Sines of four radians a standard deviation or more were learned by neither model in that time; with towers of 3
# units runs of both models missed a whole task; with towers of 8 hardly a run of either failed. Then six labels of one to
# three near frequencies, even, odd and mixed, with two shapes of the experts, 32 runs of the library each: sought was the
# widest contrast between Shared-Bottom and MMoE. It was had by the odd label and four experts of eight units: 5 of 32 runs of
# Shared-Bottom learned both labels, 28 of MMoE. The runs of data/results/pocket.json, from seeds of their own, took no
# part in that.
POCKET = Constants("pocket", c=0.3, alpha=(7.3, 8.0), beta=(0.0, 0.0), num_inputs=10)
"""Two sines of 2.2 and 2.4 radians a standard deviation of the projection."""

CORRELATION = 0.5
"""p of the pocket experiment; the rest of its settings follow."""
LEARNING_RATE = 5e-3
ROWS = 32
STEPS = 3_000

SIZES: Mapping[str, int] = {
    "experts": 4,
    "expertUnits": 8,
    "towerUnits": 6,
    "bottomUnits": 23,
    "singleUnits": 15,
}
"""By the names that the page's engine has for them: each model has 510 to 560 weights, the gates' among them."""

_TOWERS = (SIZES["towerUnits"],)
_EXPERTS, _WIDTHS = SIZES["experts"], (SIZES["expertUnits"],)

POCKET_MODELS: dict[str, partial[Any]] = {
    "Single-Task": partial(SingleTask, bottom_widths=(SIZES["singleUnits"],), tower_widths=_TOWERS),
    "Shared-Bottom": partial(SharedBottom, bottom_widths=(SIZES["bottomUnits"],), tower_widths=_TOWERS),
    "OMoE": partial(OMoE, num_experts=_EXPERTS, expert_widths=_WIDTHS, tower_widths=_TOWERS),
    "MMoE": partial(MMoE, num_experts=_EXPERTS, expert_widths=_WIDTHS, tower_widths=_TOWERS),
}
"""Builders of the four models, called as those of `mmoe_lib.models.PAPER_SIZES`."""

LEARNED = 0.035
"""A run counts as having learned both labels if its loss, noise apart, is below this share of the loss of answering 0. It
was set in a valley between the humps of an earlier pocket universe, and kept."""


def learned_below() -> float:
    """The loss, noise included, below which a run of the pocket universe has learned both labels.

    It is LEARNED E[g(z)^2] + the noise variance, g the label's signal over the projection's standard normal z.
    """
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    of_zero = torch.trapezoid(noiseless_labels(POCKET.c * z, POCKET).square() * density, z)
    return LEARNED * float(of_zero) + POCKET.noise_variance
