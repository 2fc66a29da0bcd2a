"""The baselines of section 6.1: what each is at its limits, by hand, and in an ensemble."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from mmoe_lib.models import (
    CrossStitch,
    CrossStitchUnit,
    L2Constrained,
    MMoE,
    OMoE,
    SharedBottom,
    SingleTask,
    TensorFactorization,
    TuckerLayer,
    count_multiply_adds,
)
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import (
    Ensemble,
    TrainingSettings,
    binary_cross_entropy,
    epochs,
    squared_error,
    train,
)

Weights = dict[str, Tensor]
Ranks = tuple[int, int, int]
Builder = Callable[..., nn.Module]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _randn(*shape: int, seed: int = 99) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)


def _ranks(k: int) -> list[Ranks]:
    return [(3, 4, min(k, 2)), (5, 2, 1)]


NEW: dict[str, Builder] = {
    "L2-Constrained": lambda k, **more: L2Constrained(5, k, (6, 4), (3,), alpha=0.1, **more),
    "Cross-Stitch": lambda k, **more: CrossStitch(5, k, (6, 4), (3,), **more),
    "Tensor-Factorization": lambda k, **more: TensorFactorization(
        5, k, (6, 4), (3,), ranks=_ranks(k), **more
    ),
}
SEVEN: dict[str, Builder] = {
    "Single-Task": lambda k, **more: SingleTask(5, k, (6, 4), (3,), **more),
    "Shared-Bottom": lambda k, **more: SharedBottom(5, k, (6, 4), (3,), **more),
    "OMoE": lambda k, **more: OMoE(5, k, 3, (6, 4), (3,), **more),
    "MMoE": lambda k, **more: MMoE(5, k, 3, (6, 4), (3,), **more),
    **NEW,
}


def _parts(single: SingleTask) -> tuple[dict[tuple[int, int, str], Tensor], Weights]:
    """A SingleTask's bottoms by layer, task and kind, and its towers by their name in `Towers`."""
    bottoms, towers = {}, {}
    for name, value in single.state_dict().items():
        _, task, part, rest = name.split(".", 3)  # networks.<k>.<0 bottom, 1 tower>...
        if part == "0":
            _, layer, kind = rest.split(".")
            bottoms[int(layer), int(task), kind] = value
        else:
            towers[f"towers.towers.{task}.{rest}"] = value
    return bottoms, towers


# --- cross-stitch ----------------------------------------------------------------------------------


def _stitched(single: SingleTask, model: CrossStitch) -> CrossStitch:
    bottoms, towers = _parts(single)
    layers = {f"layers.{layer}.{task}.{kind}": value for (layer, task, kind), value in bottoms.items()}
    model.load_state_dict({**model.state_dict(), **layers, **towers})
    return model


@pytest.mark.parametrize("num_tasks", [2, 3])
@pytest.mark.parametrize("bottom", [(6,), (6, 4)])
def test_cross_stitch_with_identity_matrices_is_single_task(num_tasks: int, bottom: tuple[int, ...]) -> None:
    single = SingleTask(5, num_tasks, bottom, (3,), generator=_generator()).double()
    stitched = _stitched(single, CrossStitch(5, num_tasks, bottom, (3,), own=1.0).double())
    _assert_same(stitched(_randn(7, 5)), single(_randn(7, 5)))
    exchanging = _stitched(single, CrossStitch(5, num_tasks, bottom, (3,)).double())
    assert not torch.allclose(exchanging(_randn(7, 5)), single(_randn(7, 5)))


def test_a_cross_stitch_unit_mixes_as_by_hand() -> None:
    unit = CrossStitchUnit(2)
    activations = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # one row: x_1 = (1, 2), x_2 = (3, 4)
    torch.testing.assert_close(unit(activations), torch.tensor([[[1.2, 2.2], [2.8, 3.8]]]))
    with torch.no_grad():
        unit.alpha.copy_(torch.tensor([[0.9, 0.1], [0.3, 0.7]]))  # not symmetric
    torch.testing.assert_close(unit(activations), torch.tensor([[[1.2, 2.2], [2.4, 3.4]]]))
    unit(activations)[:, 0].sum().backward()  # a_11 (1 + 2) + a_12 (3 + 4)
    assert torch.equal(torch.as_tensor(unit.alpha.grad), torch.tensor([[3.0, 7.0], [0.0, 0.0]]))


