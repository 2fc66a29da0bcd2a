"""The studies on each device, on simulated data: a cell, a stack of cells, a study whole."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from companion.study import census, kuairand, synthetic
from companion.study.__main__ import main
from companion.study.cells import Cell
from companion.study.extensions import gates
from companion.study.presets import PRESETS
from mmoe_lib.models import MMoE
from mmoe_lib.training import Ensemble

pytestmark = pytest.mark.filterwarnings("error:.*training step failed:UserWarning")


def test_memory_that_is_full_ends_a_study_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmany more lines")

    monkeypatch.setattr(Ensemble, "gradients", full)
    arguments = [
        "synthetic",
        "--preset",
        "smoke",
        "--results",
        str(tmp_path),
        "--device",
        "cpu",
        "--workers",
        "1",
    ]
    assert main(arguments) == 1
    shown = capsys.readouterr().err.strip().splitlines()
    assert "and 26 more cells failed: 4 runs at once need more memory" in shown[-2]
    assert shown[-1].startswith("error: the study is not done: synthetic_tuning.csv: 108 runs wait;")


def test_the_synthetic_study_runs_whole(gpu: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["synthetic", "--preset", "smoke", "--results", str(tmp_path), "--device"]
    assert main([*arguments, gpu]) == 0
    shown = capsys.readouterr().out
    assert "synthetic_slide.csv: 132 runs" in shown
    rows = pd.read_csv(tmp_path / "synthetic.csv")
    assert set(rows["device"]) == {torch.cuda.get_device_name()}
    assert rows["loss_1"].between(0.01, 10).all()


def test_a_stack_of_cells_gives_each_cell_the_rows_that_it_has_alone(device: str) -> None:
    """They differ in p, constants, rate and seeds; on the CPU their numbers are the same, too."""
    base = synthetic.Choices(0.5, 60, 16, inputs="fresh")
    cells = [
        Cell("MMoE", "a", 1e-3, (0, 1, 2), base),
        Cell("MMoE", "b", 1e-2, (1, 7), replace(base, task_correlation=1.0, constants="m = 5")),
    ]
    together = synthetic.run_stack(cells, device)
    for cell, rows in zip(cells, together, strict=True):
        pd.testing.assert_frame_equal(rows, synthetic.run(cell, device), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("model", ["MMoE", "Gate dropout"])
def test_a_cell_of_the_extension_study_runs(model: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "TEST_ROWS", 500)
    small = replace(PRESETS["smoke"], extension_runs=2, extension_steps=40)
    cells = gates.reported_cells(small, dict.fromkeys(gates.COMPARED, 1e-3))
    rows = gates.run(next(cell for cell in cells if cell.model == model), device)
    assert rows["loss_1"].between(0.1, 10).all()


def test_a_cell_of_the_census_study_runs(device: str) -> None:
    source = census.CensusSource(train_rows=3_000, test_rows=2_000, simulated=True)
    data = source.data("income")
    builder = partial(MMoE, num_experts=4, expert_widths=(8,), tower_widths=(8,))
    ensemble, _ = census.train_runs(
        builder, data, range(2), learning_rate=1e-3, epochs=2, batch_size=256, device=device, progress=False
    )
    scores = census.score(ensemble, data)
    assert ((scores.drop(columns="seed") > 0.4) & (scores.drop(columns="seed") <= 1)).all(axis=None)


def test_a_cell_of_the_kuairand_study_runs(device: str) -> None:
    data = kuairand.RankingSource(users=200, simulated=True).data()
    choices = kuairand.Choices("Adam", 1, experts=4)
    ensemble, _ = kuairand.train_rankers(
        "MMoE", data, range(2), choices, learning_rate=1e-3, device=device, progress=False
    )
    answers = kuairand.probabilities(ensemble, data, data.test)
    assert bool(((answers > 0) & (answers < 1)).all())


def test_auto_leaves_the_smoke_preset_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """There is said to be a GPU, which is none: whoever takes it ends with an error."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = ["nearest", "--status", "--results", str(tmp_path), "--preset"]
    assert main([*asked, "smoke"]) == 0
    assert "universes_nearest_40.csv: 0 of" in capsys.readouterr().out
    if not torch.cuda.device_count():
        assert main([*asked, "laptop"]) == 1
        assert "device is 'cuda', expected one that this machine has" in capsys.readouterr().err
