"""Models beside the paper's: other gates, a transformer over the experts, gates with a penalty, CGC and PLE.

What each is at its limits, by hand, and in other libraries; `test_gate_models_in_training` trains them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy as scipy_entropy
from torch import Tensor, nn

from mmoe_lib.models import MMoE
from mmoe_lib.models.extensions import (
    CGC,
    PLE,
    AttentionMMoE,
    DSelectKMMoE,
    RegularisedMMoE,
    TopKMMoE,
    TransformerMMoE,
)
from mmoe_lib.models.extensions.dselect_k import single_expert_weights, smooth_step
from mmoe_lib.models.extensions.expert_transformer import TransformerBlock
from mmoe_lib.models.extensions.regularised_gates import expert_similarity, gate_entropy, use_imbalance


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _randn(*shape: int, seed: int = 99) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _assert_same(actual: Tensor, expected: Tensor | float) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=1e-12, atol=1e-13)


def _is_zero(gradient: Tensor | None) -> bool:
    return gradient is None or not bool(gradient.any())


# --- attention over the experts' outputs -----------------------------------------------------------


def test_attention_gates_agree_with_torchs_attention() -> None:
    model = AttentionMMoE(5, 2, 3, (6, 4), (3,), query_width=7, generator=_generator()).double()
    x = _randn(6, 5)
    f = model.experts(x)
    queries = model.queries.weight.expand(6, -1, -1)
    mixed = F.scaled_dot_product_attention(queries, model.keys(f), f)  # (B, K, h)
    _assert_same(model(x), model.towers(*mixed.unbind(dim=1)))
    _assert_same(model.gate_weights(x) @ f, mixed)


def test_attention_gates_look_at_what_an_expert_says_not_at_its_number() -> None:
    model = AttentionMMoE(5, 2, 3, (6, 4), (3,), generator=_generator()).double()
    x, order = _randn(6, 5), torch.tensor([2, 0, 1])
    outputs, weights = model(x).detach(), model.gate_weights(x).detach()
    assert float((weights[:, 0] - weights[:, 1]).abs().max()) > 1e-3  # every task asks for something else
    with torch.no_grad():
        for parameter in (model.experts.first.weight, model.experts.first.bias):
            parameter.copy_(parameter.unflatten(0, (3, 6))[order].flatten(0, 1))
        for parameter in (*model.experts.weights, *model.experts.biases):
            parameter.copy_(parameter[order])
    _assert_same(model.gate_weights(x), weights[..., order])
    _assert_same(model(x), outputs)
    with torch.no_grad():  # without questions, all experts are read alike
        model.queries.weight.zero_()
    _assert_same(model.gate_weights(x), torch.full((6, 2, 3), 1 / 3, dtype=torch.float64))


# --- a transformer over the experts ----------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_block_is_torchs_encoder_layer_with_norms_first(heads: int) -> None:
    block = TransformerBlock(8, heads, _generator()).double()
    reference = nn.TransformerEncoderLayer(
        8, heads, dim_feedforward=16, dropout=0.0, batch_first=True, norm_first=True, dtype=torch.float64
    )
    with torch.no_grad():
        for number, norm in enumerate((block.norm_attention, block.norm_feed_forward)):
            norm.weight.copy_(_randn(8, seed=number))
            norm.bias.copy_(_randn(8, seed=10 + number))
    state = block.state_dict()
    names = {
        "norm_attention": "norm1",
        "norm_feed_forward": "norm2",
        "attended": "self_attn.out_proj",
        "wide": "linear1",
        "narrow": "linear2",
    }
    theirs = {
        f"{name}.{kind}": state[f"{ours}.{kind}"]
        for ours, name in names.items()
        for kind in ("weight", "bias")
    }
    theirs["self_attn.in_proj_weight"] = state["queries_keys_values.weight"]
    theirs["self_attn.in_proj_bias"] = state["queries_keys_values.bias"]
    reference.load_state_dict(theirs)
    _assert_same(block(_randn(6, 5, 8)), reference(_randn(6, 5, 8)))


def test_where_the_block_adds_nothing_it_is_mmoe() -> None:
    mmoe = MMoE(5, 2, 3, (6, 4), (3,), generator=_generator()).double()
    model = TransformerMMoE(5, 2, 3, (6, 4), (3,), generator=_generator()).double()
    assert not torch.allclose(model(_randn(7, 5)), mmoe(_randn(7, 5)))
    with torch.no_grad():
        for layer in (model.block.attended, model.block.narrow):
            layer.weight.zero_()
            layer.bias.zero_()
    _assert_same(model(_randn(7, 5)), mmoe(_randn(7, 5)))


def test_experts_hear_each_other() -> None:
    model = TransformerMMoE(5, 1, 3, (6, 4), generator=_generator()).double()
    f = _randn(7, 3, 4).requires_grad_()
    (heard,) = torch.autograd.grad(model.block(f)[:, 0].sum(), f)
    assert bool((heard[:, 1:] != 0).any(dim=-1).all())
    (seen,) = torch.autograd.grad(model.block(f)[0].sum(), f)
    assert not bool(seen[1:].any())  # tokens of other rows are not heard


# --- the k largest ---------------------------------------------------------------------------------


def test_top_n_of_n_is_mmoe_exactly_also_its_gradients() -> None:
    mmoe = MMoE(5, 2, 4, (6,), (3,), generator=_generator()).double()
    top = TopKMMoE(5, 2, 4, (6,), (3,), k=4, generator=_generator()).double()
    assert torch.equal(top(_randn(7, 5)), mmoe(_randn(7, 5)))
    assert torch.equal(top.gate_weights(_randn(7, 5)), mmoe.gate_weights(_randn(7, 5)))
    for model in (mmoe, top):
        model(_randn(7, 5)).square().sum().backward()
    for one, other in zip(mmoe.parameters(), top.parameters(), strict=True):
        assert torch.equal(torch.as_tensor(one.grad), torch.as_tensor(other.grad))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_k_largest_weights_are_kept_and_scaled_to_sum_to_1(k: int) -> None:
    mmoe = MMoE(5, 2, 4, (6,), generator=_generator()).double()
    top = TopKMMoE(5, 2, 4, (6,), k=k, generator=_generator()).double()
    g, sparse = mmoe.gate_weights(_randn(7, 5)), top.gate_weights(_randn(7, 5))
    kept = g >= g.sort(dim=-1, descending=True).values[..., k - 1 : k]
    assert torch.equal(sparse > 0, kept)
    _assert_same(sparse, torch.where(kept, g, 0) / torch.where(kept, g, 0).sum(dim=-1, keepdim=True))


def test_logits_that_are_left_out_get_no_gradient() -> None:
    model = TopKMMoE(5, 2, 4, (6,), k=2, generator=_generator()).double()
    x = _randn(1, 5)
    chosen = (model.gate_weights(x) > 0).flatten()  # (K n,)
    model(x).sum().backward()
    gradients = torch.as_tensor(model.gates.weight.grad).abs().sum(dim=-1)
    assert chosen.tolist() != [True, True, False, False] * 2
    assert torch.equal(gradients > 0, chosen)


def test_of_equal_logits_k_are_kept() -> None:
    weights = TopKMMoE(5, 2, 4, (6,), k=3, generator=_generator()).gate_weights(torch.zeros(2, 5))
    torch.testing.assert_close(
        weights.sort(dim=-1).values, torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]).expand(2, 2, 4)
    )


# --- DSelect-k -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_the_smooth_step_is_the_published_function_with_a_continuous_derivative(gamma: float) -> None:
    z = torch.linspace(-gamma, gamma, 401, dtype=torch.float64, requires_grad=True)
    inside = z.detach()[z.detach().abs() < gamma / 2]
    step = smooth_step(z, gamma)
    _assert_same(step[z.abs() < gamma / 2], -2 * inside**3 / gamma**3 + 3 * inside / (2 * gamma) + 0.5)
    assert torch.equal(step[z <= -gamma / 2], torch.zeros(101, dtype=torch.float64))
    assert torch.equal(step[z >= gamma / 2], torch.ones(101, dtype=torch.float64))
    assert float(step.detach()[200]) == 0.5
    (slope,) = torch.autograd.grad(step.sum(), z)
    expected = torch.where(z.abs() < gamma / 2, 3 / (2 * gamma) - 6 * z**2 / gamma**3, 0)
    _assert_same(slope, expected.detach())
    # no jump at the two ends: the slope changes no faster than its own slope, 6 / gamma^2, allows
    assert float(slope.diff().abs().max()) <= 6 / gamma**2 * (2 * gamma / 400) * (1 + 1e-9)
    assert float(slope.max()) == pytest.approx(3 / (2 * gamma))


def test_binary_codes_select_exactly_one_expert_and_others_a_product() -> None:
    binary = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    assert torch.equal(single_expert_weights(binary), torch.eye(8))
    s = torch.rand(4, 3, generator=_generator(), dtype=torch.float64)
    for i, digits in enumerate(itertools.product([0, 1], repeat=3)):
        product = torch.ones(4, dtype=torch.float64)
        for j, digit in enumerate(digits):
            product = product * (s[:, j] if digit else 1 - s[:, j])
        _assert_same(single_expert_weights(s)[:, i], product)


def _with_binary_codes(model: DSelectKMMoE, codes: Tensor) -> DSelectKMMoE:
    """A model that ignores x when it chooses: codes (K, k, m) of 0 or 1."""
    with torch.no_grad():
        model.codes.weight.zero_()
        model.codes.bias.copy_((2 * codes - 1).flatten() * 0.6 * model.gamma)  # beyond the cubic part
    return model


def test_with_binary_codes_a_gate_reads_k_experts_at_most() -> None:
    model = DSelectKMMoE(5, 2, 8, (6,), (3,), k=2, gamma=2.0, entropy=1.0, generator=_generator()).double()
    # task 1 reads experts 5 and 3, both selectors of task 2 read expert 6
    codes = torch.tensor([[[1, 0, 1], [0, 1, 1]], [[1, 1, 0], [1, 1, 0]]])
    _with_binary_codes(model, codes)
    x = _randn(7, 5)
    assert model.selector_logits is not None
    alpha = torch.softmax(model.selector_logits(x)[:, :2], dim=-1)
    expected = torch.zeros(7, 2, 8, dtype=torch.float64)
    expected[:, 0, 5], expected[:, 0, 3], expected[:, 1, 6] = alpha[:, 0], alpha[:, 1], 1.0
    _assert_same(model.gate_weights(x), expected.detach())
    assert float(model.penalty(x).detach()) == 0
    f = model.experts(x)
    mixed = alpha[:, :1] * f[:, 5] + alpha[:, 1:] * f[:, 3]
    _assert_same(model(x), model.towers(mixed, f[:, 6]))
    (model(x).sum() + model.penalty(x)).backward()  # codes that got there stay
    assert _is_zero(model.codes.bias.grad)


def test_rows_of_selectors_and_gates_sum_to_1() -> None:
    model = DSelectKMMoE(5, 2, 8, (6,), k=3, gamma=0.01, generator=_generator()).double()
    with torch.no_grad():
        model.codes.weight.mul_(50)  # some codes are binary, some are not
    for x in (_randn(40, 5), 1e4 * _randn(40, 5)):
        for weights in (model.selectors(x), model.gate_weights(x)):
            assert bool((weights >= 0).all())
            _assert_same(weights.sum(dim=-1), torch.ones(weights.shape[:-1], dtype=torch.float64))
    assert int((model.gate_weights(1e4 * _randn(40, 5)) > 0).sum(dim=-1).max()) <= 3


def test_the_penalty_is_the_mean_entropy_of_the_selectors_added_up() -> None:
    model = DSelectKMMoE(5, 2, 8, (6,), k=3, entropy=0.7, generator=_generator()).double()
    with torch.no_grad():
        model.codes.weight.mul_(30)
    r = model.selectors(_randn(7, 5)).detach().numpy()
    expected = 0.7 * scipy_entropy(r, axis=-1).sum(axis=-1).mean()
    assert float(model.penalty(_randn(7, 5)).detach()) == pytest.approx(expected, rel=1e-12)
    with torch.no_grad():  # all codes 1/2: every selector reads all experts alike
        for parameter in model.codes.parameters():
            parameter.zero_()
    assert float(model.penalty(_randn(7, 5)).detach()) == pytest.approx(0.7 * 3 * math.log(8))


def test_descent_on_the_entropy_alone_makes_the_codes_binary() -> None:
    model = DSelectKMMoE(5, 2, 4, (6,), k=2, entropy=1.0, generator=_generator()).double()
    x = _randn(20, 5)
    assert bool((model.gate_weights(x) > 0).all())  # at the start every gate reads all four
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        model.penalty(x).backward()
        optimiser.step()
    assert float(((model.gate_weights(x) > 0).sum(dim=-1) <= 2).double().mean()) > 0.9


def test_codes_and_selectors_start_small() -> None:
    model = DSelectKMMoE(100, 2, 8, (6,), gamma=3.0, generator=_generator())
    assert model.selector_logits is not None
    for layer, bound in ((model.codes, 0.03), (model.selector_logits, 0.05)):
        assert float(layer.weight.detach().abs().max()) == pytest.approx(bound, rel=0.02)
        assert 0 < float(layer.bias.detach().abs().max()) <= bound


# --- gates with a penalty --------------------------------------------------------------------------


def _one_hot(experts: list[list[int]], n: int) -> Tensor:
    """Gates (B, K, n) of which each reads one expert."""
    return F.one_hot(torch.tensor(experts), n).double()


@pytest.mark.parametrize("n", [2, 3, 8])
def test_gate_terms_of_uniform_and_of_one_hot_gates(n: int) -> None:
    uniform = torch.full((5, 2, n), 1 / n, dtype=torch.float64)
    _assert_same(gate_entropy(uniform), 1.0)
    _assert_same(use_imbalance(uniform), 0.0)
    same = _one_hot([[0, 1]] * 5, n)
    _assert_same(gate_entropy(same), 0.0)
    _assert_same(use_imbalance(same), n - 1.0)
    all_in_turn = _one_hot([[row, n - 1 - row] for row in range(n)], n)  # sharp and balanced
    _assert_same(gate_entropy(all_in_turn), 0.0)
    _assert_same(use_imbalance(all_in_turn), 0.0)
    half = torch.cat([uniform, same])  # half of the rows sharp
    _assert_same(gate_entropy(half), 0.5)


def test_gate_terms_agree_with_scipy_and_numpy() -> None:
    g = torch.softmax(3 * _randn(7, 2, 5), dim=-1)
    entropies = scipy_entropy(g.numpy(), axis=-1, base=5)
    assert float(gate_entropy(g)) == pytest.approx(entropies.mean(), rel=1e-12)
    use = g.numpy().mean(axis=0)
    variation = np.std(use, axis=-1) / np.mean(use, axis=-1)
    assert float(use_imbalance(g)) == pytest.approx((variation**2).mean(), rel=1e-12)


def test_experts_that_say_the_same_are_similar_and_orthogonal_ones_are_not() -> None:
    length = torch.tensor([[1e-3], [1.0], [1e4]], dtype=torch.float64)
    _assert_same(expert_similarity(length * _randn(7, 1, 4).expand(-1, 3, -1)), 1.0)
    _assert_same(expert_similarity(-length * _randn(7, 1, 4).expand(-1, 3, -1)), 1.0)
    _assert_same(expert_similarity(length * torch.eye(3, 4, dtype=torch.float64).expand(7, -1, -1)), 0.0)
    f = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]], dtype=torch.float64)  # 45, 90 and 45 degrees
    _assert_same(expert_similarity(f), (0.5 + 0.0 + 0.5) / 3)
    rows = torch.cat([f, torch.zeros_like(f)])  # experts that say nothing are not alike
    _assert_same(expert_similarity(rows), (0.5 + 0.5) / 3 / 2)


def test_gradients_are_finite_at_one_hot_gates_and_at_experts_that_say_nothing() -> None:
    logits = torch.tensor([[[0.0, -1e5, -200.0]]], requires_grad=True)
    gate_entropy(torch.softmax(logits, dim=-1)).backward()
    assert bool(torch.as_tensor(logits.grad).isfinite().all())
    f = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]]], requires_grad=True)
    expert_similarity(f).backward()
    assert _is_zero(f.grad)


def test_one_expert_has_nothing_to_penalise() -> None:
    model = RegularisedMMoE(
        5, 2, 1, (6,), entropy=0.5, balance=0.5, orthogonality=0.5, generator=_generator()
    )
    penalty = model.penalty(torch.ones(3, 5))
    assert penalty.shape == ()
    assert float(penalty.detach()) == 0


def test_the_penalty_adds_the_three_terms_with_their_weights() -> None:
    weights = {"entropy": -0.3, "balance": 0.2, "orthogonality": 0.7}
    x = _randn(7, 5)
    model = RegularisedMMoE(5, 2, 3, (6, 4), (3,), **weights, generator=_generator()).double()
    g, f = model.gate_weights(x), model.experts(x)
    terms = {"entropy": gate_entropy(g), "balance": use_imbalance(g), "orthogonality": expert_similarity(f)}
    _assert_same(model.penalty(x), sum(float(weights[name] * terms[name].detach()) for name in weights))
    assert model.penalty(x).shape == ()
    for name, weight in weights.items():
        one = RegularisedMMoE(5, 2, 3, (6, 4), (3,), **{name: weight}, generator=_generator()).double()
        assert abs(float(one.penalty(x).detach())) > 1e-6
        _assert_same(one.penalty(x), weight * float(terms[name].detach()))


def test_the_penalty_leaves_the_function_alone() -> None:
    mmoe = MMoE(5, 2, 3, (6, 4), (3,), generator=_generator()).double()
    model = RegularisedMMoE(5, 2, 3, (6, 4), (3,), entropy=1.0, balance=1.0, generator=_generator()).double()
    assert torch.equal(model(_randn(7, 5)), mmoe(_randn(7, 5)))
    plain = RegularisedMMoE(5, 2, 3, (6, 4), (3,), generator=_generator()).double()
    assert float(plain.penalty(_randn(7, 5)).detach()) == 0


@pytest.mark.parametrize(
    ("weights", "term", "falls"),
    [
        ({"entropy": 1.0}, "entropy", True),
        ({"entropy": -1.0}, "entropy", False),
        ({"balance": 1.0}, "balance", True),
        ({"orthogonality": 1.0}, "orthogonality", True),
    ],
)
def test_descent_moves_each_term_where_its_sign_says(
    weights: dict[str, float], term: str, falls: bool
) -> None:
    model = RegularisedMMoE(5, 2, 3, (6, 4), (3,), **weights, generator=_generator()).double()
    x = _randn(20, 5)
    terms: dict[str, Callable[[], Tensor]] = {
        "entropy": lambda: gate_entropy(model.gate_weights(x)),
        "balance": lambda: use_imbalance(model.gate_weights(x)),
        "orthogonality": lambda: expert_similarity(model.experts(x)),
    }
    before = float(terms[term]().detach())
    model.penalty(x).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.05 * parameter.grad)
    assert (float(terms[term]().detach()) < before) == falls


# --- CGC and PLE -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_cgc_without_task_experts_is_mmoe(num_tasks: int) -> None:
    mmoe = MMoE(5, num_tasks, 3, (6, 4), (3,), generator=_generator()).double()
    cgc = CGC(5, num_tasks, 3, 0, (6, 4), (3,)).double()
    level = cgc.levels[0]
    level.shared.load_state_dict(mmoe.experts.state_dict())  # type: ignore[union-attr]
    cgc.towers.load_state_dict(mmoe.towers.state_dict())
    for gate, weight in zip(level.gates, mmoe.gates.weight.detach().split(3), strict=True):  # type: ignore[arg-type]
        gate.weight.data.copy_(weight)
    _assert_same(cgc(_randn(7, 5)), mmoe(_randn(7, 5)))
    _assert_same(cgc.gate_weights(_randn(7, 5)), mmoe.gate_weights(_randn(7, 5)))


def test_cgc_without_shared_experts_is_an_mmoe_of_each_tasks_own() -> None:
    cgc = CGC(5, 2, 0, 3, (6, 4), (3,), generator=_generator()).double()
    level = cgc.levels[0]
    for task in range(2):
        alone = MMoE(5, 1, 3, (6, 4), (3,)).double()
        alone.experts.load_state_dict(level.own[task].state_dict())  # type: ignore[union-attr, index]
        alone.gates.load_state_dict(level.gates[task].state_dict())  # type: ignore[union-attr, index]
        alone.towers.towers[0].load_state_dict(cgc.towers.towers[task].state_dict())
        _assert_same(cgc(_randn(7, 5))[:, task], alone(_randn(7, 5))[:, 0])


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("shared", [0, 2])
def test_tasks_share_the_shared_experts_and_nothing_else(levels: int, shared: int) -> None:
    model = PLE(5, 2, shared, 2, (6,), (3,), levels=levels, generator=_generator()).double()
    model(_randn(30, 5))[:, 0].sum().backward()
    reached = {name for name, parameter in model.named_parameters() if not _is_zero(parameter.grad)}
    last = levels - 1
    strangers = {f"levels.{last}.own.1.", f"levels.{last}.gates.1.", "towers.towers.1."}
    if not shared:  # in lower levels too: no shared gate carries one task's experts to the other
        strangers |= {f"levels.{level}.{part}.1." for level in range(levels) for part in ("own", "gates")}
        assert not any("shared" in name for name, _ in model.named_parameters())
    assert not any(name.startswith(tuple(strangers)) for name in reached)
    own = {f"levels.{level}.own.0.first.weight" for level in range(levels)}
    assert own <= reached
    # below the last level the other task's experts are heard through the shared gate
    assert ("levels.0.own.1.first.weight" in reached) == (shared > 0 and levels > 1)
    assert any(".shared.first." in name for name in reached) == (shared > 0)


def test_ple_with_one_level_is_cgc() -> None:
    cgc = CGC(5, 2, 3, 2, (6, 4), (3,), generator=_generator()).double()
    ple = PLE(5, 2, 3, 2, (6, 4), (3,), levels=1, generator=_generator(1)).double()
    ple.load_state_dict(cgc.state_dict())
    assert torch.equal(ple(_randn(7, 5)), cgc(_randn(7, 5)))
    assert torch.equal(ple.gate_weights(_randn(7, 5)), cgc.gate_weights(_randn(7, 5)))
    two = PLE(5, 2, 3, 2, (6, 4), (3,), levels=2, generator=_generator()).double()
    assert not torch.allclose(two(_randn(7, 5)), cgc(_randn(7, 5)))


def _softmax_mix(gate: Tensor, x: Tensor, said: list[Tensor]) -> Tensor:
    weights = torch.softmax(x @ gate.T, dim=-1)
    return sum((weights[:, i : i + 1] * one for i, one in enumerate(said)), torch.zeros_like(said[0]))


def test_ple_written_out_expert_by_expert() -> None:
    """S = 2 shared experts and t = 1 of each of 3 tasks, in 2 levels, as the paper's figure draws them."""
    model = PLE(5, 3, 2, 1, (4,), (3,), levels=2, generator=_generator()).double()
    state, x = model.state_dict(), _randn(7, 5)

    def said(name: str, inputs: Tensor) -> list[Tensor]:
        hidden = inputs @ state[f"{name}.first.weight"].T + state[f"{name}.first.bias"]
        return list(hidden.clamp(min=0).split(4, dim=-1))

    tasks, shared = [x, x, x], x
    for level in (0, 1):
        by_shared = said(f"levels.{level}.shared", shared)
        by_own = [said(f"levels.{level}.own.{k}", tasks[k]) for k in range(3)]
        gates = [state[f"levels.{level}.gates.{k}.weight"] for k in range(3)]
        if level == 0:
            everyone = [*by_shared, *by_own[0], *by_own[1], *by_own[2]]
            next_shared = _softmax_mix(state["levels.0.shared_gate.weight"], shared, everyone)
        weights = [torch.softmax(tasks[k] @ gates[k].T, dim=-1) for k in range(3)]
        tasks = [_softmax_mix(gates[k], tasks[k], [*by_shared, *by_own[k]]) for k in range(3)]
        shared = next_shared
    _assert_same(model(x), model.towers(*tasks).detach())
    assert "levels.1.shared_gate.weight" not in state
    # shared experts first, then each task's own; nothing of the other tasks
    none = torch.zeros(7, dtype=torch.float64)
    expected = torch.stack(
        [
            torch.stack(
                [*weights[k].T[:2], *(weights[k][:, 2] if own == k else none for own in range(3))], -1
            )
            for k in range(3)
        ],
        dim=1,
    )
    _assert_same(model.gate_weights(x), expected)


