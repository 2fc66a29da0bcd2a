"""The synthetic study of sections 3.3 and 5: models x task correlations x runs, and what the paper leaves open.

Five parts, each a list of cells and a file of its own: `tuning` tries the paper's learning rates on runs that
are not reported; `reported` trains the paper's models with the rate chosen for each model and correlation;
`parts` trains some of these runs again to see which part of the label they learned; `choices` changes one
unpublished choice at a time; `slide` goes from p = 0 to p = 1 in small steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from companion.controls import builder_of
from companion.study.cells import Cell
from companion.study.initialisers import INITIALISERS
from companion.study.presets import Preset
from companion.synthetic_labels import CONSTANTS
from mmoe_lib.metrics import gate_use
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks import synthetic as task
from mmoe_lib.training import DivergedError, Ensemble, History, TrainingSettings, fit, squared_error

MODELS = ("Shared-Bottom", "OMoE", "MMoE")
SMALL_MODEL = "Shared-Bottom-16"
"""Figure 3's model; it is trained with Adam's default rate, as section 3.3 says."""
CORRELATIONS = (0.5, 0.9, 1.0)
LEARNING_RATES = (1e-4, 1e-3, 1e-2)
DEFAULT_RATE = 1e-3
TUNING_SEED = 10_000
"""Runs that only choose a learning rate have seeds from here on."""
POINTS = 50
"""Points of a stored curve, at equal distances in steps."""
TEST_ROWS = 10_000
"""Rows, drawn afresh, on which the final loss of a run is measured."""
PART_RUNS = 20
"""Runs of each setting that are looked into."""
BINS = 24
"""Places along the projection, from -3 to 3 standard deviations, at which they are."""
COMPILE_STEPS = 5_000
"""A training of fewer steps is over before its compilation would have paid."""
COMPILE_STEPS_GPU = 20_000
"""The same on a GPU, where steps are replayed from a graph either way and compiling takes longer."""
OTHER_CONSTANTS = ("m = 5", "m = 6", "odd", "PLE")
"""Sets of constants with which the choice of the study's is compared."""
_ROWS_AT_ONCE = 250


@dataclass(frozen=True)
class Choices:
    """What the paper does not state, or states loosely; columns of every row.

    Attributes:
        task_correlation: p.
        steps: Minibatches.
        batch_size: Rows of each.
        constants: A name of `companion.synthetic_labels.CONSTANTS`.
        inputs: "pool": read from a long row of numbers drawn once; "fresh": drawn for every batch.
        initialiser: A name of `companion.study.initialisers.INITIALISERS`.
    """

    task_correlation: float
    steps: int
    batch_size: int
    constants: str = "calibrated"
    inputs: str = "pool"
    initialiser: str = "torch"


def _cells(
    model: str, setting: str, learning_rate: float, seeds: Sequence[int], chunk: int, choices: Choices
) -> list[Cell[Choices]]:
    return [
        Cell(model, setting, learning_rate, tuple(seeds[start : start + chunk]), choices)
        for start in range(0, len(seeds), chunk)
    ]


def tuning_cells(preset: Preset) -> list[Cell[Choices]]:
    """Every model at every correlation with each of the paper's learning rates, on runs of their own."""
    seeds = range(TUNING_SEED, TUNING_SEED + preset.synthetic_tuning_runs)
    return [
        cell
        for p in CORRELATIONS
        for model in MODELS
        for rate in LEARNING_RATES
        for cell in _cells(model, f"p = {p:g}", rate, seeds, preset.synthetic_chunk, _tuning(preset, p))
    ]


def _tuning(preset: Preset, p: float) -> Choices:
    return Choices(p, preset.synthetic_tuning_steps, preset.synthetic_batch_size)


Rates = Mapping[tuple[str, float], float]
"""Learning rates by model and task correlation."""


