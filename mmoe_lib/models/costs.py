"""What a model costs: its parameters, and the multiply-adds of one example."""

from __future__ import annotations

from functools import singledispatch

from torch import nn

from mmoe_lib.models.cross_stitch import CrossStitch, CrossStitchUnit
from mmoe_lib.models.embeddings import Embeddings
from mmoe_lib.models.mixture import MMoE, OMoE
from mmoe_lib.models.tensor_factorization import TensorFactorization, TuckerLayer


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
    counted_apart = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, tuple(COUNTED_APART))
        for parameter in module.parameters()
    }
    weights = sum(
        p.numel() for name, p in model.named_parameters() if "bias" not in name and id(p) not in counted_apart
    )
    return weights + sum(beyond_weights(part) for part in model.modules())


COUNTED_APART: list[type[nn.Module]] = [TuckerLayer, CrossStitchUnit, Embeddings]
"""Modules whose weights are not one multiply-add each: the model that holds them counts for them."""


@singledispatch
def beyond_weights(part: nn.Module) -> int:
    """The multiply-adds of a module that are not one a weight; another kind of module is told by `register`."""
    return 0


@beyond_weights.register
def _(part: MMoE) -> int:
    return part.num_tasks * part.experts.num_experts * part.experts.num_outputs


@beyond_weights.register
def _(part: OMoE) -> int:
    return part.experts.num_experts * part.experts.num_outputs


@beyond_weights.register
def _(part: CrossStitch) -> int:
    widths = [layers[0].out_features for layers in part.layers]  # type: ignore[index]
    return sum(part.num_tasks**2 * width for width in widths)


@beyond_weights.register
def _(part: TensorFactorization) -> int:
    mixed = 0
    for number, layer in enumerate(part.layers):
        tasks, inputs = len(layer.tasks), layer.inputs.numel()  # type: ignore[arg-type, operator]
        # x U1 (all tasks read the same x in the first layer), then the slice, then U2
        mixed += inputs * (1 if number == 0 else tasks)
        mixed += tasks * (layer.core[..., 0].numel() + layer.outputs.numel())  # type: ignore[index, operator]
    return mixed
