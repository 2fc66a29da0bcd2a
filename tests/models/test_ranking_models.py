"""The ranking model of section 6.4 in its parts, its tops at their limits, gate dropout, and in an ensemble."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from mmoe_lib.models import (
    CrossStitch,
    Embeddings,
    L2Constrained,
    MMoE,
    OMoE,
    Ranker,
    SharedBottom,
    SingleTask,
    TensorFactorization,
    count_multiply_adds,
    count_parameters,
)
from mmoe_lib.models.embeddings import INITIAL_SPREAD
from mmoe_lib.models.extensions import GateDropoutMMoE
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import (
    SGD,
    Adam,
    Ensemble,
    TrainingSettings,
    binary_cross_entropy,
    epochs,
    squared_error,
    train,
)
from mmoe_lib.training.batches import with_noise

S, F, V, D = 3, 2, 20, 4
"""Sparse and dense features, ids, numbers of a vector: the lowest layer reads S D + F = 14."""


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _randn(*shape: int, seed: int = 99) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _x(rows: int = 7, seed: int = 99) -> Tensor:
    """Inputs (B, S + F): ids of 0 to V - 1, then dense numbers."""
    ids = torch.randint(V, (rows, S), generator=_generator(seed))
    return torch.cat([ids.double(), _randn(rows, F, seed=seed)], dim=1)


def _assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)


def _shared(top: Callable[..., nn.Module], num_tasks: int = 2) -> Callable[..., Ranker]:
    return partial(Ranker, S, F, V, num_tasks, top, lower_widths=(8, 6), embedding_width=D)


def _own(top: Callable[..., nn.Module], num_tasks: int = 2) -> Callable[..., Ranker]:
    return partial(Ranker, S, F, V, num_tasks, top, own_embeddings=True, embedding_width=D)


SINGLE = partial(SingleTask, bottom_widths=(6, 4), tower_widths=(3,))
STITCHED = partial(CrossStitch, bottom_widths=(6, 4), tower_widths=(3,))
HELD = partial(L2Constrained, bottom_widths=(6, 4), tower_widths=(3,), alpha=0.3)
BOTTOM = partial(SharedBottom, bottom_widths=(5,))
EXPERTS = partial(MMoE, num_experts=3, expert_widths=(5,))
DROPOUT = partial(GateDropoutMMoE, num_experts=3, expert_widths=(5,), dropout=0.4)

RANKERS: dict[str, Callable[..., Ranker]] = {
    "Single-Task": _own(SINGLE),
    "Shared-Bottom": _shared(BOTTOM),
    "L2-Constrained": _own(HELD),
    "Cross-Stitch": _own(STITCHED),
    "Tensor-Factorization": _shared(partial(TensorFactorization, bottom_widths=(5,), ranks=(3, 4, 2))),
    "OMoE": _shared(partial(OMoE, num_experts=3, expert_widths=(5,))),
    "MMoE": _shared(EXPERTS),
    "Gate dropout": _shared(DROPOUT),
}


# --- embeddings and shared layers ------------------------------------------------------------------


def test_a_ranker_is_a_look_up_and_layers_written_out() -> None:
    model = RANKERS["Shared-Bottom"](generator=_generator()).double()
    x, state = _x(), model.state_dict()
    outputs = torch.empty(7, 2, dtype=torch.float64)
    for row in range(7):
        vectors = [state["embeddings.table"][0, int(x[row, s])] for s in range(S)]
        hidden = torch.cat([*vectors, x[row, S:]])
        assert hidden.shape == (S * D + F,)
        for name in ("lower.layers.0", "lower.layers.1", "top.bottom.layers.0"):
            hidden = (state[f"{name}.weight"] @ hidden + state[f"{name}.bias"]).clamp(min=0)
        for task in range(2):
            tower = f"top.towers.towers.{task}.output"
            outputs[row, task] = state[f"{tower}.weight"][0] @ hidden + state[f"{tower}.bias"][0]
    assert float(outputs.std(dim=0).min()) > 0
    _assert_same(model(x).detach(), outputs)


def test_embeddings_are_rows_of_the_table_side_by_side_a_copy_each() -> None:
    embeddings = Embeddings(5, 2, copies=2, generator=_generator())
    table = torch.arange(20.0).reshape(2, 5, 2)  # row v of copy c: (10 c + 2 v, 10 c + 2 v + 1)
    embeddings.load_state_dict({"table": table})
    first, second = embeddings(torch.tensor([[4, 0, 4], [1, 2, 3]]))
    assert first.tolist() == [[8, 9, 0, 1, 8, 9], [2, 3, 4, 5, 6, 7]]
    assert torch.equal(second, first + 10)


def test_embeddings_start_different_and_with_the_stated_spread() -> None:
    table = Embeddings(500, 8, copies=2, generator=_generator()).table.detach()
    error = INITIAL_SPREAD / math.sqrt(2 * table[0].numel())  # standard error of a standard deviation
    for copy in table:
        assert abs(float(copy.std()) - INITIAL_SPREAD) < 4 * error
        assert abs(float(copy.mean())) < 4 * INITIAL_SPREAD / math.sqrt(copy.numel())
    assert len(table.flatten(0, 1).unique(dim=0)) == 1_000
    assert torch.equal(table, Embeddings(500, 8, copies=2, generator=_generator()).table)


def test_an_id_that_occurs_twice_in_a_row_gets_both_gradients() -> None:
    model = RANKERS["Shared-Bottom"](generator=_generator(2)).double()
    x = torch.tensor([[7.0, 7.0, 3.0, 0.5, -0.5]]).double()
    read: list[Tensor] = []
    model.lower.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    outputs = model(x).sum()
    (of_inputs,) = torch.autograd.grad(outputs, read[0], retain_graph=True)
    (of_table,) = torch.autograd.grad(outputs, model.embeddings.table)
    _assert_same(of_table[0, 7], of_inputs[0, :D] + of_inputs[0, D : 2 * D])
    _assert_same(of_table[0, 3], of_inputs[0, 2 * D : 3 * D])
    assert of_table[0].any(dim=1).nonzero().flatten().tolist() == [3, 7]  # no other id moves


@pytest.mark.parametrize("name", RANKERS)
def test_one_output_a_task_also_for_one_row(name: str) -> None:
    model, x = RANKERS[name](generator=_generator()).double(), _x()
    assert model(x).shape == (7, 2)
    assert model(x[:0]).shape == (0, 2)
    for row in range(7):  # no row sees another
        assert model(x[row : row + 1]).shape == (1, 2)
        _assert_same(model(x[row : row + 1])[0], model(x)[row])


@pytest.mark.parametrize("name", RANKERS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    reached: set[str] = set()
    for seed in range(5):  # at one seed all units of a small layer may be asleep
        model = RANKERS[name](generator=_generator(seed)).double()
        squared_error(model(_x(64)), _randn(64, 2, seed=1)).sum().backward()
        reached |= {part for part, p in model.named_parameters() if bool(torch.as_tensor(p.grad).any())}
    assert reached == {part for part, _ in model.named_parameters()}


@pytest.mark.parametrize("name", RANKERS)
def test_same_generator_same_weights_and_another_others(name: str) -> None:
    before = torch.random.get_rng_state()
    first, second, other = (RANKERS[name](generator=_generator(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)  # no global generator was touched
    for part, value in first.items():
        assert torch.equal(value, second[part])
        drawn = not part.endswith("alpha")  # cross-stitch units start alike
        assert torch.equal(value, other[part]) != drawn


# --- the top layer ---------------------------------------------------------------------------------


def test_with_one_expert_omoe_on_top_is_shared_bottom_on_top() -> None:
    mixture = _shared(partial(OMoE, num_experts=1, expert_widths=(5,)))(generator=_generator()).double()
    shared = RANKERS["Shared-Bottom"](generator=_generator(1)).double()
    state = mixture.state_dict()
    del state["top.gate.weight"]
    for kind in ("weight", "bias"):
        state[f"top.bottom.layers.0.{kind}"] = state.pop(f"top.experts.first.{kind}")
    assert not torch.allclose(mixture(_x()), shared(_x()))
    shared.load_state_dict(state)
    _assert_same(mixture(_x()), shared(_x()))


def test_mmoe_replaces_only_the_top_shared_layer() -> None:
    shared, mixture = (RANKERS[name](generator=_generator()) for name in ("Shared-Bottom", "MMoE"))
    below = {part: value for part, value in shared.state_dict().items() if not part.startswith("top.")}
    assert list(below) == [
        "embeddings.table",
        *(f"lower.layers.{layer}.{kind}" for layer in range(2) for kind in ("weight", "bias")),
    ]
    for part, value in below.items():
        assert torch.equal(value, mixture.state_dict()[part])  # drawn first, so even the numbers are the same
    bottom, experts = shared.top.get_submodule("bottom"), mixture.top.get_submodule("experts")
    assert bottom.num_outputs == experts.num_outputs == 5
    one, other = (
        {p: v.shape for p, v in m.state_dict().items() if ".towers." in p} for m in (shared, mixture)
    )
    assert one == other


def test_gates_read_the_lower_layers() -> None:
    model, x = RANKERS["MMoE"](generator=_generator()).double(), _x()
    vectors = model.embeddings.table[0][x[:, :S].long()].flatten(1)
    below = model.lower(torch.cat([vectors, x[:, S:]], dim=1))
    logits = (below @ model.state_dict()["top.gates.weight"].T).unflatten(1, (2, 3))
    _assert_same(model.gate_weights(x), logits.exp() / logits.exp().sum(dim=-1, keepdim=True))
    ensemble = Ensemble(RANKERS["MMoE"], (11, 5), dtype=torch.float64)
    module = ensemble.module(1)
    assert isinstance(module, Ranker)
    _assert_same(ensemble.gate_weights(x)[1], module.gate_weights(x).detach())


def test_sizes_are_those_counted_by_hand() -> None:
    """Inputs of S D + F = 14, lower layers of 8 and 6 units, 5 units (an expert) on top, 2 linear towers."""
    lower = 14 * 8 + 8 * 6
    shared, mixture = RANKERS["Shared-Bottom"](), RANKERS["MMoE"]()
    assert count_multiply_adds(shared) == lower + 6 * 5 + 2 * 5 == 200
    assert count_multiply_adds(mixture) == lower + 6 * 15 + 2 * 6 * 3 + 2 * 3 * 5 + 2 * 5 == 326
    biases = 8 + 6
    assert count_parameters(shared) == V * D + lower + biases + (6 * 5 + 5) + 2 * (5 + 1) == 301
    mixture_on_top = (6 * 15 + 15) + 2 * 6 * 3 + 2 * (5 + 1)
    assert count_parameters(mixture) == V * D + lower + biases + mixture_on_top == 407


def test_embeddings_count_no_multiply_adds() -> None:
    def sizes(vocabulary: int, own_embeddings: bool = False) -> tuple[int, int]:
        model = Ranker(S, F, vocabulary, 2, SINGLE, embedding_width=D, own_embeddings=own_embeddings)
        return count_multiply_adds(model), count_parameters(model)

    of_tasks = 2 * (14 * 6 + 6 * 4 + 4 * 3 + 3)
    assert sizes(V)[0] == sizes(100 * V)[0] == sizes(V, own_embeddings=True)[0] == of_tasks
    assert sizes(100 * V)[1] - sizes(V)[1] == 99 * V * D
    assert sizes(V, own_embeddings=True)[1] - sizes(V)[1] == V * D  # a table more


# --- networks of their own -------------------------------------------------------------------------


def _reached(model: Ranker, task: int, x: Tensor) -> list[list[int]]:
    """Which ids of each table the loss of one task moves."""
    model.zero_grad()
    squared_error(model(x), _randn(len(x), 2, seed=1))[task].backward()
    return [
        of_copy.any(dim=1).nonzero().flatten().tolist()
        for of_copy in torch.as_tensor(model.embeddings.table.grad)
    ]


def test_no_gradient_of_a_task_reaches_the_embeddings_of_another() -> None:
    x = _x()
    seen = x[:, :S].unique().long().tolist()
    assert 0 < len(seen) < V
    model = RANKERS["Single-Task"](generator=_generator()).double()
    assert _reached(model, 0, x) == [seen, []]
    assert _reached(model, 1, x) == [[], seen]
    # unlike networks that exchange activations, or that have one table for all
    exchanging = RANKERS["Cross-Stitch"](generator=_generator()).double()
    assert _reached(exchanging, 0, x) == [seen, seen]
    together = Ranker(S, F, V, 2, SINGLE, generator=_generator()).double()
    assert _reached(together, 0, x) == _reached(together, 1, x) == [seen]


def test_a_task_with_embeddings_of_its_own_is_a_ranker_alone() -> None:
    model = RANKERS["Single-Task"](generator=_generator()).double()
    for task in range(2):
        alone = _own(SINGLE, num_tasks=1)(generator=_generator(1)).double()
        network = f"top.networks.{task}."
        state = {
            part.replace(network, "top.networks.0."): value
            for part, value in model.state_dict().items()
            if part.startswith(network)
        }
        table = model.embeddings.table.detach()[task : task + 1]
        alone.load_state_dict({"embeddings.table": table, **state})
        _assert_same(model(_x())[:, task], alone(_x())[:, 0])


@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_the_penalty_includes_the_embeddings_of_every_pair(num_tasks: int) -> None:
    model = _own(HELD, num_tasks)(generator=_generator()).double()
    tables = model.embeddings.table.unbind()
    networks = [model.top.get_submodule(f"networks.{task}") for task in range(num_tasks)]
    theta = [
        torch.cat([table.flatten(), parameters_to_vector(network.parameters())])
        for table, network in zip(tables, networks, strict=True)
    ]
    distances = [(one - other).square().sum() for one, other in itertools.combinations(theta, 2)]
    penalty = model.penalty(_x())
    assert penalty.shape == ()
    _assert_same(penalty, 0.3 * sum(distances, start=torch.zeros(()).double()))
    # 2 alpha (theta_k - theta_j), summed over the others
    if num_tasks > 1:
        (gradient,) = torch.autograd.grad(penalty, model.embeddings.table)
        table = model.embeddings.table.detach()
        _assert_same(gradient, 2 * 0.3 * (num_tasks * table - table.sum(dim=0)))


@pytest.mark.parametrize("name", [name for name in RANKERS if name != "L2-Constrained"])
def test_other_models_have_no_penalty(name: str) -> None:
    assert float(RANKERS[name](generator=_generator()).penalty(_x())) == 0


def test_without_alpha_l2_constrained_is_single_task_also_when_trained() -> None:
    x, y = _x(32), (_randn(32, 2, seed=1) > 0).double()

    def trained(top: Callable[..., nn.Module]) -> dict[str, Tensor]:
        ensemble = Ensemble(_own(top), (3, 4), dtype=torch.float64)
        settings = TrainingSettings(10, 0.05, optimiser=SGD())
        train(ensemble, epochs(x, y, 8), binary_cross_entropy, settings, progress=False)
        return ensemble.parameters

    free, held = trained(partial(HELD, alpha=0.0)), trained(HELD)
    for name, value in trained(SINGLE).items():
        assert torch.equal(free[name], value)
        assert not torch.allclose(held[name], value)


def test_cross_stitch_with_identities_left_untrained_is_single_task() -> None:
    single = RANKERS["Single-Task"](generator=_generator()).double()
    stitched = _own(partial(STITCHED, own=1.0))().double()
    state = {part: value for part, value in stitched.state_dict().items() if part.endswith("alpha")}
    for part, value in single.state_dict().items():
        if part == "embeddings.table":
            state[part] = value
            continue
        _, _, task, network, rest = part.split(".", 4)  # top.networks.<k>.<0 bottom, 1 tower>...
        if network == "0":
            _, layer, kind = rest.split(".")
            state[f"top.layers.{layer}.{task}.{kind}"] = value
        else:
            state[f"top.towers.towers.{task}.{rest}"] = value
    stitched.load_state_dict(state)
    x, y = _x(32), _randn(32, 2, seed=1)
    _assert_same(stitched(x), single(x))
    start = single(x).detach()
    for model in (single, stitched):
        weights = [p for part, p in model.named_parameters() if not part.endswith("alpha")]
        optimiser = torch.optim.SGD(weights, lr=0.1)
        for _ in range(5):
            optimiser.zero_grad()
            squared_error(model(x), y).sum().backward()
            optimiser.step()
    _assert_same(stitched(x), single(x))
    _assert_same(stitched.embeddings.table, single.embeddings.table)
    assert not torch.allclose(single(x), start)


@pytest.mark.parametrize("top", [SINGLE, HELD, STITCHED])
def test_one_input_for_all_tasks_is_the_same_given_to_each(top: Callable[..., nn.Module]) -> None:
    model, x, other = top(5, 3, generator=_generator()).double(), _randn(7, 5), _randn(7, 5, seed=1)
    _assert_same(model(torch.stack([x] * 3, dim=1)), model(x))
    for task in range(3):
        own = [x] * 3
        own[task] = other
        outputs, of_x, of_other = model(torch.stack(own, dim=1)), model(x), model(other)
        expected = of_x.clone()
        expected[:, task] = of_other[:, task]
        if isinstance(model, SingleTask):
            _assert_same(outputs, expected)
        else:  # activations are exchanged
            assert not torch.allclose(outputs[:, (task + 1) % 3], of_x[:, (task + 1) % 3])


# --- gate dropout ----------------------------------------------------------------------------------


def _gates(num_experts: int = 3, dropout: float = 0.4, seed: int = 0) -> GateDropoutMMoE:
    return GateDropoutMMoE(
        5, 2, num_experts, (4,), (3,), dropout=dropout, generator=_generator(seed)
    ).double()


def _weights(model: GateDropoutMMoE, x: Tensor, noise: Tensor) -> Tensor:
    """The gate weights that mix the experts, (B, K, n): what towers read of experts whose outputs are unit vectors."""
    n = model.num_experts
    telling = GateDropoutMMoE(5, 2, n, (n,), dropout=model.dropout).double()
    units = {"experts.first.weight": torch.zeros(n * n, 5), "experts.first.bias": torch.eye(n).flatten()}
    gates = {"gates.weight": model.state_dict()["gates.weight"]}
    telling.load_state_dict({**telling.state_dict(), **units, **gates})
    read: list[Tensor] = []
    telling.towers.register_forward_pre_hook(lambda _, inputs: read.extend(inputs))
    telling(torch.cat([x, noise.flatten(1)], dim=1))
    return torch.stack(read, dim=1).detach()


def _noise(rows: int, num_experts: int = 3, seed: int = 5) -> Tensor:
    return torch.rand(rows, 2, num_experts, generator=_generator(seed), dtype=torch.float64)


def test_without_noise_gate_dropout_is_mmoe() -> None:
    mixture = MMoE(5, 2, 3, (4,), (3,), generator=_generator()).double()
    x = _randn(7, 5)
    for dropout in (0.0, 0.4, 0.99):
        model = _gates(dropout=dropout)
        assert torch.equal(model(x), mixture(x))
        assert torch.equal(model.gate_weights(x), mixture.gate_weights(x))
    assert count_multiply_adds(model) == count_multiply_adds(mixture)
    assert count_parameters(model) == count_parameters(mixture)


def test_noise_of_the_dropout_or_more_drops_nothing() -> None:
    model, x = _gates(), _randn(7, 5)
    at, below = torch.full((7, 6), 0.9).double(), torch.full((7, 6), 0.9).double()
    at[:, 1], below[:, 1] = 0.4, 0.39
    for kept in (at, 0.4 + 0.6 * _noise(7).flatten(1)):
        _assert_same(model(torch.cat([x, kept], dim=1)), model(x))
    assert not torch.allclose(model(torch.cat([x, below], dim=1)), model(x))
    never = _gates(dropout=0.0)
    _assert_same(never(torch.cat([x, torch.zeros(7, 6)], dim=1)), never(x))


def test_what_is_kept_is_scaled_to_sum_to_1() -> None:
    model, x, noise = _gates(), _randn(200, 5), _noise(200)
    weights, g = _weights(model, x, noise), model.gate_weights(x).detach()
    _assert_same(weights.sum(dim=-1), torch.ones(200, 2).double())
    cases = set()
    for row, task in itertools.product(range(200), range(2)):
        kept = noise[row, task] >= 0.4
        if not bool(kept.any()):
            kept[:] = True
        cases.add(int(kept.sum()))
        expected = torch.where(kept, g[row, task], 0.0)
        _assert_same(weights[row, task], expected / expected.sum())
    assert cases == {1, 2, 3}


def test_a_gate_that_loses_all_keeps_all() -> None:
    model, x, noise = _gates(), _randn(7, 5), torch.ones(7, 2, 3).double()
    noise[:, 0] = 0.1  # one of the tasks only
    weights = _weights(model, x, noise)
    _assert_same(weights, model.gate_weights(x).detach())
    _assert_same(model(torch.cat([x, noise.flatten(1)], dim=1)), model(x))


def test_a_gate_that_has_settled_on_the_dropped_expert_reads_the_others() -> None:
    """The others' weights are 0 in float64 before they are scaled, and must sum to 1 after."""
    model, x = _gates(), torch.ones(1, 5).double()
    settled = torch.zeros(2, 3, 5).double()
    settled[:, 0] = 400  # logits of 2,000 to 0 and log 3
    settled[:, 2] = math.log(3) / 5
    model.load_state_dict({**model.state_dict(), "gates.weight": settled.flatten(0, 1)})
    assert model.gate_weights(x)[0, 0].tolist() == [1, 0, 0]
    noise = torch.tensor([0.1, 0.9, 0.9]).double().expand(1, 2, 3)
    _assert_same(_weights(model, x, noise)[0, 1], torch.tensor([0, 0.25, 0.75]).double())
    squared_error(model(torch.cat([x, noise.flatten(1)], dim=1)), _randn(1, 2)).sum().backward()
    assert all(bool(torch.as_tensor(p.grad).isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(("num_experts", "dropout"), [(8, 0.1), (8, 0.5), (2, 0.5)])
def test_each_weight_is_dropped_with_the_stated_probability(num_experts: int, dropout: float) -> None:
    rows, model = 4_000, _gates(num_experts, dropout)
    batch = iter([(_randn(rows, 5), torch.zeros(rows, 2).double())])
    x, _ = next(with_noise(batch, model.num_noise, seed=3))
    kept = _weights(model, x[:, :5], x[:, 5:].unflatten(1, (2, num_experts))) > 0
    # 1 - p, and p^n more because a gate that loses all keeps all
    expected = 1 - dropout + dropout**num_experts
    shares = kept.double().mean(dim=0)  # (K, n)
    error = math.sqrt(expected * (1 - expected) / rows)
    assert float((shares - expected).abs().max()) < 4 * error
    if num_experts == 8:  # gates and experts are dropped each on its own
        pairs = torch.corrcoef(kept.flatten(1).T.double()) - torch.eye(16)
        assert float(pairs.abs().max()) < 4.5 / math.sqrt(rows)


def test_a_dropped_expert_gets_no_gradient() -> None:
    def moved(model: GateDropoutMMoE, dropped: tuple[int, ...], task: int) -> tuple[list[bool], list[bool]]:
        """Of each expert, whether its layer moves; of each gate weight of the task, whether its row does."""
        noise = torch.ones(16, 2, 3).double()
        for of_task in dropped:
            noise[:, of_task, 1] = 0.2
        model.zero_grad()
        outputs = model(torch.cat([_randn(16, 5), noise.flatten(1)], dim=1))
        squared_error(outputs, _randn(16, 2, seed=1))[task].backward()
        state = {part: torch.as_tensor(p.grad) for part, p in model.named_parameters()}
        experts = state["experts.first.weight"].unflatten(0, (3, 4)).flatten(1).any(dim=1)
        return experts.tolist(), state["gates.weight"].unflatten(0, (2, 3))[task].any(dim=1).tolist()

    model = _gates()
    assert moved(model, (), 0) == ([True] * 3, [True] * 3)
    assert moved(model, (0, 1), 0) == ([True, False, True], [True, False, True])
    assert moved(model, (0,), 0) == ([True, False, True], [True, False, True])
    assert moved(model, (0,), 1) == ([True] * 3, [True] * 3)  # the other task still trains it


def test_noise_passes_by_the_layers_below() -> None:
    model, x, noise = RANKERS["Gate dropout"](generator=_generator()).double(), _x(), _noise(7).flatten(1)
    assert isinstance(model.top, GateDropoutMMoE)
    below = model.below(x)
    assert below.shape == (7, 6)
    expected = model.top(torch.cat([below, noise], dim=1))
    _assert_same(model(torch.cat([x, noise], dim=1)), expected)
    assert not torch.allclose(expected, model(x))
    plain = RANKERS["MMoE"](generator=_generator()).double()
    assert torch.equal(model(x), plain(x))


# --- in an ensemble --------------------------------------------------------------------------------


def _batches(name: str, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    batches = epochs(x, y, 8)
    return with_noise(batches, 6, seed=2) if name == "Gate dropout" else batches


@pytest.mark.parametrize(
    ("optimiser", "alone"), [(SGD(), torch.optim.SGD), (Adam(), torch.optim.Adam)], ids=["SGD", "Adam"]
)
@pytest.mark.parametrize("name", RANKERS)
def test_run_r_of_an_ensemble_is_that_module_trained_alone(
    name: str, optimiser: SGD | Adam, alone: Callable[..., torch.optim.Optimizer]
) -> None:
    seeds, rates = (11, 5, 8), (3e-2, 1e-1, 1e-2)
    x, y = _x(24), (_randn(24, 2, seed=1) > 0).double()
    ensemble = Ensemble(RANKERS[name], seeds, dtype=torch.float64)
    settings = TrainingSettings(7, rates, optimiser=optimiser, note_every=1)  # more than two epochs
    history = train(ensemble, _batches(name, x, y), binary_cross_entropy, settings, progress=False)
    for run, (seed, rate) in enumerate(zip(seeds, rates, strict=True)):
        model = RANKERS[name](generator=seeded_generator(seed, "initialisation")).double()
        start = parameters_to_vector(model.parameters()).detach().clone()
        written_out = alone(model.parameters(), lr=rate)
        for noted, (inputs, labels) in zip(history.losses, islice(_batches(name, x, y), 7), strict=True):
            losses = binary_cross_entropy(model(inputs), labels)
            objective = losses.sum()
            if isinstance(model.top, L2Constrained):
                one, other = (
                    [model.embeddings.table[task], *model.top.networks[task].parameters()]
                    for task in range(2)
                )
                for theta, phi in zip(one, other, strict=True):
                    objective = objective + 0.3 * (theta - phi).square().sum()
            written_out.zero_grad()
            objective.backward()
            written_out.step()
            torch.testing.assert_close(noted[run], losses.detach(), rtol=1e-10, atol=0)
        for part, parameter in model.named_parameters():
            torch.testing.assert_close(
                ensemble.parameters[part][run], parameter.detach(), rtol=1e-10, atol=1e-12
            )
        assert not torch.allclose(parameters_to_vector(model.parameters()), start)
        _assert_same(ensemble.predict(x, rows=5)[run], model(x).detach())


@pytest.mark.parametrize("name", ["Single-Task", "Shared-Bottom"])
def test_runs_may_have_inputs_of_their_own(name: str) -> None:
    ensemble = Ensemble(RANKERS[name], (11, 5), dtype=torch.float64)
    x, y = torch.stack([_x(), _x(seed=1)]), torch.stack([_randn(7, 2), _randn(7, 2, seed=1)])
    gradients, _ = ensemble.gradients(squared_error, x, y)
    for run in range(2):
        module = ensemble.module(run)
        _assert_same(ensemble.predict(x)[run], module(x[run]).detach())
        squared_error(module(x[run]), y[run]).sum().backward()
        for part, parameter in module.named_parameters():
            _assert_same(gradients[part][run], torch.as_tensor(parameter.grad))


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Ranker(S, F, V, 2, SINGLE, own_embeddings=True, lower_widths=(8,)),
            r"own_embeddings is True with shared lower_widths \(8,\), expected one of the two",
        ),
        (lambda: Ranker(S, F, V, 2, BOTTOM, lower_widths=(8, 0)), r"widths is \(8, 0\), expected 1 or more"),
        (lambda: Ranker(S, F, V, 2, BOTTOM, embedding_width=0), "width is 0, expected 1 or more"),
        (lambda: Ranker(S, F, 0, 2, BOTTOM), "vocabulary is 0, expected 1 or more"),
        (lambda: Ranker(0, 0, V, 2, BOTTOM), "num_inputs is 0, expected 1 or more"),
        (lambda: Ranker(S, F, V, 0, BOTTOM), "num_tasks is 0, expected 1 or more"),
        (lambda: Embeddings(V, D, copies=0), "copies is 0, expected 1 or more"),
        (lambda: _gates(dropout=-0.1), r"dropout is -0.1, expected 0 to below 1"),
        (lambda: _gates(dropout=1.0), r"dropout is 1.0, expected 0 to below 1"),
        (lambda: _gates(dropout=math.nan), r"dropout is nan, expected 0 to below 1"),
        (lambda: _gates(num_experts=0), "num_experts is 0, expected 1 or more"),
    ],
)
def test_bad_sizes_and_numbers_are_refused_in_one_line(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RANKERS)
def test_inputs_of_wrong_width_or_type_are_refused_in_one_line(name: str) -> None:
    model = RANKERS[name](generator=_generator())
    for shape in ((3, S + F - 1), (S + F,), (3, 2, S + F)):
        with pytest.raises(
            ValueError, match=r"input has shape \(.*\), expected \(batch, 5\): the ids"
        ) as caught:
            model(torch.zeros(shape))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"input has shape \(3, \d+\), expected \(batch, \d\)"):
        model(torch.zeros(3, S + F + 1))  # a column more than there are features
    with pytest.raises(TypeError, match=r"input is torch.float64, expected torch.float32") as wrong_type:
        model(_x())
    assert "\n" not in str(wrong_type.value)


