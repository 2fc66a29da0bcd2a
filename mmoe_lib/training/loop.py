"""The training loop: steps, a look at the losses, evaluations, early stopping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmoe_lib.models.embeddings import Inputs
from mmoe_lib.progress import progress_bar
from mmoe_lib.training.advance import advance_of
from mmoe_lib.training.balancing import Balancer
from mmoe_lib.training.devices import within_memory
from mmoe_lib.training.door import Inspected, inspected
from mmoe_lib.training.ensemble import Ensemble, name_of
from mmoe_lib.training.history import DivergedError, History
from mmoe_lib.training.losses import Loss
from mmoe_lib.training.optimisers import Adam, Optimiser, Schedule
from mmoe_lib.training.step import BalancedStep, Step

Evaluate = Callable[[Ensemble], dict[str, Tensor]]
"""Metrics of every run by name, each (R,)."""


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast to train, and when to stop.

    Attributes:
        steps: Minibatches at most.
        learning_rate: The step size, one for all runs or one a run.
        optimiser: `Adam` with its other settings, or `SGD`.
        schedule: What the learning rates are multiplied with at each step, such as `cosine(steps)`; None leaves them.
        note_every: Steps between two entries of the loss history; NaN is also looked for then.
        evaluate_every: Steps between two evaluations; 0 never evaluates.
        monitor: The metric by which a run keeps its best state, or None to keep the last.
        higher_is_better: Whether the monitored metric is to rise.
        patience: Evaluations without improvement after which a run stops; None never stops early.
        compile: Compile loss, gradient and update into one step; it takes some seconds on a CPU and half a minute on
            a GPU. Without a compiler: a warning, and plain steps. On a GPU steps are replayed from a graph either way.
        tune: With `compile`, on a GPU: measure which kernels are the fastest, which takes a minute more and is worth
            it for trainings of ten.
        balancer: Decides how much each task's gradient counts; None takes their plain sum.
        resumable: Keep the optimiser's state in the history, so that a later training can go on `after` this one.
        on_divergence: What happens when a run's loss is no longer finite. "raise" stops all runs; "record" notes
            the step in the history and lets the others go on, as if they had been trained without it.

    Raises:
        ValueError: If a number is out of range, patience is given without a metric to monitor, or a balanced step is
            to be compiled.
    """

    steps: int
    learning_rate: float | Sequence[float] = 1e-3
    optimiser: Optimiser = field(default_factory=Adam)
    schedule: Schedule | None = None
    note_every: int = 100
    evaluate_every: int = 0
    monitor: str | None = None
    higher_is_better: bool = True
    patience: int | None = None
    compile: bool = False
    tune: bool = False
    balancer: Balancer | None = None
    resumable: bool = False
    on_divergence: str = "raise"

    def __post_init__(self) -> None:
        for name, value, least in (
            ("steps", self.steps, 1),
            ("note_every", self.note_every, 1),
            ("evaluate_every", self.evaluate_every, 0),
            ("patience", 1 if self.patience is None else self.patience, 1),
        ):
            if not _is_whole(value) or value < least:
                raise ValueError(f"{name} is {value!r}, expected a whole number of {least} or more")
        for name, needed in (("optimiser", "update"), ("balancer", "start")):
            given = getattr(self, name)
            if not (given is None and name == "balancer") and (
                isinstance(given, type) or not hasattr(given, needed)
            ):
                raise ValueError(
                    f"{name} is {given!r}, expected an object of mmoe_lib.training.{name}s such as Adam()"
                    if name == "optimiser"
                    else f"{name} is {given!r}, expected one of mmoe_lib.training.balancing such as GradNorm()"
                )
        if self.on_divergence not in ("raise", "record"):
            raise ValueError(f"on_divergence is {self.on_divergence!r}, expected 'raise' or 'record'")
        if self.balancer and self.compile:
            raise ValueError(
                "compile is True with a balancer, expected one of the two: a balanced step leaves torch for a solver"
            )
        if (self.monitor or self.patience) and not (self.monitor and self.evaluate_every):
            raise ValueError(
                f"monitor is {self.monitor!r}, patience {self.patience} and evaluate_every {self.evaluate_every}, "
                "expected a metric's name and a number of steps: the best state needs evaluations"
            )


