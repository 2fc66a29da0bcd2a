"""One update of stacked parameters is that of torch's own optimisers, run by run."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from mmoe_lib.models import MMoE, Ranker, SharedBottom
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import SGD, Adam, Ensemble, TrainingSettings, cosine, epochs, squared_error, train
from mmoe_lib.training.balancing import Balancer, GradNorm
from mmoe_lib.training.optimisers import Optimiser
from mmoe_lib.training.step import Step

RATES = (0.3, 0.02, 0.005)
SHAPES = ((4, 2), (5,), (), (2, 3, 2))
"""Of a run's parameters: matrices, biases, scalars and stacks of matrices."""

OPTIMISERS: dict[str, tuple[Optimiser, Callable[..., torch.optim.Optimizer]]] = {
    "SGD": (SGD(), torch.optim.SGD),
    "Adam": (Adam(), torch.optim.Adam),
    "Adam of other settings": (
        Adam(beta1=0.5, beta2=0.9, epsilon=1e-3),
        partial(torch.optim.Adam, betas=(0.5, 0.9), eps=1e-3),
    ),
}


def _drawn(purpose: str, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(3, *shape, generator=seeded_generator(0, f"{purpose} {shape}"), dtype=torch.float64)


def _loss(parameters: list[Tensor], step: int) -> Tensor:
    """Not convex, other at every step, with gradients that depend on the parameters."""
    return sum(
        ((p - step / 7).square().sum() + (3 * p).sin().sum() for p in parameters),
        start=torch.zeros((), dtype=torch.float64),
    )


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_update_is_that_of_torch_for_every_run_at_its_own_rate(name: str) -> None:
    optimiser, of_torch = OPTIMISERS[name]
    stacked = [_drawn("parameters", shape) for shape in SHAPES]
    alone = [[value[run].clone().requires_grad_() for value in stacked] for run in range(3)]
    theirs = [of_torch(parameters, lr=rate) for parameters, rate in zip(alone, RATES, strict=True)]
    kept = [tuple(torch.zeros_like(value) for _ in range(optimiser.buffers)) for value in stacked]
    rates = torch.tensor(RATES, dtype=torch.float64)
    for step in range(1, 31):
        with torch.enable_grad():
            leaves = [value.clone().requires_grad_() for value in stacked]
            gradients = torch.autograd.grad(_loss(leaves, step), leaves)
        first, second = optimiser.corrections(step)
        for value, gradient, of_value in zip(stacked, gradients, kept, strict=True):
            optimiser.update(value, gradient, of_value, rates * first, rates.new_tensor(second))
        for run in range(3):
            theirs[run].zero_grad()
            _loss(alone[run], step).backward()
            theirs[run].step()
            for value, parameter in zip(stacked, alone[run], strict=True):
                torch.testing.assert_close(value[run], parameter.detach(), rtol=1e-10, atol=1e-12)
    for value, shape in zip(stacked, SHAPES, strict=True):
        assert not torch.allclose(value, _drawn("parameters", shape))


def test_a_step_of_sgd_is_the_gradient_times_the_rate() -> None:
    parameter, gradient = torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[2.0, -4.0], [2.0, 0.0]])
    assert SGD().corrections(1) == SGD().corrections(1_000) == (1.0, 1.0)
    SGD().update(parameter, gradient, (), torch.tensor([0.5, 0.25]), torch.tensor(1.0))
    assert parameter.tolist() == [[0.0, 4.0], [0.5, 2.0]]
    assert gradient.tolist() == [[2.0, -4.0], [2.0, 0.0]]  # only the parameter is written to


def test_the_first_step_of_adam_is_the_rate_whatever_the_gradient() -> None:
    parameter, gradient = torch.zeros(2, 2).double(), torch.tensor([[1e-3, -5.0], [7.0, 0.0]]).double()
    first, second = Adam().corrections(1)
    assert (first, second) == pytest.approx((10, 1 / 0.001**0.5))
    kept = (torch.zeros(2, 2).double(), torch.zeros(2, 2).double())
    rates = torch.tensor([0.5, 0.25]).double()
    Adam().update(parameter, gradient, kept, rates * first, torch.tensor(second).double())
    expected = torch.tensor([[-0.5, 0.5], [-0.25, 0.0]]).double()
    torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(kept[0], 0.1 * gradient)
    torch.testing.assert_close(kept[1], 0.001 * gradient.square())


# --- in a step -------------------------------------------------------------------------------------


def _ensemble() -> Ensemble:
    return Ensemble(partial(MMoE, 3, 2, 2, (4,), (2,)), (4, 9, 2), dtype=torch.float64)


