"""`make gpu`: parts in turn, within the time, left out when they have ended well, and a report of all of them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from _scripts import gpu
from _scripts.gpu import Part, main, parts, read_report, run_parts, run_python
from _scripts.layout import ROOT

WHERE = {"device": "a card", "torch_version": "2.11", "commit": "abc"}
PARTS = [Part("first", ("one",)), Part("second", ("two",), ("no_such_module",)), Part("third", ("three",))]


class Runner:
    """Says what it was asked to run; the outcome is set by hand."""

    def __init__(self, *outcomes: str) -> None:
        self.outcomes, self.commands, self.seconds = list(outcomes), [""], [0.0]

    def __call__(self, command: Sequence[str], seconds: float) -> tuple[str, str]:
        self.commands.append(*command)
        self.seconds.append(seconds)
        return self.outcomes.pop(0), f"{command[0]}, said\tso"


def test_every_part_has_a_row_and_what_ended_well_is_not_run_again(tmp_path: Path) -> None:
    report, runner = tmp_path / "gpu_report.csv", Runner("done", "failed")
    assert not run_parts(PARTS, report, WHERE, 100, runner)
    rows = read_report(report)
    assert [(row["part"], row["outcome"]) for row in rows.values()] == [
        ("first", "done"),
        ("second", "not run"),
        ("third", "failed"),
    ]
    assert rows["second"]["last_line"] == "needs no_such_module: pip install no_such_module"
    assert rows["first"]["last_line"] == "one; said so"
    assert rows["third"]["commit"] == "abc"
    again = Runner("done")
    run_parts(PARTS, report, WHERE, 100, again)
    assert again.commands[1:] == ["three"]
    other = Runner("done", "done")
    run_parts(PARTS, report, {**WHERE, "commit": "def"}, 100, other)
    assert other.commands[1:] == ["one", "three"]


def test_no_part_is_begun_when_the_time_is_over(tmp_path: Path) -> None:
    runner = Runner("done", "done")
    assert not run_parts(PARTS, tmp_path / "r.csv", WHERE, gpu.LEAST_SECONDS - 1, runner)
    assert runner.commands[1:] == []
    assert {row["last_line"] for row in read_report(tmp_path / "r.csv").values()} == {
        "no time was left: run `make gpu` again",
        "needs no_such_module: pip install no_such_module",
    }
    assert run_parts(PARTS[:1], tmp_path / "r.csv", WHERE, 100, runner)
    assert 99 < runner.seconds[-1] <= 100


def test_a_part_is_stopped_when_the_time_is_over() -> None:
    assert run_python(["-c", "import time; time.sleep(60)"], 1.0) == ("time over", "stopped after 1 s")
    assert run_python(["-c", "print('a'); print('b')"], 60) == ("done", "b")
    assert run_python(["-c", "raise SystemExit('no')"], 60) == ("failed", "no")
    outcome, line = run_python(["-c", "import companion, mmoe_lib; print(companion.__file__)"], 60)
    assert (outcome, Path(line)) == ("done", ROOT / "book" / "companion" / "__init__.py")


def test_every_part_runs_a_program_that_there_is() -> None:
    """Their command lines are read by the programs themselves."""
    for part in parts(Path("somewhere"), 10):
        _, module, *arguments = part.command
        if module.startswith("companion."):
            assert run_python(["-m", module, *arguments[:1], "--help"], 60)[0] == "done"
        for argument in arguments:
            if argument.startswith("book/"):
                assert (ROOT / argument).is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, so nothing is refused")
def test_without_a_gpu_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    shown = capsys.readouterr().err
    assert "sees no GPU, expected one: make gpu PYTHON=" in shown
    assert shown.count("\n") == 1
    assert main(["--minutes", "0"]) == 1
    assert capsys.readouterr().err == "error: minutes is 0, expected more than 0\n"
