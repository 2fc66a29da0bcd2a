"""Tuning: the search space, trials that are resumed and repeated exactly, and what is never the best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from companion.checkout import ROOT
from companion.study import Origin, census, tuning
from companion.study.cells import Cell, run_cells, waiting_cells
from companion.study.census import CensusSource
from companion.study.presets import PRESETS
from companion.study.search_space import (
    METHODS,
    SEARCH_SPACE,
    UNIT_CAP,
    build,
    layer_units,
    read_settings,
    search_space_table,
    settings_text,
)
from companion.study.tuning import Pair, best_settings, storage_of, tune, tuning_cells
from mmoe_lib.models import count_multiply_adds
from mmoe_lib.training import DivergedError

SOURCE = CensusSource(train_rows=3_000, test_rows=1_000, simulated=True)
TINY = replace(PRESETS["smoke"], census_trials=3, census_tuning_runs=2, census_tuning_epochs=3)
ALL = 3 + len(tuning.FIXED_RATES)
PAIR = Pair("Shared-Bottom", "income")
ORIGIN = Origin("abc", "python -m companion.study census", "smoke", "cpu", "2", "simulated")


def ends(method: str) -> Iterator[dict[str, int | float]]:
    for end in ("low", "high"):
        yield {tuned.name: getattr(tuned, end) for tuned in SEARCH_SPACE[method]}


@pytest.mark.parametrize("method", METHODS)
def test_every_corner_of_the_search_space_is_a_model_below_the_cap(method: str) -> None:
    for settings in ends(method):
        assert layer_units(method, settings) <= 128 < UNIT_CAP
        model = build(method, settings)(517, 2, generator=torch.Generator().manual_seed(0))
        assert model(torch.zeros(1, 517)).shape == (1, 2)
        assert read_settings(settings_text(settings)) == settings


def test_the_largest_models_read_the_inputs_with_about_as_many_multiply_adds() -> None:
    """What one input more costs is what the first layer, and the gates, multiply it with."""
    costs = {}
    for method in METHODS:
        *_, largest = ends(method)
        few, many = (
            count_multiply_adds(build(method, largest)(inputs, 2, generator=None)) for inputs in (200, 201)
        )
        costs[method] = many - few
    assert min(costs.values()) == 128
    assert max(costs.values()) == 128 + 2 * 8  # MMoE: 8 gates a task


def test_settings_outside_of_what_a_model_allows_are_refused_in_one_line() -> None:
    cases: list[tuple[str, dict[str, int | float], str]] = [
        ("MMoE", {"experts": 64, "units": 33}, "2112 hidden units in a layer, expected at most 2048"),
        ("Single-Task", {"units": 1025}, "2050 hidden units"),
        (
            "Tensor-Factorization",
            {"units": 4, "rank_inputs": 2, "rank_units": 5, "rank_tasks": 1},
            "ranks are",
        ),
        ("L2-Constrained", {"units": 4, "alpha": -0.1}, "alpha is -0.1"),
        ("L2-Constrained", {"units": 4}, "expected alpha, units"),
        ("Shared-Top", {"units": 4}, "expected one of Single-Task"),
    ]
    for method, settings, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            build(method, settings)(20, 2, generator=None)
        assert "\n" not in str(error.value)
    build("Single-Task", {"units": 1024})
    with pytest.raises(ValueError, match="expected name=number"):
        read_settings("units 4")


def test_the_table_of_the_search_space_names_every_method_and_setting() -> None:
    table = search_space_table()
    assert list(dict.fromkeys(table.index.get_level_values(0))) == list(METHODS)
    assert all((method, "learning_rate") in table.index for method in METHODS)


def test_trials_go_on_where_they_stopped_and_are_those_of_an_undisturbed_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(PAIR, TINY, SOURCE, tmp_path / "whole.journal").drop(columns="seconds")
    assert list(whole["seed"]) == list(range(ALL))
    assert whole["validation_auc"].between(0.4, 1).all()

    stopped = tmp_path / "stopped.journal"
    monkeypatch.setattr(tuning, "FIXED_RATES", ())
    tune(PAIR, replace(TINY, census_trials=1), SOURCE, stopped)
    monkeypatch.undo()
    study = tuning._open(PAIR, TINY, SOURCE, stopped)
    study.ask()  # a trial that was under way when the study was killed
    resumed = tune(PAIR, TINY, SOURCE, stopped).drop(columns="seconds")
    pd.testing.assert_frame_equal(whole, resumed)
    again = tune(PAIR, TINY, SOURCE, stopped).drop(columns="seconds")  # nothing left to do
    pd.testing.assert_frame_equal(whole, again)


def test_the_last_trials_are_the_largest_model_at_fixed_rates(tmp_path: Path) -> None:
    rows = tune(Pair("L2-Constrained", "income"), TINY, SOURCE, tmp_path / "a.journal")
    fixed = rows.iloc[TINY.census_trials :]
    assert tuple(fixed["learning_rate"]) == tuning.FIXED_RATES
    assert set(fixed["settings"]) == {"units=64 alpha=0.0003"}
    assert "pruned" not in set(fixed["state"])


def test_validation_auc_and_epochs_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    rows = tune(PAIR, TINY, SOURCE, tmp_path / "a.journal")
    epochs = rows[[f"auc_{epoch}" for epoch in (1, 2, 3)]]
    assert (rows["validation_auc"] == epochs.max(axis=1)).all()
    assert list(rows["epochs"]) == [int(str(name)[-1]) for name in epochs.idxmax(axis=1)]


def test_a_storage_of_another_study_or_none_is_refused(tmp_path: Path) -> None:
    storage = tmp_path / "a.journal"
    tune(PAIR, replace(TINY, census_trials=1), SOURCE, storage)
    with pytest.raises(ValueError, match="of another study: its epochs differ"):
        tune(PAIR, replace(TINY, census_tuning_epochs=4), SOURCE, storage)
    with pytest.raises(ValueError, match="of another study: its data differ"):
        tune(PAIR, TINY, replace(SOURCE, train_rows=2_900), storage)
    (tmp_path / "b.journal").write_text("model,setting\nMMoE,income\n")
    with pytest.raises(ValueError, match="no optuna journal"):
        tune(PAIR, TINY, SOURCE, tmp_path / "b.journal")


def test_a_trial_that_diverges_is_recorded_and_never_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def train_runs(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise DivergedError("the loss", 0, 0, 1, 0)
        return original(*arguments, **options)  # type: ignore[arg-type]

    original = census.train_runs
    monkeypatch.setattr(tuning, "train_runs", train_runs)
    rows = tune(PAIR, TINY, SOURCE, tmp_path / "a.journal")
    assert list(rows["state"][:3]) == ["complete", "diverged", "complete"]
    assert rows["validation_auc"].isna().tolist() == [number == 1 for number in range(ALL)]
    best = best_settings(rows)["Shared-Bottom", "income"]
    assert best.settings != rows.loc[1, "settings"]
    with pytest.raises(ValueError, match="no trial was trained to its end"):
        best_settings(rows[rows["state"] == "diverged"])


def test_the_best_setting_is_the_one_with_the_highest_auc_among_those_trained_to_their_end() -> None:
    rows = pd.DataFrame(
        {
            "model": "OMoE",
            "setting": "income",
            "learning_rate": [0.1, 0.2, 0.3, 0.4],
            "seed": range(4),
            "settings": [f"experts={n} units=4" for n in (2, 3, 4, 5)],
            "state": ["complete", "complete", "pruned", "diverged"],
            "validation_auc": [0.8, 0.9, 0.95, float("nan")],
            "epochs": [1, 2, 3, 0],
        }
    )
    best = best_settings(rows)["OMoE", "income"]
    assert (best.learning_rate, best.epochs, best.settings) == (0.2, 2, "experts=3 units=4")


def test_all_pairs_are_tuned_once_and_stand_in_the_order_of_the_tables(tmp_path: Path) -> None:
    """With the trials themselves made up: the last pairs are there already, the others are added before them."""
    asked = []

    def made_up(cell: Cell[Any]) -> pd.DataFrame:
        asked.append((cell.model, cell.setting))
        return pd.DataFrame([{"learning_rate": 0.1 + n, "seed": n, "seconds": 1.0} for n in range(ALL)])

    path = tmp_path / "trials.csv"
    cells = tuning_cells(TINY)
    run_cells(cells[-1:], made_up, path, ORIGIN, progress=False)
    asked.clear()
    rows = run_cells(cells, made_up, path, ORIGIN, progress=False)
    assert asked == [(pair.method, pair.group) for pair in tuning.PAIRS[:-1]]
    found = rows[["model", "setting"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(found) == [(pair.method, pair.group) for pair in tuning.PAIRS]
    assert waiting_cells(cells, rows, "smoke") == []
    assert run_cells(cells, made_up, path, ORIGIN, progress=False).equals(rows)
    assert waiting_cells(cells, rows.iloc[:-1], "smoke") == cells[-1:]

    # A trial that the file lacks is added; the others keep the origin they have.
    rows.iloc[:-1].to_csv(path, index=False)
    later = run_cells(cells, made_up, path, replace(ORIGIN, commit="def"), progress=False)
    assert list(later["commit"]) == ["abc"] * (len(rows) - 1) + ["def"]


def test_the_storage_lies_with_the_downloads_or_beside_other_results(tmp_path: Path) -> None:
    repository = ROOT / "data"
    assert storage_of(TINY, repository / "results").is_relative_to(repository / "cache")  # ignored by git
    assert storage_of(TINY, tmp_path).is_relative_to(tmp_path)