def chosen_rates(tuning: pd.DataFrame) -> Rates:
    """The learning rate with the lowest mean test loss for each model and correlation.

    A rate at which a run diverged is not chosen.

    Args:
        tuning: Rows of the tuning file, of one preset.

    Raises:
        ValueError: If every rate of a pair has a diverged run.
    """
    chosen: dict[tuple[str, float], float] = {}
    for model, p in dict.fromkeys(zip(tuning["model"], tuning["task_correlation"], strict=True)):
        rows = tuning[(tuning["model"] == model) & (tuning["task_correlation"] == p)]
        losses = {
            rate: rows.loc[rows["learning_rate"] == rate, "loss_1"] for rate in rows["learning_rate"].unique()
        }
        means = {float(rate): float(values.mean()) for rate, values in losses.items() if values.notna().all()}
        if not means:
            raise ValueError(
                f"{model}, p = {p:g}: runs diverged at every learning rate, expected one that trains: add lower ones"
            )
        chosen[model, float(p)] = min(means, key=lambda rate: means[rate])
    return chosen


def reported_cells(preset: Preset, rates: Rates) -> list[Cell[Choices]]:
    """The paper's runs: figures 4 and 5, and figure 3's small Shared-Bottom.

    All settings of the first runs come before the next runs, so that a study cut short has as many runs of each.
    """
    cells = []
    for start in range(0, preset.synthetic_runs, preset.synthetic_chunk):
        seeds = range(start, min(start + preset.synthetic_chunk, preset.synthetic_runs))
        for p in CORRELATIONS:
            choices = Choices(p, preset.synthetic_steps, preset.synthetic_batch_size)
            for model in (*MODELS, SMALL_MODEL):
                rate = rates.get((model, p), DEFAULT_RATE)
                cells += _cells(model, f"p = {p:g}", rate, seeds, len(seeds), choices)
    return cells


def part_cells(preset: Preset, rates: Rates) -> list[Cell[Choices]]:
    """The first runs of the study at the two ends of the correlation, once more."""
    seeds = range(min(PART_RUNS, preset.synthetic_runs))
    return [
        cell
        for p in (CORRELATIONS[0], CORRELATIONS[-1])
        for model in MODELS
        for cell in _cells(
            model,
            f"p = {p:g}",
            rates[model, p],
            seeds,
            len(seeds),
            Choices(p, preset.synthetic_steps, preset.synthetic_batch_size),
        )
    ]


def choice_cells(preset: Preset, rates: Rates) -> list[Cell[Choices]]:
    """One unpublished choice changed at a time, at the two ends of the correlation."""
    base = Choices(1.0, preset.synthetic_choice_steps, preset.synthetic_batch_size)
    variants = {
        "as in the study": base,
        "fresh inputs": replace(base, inputs="fresh"),
        "Glorot": replace(base, initialiser="glorot"),
        "batch x 4": replace(base, batch_size=4 * base.batch_size),
        **{name: replace(base, constants=name) for name in OTHER_CONSTANTS},
    }
    cells = []
    for name, choices in variants.items():
        for p in (CORRELATIONS[0], CORRELATIONS[-1]):
            for model in MODELS:
                rate = rates[model, p]
                seeds = range(preset.synthetic_choice_runs)
                here = replace(choices, task_correlation=p)
                cells += _cells(model, f"{name}: p = {p:g}", rate, seeds, preset.synthetic_choice_runs, here)
    return cells


Label = Callable[[Choices], task.Constants]
"""Which label the choices of a cell name."""


def named_label(choices: Choices) -> task.Constants:
    """The constants that the choices name."""
    return CONSTANTS[choices.constants]


SLIDE = tuple(step / 10 for step in range(11))
"""Task correlations between which a reader slides."""


def slide_cells(preset: Preset) -> list[Cell[Choices]]:
    """The three models at correlations from 0 to 1, all with Adam's default rate, which tuning chose at all three."""
    cells = []
    for p in SLIDE:
        choices = Choices(p, preset.synthetic_slide_steps, preset.synthetic_batch_size)
        for model in MODELS:
            seeds = range(preset.synthetic_slide_runs)
            cells += _cells(model, f"p = {p:g}", DEFAULT_RATE, seeds, preset.synthetic_slide_runs, choices)
    return cells


