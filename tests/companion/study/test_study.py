"""Studies: resumed where they stopped, never half-written, every row with its origin; the census study."""

import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from companion.study import Cell, Origin, run_cells
from companion.study import origin as origins
from companion.study.__main__ import main
from companion.study.cells import NoChoices, append_rows, read_rows
from companion.study.presets import PRESETS, preset

ORIGIN = Origin("abc", "python -m companion.study test", "smoke", "cpu", "2", "synthetic")
CELLS = [Cell(model, "income", 1e-3, (0, 1), NoChoices()) for model in ("MMoE", "OMoE", "Shared-Bottom")]


class Runner:
    """Gives rows that depend on the cell alone, and stops at the cell it is told to."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at, self.calls = dies_at, 0

    def __call__(self, cell: Cell[Any]) -> pd.DataFrame:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        return pd.DataFrame(
            {"seed": cell.seeds, "auc": [len(cell.model) / 100 + seed for seed in cell.seeds]}
        )


def _without_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="seconds")


def test_a_study_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = run_cells(CELLS, Runner(), tmp_path / "whole.csv", ORIGIN, progress=False)
    path = tmp_path / "stopped.csv"
    with pytest.raises(KeyboardInterrupt):
        run_cells(CELLS, Runner(dies_at=3), path, ORIGIN, progress=False)
    assert len(read_rows(path)) == 4
    again = Runner()
    resumed = run_cells(CELLS, again, path, ORIGIN, progress=False)
    assert again.calls == 1
    pd.testing.assert_frame_equal(_without_seconds(resumed), _without_seconds(whole))
    assert {entry.suffix for entry in tmp_path.iterdir()} <= {".csv", ".lock"}


def test_running_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    run_cells(CELLS, Runner(), path, ORIGIN, progress=False)
    before, again = path.read_bytes(), Runner()
    run_cells(CELLS, again, path, ORIGIN, progress=False)
    assert again.calls == 0
    assert path.read_bytes() == before


def test_another_preset_is_another_set_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    run_cells(CELLS, Runner(), path, ORIGIN, progress=False)
    other = Origin("abc", "c", "laptop", "cpu", "2", "synthetic")
    rows = run_cells(CELLS, Runner(), path, other, progress=False)
    assert rows.groupby("preset").size().to_dict() == {"smoke": 6, "laptop": 6}


def test_every_row_carries_its_origin(tmp_path: Path) -> None:
    run_cells(CELLS, Runner(), tmp_path / "study.csv", ORIGIN, progress=False)
    rows = pd.read_csv(tmp_path / "study.csv", dtype=str)
    for name, value in ORIGIN.columns().items():
        assert set(rows[name]) == {value}
    assert list(rows["seed"]) == ["0", "1"] * 3


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    run_cells(CELLS, Runner(), path, ORIGIN, progress=False)
    text = path.read_text()
    for cut in (text[:-1], text[:-30], "not,a,table\n1,2,3\n"):
        path.write_text(cut)
        with pytest.raises(ValueError, match=r"study\.csv is not a whole table"):
            run_cells(CELLS, Runner(), path, ORIGIN, progress=False)
        assert path.read_text() == cut  # left for the reader to look at


def test_columns_of_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    rows = run_cells(CELLS[:1], Runner(), path, ORIGIN, progress=False)
    with pytest.raises(ValueError, match="of another version"):
        append_rows(path, rows.assign(extra=1.0))
    with pytest.raises(ValueError, match="holds a comma"):
        append_rows(tmp_path / "new.csv", rows.assign(command="a, b"))
    assert not (tmp_path / "new.csv").exists()


def test_presets_are_named_and_ordered() -> None:
    assert preset("paper").synthetic_runs == 200
    assert preset("paper").census_seeds == 400
    assert preset("paper").label_correlation_trials == 100
    counts = [
        PRESETS[name].synthetic_runs * PRESETS[name].synthetic_steps for name in ("smoke", "laptop", "paper")
    ]
    assert counts == sorted(counts)
    with pytest.raises(ValueError, match="expected one of smoke, laptop, paper"):
        preset("huge")


def test_an_unknown_preset_or_device_ends_the_command_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["census", "--preset", "huge", "--results", str(tmp_path)]) == 1
    assert main(["census", "--device", "gpu", "--results", str(tmp_path)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "preset is 'huge'" in errors[0]
    assert "device is 'gpu'" in errors[1]
    assert list(tmp_path.iterdir()) == []


def test_a_change_of_either_package_makes_a_commit_inexact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        name = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *name, *arguments], cwd=tmp_path, check=True, capture_output=True)

    files = [tmp_path / name for name in ("mmoe_lib/a.py", "book/companion/b.py", "book/chapter.ipynb")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1\n", encoding="utf-8")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "all")
    monkeypatch.setattr(origins, "ROOT", tmp_path)

    def commit() -> str:
        return Origin.now("a command", "smoke", torch.device("cpu"), "synthetic").commit

    clean = commit()
    assert len(clean) == 12
    told = []
    for file in files:
        file.write_text("2\n", encoding="utf-8")
        told.append(commit())
        file.write_text("1\n", encoding="utf-8")
    assert told == [f"{clean}+", f"{clean}+", clean]  # a chapter computes no row
