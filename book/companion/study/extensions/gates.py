"""On synthetic tasks: what the extensions reach at p = 0.5, along PLE's correlations, and with 2 to 16 tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from companion.extensions import EXTENSIONS, extension, noise_columns
from companion.study.cells import Cell, chunks
from companion.study.presets import Preset
from companion.study.scores import GATE_MEASURES, polarisation
from companion.study.synthetic import COMPILE_STEPS, DEFAULT_RATE, TEST_ROWS, TUNING_SEED
from companion.synthetic_labels import CONSTANTS
from mmoe_lib.tasks import synthetic as task
from mmoe_lib.training import DivergedError, Ensemble, History, TrainingSettings, fit, squared_error
from mmoe_lib.training.batches import with_noise

RATES = (3e-4, 1e-3, 3e-3)
"""Around the rate that all models of chapter 3 chose, 1e-3; at ten times more or less they lost."""
COMPARED = tuple(name for name in EXTENSIONS if name != "Single-Task")
CORRELATION = 0.5

PLE_CORRELATIONS = (0.2, 0.4, 0.5, 0.75, 1.0)
"""Those of the synthetic study of the PLE paper (RecSys 2020)."""
PLE_MODELS = ("Single-Task", "Shared-Bottom", "MMoE", "Deeper MMoE", "CGC", "PLE")

NUMBERS_OF_TASKS = (2, 4, 8, 16)
MANY_MODELS = ("Single-Task", "Shared-Bottom", "OMoE", "MMoE", "CGC")
SMALL_CHUNK = 6
"""Runs of a correlation or number of tasks that are trained together."""
_ROWS_AT_ONCE = 250


@dataclass(frozen=True)
class Choices:
    """How the runs of a cell are trained; columns of every row.

    Attributes:
        task_correlation: p, the cosine of every two tasks' weights.
        num_tasks: K.
        steps: Minibatches.
        batch_size: Rows of each.
        constants: A name of `companion.synthetic_labels.CONSTANTS`.
    """

    task_correlation: float
    num_tasks: int
    steps: int
    batch_size: int
    constants: str = "calibrated"


def tuning_cells(preset: Preset) -> list[Cell[Choices]]:
    """Every model whose rate is its own at every rate, on runs that are not reported."""
    seeds = tuple(range(TUNING_SEED, TUNING_SEED + preset.extension_tuning_runs))
    choices = _choices(preset, CORRELATION)
    names = [name for name in COMPARED if EXTENSIONS[name].own_rate]
    return [Cell(name, f"p = {CORRELATION:g}", rate, seeds, choices) for name in names for rate in RATES]


def chosen_rates(tuning: pd.DataFrame) -> dict[str, float]:
    """The learning rate with the lowest mean test loss for each model, MMoE's for a regularised one.

    Args:
        tuning: Rows of the tuning file, of one preset.

    Raises:
        ValueError: If every rate of a model has a diverged run.
    """
    chosen = {}
    for name in COMPARED:
        if not EXTENSIONS[name].own_rate:
            continue
        means = (
            tuning[tuning["model"] == name]
            .groupby("learning_rate")["loss_mean"]
            .agg(lambda losses: losses.mean(skipna=False))
            .dropna()
        )
        if means.empty:
            raise ValueError(
                f"{name}: runs diverged at every learning rate, expected one that trains: add lower ones"
            )
        chosen[name] = float(str(means.idxmin()))
    return {name: chosen.get(name, chosen["MMoE"]) for name in COMPARED}


def reported_cells(preset: Preset, rates: Mapping[str, float]) -> list[Cell[Choices]]:
    """All models at p = 0.5, all models' first runs before the next runs."""
    choices = _choices(preset, CORRELATION)
    return [
        Cell(name, f"p = {CORRELATION:g}", rates[name], seeds, choices)
        for seeds in chunks(preset.extension_runs, preset.synthetic_chunk)
        for name in COMPARED
    ]


def layer_cells(preset: Preset) -> list[Cell[Choices]]:
    """CGC and PLE beside what they are to beat, on tasks made as the PLE paper makes them, at its correlations."""
    return [
        Cell(name, f"p = {p:g}", DEFAULT_RATE, seeds, _choices(preset, p, constants="PLE"))
        for seeds in chunks(preset.extension_small_runs, SMALL_CHUNK)
        for p in PLE_CORRELATIONS
        for name in PLE_MODELS
    ]


def task_cells(preset: Preset) -> list[Cell[Choices]]:
    """More and more tasks, every two of them correlated by 0.5."""
    return [
        Cell(name, f"{tasks} tasks", DEFAULT_RATE, seeds, _choices(preset, CORRELATION, tasks))
        for seeds in chunks(preset.extension_small_runs, SMALL_CHUNK)
        for tasks in NUMBERS_OF_TASKS
        for name in MANY_MODELS
    ]


