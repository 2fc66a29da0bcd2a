"""What came after the paper: other gates, gates regularised in training, and layers of experts; as modules for one run."""

import mmoe_lib.models.extensions.costs  # noqa: F401 - so that `count_multiply_adds` knows these models
from mmoe_lib.models.extensions.attention_gates import AttentionMMoE
from mmoe_lib.models.extensions.dselect_k import DSelectKMMoE
from mmoe_lib.models.extensions.expert_transformer import TransformerMMoE
from mmoe_lib.models.extensions.gate_dropout import GateDropoutMMoE
from mmoe_lib.models.extensions.progressive import CGC, PLE
from mmoe_lib.models.extensions.regularised_gates import RegularisedMMoE
from mmoe_lib.models.extensions.sparse_gates import TopKMMoE

__all__ = [
    "CGC",
    "PLE",
    "AttentionMMoE",
    "DSelectKMMoE",
    "GateDropoutMMoE",
    "RegularisedMMoE",
    "TopKMMoE",
    "TransformerMMoE",
]