@pytest.mark.parametrize(("num_tasks", "other"), [(2, 0.1), (3, 0.05), (6, 0.02)])
def test_the_rest_comes_in_equal_parts_from_the_other_networks(num_tasks: int, other: float) -> None:
    expected = torch.eye(num_tasks) * (0.9 - other) + other
    for unit in CrossStitch(5, num_tasks, (6, 4)).stitches:
        torch.testing.assert_close(dict(unit.named_parameters())["alpha"].detach(), expected)


@pytest.mark.parametrize("num_tasks", [2, 3])
def test_every_unit_of_cross_stitch_mixes_what_the_next_layer_reads(num_tasks: int) -> None:
    model = CrossStitch(5, num_tasks, (6, 4), generator=_generator()).double()
    alphas = {f"stitches.{i}.alpha": _randn(num_tasks, num_tasks, seed=i) for i in range(2)}
    model.load_state_dict({**model.state_dict(), **alphas})
    state, tasks = model.state_dict(), range(num_tasks)
    inputs = [_randn(7, 5) for _ in tasks]
    for i in range(2):
        hidden = [
            (inputs[k] @ state[f"layers.{i}.{k}.weight"].T + state[f"layers.{i}.{k}.bias"]).clamp(min=0)
            for k in tasks
        ]
        alpha = alphas[f"stitches.{i}.alpha"]
        mixed = [torch.zeros_like(hidden[0]) for _ in tasks]
        for k, j in itertools.product(tasks, tasks):
            mixed[k] += alpha[k, j] * hidden[j]  # not in equal parts, nor positive: alphas are free
        inputs = mixed
    tower = "towers.towers.{}.output.{}".format
    outputs = [inputs[k] @ state[tower(k, "weight")].T + state[tower(k, "bias")] for k in tasks]
    _assert_same(model(_randn(7, 5)), torch.cat(outputs, dim=1))


def test_alphas_off_the_diagonal_get_gradients_also_from_the_identity() -> None:
    model = CrossStitch(5, 3, (6, 4), (3,), own=1.0, generator=_generator()).double()
    squared_error(model(_randn(16, 5)), _randn(16, 3, seed=1)).sum().backward()
    for stitch in model.stitches:
        assert bool((torch.as_tensor(dict(stitch.named_parameters())["alpha"].grad) != 0).all())


def test_with_all_alphas_equal_the_towers_read_the_same() -> None:
    model = CrossStitch(5, 3, (6, 4), (3,), generator=_generator()).double()
    read: list[Tensor] = []
    model.towers.register_forward_pre_hook(lambda _, inputs: read.extend(inputs))
    model(_randn(7, 5))
    assert not torch.allclose(read[0], read[1])
    shared = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    model.load_state_dict({**model.state_dict(), "stitches.1.alpha": shared})
    read.clear()
    model(_randn(7, 5))
    assert float(read[0].detach().std()) > 0
    for other in read[1:]:
        _assert_same(other, read[0])


# --- L2-constrained --------------------------------------------------------------------------------


def _squared_distances(model: L2Constrained) -> Tensor:
    """The sum over pairs of tasks of ||theta_j - theta_k||^2, from whole parameter vectors."""
    theta = [parameters_to_vector(network.parameters()) for network in model.networks]
    pairs = [(j, k) for k in range(len(theta)) for j in range(k)]
    return sum(((theta[j] - theta[k]).square().sum() for j, k in pairs), torch.zeros(()).double())


