"""Over the range of every size that a docstring allows, every parameter of every model gets a gradient."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mmoe_lib.models
import mmoe_lib.models.extensions
from mmoe_lib.models import (
    CrossStitch,
    L2Constrained,
    MMoE,
    OMoE,
    Ranker,
    SharedBottom,
    SingleTask,
    TensorFactorization,
)
from mmoe_lib.models.extensions import (
    CGC,
    PLE,
    AttentionMMoE,
    DSelectKMMoE,
    GateDropoutMMoE,
    RegularisedMMoE,
    TopKMMoE,
    TransformerMMoE,
)

D = 3
BOTTOM = {"num_tasks": (1, 2), "bottom_widths": ((), (1,), (4, 3)), "tower_widths": ((), (2,))}
MIXTURE = {"num_tasks": (1, 2), "num_experts": (1, 2, 4), "expert_widths": ((2,), (4, 3))}
EXTRACTION = {
    "num_tasks": (1, 2),
    "shared_experts": (0, 1, 2),
    "task_experts": (0, 1, 2),
    "expert_widths": ((3,),),
}
SIZES: dict[Callable[..., nn.Module], dict[str, tuple[Any, ...]]] = {
    SingleTask: BOTTOM,
    SharedBottom: BOTTOM,
    L2Constrained: {**BOTTOM, "alpha": (0.0, 0.1)},
    CrossStitch: {**BOTTOM, "bottom_widths": ((1,), (4, 3)), "own": (0.0, 0.9, 1.0)},
    TensorFactorization: {**BOTTOM, "bottom_widths": ((2,), (3, 2)), "ranks": ((1, 1, 1), (2, 2, 1))},
    OMoE: MIXTURE,
    MMoE: MIXTURE,
    TopKMMoE: {**MIXTURE, "k": (1, 2, 3, 4)},
    DSelectKMMoE: {**MIXTURE, "num_experts": (2, 4), "k": (1, 2, 4), "gamma": (0.1, 1.0, 10.0)},
    AttentionMMoE: {**MIXTURE, "query_width": (1, 4)},
    TransformerMMoE: {**MIXTURE, "expert_widths": ((2,), (4,)), "heads": (1, 2)},
    GateDropoutMMoE: {**MIXTURE, "dropout": (0.0, 0.99)},
    RegularisedMMoE: {**MIXTURE, "entropy": (-0.1, 0.1), "balance": (0.0, 0.1), "orthogonality": (0.1,)},
    CGC: EXTRACTION,
    PLE: {**EXTRACTION, "levels": (2, 3)},
}
REFUSED = ("expected 1 to", "empty", "at least one", "a larger rank")
"""What the constructors say of sizes that do not go together."""


def _models(build: Callable[..., nn.Module]) -> Iterator[tuple[dict[str, Any], Callable[[int], nn.Module]]]:
    for values in itertools.product(*SIZES[build].values()):
        sizes = dict(zip(SIZES[build], values, strict=True))

        def seeded(seed: int, sizes: dict[str, Any] = sizes) -> nn.Module:
            return build(D, **sizes, generator=torch.Generator().manual_seed(seed))

        try:
            seeded(0)
        except ValueError as error:
            if not any(word in str(error) for word in REFUSED):
                raise
            continue
        yield sizes, seeded


def _one_choice(name: str, sizes: dict[str, Any]) -> bool:
    """Whether a parameter is that of a choice among one expert, which the docstring says has nothing to learn."""
    if "shared_experts" in sizes:
        of_task = sizes["shared_experts"] + sizes["task_experts"] == 1
        of_all = sizes["shared_experts"] + sizes["num_tasks"] * sizes["task_experts"] == 1
        return (of_task and ".gates." in name) or (of_all and ".shared_gate." in name)
    if sizes.get("num_experts") != 1:
        return False
    return name.split(".")[0] in ("gate", "gates", "keys", "queries")


def _reached(model: nn.Module, x: Tensor, y: Tensor) -> set[str]:
    loss = (model(x) - y).square().mean(dim=0).sum()
    penalty: Any = getattr(model, "penalty", None)
    (loss + (penalty(x) if penalty else 0.0)).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}


@pytest.mark.parametrize("build", SIZES, ids=lambda build: build.__name__)
def test_every_parameter_gets_a_gradient_at_every_size(build: Callable[..., nn.Module]) -> None:
    generator = torch.Generator().manual_seed(9)
    tried = 0
    for sizes, seeded in _models(build):
        x, y = (torch.randn(32, n, generator=generator) for n in (D, sizes["num_tasks"]))
        missing = {name for name, _ in seeded(0).named_parameters() if not _one_choice(name, sizes)}
        for seed in range(40):  # at one seed all units of a small layer may be asleep
            missing -= _reached(seeded(seed), x, y)
            if not missing:
                break
        assert not missing, (sizes, missing)
        tried += 1
    assert tried >= 8


def test_a_gate_of_one_choice_is_the_only_one_that_does_not_learn() -> None:
    """The exception of the test above is met by what it says."""
    for build in (MMoE, OMoE, AttentionMMoE):
        model = build(D, 2, 1, (4,), generator=torch.Generator().manual_seed(0))
        reached = _reached(model, torch.randn(32, D), torch.randn(32, 2))
        unreached = {name for name, _ in model.named_parameters()} - reached
        assert unreached
        assert all(_one_choice(name, {"num_experts": 1}) for name in unreached)


def test_no_model_is_left_out() -> None:
    modules = (mmoe_lib.models, mmoe_lib.models.extensions)
    parts = {"CrossStitchUnit", "Embeddings", "TuckerLayer"}
    there = {
        getattr(module, name)
        for module in modules
        for name in module.__all__
        if inspect.isclass(getattr(module, name)) and issubclass(getattr(module, name), nn.Module)
        if name not in parts
    }
    assert there == {*SIZES, Ranker}  # whose top is one of the others; its own tests try its tables


def test_a_weight_that_is_kept_alone_is_1_and_has_the_gradient_of_its_softmax() -> None:
    model = TopKMMoE(1, 1, 2, (1,), k=1, generator=torch.Generator().manual_seed(1)).double()
    x = torch.ones(1, 1, dtype=torch.float64)
    with torch.no_grad():
        model.gates.weight.copy_(torch.tensor([[0.3], [0.0]]))
    assert model.gate_weights(x).tolist() == [[[1.0, 0.0]]]
    (gradient,) = torch.autograd.grad(model.gate_weights(x)[0, 0, 0], model.gates.weight)
    p = torch.sigmoid(torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(gradient.flatten(), torch.stack([p * (1 - p), -p * (1 - p)]))


def test_a_layer_norm_of_one_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="width is 1, expected 2 or more") as caught:
        TransformerMMoE(D, 2, 2, (1,), heads=1)
    assert "\n" not in str(caught.value)


def test_extensions_are_found_where_they_stood() -> None:
    assert mmoe_lib.models.TopKMMoE is mmoe_lib.models.extensions.TopKMMoE
    with pytest.raises(AttributeError, match="no attribute 'TopMMoE'"):
        _ = mmoe_lib.models.TopMMoE
