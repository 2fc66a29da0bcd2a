"""Universes: draws of what the paper leaves open, beginning with the two nearest to its figures.

The constants of the label are not published. Among the sets that meet figure 2 a search found two in which trained
models come nearest to figure 5 (`NEAREST_40` and `NEAREST_10` of `mmoe_lib.tasks.synthetic`). Here they are trained
again with runs of this project's own, the paper's number of them, beside separate networks and a Shared-Bottom of two
layers; with one choice changed at a time; with noisier labels; and beside controls of the mixture. The survey trains
fewer and shorter runs in many universes, each a label of its own with a batch, initial weights and a learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import qmc
from torch import nn

from companion.checkout import DATA
from companion.controls import averaged_gates
from companion.study import synthetic, universe_labels
from companion.study.cells import Cell, chunks, read_rows
from companion.study.initialisers import INITIALISERS
from companion.study.presets import Preset
from companion.study.synthetic import CORRELATIONS, DEFAULT_RATE, Choices, named_label
from mmoe_lib.tasks.synthetic import Constants
from mmoe_lib.training import DivergedError, Ensemble

NEAREST = ("nearest-40", "nearest-10")
"""Names of the constants, the nearest first."""
NEAREST_MODELS = (
    "MMoE",
    "Shared-Bottom",
    "OMoE",
    "Shared-Bottom-96-32",
    "Single-Task",
    "Shared-Bottom-16",
    "Single-Task-61",
)
SEPARATE_MODELS = ("Single-Task", "Single-Task-61")
"""Networks that share nothing: as large a task as the shared one, and as large in all."""
CONTROL_MODELS = (
    "Shared-Bottom-96-32",
    "MMoE",
    "Own-Mixtures-4",
    "Own-Mixtures-8",
    "Gated-Bottom-62",
    "OMoE-Constant-Gate",
    "MMoE-Frozen-Gates",
)
"""What is put beside the mixture to see which part of it helps; MMoE itself for its averaged gates."""
NOISE_MODELS = ("Single-Task", "Shared-Bottom", "OMoE", "MMoE")
NOISE_VARIANCES = (0.01, 0.1, 0.5, 1.0)
"""Of a signal whose variance is 2.9; the paper's is the first."""
VARIED_MODELS = ("Shared-Bottom", "OMoE", "MMoE")
SURVEY_MODELS = ("Single-Task", "Shared-Bottom", "Shared-Bottom-96-32", "OMoE", "MMoE")
ENDS = (CORRELATIONS[0], CORRELATIONS[-1])
"""The least related tasks that the paper has, and one task twice."""
BATCH_SIZE = 64
SURVEY_POINTS = 6
"""Of the curve that is stored of a run of the survey."""
BATCH_SIZES = (32, 64, 128)
RATES = (3e-4, 3e-3)
"""Between which a universe's learning rate lies, log-uniformly: a half decade around Adam's default."""
SINES = (4, 5, 6, 7)
NO_MODEL = "-"
DESIGN = "sobol-1"
"""Name of the design by which universes are drawn; a file of another one is not gone on with."""


def nearest_cells(preset: Preset, constants: str) -> list[Cell[Choices]]:
    """Every model at the paper's correlations in one of the two universes, a model after the other."""
    return [
        cell
        for model in NEAREST_MODELS
        for p in CORRELATIONS
        for cell in _cells(model, f"p = {p:g}", preset, preset.nearest_runs, _nearest(preset, constants, p))
    ]


def _nearest(preset: Preset, constants: str, p: float) -> Choices:
    return Choices(p, preset.nearest_steps, BATCH_SIZE, constants=constants)


def _cells(
    model: str, setting: str, preset: Preset, runs: int, choices: Choices, rate: float = DEFAULT_RATE
) -> list[Cell[Choices]]:
    return [Cell(model, setting, rate, seeds, choices) for seeds in chunks(runs, preset.synthetic_chunk)]


@dataclass(frozen=True)
class NoisyChoices(Choices):
    """The choices of the synthetic study, and the noise of the labels.

    Attributes:
        noise_variance: Of each label.
    """

    noise_variance: float = 0.01


def noisy_label(choices: NoisyChoices) -> Constants:
    """The constants that the choices name, with their noise."""
    return replace(named_label(choices), noise_variance=choices.noise_variance)


