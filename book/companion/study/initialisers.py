"""Initial weights: the paper names none, so the appendix on its open choices compares two."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn


def keep_torch(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """PyTorch's rule, with which every model of this library starts: U(-1/sqrt(n), 1/sqrt(n)), biases too."""
    return model


def glorot(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Glorot and Bengio's rule (2010): U(-a, a) with a = sqrt(6 / (n_in + n_out)), biases 0.

    It is what TensorFlow 1 drew unless told otherwise, so the authors may have used it. The experts' first
    layers lie in one matrix, and so do the gates: n_out is that of one expert, of one gate.
    """
    for name, parameter in model.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
            continue
        inputs, outputs = parameter.shape[-1], parameter.shape[-2]
        if name == "experts.first.weight":
            outputs //= model.experts.num_experts  # type: ignore[union-attr, operator, assignment]
        elif name == "gates.weight":
            outputs //= model.num_tasks  # type: ignore[operator, assignment]
        bound = math.sqrt(6 / (inputs + outputs))
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return model


INITIALISERS: dict[str, Callable[[nn.Module, torch.Generator], nn.Module]] = {
    "torch": keep_torch,
    "glorot": glorot,
}
