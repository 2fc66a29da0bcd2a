"""Run r of an ensemble is that module trained alone; early stopping, divergence, bad input."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmoe_lib.models import PAPER_SIZES, L2Constrained, MMoE, SharedBottom, paper_model
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks import synthetic
from mmoe_lib.training import (
    Adam,
    DivergedError,
    Ensemble,
    TrainingSettings,
    binary_cross_entropy,
    epochs,
    fit,
    squared_error,
    train,
)
from mmoe_lib.training.step import Step

SEEDS = (11, 5, 8)
RATES = (1e-3, 3e-3, 3e-4)


def _ensemble(
    name: str = "MMoE", seeds: tuple[int, ...] = SEEDS, dtype: torch.dtype = torch.float64
) -> Ensemble:
    return Ensemble(partial(paper_model(name), 100, 2), seeds, dtype=dtype)


def _train_alone(name: str, run: int, steps: int, dtype: torch.dtype) -> list[Tensor]:
    """The plain loop a reader would write: one module, torch.optim.Adam, a loss per step."""
    generator = seeded_generator(SEEDS[run], "initialisation")
    model = paper_model(name)(100, 2, generator=generator).to(dtype)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATES[run])
    losses = []
    for x, y in islice(synthetic.stream(0.5, [SEEDS[run]], 8, dtype=dtype), steps):
        loss = squared_error(model(x[0]), y[0])
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
        losses.append(loss.detach())
    return losses


def _train_together(name: str, steps: int, dtype: torch.dtype) -> list[Tensor]:
    settings = TrainingSettings(steps, RATES, note_every=1)
    batches = synthetic.stream(0.5, SEEDS, 8, dtype=dtype)
    history = train(_ensemble(name, dtype=dtype), batches, squared_error, settings, progress=False)
    return history.losses


@pytest.mark.parametrize("name", PAPER_SIZES)
def test_run_r_of_an_ensemble_is_that_module_trained_alone(name: str) -> None:
    """The equality of the design: float64, 1,000 steps, every model, relative difference below 1e-10."""
    together = torch.stack(_train_together(name, 1_000, torch.float64))  # (steps, R, K)
    run = 1  # the one with the largest learning rate: rounding grows fastest there
    alone = torch.stack(_train_alone(name, run, 1_000, torch.float64))  # (steps, K)
    assert float(((together[:, run] - alone) / alone).abs().max()) < 1e-10
    assert float(alone[-100:].mean()) < 0.9 * float(alone[:100].mean())  # and it learned something


def test_fit_is_an_ensemble_trained_on_minibatches_of_its_own_device() -> None:
    devices = []

    def batches(device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        devices.append(device)
        return synthetic.stream(0.5, SEEDS, 8, device=device)

    settings = TrainingSettings(30, RATES, evaluate_every=10, monitor="step", note_every=10)

    def evaluate(ensemble: Ensemble) -> dict[str, Tensor]:
        return {"step": torch.arange(3.0) * len(ensemble)}

    build = partial(paper_model("MMoE"), 100, 2)
    runs, history = fit(build, SEEDS, batches, squared_error, settings, evaluate, progress=False)
    other = Ensemble(build, SEEDS)
    expected = train(
        other, synthetic.stream(0.5, SEEDS, 8), squared_error, settings, evaluate, progress=False
    )
    assert devices == [torch.device("cpu")]
    assert runs.seeds == SEEDS
    assert history.best_step.tolist() == expected.best_step.tolist() == [10, 10, 10]
    assert all(torch.equal(runs.parameters[name], value) for name, value in other.parameters.items())
    assert all(torch.equal(a, b) for a, b in zip(history.losses, expected.losses, strict=True))


def test_means_agree_in_float32() -> None:
    together = torch.stack(_train_together("MMoE", 1_000, torch.float32))
    for run in range(len(SEEDS)):
        alone = torch.stack(_train_alone("MMoE", run, 1_000, torch.float32))
        assert float(together[:, run].mean()) == pytest.approx(float(alone.mean()), rel=1e-3)


def test_a_run_alone_is_an_ensemble_of_one() -> None:
    settings = TrainingSettings(50, RATES[2], note_every=1)
    single = _ensemble(seeds=SEEDS[2:])
    history = train(
        single,
        synthetic.stream(0.5, SEEDS[2:], 8, dtype=torch.float64),
        squared_error,
        settings,
        progress=False,
    )
    together = _train_together("MMoE", 50, torch.float64)
    for one, many in zip(history.losses, together, strict=True):
        torch.testing.assert_close(one[0], many[2], rtol=1e-10, atol=0)


def test_the_module_of_a_run_computes_what_the_ensemble_does() -> None:
    ensemble = _ensemble()
    x = torch.randn(9, 100, dtype=torch.float64, generator=seeded_generator(0, "test"))
    module = ensemble.module(1)
    assert isinstance(module, MMoE)
    torch.testing.assert_close(module(x), ensemble.predict(x, rows=4)[1])
    torch.testing.assert_close(module.gate_weights(x), ensemble.gate_weights(x)[1])
    own = torch.stack([x, 2 * x, 3 * x])
    torch.testing.assert_close(module(2 * x), ensemble.predict(own)[1])
    # the copy can be trained on without touching the ensemble
    module(x).sum().backward()
    before = ensemble.predict(x)
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    assert torch.equal(ensemble.predict(x), before)


def test_shared_batches_equal_the_same_batch_given_to_every_run() -> None:
    ensemble = _ensemble()
    x, y = next(synthetic.stream(0.5, [1], 16, dtype=torch.float64))
    shared, losses = ensemble.gradients(squared_error, x[0], y[0])
    own, losses_own = ensemble.gradients(squared_error, x.expand(3, -1, -1), y.expand(3, -1, -1))
    torch.testing.assert_close(losses, losses_own)
    for name in shared:
        torch.testing.assert_close(shared[name], own[name])


def test_losses_match_their_formulas() -> None:
    outputs, labels = torch.tensor([[0.0, 2.0], [1.0, -1.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert squared_error(outputs, labels).tolist() == [1.0, 1.0]
    expected = [
        (math.log(2) + math.log1p(math.e)) / 2,
        (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2,
    ]
    assert binary_cross_entropy(outputs, labels).tolist() == pytest.approx(expected, rel=1e-6)


def test_an_epoch_visits_every_row_once_in_a_new_order() -> None:
    x = torch.arange(12.0).unsqueeze(1)
    batches = list(islice(epochs(x, -x, 4, seed=3), 6))
    first, second = (torch.cat([b[0] for b in part]).flatten() for part in (batches[:3], batches[3:]))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12))
    assert not torch.equal(first, second)
    assert all(torch.equal(x, -y) for x, y in batches)
    assert torch.equal(next(epochs(x, -x, 4, seed=3))[0], batches[0][0])
    assert len(list(islice(epochs(x, x, 5), 5))[-1][0]) == 5  # 12 rows in batches of 5: two an epoch


# --- early stopping -------------------------------------------------------------------------------


def _scripted(curves: list[list[float]]) -> tuple[Ensemble, TrainingSettings, object]:
    """An ensemble whose validation metric follows a script, whatever it learns."""
    seeds = tuple(range(len(curves)))
    ensemble = Ensemble(partial(SharedBottom, 3, 1, (2,)), seeds)
    states: list[dict[str, Tensor]] = []

    def evaluate(ensemble: Ensemble) -> dict[str, Tensor]:
        states.append(ensemble.copy_state())
        return {"score": torch.tensor([curve[len(states) - 1] for curve in curves])}

    settings = TrainingSettings(
        steps=5 * len(curves[0]), note_every=5, evaluate_every=5, monitor="score", patience=2
    )
    evaluate.states = states  # type: ignore[attr-defined]
    return ensemble, settings, evaluate


def _small_batches() -> Iterator[tuple[Tensor, Tensor]]:
    x = torch.randn(32, 3, generator=seeded_generator(0, "test"))
    return epochs(x, x[:, :1], 8)


def test_each_run_stops_on_its_own_and_keeps_its_best_state() -> None:
    curves = [
        [0.1, 0.5, 0.4, 0.3, 0.9, 0.9],  # stops at 4; the 0.9 comes too late
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],  # never stops
        [0.7, 0.1, 0.2, 0.1, 0.1, 0.1],  # stops at 3
    ]
    ensemble, settings, evaluate = _scripted(curves)
    history = train(ensemble, _small_batches(), squared_error, settings, evaluate, progress=False)  # type: ignore[arg-type]
    assert history.best_step.tolist() == [10, 30, 5]
    assert history.stopped_step.tolist() == [20, 30, 15]
    states = evaluate.states  # type: ignore[attr-defined]
    for run, evaluation in enumerate([1, 5, 0]):
        for name, value in ensemble.parameters.items():
            assert torch.equal(value[run], states[evaluation][name][run])


def test_as_good_as_the_best_is_no_better() -> None:
    """Patience goes on through a tie, and of equal evaluations the first is kept."""
    ensemble, settings, evaluate = _scripted([[0.2, 0.5, 0.5, 0.5, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5]])
    history = train(ensemble, _small_batches(), squared_error, settings, evaluate, progress=False)  # type: ignore[arg-type]
    assert history.best_step.tolist() == [10, 25]
    assert history.stopped_step.tolist() == [20, 25]


def test_training_ends_when_every_run_has_stopped() -> None:
    ensemble, settings, evaluate = _scripted([[0.5, 0.4, 0.3, 0.2], [0.5, 0.6, 0.4, 0.3]])
    history = train(ensemble, _small_batches(), squared_error, settings, evaluate, progress=False)  # type: ignore[arg-type]
    assert history.stopped_step.tolist() == [15, 20]
    ensemble, settings, evaluate = _scripted([[0.5, 0.4, 0.3, 0.2]] * 2)
    history = train(ensemble, _small_batches(), squared_error, settings, evaluate, progress=False)  # type: ignore[arg-type]
    assert history.evaluation_steps == [5, 10, 15]


def test_a_metric_can_be_one_to_minimise() -> None:
    ensemble, _, evaluate = _scripted([[0.5, 0.2, 0.4]])
    settings = TrainingSettings(15, evaluate_every=5, monitor="score", higher_is_better=False)
    history = train(ensemble, _small_batches(), squared_error, settings, evaluate, progress=False)  # type: ignore[arg-type]
    assert history.best_step.tolist() == [10]


# --- what goes wrong -------------------------------------------------------------------------------


def _poisoned(at: int, into: str) -> Iterator[tuple[Tensor, Tensor]]:
    for step, (x, y) in enumerate(synthetic.stream(0.5, SEEDS, 4, dtype=torch.float64), start=1):
        if step == at:
            (x if into == "x" else y)[1, 2, 0] = math.nan if into == "x" else math.inf
        yield x, y


@pytest.mark.parametrize("into", ["x", "y"])
def test_nan_in_the_data_stops_training_and_keeps_the_last_good_state(into: str) -> None:
    ensemble = _ensemble()
    with pytest.raises(DivergedError, match=r"run 1 \(seed 5\) is NaN or infinite at step 17") as caught:
        train(
            ensemble, _poisoned(17, into), squared_error, TrainingSettings(40, note_every=10), progress=False
        )
    assert (caught.value.run, caught.value.step, caught.value.good_step) == (1, 17, 10)
    reference = _ensemble()
    train(reference, _poisoned(0, into), squared_error, TrainingSettings(10), progress=False)
    for name, value in ensemble.parameters.items():
        torch.testing.assert_close(value, reference.parameters[name], rtol=1e-10, atol=1e-12)


def test_an_exploding_run_is_named() -> None:
    rates = (1e-3, 1e300, 1e-3)
    ensemble = _ensemble()
    with pytest.raises(DivergedError, match=r"run 1 \(seed 5\)") as caught:
        train(
            ensemble,
            synthetic.stream(0.5, SEEDS, 4, dtype=torch.float64),
            squared_error,
            TrainingSettings(40, rates, note_every=10),
            progress=False,
        )
    assert "\n" not in str(caught.value)
    assert all(bool(torch.isfinite(value).all()) for value in ensemble.parameters.values())


def test_a_recorded_divergence_leaves_the_other_runs_as_they_were() -> None:
    ensemble, calm = _ensemble(), _ensemble()
    settings = TrainingSettings(40, note_every=10, on_divergence="record")
    history = train(ensemble, _poisoned(17, "y"), squared_error, settings, progress=False)
    expected = train(calm, _poisoned(0, "y"), squared_error, settings, progress=False)
    assert history.diverged_step.tolist() == [0, 17, 0]
    assert expected.diverged_step.tolist() == [0, 0, 0]
    for run in (0, 2):
        for name, value in ensemble.parameters.items():
            torch.testing.assert_close(value[run], calm.parameters[name][run], rtol=1e-12, atol=0)
    assert bool(torch.stack(history.losses)[:, [0, 2]].isfinite().all())


def test_when_every_run_has_diverged_training_stops() -> None:
    settings = TrainingSettings(40, 1e300, note_every=10, on_divergence="record")
    with pytest.raises(DivergedError, match="is NaN or infinite"):
        train(
            _ensemble(),
            synthetic.stream(0.5, SEEDS, 4, dtype=torch.float64),
            squared_error,
            settings,
            progress=False,
        )
    with pytest.raises(ValueError, match="on_divergence is 'ignore', expected 'raise' or 'record'"):
        TrainingSettings(5, on_divergence="ignore")


def test_weights_that_break_on_the_last_noted_step_are_caught() -> None:
    # The loss of step 10 is fine; only its gradient is not. The state kept must be the one before.
    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return torch.sqrt((outputs * 0).square()).mean(dim=0)  # 0, with gradient 0 * inf = NaN

    ensemble = Ensemble(partial(SharedBottom, 3, 1, (2,)), (0,))
    with pytest.raises(DivergedError, match="a weight of run 0"):
        train(ensemble, _small_batches(), loss, TrainingSettings(1), progress=False)
    assert all(bool(torch.isfinite(value).all()) for value in ensemble.parameters.values())


def test_data_with_nan_are_refused_before_training() -> None:
    x = torch.zeros(4, 3)
    x[2, 1] = math.nan
    with pytest.raises(ValueError, match=r"inputs hold nan at \[2, 1\]"):
        epochs(x, torch.zeros(4, 1), 2)
    with pytest.raises(ValueError, match="labels hold inf"):
        epochs(torch.zeros(4, 3), torch.full((4, 1), math.inf), 2)
    with pytest.raises(ValueError, match="inputs hold nan"):
        Ensemble(partial(SharedBottom, 3, 1, (2,)), (0,)).predict(x)


def test_settings_out_of_range_are_refused_in_one_line() -> None:
    ensemble = Ensemble(partial(SharedBottom, 3, 1, (2,)), (0, 1))
    for make in (
        lambda: TrainingSettings(0),
        lambda: TrainingSettings(5, patience=0, monitor="score", evaluate_every=1),
        lambda: TrainingSettings(5, monitor="score"),
        lambda: TrainingSettings(5, patience=2, evaluate_every=1),
        lambda: Ensemble(partial(SharedBottom, 3, 1, (2,)), ()),
        lambda: Ensemble(partial(SharedBottom, 3, 1, (2,)), (0,), device="gpu0"),
        lambda: Ensemble(partial(SharedBottom, 3, 1, (2,)), (0,), device="cuda:99"),
        lambda: epochs(torch.zeros(4, 3), torch.zeros(4, 1), 5),
        lambda: epochs(torch.zeros(4, 3), torch.zeros(3, 1), 2),
        lambda: train(
            ensemble, _small_batches(), squared_error, TrainingSettings(5, (1e-3,)), progress=False
        ),
        lambda: train(ensemble, _small_batches(), squared_error, TrainingSettings(5, -1.0), progress=False),
        lambda: train(
            ensemble, _small_batches(), squared_error, TrainingSettings(5, evaluate_every=1), progress=False
        ),
    ):
        with pytest.raises(ValueError, match="expected") as caught:
            make()
        assert "\n" not in str(caught.value)


def test_a_metric_that_is_not_there_is_named() -> None:
    ensemble, _, evaluate = _scripted([[0.5]])
    settings = TrainingSettings(5, evaluate_every=5, monitor="auc")
    with pytest.raises(ValueError, match="monitor is 'auc', expected one of score"):
        train(ensemble, _small_batches(), squared_error, settings, evaluate, progress=False)  # type: ignore[arg-type]


def test_a_model_without_gates_says_so() -> None:
    ensemble = Ensemble(partial(SharedBottom, 3, 1, (2,)), (0,))
    with pytest.raises(TypeError, match="SharedBottom has no gates"):
        ensemble.gate_weights(torch.zeros(1, 3))


def test_without_a_compiler_training_goes_on_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    ensemble = Ensemble(partial(SharedBottom, 3, 1, (2,)), (0,))
    before = ensemble.copy_state()
    with pytest.warns(UserWarning, match=r"no C\+\+ compiler"):
        train(ensemble, _small_batches(), squared_error, TrainingSettings(3, compile=True), progress=False)
    assert not all(torch.equal(before[name], value) for name, value in ensemble.parameters.items())


def test_a_compiler_that_does_not_work_is_as_good_as_none(tmp_path: Path) -> None:
    """In a process of its own: torch remembers the compiler that it found."""
    code = """