def noise_cells(preset: Preset, constants: str, batch_size: int) -> list[Cell[NoisyChoices]]:
    """Four models at the paper's correlations with more and more noise, for fewer steps than the reported runs."""
    return [
        Cell(
            model,
            f"noise variance {variance:g}: p = {p:g}",
            DEFAULT_RATE,
            seeds,
            NoisyChoices(p, preset.noise_steps, batch_size, constants, noise_variance=variance),
        )
        for seeds in chunks(preset.noise_runs, preset.synthetic_chunk)
        for variance in NOISE_VARIANCES
        for p in CORRELATIONS
        for model in NOISE_MODELS
    ]


def varied_cells(preset: Preset) -> list[Cell[Choices]]:
    """The nearest universe with one choice changed at a time: batch, learning rate, initial weights."""
    variants: dict[str, tuple[float, dict[str, str | int]]] = {
        "batch of 32": (DEFAULT_RATE, {"batch_size": 32}),
        "batch of 128": (DEFAULT_RATE, {"batch_size": 128}),
        "rate 0.0001": (1e-4, {}),
        "rate 0.01": (1e-2, {}),
        "Glorot": (DEFAULT_RATE, {"initialiser": "glorot"}),
    }
    return [
        Cell(
            model,
            f"{name}: p = {p:g}",
            rate,
            seeds,
            replace(_nearest(preset, NEAREST[0], p), **changed),  # type: ignore[arg-type]
        )
        for seeds in chunks(preset.varied_runs, preset.synthetic_chunk)
        for name, (rate, changed) in variants.items()
        for p in CORRELATIONS
        for model in VARIED_MODELS
    ]


def control_cells(preset: Preset) -> list[Cell[Choices]]:
    """The controls in the nearest universe at both ends of the correlation; the first runs of all before the next."""
    return [
        Cell(model, f"p = {p:g}", DEFAULT_RATE, seeds, _nearest(preset, NEAREST[0], p))
        for seeds in chunks(preset.control_runs, preset.synthetic_chunk)
        for p in ENDS
        for model in CONTROL_MODELS[1:]  # the first is in the nearest universe's own file
    ]


def calibrated_control_cells(preset: Preset) -> list[Cell[Choices]]:
    """Separate networks at every correlation and the controls at both ends, trained as the synthetic study's runs."""
    return [
        Cell(
            model,
            f"p = {p:g}",
            DEFAULT_RATE,
            seeds,
            Choices(p, preset.control_steps, preset.synthetic_batch_size),
        )
        for seeds in chunks(preset.control_runs, preset.synthetic_chunk)
        for p in CORRELATIONS
        for model in (*SEPARATE_MODELS, *CONTROL_MODELS)
        if model in SEPARATE_MODELS or p in ENDS
    ]


@dataclass(frozen=True)
class LabelChoices:
    """How a universe is drawn.

    Attributes:
        design: Its name.
        kind: "figure 2" for labels that meet it, or one of `universe_labels.OTHER_KINDS`.
    """

    design: str
    kind: str


FIGURE_2 = "figure 2"
_PER_CELL = 10
_MOST = 512
"""Universes that a design holds; the first are the same whatever their number."""


def label_cells(preset: Preset) -> list[Cell[LabelChoices]]:
    """The universes to draw, ten a cell: those that meet figure 2, then a third each of the other kinds."""
    cells = [
        Cell(NO_MODEL, FIGURE_2, 0.0, numbers, LabelChoices(DESIGN, FIGURE_2))
        for numbers in chunks(preset.universes, _PER_CELL)
    ]
    for place, kind in enumerate(universe_labels.OTHER_KINDS):
        count = preset.other_universes // len(universe_labels.OTHER_KINDS)
        numbers = tuple(1_000 * (place + 1) + number for number in range(count))
        cells.append(Cell(NO_MODEL, kind, 0.0, numbers, LabelChoices(DESIGN, kind)))
    return cells


@lru_cache(maxsize=1)
def figure_2() -> Mapping[float, float]:
    """The paper's mean label correlations by weight cosine."""
    table = pd.read_csv(DATA / "paper" / "figure2_label_correlation.csv")
    return dict(zip(table["weight_cosine"], table["label_correlation_mean"], strict=True))