@pytest.mark.parametrize("num_tasks", [1, 2, 3])
@pytest.mark.parametrize("loss", [squared_error, binary_cross_entropy])
def test_without_alpha_l2_constrained_is_single_task_also_when_trained(
    num_tasks: int, loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    x, y = _randn(32, 5), (_randn(32, num_tasks, seed=1) > 0).double()
    constrained = Ensemble(
        partial(L2Constrained, 5, num_tasks, (4,), (3,), alpha=0.0), (3, 4), dtype=torch.float64
    )
    single = Ensemble(partial(SingleTask, 5, num_tasks, (4,), (3,)), (3, 4), dtype=torch.float64)
    assert torch.equal(constrained.predict(x), single.predict(x))
    start = single.copy_state()
    for ensemble in (constrained, single):
        train(ensemble, epochs(x, y, 8), loss, TrainingSettings(10, 0.01), progress=False)
    assert list(constrained.parameters) == list(single.parameters)
    for name, value in single.parameters.items():
        assert torch.equal(constrained.parameters[name], value)
        assert not torch.equal(start[name], value)


@pytest.mark.parametrize("num_tasks", [1, 2, 3, 4])
def test_the_penalty_is_alpha_times_the_squared_distance_of_every_pair(num_tasks: int) -> None:
    model = L2Constrained(5, num_tasks, (6, 4), (3,), alpha=0.3, generator=_generator()).double()
    penalty = model.penalty(torch.zeros(1, 5))
    assert penalty.shape == ()
    _assert_same(penalty, 0.3 * _squared_distances(model))
    assert (float(penalty.detach()) > 0) == (num_tasks > 1)


def test_the_penalty_reaches_every_weight_tower_and_bias() -> None:
    model = L2Constrained(5, 2, (6, 4), (3,), alpha=0.3, generator=_generator()).double()
    model.networks[1].load_state_dict(model.networks[0].state_dict())
    assert float(model.penalty(torch.zeros(1, 5)).detach()) == 0
    for parameter in model.networks[0].parameters():
        kept = parameter.detach().clone()
        parameter.data.add_(2)
        assert float(model.penalty(torch.zeros(1, 5)).detach()) == pytest.approx(0.3 * 4 * parameter.numel())
        parameter.data.copy_(kept)


def test_the_gradient_of_each_run_is_that_of_the_loss_written_out() -> None:
    ensemble = Ensemble(partial(L2Constrained, 5, 3, (4,), (3,), alpha=0.3), (3, 4), dtype=torch.float64)
    x, y = _randn(16, 5), _randn(16, 3, seed=1)
    gradients, losses = ensemble.gradients(squared_error, x, y)
    distances = []
    for run in range(2):
        module = ensemble.module(run)
        assert isinstance(module, L2Constrained)
        distances.append(_squared_distances(module))  # each run's own, not one for all
        of_tasks = (module(x) - y).square().mean(dim=0)
        written_out = of_tasks.sum() + 0.3 * distances[-1]
        expected = torch.autograd.grad(written_out, list(module.parameters()))
        _assert_same(losses[run], of_tasks.detach())  # those of the tasks alone
        for (name, _), gradient in zip(module.named_parameters(), expected, strict=True):
            _assert_same(gradients[name][run], gradient)
    assert not torch.isclose(distances[0], distances[1], rtol=0.01)


def test_alpha_is_a_plain_number_wherever_it_comes_from() -> None:
    """A number of numpy's, as from a table of results, would be traced as a tensor by torch.compile."""
    model = L2Constrained(3, 2, bottom_widths=(4,), alpha=np.float64(0.1))
    assert type(model.alpha) is float


def test_a_large_alpha_pulls_the_networks_together() -> None:
    x = _randn(64, 5)
    y = torch.stack([x[:, 0], -x[:, 0]], dim=1)  # tasks that disagree

    def distances(alpha: float) -> list[float]:
        ensemble = Ensemble(
            partial(L2Constrained, 5, 2, (4,), (3,), alpha=alpha), (3, 4), dtype=torch.float64
        )
        train(ensemble, epochs(x, y, 32), squared_error, TrainingSettings(100, 0.01), progress=False)
        modules = [ensemble.module(run) for run in range(2)]
        return [float(_squared_distances(m).detach()) for m in modules if isinstance(m, L2Constrained)]

    for held, free in zip(distances(10.0), distances(0.0), strict=True):
        assert free > 1
        assert held < 1e-3 * free


# --- tensor factorisation --------------------------------------------------------------------------


def _tucker(sides: Ranks, ranks: Ranks, **values: Tensor) -> TuckerLayer:
    layer = TuckerLayer(*sides, ranks, generator=_generator()).double()
    layer.load_state_dict({**layer.state_dict(), **values})
    return layer


def _unfolded(tensor: Tensor, mode: int) -> Tensor:
    return tensor.movedim(mode, 0).flatten(1)


def _hosvd(tensor: Tensor, ranks: Ranks) -> Weights:
    """De Lathauwer's decomposition: singular vectors of each unfolding, and the core that they leave."""
    factors = [
        torch.linalg.svd(_unfolded(tensor, mode), full_matrices=False).U[:, :rank]
        for mode, rank in enumerate(ranks)
    ]
    core = tensor
    for mode, factor in enumerate(factors):
        core = torch.tensordot(factor.T, core, dims=([1], [mode])).movedim(0, mode)
    return {"core": core, "inputs": factors[0], "outputs": factors[1], "tasks": factors[2]}


def test_the_tucker_weights_are_the_sum_written_out() -> None:
    sides, ranks = (5, 4, 3), (4, 3, 2)
    layer = _tucker(sides, ranks)
    core, u1, u2, u3 = (p.detach().numpy() for p in (layer.core, layer.inputs, layer.outputs, layer.tasks))
    expected = np.zeros(sides)
    for m, n, k in np.ndindex(*sides):
        for a, b, c in np.ndindex(*ranks):
            expected[m, n, k] += core[a, b, c] * u1[m, a] * u2[n, b] * u3[k, c]
    np.testing.assert_allclose(layer.weights().detach().numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("ranks", [(4, 3, 2), (1, 1, 1), (5, 4, 3), (2, 4, 1)])
def test_a_tucker_layer_computes_what_its_whole_tensor_does(ranks: Ranks) -> None:
    layer = _tucker((5, 4, 3), ranks)
    weights, shared, own = layer.weights(), _randn(7, 5), _randn(3, 7, 5)
    assert layer(shared).shape == (3, 7, 4)
    for task in range(3):
        of_shared = torch.relu(shared @ weights[:, :, task] + layer.bias[task])
        _assert_same(layer(shared)[task], of_shared)
        of_own = torch.relu(own[task] @ weights[:, :, task] + layer.bias[task])
        _assert_same(layer(own)[task], of_own)
        assert float(of_shared.detach().max()) > 0


@pytest.mark.parametrize("ranks", [(5, 4, 3), (3, 2, 2), (2, 2, 1), (1, 1, 1), (4, 4, 1)])
def test_the_ranks_are_those_of_the_unfolded_tensor(ranks: Ranks) -> None:
    weights = _tucker((5, 4, 3), ranks).weights().detach()
    assert [int(torch.linalg.matrix_rank(_unfolded(weights, mode))) for mode in range(3)] == list(ranks)


def test_at_full_rank_identities_leave_any_matrices_as_they_are() -> None:
    matrices = [_randn(5, 4, seed=seed) for seed in range(2)]
    layer = _tucker(
        (5, 4, 2),
        (5, 4, 2),
        core=torch.stack(matrices, dim=-1),
        **{name: torch.eye(n).double() for name, n in (("inputs", 5), ("outputs", 4), ("tasks", 2))},
    )
    assert torch.equal(layer.weights(), torch.stack(matrices, dim=-1))


def test_at_full_rank_the_layer_holds_any_tensor() -> None:
    tensor = _randn(5, 4, 3)
    layer = _tucker((5, 4, 3), (5, 4, 3), **_hosvd(tensor, (5, 4, 3)))
    _assert_same(layer.weights(), tensor)


def test_at_lower_rank_the_layer_holds_tensors_of_that_rank_and_no_others() -> None:
    low = torch.einsum("abc,ma,nb,kc->mnk", _randn(3, 2, 2), _randn(5, 3), _randn(4, 2), _randn(3, 2))
    layer = _tucker((5, 4, 3), (3, 2, 2), **_hosvd(low, (3, 2, 2)))
    _assert_same(layer.weights(), low)
    full = _randn(5, 4, 3)
    layer = _tucker((5, 4, 3), (3, 2, 2), **_hosvd(full, (3, 2, 2)))
    assert float((layer.weights() - full).detach().norm()) > 0.1 * float(full.norm())


def test_with_a_task_rank_of_1_the_matrices_are_multiples_of_one() -> None:
    layer = _tucker((5, 4, 3), (4, 3, 1))
    weights, factors = layer.weights(), layer.tasks[:, 0]
    for task in (1, 2):
        _assert_same(weights[:, :, task], factors[task] / factors[0] * weights[:, :, 0])
    two = _tucker((5, 4, 3), (4, 3, 2)).weights().detach()
    assert float((two[:, :, 1] / two[:, :, 0]).std()) > 0.1


def test_with_an_input_rank_of_1_every_unit_reads_one_projection() -> None:
    x = _randn(7, 5)
    narrow, wide = _tucker((5, 4, 3), (1, 3, 2)), _tucker((5, 4, 3), (2, 3, 2))
    for layer, blind in ((narrow, True), (wide, False)):
        read = layer.inputs[:, 0].detach()
        unread = _randn(5, seed=5)
        unread -= (unread @ read) / (read @ read) * read  # orthogonal to U1's first column
        assert torch.allclose(layer(x + unread), layer(x), rtol=1e-12, atol=1e-13) == blind
        assert not torch.allclose(layer(x + read), layer(x))


@pytest.mark.parametrize(("sides", "ranks"), [((6, 5, 3), (4, 3, 2)), ((20, 4, 2), (3, 4, 2))])
def test_tucker_weights_start_with_the_variance_of_a_linear_layer(sides: Ranks, ranks: Ranks) -> None:
    # weights of one draw hang together, so draws are what is counted: a mean of 600 and its standard error
    generator = _generator()
    layers = [TuckerLayer(*sides, ranks, generator) for _ in range(600)]
    squares = torch.stack([layer.weights().detach().square().mean() for layer in layers])
    error = float(squares.std()) / math.sqrt(len(squares))
    expected = 1 / (3 * sides[0])
    assert error < 0.06 * expected
    assert abs(float(squares.mean()) - expected) < 4 * error
    biases = torch.stack([layer.bias.detach() for layer in layers])
    assert float(biases.abs().max()) == pytest.approx(1 / math.sqrt(sides[0]), rel=0.01)


@pytest.mark.parametrize("num_tasks", [1, 2, 3])
@pytest.mark.parametrize("bottom", [(6,), (6, 4)])
def test_tensor_factorization_at_full_rank_is_single_task(num_tasks: int, bottom: tuple[int, ...]) -> None:
    single = SingleTask(5, num_tasks, bottom, (3,), generator=_generator()).double()
    ranks = [(m, n, num_tasks) for m, n in itertools.pairwise([5, *bottom])]
    model = TensorFactorization(5, num_tasks, bottom, (3,), ranks=ranks).double()
    bottoms, state = _parts(single)
    for i, sides in enumerate(ranks):
        of_tasks = [bottoms[i, k, "weight"].T for k in range(num_tasks)]
        biases = [bottoms[i, k, "bias"] for k in range(num_tasks)]
        state[f"layers.{i}.core"] = torch.stack(of_tasks, dim=-1)
        state[f"layers.{i}.bias"] = torch.stack(biases).unsqueeze(1)
        for name, side in zip(("inputs", "outputs", "tasks"), sides, strict=True):
            state[f"layers.{i}.{name}"] = torch.eye(side)
    model.load_state_dict(state)
    _assert_same(model(_randn(7, 5)), single(_randn(7, 5)))


def test_tensor_factorization_with_equal_slices_is_shared_bottom() -> None:
    shared = SharedBottom(5, 3, (6,), (3,), generator=_generator()).double()
    model = TensorFactorization(5, 3, (6,), (3,), ranks=(5, 6, 1)).double()
    state = shared.state_dict()
    weight, bias = state.pop("bottom.layers.0.weight"), state.pop("bottom.layers.0.bias")
    layer = {"core": weight.T.unsqueeze(-1), "bias": bias.expand(3, 1, -1)}
    layer |= {"inputs": torch.eye(5), "outputs": torch.eye(6), "tasks": torch.ones(3, 1)}
    model.load_state_dict({**state, **{f"layers.0.{name}": value for name, value in layer.items()}})
    _assert_same(model(_randn(7, 5)), shared(_randn(7, 5)))


def test_one_triple_of_ranks_is_a_list_of_one() -> None:
    one = TensorFactorization(5, 2, (6,), ranks=(3, 2, 1), generator=_generator())
    listed = TensorFactorization(5, 2, (6,), ranks=[(3, 2, 1)], generator=_generator())
    x = torch.ones(1, 5)
    assert torch.equal(one(x), listed(x))


# --- mixtures of one expert, and of many with two layers -------------------------------------------


@pytest.mark.parametrize("kind", [OMoE, MMoE])
def test_one_expert_of_two_layers_is_shared_bottom(kind: type[OMoE | MMoE]) -> None:
    mixture = kind(5, 2, 1, (6, 4), (3,), generator=_generator()).double()
    shared = SharedBottom(5, 2, (6, 4), (3,)).double()
    state = {name: value for name, value in mixture.state_dict().items() if name.startswith("towers.")}
    experts = mixture.experts.state_dict()
    bottom = {
        "0.weight": experts["first.weight"],
        "0.bias": experts["first.bias"],
        "1.weight": experts["weights.0"][0].T,
        "1.bias": experts["biases.0"][0, 0],
    }
    shared.load_state_dict({**state, **{f"bottom.layers.{name}": value for name, value in bottom.items()}})
    _assert_same(mixture(_randn(7, 5)), shared(_randn(7, 5)))


@pytest.mark.parametrize("kind", [OMoE, MMoE])
def test_experts_start_different_in_every_layer(kind: type[OMoE | MMoE]) -> None:
    experts = kind(5, 2, 3, (16, 12), generator=_generator()).experts.state_dict()
    layers = (
        experts["first.weight"].unflatten(0, (3, 16)),
        experts["first.bias"].unflatten(0, (3, 16)),
        experts["weights.0"],
        experts["biases.0"],
    )
    for layer in layers:
        for one, other in itertools.combinations(layer, 2):
            assert not bool(torch.isclose(one, other, rtol=1e-3).all())
    for layer in (layers[0], layers[2]):
        correlations = torch.corrcoef(layer.flatten(1)) - torch.eye(3)
        assert float(correlations.abs().max()) < 4 / math.sqrt(layer[0].numel())  # 4 standard errors


# --- all seven -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEVEN)
@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_one_output_a_task_also_for_one_row(name: str, num_tasks: int) -> None:
    model, x = SEVEN[name](num_tasks, generator=_generator()).double(), _randn(6, 5)
    assert model(x).shape == (6, num_tasks)
    assert model(x[:0]).shape == (0, num_tasks)
    for row in range(6):  # no row sees another
        assert model(x[row : row + 1]).shape == (1, num_tasks)
        _assert_same(model(x[row : row + 1])[0], model(x)[row])


@pytest.mark.parametrize("name", SEVEN)
@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_every_parameter_gets_a_gradient(name: str, num_tasks: int) -> None:
    reached: set[str] = set()
    for seed in range(3):  # at one seed all units of a small layer may be asleep
        model = SEVEN[name](num_tasks, generator=_generator(seed)).double()
        squared_error(model(_randn(64, 5)), _randn(64, num_tasks, seed=1)).sum().backward()
        for parameter_name, parameter in model.named_parameters():
            assert parameter.grad is not None, parameter_name
            if bool((parameter.grad != 0).any()):
                reached.add(parameter_name)
    assert reached == {parameter_name for parameter_name, _ in model.named_parameters()}


@pytest.mark.parametrize("name", SEVEN)
def test_same_generator_same_weights_and_another_others(name: str) -> None:
    before = torch.random.get_rng_state()
    first, second, other = (SEVEN[name](2, generator=_generator(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)  # no global generator was touched
    for parameter_name, value in first.items():
        assert torch.equal(value, second[parameter_name])
        drawn = not parameter_name.endswith("alpha")  # cross-stitch units start alike
        assert torch.equal(value, other[parameter_name]) != drawn


# --- in an ensemble --------------------------------------------------------------------------------


@pytest.mark.parametrize("num_tasks", [2, 3])
@pytest.mark.parametrize("name", NEW)
def test_run_r_of_an_ensemble_is_that_module_trained_alone(name: str, num_tasks: int) -> None:
    seeds, rates = (11, 5, 8), (1e-2, 3e-2, 3e-3)
    x, y = _randn(24, 5), _randn(24, num_tasks, seed=1)
    ensemble = Ensemble(partial(NEW[name], num_tasks), seeds, dtype=torch.float64)
    settings = TrainingSettings(5, rates, note_every=1)
    history = train(ensemble, epochs(x, y, 8), squared_error, settings, progress=False)
    for run, (seed, rate) in enumerate(zip(seeds, rates, strict=True)):
        model = NEW[name](num_tasks, generator=seeded_generator(seed, "initialisation")).double()
        start = parameters_to_vector(model.parameters()).detach().clone()
        optimiser = torch.optim.Adam(model.parameters(), lr=rate)
        for noted, (inputs, labels) in zip(history.losses, islice(epochs(x, y, 8), 5), strict=True):
            losses = squared_error(model(inputs), labels)
            penalty = 0.1 * _squared_distances(model) if isinstance(model, L2Constrained) else 0.0
            optimiser.zero_grad()
            (losses.sum() + penalty).backward()
            optimiser.step()
            torch.testing.assert_close(noted[run], losses.detach(), rtol=1e-10, atol=0)
        for parameter_name, parameter in model.named_parameters():
            trained = ensemble.parameters[parameter_name][run]
            torch.testing.assert_close(trained, parameter.detach(), rtol=1e-10, atol=1e-12)
        assert not torch.allclose(parameters_to_vector(model.parameters()), start)


@pytest.mark.parametrize("name", NEW)
def test_the_module_of_a_run_predicts_what_the_ensemble_does(name: str) -> None:
    ensemble = Ensemble(partial(NEW[name], 2), (11, 5), dtype=torch.float64)
    x = _randn(9, 5)
    for run in range(2):
        _assert_same(ensemble.module(run)(x), ensemble.predict(x, rows=4)[run])


# --- what is refused -------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TuckerLayer(5, 4, 2, (6, 4, 2)), r"ranks are \(6, 4, 2\), .*at most \(5, 4, 2\)"),
        (lambda: TuckerLayer(5, 4, 2, (5, 5, 2)), r"ranks are \(5, 5, 2\), .*at most \(5, 4, 2\)"),
        (lambda: TuckerLayer(5, 4, 2, (5, 4, 3)), r"ranks are \(5, 4, 3\), .*at most \(5, 4, 2\)"),
        (lambda: TuckerLayer(5, 4, 2, (0, 4, 2)), r"ranks is \(0, 4, 2\), expected 1 or more"),
        (lambda: TuckerLayer(5, 4, 2, (5, -1, 2)), r"ranks is \(5, -1, 2\), expected 1 or more"),
        (lambda: TuckerLayer(5, 4, 2, (5, 4)), r"ranks are \(5, 4\), expected three"),  # type: ignore[arg-type]
        (lambda: TuckerLayer(5, 4, 2, (5, 4, 2, 1)), r"ranks are \(5, 4, 2, 1\), expected three"),  # type: ignore[arg-type]
        (lambda: TuckerLayer(5, 0, 2, (5, 4, 2)), "num_outputs is 0, expected 1 or more"),
        (lambda: TensorFactorization(5, 2, (6,), ranks=(5, 6, 3)), r"ranks are \(5, 6, 3\)"),
        (lambda: TensorFactorization(5, 2, (6,), ranks=(5, 6)), r"ranks are \(5, 6\), expected three"),  # type: ignore[arg-type]
        (lambda: TensorFactorization(5, 2, (6, 4), ranks=[(5, 6, 2), (7, 4, 2)]), r"ranks are \(7, 4, 2\)"),
        (lambda: TensorFactorization(5, 2, (6, 4), ranks=(2, 2, 2)), r"\(6, 4\).*expected.*r1, r2, r3 for"),
        (lambda: TensorFactorization(5, 2, (6, 4), ranks=[(2, 2, 2)]), r"\(6, 4\).*expected.*r1, r2, r3 for"),
        (lambda: TensorFactorization(5, 2, (6,), ranks=[(2, 2, 2)] * 2), r"\(6,\).*expected.*r1, r2, r3 for"),
        (lambda: TensorFactorization(5, 2, (), ranks=[]), r"bottom_widths is \(\).*expected at least one"),
        (lambda: TensorFactorization(5, 2, (), ranks=(2, 2, 2)), r"bottom_widths is \(\).*expected at least"),
        (lambda: TensorFactorization(5, 0, (6,), ranks=(2, 2, 2)), "num_tasks is 0, expected 1 or more"),
        (lambda: TensorFactorization(5, 2, (6,), (0,), ranks=(2, 2, 2)), "tower_widths is .*expected 1 or"),
        (lambda: L2Constrained(5, 2, (4,), alpha=-0.1), "alpha is -0.1, expected a number of 0 or more"),
        (lambda: L2Constrained(5, 2, (4,), alpha=NAN), "alpha is nan, expected a number of 0 or more"),
        (lambda: L2Constrained(5, 2, (4,), alpha=INF), "alpha is inf, expected a number of 0 or more"),
        (lambda: L2Constrained(5, 0, (4,), alpha=0.1), "num_tasks is 0, expected 1 or more"),
        (lambda: L2Constrained(5, 2, (0,), alpha=0.1), "widths is .*expected 1 or more"),
        (lambda: CrossStitch(5, 2, (4,), own=NAN), "own is nan, expected a finite number"),
        (lambda: CrossStitch(5, 2, (4,), own=-INF), "own is -inf, expected a finite number"),
        (lambda: CrossStitch(5, 2, ()), "bottom_widths is empty, expected at least one layer"),
        (lambda: CrossStitch(5, 0, (4,)), "num_tasks is 0, expected 1 or more"),
        (lambda: CrossStitch(5, 2, (4, 0)), r"bottom_widths is \(4, 0\), expected 1 or more"),
        (lambda: CrossStitch(0, 2, (4,)), "num_inputs is 0, expected 1 or more"),
    ],
)
def test_bad_sizes_and_numbers_are_refused_in_one_line(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NEW)
def test_inputs_of_wrong_width_or_type_are_refused_in_one_line(name: str) -> None:
    model = NEW[name](2, generator=_generator())
    for shape in ((3, 4), (5,), (2, 3, 5)):
        with pytest.raises(ValueError, match=r"input has shape \(.*\), expected \(batch, 5\)") as caught:
            model(torch.zeros(shape))
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match=r"input is torch.float64, expected torch.float32") as wrong_type:
        model(torch.zeros(3, 5, dtype=torch.float64))
    assert "\n" not in str(wrong_type.value)


def test_multiply_adds_of_the_factorised_and_the_stitched_model_are_those_of_their_products() -> None:
    """Counted by hand for 100 inputs, 2 tasks and towers of 8 on 64 units: 2 (64 * 8 + 8) for the towers."""
    towers = 2 * (64 * 8 + 8)
    tucker = TensorFactorization(100, 2, (64,), (8,), ranks=(16, 8, 2))
    assert count_multiply_adds(tucker) == 100 * 16 + 2 * (16 * 8 + 8 * 64) + towers == 3_920
    two = TensorFactorization(100, 2, (64, 64), (8,), ranks=[(16, 8, 2), (5, 3, 1)])
    assert count_multiply_adds(two) == 3_920 + 2 * (64 * 5 + 5 * 3 + 3 * 64)
    stitched = CrossStitch(100, 2, (64,), (8,))
    assert count_multiply_adds(stitched) == 2 * 100 * 64 + 2**2 * 64 + towers == 14_096
