"""The README's code runs as it is printed, and its numbers, picture and citations are those of the tree."""

import doctest
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from _scripts.layout import Book, BookError
from _scripts.summary import (
    draw_picture,
    panels_sum,
    picture_file,
    picture_panels,
    picture_sum,
    results_block,
    with_results,
)

from companion.claims import ClaimRow, scorecard
from companion.study.presets import preset
from mmoe_lib.models import SharedBottom

README = Path(__file__).parents[1] / "README.md"
LIBRARY = README.parent / "book" / "library.md"
MOST_LINES = 120


@pytest.fixture(scope="module")
def rows() -> tuple[ClaimRow, ...]:
    return scorecard()


def test_the_lines_for_a_frame_of_ones_own_print_what_stands_below_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # they save a file
    done = doctest.testfile(str(README), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (done.failed, done.attempted) == (0, 10)


def test_the_table_of_claims_is_that_of_the_stored_results(rows: tuple[ClaimRow, ...]) -> None:
    text = README.read_text(encoding="utf-8")
    assert results_block(rows) in text, "run `make outputs`"
    assert with_results(text, rows) == text
    changed = with_results(text, [replace(rows[0], title="Another")])
    assert "1. [Another](book/01_baseline.ipynb)" in changed
    assert "12. [" not in changed
    with pytest.raises(BookError, match="are missing"):
        with_results("no markers", rows)


def test_the_picture_is_drawn_from_the_stored_results(rows: tuple[ClaimRow, ...]) -> None:
    panels = picture_panels(rows)
    assert picture_sum(Book()) == panels_sum(panels), "run `make outputs`"
    file = picture_file(Book())
    assert file.stat().st_size < 100_000
    (shown,) = re.findall(r"^!\[.{40,}\]\((\S+)\)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert README.parent / shown == file
    # A number that moves by what can be seen makes another sum.
    (panel, settings), *_ = panels.items()
    name, comparison = next(iter(settings.items()))
    moved = {**panels, panel: {**settings, name: replace(comparison, estimate=comparison.estimate + 1e-3)}}
    assert panels_sum(moved) != panels_sum(panels)
    with pytest.raises(BookError, match="claim 4 does not compare"):
        picture_panels(rows[4:])


def test_files_that_it_links_to_are_there() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < MOST_LINES
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    of_the_hour = re.findall(r"`(mmoe_lib/\S+\.py)`", LIBRARY.read_text(encoding="utf-8"))
    assert len(of_the_hour) > 10
    for name in (*linked, *of_the_hour):
        assert (README.parent / name).is_file(), name


def test_the_picture_is_the_same_text_twice_and_names_its_sum(rows: tuple[ClaimRow, ...]) -> None:
    drawn = draw_picture(rows)
    assert drawn == draw_picture(rows)
    assert panels_sum(picture_panels(rows)) in drawn


def test_the_example_trains_and_gives_what_its_comments_say() -> None:
    (code,) = re.findall(r"```python\n(.+?)```", LIBRARY.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, LIBRARY.name, "exec"), names)
    logits, gates = names["logits"], names["gates"]
    assert isinstance(logits, torch.Tensor)
    assert isinstance(gates, torch.Tensor)
    assert logits.shape == (1000, 2)
    assert gates.shape == (1000, 2, 4)


def test_the_speeds_are_those_of_the_stored_benchmark() -> None:
    rows = pd.read_csv(README.parent / "data" / "results" / "benchmark.csv")
    rows = rows[(rows["model"] == "MMoE") & (rows["inputs"] != "fresh") | (rows["kind"] == "plain loop")]
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:5]]
        for line in LIBRARY.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and line.count("|") == 5
    }

    def shown(kind: str, column: str, text: str, **where: int) -> list[str]:
        chosen = rows[
            (rows["kind"] == kind)
            & (rows["model"] == "MMoE")
            & (rows["runs"] != 1 if kind != "plain loop" else True)
        ]
        for name, value in where.items():
            chosen = chosen[chosen[name] == value]
        return [text.format(value) for value in chosen.sort_values("batch")[column]]

    for name, kind, column, text, where in (
        ("plain loop, one thread", "plain loop", "per_second", "{:,.0f}", {"threads": 1}),
        ("plain loop, two threads", "plain loop", "per_second", "{:,.0f}", {"threads": 2}),
        ("many runs at once, one process", "ensemble", "per_second", "{:,.0f}", {"processes": 1}),
        ("… against the plain loop of one thread", "ensemble", "ratio", "{:.1f} x", {"processes": 1}),
        (
            "… share of torch's own matrix product (96 GFLOP/s)",
            "ensemble",
            "peak_share",
            "{:.2f}",
            {"processes": 1},
        ),
        ("many runs at once, two processes", "ensemble", "per_second", "{:,.0f}", {"processes": 2}),
        ("… against the plain loop of two threads", "ensemble", "user_ratio", "{:.1f} x", {"processes": 2}),
    ):
        assert lines[name] == shown(kind, column, text, **where), name


def test_the_worked_examples_of_contributing_run_and_are_short() -> None:
    text = README.with_name("CONTRIBUTING.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    assert len(examples) == 3
    made: dict[str, Any] = {}
    for code in examples:
        assert code.count("\n") < 60
        exec(compile(code, "CONTRIBUTING.md", "exec"), made)
    (part,) = made["MEANS"].parts(preset("smoke"), README.parent)
    cell = part.cells(pd.DataFrame())[0]
    rows = part.run(cell)
    assert list(rows["seed"]) == list(cell.seeds)
    assert {*rows.columns, *cell.facts} == {"seed", *part.columns}
    bottom = made["ScaledBottom"](5, 2, 8, generator=torch.Generator().manual_seed(0))
    same = SharedBottom(5, 2, (8,), generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(bottom(x), same(x))
