"""A specification curve of Census-Income: what does the sign of MMoE's lead hang on?

The paper states no batch, no number of passes, no encoding and no order of the rows for this set. Each *specification*
here is one draw of all such choices together, by a seeded design; under each the same models are trained from the same
seeds, and what is asked is how their differences move. The design is a scrambled Sobol sequence, so that any first part
of it covers the choices evenly and an unfinished study is a smaller whole one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import qmc
from torch import Tensor

from companion.census_changes import AS_IN_THE_STUDY
from companion.study.cells import Cell, chunks
from companion.study.census import SCORES, CensusSource, score
from companion.study.presets import Preset
from companion.study.search_space import TOWER_UNITS
from mmoe_lib.metrics import auc
from mmoe_lib.models import MMoE, SharedBottom, SingleTask, count_parameters
from mmoe_lib.models.layers import ModelBuilder
from mmoe_lib.tasks.census import GROUPS, CensusData
from mmoe_lib.training import Adam, DivergedError, Ensemble, TrainingSettings, binary_cross_entropy, fit
from mmoe_lib.training import epochs as shared_order
from mmoe_lib.training.batches import own_epochs

MODELS = ("Single-Task", "Shared-Bottom", "Deeper Shared-Bottom", "MMoE")
"""The third has as many parameters as MMoE: what a gate adds must be more than what a layer does."""
EXPERTS = 4
TOWERS = (TOWER_UNITS,)
CHUNK = 5
"""Runs trained as one computation."""
PATIENCE = 3
"""Passes without a better one after which a run stops, where it stops early."""
DESIGN = "sobol-1"
"""Name of the design; rows of another one are not gone on with."""
MOST = 64
MOST_PASSES = 24

# Of every choice its levels, each as likely as the others.
PASSES = {"3 passes": 3, "6 passes": 6, "12 passes": 12, "best of 24": MOST_PASSES}
EARLY = "best of 24"
"""Over the training rows; the last stops early and keeps the pass with the best AUC of the main task on validation."""
BATCH_SIZES = (512, 1024, 4096)
ENCODINGS = (AS_IN_THE_STUDY, "numbers standardised")
UNITS = (32, 64, 128, 256)
DEPTHS = (1, 2)
DECAYS = (0.0, 0.01, 0.1)
ORDERS = ("one for all runs", "each run its own")
RATES = (5e-4, 1e-2)
"""Between which Adam's learning rate lies, log-uniformly, the same for all models of a specification."""


Level = TypeVar("Level")


@dataclass(frozen=True)
class SpecificationChoices:
    """One specification; these are columns of the results file.

    Attributes:
        group: Of tasks.
        specification: Its number in the design.
        design: The design's name.
        schedule: One of `PASSES`.
        batch_size: Rows of a minibatch.
        variant: The encoding, a name of `census_variants`.
        units: Hidden units of the lower layer over all tasks or experts.
        depth: Hidden layers below the towers.
        decay: AdamW's weight decay.
        row_order: Whether runs share the order of the rows.
    """

    group: str
    specification: int
    design: str
    schedule: str
    batch_size: int
    variant: str
    units: int
    depth: int
    decay: float
    row_order: str


COLUMNS = (*SCORES, "diverged_step", "best_pass", "train_rows", "parameters")
"""What `run` gives beside the seed."""


def specification(number: int, group: str) -> tuple[SpecificationChoices, float]:
    """A draw of the design, and its learning rate.

    Raises:
        ValueError: If the design has no such draw.
    """
    if not 0 <= number < MOST:
        raise ValueError(f"specification is {number}, expected 0 to {MOST - 1}: the design has no more")
    point = _design()[number]
    choices = SpecificationChoices(
        group,
        number,
        DESIGN,
        schedule=_level(tuple(PASSES), point[0]),
        batch_size=_level(BATCH_SIZES, point[1]),
        variant=_level(ENCODINGS, point[2]),
        units=_level(UNITS, point[3]),
        depth=_level(DEPTHS, point[4]),
        decay=_level(DECAYS, point[5]),
        row_order=_level(ORDERS, point[6]),
    )
    low, high = np.log(RATES)
    return choices, float(f"{np.exp(low + point[7] * (high - low)):.3g}")


@lru_cache(maxsize=1)
def _design() -> NDArray[np.float64]:
    return np.asarray(qmc.Sobol(8, scramble=True, rng=np.random.default_rng(1)).random(MOST))


def _level(levels: Sequence[Level], place: float) -> Level:
    return levels[int(place * len(levels))]


