"""The census study: what is trained, what is scored, which cells there are, and the whole command on the stand-in."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from companion import census_changes
from companion.study import Cell, census, references, specifications, tuning
from companion.study.__main__ import main
from companion.study.cells import NoChoices
from companion.study.census import CensusSource, Choices, Chosen
from companion.study.census_variants import AS_IN_THE_STUDY, VARIANTS
from companion.study.plans import census as plan
from companion.study.presets import PRESETS
from companion.study.search_space import METHODS, SEARCH_SPACE, read_settings, settings_text
from mmoe_lib.models import TensorFactorization
from mmoe_lib.tasks.census import GROUPS
from mmoe_lib.training import Ensemble

SOURCE = CensusSource(train_rows=5_000, test_rows=2_000, simulated=True)
SMALLEST: dict[str, dict[str, int | float]] = {
    method: {tuned.name: tuned.low for tuned in ranges} for method, ranges in SEARCH_SPACE.items()
}
SMALLEST["OMoE"] = SMALLEST["MMoE"] = {
    "experts": 4,
    "units": 8,
}  # with two experts of four, some towers are dead
CHOSEN = {
    (method, group): Chosen(method, group, 3e-3, 2, settings_text(settings))
    for method, settings in SMALLEST.items()
    for group in GROUPS
}
PAPER = PRESETS["paper"]


def cell(method: str, seeds: tuple[int, ...] = (0, 1), rate: float = 0.01, **choices: object) -> Cell[Any]:
    settings = settings_text(SMALLEST[method])
    how = replace(Choices("income", 8, settings, batch_size=500), **choices)  # type: ignore[arg-type]
    return Cell(method, "income", rate, seeds, how)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_the_stand_in(method: str) -> None:
    """Its labels are easy: a few epochs must lift the AUC of both tasks far over 0.5."""
    rows = census.run(cell(method), SOURCE)
    assert list(rows["seed"]) == [0, 1]
    assert (rows[["test_main_auc", "test_auxiliary_auc", "validation_main_auc"]] > 0.75).all(axis=None)
    assert rows["test_main_auc"].nunique() == 2  # the seeds are different runs
    assert list(rows["diverged_step"]) == [0, 0]
    gates = rows["gate_distance"].notna()
    assert gates.all() if method in ("OMoE", "MMoE") else not gates.any()


def test_same_cell_same_rows_and_another_order_of_rows_gives_others() -> None:
    rows = census.run(cell("MMoE"), SOURCE)
    pd.testing.assert_frame_equal(rows, census.run(cell("MMoE"), SOURCE))
    other = census.run(cell("MMoE", order=1), SOURCE)
    assert not np.isclose(rows["test_main_auc"], other["test_main_auc"], atol=1e-6).any()


def test_a_run_does_not_depend_on_those_trained_beside_it() -> None:
    together, alone = census.run(cell("MMoE", (3, 4)), SOURCE), census.run(cell("MMoE", (4,)), SOURCE)
    scores = ["test_main_auc", "test_auxiliary_auc"]
    np.testing.assert_allclose(together.loc[1, scores], alone.loc[0, scores], atol=2e-4)


def test_gates_are_measured_as_defined() -> None:
    """A gate of zeros weighs all experts alike: entropy 1; a huge one picks one expert: entropy 0."""
    data = SOURCE.data("income")
    settings = {"experts": 3, "units": 4}
    chosen = Chosen("MMoE", "income", 0.01, 1, settings_text(settings))
    ensemble = Ensemble(partial(chosen.builder(), data.x_train.shape[1], 2), (0, 1))
    gates = ensemble.parameters["gates.weight"]  # (R, K n, d)
    gates.zero_()
    use = census.gate_use(ensemble, data)
    np.testing.assert_allclose(use[["gate_1_1", "gate_1_2", "gate_1_3", "gate_2_1"]], 1 / 3, rtol=1e-5)
    assert use[[f"gate_1_{i}" for i in range(4, 9)]].isna().all(axis=None)
    np.testing.assert_allclose(use[["gate_entropy_1", "gate_entropy_2"]], 1, rtol=1e-5)
    np.testing.assert_allclose(use["gate_distance"], 0, atol=1e-6)
    gates[:, 0] = 1e4  # task 1 reads expert 1 alone, every row has a positive sum of inputs
    use = census.gate_use(ensemble, data)
    np.testing.assert_allclose(use["gate_1_1"], 1, rtol=1e-5)
    np.testing.assert_allclose(use["gate_entropy_1"], 0, atol=1e-5)
    np.testing.assert_allclose(use["gate_entropy_2"], 1, rtol=1e-5)
    np.testing.assert_allclose(use["gate_distance"], 2 / 3, rtol=1e-5)  # |1 - 1/3| + 2 |0 - 1/3|, halved


def test_a_diverged_run_is_recorded_without_scores() -> None:
    data = SOURCE.data("income")

    class Explodes(torch.nn.Module):
        """Finite at the start, not after a step of any size, if its seed says so."""

        def __init__(self, generator: torch.Generator) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))
            bad = torch.rand((), generator=generator) < 0.5
            self.scale = torch.nn.Parameter(torch.tensor(float("inf") if bad else 1.0), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2] * self.weight * self.scale + 1e-3 * x[:, :2]

    ensemble = Ensemble(Explodes, tuple(range(8)))
    ensemble.parameters["weight"].fill_(1.0)
    rows = census.score(ensemble, data)
    bad = torch.isinf(ensemble.parameters["scale"]).numpy()
    assert 0 < bad.sum() < 8
    assert rows.loc[bad, "test_main_auc"].isna().all()
    assert rows.loc[~bad, "test_main_auc"].notna().all()


def test_a_cell_all_of_whose_runs_diverge_has_rows_that_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        census, "binary_cross_entropy", lambda outputs, labels: outputs.sum(dim=0) * torch.inf
    )
    rows = census.run(cell("Shared-Bottom"), SOURCE)
    assert (rows["diverged_step"] > 0).all()
    assert rows["test_main_auc"].isna().all()


def test_scores_belong_to_their_run_task_and_half() -> None:
    data = SOURCE.data("income")

    class Oracle(torch.nn.Module):
        """Scores by the inputs' first column for the main task and minus it for the auxiliary one."""

        def __init__(self, generator: torch.Generator) -> None:
            super().__init__()
            self.sign = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.sign * torch.stack([x[:, 0], -x[:, 0]], dim=-1)

    from sklearn.metrics import roc_auc_score

    row = census.score(Ensemble(Oracle, (7,)), data).iloc[0]
    age = data.x_test[:, 0].numpy()
    assert row["seed"] == 7
    assert row["test_main_auc"] == pytest.approx(roc_auc_score(data.y_test[:, 0], age))
    assert row["test_auxiliary_auc"] == pytest.approx(1 - roc_auc_score(data.y_test[:, 1], age))
    assert not np.isclose(row["test_main_auc"], row["validation_main_auc"], atol=1e-9)


