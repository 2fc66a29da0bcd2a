"""The synthetic study: its grid, what a cell measures, how a learning rate is chosen, and the command."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from companion.study import Cell, synthetic
from companion.study.__main__ import main
from companion.study.cells import read_rows
from companion.study.presets import PRESETS
from mmoe_lib.models import MMoE, paper_model
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks import synthetic as task
from mmoe_lib.training import Ensemble

PAPER = PRESETS["paper"]
RATES = {(model, p): 1e-3 for model in synthetic.MODELS for p in synthetic.CORRELATIONS}
TINY = synthetic.Choices(0.5, steps=100, batch_size=8)


def _cell(
    model: str = "MMoE", rate: float = 1e-3, seeds: tuple[int, ...] = (3, 4), **changes: object
) -> Cell[Any]:
    return Cell(model, "p = 0.5", rate, seeds, replace(TINY, **changes))  # type: ignore[arg-type]


def test_the_paper_preset_has_the_papers_counts() -> None:
    cells = synthetic.reported_cells(PAPER, RATES)
    runs: dict[tuple[str, object], set[int]] = {}
    for cell in cells:
        runs.setdefault((cell.model, cell.facts["task_correlation"]), set()).update(cell.seeds)
    models = ("Shared-Bottom-16", "Shared-Bottom", "OMoE", "MMoE")
    assert set(runs) == {(model, p) for model in models for p in (0.5, 0.9, 1.0)}
    assert all(seeds == set(range(200)) for seeds in runs.values())
    assert {cell.facts["steps"] for cell in cells} == {PAPER.synthetic_steps}
    assert 50_000 <= PAPER.synthetic_steps <= 100_000


def test_learning_rates_are_the_papers_and_chosen_on_runs_that_are_not_reported() -> None:
    tuning = synthetic.tuning_cells(PAPER)
    assert {cell.learning_rate for cell in tuning} == {1e-4, 1e-3, 1e-2}
    assert len({(cell.model, cell.setting, cell.learning_rate) for cell in tuning}) == 27
    reported = {seed for cell in synthetic.reported_cells(PAPER, RATES) for seed in cell.seeds}
    assert not reported & {seed for cell in tuning for seed in cell.seeds}
    assert {cell.facts["steps"] for cell in tuning} == {PAPER.synthetic_steps}
    # figure 3's model is trained with Adam's default
    small = [cell for cell in synthetic.reported_cells(PAPER, {}) if cell.model == "Shared-Bottom-16"]
    assert {cell.learning_rate for cell in small} == {1e-3}


def test_the_rate_with_the_lowest_mean_is_chosen_and_a_diverged_one_never() -> None:
    rows = pd.DataFrame(
        [
            ("MMoE", 1.0, 1e-4, 0.5),
            ("MMoE", 1.0, 1e-4, 0.5),
            ("MMoE", 1.0, 1e-3, 0.1),
            ("MMoE", 1.0, 1e-3, 0.7),
            ("MMoE", 1.0, 1e-2, 0.01),
            ("MMoE", 1.0, 1e-2, np.nan),
        ],
        columns=["model", "task_correlation", "learning_rate", "loss_1"],
    )
    assert synthetic.chosen_rates(rows) == {("MMoE", 1.0): 1e-3}
    with pytest.raises(ValueError, match="runs diverged at every learning rate"):
        synthetic.chosen_rates(rows[rows["learning_rate"] == 1e-2])


def test_choices_differ_from_the_study_in_one_thing_each() -> None:
    base = {"constants": "calibrated", "inputs": "pool", "initialiser": "torch", "batch_size": 32}
    seen = set()
    for cell in synthetic.choice_cells(PAPER, RATES):
        changed = {name for name, value in base.items() if cell.facts[name] != value}
        assert len(changed) <= 1
        seen |= changed
        assert cell.setting.endswith(f": p = {cell.facts['task_correlation']:g}")
    assert seen == set(base)


def test_a_cell_measures_loss_on_fresh_rows_and_what_the_gates_do() -> None:
    cell = _cell()
    rows = synthetic.run(cell)
    assert rows["seed"].tolist() == [3, 4]
    assert (rows["diverged_step"] == 0).all()
    ensemble, history = synthetic.train_stack([cell], progress=False)
    # the same again, written out for one run
    model = ensemble.module(1)
    assert isinstance(model, MMoE)
    (x, y), *_ = zip(*zip(*_test_batches(4), strict=True), strict=True)
    xs, ys = zip(*_test_batches(4), strict=True)
    x, y = torch.cat(xs), torch.cat(ys)
    assert len(x) == 10_000
    with torch.no_grad():
        loss = (model(x) - y).square().mean(dim=0)
        gates = model.gate_weights(x)
    assert rows.loc[1, "loss_1"] == pytest.approx(float(loss[0]), abs=2e-6)
    assert rows.loc[1, "loss_2"] == pytest.approx(float(loss[1]), abs=2e-6)
    assert rows.loc[1, "gate_2_5"] == pytest.approx(float(gates[:, 1, 4].mean()), abs=1e-4)
    distance = (gates[:, 0] - gates[:, 1]).abs().sum(dim=1).mean() / 2
    assert rows.loc[1, "gate_distance"] == pytest.approx(float(distance), abs=1e-4)
    assert rows.filter(like="gate_1").sum(axis=1).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert list(rows.filter(like="curve_")) == [f"curve_{i}" for i in range(1, 51)]
    assert rows.loc[0, "curve_50"] == pytest.approx(float(history.losses[-1][0, 0]), abs=1e-4)
    pd.testing.assert_frame_equal(rows, synthetic.run(cell))  # the same seed gives the same table


def _test_batches(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = task.stream(0.5, [seed], 250, purpose="validation")
    return [(x[0].clone(), y[0].clone()) for _, (x, y) in zip(range(40), batches, strict=False)]


def test_a_model_without_gates_has_none_in_its_rows() -> None:
    rows = synthetic.run(_cell("Shared-Bottom"))
    assert rows.filter(like="gate").isna().all(axis=None)
    assert rows["loss_1"].notna().all()
    one_gate = synthetic.run(_cell("OMoE"))
    assert (one_gate["gate_distance"] == 0).all()


def test_a_diverged_run_is_recorded_and_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    true_stream = task.stream

    def poisoned(*arguments: object, **settings: object):  # type: ignore[no-untyped-def]
        for step, (x, y) in enumerate(true_stream(*arguments, **settings), start=1):  # type: ignore[arg-type]
            if step == 7 and settings.get("purpose") != "validation":
                y = y.clone()
                y[0] = float("inf")
            yield x, y

    cell = _cell()
    expected = synthetic.run(cell)
    monkeypatch.setattr(task, "stream", poisoned)
    rows = synthetic.run(cell)
    assert rows["diverged_step"].tolist() == [7, 0]
    assert rows.loc[0, "loss_1":].isna().all()
    pd.testing.assert_frame_equal(rows.iloc[1:], expected.iloc[1:])  # the other run never noticed


def test_choices_reach_the_training() -> None:
    torch_start = synthetic.run(_cell())
    for change in ({"inputs": "fresh"}, {"initialiser": "glorot"}, {"batch_size": 16}, {"constants": "odd"}):
        assert not torch_start["loss_1"].equals(synthetic.run(_cell(**change))["loss_1"])
    ensemble, _ = synthetic.train_stack([_cell(constants="PLE")], progress=False)
    assert ensemble.parameters["experts.first.weight"].shape == (2, 128, 512)


def test_a_cell_of_two_runs_equals_two_cells_of_one() -> None:
    both = synthetic.run(_cell())
    single = pd.concat([synthetic.run(_cell(seeds=(seed,))) for seed in (3, 4)], ignore_index=True)
    np.testing.assert_allclose(both["loss_1"], single["loss_1"], rtol=1e-3)


def test_glorot_scales_each_expert_and_gate_as_a_layer_of_its_own() -> None:
    build = synthetic.build("MMoE", 100, "glorot")
    parameters = Ensemble(build, range(20)).parameters
    for name, limit in (
        ("experts.first.weight", (6 / (100 + 16)) ** 0.5),
        ("gates.weight", (6 / (100 + 8)) ** 0.5),
        ("towers.towers.0.hidden.layers.0.weight", (6 / (16 + 8)) ** 0.5),
        ("towers.towers.1.output.weight", (6 / (8 + 1)) ** 0.5),
    ):
        assert float(parameters[name].abs().max()) == pytest.approx(limit, rel=0.02)
        assert float(parameters[name].abs().max()) <= limit
    assert float(parameters["experts.first.bias"].abs().max()) == 0
    default = Ensemble(synthetic.build("MMoE", 100, "torch"), (5,)).parameters
    plain = Ensemble(partial(paper_model("MMoE"), 100, 2), (5,)).parameters
    assert all(torch.equal(default[name], plain[name]) for name in plain)


def test_a_model_that_lacks_part_of_a_sine_is_found_out() -> None:
    """Replace a trained model by the label's own formula with its sines scaled: the shares must come back."""
    shares = (1.0, 0.25, 0.0, 0.5)

    class Formula(torch.nn.Module):
        def __init__(self, generator: torch.Generator) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(shares))
            self.num_inputs = 100

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = x @ WEIGHTS[0]
            sines = [torch.sin(a * z + b) for a, b in zip(constants.alpha, constants.beta, strict=True)]
            signal = z + (torch.stack(sines, dim=-1) * self.scale).sum(dim=-1)
            return torch.stack([signal, signal], dim=-1)

    constants = task.CALIBRATED
    WEIGHTS = task.task_weights(0.5, seeded_generator(3, "directions")).float()
    ensemble = Ensemble(Formula, (3,))
    found, errors = synthetic.learned_label(ensemble, [_cell(seeds=(3,))])
    assert found.shape == (1, 4)
    assert found[0].tolist() == pytest.approx(shares, abs=1e-3)
    # the error at each place is the square of what is missing there
    edges = np.linspace(-3, 3, 25)
    for index in (0, 7, 12, 20):
        z = torch.linspace(edges[index], edges[index + 1], 500) * constants.c
        missing = sum(
            (1 - share) * torch.sin(a * z + b)
            for share, a, b in zip(shares, constants.alpha, constants.beta, strict=True)
        )
        assert float(errors[0, index]) == pytest.approx(
            float(torch.as_tensor(missing).square().mean()), abs=0.15
        )


