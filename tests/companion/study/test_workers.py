"""Cells side by side: the same file as one after another, and what is left when a process is killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from companion.study import Cell, Origin, run_cells
from companion.study.cells import CellsFailedError, append_rows, read_rows, waiting_cells
from companion.study.executors import Local
from companion.study.workers import ENVIRONMENT, fast_environment

ORIGIN = Origin("abc", "python -m companion.study test", "smoke", "cpu", "2", "synthetic")


@dataclass(frozen=True)
class Steps:
    steps: int


@dataclass(frozen=True)
class BatchSize:
    batch_size: int


CELLS = [Cell(model, "p = 1", 1e-3, (0, 1), Steps(10)) for model in ("slow", "MMoE", "OMoE", "Shared-Bottom")]


def results(cell: Cell[Any]) -> pd.DataFrame:
    """Rows that depend on the cell alone; the cell named slow ends last."""
    if cell.model == "slow":
        time.sleep(1.0)
    return pd.DataFrame({"seed": cell.seeds, "loss_1": [len(cell.model) + seed / 8 for seed in cell.seeds]})


def dies(cell: Cell[Any]) -> pd.DataFrame:
    if cell.model == "OMoE":
        time.sleep(1.0)  # the others are in the file by then
        os.kill(os.getpid(), signal.SIGKILL)
    return pd.DataFrame({"seed": cell.seeds, "loss_1": 0.5})


def slowly(folder: Path, cell: Cell[Any]) -> pd.DataFrame:
    (folder / cell.model).touch()
    time.sleep(0.5)
    return pd.DataFrame({"seed": cell.seeds, "loss_1": [len(cell.model) + seed / 8 for seed in cell.seeds]})


def sees_environment(cell: Cell[Any]) -> pd.DataFrame:
    right = all(os.environ.get(name) == value for name, value in ENVIRONMENT.items())
    return pd.DataFrame({"seed": cell.seeds, "right": right})


def _without_seconds(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="seconds")


def test_side_by_side_gives_the_same_file_as_one_after_another(tmp_path: Path) -> None:
    one = run_cells(CELLS, results, tmp_path / "one.csv", ORIGIN, progress=False)
    two = run_cells(CELLS, results, tmp_path / "two.csv", ORIGIN, executor=Local(2), progress=False)
    assert list(two["model"]) == [cell.model for cell in CELLS for _ in cell.seeds]  # not as they ended
    pd.testing.assert_frame_equal(_without_seconds(one), _without_seconds(two))


def test_a_worker_that_dies_is_named_and_what_ended_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    with pytest.raises(CellsFailedError, match=r"OMoE, p = 1, .* failed: its worker process died") as caught:
        run_cells(CELLS[1:], dies, path, ORIGIN, executor=Local(2), progress=False)
    assert "\n" not in str(caught.value)
    assert [cell.model for cell, _ in caught.value.failed] == ["OMoE"]
    assert set(read_rows(path)["model"]) == {"MMoE", "Shared-Bottom"}
    rows = run_cells(CELLS[1:], results, path, ORIGIN, executor=Local(2), progress=False)
    assert len(rows) == 6


def test_an_error_in_a_worker_reaches_the_caller(tmp_path: Path) -> None:
    with pytest.raises(CellsFailedError, match="No such file or directory"):
        run_cells(
            CELLS[:2],
            partial(slowly, tmp_path / "none"),
            tmp_path / "x.csv",
            ORIGIN,
            executor=Local(2),
            progress=False,
        )
    assert not (tmp_path / "x.csv").exists()


def test_workers_start_with_one_thread_and_keep_their_memory(tmp_path: Path) -> None:
    before = dict(os.environ)
    rows = run_cells(
        CELLS[1:3], sees_environment, tmp_path / "x.csv", ORIGIN, executor=Local(2), progress=False
    )
    assert rows["right"].all()
    assert dict(os.environ) == before
    with fast_environment():
        assert os.environ["OMP_NUM_THREADS"]
    assert dict(os.environ) == before


SCRIPT = """
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_workers import CELLS, ORIGIN, slowly
from companion.study import run_cells
from companion.study.executors import Local
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    run_cells(CELLS, partial(slowly, folder), folder / "study.csv", ORIGIN, executor=Local(int(sys.argv[3])), progress=False)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_it_resumes_to_the_same_file(tmp_path: Path, workers: int) -> None:
    """SIGKILL while the second half runs: finished cells are there, the rest is run again, no process is left."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path), str(workers)],
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    path = tmp_path / "study.csv"
    while not ((tmp_path / "OMoE").exists() and path.exists()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)  # the workers went with their parent
    kept = set(read_rows(path)["model"])
    assert 1 <= len(kept) < 4
    resumed = run_cells(CELLS, partial(slowly, tmp_path), path, ORIGIN, progress=False)
    whole = run_cells(CELLS, partial(slowly, tmp_path), tmp_path / "whole.csv", ORIGIN, progress=False)
    pd.testing.assert_frame_equal(_without_seconds(resumed), _without_seconds(whole))


def _alive(session: int) -> bool:
    """Whether a process of that session runs; one that ended and waits for its parent does not."""
    states = subprocess.run(
        ["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True, check=False
    )
    return any(not line.startswith("Z") for line in states.stdout.split())


def test_two_studies_fill_one_file_without_losing_rows(tmp_path: Path) -> None:
    processes = []
    for number in range(4):
        code = (
            "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
            "from test_workers import ORIGIN, results\nfrom companion.study.cells import Cell, NoChoices, run_cells\n"
            f"cells = [Cell('MMoE', f'{number} {{i}}', 1e-3, (0,), NoChoices()) for i in range(25)]\n"
            "run_cells(cells, results, Path(sys.argv[2]), ORIGIN, progress=False)\n"
        )
        command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "study.csv")]
        processes.append(subprocess.Popen(command))
    assert [process.wait() for process in processes] == [0] * 4
    assert len(read_rows(tmp_path / "study.csv")) == 100


def test_rows_of_another_setting_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    rows = run_cells(CELLS[1:2], results, path, ORIGIN, progress=False)
    before = path.read_bytes()
    longer = [Cell("MMoE", "p = 1", 1e-3, (0, 1), Steps(20))]
    with pytest.raises(
        ValueError, match=r"MMoE, p = 1 in study\.csv have steps \[10\], expected 20"
    ) as caught:
        run_cells(longer, results, path, ORIGIN, progress=False)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match=r"have batch_size \['nothing'\], expected 32"):
        waiting_cells([Cell("MMoE", "p = 1", 1e-3, (0,), BatchSize(32))], rows, "smoke")
    assert waiting_cells(CELLS, rows, "smoke") == [CELLS[0], *CELLS[2:]]
    assert waiting_cells(CELLS, rows, "laptop") == CELLS


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.csv"
    run_cells(CELLS[1:2], results, path, ORIGIN, progress=False)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run_cells(CELLS, results, path, ORIGIN, progress=False)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix != ".lock"] == ["study.csv"]


def test_a_run_without_a_number_stays_in_the_file(tmp_path: Path) -> None:
    """A diverged run has no loss; its row is written, read and counted all the same."""
    path = tmp_path / "study.csv"
    new = pd.DataFrame(
        {"model": "MMoE", "setting": "p = 1", "learning_rate": 1e-3, "seed": [0, 1], "preset": "smoke"}
    ).assign(loss_1=[0.5, float("nan")], diverged_step=[0, 7])
    append_rows(path, new)
    rows = read_rows(path)
    assert rows["loss_1"].isna().tolist() == [False, True]
    assert rows["diverged_step"].tolist() == [0, 7]