def test_reported_cells_hold_the_papers_counts_and_first_runs_first() -> None:
    cells = census.reported_cells(PAPER, CHOSEN)
    runs = [(c.model, c.setting, seed) for c in cells for seed in c.seeds]
    assert len(runs) == len(set(runs)) == 400 * len(METHODS) * len(GROUPS)
    first = cells[: len(METHODS) * len(GROUPS)]
    assert {(c.model, c.setting) for c in first} == set(CHOSEN)
    assert {c.seeds for c in first} == {tuple(range(PAPER.census_chunk))}


def test_choices_and_traps_change_one_thing_each() -> None:
    base = {
        (c.model, c.facts["group"]): c
        for c in census.choice_cells(PAPER, CHOSEN)
        if c.setting.endswith(AS_IN_THE_STUDY)
    }
    assert set(base) == {(method, group) for method in census.COMPARED for group in GROUPS}
    cells = census.choice_cells(PAPER, CHOSEN)
    pulled = [c for c in cells if "alpha =" in c.setting]
    assert {c.model for c in pulled} == {"L2-Constrained"}
    assert len(pulled) == len(GROUPS) * len(census_changes.ALPHAS)
    for c in [c for c in cells if c not in pulled]:
        other = base[c.model, str(c.facts["group"])]
        changed = {name for name in c.facts if c.facts[name] != other.facts[name]}
        assert len(changed) == (0 if c is other or c == other else 1), c
        assert c.learning_rate == other.learning_rate
        assert c.facts["variant"] in VARIANTS
    for group, names in census_changes.TRAPS.items():
        assert set(names) <= set(VARIANTS), group