def train(
    ensemble: Ensemble,
    batches: Iterable[tuple[Inputs, Tensor]],
    loss: Loss,
    settings: TrainingSettings,
    evaluate: Evaluate | None = None,
    *,
    after: History | None = None,
    progress: bool = True,
    label: str = "training",
) -> History:
    """Train all runs of an ensemble together, in place.

    Each step is one update of every run on the sum of its task losses. A run that has stopped
    early keeps the state of its best evaluation, whatever the others still do.

    Args:
        ensemble: The runs; afterwards it holds each run's best state when a metric is monitored, the
            last state otherwise.
        batches: Yields inputs and labels, (R, B, ...) or shared (B, ...), without end; or what begins anew whenever
            it is iterated over, such as a DataLoader.
        loss: Outputs and labels (B, K) to one loss a task (K,).
        settings: How long, how fast, when to stop.
        evaluate: Computes the metrics; needed when `settings.evaluate_every` is not 0.
        after: The history of a resumable training of these runs: the optimiser and the schedule go on where it ended,
            and if no metric was monitored the two trainings are as one. Steps are counted anew.
        progress: Show a progress bar.
        label: What the bar says.

    Returns:
        The history of every run.

    Raises:
        DivergedError: If a loss or an input becomes NaN or infinite; says which run and step, and the
            ensemble keeps its last good state. With `on_divergence="record"` only if every run has diverged.
        ValueError: If there is nothing to evaluate with, no such metric or a monitored one that is NaN, not one
            learning rate a run, or inputs, labels, outputs and loss do not fit together; or if the batches end, or
            `after` is the history of other runs.
        DeviceMemoryError: If the runs do not fit into a GPU's memory.
    """
    if settings.evaluate_every and evaluate is None:
        raise ValueError(
            f"evaluate_every is {settings.evaluate_every} but evaluate is None, expected a function of the ensemble"
        )
    learning_rates = _one_rate_a_run(settings.learning_rate, ensemble)
    step_of = (
        BalancedStep(ensemble, loss, learning_rates, settings.optimiser, settings.balancer, settings.schedule)
        if settings.balancer
        else Step(ensemble, loss, learning_rates, settings.optimiser, settings.schedule)
    )
    taken = 0 if after is None else _resumed(step_of, after)
    minibatches = inspected(batches, ensemble, loss, settings.steps)
    advance = advance_of(step_of, minibatches, compile=settings.compile, tune=settings.tune)
    history = History(ensemble.seeds)
    stopping = _EarlyStopping(ensemble, settings)
    divergence = _Divergence(ensemble, settings, name_of(loss))
    step = 0
    with progress_bar(total=settings.steps, label=label, unit="step", show=progress) as bar:
        while step < settings.steps:
            before, step = step, _next_look(step, settings)
            with within_memory(len(ensemble)):
                # (steps since the look before, R, K), (steps,)
                losses, sums = advance(taken + before + 1, step - before)
            labels_nan = minibatches.look() if isinstance(minibatches, Inspected) else None
            divergence.look(sums, losses, step, labels_nan)
            history.loss_steps.append(step)
            history.losses.append(losses.mean(dim=0).cpu())
            bar.update(step - before)
            evaluation = bool(settings.evaluate_every) and step % settings.evaluate_every == 0
            if evaluation and evaluate is not None:
                metrics = evaluate(ensemble)
                history.evaluation_steps.append(step)
                for name, values in metrics.items():
                    history.metrics.setdefault(name, []).append(values.detach().cpu())
                if stopping.look(metrics, step, divergence.steps > 0):
                    break
    history.best_step, history.stopped_step = stopping.finish(step)
    history.diverged_step = divergence.steps.cpu()
    history.optimiser_steps = taken + step
    history.optimiser_state = step_of.kept if settings.resumable else None
    return history


def _resumed(step: Step, after: History) -> int:
    """Put back what an optimiser kept; returns how many steps it had taken."""
    kept = after.optimiser_state
    if kept is None:
        raise ValueError(
            "the history keeps no optimiser's state, expected one of a training with resumable=True"
        )
    shapes = [
        {name: [value.shape for value in values] for name, values in state.items()}
        for state in (step.kept, kept)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "the history is of other parameters or another optimiser, expected that of an earlier training of these runs"
        )
    for name, values in step.kept.items():
        for value, old in zip(values, kept[name], strict=True):
            value.copy_(old)
    return after.optimiser_steps


