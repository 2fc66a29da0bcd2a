"""The training loop: steps, a look at the losses, evaluations, early stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmoe_lib.progress import progress_bar
from mmoe_lib.training.advance import advance_of
from mmoe_lib.training.balancing import Balancer
from mmoe_lib.training.devices import within_memory
from mmoe_lib.training.ensemble import Ensemble
from mmoe_lib.training.history import DivergedError, History
from mmoe_lib.training.losses import Loss
from mmoe_lib.training.optimisers import Adam, Optimiser
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
        on_divergence: What happens when a run's loss is no longer finite. "raise" stops all runs; "record" notes
            the step in the history and lets the others go on, as if they had been trained without it.

    Raises:
        ValueError: If a number is out of range, patience is given without a metric to monitor, or a balanced step is
            to be compiled.
    """

    steps: int
    learning_rate: float | Sequence[float] = 1e-3
    optimiser: Optimiser = field(default_factory=Adam)
    note_every: int = 100
    evaluate_every: int = 0
    monitor: str | None = None
    higher_is_better: bool = True
    patience: int | None = None
    compile: bool = False
    tune: bool = False
    balancer: Balancer | None = None
    on_divergence: str = "raise"

    def __post_init__(self) -> None:
        for name, value, least in (
            ("steps", self.steps, 1),
            ("note_every", self.note_every, 1),
            ("evaluate_every", self.evaluate_every, 0),
            ("patience", 1 if self.patience is None else self.patience, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}, expected {least} or more")
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
    batches: Iterator[tuple[Tensor, Tensor]],
    loss: Loss,
    settings: TrainingSettings,
    evaluate: Evaluate | None = None,
    *,
    progress: bool = True,
    label: str = "training",
) -> History:
    """Train all runs of an ensemble together, in place.

    Each step is one update of every run on the sum of its task losses. A run that has stopped
    early keeps the state of its best evaluation, whatever the others still do.

    Args:
        ensemble: The runs; afterwards it holds each run's best state when a metric is monitored, the
            last state otherwise.
        batches: Yields inputs and labels, (R, B, ...) or shared (B, ...).
        loss: Outputs and labels (B, K) to one loss a task (K,).
        settings: How long, how fast, when to stop.
        evaluate: Computes the metrics; needed when `settings.evaluate_every` is not 0.
        progress: Show a progress bar.
        label: What the bar says.

    Returns:
        The history of every run.

    Raises:
        DivergedError: If a loss or an input becomes NaN or infinite; says which run and step, and the
            ensemble keeps its last good state. With `on_divergence="record"` only if every run has diverged.
        ValueError: If there is nothing to evaluate with, no such metric, or not one learning rate a run.
        DeviceMemoryError: If the runs do not fit into a GPU's memory.
    """
    if settings.evaluate_every and evaluate is None:
        raise ValueError(
            f"evaluate_every is {settings.evaluate_every} but evaluate is None, expected a function of the ensemble"
        )
    learning_rates = _one_rate_a_run(settings.learning_rate, ensemble)
    step_of = (
        BalancedStep(ensemble, loss, learning_rates, settings.optimiser, settings.balancer)
        if settings.balancer
        else Step(ensemble, loss, learning_rates, settings.optimiser)
    )
    advance = advance_of(step_of, batches, compile=settings.compile, tune=settings.tune)
    history = History(ensemble.seeds)
    stopping = _EarlyStopping(ensemble, settings)
    divergence = _Divergence(ensemble, settings)
    step = 0
    with progress_bar(total=settings.steps, label=label, unit="step", show=progress) as bar:
        while step < settings.steps:
            before, step = step, _next_look(step, settings)
            with within_memory(len(ensemble)):
                losses, sums = advance(
                    before + 1, step - before
                )  # (steps since the look before, R, K), (steps,)
            divergence.look(sums, losses, step)
            history.loss_steps.append(step)
            history.losses.append(losses.mean(dim=0).cpu())
            bar.update(step - before)
            evaluation = bool(settings.evaluate_every) and step % settings.evaluate_every == 0
            if evaluation and evaluate is not None:
                metrics = evaluate(ensemble)
                history.evaluation_steps.append(step)
                for name, values in metrics.items():
                    history.metrics.setdefault(name, []).append(values.detach().cpu())
                if stopping.look(metrics, step):
                    break
    history.best_step, history.stopped_step = stopping.finish(step)
    history.diverged_step = divergence.steps.cpu()
    return history