def run_labels(cell: Cell[LabelChoices], device: torch.device | str = "cpu") -> pd.DataFrame:
    """Draw the universes of a cell.

    Args:
        cell: One of `label_cells`.
        device: Of the study; labels are drawn on the CPU whatever it is.

    Returns:
        One row a universe: seed, its number; c, alpha_1 .. alpha_10 and beta_1 .. beta_10, empty where it has fewer
        sines; its own_batch_size, own_initialiser and own_rate; `universe_labels.features`.
    """
    # Dimensions: sines, batch, initial weights, rate.
    design = qmc.Sobol(4, scramble=True, rng=np.random.default_rng(1)).random(_MOST)
    rows = []
    for number in cell.seeds:
        name, point = f"universe {number}", design[_place(number)]
        if cell.choices.kind == FIGURE_2:
            m = SINES[int(point[0] * len(SINES))]
            constants = universe_labels.draw_label(name, m, figure_2(), seed=number)
        else:
            constants = universe_labels.draw_other(name, cell.choices.kind, seed=number)
        row: dict[str, str | float] = {"seed": number, "c": constants.c}
        for letter, values in (("alpha", constants.alpha), ("beta", constants.beta)):
            for place in range(10):
                row[f"{letter}_{place + 1}"] = values[place] if place < len(values) else float("nan")
        low, high = np.log(RATES)
        row["own_batch_size"] = BATCH_SIZES[int(point[1] * len(BATCH_SIZES))]
        row["own_initialiser"] = list(INITIALISERS)[int(point[2] * len(INITIALISERS))]
        row["own_rate"] = float(f"{np.exp(low + point[3] * (high - low)):.2g}")
        features = universe_labels.features(constants, figure_2())
        rows.append(row | {name: round(value, 5) for name, value in features.items()})
    return pd.DataFrame(rows)


def _place(number: int) -> int:
    """Of a universe in the design: those of other kinds, numbered from 1,000, 2,000 and 3,000, take its last places."""
    kind, place = divmod(number, 1_000)
    return place if kind == 0 else _MOST - 50 * kind + place


def label_of(rows: pd.DataFrame, number: int) -> Constants:
    """The label of one universe.

    Args:
        rows: Of the universes' file.
        number: Of the universe.

    Raises:
        ValueError: If the file has no such universe.
    """
    found = rows[rows["seed"] == number]
    if found.empty:
        raise ValueError(
            f"there is no universe {number} among {len(rows)}, expected its row: run the study of the universes first"
        )
    row = found.iloc[0]
    values = {
        letter: [float(row[f"{letter}_{place}"]) for place in range(1, 11)] for letter in ("alpha", "beta")
    }
    alpha, beta = (tuple(value for value in values[letter] if value == value) for letter in ("alpha", "beta"))
    return Constants(f"universe {number}", float(row["c"]), alpha, beta)


@dataclass(frozen=True)
class UniverseChoices(Choices):
    """The choices of the synthetic study in a universe.

    Attributes:
        universe: Its number.
    """

    universe: int = 0


def survey_cells(preset: Preset, universes: pd.DataFrame) -> list[Cell[UniverseChoices]]:
    """Five models at both ends of the correlation in every universe, a universe after the other."""
    numbers = [number for cell in label_cells(preset) for number in cell.seeds]
    return [cell for number in numbers for cell in _universe_cells(preset, universes, number)]


def long_cells(preset: Preset, universes: pd.DataFrame) -> list[Cell[UniverseChoices]]:
    """The same in some universes drawn at random, for five times as many steps."""
    order = np.random.default_rng(0).permutation(_MOST).tolist()
    numbers = [number for number in order if number < preset.universes][: preset.long_universes]
    return [
        replace(cell, choices=replace(cell.choices, steps=preset.long_steps))
        for number in numbers
        for cell in _universe_cells(preset, universes, number)
    ]