@lru_cache(maxsize=1)
def _pool(device: torch.device) -> task.InputPool:
    return task.InputPool.draw(device=device)


def alike(cell: Cell[Choices], label: Label = named_label) -> tuple[object, ...]:
    """What the cells of one stack have in common: they differ in numbers a run only (p, constants, rate, seed)."""
    choices = cell.choices
    width = label(choices).num_inputs
    return cell.model, choices.steps, choices.batch_size, choices.inputs, choices.initialiser, width


def _seeds(cells: Sequence[Cell[Choices]]) -> list[int]:
    return [seed for cell in cells for seed in cell.seeds]


def _batches(
    cells: Sequence[Cell[Choices]],
    batch_size: int,
    device: torch.device,
    *,
    label: Label,
    purpose: str,
    pool: task.InputPool | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Minibatches of all runs of a stack; those of one cell are drawn as if there were no stacks."""
    correlations = [cell.choices.task_correlation for cell in cells for _ in cell.seeds]
    constants = [label(cell.choices) for cell in cells for _ in cell.seeds]
    same = len(cells) == 1
    return task.stream(
        correlations[0] if same else correlations,
        _seeds(cells),
        batch_size,
        constants[0] if same else constants,
        purpose=purpose,
        pool=pool,
        device=device,
    )


def is_compiled(choices: Choices, device: torch.device | str) -> bool:
    """Whether a training is long enough for a compiled step."""
    return choices.steps >= (COMPILE_STEPS if torch.device(device).type == "cpu" else COMPILE_STEPS_GPU)


def train_stack(
    cells: Sequence[Cell[Choices]],
    device: torch.device | str = "cpu",
    *,
    label: Label = named_label,
    points: int = POINTS,
    progress: bool = True,
) -> tuple[Ensemble, History]:
    """Train the runs of `alike` cells together; a run that diverges is recorded and the others go on.

    Args:
        cells: With runs of one model.
        device: Where to train.
        label: The constants of a cell.
        points: How often the losses are noted, at equal distances.
        progress: Show a progress bar.
    """
    choices, model, seeds = cells[0].choices, cells[0].model, _seeds(cells)

    def batches(device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        pool = _pool(device) if choices.inputs == "pool" else None
        return _batches(cells, choices.batch_size, device, label=label, purpose="training", pool=pool)

    settings = TrainingSettings(
        choices.steps,
        [cell.learning_rate for cell in cells for _ in cell.seeds],
        note_every=max(1, choices.steps // points),
        compile=is_compiled(choices, device),
        on_divergence="record",
    )
    return fit(
        build(model, label(choices).num_inputs, choices.initialiser),
        seeds,
        batches,
        squared_error,
        settings,
        device=device,
        progress=progress,
        label=f"{model}, {cells[0].setting}" + (" and more" if len(cells) > 1 else ""),
    )


def build(model: str, num_inputs: int, initialiser: str) -> Callable[..., nn.Module]:
    """The builder of one run of one of the paper's models, or of a control, with a named initialiser."""
    initialise = INITIALISERS[initialiser]

    def one_run(generator: torch.Generator) -> nn.Module:
        return initialise(builder_of(model)(num_inputs, 2, generator=generator), generator)

    return one_run


def run(cell: Cell[Choices], device: torch.device | str = "cpu") -> pd.DataFrame:
    """The rows of one cell, as `run_stack` gives them."""
    return run_stack([cell], device)[0]


def run_stack(
    cells: Sequence[Cell[Choices]],
    device: torch.device | str = "cpu",
    *,
    label: Label = named_label,
    both_curves: bool = False,
) -> list[pd.DataFrame]:
    """The rows of each of some `alike` cells: final losses, the curve, and what the gates do; NaN where there is none.

    Columns: seed; diverged_step (0: never); loss_1 and loss_2 on `TEST_ROWS` fresh rows; curve_1 .. curve_50,
    task 1's training loss before each update, the mean of a fiftieth of the steps, its minibatches as good as new
    (inputs from a pool of millions, noise drawn afresh);
    gate_k_i, the mean weight of expert i for task k; gate_distance, how differently the tasks mix: the mean
    total variation between their gates. With `both_curves` also second_curve_1 .. second_curve_50, task 2's.
    """
    names = [f"curve_{point}" for point in range(1, min(POINTS, cells[0].choices.steps) + 1)]
    if both_curves:
        names = [one for name in names for one in (name, f"second_{name}")]
    gate_names = [f"gate_{k}_{i}" for k in (1, 2) for i in range(1, 9)]
    try:
        ensemble, history = train_stack(cells, device, label=label, progress=False)
    except DivergedError as error:
        return all_diverged(cells, error, device, ["loss_1", "loss_2", *names, *gate_names, "gate_distance"])
    losses, gates, distance = measure(ensemble, cells, label)
    columns: dict[str, Sequence[float] | Tensor | bool] = {
        "seed": _seeds(cells),
        "diverged_step": history.diverged_step.tolist(),
        "compiled": is_compiled(cells[0].choices, device),
        "loss_1": losses[:, 0].tolist(),
        "loss_2": losses[:, 1].tolist(),
    }
    for point, values in enumerate(history.losses[:POINTS], start=1):
        columns[f"curve_{point}"] = values[:, 0].tolist()
        if both_curves:
            columns[f"second_curve_{point}"] = values[:, 1].tolist()
    for k in range(2):
        for i in range(gates.shape[2]):
            columns[f"gate_{k + 1}_{i + 1}"] = gates[:, k, i].tolist()
    columns["gate_distance"] = distance.tolist()
    rows = pd.DataFrame(columns)
    rows.loc[rows["diverged_step"] > 0, "loss_1":] = float("nan")
    rows = rows.round(4).assign(loss_1=rows["loss_1"].round(6), loss_2=rows["loss_2"].round(6))
    return by_cell(rows, cells)


def all_diverged(
    cells: Sequence[Cell[Choices]],
    error: DivergedError,
    device: torch.device | str,
    names: Sequence[str],
) -> list[pd.DataFrame]:
    """The rows of cells of which every run diverged: `names` are the columns that stay empty."""
    nothing: dict[str, Any] = {"seed": _seeds(cells), "diverged_step": error.step}
    nothing["compiled"] = is_compiled(cells[0].choices, device)
    return by_cell(pd.DataFrame(nothing | dict.fromkeys(names, float("nan"))), cells)


def by_cell(rows: pd.DataFrame, cells: Sequence[Cell[Choices]]) -> list[pd.DataFrame]:
    """The rows of each cell, from those of all runs in order."""
    ends = list(itertools.accumulate(len(cell.seeds) for cell in cells))
    return [
        rows[end - len(cell.seeds) : end].reset_index(drop=True)
        for cell, end in zip(cells, ends, strict=True)
    ]


def validation_batches(
    ensemble: Ensemble, cells: Sequence[Cell[Choices]], label: Label = named_label
) -> Iterator[tuple[Tensor, Tensor]]:
    """The `TEST_ROWS` fresh rows of every run, in minibatches."""
    batches = _batches(cells, _ROWS_AT_ONCE, ensemble.device, label=label, purpose="validation")
    return itertools.islice(batches, TEST_ROWS // _ROWS_AT_ONCE)


@torch.no_grad()
def measure(
    ensemble: Ensemble, cells: Sequence[Cell[Choices]], label: Label = named_label
) -> tuple[Tensor, Tensor, Tensor]:
    """Test losses (R, 2), mean gate weights (R, 2, 8) and their distance (R,); NaN for a model without gates."""
    runs = len(ensemble)
    losses = torch.zeros(runs, 2)
    gates, distance = torch.full((runs, 2, 8), float("nan")), torch.full((runs,), float("nan"))
    mixes = cells[0].model in ("OMoE", "MMoE")
    if mixes:
        gates, distance = torch.zeros(runs, 2, 8), torch.zeros(runs)
    parts = TEST_ROWS // _ROWS_AT_ONCE
    for x, y in validation_batches(ensemble, cells, label):
        losses += (ensemble.predict(x) - y).square().mean(dim=1).cpu() / parts
        if mixes:
            use = gate_use(ensemble.gate_weights(x))  # of (R, B, 2, n)
            gates += use.means.cpu() / parts
            distance += use.distance.cpu() / parts
    return losses, gates, distance


@torch.no_grad()
def learned_label(ensemble: Ensemble, cells: Sequence[Cell[Choices]]) -> tuple[Tensor, Tensor]:
    """Which part of task 1's label each run has learned, on fresh inputs: by sine, and by place.

    By sine: least squares of the predictions on a constant, the projection w_1'x and the m sines; the label
    itself has the coefficients 1. By place: the mean squared distance from the noiseless label for inputs whose
    projection lies in each of `BINS` equal bins from -3 to 3 standard deviations.

    Returns:
        Coefficients of the sines (R, m), and errors (R, BINS).
    """
    shares, errors = [], []
    for run, (cell, seed) in enumerate((one, seed) for one in cells for seed in one.seeds):
        choices = cell.choices
        constants = CONSTANTS[choices.constants]
        weights = task.task_weights(choices.task_correlation, seeded_generator(seed, "directions"), constants)
        x = torch.randn(2 * TEST_ROWS, constants.num_inputs, generator=seeded_generator(seed, "parts"))
        z = x.double() @ weights[0]  # (rows,)
        predictions = ensemble.module(run)(x.to(ensemble.device))[:, 0].double().cpu()
        sines = [
            torch.sin(alpha * z + beta) for alpha, beta in zip(constants.alpha, constants.beta, strict=True)
        ]
        basis = torch.stack([torch.ones_like(z), z, *sines], dim=1)  # (rows, 2 + m)
        shares.append(torch.linalg.lstsq(basis, predictions.unsqueeze(1)).solution[2:, 0])
        squares = (predictions - task.noiseless_labels(z, constants)).square()
        place = torch.bucketize(z / constants.c, torch.linspace(-3, 3, BINS + 1, dtype=torch.float64)) - 1
        errors.append(torch.stack([squares[place == index].mean() for index in range(BINS)]))
    return torch.stack(shares), torch.stack(errors)


def run_parts(cell: Cell[Choices], device: torch.device | str = "cpu") -> pd.DataFrame:
    """The rows of one cell, as `run_parts_of_stack` gives them."""
    return run_parts_of_stack([cell], device)[0]


def run_parts_of_stack(
    cells: Sequence[Cell[Choices]], device: torch.device | str = "cpu"
) -> list[pd.DataFrame]:
    """The rows of each of some `alike` cells: seed, diverged_step, loss_1, and what `learned_label` finds.

    Columns: sine_1 .. sine_m, the coefficients; error_1 .. error_24, the errors by place.
    """
    sines = len(CONSTANTS[cells[0].choices.constants].alpha)
    names = [f"sine_{i + 1}" for i in range(sines)] + [f"error_{i + 1}" for i in range(BINS)]
    try:
        ensemble, history = train_stack(cells, device, progress=False)
    except DivergedError as error:
        return all_diverged(cells, error, device, ["loss_1", *names])
    losses, _, _ = measure(ensemble, cells)
    shares, errors = learned_label(ensemble, cells)
    columns: dict[str, Sequence[float] | bool] = {
        "seed": _seeds(cells),
        "diverged_step": history.diverged_step.tolist(),
        "compiled": is_compiled(cells[0].choices, device),
        "loss_1": [round(value, 6) for value in losses[:, 0].tolist()],
    }
    for name, values in (("sine", shares), ("error", errors)):
        for index in range(values.shape[1]):
            columns[f"{name}_{index + 1}"] = [round(value, 4) for value in values[:, index].tolist()]
    rows = pd.DataFrame(columns)
    rows.loc[rows["diverged_step"] > 0, "loss_1":] = float("nan")
    return by_cell(rows, cells)
