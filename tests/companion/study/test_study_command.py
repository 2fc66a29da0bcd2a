"""The command line: one cell again, what waits in shares, folders that are joined, and rows of earlier versions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from companion.checkout import DATA
from companion.study import synthetic, universes
from companion.study.__main__ import main
from companion.study.cells import Cell, Shard, append_rows, chunks, read_rows, run_cells
from companion.study.columns import RUN_COLUMNS, check_columns
from companion.study.merging import merge
from companion.study.origin import Origin, processor
from companion.study.plans import STUDIES
from companion.study.presets import PRESETS

COMMAND = ["--preset", "smoke", "--workers", "1", "--device", "cpu"]
ORIGIN = Origin("abc", "python -m companion.study test", "smoke", "cpu", "2", "synthetic")
KEY = "MMoE, p = 0.3, learning rate 0.001, seeds 0 to 0"

pytestmark = pytest.mark.usefixtures("small")


_TRAINED: dict[str, bytes] = {}
"""Of the fixture below, trained once."""


@pytest.fixture
def slide(small: None, tmp_path: Path) -> Path:
    """A folder with the tuning done and the slide's file full; other files wait."""
    for file, cells in (
        ("synthetic_tuning.csv", synthetic.tuning_cells(PRESETS["smoke"])),
        ("synthetic_slide.csv", synthetic.slide_cells(PRESETS["smoke"])),
    ):
        if file not in _TRAINED:
            run_cells(cells, synthetic.run, tmp_path / file, ORIGIN, progress=False)
            _TRAINED[file] = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(_TRAINED[file])
    return tmp_path


def test_every_study_is_an_object_with_parts_in_order(tmp_path: Path) -> None:
    for name, study in STUDIES.items():
        assert study.name == name
        parts = study.parts(PRESETS["smoke"], tmp_path)
        for place, part in enumerate(parts):
            assert part.file.endswith(".csv")
            assert part.after is None or part.after in parts[:place]


# --- one cell ---------------------------------------------------------------------------------------