def cells(preset: Preset) -> list[Cell[SpecificationChoices]]:
    """All models under one specification after the other, the first group's whole curve before the second's.

    First runs come before the next, so that an unfinished study is a curve of fewer runs.
    """
    found = []
    for seeds in chunks(preset.specification_runs, CHUNK):
        for group in GROUPS:
            for number in range(preset.specifications):
                choices, rate = specification(number, group)
                found += [
                    Cell(model, f"{group}: specification {number}", rate, seeds, choices) for model in MODELS
                ]
    return found


def builder(model: str, choices: SpecificationChoices, num_inputs: int, num_tasks: int) -> ModelBuilder:
    """The builder of one run; all models have the specification's units in their lower layer.

    Raises:
        ValueError: If there is no such model.
    """
    units, depth = choices.units, choices.depth
    if model == "Single-Task":
        return partial(SingleTask, bottom_widths=(units // num_tasks,) * depth, tower_widths=TOWERS)
    if model == "Shared-Bottom":
        return partial(SharedBottom, bottom_widths=(units,) * depth, tower_widths=TOWERS)
    mixture: ModelBuilder = partial(
        MMoE, num_experts=EXPERTS, expert_widths=(units // EXPERTS,) * depth, tower_widths=TOWERS
    )
    if model == "MMoE":
        return mixture
    if model != "Deeper Shared-Bottom":
        raise ValueError(f"model is {model!r}, expected one of {', '.join(MODELS)}")

    def deeper(first: int) -> ModelBuilder:
        widths = (first, *(max(units // EXPERTS, 8),) * depth)
        return partial(SharedBottom, bottom_widths=widths, tower_widths=TOWERS)

    asked = parameters(mixture, num_inputs, num_tasks)
    first = min(
        range(2, 2 * units), key=lambda first: abs(parameters(deeper(first), num_inputs, num_tasks) - asked)
    )
    return deeper(first)


def parameters(build: ModelBuilder, num_inputs: int, num_tasks: int) -> int:
    """How many weights a model has."""
    with torch.device("meta"):
        return count_parameters(build(num_inputs, num_tasks))


def run(
    cell: Cell[SpecificationChoices], source: CensusSource, device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """The rows of one cell: the AUCs of every run, the pass whose weights it keeps, and the model's size.

    The column diverged_step is 0, or the step at which a run's loss was no longer finite; its scores are NaN.
    """
    choices = cell.choices
    data = source.data(choices.group, choices.variant)
    num_inputs, num_tasks = data.x_train.shape[1], data.y_train.shape[1]
    build = builder(cell.model, choices, num_inputs, num_tasks)
    a_pass = len(data.x_train) // choices.batch_size
    early = choices.schedule == EARLY
    passes = PASSES[choices.schedule]
    settings = TrainingSettings(
        steps=passes * a_pass,
        learning_rate=cell.learning_rate,
        optimiser=Adam(weight_decay=choices.decay),
        evaluate_every=a_pass if early else 0,
        monitor="main" if early else None,
        patience=PATIENCE if early else None,
        on_divergence="record",
    )
    same = {"train_rows": len(data.x_train), "parameters": parameters(build, num_inputs, num_tasks)}
    try:
        ensemble, history = fit(
            partial(build, num_inputs, num_tasks),
            cell.seeds,
            partial(_batches, data, choices, cell.seeds),
            binary_cross_entropy,
            settings,
            partial(_validation, data) if early else None,
            device=device,
            progress=False,
        )
    except DivergedError as error:  # every run did
        nothing = pd.DataFrame(float("nan"), range(len(cell.seeds)), list(SCORES))
        rows = pd.concat([pd.DataFrame({"seed": cell.seeds}), nothing], axis=1)
        return rows.assign(diverged_step=error.step, best_pass=0, **same)
    best = history.best_step // a_pass if early else torch.full((len(ensemble),), passes)
    return (
        score(ensemble, data)
        .round(6)
        .assign(diverged_step=history.diverged_step.tolist(), best_pass=best.tolist(), **same)
    )


def _batches(
    data: CensusData, choices: SpecificationChoices, seeds: Sequence[int], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = data.x_train.to(device), data.y_train.to(device)
    if choices.row_order == ORDERS[0]:
        return shared_order(x, y, choices.batch_size, seed=choices.specification)
    every = torch.arange(len(x)).expand(len(seeds), -1)  # (R, N)
    return own_epochs(lambda rows: (x[rows], y[rows]), every, choices.batch_size, seeds=seeds, device=device)


def _validation(data: CensusData, ensemble: Ensemble) -> dict[str, Tensor]:
    logits = ensemble.predict(data.x_validation.to(ensemble.device)).cpu()
    finite = torch.isfinite(logits).flatten(1).all(dim=1)  # (R,)
    values = torch.full((len(ensemble),), torch.nan, dtype=torch.float64)
    values[finite] = auc(logits[finite, :, 0], data.y_validation[:, 0])
    return {"main": values}
