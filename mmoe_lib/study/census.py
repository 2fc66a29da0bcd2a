"""The census study of section 6.3: each method at its tuned setting, hundreds of random initialisations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd
import torch

from mmoe_lib.metrics import auc
from mmoe_lib.models.sizes import ModelBuilder, paper_model
from mmoe_lib.presets import Preset
from mmoe_lib.study.cells import Cell
from mmoe_lib.study.search_space import build, read_settings
from mmoe_lib.tasks.census import GROUPS, CensusData, CensusTables, encode, load
from mmoe_lib.training import Ensemble, History, TrainingSettings, binary_cross_entropy, train
from mmoe_lib.training import epochs as minibatches
from mmoe_lib.training.loop import Evaluate

BATCH_SIZE = 1024
"""Ours: the paper states none for this data set."""


@dataclass(frozen=True)
class CensusSource:
    """Where a study's data come from; small enough to be sent to a worker, which loads them once.

    Attributes:
        train_rows: As in `mmoe_lib.tasks.census.load`.
        test_rows: The same for test.
        simulated: Whether the stand-in is asked for.
    """

    train_rows: int | None = None
    test_rows: int | None = None
    simulated: bool = False

    def tables(self) -> CensusTables:
        """The two tables."""
        return _tables(self)

    def data(self, group: str) -> CensusData:
        """The encoded group of tasks."""
        return _data(self, group)

    def sums(self) -> str:
        """The sums of the files, for a row's origin."""
        return "+".join(value[:12] for _, value in sorted(self.tables().sha256.items()))


@lru_cache(maxsize=1)
def _tables(source: CensusSource) -> CensusTables:
    return load(simulated=source.simulated, train_rows=source.train_rows, test_rows=source.test_rows)


@lru_cache(maxsize=1)
def _data(source: CensusSource, group: str) -> CensusData:
    return encode(source.tables(), group)


@dataclass(frozen=True)
class Chosen:
    """A method's setting for a group of tasks.

    Attributes:
        method: Its name.
        group: Of tasks.
        learning_rate: Adam's.
        epochs: Passes over the training rows.
        settings: The method's own, as `search_space.settings_text` writes them.
    """

    method: str
    group: str
    learning_rate: float
    epochs: int
    settings: str

    def builder(self, depth: int = 1) -> ModelBuilder:
        """The builder of one run."""
        return build(self.method, read_settings(self.settings), depth)


def train_runs(
    builder: ModelBuilder,
    data: CensusData,
    seeds: Sequence[int],
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str = "cpu",
    evaluate: Evaluate | None = None,
    monitor: str | None = None,
    patience: int | None = None,
    compile: bool = False,
    progress: bool = True,
    label: str = "training",
) -> tuple[Ensemble, History]:
    """Train all seeds of one model together; by default they end with the weights of the last epoch.

    The runs differ in their initialisation; they share the data and the order of its rows, so that one matrix
    product serves all.

    Args:
        builder: Of one run.
        data: The encoded group of tasks.
        seeds: One a run.
        learning_rate: Adam's.
        epochs: Passes over the training rows.
        batch_size: Rows of a minibatch.
        device: Where to train.
        evaluate: Metrics of the runs, computed after every epoch.
        monitor: The metric by which a run keeps its best epoch; None keeps the last.
        patience: Epochs without a better one after which a run stops; None never stops early.
        compile: Compile the training step; it takes some seconds, so only for longer trainings.
        progress: Show a progress bar.
        label: What the bar says.

    Raises:
        DivergedError: If a run's loss is no longer finite.
        ValueError: If there are fewer rows than in a batch, or no epoch.
    """
    num_inputs, num_tasks = data.x_train.shape[1], data.y_train.shape[1]
    ensemble = Ensemble(
        lambda generator: builder(num_inputs, num_tasks, generator=generator), seeds, device=device
    )
    x, y = data.x_train.to(ensemble.device), data.y_train.to(ensemble.device)
    steps_per_epoch = len(x) // batch_size
    settings = TrainingSettings(
        steps=epochs * steps_per_epoch,
        learning_rate=learning_rate,
        evaluate_every=steps_per_epoch if evaluate else 0,
        monitor=monitor,
        patience=patience,
        compile=compile,
    )
    history = train(
        ensemble,
        minibatches(x, y, batch_size),
        binary_cross_entropy,
        settings,
        evaluate,
        progress=progress,
        label=label,
    )
    return ensemble, history


