"""The first census study: four models of the sizes of section 5.1, untuned, a few seeds each."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from mmoe_lib.metrics import auc
from mmoe_lib.models import paper_model
from mmoe_lib.presets import Preset
from mmoe_lib.study.cells import Cell
from mmoe_lib.tasks.census import GROUPS, CensusData
from mmoe_lib.training import Ensemble, History, TrainingSettings, binary_cross_entropy, epochs, train

MODELS = ("Single-Task", "Shared-Bottom", "OMoE", "MMoE")
LEARNING_RATE = 1e-3
BATCH_SIZE = 1024
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
        epochs(x_train, y_train, BATCH_SIZE),
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
