"""Models beside the paper's, in training: alone and in an ensemble, compiled, at extreme inputs, and their sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmoe_lib.models import count_multiply_adds
from mmoe_lib.models.extensions import (
    CGC,
    PLE,
    AttentionMMoE,
    DSelectKMMoE,
    RegularisedMMoE,
    TopKMMoE,
    TransformerMMoE,
)
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import Ensemble, TrainingSettings, epochs, squared_error, train

Builder = Callable[..., Any]
MODELS: dict[str, Builder] = {
    "attention": lambda k, **more: AttentionMMoE(5, k, 4, (6, 4), (3,), query_width=3, **more),
    "transformer": lambda k, **more: TransformerMMoE(5, k, 4, (6, 4), (3,), heads=2, **more),
    "top-k": lambda k, **more: TopKMMoE(5, k, 4, (6, 4), (3,), k=2, **more),
    "dselect-k": lambda k, **more: DSelectKMMoE(5, k, 4, (6, 4), (3,), k=2, entropy=0.1, **more),
    # numpy's numbers, as a search over settings gives them
    "regularised": lambda k, **more: RegularisedMMoE(
        5, k, 4, (6, 4), (3,), entropy=np.float64(-0.1), balance=np.float64(0.2), orthogonality=0.3, **more
    ),
    "cgc": lambda k, **more: CGC(5, k, 2, 1, (6, 4), (3,), **more),
    "ple": lambda k, **more: PLE(5, k, 2, 1, (6, 4), (3,), levels=2, **more),
}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _randn(*shape: int, seed: int = 99) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _penalty(model: nn.Module, x: Tensor) -> Tensor:
    return model.penalty(x) if hasattr(model, "penalty") else torch.zeros(())  # type: ignore[operator]


@pytest.mark.parametrize("name", MODELS)
def test_run_r_of_an_ensemble_is_that_module_trained_alone(name: str) -> None:
    seeds, rates = (11, 5, 8), (1e-2, 3e-2, 3e-3)
    x, y = _randn(24, 5), _randn(24, 2, seed=1)
    ensemble = Ensemble(partial(MODELS[name], 2), seeds, dtype=torch.float64)
    train(ensemble, epochs(x, y, 8), squared_error, TrainingSettings(3, rates), progress=False)
    for run, (seed, rate) in enumerate(zip(seeds, rates, strict=True)):
        model = MODELS[name](2, generator=seeded_generator(seed, "initialisation")).double()
        optimiser = torch.optim.Adam(model.parameters(), lr=rate)
        for inputs, labels in islice(epochs(x, y, 8), 3):
            optimiser.zero_grad(set_to_none=False)
            (squared_error(model(inputs), labels).sum() + _penalty(model, inputs)).backward()
            for parameter in model.parameters():  # what the loss does not reach has a gradient of 0
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            optimiser.step()
        for parameter_name, parameter in model.named_parameters():
            trained = ensemble.parameters[parameter_name][run]
            torch.testing.assert_close(trained, parameter.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ensemble.predict(x)[run], model(x).detach(), rtol=1e-9, atol=1e-11)
        gates = ensemble.gate_weights(x)[run]
        torch.testing.assert_close(gates, model.gate_weights(x).detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_the_gradients_of_an_ensemble_compile_as_one_graph(name: str) -> None:
    ensemble = Ensemble(partial(MODELS[name], 2), (11, 5), dtype=torch.float64)
    x, y = _randn(2, 8, 5), _randn(2, 8, 2, seed=1)
    plain, _ = ensemble.gradients(squared_error, x, y)
    torch.compiler.reset()
    compiled = torch.compile(ensemble.gradients, fullgraph=True, backend="eager")
    gradients, _ = compiled(squared_error, x, y)
    for parameter_name, gradient in plain.items():
        torch.testing.assert_close(gradients[parameter_name], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e4, -1e4, 0.0])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_finite_at_extreme_inputs_and_for_one_row(name: str, scale: float) -> None:
    ensemble = Ensemble(partial(MODELS[name], 2), (11, 5))
    for rows in (8, 1):
        x, y = scale * _randn(rows, 5).float(), torch.zeros(rows, 2)
        gradients, losses = ensemble.gradients(squared_error, x, y)
        assert bool(losses.isfinite().all())
        assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())


@pytest.mark.parametrize("num_tasks", [1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_one_output_and_one_gate_a_task_and_no_row_sees_another(name: str, num_tasks: int) -> None:
    model, x = MODELS[name](num_tasks, generator=_generator()).double(), _randn(6, 5)
    outputs, gates = model(x), model.gate_weights(x)
    assert outputs.shape == (6, num_tasks)
    assert gates.shape[:2] == (6, num_tasks)
    assert bool((gates >= 0).all())
    torch.testing.assert_close(gates.sum(dim=-1), torch.ones(6, num_tasks, dtype=torch.float64))
    for row in range(6):
        torch.testing.assert_close(model(x[row : row + 1])[0], outputs[row], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(
            model.gate_weights(x[row : row + 1])[0], gates[row], rtol=1e-12, atol=1e-13
        )


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    reached: set[str] = set()
    for seed in range(3):  # at one seed all units of a small layer may be asleep
        model = MODELS[name](2, generator=_generator(seed)).double()
        squared_error(model(_randn(64, 5)), _randn(64, 2, seed=1)).sum().backward()
        reached |= {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert reached == {parameter_name for parameter_name, _ in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_same_generator_same_weights_and_another_others(name: str) -> None:
    before = torch.random.get_rng_state()
    first, second, other = (MODELS[name](2, generator=_generator(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)  # no global generator was touched
    for parameter_name, value in first.items():
        assert torch.equal(value, second[parameter_name])
        drawn = "norm" not in parameter_name  # norms start at 1 and 0
        assert torch.equal(value, other[parameter_name]) != drawn


@pytest.mark.parametrize("name", MODELS)
def test_inputs_of_wrong_width_or_type_are_refused_in_one_line(name: str) -> None:
    model = MODELS[name](2, generator=_generator())
    for call in (model, model.gate_weights):
        for shape in ((3, 4), (5,), (2, 3, 5)):
            with pytest.raises(ValueError, match=r"input has shape \(.*\), expected \(batch, 5\)") as caught:
                call(torch.zeros(shape))
            assert "\n" not in str(caught.value)
        with pytest.raises(TypeError, match=r"input is torch.float64, expected torch.float32"):
            call(torch.zeros(3, 5, dtype=torch.float64))


# With n = 4 experts of h = 4 units, K = 2: products and sums outside of matrix products, which torch does not count.
MIXING = {
    "attention": 2 * 4 * 4,  # K n h
    "transformer": 2 * 4 * 4,
    "top-k": 2 * 4 * 4,
    "dselect-k": 2 * 4 * 4 + 2 * 2 * 4,  # and K k n for the selectors
    "regularised": 2 * 4 * 4,
    "cgc": 2 * 3 * 4,  # K (s + t) h
    "ple": 2 * 2 * 3 * 4 + 4 * 4,  # K (s + t) h a level, and (s + K t) h for the shared gate
}


@pytest.mark.parametrize("name", MODELS)
def test_multiply_adds_are_those_that_torch_counts_and_the_mixing(name: str) -> None:
    model = MODELS[name](2, generator=_generator())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(1, 5))
    assert count_multiply_adds(model) == counter.get_total_flops() // 2 + MIXING[name]


def test_multiply_adds_by_hand() -> None:
    """100 inputs, 2 tasks, experts of 16 units, towers of 8: 2 (16 * 8 + 8) for the towers."""
    towers, expert, gate = 2 * (16 * 8 + 8), 100 * 16, 100
    mmoe = 8 * expert + 2 * 8 * gate + 2 * 8 * 16 + towers
    assert count_multiply_adds(TopKMMoE(100, 2, 8, (16,), (8,))) == mmoe
    assert count_multiply_adds(RegularisedMMoE(100, 2, 8, (16,), (8,))) == mmoe
    # 8 keys of 12 numbers and 2 * 8 products of a query with a key, in place of the gates
    attention = mmoe - 2 * 8 * gate + 8 * 16 * 12 + 2 * 8 * 12
    assert count_multiply_adds(AttentionMMoE(100, 2, 8, (16,), (8,), query_width=12)) == attention
    # a token: queries, keys, values and output, then twice as wide and back; 8 * 8 pairs of tokens, twice
    transformer = mmoe + 8 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 8 * 8 * 16
    assert count_multiply_adds(TransformerMMoE(100, 2, 8, (16,), (8,), heads=4)) == transformer
    # 2 selectors a task, each of 3 codes and a logit
    dselect = mmoe - 2 * 8 * gate + 2 * 2 * (3 + 1) * gate + 2 * 2 * 8
    assert count_multiply_adds(DSelectKMMoE(100, 2, 8, (16,), (8,), k=2)) == dselect
    # 4 shared experts and 2 of each task's own
    cgc = 8 * expert + 2 * 6 * gate + 2 * 6 * 16 + towers
    assert count_multiply_adds(CGC(100, 2, 4, 2, (16,), (8,))) == cgc
    # the shared gate of the first level, then a second level that reads 16 numbers
    second = 8 * 16 * 16 + 2 * 6 * 16 + 2 * 6 * 16
    ple = cgc + 8 * gate + 8 * 16 + second
    assert count_multiply_adds(PLE(100, 2, 4, 2, (16,), (8,), levels=2)) == ple
