"""The universes: labels that meet figure 2, the survey's design, and what of a run is stored."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from companion.checkout import DATA
from companion.study import Cell, synthetic, universe_labels, universes
from companion.study.cells import append_rows
from companion.study.plan import Plan, run_study
from companion.study.plans.universes import NEAREST, UNIVERSES
from companion.study.presets import PRESETS
from companion.synthetic_labels import PLE, hermite_coefficients, label_correlation, signal_variance
from mmoe_lib.tasks.synthetic import CALIBRATED, NEAREST_10, NEAREST_40, Constants, noiseless_labels

PAPER, SMOKE = PRESETS["paper"], PRESETS["smoke"]
FIGURE_2 = universes.figure_2()


@pytest.mark.parametrize("constants", [CALIBRATED, NEAREST_40, NEAREST_10, PLE], ids=lambda one: one.name)
def test_features_agree_with_the_closed_form_and_with_sampling(constants: Constants) -> None:
    found = universe_labels.features(constants, FIGURE_2)
    assert found["signal_variance"] == pytest.approx(signal_variance(constants), rel=1e-9)
    shares = hermite_coefficients(constants).square() / signal_variance(constants)
    assert found["linear_share"] == pytest.approx(float(shares[1]), abs=1e-9)
    assert found["even_share"] == pytest.approx(float(shares[2::2].sum()), abs=1e-9)
    off = max(abs(label_correlation(p, constants) - value) for p, value in FIGURE_2.items())
    assert found["off_figure_2"] == pytest.approx(off, abs=1e-9)
    # roughness by sampling: g'(z) for z ~ N(0, 1), the projection being c z
    z = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    noiseless_labels(constants.c * z, constants).sum().backward()
    assert z.grad is not None
    assert found["roughness"] == pytest.approx(float(z.grad.square().mean()), rel=0.02)


@pytest.mark.parametrize("m", universes.SINES)
def test_a_drawn_label_meets_figure_2_and_is_the_seeds_own(m: int) -> None:
    label = universe_labels.draw_label("one", m, FIGURE_2, seed=m, steps=1_500)
    assert label.m == m
    assert max(abs(label_correlation(p, label) - value) for p, value in FIGURE_2.items()) < 0.0035
    assert universe_labels.draw_label("one", m, FIGURE_2, seed=m, steps=1_500) == label
    assert universe_labels.draw_label("one", m, FIGURE_2, seed=m + 10, steps=1_500) != label


def test_a_figure_that_no_label_meets_is_told_in_one_line() -> None:
    falling = {p: 1 - value for p, value in FIGURE_2.items()}
    with pytest.raises(ValueError, match=r"no label of 4 sines came within 0\.0035 of figure 2"):
        universe_labels.draw_label("one", 4, falling, seed=0, steps=20)


def test_other_kinds_are_what_they_are_called() -> None:
    for seed in range(5):
        smoother, rougher, ple = (
            universe_labels.draw_other(kind, kind, seed=seed) for kind in ("smoother", "rougher", "PLE")
        )
        assert max(smoother.alpha) * smoother.c <= 3.0001
        assert min(rougher.alpha) * rougher.c >= 8.9999
        assert (ple.m, ple.c) == (10, 1.0)
    with pytest.raises(ValueError, match="kind is 'flat', expected one of"):
        universe_labels.draw_other("one", "flat", seed=0)


def test_the_survey_holds_what_the_issue_asks_for() -> None:
    cells = universes.label_cells(PAPER)
    kinds = Counter(cell.choices.kind for cell in cells for _ in cell.seeds)
    assert kinds == {"figure 2": 120, "PLE": 10, "smoother": 10, "rougher": 10}
    numbers = [*range(120), *(1_000 * kind + place for kind in (1, 2, 3) for place in range(10))]
    rows = _universe_rows(numbers)
    survey = universes.survey_cells(PAPER, rows)
    assert len(survey) == 150 * 5 * 2
    assert {len(cell.seeds) for cell in survey} == {12}
    assert {cell.choices.steps for cell in survey} == {30_000}
    seeds: dict[int, set[int]] = {}
    for cell in survey:
        seeds.setdefault(cell.choices.universe, set()).update(cell.seeds)
    assert sum(len(own) for own in seeds.values()) == len(
        set().union(*seeds.values())
    )  # no seed in two of them
    long = universes.long_cells(PAPER, rows)
    assert len({cell.choices.universe for cell in long}) == 20
    assert {cell.choices.steps for cell in long} == {150_000}
    assert {cell.choices.universe for cell in long} <= set(range(120))


def _universe_rows(*numbers: object) -> pd.DataFrame:
    chosen = [number for some in numbers for number in some]  # type: ignore[attr-defined]
    return pd.DataFrame(
        {
            "seed": chosen,
            "own_batch_size": 32,
            "own_rate": 1e-3,
            "own_initialiser": "torch",
            "preset": "paper",
        }
    )


def test_the_first_universes_are_the_same_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(universe_labels, "draw_label", partial(universe_labels.draw_label, steps=300))
    few, many = universes.label_cells(SMOKE)[0], universes.label_cells(PAPER)[0]
    some = universes.run_labels(few)
    more = universes.run_labels(replace(many, seeds=many.seeds[:3]))
    pd.testing.assert_frame_equal(some, more[: len(some)])


def test_batches_weights_and_rates_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        universe_labels, "draw_label", lambda name, m, *_, **__: Constants(name, 1.0, (1.0,) * m, (0.0,) * m)
    )
    rows = pd.concat([universes.run_labels(cell) for cell in universes.label_cells(PAPER)[:12]])
    assert rows["own_batch_size"].value_counts().to_dict() == pytest.approx({32: 40, 64: 40, 128: 40}, abs=3)
    assert rows["own_initialiser"].value_counts().tolist() == pytest.approx([60, 60], abs=3)
    assert rows["sines"].value_counts().tolist() == pytest.approx([30] * 4, abs=3)
    assert rows["own_rate"].between(3e-4, 3e-3).all()
    logs = np.log(rows["own_rate"])
    assert logs.mean() == pytest.approx(np.log(9.5e-4), abs=0.05)


def test_a_label_comes_back_from_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(universe_labels, "draw_label", partial(universe_labels.draw_label, steps=300))
    rows = universes.run_labels(universes.label_cells(SMOKE)[0])
    label = universes.label_of(rows, 1)
    assert label.m == rows.loc[1, "sines"]
    assert label_correlation(0.9, label) == pytest.approx(0.305, abs=0.004)
    with pytest.raises(ValueError, match="there is no universe 7 among 2, expected its row"):
        universes.label_of(rows, 7)


def test_noise_is_in_the_labels_and_nothing_else_changes() -> None:
    """The same inputs and directions; the loss of an untrained model grows by the variance."""
    cells = universes.noise_cells(replace(SMOKE, noise_runs=2, noise_steps=1), "nearest-40", 64)
    chosen = {
        cell.choices.noise_variance: cell
        for cell in cells
        if cell.model == "MMoE" and cell.choices.task_correlation == 1
    }
    assert set(chosen) == {0.01, 0.1, 0.5, 1.0}
    low, high = (
        universes.run_short(chosen[variance], label=universes.noisy_label)[["loss_1", "loss_2"]].to_numpy()
        for variance in (0.01, 1.0)
    )
    assert high - low == pytest.approx(np.full((2, 2), 0.99), abs=0.12)  # of 10,000 rows


def test_separate_networks_do_not_know_the_correlation() -> None:
    """Task 1 is the same task at every p, so a network of its own learns the same."""
    cells = [Cell("Single-Task-61", "any", 1e-3, (0, 1), synthetic.Choices(p, 30, 16)) for p in (0.5, 1.0)]
    half, one = (universes.run_short(cell) for cell in cells)
    assert half["loss_1"].tolist() == one["loss_1"].tolist()
    assert half["loss_2"].tolist() != one["loss_2"].tolist()


def test_a_run_of_the_survey_is_that_of_the_study_with_less_stored() -> None:
    cell = Cell("MMoE", "any", 1e-3, (3, 4), synthetic.Choices(0.5, 60, 16))
    short, whole = universes.run_short(cell, points=3), synthetic.run(cell)
    assert short["loss_1"].tolist() == pytest.approx(whole["loss_1"].tolist(), abs=1e-5)
    assert short["gate_distance"].tolist() == pytest.approx(whole["gate_distance"].tolist(), abs=1e-4)
    assert list(short.filter(like="curve_")) == ["curve_1", "curve_2", "curve_3"]
    _, history = synthetic.train_stack([cell], points=3, progress=False)
    assert short["curve_3"].tolist() == pytest.approx(history.losses[2].mean(dim=1).tolist(), abs=1e-5)
    assert (short["averaged_1"] > 0).all()
    other = universes.run_short(replace(cell, model="Shared-Bottom"), points=3)
    assert other["averaged_1"].isna().all()


def test_a_cell_of_which_every_run_diverges_has_its_rows() -> None:
    cell = Cell("MMoE", "any", 1e30, (3, 4), synthetic.Choices(0.5, 60, 16))
    rows = universes.run_short(cell)
    assert (rows["diverged_step"] > 0).all()
    assert rows[["loss_1", "averaged_2", "curve_6", "gate_distance"]].isna().all(axis=None)


def test_a_file_of_another_design_is_not_gone_on_with(tmp_path: Path) -> None:
    plan = Plan(UNIVERSES, replace(SMOKE, universes=1, other_universes=0), tmp_path)
    part = next(part for part in plan.parts if part.file == "universes.csv")
    (cell,) = (cell for cell in plan.cells(part) or [] if cell.seeds)
    rows = universes.run_labels(replace(cell, choices=replace(cell.choices, design="other")))
    facts: dict[str, Any] = {
        "model": cell.model,
        "setting": cell.setting,
        "learning_rate": 0.0,
        "design": "other",
        "kind": "figure 2",
    }
    origin: dict[str, Any] = {
        "commit": "0",
        "command": "none",
        "preset": "smoke",
        "device": "cpu",
        "torch_version": "0",
        "data": "synthetic",
        "seconds": 0.0,
    }
    append_rows(tmp_path / "universes.csv", rows.assign(**facts, **origin))
    with pytest.raises(ValueError, match="design"):
        plan.waiting(part)


def test_a_survey_of_two_small_universes_runs_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(universe_labels, "draw_label", partial(universe_labels.draw_label, steps=300))
    monkeypatch.setattr(synthetic, "TEST_ROWS", 250)
    small = replace(SMOKE, universes=2, other_universes=3, universe_runs=2, universe_steps=5, long_steps=10)
    assert run_study(Plan(UNIVERSES, small, tmp_path), torch.device("cpu"), progress=False)
    rows = pd.read_csv(tmp_path / "universes_survey.csv")
    assert rows.groupby("universe").size().to_dict() == dict.fromkeys((0, 1, 1_000, 2_000, 3_000), 20)
    assert rows["chunk"].between(4, 24).all()  # both correlations of a model together, or more of one shape
    assert rows.groupby("universe")["learning_rate"].nunique().max() == 1
    before = (tmp_path / "universes_survey.csv").read_bytes()
    assert run_study(Plan(UNIVERSES, small, tmp_path), torch.device("cpu"), progress=False)
    assert (tmp_path / "universes_survey.csv").read_bytes() == before


def test_every_stored_row_belongs_to_a_cell_of_its_study(tmp_path: Path) -> None:
    """A study that refused its own stored rows could not be gone on with."""
    for study in (NEAREST, UNIVERSES):
        plan = Plan(study, PAPER, DATA / "results")
        for part in plan.parts:
            assert plan.waiting(part) is not None or part.after