def _data(width: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(32, width, generator=seeded_generator(0, "test"), dtype=torch.float64)
    return x, x[:, -2:]


def test_a_step_keeps_what_its_optimiser_needs_and_no_more() -> None:
    for optimiser, number in ((SGD(), 0), (Adam(), 2)):
        ensemble = _ensemble()
        step = Step(ensemble, squared_error, torch.tensor(RATES).double(), optimiser)
        assert step.kept.keys() == ensemble.parameters.keys()
        step(*_data(3), 1)
        for name, kept in step.kept.items():
            assert [value.shape for value in kept] == [ensemble.parameters[name].shape] * number
            assert all(bool(value.any()) for value in kept)
        assert len({id(value) for kept in step.kept.values() for value in kept}) == number * len(step.kept)


def test_a_step_of_sgd_moves_every_run_down_its_own_gradient() -> None:
    ensemble, (x, y) = _ensemble(), _data(3)
    before = ensemble.copy_state()
    gradients, losses = ensemble.gradients(squared_error, x, y)
    noted, total = Step(ensemble, squared_error, torch.tensor(RATES).double(), SGD())(x, y, 1)
    torch.testing.assert_close(noted, losses.detach())
    torch.testing.assert_close(total, x.sum())
    for name, value in ensemble.parameters.items():
        for run, rate in enumerate(RATES):
            torch.testing.assert_close(value[run], before[name][run] - rate * gradients[name][run])


@pytest.mark.parametrize(
    ("optimiser", "of_torch"),
    [
        (SGD(weight_decay=0.1), partial(torch.optim.SGD, weight_decay=0.1)),
        (Adam(weight_decay=0.1), partial(torch.optim.AdamW, weight_decay=0.1)),
    ],
)
@pytest.mark.parametrize("balancer", [None, GradNorm(learning_rate=0.0)])
def test_weight_decay_and_a_schedule_are_torchs(
    optimiser: Optimiser, of_torch: Callable[..., torch.optim.Optimizer], balancer: Balancer | None
) -> None:
    """Warm-up and a cosine of 12 steps over 15, on every run at its own rate."""
    ensemble = _ensemble()
    alone = [ensemble.module(run) for run in range(3)]
    settings = TrainingSettings(
        15, RATES, optimiser=optimiser, schedule=cosine(12, warm_up=3, last=0.1), balancer=balancer
    )
    train(ensemble, epochs(*_data(3), 8), squared_error, settings, progress=False)
    for run, model in enumerate(alone):
        theirs = of_torch(model.parameters(), lr=RATES[run])
        for number, (x, y) in zip(range(1, 16), epochs(*_data(3), 8), strict=False):
            done = min(1.0, (number - 3) / 9)
            share = number / 3 if number < 3 else 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2
            theirs.param_groups[0]["lr"] = RATES[run] * share
            theirs.zero_grad()
            squared_error(model(x), y).sum().backward()
            theirs.step()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(
                ensemble.parameters[name][run], parameter.detach(), rtol=1e-9, atol=1e-12
            )


def test_a_schedule_counts_in_a_graph_as_in_python() -> None:
    rates = torch.tensor(RATES, dtype=torch.float64)
    step = Step(_ensemble(), squared_error, rates, Adam(weight_decay=0.1), cosine(7, warm_up=2))
    for number in range(1, 10):
        counted = step.scales(torch.tensor(number, dtype=torch.float64))
        for one, other in zip(step.scales(number), counted, strict=True):
            torch.testing.assert_close(one, other)
    assert [round(float(cosine(4)(torch.tensor(t))), 3) for t in (0.0, 2.0, 4.0, 9.0)] == [1, 0.5, 0, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(weight_decay=-0.1),
        lambda: Adam(weight_decay=math.nan),
        lambda: cosine(5, warm_up=5),
        lambda: cosine(5, last=2.0),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        make()
    assert "\n" not in str(caught.value)


def test_sgd_and_adam_train_by_their_settings() -> None:
    def losses(optimiser: Optimiser) -> Tensor:
        settings = TrainingSettings(30, RATES, optimiser=optimiser, note_every=1)
        history = train(_ensemble(), epochs(*_data(3), 8), squared_error, settings, progress=False)
        return torch.stack(history.losses)

    by_default = TrainingSettings(30).optimiser
    assert by_default == Adam()
    assert torch.equal(losses(by_default), losses(Adam()))
    assert not torch.allclose(losses(SGD())[1:], losses(Adam())[1:])
    assert float(losses(SGD())[-5:, 0].mean()) < 0.9 * float(losses(SGD())[:5, 0].mean())


@pytest.mark.filterwarnings("ignore:compile is True but there is no C")
def test_a_compiled_step_of_sgd_trains_as_the_plain_one() -> None:
    """With embeddings, whose look-up and gradient are compiled too."""
    _, y = _data(5)
    ids = torch.randint(20, (32, 3), generator=seeded_generator(0, "ids"))
    x = torch.cat([ids.double(), y], dim=1)
    top = partial(SharedBottom, bottom_widths=(4,))

    def trained(compiled: bool) -> tuple[Tensor, dict[str, Tensor]]:
        ensemble = Ensemble(partial(Ranker, 3, 2, 20, 2, top), (4, 9, 2), dtype=torch.float64)
        settings = TrainingSettings(40, RATES, optimiser=SGD(), note_every=1, compile=compiled)
        history = train(ensemble, epochs(x, y, 8), squared_error, settings, progress=False)
        return torch.stack(history.losses), ensemble.parameters

    (losses, parameters), (expected, expected_parameters) = trained(compiled=True), trained(compiled=False)
    torch.testing.assert_close(losses, expected, rtol=1e-10, atol=0)
    for name, value in expected_parameters.items():
        torch.testing.assert_close(parameters[name], value, rtol=1e-10, atol=1e-12)
