"""The models as textbook modules for one run: (B, d) inputs to (B, K) outputs, one a task."""

from mmoe_lib.models.attention_gates import AttentionMMoE
from mmoe_lib.models.baselines import SharedBottom, SingleTask
from mmoe_lib.models.cross_stitch import CrossStitch, CrossStitchUnit
from mmoe_lib.models.dselect_k import DSelectKMMoE, single_expert_weights, smooth_step
from mmoe_lib.models.embeddings import Embeddings
from mmoe_lib.models.expert_transformer import TransformerBlock, TransformerMMoE
from mmoe_lib.models.gate_dropout import GateDropoutMMoE
from mmoe_lib.models.l2_constrained import L2Constrained
from mmoe_lib.models.mixture import MMoE, OMoE
from mmoe_lib.models.progressive import CGC, PLE, ExtractionLevel
from mmoe_lib.models.ranking import Ranker
from mmoe_lib.models.regularised_gates import RegularisedMMoE, expert_similarity, gate_entropy, use_imbalance
from mmoe_lib.models.sizes import PAPER_SIZES, count_multiply_adds, count_parameters, paper_model
from mmoe_lib.models.sparse_gates import TopKMMoE
from mmoe_lib.models.tensor_factorization import TensorFactorization, TuckerLayer

__all__ = [
    "CGC",
    "PAPER_SIZES",
    "PLE",
    "AttentionMMoE",
    "CrossStitch",
    "CrossStitchUnit",
    "DSelectKMMoE",
    "Embeddings",
    "ExtractionLevel",
    "GateDropoutMMoE",
    "L2Constrained",
    "MMoE",
    "OMoE",
    "Ranker",
    "RegularisedMMoE",
    "SharedBottom",
    "SingleTask",
    "TensorFactorization",
    "TopKMMoE",
    "TransformerBlock",
    "TransformerMMoE",
    "TuckerLayer",
    "count_multiply_adds",
    "count_parameters",
    "expert_similarity",
    "gate_entropy",
    "paper_model",
    "single_expert_weights",
    "smooth_step",
    "use_imbalance",
]
