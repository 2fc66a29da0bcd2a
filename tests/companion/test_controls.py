"""The controls of the mixture: identities with the models that they take something away from."""

from typing import Any

import pytest
import torch
from torch import nn

from companion.controls import CONTROLS, averaged_gates, builder_of
from mmoe_lib.models import MMoE, OMoE, SharedBottom
from mmoe_lib.training import Ensemble, TrainingSettings, squared_error, train

SIZES = {"num_experts": 3, "expert_widths": (4,), "tower_widths": (5,)}


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _inputs(rows: int = 7, width: int = 6) -> torch.Tensor:
    return torch.randn(rows, width, generator=_seeded(9), dtype=torch.float64)


@pytest.mark.parametrize("name", [*CONTROLS, "Shared-Bottom-96-32", "Single-Task-61"])
def test_controls_are_as_large_as_the_papers_models(name: str) -> None:
    model = builder_of(name)(100, 2, generator=_seeded())
    numbers = sum(parameter.numel() for parameter in model.parameters())
    largest = 27_746 if name == "Own-Mixtures-8" else 14_818  # twice OMoE's experts and gates; MMoE's
    assert 13_255 <= numbers <= largest
    assert model(torch.zeros(3, 100)).shape == (3, 2)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="model is 'MoE', expected one of"):
        builder_of("MoE")


def test_own_mixtures_share_nothing() -> None:
    model: Any = builder_of("Own-Mixtures-4")(100, 2, generator=_seeded())
    gradients = torch.autograd.grad(
        model(torch.randn(5, 100))[:, 0].sum(), list(model.mixtures[1].parameters()), allow_unused=True
    )
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_a_gated_bottom_with_open_gates_is_a_shared_bottom() -> None:
    """sigmoid(0) = 1/2, so with V = 0 it is a Shared-Bottom of half the values."""
    gated: Any = builder_of("Gated-Bottom-62")(100, 2, generator=_seeded()).double()
    nn.init.zeros_(gated.gate.weight)
    bottom: Any = SharedBottom(100, 2, (62,), (8,), generator=_seeded()).double()
    bottom.bottom.layers[0].load_state_dict(
        {name: value / 2 for name, value in gated.values.state_dict().items()}
    )
    bottom.towers.load_state_dict(gated.towers.state_dict())
    x = _inputs(width=100)
    torch.testing.assert_close(gated(x), bottom(x), rtol=0, atol=1e-12)


def test_a_constant_gate_is_a_gate_of_zeros() -> None:
    constant: Any = builder_of("OMoE-Constant-Gate")(100, 2, generator=_seeded()).double()
    mixture = OMoE(100, 2, 8, (16,), (8,)).double()
    mixture.load_state_dict(constant.state_dict())
    nn.init.zeros_(mixture.gate.weight)
    x = _inputs(width=100)
    torch.testing.assert_close(constant(x), mixture(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(constant.gate_weights(x), mixture.gate_weights(x), rtol=0, atol=1e-12)


def test_frozen_gates_answer_as_mmoe_and_stay_while_the_rest_learns() -> None:
    x = torch.randn(2, 16, 100, generator=_seeded())
    runs = Ensemble(builder_of_two("MMoE-Frozen-Gates"), seeds=range(2))
    before = [
        {name: value.clone() for name, value in runs.module(run).state_dict().items()} for run in range(2)
    ]
    plain = MMoE(100, 2, 8, (16,), (8,))
    plain.load_state_dict(before[0])
    torch.testing.assert_close(runs.module(0)(x[0]), plain(x[0]))
    batches = iter([(x, x[..., :2])] * 20)
    train(runs, batches, squared_error, TrainingSettings(20, learning_rate=1e-2), progress=False)
    for run in range(2):
        after = runs.module(run).state_dict()
        changed = {name for name, value in after.items() if not torch.equal(value, before[run][name])}
        assert "gates.weight" not in changed
        assert changed == set(after) - {"gates.weight"}


def builder_of_two(name: str):  # type: ignore[no-untyped-def]
    build = builder_of(name)
    return lambda generator: build(100, 2, generator=generator)


@pytest.mark.parametrize("kind", [OMoE, MMoE])
def test_averaged_gates_are_the_means_of_the_gates(kind: type[OMoE] | type[MMoE]) -> None:
    model = kind(6, 2, **SIZES, generator=_seeded()).double()  # type: ignore[arg-type]
    x = _inputs()
    weights = model.gate_weights(x).mean(dim=0)  # (K, n)
    expected = []
    for task in range(2):
        mixed = sum(weights[task, expert] * model.experts(x)[:, expert] for expert in range(3))
        expected.append(model.towers.towers[task](mixed))
    torch.testing.assert_close(averaged_gates(model, x), torch.stack(expected, dim=1), rtol=0, atol=1e-12)
    # one row is its own mean
    torch.testing.assert_close(averaged_gates(model, x[:1]), model(x[:1]), rtol=0, atol=1e-12)