MODELS = ("Single-Task", "Shared-Bottom", "OMoE", "MMoE")
LEARNING_RATE = 1e-3
PATIENCE = 3
"""Epochs without a better validation AUC after which a run stops."""


def cells(preset: Preset) -> list[Cell]:
    """Every model on both groups of tasks, all seeds of a pair trained together."""
    seeds = tuple(range(preset.census_seeds))
    return [Cell(model, group, LEARNING_RATE, seeds) for group in GROUPS for model in MODELS]


def train_on_census(
    model: str,
    data: CensusData,
    seeds: Sequence[int],
    preset: Preset,
    *,
    learning_rate: float = LEARNING_RATE,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> tuple[Ensemble, History]:
    """Train one model, all seeds together, and keep each run's best epoch by validation AUC of the main task.

    The runs differ in their initialisation; they share the data and the order of its rows.

    Args:
        model: One of `mmoe_lib.models.PAPER_SIZES`.
        data: The encoded group of tasks.
        seeds: One a run.
        preset: Gives the number of epochs.
        learning_rate: Adam's.
        device: Where to train.
        progress: Show a progress bar.

    Returns:
        The ensemble with every run's best weights, and the history.
    """
    num_inputs, num_tasks = data.x_train.shape[1], data.y_train.shape[1]
    ensemble = Ensemble(
        lambda generator: paper_model(model)(num_inputs, num_tasks, generator=generator), seeds, device=device
    )
    x_train, y_train, x_validation, y_validation = (
        part.to(ensemble.device)
        for part in (data.x_train, data.y_train, data.x_validation, data.y_validation)
    )

    def evaluate(ensemble: Ensemble) -> dict[str, torch.Tensor]:
        logits = ensemble.predict(x_validation)
        return {"main AUC": auc(logits[..., 0], y_validation[:, 0])}

    steps_per_epoch = len(x_train) // BATCH_SIZE
    settings = TrainingSettings(
        steps=preset.census_epochs * steps_per_epoch,
        learning_rate=learning_rate,
        evaluate_every=steps_per_epoch,
        monitor="main AUC",
        patience=PATIENCE,
    )
    history = train(
        ensemble,
        minibatches(x_train, y_train, BATCH_SIZE),
        binary_cross_entropy,
        settings,
        evaluate,
        progress=progress,
        label=f"{model}, {data.group.name}",
    )
    return ensemble, history


def score(ensemble: Ensemble, data: CensusData) -> pd.DataFrame:
    """One row a run: seed, and the AUC of both tasks on the validation and the test half."""
    columns: dict[str, Sequence[float]] = {"seed": ensemble.seeds}
    parts = {"validation": (data.x_validation, data.y_validation), "test": (data.x_test, data.y_test)}
    for part, (x, y) in parts.items():
        logits = ensemble.predict(x.to(ensemble.device)).cpu()
        for task, name in enumerate(("main", "auxiliary")):
            columns[f"{part}_{name}_auc"] = auc(logits[..., task], y[:, task]).tolist()
    return pd.DataFrame(columns)


def run(cell: Cell, data: CensusData, preset: Preset, device: torch.device | str) -> pd.DataFrame:
    """The rows of one cell: `score` of every run, rounded to six digits, and the epoch that was kept."""
    ensemble, history = train_on_census(
        cell.model, data, cell.seeds, preset, learning_rate=cell.learning_rate, device=device
    )
    rows = score(ensemble, data).round(6)
    return rows.assign(best_step=history.best_step.tolist(), train_rows=len(data.x_train))
