"""The models as textbook modules for one run: (B, d) inputs to (B, K) outputs, one a task.

The seven of the paper, and what they are made of; newer ones stand in `mmoe_lib.models.extensions`.
"""

from importlib import import_module
from typing import Any

from mmoe_lib.models.baselines import SharedBottom, SingleTask
from mmoe_lib.models.costs import count_multiply_adds, count_parameters
from mmoe_lib.models.cross_stitch import CrossStitch, CrossStitchUnit
from mmoe_lib.models.embeddings import Embeddings
from mmoe_lib.models.l2_constrained import L2Constrained
from mmoe_lib.models.mixture import MMoE, OMoE
from mmoe_lib.models.ranking import Ranker
from mmoe_lib.models.sizes import PAPER_SIZES, paper_model
from mmoe_lib.models.tensor_factorization import TensorFactorization, TuckerLayer

__all__ = [
    "PAPER_SIZES",
    "CrossStitch",
    "CrossStitchUnit",
    "Embeddings",
    "L2Constrained",
    "MMoE",
    "OMoE",
    "Ranker",
    "SharedBottom",
    "SingleTask",
    "TensorFactorization",
    "TuckerLayer",
    "count_multiply_adds",
    "count_parameters",
    "paper_model",
]


def __getattr__(name: str) -> Any:
    """The extensions are found here too, where they stood in earlier versions; imported when they are asked for."""
    extensions = import_module("mmoe_lib.models.extensions")
    if name in extensions.__all__:
        return getattr(extensions, name)
    raise AttributeError(f"module 'mmoe_lib.models' has no attribute {name!r}")