def test_one_cell_is_compared_and_nothing_is_written(slide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = slide / "synthetic_slide.csv"
    before = path.read_bytes()
    command = ["synthetic", *COMMAND, "--results", str(slide), "--cell", KEY, "--compare"]
    assert main(command) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"synthetic_slide.csv: {KEY}, stored by abc"
    assert told[1].split() == ["stored", "again", "largest", "difference"]
    assert told[-1].startswith("largest difference: 0, ")
    stored = read_rows(path)
    here = (stored["model"] == "MMoE") & (stored["setting"] == "p = 0.3")
    stored.loc[here, "loss_2"] += 0.25
    append_rows(path, stored)
    before = path.read_bytes()
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "largest difference: 0.25, loss_2 of seed 0"
    assert path.read_bytes() == before


def test_one_cell_is_run_again_and_its_rows_are_replaced(
    slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = slide / "synthetic_slide.csv"
    before = read_rows(path)
    command = ["synthetic", *COMMAND, "--results", str(slide), "--cell", f"synthetic_slide.csv: {KEY}"]
    assert main(command) == 0
    after = read_rows(path)
    again = after["commit"] != "abc"
    assert again.sum() == 1
    assert after.loc[again, ["model", "setting"]].to_numpy().tolist() == [["MMoE", "p = 0.3"]]
    numbers = before.select_dtypes("number").columns.drop("seconds")
    pd.testing.assert_frame_equal(before[numbers], after[numbers])  # in the same order, too
    assert "has been run again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cell", "MMoE"], "cell is 'MMoE', which there is not: see python -m companion.study synthetic"),
        (["--compare"], "--compare is asked for without --cell"),
        (["--cell", "MMoE, p = 0.5, learning rate 0.001, seeds 0 to 0"], "put the file in front"),
        (["--shard", "3/2"], "shard is '3/2', expected two numbers such as 1/4"),
        (["--shard", "half"], "shard is 'half', expected"),
        (["--compare", "--cell", "-, cosine = 0.4, learning rate 0, seeds 0 to 9"], "nothing to compare"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], said: str, slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_rows(slide / "synthetic_tuning.csv")
    best = rows.assign(loss_1=rows["learning_rate"].map({1e-4: 0.5, 1e-3: 0.1, 1e-2: 0.5}))
    append_rows(slide / "synthetic_tuning.csv", best)
    assert main(["synthetic", *COMMAND, "--results", str(slide), *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error


# --- shares of what waits, and folders that are joined ----------------------------------------------


def test_shards_are_equal_parts_of_what_waits() -> None:
    cells = [Cell("MMoE", "p = 1", 1e-3, seeds, synthetic.Choices(1.0, 10, 4)) for seeds in chunks(10, 1)]
    parts = [Shard(index, 3).of(cells) for index in (1, 2, 3)]
    assert sorted(len(part) for part in parts) == [3, 3, 4]
    assert sorted(cell.seeds for part in parts for cell in part) == sorted(cell.seeds for cell in cells)


def test_shards_and_merge_give_what_one_machine_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, few in (("CORRELATIONS", (0.5, 1.0)), ("LEARNING_RATES", (1e-3,)), ("SLIDE", (0.0,))):
        monkeypatch.setattr(synthetic, name, few)
    monkeypatch.setattr(synthetic, "choice_cells", lambda *_: [])
    for name in ("calibrated_control_cells", "noise_cells"):  # parts like the others
        monkeypatch.setattr(universes, name, lambda *_: [])
    whole, first, second, joined = (tmp_path / name for name in ("whole", "first", "second", "joined"))
    assert main(["synthetic", *COMMAND, "--results", str(whole)]) == 0
    for _ in range(2):  # tuning, then what waits for it
        for folder, shard in ((first, "1/2"), (second, "2/2")):
            assert main(["synthetic", *COMMAND, "--results", str(folder), "--shard", shard]) == 0
        told = capsys.readouterr().out
        assert "shard 1/2 is done; left for the others: " in told
        assert main(["merge", str(first), str(second), "--results", str(joined)]) == 0
        for folder in (first, second):
            assert main(["merge", str(joined), "--results", str(folder)]) == 0
    assert main(["synthetic", *COMMAND, "--results", str(joined)]) == 0  # nothing is left
    for path in whole.glob("*.csv"):
        rows, others = read_rows(path), read_rows(joined / path.name)
        pd.testing.assert_frame_equal(rows.drop(columns="seconds"), others.drop(columns="seconds"))


def test_contradictions_are_refused_and_nothing_is_written(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, target = tmp_path / "other", tmp_path / "target"
    rows = read_rows(slide / "synthetic_slide.csv")
    append_rows(other / "synthetic_slide.csv", rows.assign(commit="def", device="some GPU"))
    assert merge(STUDIES, [slide, other], target) == {"synthetic_tuning.csv": 27, "synthetic_slide.csv": 33}
    # Files that no folder has stay as they are, to the byte: rows of an earlier version are not written anew.
    (target / "synthetic_labels.csv").write_text("left,alone\n1,2\n")
    merge(STUDIES, [slide], target)
    assert (target / "synthetic_labels.csv").read_text() == "left,alone\n1,2\n"
    assert set(read_rows(target / "synthetic_slide.csv")["commit"]) == {"abc"}  # the first has it

    wrong = rows.assign(loss_1=rows["loss_1"] + (rows.index == 5))
    append_rows(other / "synthetic_slide.csv", wrong)
    longer = tmp_path / "longer"
    append_rows(longer / "synthetic_slide.csv", rows.assign(steps=11, seed=7))
    narrow = tmp_path / "narrow"
    append_rows(narrow / "synthetic_slide.csv", rows.drop(columns="loss_2"))
    nowhere = tmp_path / "nowhere"
    for folder, said in (
        (other, r"synthetic_slide.csv: MMoE, p = 0.1, seed 0 has loss_1 "),
        (narrow, "has other columns in"),
        (nowhere, "there is no folder"),
    ):
        assert main(["merge", str(slide), str(folder), "--results", str(tmp_path / "new")]) == 1
        error = capsys.readouterr().err.strip()
        assert said in error
        assert "\n" not in error
        assert not (tmp_path / "new").exists()
    assert main(["merge", "--results", str(target)]) == 1
    assert "merge has no folders" in capsys.readouterr().err
    assert main(["synthetic", "folder", "--results", str(target)]) == 1
    assert "only merge has folders" in capsys.readouterr().err


# --- columns of how a run was trained ---------------------------------------------------------------


def test_new_rows_say_how_they_were_trained(slide: Path) -> None:
    rows = read_rows(slide / "synthetic_slide.csv")
    assert set(rows["chunk"]) == {1}
    assert set(rows["compiled"]) == {False}
    assert set(rows["device_model"]) == {processor()}
    assert list(rows.columns[-4:]) == [*RUN_COLUMNS, "seconds"]


def test_rows_of_before_are_read_kept_and_added_to(slide: Path) -> None:
    """A file of before has none of the columns: it stays as it is until a row is added, and is empty there then."""
    path = slide / "synthetic_slide.csv"
    old = pd.read_csv(path).drop(columns=list(RUN_COLUMNS)).iloc[:-1]
    old.to_csv(path, index=False)
    before = path.read_text()
    cells = synthetic.slide_cells(PRESETS["smoke"])
    assert read_rows(path)[list(RUN_COLUMNS)].isna().all(axis=None)
    run_cells(cells[:-1], synthetic.run, path, ORIGIN, progress=False)
    assert path.read_text() == before
    run_cells(cells, synthetic.run, path, ORIGIN, progress=False)
    rows = read_rows(path)
    assert rows["chunk"].isna().tolist() == [True] * len(old) + [False]
    lines = path.read_text().splitlines()
    assert lines[0].endswith(",data,chunk,compiled,device_model,seconds")
    assert ",,,," in lines[1]
    for line, whole in zip(before.splitlines()[1:], lines[1:], strict=False):
        values, seconds = line.rsplit(",", 1)
        assert whole == f"{values},,,,{seconds}"


def test_every_stored_file_passes_the_check_of_its_columns() -> None:
    files = [path for path in sorted((DATA / "results").glob("*.csv")) if "seed," in path.read_text()]
    assert len(files) > 25
    for path in files:
        check_columns(pd.read_csv(path), path.name)


def test_a_part_names_the_columns_of_its_stored_file() -> None:
    named = 0
    for study in STUDIES.values():
        for part in study.parts(PRESETS["paper"], DATA / "results"):
            path = DATA / "results" / part.file
            if not (part.columns and path.exists()):
                continue
            header = path.read_text().split("\n", 1)[0].split(",")
            assert tuple(header[header.index("seed") + 1 : header.index("commit")]) == part.columns, part.file
            named += 1
    assert named > 20