def _choices(preset: Preset, p: float, tasks: int = 2, constants: str = "calibrated") -> Choices:
    return Choices(p, tasks, preset.extension_steps, preset.synthetic_batch_size, constants)


def _is_compiled(choices: Choices) -> bool:
    return choices.steps >= COMPILE_STEPS


def train_cell(
    cell: Cell[Choices], device: torch.device | str = "cpu", *, progress: bool = True
) -> tuple[Ensemble, History]:
    """Train the runs of one cell together; a run that diverges is recorded and the others go on."""
    choices = cell.choices
    constants = CONSTANTS[choices.constants]
    build = extension(cell.model).build
    noise = noise_columns(cell.model, choices.num_tasks)

    def batches(device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        pool = task.InputPool.draw(device=device)
        drawn = task.stream(
            _correlations(choices), cell.seeds, choices.batch_size, constants, pool=pool, device=device
        )
        return with_noise(drawn, noise) if noise else drawn

    settings = TrainingSettings(
        choices.steps,
        cell.learning_rate,
        compile=_is_compiled(choices),
        on_divergence="record",
    )
    return fit(
        partial(build, constants.num_inputs, choices.num_tasks),
        cell.seeds,
        batches,
        squared_error,
        settings,
        device=device,
        progress=progress,
        label=f"{cell.model}, {cell.setting}",
    )


def _correlations(choices: Choices) -> float | Tensor:
    if choices.num_tasks == 2:
        return choices.task_correlation
    return task.equal_correlations(choices.task_correlation, choices.num_tasks)


COLUMNS = ("diverged_step", "loss_1", "loss_mean", "loss_worst", *GATE_MEASURES)
"""What `run` gives beside the seed."""


def run(cell: Cell[Choices], device: torch.device | str = "cpu") -> pd.DataFrame:
    """The rows of one cell: final losses on fresh rows, and how polarised the gates are; NaN where there is none.

    Columns: seed; diverged_step (0: never); loss_1, and loss_mean and loss_worst over the tasks; gate_entropy, the
    mean entropy of a gate over that of a uniform one; gate_largest, the mean over tasks of the largest of a gate's
    mean weights; experts_used, how many experts any gate gives a hundredth or more on the mean; gate_distance, the
    mean total variation between the gates of the first two tasks.
    """
    try:
        ensemble, history = train_cell(cell, device, progress=False)
    except DivergedError as error:  # every run did
        names = ("loss_1", "loss_mean", "loss_worst", *GATE_MEASURES)
        nothing: dict[str, Any] = {"seed": cell.seeds, "diverged_step": error.step}
        nothing["compiled"] = _is_compiled(cell.choices)
        return pd.DataFrame(nothing | dict.fromkeys(names, float("nan")))
    losses, gates = _measure(ensemble, cell)
    columns: dict[str, Sequence[float] | Tensor | bool] = {
        "seed": cell.seeds,
        "diverged_step": history.diverged_step.tolist(),
        "compiled": _is_compiled(cell.choices),
        "loss_1": losses[:, 0].tolist(),
        "loss_mean": losses.mean(dim=1).tolist(),
        "loss_worst": losses.amax(dim=1).tolist(),
    }
    rows = pd.DataFrame(columns | {name: values.tolist() for name, values in gates.items()}).round(6)
    rows.loc[rows["diverged_step"] > 0, "loss_1":] = float("nan")
    return rows


def has_gates(model: str) -> bool:
    """Whether a model of `EXTENSIONS` has gates."""
    return model not in ("Single-Task", "Shared-Bottom")


def fresh_rows(
    correlations: float | Tensor, seeds: Sequence[int], constants: task.Constants, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Fresh rows of every run, `TEST_ROWS` in all, in parts (R, B, d) and (R, B, K)."""
    batches = task.stream(correlations, seeds, _ROWS_AT_ONCE, constants, purpose="validation", device=device)
    return list(islice(batches, TEST_ROWS // _ROWS_AT_ONCE))


@torch.no_grad()
def _measure(ensemble: Ensemble, cell: Cell[Choices]) -> tuple[Tensor, dict[str, Tensor]]:
    """Test losses (R, K), and the measures of the gates."""
    choices = cell.choices
    parts = fresh_rows(_correlations(choices), cell.seeds, CONSTANTS[choices.constants], ensemble.device)
    losses, weights = torch.zeros(len(ensemble), choices.num_tasks), []
    for x, y in parts:
        losses += (ensemble.predict(x) - y).square().mean(dim=1).cpu() / len(parts)
        if has_gates(cell.model):
            weights.append(ensemble.gate_weights(x).cpu())
    if not weights:
        return losses, {name: torch.full((len(ensemble),), float("nan")) for name in GATE_MEASURES}
    return losses, polarisation(torch.cat(weights, dim=1))