def test_tucker_cells_change_ranks_start_or_rate_alone() -> None:
    cells = census.tucker_cells(PAPER, CHOSEN)
    assert {c.setting for c in cells} == {
        one.setting for group in GROUPS for one in census_changes.tucker_of(group)
    }
    for c in cells:
        assert c.model == "Tensor-Factorization"
        tuned = read_settings(CHOSEN[c.model, str(c.facts["group"])].settings)
        settings = read_settings(str(c.facts["settings"]))
        assert settings["units"] == tuned["units"]
        census.builder(c.model, c.choices)(20, 2, generator=None)


def test_start_scales_the_factors_and_nothing_else() -> None:
    settings = "units=16 rank_inputs=4 rank_units=3 rank_tasks=2"
    plain, scaled = (
        census.builder("Tensor-Factorization", Choices("income", 1, settings, start=start))(
            20, 2, generator=torch.Generator().manual_seed(0)
        )
        for start in (1.0, 0.1)
    )
    assert isinstance(scaled, TensorFactorization)
    for (name, before), after in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        factor = name.split(".")[-1] in ("core", "inputs", "outputs", "tasks")
        torch.testing.assert_close(after, before * (0.1 if factor else 1.0))


def test_references_fit_both_tasks_and_agree_with_scikit_learn() -> None:
    rows = references.run_reference(references.reference_cells()[0], SOURCE)
    assert (rows[["test_main_auc", "test_auxiliary_auc"]] > 0.8).all(axis=None)
    boosted = references.run_reference(Cell("Gradient boosting", "income", 0.1, (0,), NoChoices()), SOURCE)
    assert (boosted[["test_main_auc", "test_auxiliary_auc"]] > 0.8).all(axis=None)
    with pytest.raises(ValueError, match="expected one of Logistic regression, Gradient boosting"):
        references.run_reference(Cell("Magic", "income", 0.1, (0,), NoChoices()), SOURCE)


def test_missing_data_are_never_replaced_by_the_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMOE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"MMOE_DATA is .*nowhere, which is not a folder"):
        CensusSource(train_rows=77).tables()
    assert main(["census", "--results", str(tmp_path / "results")]) == 1
    assert "which is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.fixture
def small_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command on the stand-in, with the fewest trials and runs and two cells of every other file."""
    tiny = replace(
        PRESETS["smoke"],
        census_trials=1,
        census_tuning_runs=1,
        census_tuning_epochs=1,
        census_seeds=2,
        census_chunk=1,
        census_choice_runs=1,
    )
    monkeypatch.setitem(PRESETS, "smoke", tiny)
    source = CensusSource(train_rows=1_500, test_rows=800, simulated=True)
    monkeypatch.setattr(plan, "source_of", lambda preset: source)
    for module, name in (
        (census, "choice_cells"),
        (census, "tucker_cells"),
        (references, "reference_cells"),
        (specifications, "cells"),
    ):
        whole = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, whole=whole: whole(*given)[:2])


@pytest.mark.usefixtures("small_command")
def test_the_command_tunes_then_fills_every_file_and_does_nothing_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["census", "--preset", "smoke", "--workers", "1", "--results", str(tmp_path)]
    assert main([*folder, "--status"]) == 0
    assert "census_tuning.csv: 0 of 70 trials, preset smoke" in capsys.readouterr().out

    assert main(folder) == 0
    files = {path.stem: path.read_text() for path in tmp_path.glob("*.csv")}
    assert set(files) == {
        "census_tuning", "census_choices", "census_tucker", "census_references", "census_specifications", "census",
    }  # fmt: skip
    rows = pd.read_csv(tmp_path / "census.csv")
    assert len(rows) == 2 * len(METHODS) * len(GROUPS)
    assert rows["data"].str.contains("simulated").all()  # a row says what it was trained on
    trials = tuning.best_settings(pd.read_csv(tmp_path / "census_tuning.csv"))
    for (method, group), best in trials.items():
        same = rows[(rows["model"] == method) & (rows["setting"] == group)]
        assert set(same["learning_rate"]) == {best.learning_rate}
        assert set(same["settings"]) == {best.settings}
        assert set(same["epochs"]) == {best.epochs}

    assert main(folder) == 0
    assert {path.stem: path.read_text() for path in tmp_path.glob("*.csv")} == files
    capsys.readouterr()
    assert main([*folder, "--status"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "census_tuning.csv: 70 of 70 trials, preset smoke"
    assert told[-1] == "census.csv: 28 of 28 runs, preset smoke"
