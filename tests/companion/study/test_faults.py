"""What goes wrong costs no more than itself: cells, workers, files, folders, disks, and the user's Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_workers import CELLS, ORIGIN, results

from companion.checkout import ROOT
from companion.study import __main__ as command
from companion.study import census, kuairand, off_policy, rankers, synthetic, tuning
from companion.study.__main__ import main
from companion.study.cells import Cell, CellsFailedError, read_rows, run_cells
from companion.study.executors import Failed, Local
from companion.study.extensions import census as extension_census
from companion.study.extensions import gates, gradients, rare_labels, units
from companion.study.presets import PRESETS
from companion.study.search_space import METHODS

COMMAND = ["synthetic", "--preset", "smoke", "--workers", "1", "--device", "cpu", "--results"]
CENSUS = census.CensusSource(train_rows=3_000, test_rows=1_000, simulated=True)
KUAIRAND = kuairand.RankingSource(users=100, simulated=True)
TINY = replace(
    PRESETS["smoke"],
    extension_runs=2,
    extension_steps=20,
    extension_unit_runs=2,
    extension_census_runs=2,
    kuairand_epochs=1,
    kuairand_seeds=2,
    kuairand_chunk=2,
    rare_draws=2,
)


def raises(cell: Cell[Any]) -> pd.DataFrame:
    if cell.model == "MMoE":
        raise KeyError("what nobody\nthought of")
    return results(cell)


# --- cells and workers ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_that_raises_loses_only_itself(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "study.csv"
    for _ in range(2):  # again and again: nobody's finished rows are thrown away
        with pytest.raises(CellsFailedError) as caught:
            run_cells(CELLS, raises, path, ORIGIN, executor=Local(workers), progress=False)
        assert list(dict.fromkeys(read_rows(path)["model"])) == ["slow", "OMoE", "Shared-Bottom"]
    said = str(caught.value)
    assert said.startswith("study.csv: MMoE, p = 1, learning rate 0.001, seeds 0 to 1 failed: KeyError")
    assert "test_faults.py, line" in said
    assert "\n" not in said
    assert len(run_cells(CELLS, results, path, ORIGIN, progress=False)) == 8


def dies_once(folder: Path, cell: Cell[Any]) -> pd.DataFrame:
    if cell.model == "OMoE" and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return results(cell)


def test_a_cell_whose_worker_was_killed_is_tried_once_more(tmp_path: Path) -> None:
    rows = run_cells(
        CELLS[1:], partial(dies_once, tmp_path), tmp_path / "s.csv", ORIGIN, executor=Local(2), progress=False
    )
    assert list(dict.fromkeys(rows["model"])) == ["MMoE", "OMoE", "Shared-Bottom"]


def test_a_failure_is_a_value_among_the_results() -> None:
    def half(number: int) -> float:
        return 1 / number

    found = list(Local().results(half, [2, 0, 4]))
    assert found == [(2, 0.5), (0, Failed("division by zero")), (4, 0.25)]


@pytest.mark.usefixtures("small")
def test_the_command_goes_on_behind_a_failed_cell_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = synthetic.run

    def fails_once(cell: Cell[synthetic.Choices], device: str) -> pd.DataFrame:
        if cell.setting == "Glorot: p = 1" and cell.model == "OMoE":
            raise ValueError("this one does not work")
        return right(cell, device)

    monkeypatch.setattr(synthetic, "run", fails_once)
    assert main([*COMMAND, str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"rows go to {tmp_path}\n")
    errors = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert (
        errors
        == [
            "error: synthetic_choices.csv: OMoE, Glorot: p = 1, learning rate 0.01, seeds 0 to 0 failed: "
            "this one does not work",
            "error: the study is not done: synthetic_choices.csv: 1 runs wait",
        ]
        or "learning rate" in errors[0]
    )
    assert len(errors) == 2
    assert len(read_rows(tmp_path / "synthetic_choices.csv")) == 47
    assert len(read_rows(tmp_path / "synthetic_slide.csv")) == 33  # the part behind it
    monkeypatch.undo()


# --- every run of a cell diverges -------------------------------------------------------------------


def _first(cells: list[Any]) -> Any:
    return replace(next(cell for cell in cells if cell.model == "MMoE"), seeds=(0, 1))


def _synthetic() -> Any:
    return Cell("MMoE", "p = 0.5", 1e-3, (0, 1), synthetic.Choices(0.5, 20, 8))


def _kuairand(cells: Callable[..., list[Any]]) -> Any:
    chosen = {
        (method, optimiser): kuairand.Chosen(method, optimiser, 1e-3, 0.0)
        for method in (*METHODS, *rankers.METHODS)
        for optimiser in ("SGD", "Adam")
    }
    return _first([cell for cell in cells(TINY, chosen) if cell.setting == "Adam"])


def _rare(cells: Callable[..., list[Any]], *more: Any) -> Any:
    rates = {(model, share): 1e-3 for model in rare_labels.MODELS for share in rare_labels.SHARES}
    cell = _first(cells(TINY, "census", rates, *more))
    return replace(cell, choices=replace(cell.choices, share=0.1))


SOURCES = rare_labels.Sources(CENSUS, KUAIRAND)
WEIGHTS = {("MMoE", share): 1.0 for share in rare_labels.SHARES}
STUDIES: dict[str, tuple[Callable[[], Any], Callable[[Any], pd.DataFrame]]] = {
    "synthetic": (_synthetic, synthetic.run),
    "parts": (_synthetic, synthetic.run_parts),
    "gates": (lambda: _first(gates.reported_cells(TINY, dict.fromkeys(gates.COMPARED, 1e-3))), gates.run),
    "units": (lambda: _first(units.reported_cells(TINY, {"MMoE": 1e-3})), units.run),
    "census": (
        lambda: Cell("MMoE", "income", 1e-3, (0, 1), census.Choices("income", 1, "experts=2 units=4")),
        partial(census.run, source=CENSUS),
    ),
    "extensions on census": (
        lambda: _first(extension_census.tuning_cells(TINY)),
        partial(extension_census.run, source=CENSUS),
    ),
    "kuairand": (
        lambda: _kuairand(kuairand.reported_cells),
        partial(kuairand.run, source=KUAIRAND, device="cpu"),
    ),
    "off-policy": (
        lambda: _kuairand(off_policy.off_policy_cells),
        partial(off_policy.run_off_policy, source=KUAIRAND, device="cpu"),
    ),
    "rare labels": (
        lambda: _rare(rare_labels.reported_cells, WEIGHTS),
        partial(rare_labels.run, sources=SOURCES),
    ),
    "gradients": (lambda: _rare(gradients.watched_cells), partial(gradients.run, sources=SOURCES)),
}


COLUMNS: dict[str, tuple[str, ...]] = {
    "gates": gates.COLUMNS,
    "units": units.COLUMNS,
    "census": census.COLUMNS,
    "extensions on census": extension_census.COLUMNS,
    "kuairand": kuairand.COLUMNS,
    "off-policy": off_policy.COLUMNS,
    "rare labels": rare_labels.COLUMNS,
    "gradients": gradients.COLUMNS,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("study", STUDIES)
def test_a_cell_of_which_every_run_diverges_is_recorded(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows have the columns of any other, so they stand in the same file."""
    for module in (synthetic, gates):
        monkeypatch.setattr(module, "TEST_ROWS", 500)
    make, run = STUDIES[study]
    cell = make()
    usual, diverged = run(cell), run(replace(cell, learning_rate=1e30))
    assert [name for name in usual.columns if name != "compiled"] == [
        name for name in diverged.columns if name != "compiled"
    ]
    declared = ["seed", *COLUMNS[study]] if study in COLUMNS else list(usual.columns)
    assert [name for name in usual.columns if name != "compiled"] == [n for n in declared if n != "compiled"]
    assert diverged["seed"].tolist() == [0, 1]
    if "diverged_step" in diverged:
        assert (diverged["diverged_step"] > 0).all()
    scores = diverged.filter(regex="^(loss|test|validation|value|curve|sine)_")
    assert scores.shape[1] > 0
    assert scores.isna().all(axis=None)
    assert usual[scores.columns].notna().any(axis=None)