def test_inputs_that_gate_dropout_cannot_read_are_refused_in_one_line() -> None:
    model = _gates()
    for shape in ((3, 4), (3, 10), (3, 12), (11,), (3, 2, 11)):  # it reads 5 columns, or 5 + 2 * 3
        with pytest.raises(ValueError, match=r"input has shape \(.*\), expected \(batch, (5|11)\)") as caught:
            model(torch.zeros(shape).double())
        assert "\n" not in str(caught.value)
    for width in (5, 11):
        with pytest.raises(TypeError, match=r"input is torch.float32, expected torch.float64"):
            model(torch.zeros(3, width))


@pytest.mark.parametrize("top", [SINGLE, HELD, STITCHED])
def test_inputs_of_tasks_that_do_not_fit_are_refused_in_one_line(top: Callable[..., nn.Module]) -> None:
    model = top(5, 2, generator=_generator())
    for shape in ((3, 3, 5), (3, 1, 5), (3, 2, 4), (3, 2, 2, 5)):
        with pytest.raises(ValueError, match=r"input has shape \(.*\), expected \(batch, 5\)") as caught:
            model(torch.zeros(shape))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"shape \(3, 3, 5\), expected \(batch, 5\) or \(batch, 2, 5\)"):
        model(torch.zeros(3, 3, 5))
    with pytest.raises(TypeError, match=r"input is torch.float64, expected torch.float32"):
        model(torch.zeros(3, 2, 5).double())


def test_a_top_without_gates_says_so() -> None:
    model = RANKERS["Shared-Bottom"](generator=_generator())
    with pytest.raises(TypeError, match="SharedBottom has no gates, expected a mixture such as MMoE"):
        model.gate_weights(_x().float())
    ensemble = Ensemble(RANKERS["Shared-Bottom"], (0,))
    with pytest.raises(TypeError, match="SharedBottom has no gates, expected a mixture such as MMoE"):
        ensemble.gate_weights(_x().float())
