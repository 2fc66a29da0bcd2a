"""The scorecard: twelve verdicts from the stored runs, links that lead somewhere, commands that can be typed."""

import argparse
import importlib
import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from _scripts.layout import Book
from _scripts.notebooks import read_notebook

from companion.claims import (
    VERDICTS,
    Claim,
    ClaimRow,
    Comparison,
    commands_markdown,
    larger,
    scorecard,
    scorecard_markdown,
    short_scorecard_markdown,
    verdict_counts,
)
from companion.claims.scorecard import RESULTS
from companion.figures.scorecard import WORD_STYLES, word_bars
from companion.programs import program

BOOK = Book()
STORED = BOOK.root / "data" / "results"
PAGES = ("index.ipynb", "07_scorecard.ipynb", "08_decision.ipynb", "status.ipynb")
LONG_NUMBER = re.compile(r"\d\.\d{4,}")
LINK = re.compile(r"\]\(([^)#\s]+\.ipynb)(?:#([^)\s]+))?\)")

ROWS = scorecard()
AS_STORED = {row.claim.number: row for row in ROWS}


def changed(folder: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> dict[int, ClaimRow]:
    """The scorecard of the stored results with one file changed."""
    for results in RESULTS:
        shutil.copyfile(STORED / f"{results}.csv", folder / f"{results}.csv")
    change(pd.read_csv(folder / f"{name}.csv")).to_csv(folder / f"{name}.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        if name != "synthetic":  # their intervals take seconds, and their rows are as stored
            stored = [AS_STORED[number].claim for number in range(1, 8)]
            patch.setitem(scorecard.__globals__, "synthetic_claims", lambda *given: stored)
        return {row.claim.number: row for row in scorecard(folder)}


def verdicts(rows: dict[int, ClaimRow]) -> dict[int, str]:
    return {number: row.claim.verdict for number, row in rows.items()}


def test_has_one_row_for_each_of_the_twelve_claims() -> None:
    assert [row.claim.number for row in ROWS] == list(range(1, 13))
    assert {row.claim.verdict for row in ROWS} <= set(VERDICTS)
    assert sum(verdict_counts(ROWS).values()) == 12
    assert [row.data for row in ROWS] == ["synthetic"] * 8 + ["real"] * 3 + ["measured"]


def test_the_same_files_elsewhere_give_the_same_scorecard(tmp_path: Path) -> None:
    rows = changed(tmp_path, "synthetic", lambda rows: rows)
    assert scorecard_markdown(list(rows.values())) == scorecard_markdown(ROWS)


def test_swapped_models_flip_the_claims_that_compare_them(tmp_path: Path) -> None:
    names = {"Shared-Bottom": "MMoE", "MMoE": "Shared-Bottom"}
    rows = changed(tmp_path, "synthetic", lambda rows: rows.assign(model=rows["model"].replace(names)))
    before, after = AS_STORED[4].claim, rows[4].claim
    assert (before.verdict, after.verdict) == ("supported", "contradicted")
    assert before.headline_comparison.estimate == pytest.approx(-after.headline_comparison.estimate)
    assert (AS_STORED[5].claim.verdict, rows[5].claim.verdict) == ("supported", "contradicted")
    ratios = [row.claim.headline_comparison.estimate for row in (AS_STORED[5], rows[5])]
    assert ratios[0] == pytest.approx(1 / ratios[1])
    untouched = {1, 7, 8, 9, 10, 11, 12}
    # As text, since a NaN equals no other.
    assert {n: repr(rows[n].claim) for n in untouched} == {n: repr(AS_STORED[n].claim) for n in untouched}


def test_labels_that_do_not_rise_take_claim_8_down(tmp_path: Path) -> None:
    def lower(rows: pd.DataFrame) -> pd.DataFrame:
        factor = np.where(rows["weight_cosine"] == 1, 0.1, 1.0)
        return rows.assign(label_correlation=factor * rows["label_correlation"])

    rows = changed(tmp_path, "synthetic_labels", lower)
    assert (AS_STORED[8].claim.counts, AS_STORED[8].claim.verdict) == (
        "8 for, 0 against, 0 open",
        "holds by theorem",
    )
    # Rows that go against a theorem are wrong rows: then the theorem does not speak for them.
    assert (rows[8].claim.counts, rows[8].claim.verdict) == ("7 for, 1 against, 0 open", "supported")


def test_a_better_mmoe_on_real_data_supports_claims_9_and_10(tmp_path: Path) -> None:
    def as_in_the_paper(auc: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
        moved = {"MMoE": 0.2, "Shared-Bottom": -0.2, "L2-Constrained": -0.1, "Tensor-Factorization": -0.4}
        if auc != "test_main_auc":  # of Shared-Bottom and L2-Constrained the other is the better one
            moved |= {"Shared-Bottom": -0.1, "L2-Constrained": -0.2}

        def move(rows: pd.DataFrame) -> pd.DataFrame:
            # Runs all alike but for a little noise, so that only the order of the methods is left.
            noise = 1e-4 * np.random.default_rng(0).standard_normal(len(rows))
            for column in [name for name in rows.columns if name.startswith(auc)]:
                rows[column] = 0.8 + 0.25 * rows["model"].map(moved).fillna(0.0) + noise
            return rows

        return move

    assert changed(tmp_path, "census", as_in_the_paper("test_main_auc"))[9].claim.verdict == "supported"
    assert AS_STORED[9].claim.verdict == "contradicted"
    assert changed(tmp_path, "kuairand", as_in_the_paper("test_engagement_"))[10].claim.verdict == "supported"
    assert AS_STORED[10].claim.verdict == "open"


def test_swapped_gates_take_claim_11_down(tmp_path: Path) -> None:
    swap = {f"gate_{one}_{place}": f"gate_{3 - one}_{place}" for one in (1, 2) for place in range(1, 5)}
    rows = changed(tmp_path, "kuairand", lambda rows: rows.rename(columns=swap))
    stored, swapped = AS_STORED[11].claim.comparisons, rows[11].claim.comparisons
    for place in (1, 3):  # satisfaction's minus engagement's
        assert swapped[place].estimate == pytest.approx(-stored[place].estimate)
    assert not any(comparison.supports for comparison in swapped[1::2])
    assert repr(rows[10].claim) == repr(AS_STORED[10].claim)


def test_costs_as_the_paper_has_them_support_claim_12(tmp_path: Path) -> None:
    def doubled(rows: pd.DataFrame) -> pd.DataFrame:
        times = rows["model"].map({"MMoE": 1.0, "L2-Constrained": 2.0, "Cross-Stitch": 2.0}).fillna(1.0)
        ratios = [name for name in rows.columns if re.match(r"(compiled_)?ratio_", name)]
        base = rows.loc[rows["model"] == "Shared-Bottom", "multiply_adds"].iloc[0]
        return rows.assign(**dict.fromkeys(ratios, times), multiply_adds=times * base)

    assert changed(tmp_path, "benchmark_serving", doubled)[12].claim.verdict == "supported"
    assert AS_STORED[12].claim.verdict == "contradicted"


def test_rows_of_simulated_data_are_called_simulated(tmp_path: Path) -> None:
    rows = changed(tmp_path, "kuairand", lambda rows: rows.assign(data="simulated 34801 rows"))
    assert (rows[10].data, rows[11].data, rows[9].data) == ("simulated", "simulated", "real")
    assert "simulated" in scorecard_markdown([rows[10]])


def test_without_its_files_there_is_no_scorecard(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        scorecard(tmp_path)
    assert "\n" not in str(missing.value)
    with pytest.raises(ValueError, match="no rows of preset 'smoke': run its study first"):
        scorecard(preset="smoke")


def test_headlines_follow_their_rule() -> None:
    headline = {number: row.claim.headline_comparison for number, row in AS_STORED.items()}
    for number in (3, 4, 5, 9, 10, 12):
        assert {"MMoE", "Shared-Bottom"} <= set(re.findall(r"Shared-Bottom|MMoE", headline[number].what))
    for number in (1, 2, 3, 4, 5, 6, 7, 8):
        assert "0.5" in headline[number].what  # the least related tasks of its figure
    for number in (1, 2, 3):  # what depends on the correlation: the ends of the range
        assert "p = 1" in headline[number].what
    assert headline[8].paper == pytest.approx(0.0739 - 0.0546)
    assert headline[9].paper == pytest.approx(0.64)
    assert headline[10].what.startswith("SGD, AUC after 3/3")


def test_a_headline_is_one_of_the_comparisons() -> None:
    first, second = (Comparison(name, 0.1, 0.0, 0.2, larger("loss")) for name in "ab")
    assert Claim(1, "s", "t", (first, second), 5).headline_comparison == first
    assert Claim(1, "s", "t", (first, second), 5, headline="b").headline_comparison == second
    with pytest.raises(ValueError, match="headline 'c', expected one of its 2 comparisons"):
        Claim(1, "s", "t", (first, second), 5, headline="c")
    with pytest.raises(ValueError, match="one of its 0 comparisons"):
        Claim(1, "s", "t", (), 5)


def test_no_verdict_of_the_stored_runs_is_decided_by_one_run() -> None:
    for row in ROWS:
        if row.claim.verdict in ("supported", "contradicted"):
            assert not row.claim.headline_comparison.one_run_decides


def test_what_died_is_what_the_stored_rows_say() -> None:
    """Both tasks: a mixture and a Shared-Bottom died in the second alone."""
    rows = pd.read_csv(STORED / "synthetic.csv").query("preset == 'paper'")
    dead = rows[(rows["loss_1"] > 1) | (rows["loss_2"] > 1)]
    assert len(dead[dead["loss_1"] < 1]) == 2
    three = dead["model"].isin(["Shared-Bottom", "OMoE", "MMoE"]).sum()
    assert AS_STORED[4].claim.died == three
    assert f"died {three} of 1,800: " in AS_STORED[4].runs
    losses = rows[["loss_1", "loss_2"]].to_numpy().ravel()
    assert not ((losses > 0.5) & (losses < 1.5)).any()  # where the line is drawn makes no difference


def stored_commands() -> list[str]:
    """Every command that a stored row names and Python runs."""
    tables = (pd.read_csv(path) for path in sorted(STORED.glob("*.csv")))
    commands = {
        str(command) for table in tables for command in table.get("command", pd.Series(dtype=str)).unique()
    }
    return sorted(command for command in commands if command.startswith("python "))


def told_commands() -> list[str]:
    """Every command of the two packages that a reader is told to type, in the READMEs and the chapters."""
    texts = [BOOK.root / "README.md", BOOK.root / "data" / "README.md"]
    told = [file.read_text(encoding="utf-8") for file in texts]
    told += [
        cell.source
        for notebook in BOOK.notebooks()
        for cell in read_notebook(notebook).cells
        if cell.cell_type == "markdown"
    ]
    found = re.findall(r"python -m (?:companion|mmoe_lib)\.[^`#\n]+", "\n".join(told))
    return sorted({command.strip() for command in found})


@pytest.mark.parametrize("command", [*stored_commands(), *told_commands()])
def test_every_command_is_understood_by_its_program(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored rows keep the command they were made with; where its program has moved, the new one must take it."""

    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> None:
        parse(parser, arguments)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    module, arguments = program(command)
    found = importlib.util.find_spec(module)
    assert found is not None, f"there is no module {module}"
    runs = importlib.import_module(f"{module}.__main__" if found.submodule_search_locations else module)
    with pytest.raises(ParsedError):
        runs.main(arguments)


def test_no_text_tells_an_earlier_name() -> None:
    assert len(told_commands()) > 15
    for command in told_commands():
        assert program(command) == (command.split()[2], command.split()[3:]), command


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python -m mmoe_lib.study census --preset paper", "companion.study census --preset paper"),
        ("python -m mmoe_lib.benchmark", "companion.benchmarks training"),
        ("python -m mmoe_lib.benchmark census", "companion.benchmarks census"),
        ("python -m mmoe_lib.streaming_benchmark --rows 9", "companion.benchmarks streaming --rows 9"),
        ("python -m companion.study census", "companion.study census"),
    ],
)
def test_moved_programs_are_known_by_their_earlier_names(command: str, expected: str) -> None:
    module, arguments = program(command)
    assert " ".join([module, *arguments]) == expected
    for other in ("make status", "python script.py", "python -m"):
        with pytest.raises(ValueError, match="expected `python -m` and a module"):
            program(other)


def test_commands_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = changed(tmp_path, "kuairand", lambda rows: rows.assign(command="python -m mmoe_lib.other"))
    assert rows[10].commands == ("python -m mmoe_lib.other",)
    assert "`python -m mmoe_lib.other`" in commands_markdown([rows[10]])
    lines = commands_markdown(ROWS).splitlines()[2:]
    assert lines[0].startswith(
        "| 1, 2, 3, 4, 5, 6, 7 | `data/results/synthetic.csv` | `python -m mmoe_lib.study"
    )
    numbers = [int(number) for line in lines for number in line.split("|")[1].split(",")]
    assert sorted(numbers) == list(range(1, 13))


def anchors(notebook: str) -> set[str]:
    """What a link can point to in a notebook: its figures by name, its headings as GitHub makes anchors of them."""
    found = set()
    for cell in read_notebook(BOOK.source / notebook).cells:
        if "figure" in cell.metadata.get("mystnb", {}):
            found.add(cell.metadata["mystnb"]["figure"]["name"])
        if cell.cell_type == "markdown":
            for heading in re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE):
                found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found


def test_every_row_links_to_a_figure_of_a_page_of_the_book() -> None:
    pages = {page.name for page in BOOK.pages()}
    for row in ROWS:
        assert row.chapter in pages
        assert row.figure.startswith("fig-")
        assert row.figure in anchors(row.chapter), row.link


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_pages_lead_somewhere(page: str) -> None:
    names = {page.name for page in BOOK.pages()}
    texts = [cell.source for cell in read_notebook(BOOK.source / page).cells if cell.cell_type == "markdown"]
    for cell in read_notebook(BOOK.source / page).cells:
        for output in cell.get("outputs", []):
            texts.append(output.get("data", {}).get("text/markdown", ""))
    links = [link for text in texts for link in LINK.findall("".join(text))]
    assert links
    for notebook, anchor in links:
        assert notebook in names, notebook
        assert not anchor or anchor in anchors(notebook), f"{notebook}#{anchor}"


def test_text_is_short_and_fits_a_table() -> None:
    for text in (scorecard_markdown(ROWS), short_scorecard_markdown(ROWS)):
        lines = text.splitlines()
        assert len(lines) == 2 + 12
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
        assert not LONG_NUMBER.search(text)
        assert "nan" not in text


def test_bars_are_as_long_as_the_counts_and_say_the_verdict() -> None:
    figure = word_bars(ROWS, "A finding")
    (axes,) = figure.axes
    for word, container in zip(WORD_STYLES, axes.containers, strict=True):
        shares = [100 * row.claim.count(word) / len(row.claim.comparisons) for row in ROWS]
        assert [bar.get_width() for bar in container] == pytest.approx(shares)
    ends = [bar.get_x() + bar.get_width() for bar in axes.containers[-1]]
    assert ends == pytest.approx([100] * 12)
    assert [text.get_text() for text in axes.texts] == [
        f"{row.claim.verdict}; {row.claim.counts}" for row in ROWS
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"{row.claim.number}. {row.title}" for row in ROWS
    ]
    plt.close(figure)
    with pytest.raises(ValueError, match="no claims to draw"):
        word_bars([], "Nothing")