def _next_look(step: int, settings: TrainingSettings) -> int:
    """The next step after which losses are noted or metrics evaluated."""
    stops = [settings.steps]
    for every in (settings.note_every, settings.evaluate_every):
        if every:
            stops.append((step // every + 1) * every)
    return min(stops)


def _is_whole(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _one_rate_a_run(learning_rate: float | Sequence[float], ensemble: Ensemble) -> Tensor:
    runs = len(ensemble)
    try:
        given = [float(rate) for rate in learning_rate]  # type: ignore[union-attr]
    except TypeError:
        given = [learning_rate] * runs  # type: ignore[list-item]
    except ValueError:
        given = []
    if len(given) != runs or not all(
        isinstance(r, int | float) and math.isfinite(r) and r > 0 for r in given
    ):
        raise ValueError(
            f"learning_rate is {learning_rate!r}, expected one positive number, or one for each of {runs} runs"
        )
    return torch.tensor(given, dtype=ensemble.dtype, device=ensemble.device)


class _Divergence:
    """Looks for losses, inputs and weights that are not finite, and keeps the last good state."""

    def __init__(self, ensemble: Ensemble, settings: TrainingSettings, loss: str) -> None:
        self.ensemble, self.raises, self.loss = ensemble, settings.on_divergence == "raise", loss
        self.good_state, self.good_step = ensemble.copy_state() if self.raises else {}, 0
        self.steps = torch.zeros(len(ensemble), dtype=torch.long, device=ensemble.device)  # 0: never

    def look(self, sums: Tensor, losses: Tensor, step: int, labels_nan: Tensor | None = None) -> None:
        """Take in the steps since the last look: sums of each batch (steps,) and losses (steps, R, K).

        Raises:
            DivergedError: At the first run, or, when divergence is recorded, when no run is left.
        """
        bad = ~torch.isfinite(losses).all(dim=-1)  # (steps, R)
        weights_bad = torch.stack(
            [
                ~torch.isfinite(value).reshape(len(value), -1).all(dim=1)
                for value in self.ensemble.parameters.values()
            ]
        ).any(dim=0)  # (R,)
        inputs_bad = ~torch.isfinite(sums)  # (steps,)
        labels_nan = torch.zeros_like(inputs_bad) if labels_nan is None else labels_nan.to(inputs_bad.device)
        if self.raises and bool(bad.any() | weights_bad.any() | inputs_bad.any()):
            self.ensemble.load_state(self.good_state)
            raise self._error(bad, weights_bad, inputs_bad, labels_nan)
        first_bad = self.good_step + 1 + bad.int().argmax(dim=0)  # (R,)
        first_bad = torch.where(bad.any(dim=0), first_bad, step)
        self.steps = torch.where((self.steps == 0) & (bad.any(dim=0) | weights_bad), first_bad, self.steps)
        if bool((self.steps > 0).all()):
            raise self._error(bad, weights_bad, inputs_bad, labels_nan)
        self.good_step = step
        if self.raises:
            self.good_state = self.ensemble.copy_state()

    def _error(
        self, bad: Tensor, weights_bad: Tensor, inputs_bad: Tensor, labels_nan: Tensor
    ) -> DivergedError:
        steps_bad = bad.any(dim=1) | inputs_bad
        index = int(steps_bad.int().argmax()) if bool(steps_bad.any()) else len(bad) - 1
        runs_bad = bad[index] if bool(bad[index].any()) else weights_bad
        run = int(runs_bad.int().argmax())
        hint = "lower the learning rate or scale the data"
        if bool(inputs_bad[index]):
            what = "an input"
        elif bool(bad[index].any()):
            what = "the loss"
            if bool(labels_nan[index]):
                hint = f"labels of this step are NaN, which {self.loss} does not leave out"
        else:
            what = "a weight"
        return DivergedError(
            what,
            run,
            self.ensemble.seeds[run],
            self.good_step + index + 1,
            self.good_step if self.raises else None,
            hint,
            self.ensemble,
        )


class _EarlyStopping:
    """Remembers, for each run on its own, the best evaluation, its weights, and when to stop."""

    def __init__(self, ensemble: Ensemble, settings: TrainingSettings) -> None:
        self.ensemble, self.settings = ensemble, settings
        runs = len(ensemble)
        self.best = torch.full((runs,), -torch.inf, dtype=torch.float64, device=ensemble.device)
        self.best_step = torch.zeros(runs, dtype=torch.long, device=ensemble.device)
        self.since_best = torch.zeros(runs, dtype=torch.long, device=ensemble.device)
        self.stopped_step = torch.zeros(runs, dtype=torch.long, device=ensemble.device)  # 0: still going
        self.best_state = ensemble.copy_state() if settings.monitor else None

    def look(self, metrics: dict[str, Tensor], step: int, diverged: Tensor) -> bool:
        """Take in one evaluation; true when every run has stopped.

        Raises:
            ValueError: If there is no such metric, or it is not finite in a run that did not diverge (R,).
        """
        if self.settings.monitor is None or self.best_state is None:
            return False
        if self.settings.monitor not in metrics:
            raise ValueError(
                f"monitor is {self.settings.monitor!r}, expected one of {', '.join(metrics)}: name a metric of evaluate"
            )
        value = metrics[self.settings.monitor].to(self.best)
        if value.shape != self.best.shape:
            raise ValueError(
                f"metric {self.settings.monitor!r} has shape {tuple(value.shape)}, expected ({len(self.best)},): one "
                "number a run"
            )
        unknown = value.isnan() & ~diverged
        if bool(unknown.any()):
            run = int(unknown.int().argmax())
            raise ValueError(
                f"metric {self.settings.monitor!r} of run {run} is NaN at step {step}, expected a number to monitor: "
                "see that the validation set has rows, and labels of every kind"
            )
        value = value if self.settings.higher_is_better else -value
        going = self.stopped_step == 0
        better = going & (value > self.best)
        self.best = torch.where(better, value, self.best)
        self.best_step[better] = step
        for name, kept in self.best_state.items():
            kept[better] = self.ensemble.parameters[name][better]
        self.since_best = torch.where(better, 0, self.since_best + 1)
        if self.settings.patience is not None:
            self.stopped_step[going & (self.since_best >= self.settings.patience)] = step
        return bool((self.stopped_step > 0).all())

    def finish(self, last_step: int) -> tuple[Tensor, Tensor]:
        """Give each run its best weights; returns the best and the stopping step of each run, (R,)."""
        if self.best_state is not None:
            self.ensemble.load_state(self.best_state, self.best_step > 0)
        self.stopped_step[self.stopped_step == 0] = last_step
        return self.best_step.cpu(), self.stopped_step.cpu()