def test_gate_weights_of_tasks_with_several_experts_are_zero_at_the_others() -> None:
    weights = CGC(5, 3, 2, 2, (4,), generator=_generator()).gate_weights(torch.ones(4, 5))
    assert weights.shape == (4, 3, 8)
    own = torch.block_diag(*[torch.ones(1, 2)] * 3)
    assert torch.equal(weights > 0, torch.cat([torch.ones(3, 2), own], dim=-1).bool().expand(4, -1, -1))
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(4, 3))


# --- what is refused -------------------------------------------------------------------------------

NAN = math.nan


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AttentionMMoE(5, 2, 3, (4,), query_width=0), "query_width is 0, expected 1 or more"),
        (lambda: AttentionMMoE(5, 0, 3, (4,)), "num_tasks is 0, expected 1 or more"),
        (lambda: AttentionMMoE(5, 2, 0, (4,)), "num_experts is 0, expected 1 or more"),
        (lambda: TransformerMMoE(5, 2, 3, (4,), heads=3), "heads is 3, expected a divisor of 4"),
        (lambda: TransformerMMoE(5, 2, 3, (4,), heads=0), "heads is 0, expected a divisor of 4"),
        (lambda: TopKMMoE(5, 2, 3, (4,), k=4), "k is 4, expected 1 to 3"),
        (lambda: TopKMMoE(5, 2, 3, (4,), k=0), "k is 0, expected 1 to 3"),
        (lambda: DSelectKMMoE(5, 2, 6, (4,)), "num_experts is 6, expected a power of 2"),
        (lambda: DSelectKMMoE(5, 2, 1, (4,), k=1), "num_experts is 1, expected a power of 2"),
        (lambda: DSelectKMMoE(5, 2, 0, (4,)), "num_experts is 0, expected 1 or more"),
        (lambda: DSelectKMMoE(5, 0, 4, (4,)), "num_tasks is 0, expected 1 or more"),
        (lambda: DSelectKMMoE(5, 2, 4, (4,), k=5), "k is 5, expected 1 to 4"),
        (lambda: DSelectKMMoE(5, 2, 4, (4,), k=0), "k is 0, expected 1 to 4"),
        (lambda: DSelectKMMoE(5, 2, 4, (4,), gamma=0.0), "gamma is 0.0, expected a number above 0"),
        (lambda: DSelectKMMoE(5, 2, 4, (4,), gamma=NAN), "gamma is nan, expected a number above 0"),
        (
            lambda: DSelectKMMoE(5, 2, 4, (4,), entropy=-1.0),
            "entropy is -1.0, expected a number of 0 or more",
        ),
        (lambda: RegularisedMMoE(5, 2, 3, (4,), entropy=NAN), "entropy is nan, expected a finite number"),
        (lambda: RegularisedMMoE(5, 2, 3, (4,), balance=-1.0), "balance is -1.0, expected a number of 0"),
        (
            lambda: RegularisedMMoE(5, 2, 3, (4,), orthogonality=NAN),
            "orthogonality is nan, expected a number",
        ),
        (lambda: CGC(5, 2, 0, 0, (4,)), "shared_experts is 0 and task_experts 0, expected .* at least one"),
        (lambda: CGC(5, 2, -1, 3, (4,)), "shared_experts is -1 and task_experts 3, expected 0 or more"),
        (lambda: CGC(5, 2, 3, -1, (4,)), "shared_experts is 3 and task_experts -1, expected 0 or more"),
        (lambda: CGC(5, 0, 3, 1, (4,)), "num_tasks is 0, expected 1 or more"),
        (lambda: CGC(5, 2, 3, 1, ()), "expert_widths is empty, expected at least one layer"),
        (lambda: PLE(5, 2, 3, 1, (4, 0)), r"expert_widths is \(4, 0\), expected 1 or more"),
        (lambda: PLE(5, 2, 3, 1, (4,), (0,)), r"tower_widths is \(0,\), expected 1 or more"),
        (lambda: PLE(0, 2, 3, 1, (4,)), "num_inputs is 0, expected 1 or more"),
        (lambda: PLE(5, 2, 3, 1, (4,), levels=0), "levels is 0, expected 1 or more"),
    ],
)
def test_bad_sizes_and_numbers_are_refused_in_one_line(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
