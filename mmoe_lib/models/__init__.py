"""The models as textbook modules for one run: (B, d) inputs to (B, K) outputs, one a task."""

from mmoe_lib.models.baselines import SharedBottom, SingleTask
from mmoe_lib.models.mixture import MMoE, OMoE
from mmoe_lib.models.sizes import PAPER_SIZES, count_multiply_adds, count_parameters, paper_model

__all__ = [
    "PAPER_SIZES",
    "MMoE",
    "OMoE",
    "SharedBottom",
    "SingleTask",
    "count_multiply_adds",
    "count_parameters",
    "paper_model",
]