# --- files and folders ------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("seed", "abc", "seed is 'abc', expected a whole number of 0 or more"),
        ("seed", "", "seed is empty, expected a whole number of 0 or more"),
        ("seed", "0.5", "seed is '0.5', expected a whole number"),
        ("learning_rate", "fast", "learning_rate is 'fast', expected a number of 0 or more"),
        ("loss_1", "abc", "loss_1 is 'abc', expected a number of 0 or more"),
        ("loss_2", "-1", "loss_2 is '-1.0', expected a number of 0 or more"),
        ("steps", "ten", "steps is 'ten', expected a whole number of 0 or more"),
        ("gate_1_1", "7", "gate_1_1 is '7.0', expected a number from 0 to 1"),
        ("model", "", "model is empty, expected a text"),
        ("compiled", "perhaps", "compiled is 'perhaps', expected True or False"),
        ("chunk", "0", "chunk is '0', expected a whole number of 1 or more"),
    ],
)
def test_a_damaged_value_is_told_before_anything_is_trained(
    column: str,
    value: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also in the file of the last part, when the first waits."""
    path = tmp_path / "synthetic_slide.csv"
    cells = synthetic.slide_cells(PRESETS["smoke"])[:2]
    run_cells(cells, synthetic.run, path, ORIGIN, progress=False)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[2][lines[0].index(column)] = value
    path.write_text("".join(",".join(line) + "\n" for line in lines))
    before = path.read_bytes()
    monkeypatch.setattr(synthetic, "run", None)
    assert main([*COMMAND, str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert f"synthetic_slide.csv, line 3: {said}" in error
    assert "\n" not in error
    assert [entry.name for entry in tmp_path.glob("*.csv")] == [path.name]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("extensions_tasks.csv", "num_tasks"),  # a choice
        ("extensions_tasks.csv", "loss_worst"),  # a result
        ("extensions_tasks.csv", "torch_version"),
        ("extensions_tasks.csv", "seconds"),
        ("extensions_units.csv", "loss_2"),  # of a part whose cells the tuning is to choose
    ],
)
def test_a_missing_column_is_told_before_anything_is_trained(
    file: str,
    column: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stored = ROOT / "data" / "results" / file
    pd.read_csv(stored, dtype=str).drop(columns=column).to_csv(tmp_path / file, index=False)
    before = (tmp_path / file).read_bytes()
    monkeypatch.setattr(gates, "run", None)
    assert main(["extensions", *COMMAND[1:], str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert f"error: {file} has no {column}, expected a column of each: restore the file from git" in error
    assert "\n" not in error
    assert [entry.name for entry in tmp_path.glob("*.csv")] == [file]
    assert (tmp_path / file).read_bytes() == before


def test_bytes_that_are_no_text_are_told_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "synthetic.csv").write_bytes(b"model,\xff\xfe\n")
    assert main([*COMMAND, str(tmp_path)]) == 1
    assert "error: synthetic.csv is no text in UTF-8" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_rows_that_choose_nothing_are_told_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, str(tmp_path), "--shard", "1/1"]) == 0
    path = tmp_path / "synthetic_tuning.csv"
    rows = pd.read_csv(path)
    rows.assign(loss_1=np.nan).to_csv(path, index=False)
    capsys.readouterr()
    assert main([*COMMAND, str(tmp_path), "--status"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: synthetic_tuning.csv: Shared-Bottom, p = 0.5: runs diverged at every")
    rows.drop(columns="loss_1").to_csv(path, index=False)
    assert main([*COMMAND, str(tmp_path), "--status"]) == 1
    assert "synthetic_tuning.csv: has no 'loss_1'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_noticed_before_the_first_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(synthetic, "run", None)
    (tmp_path / "file").touch()
    for folder in ("/proc/x", str(tmp_path / "file")):
        assert main([*COMMAND, folder]) == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith(f"error: cannot write in {folder} (") or "Not a directory" in error
        assert "\n" not in error


def test_an_installed_copy_has_no_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert main(["synthetic", "--preset", "smoke", "--device", "cpu"]) == 1
    assert "is no checkout of the book" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- tuning -----------------------------------------------------------------------------------------

PAIR = tuning.Pair("Shared-Bottom", "income")
FEW = replace(PRESETS["smoke"], census_trials=2, census_tuning_runs=1, census_tuning_epochs=1)

TWO = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from pathlib import Path
from test_faults import CENSUS, FEW, PAIR, tuning
folder = Path(sys.argv[3])
if __name__ == "__main__":
    tuning.tune(PAIR, FEW, CENSUS, folder / "a.journal").to_csv(folder / sys.argv[4], index=False)
"""


def test_two_searches_of_one_pair_share_its_trials(tmp_path: Path) -> None:
    book = Path(command.__file__).resolve().parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(Path(__file__).parent), str(book), str(tmp_path), name],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one.csv", "two.csv")
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    one, two = (pd.read_csv(tmp_path / name) for name in ("one.csv", "two.csv"))
    pd.testing.assert_frame_equal(one, two)  # seconds too: they are the same trials
    assert len(one) == FEW.census_trials + len(tuning.FIXED_RATES)


