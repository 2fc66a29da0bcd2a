"""The models: identities between them, sizes of the paper, and what bad input gets."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmoe_lib.models import (
    PAPER_SIZES,
    MMoE,
    OMoE,
    SharedBottom,
    SingleTask,
    count_multiply_adds,
    count_parameters,
    paper_model,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _x(rows: int = 6, width: int = 5) -> Tensor:
    return torch.randn(rows, width, generator=_generator(99), dtype=torch.float64)


SMALL: dict[str, Callable[..., nn.Module]] = {
    "Single-Task": lambda k, **more: SingleTask(5, k, (6, 4), (3,), **more),
    "Shared-Bottom": lambda k, **more: SharedBottom(5, k, (6, 4), (3,), **more),
    "OMoE": lambda k, **more: OMoE(5, k, 3, (6, 4), (3,), **more),
    "MMoE": lambda k, **more: MMoE(5, k, 3, (6, 4), (3,), **more),
}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("Shared-Bottom", 13_255), ("OMoE", 14_018), ("MMoE", 14_818), ("Shared-Bottom-16", 1_906)],
)
def test_parameter_counts_of_the_paper(name: str, parameters: int) -> None:
    assert count_parameters(paper_model(name)(100, 2)) == parameters


def test_the_paper_counts_alike() -> None:
    # 13,056 in its way of counting: weights of the experts and of the towers' first layer.
    assert 100 * 16 * 8 + 16 * 8 * 2 == 13_056
    assert 13_056 // (100 + 8 * 2) == 112  # exactly 112.55; the paper's 113 rounds up
    assert dict(PAPER_SIZES["Shared-Bottom"](100, 2).named_parameters())["bottom.layers.0.bias"].shape == (
        113,
    )


def test_multiply_adds_count_weights_and_mixing() -> None:
    assert count_multiply_adds(SharedBottom(5, 2, (4,), (3,))) == 5 * 4 + 2 * (4 * 3 + 3)
    assert count_multiply_adds(OMoE(5, 2, 3, (4,))) == 5 * 12 + 5 * 3 + 3 * 4 + 2 * 4
    assert count_multiply_adds(MMoE(5, 2, 3, (4,))) == 5 * 12 + 2 * 5 * 3 + 2 * 3 * 4 + 2 * 4


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_one_output_a_task_also_for_one_row(name: str, num_tasks: int) -> None:
    model = SMALL[name](num_tasks, generator=_generator()).double()
    x = _x()
    assert model(x).shape == (6, num_tasks)
    torch.testing.assert_close(model(x[:1]), model(x)[:1])
    assert model(x[:0]).shape == (0, num_tasks)


@pytest.mark.parametrize("name", SMALL)
def test_same_generator_same_weights(name: str) -> None:
    state = torch.random.get_rng_state()
    first, second, other = (SMALL[name](2, generator=_generator(seed)).double() for seed in (1, 1, 2))
    assert torch.equal(first(_x()), second(_x()))
    assert not torch.equal(first(_x()), other(_x()))
    assert torch.equal(torch.random.get_rng_state(), state)  # no global generator was touched


def test_omoe_is_mmoe_with_tied_gates() -> None:
    mmoe = MMoE(5, 2, 3, (4,), (3,), generator=_generator()).double()
    omoe = OMoE(5, 2, 3, (4,), (3,)).double()
    omoe.experts.load_state_dict(mmoe.experts.state_dict())
    omoe.towers.load_state_dict(mmoe.towers.state_dict())
    with torch.no_grad():
        mmoe.gates.weight[3:] = mmoe.gates.weight[:3]
        omoe.gate.weight.copy_(mmoe.gates.weight[:3])
    torch.testing.assert_close(omoe(_x()), mmoe(_x()), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(omoe.gate_weights(_x()), mmoe.gate_weights(_x()), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", [OMoE, MMoE])
def test_one_expert_is_shared_bottom(kind: Any) -> None:
    mixture = kind(5, 2, 1, (6,), (3,), generator=_generator()).double()
    shared = SharedBottom(5, 2, (6,), (3,)).double()
    shared.bottom.layers[0].load_state_dict(mixture.experts.first.state_dict())
    shared.towers.load_state_dict(mixture.towers.state_dict())
    torch.testing.assert_close(mixture(_x()), shared(_x()), rtol=1e-13, atol=1e-13)


class ListOfExperts(nn.Module):
    """Equations 6-8 written out with one small network an expert, as chapter 2 shows it."""

    def __init__(self, experts: list[nn.Module], gates: list[nn.Module], towers: list[nn.Module]) -> None:
        super().__init__()
        self.experts, self.gates, self.towers = map(nn.ModuleList, (experts, gates, towers))

    def forward(self, x: Tensor) -> Tensor:
        f = [expert(x) for expert in self.experts]
        outputs = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            g = torch.softmax(gate(x), dim=-1)
            mixed = sum((g[:, i : i + 1] * f[i] for i in range(len(f))), torch.zeros_like(f[0]))
            outputs.append(tower(mixed))
        return torch.stack(outputs, dim=-1)


def test_experts_as_one_matrix_equal_a_list_of_experts() -> None:
    mmoe = MMoE(5, 2, 3, (6, 4), (3,), generator=_generator()).double()
    experts: list[nn.Module] = []
    gates: list[nn.Module] = []
    for i in range(3):
        first, second = nn.Linear(5, 6).double(), nn.Linear(6, 4).double()
        with torch.no_grad():
            first.weight.copy_(mmoe.experts.first.weight[6 * i : 6 * i + 6])
            first.bias.copy_(mmoe.experts.first.bias[6 * i : 6 * i + 6])
            second.weight.copy_(mmoe.experts.weights[0][i].T)
            second.bias.copy_(mmoe.experts.biases[0][i, 0])
        experts.append(nn.Sequential(first, nn.ReLU(), second, nn.ReLU()))
    for k in range(2):
        gate = nn.Linear(5, 3, bias=False).double()
        with torch.no_grad():
            gate.weight.copy_(mmoe.gates.weight[3 * k : 3 * k + 3])
        gates.append(gate)
    listed = ListOfExperts(experts, gates, list(mmoe.towers.towers))
    torch.testing.assert_close(mmoe(_x()), listed(_x()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [OMoE, MMoE])
def test_gate_weights_are_a_distribution_from_the_raw_input(kind: Any) -> None:
    model = kind(5, 2, 3, (4,), generator=_generator()).double()
    weights = model.gate_weights(_x())
    assert weights.shape == (6, 2, 3)
    assert bool((weights > 0).all())
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(6, 2, dtype=torch.float64))
    # no bias in equation 8: without input the gate is indifferent
    torch.testing.assert_close(
        model.gate_weights(0 * _x()), torch.full((6, 2, 3), 1 / 3, dtype=torch.float64)
    )
    assert torch.equal(weights[:, 0], weights[:, 1]) == (kind is OMoE)


@pytest.mark.parametrize("name", ["OMoE", "MMoE"])
def test_experts_start_different_and_of_full_rank(name: str) -> None:
    # closes two traps: one seeded initialiser for all experts, and an initialiser of rank 1
    model = paper_model(name)(100, 2, generator=_generator())
    weight = dict(model.named_parameters())["experts.first.weight"].detach()
    experts = weight.unflatten(0, (8, 16))
    assert [int(torch.linalg.matrix_rank(expert)) for expert in experts] == [16] * 8
    correlations = torch.corrcoef(experts.flatten(1)) - torch.eye(8)
    assert float(correlations.abs().max()) < 0.1


def test_initialisation_is_pytorchs_own() -> None:
    layer = SharedBottom(100, 2, (400,), generator=_generator()).bottom.layers[0]
    reference = nn.Linear(100, 400)
    for ours, theirs in zip(layer.parameters(), reference.parameters(), strict=True):
        assert float(ours.detach().abs().max()) == pytest.approx(0.1, rel=0.02)
        assert float(ours.detach().std()) == pytest.approx(float(theirs.detach().std()), rel=0.1)


def test_tasks_of_single_task_share_nothing() -> None:
    model = SingleTask(5, 2, (6,), (3,), generator=_generator()).double()
    model(_x())[:, 0].sum().backward()
    first, second = (
        sum(float(torch.as_tensor(p.grad).abs().sum()) for p in network.parameters())
        for network in model.networks
    )
    assert first > 0
    assert second == 0


@pytest.mark.parametrize(
    "build",
    [
        lambda: MMoE(5, 2, 0, (4,)),
        lambda: MMoE(5, 0, 2, (4,)),
        lambda: MMoE(5, 2, 2, (0,)),
        lambda: OMoE(5, 2, 2, (4,), (0,)),
        lambda: SharedBottom(5, 0, (4,)),
        lambda: SharedBottom(0, 2, (4,)),
        lambda: SingleTask(5, 0, (4,)),
    ],
)
def test_a_model_without_experts_tasks_or_units_is_refused(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match="expected 1 or more") as caught:
        build()
    assert "\n" not in str(caught.value)


def test_an_expert_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="expert_widths is empty"):
        MMoE(5, 2, 2, ())


@pytest.mark.parametrize("name", SMALL)
def test_inputs_of_wrong_width_or_type_are_refused(name: str) -> None:
    model = SMALL[name](2, generator=_generator()).double()
    with pytest.raises(ValueError, match=r"expected \(batch, 5\)"):
        model(torch.zeros(3, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"expected \(batch, 5\)"):
        model(torch.zeros(5, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"expected torch.float64"):
        model(torch.zeros(3, 5))


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of Shared-Bottom-16"):
        paper_model("MMOE")