def _next_look(step: int, settings: TrainingSettings) -> int:
    """The next step after which losses are noted or metrics evaluated."""
    stops = [settings.steps]
    for every in (settings.note_every, settings.evaluate_every):
        if every:
            stops.append((step // every + 1) * every)
    return min(stops)


def _one_rate_a_run(learning_rate: float | Sequence[float], ensemble: Ensemble) -> Tensor:
    given = [learning_rate] * len(ensemble) if isinstance(learning_rate, int | float) else list(learning_rate)
    rates = torch.tensor(given, dtype=ensemble.dtype, device=ensemble.device)
    if rates.shape != (len(ensemble),) or not bool((torch.isfinite(rates) & (rates > 0)).all()):
        raise ValueError(
            f"learning_rate is {learning_rate}, expected one positive number, or one for each of {len(ensemble)} runs"
        )
    return rates


class _Divergence:
    """Looks for losses, inputs and weights that are not finite, and keeps the last good state."""

    def __init__(self, ensemble: Ensemble, settings: TrainingSettings) -> None:
        self.ensemble, self.raises = ensemble, settings.on_divergence == "raise"
        self.good_state, self.good_step = ensemble.copy_state() if self.raises else {}, 0
        self.steps = torch.zeros(len(ensemble), dtype=torch.long, device=ensemble.device)  # 0: never

    def look(self, sums: Tensor, losses: Tensor, step: int) -> None:
        """Take in the steps since the last look: sums of each batch (steps,) and losses (steps, R, K).

        Raises:
            DivergedError: At the first run, or, when divergence is recorded, when no run is left.
        """
        bad = ~torch.isfinite(losses).all(dim=-1)  # (steps, R)
        weights_bad = torch.stack(
            [~torch.isfinite(value).flatten(1).all(dim=1) for value in self.ensemble.parameters.values()]
        ).any(dim=0)  # (R,)
        inputs_bad = ~torch.isfinite(sums)  # (steps,)
        if self.raises and bool(bad.any() | weights_bad.any() | inputs_bad.any()):
            self.ensemble.load_state(self.good_state)
            raise self._error(bad, weights_bad, inputs_bad)
        first_bad = self.good_step + 1 + bad.int().argmax(dim=0)  # (R,)
        first_bad = torch.where(bad.any(dim=0), first_bad, step)
        self.steps = torch.where((self.steps == 0) & (bad.any(dim=0) | weights_bad), first_bad, self.steps)
        if bool((self.steps > 0).all()):
            raise self._error(bad, weights_bad, inputs_bad)
        self.good_step = step
        if self.raises:
            self.good_state = self.ensemble.copy_state()

    def _error(self, bad: Tensor, weights_bad: Tensor, inputs_bad: Tensor) -> DivergedError:
        steps_bad = bad.any(dim=1) | inputs_bad
        index = int(steps_bad.int().argmax()) if bool(steps_bad.any()) else len(bad) - 1
        runs_bad = bad[index] if bool(bad[index].any()) else weights_bad
        run = int(runs_bad.int().argmax())
        what = (
            "an input or label"
            if bool(inputs_bad[index])
            else "the loss"
            if bool(bad[index].any())
            else "a weight"
        )
        return DivergedError(what, run, self.ensemble.seeds[run], self.good_step + index + 1, self.good_step)


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

    def look(self, metrics: dict[str, Tensor], step: int) -> bool:
        """Take in one evaluation; true when every run has stopped."""
        if self.settings.monitor is None or self.best_state is None:
            return False
        if self.settings.monitor not in metrics:
            raise ValueError(
                f"monitor is {self.settings.monitor!r}, expected one of {', '.join(metrics)}: name a metric of evaluate"
            )
        value = metrics[self.settings.monitor].to(self.best)
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
