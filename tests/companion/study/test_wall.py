"""The wall between validation and test: with the test half poisoned, nothing that a study chooses may move.

Each test runs a study's choice twice, on the stand-in as it is and with its test half spoiled, and compares. What is
reported on the test half must move, or the poison would have reached nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from companion.extensions import EXTENSIONS
from companion.study import kuairand
from companion.study.cells import Cell
from companion.study.census import CensusSource
from companion.study.census_variants import AS_IN_THE_STUDY
from companion.study.extensions import census, rare_labels
from companion.study.extensions.rare_labels import Sources
from companion.study.kuairand import RankingSource, chosen_settings, tuning_cells
from companion.study.presets import PRESETS
from companion.study.tuning import Pair, best_settings, tune
from mmoe_lib.tasks.census import CensusData
from mmoe_lib.tasks.kuairand import RankingData

POISONS = ("flipped labels", "NaN")
"""For what never looks at the test half: a prediction for an input that is NaN is refused."""
REPORTED = ("flipped labels", "inputs of others")
"""For what reports on the test half, and must choose without it."""
SMOKE = PRESETS["smoke"]
TRIALS = replace(SMOKE, census_trials=3, census_tuning_runs=2, census_tuning_epochs=3)
FEW = replace(SMOKE, kuairand_epochs=3, kuairand_tuning_runs=2)


@dataclass(frozen=True)
class SpoiledCensus(CensusSource):
    """The same people, but what the test half says of them is wrong or missing."""

    poison: str = ""

    def data(self, group: str, variant: str = AS_IN_THE_STUDY) -> CensusData:
        """The group of tasks with the test half spoiled."""
        data = super().data(group, variant)
        if self.poison == "NaN":
            return replace(data, x_test=torch.full_like(data.x_test, torch.nan))
        if self.poison == "inputs of others":
            return replace(data, x_test=data.x_test.flip(0))
        return replace(data, y_test=1 - data.y_test)


@dataclass(frozen=True)
class SpoiledRanking(RankingSource):
    """The same impressions, but what the test period says of them is wrong or missing."""

    poison: str = ""

    def data(self) -> RankingData:
        """The impressions with the test period spoiled."""
        data = super().data()
        if self.poison == "NaN":
            history = torch.full_like(data.test.history, torch.nan)
            return replace(data, test=replace(data.test, history=history))
        if self.poison == "inputs of others":
            mixed = {name: getattr(data.test, name).flip(0) for name in ("user", "video", "history")}
            return replace(data, test=replace(data.test, **mixed))
        return replace(data, test=replace(data.test, labels=1 - data.test.labels))


CENSUS = CensusSource(3_000, 2_000, simulated=True)
RANKING = RankingSource(60, simulated=True)


def spoiled(poison: str) -> Sources:
    """Both sets with the test half poisoned."""
    return Sources(
        SpoiledCensus(3_000, 2_000, simulated=True, poison=poison),
        SpoiledRanking(60, simulated=True, poison=poison),
    )


def assert_the_poison_shows(clean: pd.DataFrame, poisoned: pd.DataFrame, poison: str) -> None:
    """The same weights: an AUC on flipped labels is one minus that on the right ones."""
    names = [name for name in clean.columns if name.startswith("test_") and name.endswith("auc")]
    assert names
    assert bool((poisoned[names] != clean[names]).all(axis=None))
    if poison == "flipped labels":
        np.testing.assert_allclose(poisoned[names], 1 - clean[names], atol=2e-6)


@pytest.mark.parametrize("poison", POISONS)
def test_census_settings_are_chosen_without_the_test_half(poison: str, tmp_path: Path) -> None:
    pair = Pair("Shared-Bottom", "income")
    clean, poisoned = (
        tune(pair, TRIALS, source, tmp_path / f"{number}.journal").drop(columns="seconds")
        for number, source in enumerate((CENSUS, spoiled(poison).census))
    )
    assert clean["validation_auc"].nunique() > 3
    pd.testing.assert_frame_equal(clean, poisoned)
    assert best_settings(clean) == best_settings(poisoned)


@pytest.mark.parametrize("poison", POISONS)
def test_ranking_settings_are_chosen_without_the_test_period(poison: str) -> None:
    cells = [cell for cell in tuning_cells(FEW) if cell.model == "Shared-Bottom" and cell.setting == "Adam"]
    for cell in cells[-2:]:
        clean, poisoned = (
            kuairand.run_tuning(cell, source, "cpu") for source in (RANKING, spoiled(poison).kuairand)
        )
        assert clean["validation_engagement_auc"].notna().all()
        pd.testing.assert_frame_equal(clean, poisoned)


@pytest.mark.parametrize("poison", REPORTED)
@pytest.mark.parametrize("data_set", ["census", "kuairand"])
def test_the_best_epoch_of_unequal_tasks_is_found_without_the_test_half(data_set: str, poison: str) -> None:
    choices = rare_labels.Choices(data_set, 0.5, rare_labels.FIXED, 3.0, 4)
    cell = Cell("MMoE", "a wall", 1e-2, (0, 1), choices)
    clean, poisoned = (
        rare_labels.run(cell, sources) for sources in (Sources(CENSUS, RANKING), spoiled(poison))
    )
    assert (clean["best_epoch"] > 0).all()
    chosen = ["seed", "best_epoch", "validation_mean_auc", "positives", "diverged_step"]
    pd.testing.assert_frame_equal(clean[chosen], poisoned[chosen])
    assert_the_poison_shows(clean, poisoned, poison)


@pytest.mark.parametrize("poison", REPORTED)
def test_census_extensions_are_tuned_without_the_test_half(poison: str) -> None:
    (cell,) = (c for c in census.tuning_cells(SMOKE) if c.model == "MMoE" and c.learning_rate == 1e-2)
    clean, poisoned = (census.run(cell, source) for source in (CENSUS, spoiled(poison).census))
    chosen = ["validation_main_auc", "validation_auxiliary_auc", "diverged_step"]
    pd.testing.assert_frame_equal(clean[chosen], poisoned[chosen])
    assert_the_poison_shows(clean, poisoned, poison)


@pytest.mark.parametrize("poison", POISONS)
def test_rates_are_chosen_from_validation_columns_alone(poison: str) -> None:
    """Rows in which each rate is best for some model, and the test half says the opposite of validation, or nothing."""
    generator = np.random.default_rng(0)
    models = [name for name in EXTENSIONS if EXTENSIONS[name].own_rate]
    trials = pd.DataFrame(
        [(model, rate, seed) for model in models for rate in census.RATES for seed in range(3)],
        columns=["model", "learning_rate", "seed"],
    )
    for task in ("main", "auxiliary"):
        trials[f"validation_{task}_auc"] = generator.uniform(0.7, 0.9, len(trials))
        trials[f"test_{task}_auc"] = trials[f"validation_{task}_auc"]
    poisoned = trials.copy()
    for task in ("main", "auxiliary"):
        poisoned[f"test_{task}_auc"] = np.nan if poison == "NaN" else 1 - trials[f"test_{task}_auc"]
    chosen = census.chosen_rates(trials)
    assert set(chosen.values()) == set(census.RATES)
    assert census.chosen_rates(poisoned) == chosen


@pytest.mark.parametrize("poison", POISONS)
def test_settings_rates_and_weights_are_chosen_from_validation_columns_alone(poison: str) -> None:
    rates = {("MMoE", share): 3e-3 for share in rare_labels.SHARES}
    ranking = trials_of(tuning_cells(FEW), "engagement_auc", poison)
    rare = trials_of(
        [*rare_labels.tuning_cells(SMOKE, "census"), *rare_labels.weight_cells(SMOKE, "census", rates)],
        "mean_auc",
        poison,
    )
    clean, poisoned = (
        [
            chosen_settings(settings),
            rare_labels.chosen(unequal, "census", "learning_rate"),
            rare_labels.chosen(unequal, "census", "weight"),
        ]
        for settings, unequal in zip(ranking, rare, strict=True)
    )
    assert clean == poisoned


def trials_of(cells: Sequence[Cell[Any]], name: str, poison: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A made-up trial a run, whose test half says what validation says, and the same with that spoiled."""
    rows = pd.DataFrame(
        [
            {"model": cell.model, "learning_rate": cell.learning_rate, **cell.facts, "seed": seed}
            for cell in cells
            for seed in cell.seeds
        ]
    )
    good = np.random.default_rng(0).uniform(0.7, 0.9, len(rows))
    rows[f"validation_{name}"] = good
    return rows.assign(**{f"test_{name}": good}), rows.assign(
        **{f"test_{name}": np.nan if poison == "NaN" else 1 - good}
    )