import warnings
from functools import partial
import torch
from mmoe_lib.models import SharedBottom
from mmoe_lib.training import Ensemble, TrainingSettings, epochs, squared_error, train
ensemble = Ensemble(partial(SharedBottom, 5, 1, (3,)), (0,))
before = ensemble.copy_state()
x = torch.randn(32, 5)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    train(ensemble, epochs(x, x[:, :1], 8), squared_error, TrainingSettings(3, compile=True), progress=False)
print([str(w.message) for w in caught if "compile is True" in str(w.message)])
print(all(torch.equal(before[name], value) for name, value in ensemble.parameters.items()))
"""
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    environment = {**os.environ, "CXX": str(broken), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    warned, unchanged = done.stdout.splitlines()
    assert "compiling failed, expected a C++ compiler that works: training without" in warned
    assert unchanged == "False"


@pytest.mark.filterwarnings("ignore:compile is True but there is no C")
@pytest.mark.parametrize("name", ["Shared-Bottom", "OMoE", "MMoE"])
def test_a_compiled_step_trains_as_the_plain_one(name: str) -> None:
    """The equality of the design under compilation: float64, sizes of section 5.1, relative difference below 1e-10."""

    def losses(compiled: bool) -> Tensor:
        settings = TrainingSettings(200, RATES, note_every=1, compile=compiled)
        batches = synthetic.stream(0.5, SEEDS, 8, dtype=torch.float64)
        return torch.stack(train(_ensemble(name), batches, squared_error, settings, progress=False).losses)

    torch.testing.assert_close(losses(compiled=True), losses(compiled=False), rtol=1e-10, atol=0)


@pytest.mark.filterwarnings("ignore:compile is True but there is no C")
def test_a_second_ensemble_is_compiled_for_itself() -> None:
    """Compiled code holds on to nothing of the ensemble it was made for."""
    settings = TrainingSettings(20, note_every=1, compile=True)
    x = torch.randn(64, 3, generator=seeded_generator(0, "test"), dtype=torch.float64)

    def trained(seeds: tuple[int, ...]) -> Tensor:
        ensemble = Ensemble(partial(MMoE, 3, 2, 2, (4,), (2,)), seeds, dtype=torch.float64)
        return torch.stack(
            train(ensemble, epochs(x, x[:, :2], 8), squared_error, settings, progress=False).losses
        )

    first, second, again = trained((0, 1)), trained((2, 3)), trained((0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first[0], second[0])


def test_modules_with_buffers_are_stacked_too() -> None:
    class Scaled(nn.Module):
        def __init__(self, generator: torch.Generator) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, 1))
            self.scale: Tensor
            self.register_buffer("scale", torch.rand((), generator=generator))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale @ self.weight + self.scale

    ensemble = Ensemble(Scaled, (0, 1))
    predictions = ensemble.predict(torch.ones(2, 3))
    assert not torch.equal(predictions[0], predictions[1])
    torch.testing.assert_close(ensemble.module(1)(torch.ones(2, 3)), predictions[1])


def test_the_whole_step_is_compiled_gradient_included() -> None:
    """A graph break would train the same numbers, but most of the step would run plainly: 2 to 4 times slower."""
    ensemble = Ensemble(partial(L2Constrained, 5, 2, bottom_widths=(4,), alpha=0.1), range(2))
    step = Step(ensemble, squared_error, torch.full((2,), 1e-3), Adam())
    whole = torch.compile(
        step.update, backend="eager", fullgraph=True
    )  # raises where a part cannot be traced
    x, y = torch.randn(8, 5), torch.randn(8, 2)
    gradients, losses = ensemble.gradients(squared_error, x, y)
    found = whole(x, y, *step.scales(1))
    torch.testing.assert_close(found, losses)
    torch.testing.assert_close(
        step.kept["networks.0.0.layers.0.weight"][0], 0.1 * gradients["networks.0.0.layers.0.weight"]
    )