def test_rows_of_the_parts_hold_the_loss_that_the_study_reports() -> None:
    cell = _cell()
    rows, study = synthetic.run_parts(cell), synthetic.run(cell)
    assert rows["loss_1"].tolist() == study["loss_1"].tolist()
    assert list(rows.filter(like="sine_")) == [f"sine_{i}" for i in range(1, 5)]
    assert list(rows.filter(like="error_")) == [f"error_{i}" for i in range(1, 25)]
    cells = synthetic.part_cells(PAPER, RATES)
    assert {(c.model, c.learning_rate, c.facts["steps"]) for c in cells} == {
        (model, 1e-3, PAPER.synthetic_steps) for model in synthetic.MODELS
    }


# --- the command -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_the_command_runs_lists_and_runs_again_without_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "synthetic",
        "--preset",
        "smoke",
        "--results",
        str(tmp_path),
        "--workers",
        "1",
        "--device",
        "cpu",
    ]
    assert main([*command, "--status"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "synthetic_tuning.csv: 0 of 27 runs, preset smoke"
    assert told[1] == "the other files are listed when tuning has chosen the settings"
    assert not list(tmp_path.iterdir())
    assert main(command) == 0
    assert main([*command, "--status"]) == 0
    told = capsys.readouterr().out.splitlines()[-8:]
    assert told == [
        "synthetic_tuning.csv: 27 of 27 runs, preset smoke",
        "synthetic.csv: 24 of 24 runs, preset smoke",
        "synthetic_parts.csv: 12 of 12 runs, preset smoke",
        "synthetic_labels.csv: 90 of 90 runs, preset smoke",
        "synthetic_choices.csv: 48 of 48 runs, preset smoke",
        "synthetic_slide.csv: 33 of 33 runs, preset smoke",
        "synthetic_controls.csv: 20 of 20 runs, preset smoke",
        "synthetic_noise.csv: 48 of 48 runs, preset smoke",
    ]
    files = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    assert set(files) == {
        "synthetic_tuning.csv",
        "synthetic.csv",
        "synthetic_parts.csv",
        "synthetic_labels.csv",
        "synthetic_choices.csv",
        "synthetic_slide.csv",
        "synthetic_controls.csv",
        "synthetic_noise.csv",
    }
    assert main(command) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == files
    assert main([*command, "--list"]) == 0
    assert "done   MMoE, p = 1, learning rate" in capsys.readouterr().out
    rows = read_rows(tmp_path / "synthetic.csv")
    assert set(rows["command"]) == {"python -m companion.study synthetic --preset smoke"}
    # the reported rate is the one that tuning found best
    chosen = synthetic.chosen_rates(read_rows(tmp_path / "synthetic_tuning.csv"))
    for (model, p), rate in chosen.items():
        same = rows[(rows["model"] == model) & (rows["task_correlation"] == p)]
        assert set(same["learning_rate"]) == {rate}


def test_bad_arguments_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--results", str(tmp_path)]
    assert main(["synthetic", "--workers", "0", *folder]) == 1
    assert main(["census", "--workers", "-1", *folder]) == 1
    assert main(["synthetic", "--device", "cuda:99", *folder]) == 1
    (tmp_path / "synthetic_tuning.csv").write_text("model,setting\nMMoE")
    assert main(["synthetic", "--status", *folder]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    for error, text in zip(
        errors, ("workers is 0", "workers is -1", "device is 'cuda:99'", "not a whole table"), strict=True
    ):
        assert text in error