def test_a_torn_journal_costs_its_last_line(tmp_path: Path) -> None:
    whole = tuning.tune(PAIR, FEW, CENSUS, tmp_path / "a.journal")
    text = (tmp_path / "a.journal").read_bytes()
    for cut in (7, len(text.splitlines(keepends=True)[-1]) + 700):
        torn = tmp_path / f"torn {cut}.journal"
        torn.write_bytes(text[:-cut])
        assert not torn.read_bytes().endswith(b"\n")
        again = tuning.tune(PAIR, FEW, CENSUS, torn)
        pd.testing.assert_frame_equal(whole.drop(columns="seconds"), again.drop(columns="seconds"))
        kept = (whole["seconds"] == again["seconds"]).sum()
        assert kept >= len(whole) - 2


def test_a_search_goes_on_from_every_line_of_its_journal(tmp_path: Path) -> None:
    """Stopped behind any of them, even between two that tell of one trial, it ends with the same trials."""
    whole = tuning.tune(PAIR, FEW, CENSUS, tmp_path / "whole.journal")
    lines = (tmp_path / "whole.journal").read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        journal = tmp_path / f"{kept}.journal"
        journal.write_bytes(b"".join(lines[:kept]))
        again = tuning.tune(PAIR, FEW, CENSUS, journal)
        pd.testing.assert_frame_equal(whole.drop(columns="seconds"), again.drop(columns="seconds"))