def _universe_cells(preset: Preset, universes: pd.DataFrame, number: int) -> list[Cell[UniverseChoices]]:
    row = universes[universes["seed"] == number].iloc[0]
    # Every universe has seeds of its own, so that no draw of weights speaks in all of them.
    seeds = tuple(1_000 * (number + 1) + run for run in range(preset.universe_runs))
    return [
        Cell(
            model,
            f"universe {number}: p = {p:g}",
            float(row["own_rate"]),
            seeds,
            UniverseChoices(
                p,
                preset.universe_steps,
                int(row["own_batch_size"]),
                constants=f"universe {number}",
                initialiser=str(row["own_initialiser"]),
                universe=number,
            ),
        )
        for model in SURVEY_MODELS
        for p in ENDS
    ]


@lru_cache(maxsize=2)
def _universes(file: Path, _changed: float) -> pd.DataFrame:
    return read_rows(file)


def universe_label(choices: UniverseChoices, file: Path) -> Constants:
    """The label of a cell's universe, from the universes' file."""
    return label_of(_universes(file, file.stat().st_mtime), choices.universe)


def run(cell: Cell[Choices], device: torch.device | str = "cpu") -> pd.DataFrame:
    """The rows of one cell, as `run_stack` gives them."""
    return run_stack([cell], device)[0]


def run_stack(cells: Sequence[Cell[Choices]], device: torch.device | str = "cpu") -> list[pd.DataFrame]:
    """The rows of each of some `alike` cells, as those of the synthetic study, with the curves of both tasks."""
    return synthetic.run_stack(cells, device, both_curves=True)


def run_short(
    cell: Cell[Choices],
    device: torch.device | str = "cpu",
    *,
    label: Callable[..., Constants] = named_label,
    points: int = SURVEY_POINTS,
) -> pd.DataFrame:
    """The rows of one cell, as `run_short_stack` gives them."""
    return run_short_stack([cell], device, label=label, points=points)[0]


def run_short_stack(
    cells: Sequence[Cell[Choices]],
    device: torch.device | str = "cpu",
    *,
    label: Callable[..., Constants] = named_label,
    points: int = SURVEY_POINTS,
) -> list[pd.DataFrame]:
    """The rows of each of some `alike` cells, with little about each run.

    Columns: seed; diverged_step (0: never); loss_1 and loss_2 on fresh rows; averaged_1 and averaged_2, of an MMoE's
    or OMoE's the same with each gate replaced by its mean over the inputs; curve_1, curve_2, ..., the mean of both
    tasks' training losses in equal parts of the steps; gate_distance.
    """
    names = [f"curve_{point}" for point in range(1, min(points, cells[0].choices.steps) + 1)]
    before, behind = ["loss_1", "loss_2", "averaged_1", "averaged_2"], ["gate_distance"]
    try:
        ensemble, history = synthetic.train_stack(cells, device, label=label, points=points, progress=False)
    except DivergedError as error:
        return synthetic.all_diverged(cells, error, device, [*before, *names, *behind])
    losses, _, distance = synthetic.measure(ensemble, cells, label)
    averaged = _with_averaged_gates(ensemble, cells, label)
    rows = pd.DataFrame({"seed": [seed for cell in cells for seed in cell.seeds]})
    rows["diverged_step"] = history.diverged_step.tolist()
    rows["compiled"] = synthetic.is_compiled(cells[0].choices, device)
    for name, values in zip(before, (*losses.T, *averaged.T), strict=True):
        rows[name] = values.tolist()
    for name, noted in zip(names, history.losses, strict=False):
        rows[name] = noted.mean(dim=1).tolist()
    rows["gate_distance"] = distance.tolist()
    rows.loc[rows["diverged_step"] > 0, "loss_1":] = float("nan")
    return synthetic.by_cell(rows.round(5), cells)


@torch.no_grad()
def _with_averaged_gates(
    ensemble: Ensemble, cells: Sequence[Cell[Choices]], label: Callable[..., Constants]
) -> torch.Tensor:
    """Losses (R, 2) on the fresh rows with every gate at its mean; NaN for a model without learned gates."""
    runs = len(ensemble)
    losses = torch.full((runs, 2), float("nan"))
    if cells[0].model not in ("OMoE", "MMoE"):
        return losses
    batches = list(synthetic.validation_batches(ensemble, cells, label))
    for run in range(runs):
        x, y = (torch.cat([batch[part][run] for batch in batches]) for part in (0, 1))
        model: nn.Module = ensemble.module(run)
        losses[run] = (averaged_gates(model, x) - y).square().mean(dim=0).cpu()  # type: ignore[arg-type]
    return losses
