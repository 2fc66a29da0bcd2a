"""The sizes that the paper's synthetic experiments use, by name, and how to count them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from mmoe_lib.models.attention_gates import AttentionMMoE
from mmoe_lib.models.baselines import SharedBottom, SingleTask
from mmoe_lib.models.cross_stitch import CrossStitch, CrossStitchUnit
from mmoe_lib.models.dselect_k import DSelectKMMoE
from mmoe_lib.models.embeddings import Embeddings
from mmoe_lib.models.expert_transformer import TransformerBlock, TransformerMMoE
from mmoe_lib.models.mixture import MMoE, OMoE
from mmoe_lib.models.progressive import ExtractionLevel
from mmoe_lib.models.tensor_factorization import TensorFactorization, TuckerLayer

ModelBuilder = Callable[..., nn.Module]
"""Called as build(num_inputs, num_tasks, generator=...)."""

PAPER_SIZES: dict[str, ModelBuilder] = {
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


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers of a model, biases, gates and outputs included."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_multiply_adds(model: nn.Module) -> int:
    """Multiply-adds of one example's forward pass.

    One a weight, n a weight that reads each of n experts' outputs, one a unit of an expert that a gate mixes, K^2 a
    unit that a cross-stitch unit mixes, and for a Tucker layer its factors in the order in which they are applied.
    All experts are computed, also those that a sparse gate leaves out. Biases, norms, ReLU, softmax and smooth steps
    are left out, as is usual, and so are embeddings, which are looked up, and what a batch needs once (S x_3 U3).
    """
    apart = TuckerLayer | CrossStitchUnit | Embeddings | TransformerBlock
    special = [module for module in model.modules() if isinstance(module, apart)]
    counted_apart = {id(parameter) for module in special for parameter in module.parameters()}
    weights = sum(
        p.numel() for name, p in model.named_parameters() if "bias" not in name and id(p) not in counted_apart
    )
    return weights + sum(_mixed(part) for part in model.modules())


def _mixed(model: nn.Module) -> int:
    """The multiply-adds of a part that are not one a weight."""
    mixed = 0
    if isinstance(model, OMoE | MMoE | AttentionMMoE | DSelectKMMoE):
        mixtures = 1 if isinstance(model, OMoE) else model.num_tasks
        mixed = mixtures * model.experts.num_experts * model.experts.num_outputs
    if isinstance(model, DSelectKMMoE):
        mixed += model.num_tasks * model.num_selectors * model.experts.num_experts
    if isinstance(model, AttentionMMoE):
        # keys and queries read n outputs; each weight is counted once already
        mixed += (model.experts.num_experts - 1) * (model.keys.weight.numel() + model.queries.weight.numel())
    if isinstance(model, TransformerMMoE):
        n, h = model.experts.num_experts, model.experts.num_outputs
        # four h x h matrices of the attention, then Q K^T and its product with V, then the two of the feed-forward
        mixed += n * 4 * h * h + 2 * n * n * h + n * 4 * h * h
    if isinstance(model, ExtractionLevel):
        # a gate has as many outputs as it mixes experts
        gates = [gate for gate in [*model.gates, model.shared_gate] if gate is not None]
        mixed = sum(gate.out_features for gate in gates) * model.num_outputs
    if isinstance(model, CrossStitch):
        widths = [layers[0].out_features for layers in model.layers]  # type: ignore[index]
        mixed = sum(model.num_tasks**2 * width for width in widths)
    if isinstance(model, TensorFactorization):
        for number, layer in enumerate(model.layers):
            tasks, inputs = len(layer.tasks), layer.inputs.numel()  # type: ignore[arg-type, operator]
            # x U1 (all tasks read the same x in the first layer), then the slice, then U2
            mixed += inputs * (1 if number == 0 else tasks)
            mixed += tasks * (layer.core[..., 0].numel() + layer.outputs.numel())  # type: ignore[index, operator]
    return mixed
