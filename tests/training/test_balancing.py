"""Task gradients, what a balancer makes of them, and the step that it decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from mmoe_lib.models import L2Constrained, MMoE, Ranker, SharedBottom, SingleTask
from mmoe_lib.models.extensions import CGC, PLE, RegularisedMMoE
from mmoe_lib.training import Ensemble, TrainingSettings, binary_cross_entropy, epochs, squared_error, train
from mmoe_lib.training.balancing import (
    SURGEONS,
    GradientSurgery,
    GradNorm,
    UncertaintyWeighting,
    Weigh,
    gramian,
    own_parameters,
)

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "Shared-Bottom": partial(SharedBottom, 5, 3, (7,), (4,)),
    "MMoE": partial(MMoE, 5, 3, 4, (6,), (4,)),
    "with a penalty on the batch": partial(RegularisedMMoE, 5, 3, 4, (6,), (4,), entropy=0.5),
    "with a penalty on the weights": partial(L2Constrained, 5, 3, (6,), (4,), alpha=0.3),
}
CGC_SIZES: dict[str, Any] = {"shared_experts": 2, "task_experts": 2, "expert_widths": (6,)}
LAYERED: dict[str, Callable[..., nn.Module]] = {
    "CGC": partial(CGC, 5, 3, 2, 2, (6,), (4,)),
    "PLE": partial(PLE, 5, 3, 2, 2, (6,), (4,)),
    "PLE of three levels": partial(PLE, 5, 3, 2, 2, (6,), (4,), levels=3),
    "PLE without own experts": partial(PLE, 5, 3, 2, 0, (6,), (4,), levels=3),
    "PLE without shared experts": partial(PLE, 5, 3, 0, 2, (6,), (4,), levels=3),
    "a ranker": partial(Ranker, 2, 3, 8, 3, partial(CGC, **CGC_SIZES)),
}


def _data(rows: int = 40, tasks: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    return x, (torch.rand(rows, tasks, generator=generator) < 0.4).double()


def _ensemble(name: str, seeds: Sequence[int] = (1, 2)) -> Ensemble:
    return Ensemble((BUILDERS | LAYERED)[name], seeds, dtype=torch.float64)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_task_gradients_sum_to_the_gradient(name: str) -> None:
    ensemble, (x, y) = _ensemble(name), _data()
    rows, losses = ensemble.task_gradients(binary_cross_entropy, x, y)
    whole, same_losses = ensemble.gradients(binary_cross_entropy, x, y)
    torch.testing.assert_close(losses, same_losses)
    for parameter, value in whole.items():
        assert rows[parameter].shape == (2, 3, *value.shape[1:])
        torch.testing.assert_close(rows[parameter].sum(dim=1), value)


def test_each_task_gradient_is_that_of_the_module_alone() -> None:
    ensemble, (x, y) = _ensemble("MMoE"), _data()
    rows, _ = ensemble.task_gradients(binary_cross_entropy, x, y)
    for run in range(2):
        module = ensemble.module(run)
        for task in range(3):
            module.zero_grad()
            binary_cross_entropy(module(x), y)[task].backward()
            for name, parameter in module.named_parameters():
                expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                torch.testing.assert_close(rows[name][run, task], expected)


@pytest.mark.parametrize("name", ["Shared-Bottom", "MMoE", *LAYERED])
def test_own_parameters_are_those_that_one_task_alone_moves(name: str) -> None:
    ensemble, (x, y) = _ensemble(name), _data()
    if name == "a ranker":
        x[:, :2] = torch.arange(2 * len(x), dtype=x.dtype).view(-1, 2) % 8  # ids
    rows, _ = ensemble.task_gradients(binary_cross_entropy, x, y)
    own = own_parameters(ensemble.module(0))
    assert own < set(rows) or name == "PLE without shared experts"
    for parameter, value in rows.items():
        movers = (value != 0).sum(dim=1)  # (R, ...): by how many tasks each number is moved
        assert (parameter in own) == (int(movers.max()) == 1), parameter


def test_the_gramian_holds_the_inner_products_of_the_shared_gradients() -> None:
    ensemble, (x, y) = _ensemble("Shared-Bottom"), _data()
    rows, _ = ensemble.task_gradients(binary_cross_entropy, x, y)
    shared = [value.flatten(2) for name, value in rows.items() if name.startswith("bottom")]
    assert shared
    flat = torch.cat(shared, dim=2)
    found = gramian(rows, own_parameters(ensemble.module(0)))
    for run in range(2):
        for j in range(3):
            for k in range(3):
                assert float(found[run, j, k]) == pytest.approx(float(flat[run, j] @ flat[run, k]))


def test_nothing_shared_is_nothing_to_balance() -> None:
    only_towers = {"towers.0.output.weight": torch.ones(1, 2, 3)}
    with pytest.raises(ValueError, match="no parameter is shared"):
        gramian(only_towers, {"towers.0.output.weight"})


class _Fixed:
    shared_only: ClassVar[bool] = False

    def __init__(self, weights: tuple[float, ...]) -> None:
        self.weights = weights

    def start(self, num_runs: int, num_tasks: int) -> Weigh:
        return lambda losses, gramians: losses.new_tensor(self.weights).expand(num_runs, num_tasks)


class _FixedShared(_Fixed):
    shared_only: ClassVar[bool] = True


def _trained(name: str, balancer: _Fixed | None, loss: Callable[[Tensor, Tensor], Tensor]) -> Ensemble:
    ensemble, (x, y) = _ensemble(name), _data()
    settings = TrainingSettings(7, 0.01, balancer=balancer)
    train(ensemble, epochs(x, y, 10), loss, settings, progress=False)
    return ensemble


@pytest.mark.parametrize("name", BUILDERS)
def test_weights_of_one_train_as_the_plain_sum_does(name: str) -> None:
    plain = _trained(name, None, binary_cross_entropy)
    for balancer in (_Fixed((1.0, 1.0, 1.0)), _FixedShared((1.0, 1.0, 1.0))):
        balanced = _trained(name, balancer, binary_cross_entropy)
        for parameter, value in plain.parameters.items():
            torch.testing.assert_close(balanced.parameters[parameter], value)


def test_weights_of_the_losses_are_those_of_the_gradients() -> None:
    weights = (0.5, 2.0, 3.0)

    def weighted_loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return binary_cross_entropy(outputs, labels) * torch.tensor(weights, dtype=outputs.dtype)

    plain = _trained("MMoE", None, weighted_loss)
    balanced = _trained("MMoE", _Fixed(weights), binary_cross_entropy)
    for parameter, value in plain.parameters.items():
        torch.testing.assert_close(balanced.parameters[parameter], value)


@pytest.mark.parametrize("name", ["MMoE", "CGC"])
def test_weights_of_shared_parameters_leave_a_tasks_own_alone(name: str) -> None:
    ensemble, (x, y) = _ensemble(name), _data()
    before = ensemble.copy_state()
    settings = TrainingSettings(1, 0.01, balancer=_FixedShared((0.0, 0.0, 0.0)))
    train(ensemble, epochs(x, y, 40), binary_cross_entropy, settings, progress=False)
    own = own_parameters(ensemble.module(0))
    for parameter, value in before.items():
        assert torch.equal(ensemble.parameters[parameter], value) == (parameter not in own), parameter


def _uncertain(losses: Tensor, steps: int) -> Tensor:
    weigh = UncertaintyWeighting(0.1).start(len(losses), losses.shape[1])
    for _ in range(steps):
        weights = weigh(losses, torch.eye(2).expand(len(losses), 2, 2))
    return weights


def test_uncertainty_weights_come_to_the_inverse_of_twice_the_loss() -> None:
    losses = torch.tensor([[0.05, 0.5], [2.0, 0.25]], dtype=torch.float64)
    assert torch.equal(_uncertain(losses, 1), torch.ones(2, 2, dtype=torch.float64))
    # d/ds (exp(-s) L + s/2) = 0  at  exp(-s) = 1 / (2 L)
    torch.testing.assert_close(_uncertain(losses, 2000), 1 / (2 * losses))


def test_grad_norm_without_alpha_makes_the_gradients_equally_long() -> None:
    gramians = torch.tensor([[[9.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    weigh = GradNorm(alpha=0.0, learning_rate=0.001).start(1, 2)
    losses = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    for _ in range(3000):
        weights = weigh(losses, gramians)
    # w1 * 3 = w2 * 1  and  w1 + w2 = 2
    torch.testing.assert_close(weights, torch.tensor([[0.5, 1.5]], dtype=torch.float64), atol=5e-3, rtol=0)
    assert float(weights.sum()) == pytest.approx(2)


def test_grad_norm_helps_the_task_that_trains_slowly() -> None:
    gramians = torch.eye(2, dtype=torch.float64)[None]
    weigh = GradNorm(alpha=1.0, learning_rate=0.001).start(1, 2)
    weigh(torch.tensor([[1.0, 1.0]], dtype=torch.float64), gramians)
    for _ in range(3000):
        weights = weigh(torch.tensor([[0.2, 0.6]], dtype=torch.float64), gramians)
    # equal norms: w_k goes to mean(w) r_k = r_k, and r = (0.2, 0.6) / 0.4
    torch.testing.assert_close(weights, torch.tensor([[0.5, 1.5]], dtype=torch.float64), atol=5e-3, rtol=0)


def test_grad_norm_moves_each_weight_by_the_length_of_its_gradient() -> None:
    """One step by hand: gradients of lengths 3 and 1, tasks at the same pace."""
    gramians = torch.diag(torch.tensor([9.0, 1.0], dtype=torch.float64))[None]
    weigh = GradNorm(alpha=1.0, learning_rate=0.1).start(1, 2)
    losses = torch.tensor([[2.0, 5.0]], dtype=torch.float64)
    assert weigh(losses, gramians).tolist() == [[1, 1]]
    # G = (3, 1), goal 2 for both; w - 0.1 sign(G - goal) ||g|| / 2 = (1 - 0.15, 1 + 0.05), scaled to a sum of 2
    expected = 2 / 1.9 * torch.tensor([[0.85, 1.05]], dtype=torch.float64)
    torch.testing.assert_close(weigh(losses, gramians), expected)


CONFLICT = torch.tensor([[4.0, -0.5], [-0.5, 1.0]])
AGREEMENT = torch.tensor([[4.0, 0.5], [0.5, 1.0]])


def _surgery(method: str, *matrices: Tensor, **settings: float) -> Tensor:
    weigh = GradientSurgery(method, **settings).start(len(matrices), len(matrices[0]))  # type: ignore[arg-type]
    return weigh(torch.zeros(len(matrices), len(matrices[0])), torch.stack(matrices))


@pytest.mark.parametrize("method", ["PCGrad", "UPGrad"])
def test_projections_have_their_closed_form_for_two_tasks(method: str) -> None:
    weights = _surgery(method, CONFLICT, AGREEMENT)
    # g_1 - (g_1'g_2 / g_2'g_2) g_2, and the other way round: weights 1 - G_12 / G_11 and 1 - G_12 / G_22
    expected = torch.tensor([1 + 0.5 / 4, 1 + 0.5 / 1])
    torch.testing.assert_close(weights[0], 2 * expected / expected.sum(), atol=1e-3, rtol=0)
    torch.testing.assert_close(weights[1], torch.ones(2), atol=1e-3, rtol=0)


def test_cagrad_without_radius_is_the_mean_gradient() -> None:
    torch.testing.assert_close(_surgery("CAGrad", CONFLICT, conflict=0.0)[0], torch.ones(2))
    # with one it leans to the shorter gradient, which the mean helps least
    assert float(_surgery("CAGrad", CONFLICT)[0, 1]) > 1.05


@pytest.mark.filterwarnings("ignore")
def test_nash_mtl_solves_its_bargaining_problem() -> None:
    for matrix in (CONFLICT, AGREEMENT):
        weigh = GradientSurgery("Nash-MTL").start(1, 2)
        for _ in range(3):
            weights = weigh(torch.zeros(1, 2), matrix[None])[0]
        # G alpha = 1 / alpha, up to the scale that is set here
        gains = weights * (matrix @ weights)
        torch.testing.assert_close(gains[0], gains[1], rtol=1e-2, atol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", SURGEONS)
def test_surgery_keeps_the_scale_the_runs_and_the_global_generator_apart(method: str) -> None:
    before = torch.get_rng_state()
    alone = _surgery(method, CONFLICT)
    together = _surgery(method, CONFLICT, AGREEMENT)
    tiny = _surgery(method, 1e-10 * CONFLICT)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(together[0], alone[0])
    torch.testing.assert_close(tiny, alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(together.sum(dim=1), torch.full((2,), 2.0))
    broken = _surgery(method, torch.full((2, 2), torch.nan), CONFLICT)  # a run that diverged
    torch.testing.assert_close(broken[1], alone[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", SURGEONS)
def test_surgery_trains(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator)
    y = torch.stack([x[:, 0], -x[:, 0] + x[:, 1]], dim=1)
    ensemble = Ensemble(partial(SharedBottom, 5, 2, (8,)), (0, 1))
    settings = TrainingSettings(60, 0.02, balancer=GradientSurgery(method), note_every=20)
    history = train(ensemble, epochs(x, y, 100), squared_error, settings, progress=False)
    assert bool((history.losses[-1].sum(dim=1) < 0.5 * history.losses[0].sum(dim=1)).all())


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(ValueError, match="expected one of PCGrad, CAGrad, Nash-MTL, UPGrad"):
        GradientSurgery("MGDA")
    with pytest.raises(ValueError, match="a balanced step leaves torch"):
        TrainingSettings(1, balancer=GradNorm(), compile=True)
    x, y = _data()
    single = Ensemble(partial(SingleTask, 5, 3, (4,)), (0,), dtype=torch.float64)
    gradients, _ = single.task_gradients(binary_cross_entropy, x, y)
    # no parameter of separate networks is shared: each task's gradient is 0 on the others' network
    products = gramian(gradients, own_parameters(single.module(0)))[0]
    assert torch.equal(products - torch.diag(products.diagonal()), torch.zeros(3, 3, dtype=torch.float64))
