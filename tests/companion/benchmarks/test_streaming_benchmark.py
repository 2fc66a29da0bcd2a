"""The benchmark of streaming: its random log, that it measures and cleans up, and its memory numbers."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
import torch

from companion.benchmarks.__main__ import main
from companion.benchmarks.random_log import CHUNK, random_impressions, random_tables
from companion.benchmarks.streaming import Contender, measure, run, show
from mmoe_lib.tasks.kuairand.features import EXACT_IN_FLOAT32


def test_the_random_log_is_the_same_again_and_looks_like_the_real_one() -> None:
    features, rows = random_tables(), CHUNK + 10_000
    assert features.user_table.shape == (27_001, 31)
    assert features.video_table.shape == (7_502, 12)
    assert features.vocabulary < EXACT_IN_FLOAT32
    pieces, again = (list(random_impressions(features, rows, seed=3)) for _ in range(2))
    assert [len(piece) for piece in pieces] == [CHUNK, 10_000]
    for piece, same in zip(pieces, again, strict=True):
        for field in fields(piece):
            assert torch.equal(getattr(piece, field.name), getattr(same, field.name))
    assert not torch.equal(pieces[0].video[:1000], pieces[1].video[:1000])
    user = torch.cat([piece.user for piece in pieces])
    assert bool((user.diff() >= 0).all())
    assert (int(user[0]), int(user[-1])) == (0, 27_000)
    rates = torch.cat([piece.labels for piece in pieces]).float().mean(dim=0)
    torch.testing.assert_close(rates, torch.tensor([0.35, 0.02]), rtol=0, atol=0.003)
    x, y = features.rows(pieces[0], slice(100))
    ids = x[:, : len(features.sparse_names)]
    assert torch.equal(ids, ids.round())
    assert ids.min() >= 0
    assert ids.max() < features.vocabulary
    assert x.shape[1] == len(features.sparse_names) + len(features.dense_names)
    assert y.shape == (100, 2)


def test_it_measures_in_turns_and_leaves_no_files(tmp_path: Path) -> None:
    rows = run(2_000, 3, 2, 0.1, tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []
    assert rows["log"].tolist() == ["in memory", "streamed", "streamed"]
    assert rows["rows"].tolist() == [2_000, 2_000, 6_000]
    assert (rows["lowest"] <= rows["per_second"]).all()
    assert (rows["per_second"] <= rows["highest"]).all()
    assert (rows["lowest"] > 0).all()
    assert rows["ratio"][0] == 1
    assert rows["memory_mb"].between(100, 2_000).all()
    assert rows["disk_mb"][2] > rows["disk_mb"][1]
    assert "x in memory" in show(rows)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of the starting process is inherited on Linux")
def test_memory_is_that_of_the_process_and_not_of_the_one_that_started_it() -> None:
    """In an interpreter that has held 400 MB, a new one has not."""
    code = """
import subprocess, sys
from companion.benchmarks.measure import peak_memory
held = bytearray(b"1") * 400_000_000
child = "from companion.benchmarks.measure import peak_memory; print(peak_memory())"
print(peak_memory(), subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    parent, child = (int(number) for number in done.stdout.split())
    assert parent - child > 300e6


def test_a_missing_store_is_one_line_and_no_process_stays(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        measure([Contender("streamed", tmp_path / "nowhere")], 1, 0.1, progress=False)


def test_rows_are_saved_with_their_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    arguments = ["--rows", "2000", "--times", "2", "--rounds", "1", "--seconds", "0.05", "--csv", str(path)]
    assert main(["streaming", *arguments, "--folder", str(tmp_path)]) == 0
    rows = pd.read_csv(path)
    assert {"commit", "torch_version", "device", "memory_mb"} <= set(rows.columns)
    assert rows["command"][0] == "python -m companion.benchmarks streaming --rows 2000 --times 2"
    assert str(tmp_path) not in path.read_text()
    assert "in memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "1000"], "rows is 1000, expected 1024 or more"),
        (["--times", "0"], "times is 0"),
        (["--rounds", "0"], "rounds is 0"),
        (["--seconds", "0"], "seconds is 0.0"),
        (["--folder", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["streaming", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