FULL = """
import resource, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from pathlib import Path
from test_faults import CENSUS, FEW, PAIR, main, tuning
from companion.study.plans import census
CENSUS.data(PAIR.group)  # before the disk is full
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
if sys.argv[5:]:
    census.source_of = lambda preset: CENSUS
    sys.exit(main(sys.argv[5:]))
tuning.tune(PAIR, FEW, CENSUS, Path(sys.argv[3]))
"""


def on_a_full_disk(journal: Path, room: int, *command_line: str) -> subprocess.CompletedProcess[str]:
    """A search, or a command, in a process whose files can have so many bytes: a write stops in its middle."""
    book = Path(command.__file__).resolve().parents[2]
    arguments = [str(Path(__file__).parent), str(book), str(journal), str(room), *command_line]
    return subprocess.run(
        [sys.executable, "-c", FULL, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there the size of files cannot be limited")
def test_a_full_disk_keeps_the_trials_of_the_journal(tmp_path: Path) -> None:
    whole = tuning.tune(PAIR, FEW, CENSUS, tmp_path / "whole.journal")
    lines = (tmp_path / "whole.journal").read_bytes().splitlines(keepends=True)
    journal, kept = tmp_path / "a.journal", len(lines) // 2
    before = b"".join(lines[:kept])
    journal.write_bytes(before)
    ended = on_a_full_disk(journal, len(before) + len(lines[kept]) // 2)
    assert ended.returncode == 1
    said = ended.stderr.splitlines()[-1]
    assert said == (
        "OSError: a.journal cannot be written (File too large), expected room for it: the trials that it holds are "
        "kept, make room and start again"
    )
    assert journal.read_bytes() == before  # the half of a line is taken away again
    again = tuning.tune(PAIR, FEW, CENSUS, journal)
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), again.drop(columns="seconds"))
    assert again["seconds"][0] == whole["seconds"][0]  # told by the old lines, not trained anew


@pytest.mark.skipif(sys.platform == "win32", reason="there the size of files cannot be limited")
def test_a_full_disk_ends_the_search_with_one_line_and_exit_1(tmp_path: Path) -> None:
    options = ["census", "--preset", "smoke", "--device", "cpu", "--workers", "1", "--results", str(tmp_path)]
    ended = on_a_full_disk(tmp_path, 1_200, *options)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    told = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot be written (File too large), expected room for it" in told[0]
    assert not (tmp_path / "census_tuning.csv").exists()
    journals = list(tmp_path.rglob("*.journal"))
    assert len(journals) == len(tuning.PAIRS)
    assert all(0 < len(file.read_bytes()) <= 1_200 for file in journals)
    assert all(file.read_bytes().endswith(b"\n") for file in journals)


def test_damaged_settings_are_refused_before_they_are_trained() -> None:
    rows = pd.DataFrame(
        {
            "model": ["MMoE"],
            "setting": "income",
            "learning_rate": 0.1,
            "settings": "experts=4",
            "state": "complete",
            "validation_auc": 0.9,
            "epochs": 1,
        }
    )
    with pytest.raises(ValueError, match="settings of MMoE are experts, expected experts, units"):
        tuning.best_settings(rows)
    with pytest.raises(ValueError, match="no trial was trained to its end"):
        tuning.best_settings(rows.assign(validation_auc=np.nan))


# --- the user ---------------------------------------------------------------------------------------

STOPPED = """
import sys, time
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from companion.study import synthetic
from companion.study.__main__ import main
from test_faults import wait_for_ever
synthetic.run = wait_for_ever
if __name__ == "__main__":
    sys.exit(main(["synthetic", "--preset", "smoke", "--device", "cpu", "--workers", sys.argv[4], "--results", sys.argv[3]]))
"""


def wait_for_ever(cell: Cell[Any], device: object) -> pd.DataFrame:
    if cell.seeds == (10_000, 10_001, 10_002, 10_003) and cell.model == "Shared-Bottom":
        Path(os.environ["STARTED"]).touch()
    time.sleep(60)
    return results(cell)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupt_ends_in_one_line(tmp_path: Path, workers: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(STOPPED)
    book = Path(command.__file__).resolve().parents[2]
    arguments = [str(Path(__file__).parent), str(book), str(tmp_path / "results"), workers]
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"TQDM_DISABLE": "1", "STARTED": str(tmp_path / "started")},
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "stopped: the rows of all cells that ended are kept, the same command goes on\n"
