"""What the extensions cost beyond one multiply-add a weight, told to `mmoe_lib.models.costs`."""

from __future__ import annotations

from mmoe_lib.models.costs import COUNTED_APART, beyond_weights
from mmoe_lib.models.extensions.attention_gates import AttentionMMoE
from mmoe_lib.models.extensions.dselect_k import DSelectKMMoE
from mmoe_lib.models.extensions.expert_transformer import TransformerBlock, TransformerMMoE
from mmoe_lib.models.extensions.progressive import ExtractionLevel
from mmoe_lib.models.layers import Experts

COUNTED_APART.append(TransformerBlock)


def _mixtures(num_tasks: int, experts: Experts) -> int:
    return num_tasks * experts.num_experts * experts.num_outputs


@beyond_weights.register
def _(part: AttentionMMoE) -> int:
    # keys and queries read n outputs; each weight is counted once already
    again = part.experts.num_experts - 1
    read = again * (part.keys.weight.numel() + part.queries.weight.numel())
    return _mixtures(part.num_tasks, part.experts) + read


@beyond_weights.register
def _(part: DSelectKMMoE) -> int:
    selected = part.num_tasks * part.num_selectors * part.experts.num_experts
    return _mixtures(part.num_tasks, part.experts) + selected


@beyond_weights.register
def _(part: TransformerMMoE) -> int:
    n, h = part.experts.num_experts, part.experts.num_outputs
    # four h x h matrices of the attention, then Q K^T and its product with V, then the two of the feed-forward
    transformed = n * 4 * h * h + 2 * n * n * h + n * 4 * h * h
    return _mixtures(part.num_tasks, part.experts) + transformed


@beyond_weights.register
def _(part: ExtractionLevel) -> int:
    # a gate has as many outputs as it mixes experts
    gates = [gate for gate in [*part.gates, part.shared_gate] if gate is not None]
    return sum(gate.out_features for gate in gates) * part.num_outputs
