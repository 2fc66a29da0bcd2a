"""`make status` on a book of two small chapters, and the tables that the status page shows."""

from pathlib import Path

import nbformat
import pandas as pd
import pytest
from _scripts.layout import Book, BookError
from _scripts.settings import Settings
from _scripts.status import COLUMNS, data_used, results_rows, time_chapters, write_row

from companion.results.status import (
    chapter_times,
    chapter_times_markdown,
    stored_results,
    stored_results_table,
)

PARAMETERS = 'preset = "smoke"\ndevice = "cpu"'


def small_book(root: Path, **chapters: list[str]) -> Book:
    """A book of an opening page and chapters, each the sources of its code cells after the parameters."""
    book = Book(root)
    book.source.mkdir(parents=True)
    (root / "data" / "results").mkdir(parents=True)
    names = "".join(f"\n  - file: {name}" for name in chapters)
    (book.source / "_toc.yml").write_text(f"format: jb-book\nroot: index\nchapters:{names}\n", "utf-8")
    (book.source / "index.md").write_text("# The book\n", encoding="utf-8")
    for name, sources in chapters.items():
        cells = [
            nbformat.v4.new_markdown_cell("# A chapter"),
            nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            *(nbformat.v4.new_code_cell(source) for source in sources),
        ]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), book.source / f"{name}.ipynb")
    return book


def row(**changes: str) -> dict[str, str]:
    return {
        **dict.fromkeys(COLUMNS, "-"),
        "chapter": "01_a.ipynb",
        "seconds": "10.0",
        "results_rows": "1200",
        "load_before": "0.10",
        "preset": "smoke",
        "device": "cpu",
        "data": "synthetic",
        **changes,
    }


def test_times_every_chapter_and_keeps_what_ran_when_one_fails(tmp_path: Path) -> None:
    book = small_book(tmp_path, **{"01_a": ["print(preset)"], "02_b": ["1 / 0"]})
    stored = (book.source / "01_a.ipynb").read_bytes()
    with pytest.raises(BookError) as failure:
        time_chapters(book, Settings(preset="laptop"))
    assert failure.value.lines() == ["02_b.ipynb, cell 3 (In [2]): ZeroDivisionError: division by zero"]
    times = chapter_times(tmp_path / "data" / "results")
    assert tuple(times.columns) == COLUMNS
    (found,) = times.to_dict("records")
    assert (found["chapter"], found["preset"], found["device"]) == ("01_a.ipynb", "laptop", "cpu")
    assert 0 < found["seconds"] < 120
    assert found["torch_version"]
    assert found["pandas_version"] == pd.__version__
    assert str(found["command"]).startswith("make status PRESET=laptop DEVICE=auto CENSUS_DATA=simulated")
    assert (book.source / "01_a.ipynb").read_bytes() == stored


def test_a_chapter_is_timed_again_in_its_own_row(tmp_path: Path) -> None:
    book = small_book(tmp_path, **{"01_a": ["pass"], "02_b": ["pass"]})
    path = tmp_path / "data" / "results" / "chapters.csv"
    write_row(path, row(seconds="9999.0", data="stored results"))
    write_row(path, row(chapter="02_b.ipynb", seconds="9999.0"))
    time_chapters(book, Settings(), ["01_a.ipynb"])
    seconds = chapter_times(path.parent).set_index("chapter")["seconds"]
    assert seconds["02_b.ipynb"] == 9999
    assert 0 < seconds["01_a.ipynb"] < 120


def test_a_row_replaces_only_that_of_its_preset_device_and_data(tmp_path: Path) -> None:
    path = tmp_path / "chapters.csv"
    others = (
        {"preset": "laptop"},
        {"device": "NVIDIA H100"},
        {"data": "census real"},
        {"chapter": "02_b.ipynb"},
    )
    for changes in ({}, *others):
        write_row(path, row(**changes))
    write_row(path, row(seconds="20.0"))
    times = chapter_times(tmp_path)
    assert len(times) == 1 + len(others)
    assert sorted(times["seconds"]) == [10] * len(others) + [20]
    assert list(times["chapter"]) == sorted(times["chapter"])


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "chapters.csv"
    path.write_text("chapter,seconds\n01_a.ipynb,3\n", encoding="utf-8")
    with pytest.raises(BookError, match="of another version, delete it and run `make status` again"):
        write_row(path, row())
    assert path.read_text(encoding="utf-8") == "chapter,seconds\n01_a.ipynb,3\n"


def test_an_unknown_chapter_runs_nothing(tmp_path: Path) -> None:
    book = small_book(tmp_path, **{"01_a": ["pass"]})
    with pytest.raises(BookError, match=r"09_z\.ipynb is no chapter: expected one of 01_a\.ipynb"):
        time_chapters(book, Settings(), ["01_a.ipynb", "09_z.ipynb"])
    assert chapter_times(tmp_path / "data" / "results").empty


def test_counts_the_stored_rows_that_a_chapter_reads(tmp_path: Path) -> None:
    code = 'a = read_results("synthetic", preset="paper")\nb = read_results(\n    "census_tuning")'
    book = small_book(tmp_path, **{"01_a": [code], "02_b": ["pass"], "03_c": ["rows = scorecard()"]})
    results = tmp_path / "data" / "results"
    (results / "synthetic.csv").write_text("seed\n1\n2\n3\n", encoding="utf-8")
    (results / "census_tuning.csv").write_text("seed\n1\n", encoding="utf-8")
    (results / "census.csv").write_text("seed\n1\n2\n", encoding="utf-8")
    counts = [results_rows(book, chapter) for chapter in book.notebooks()]
    assert counts == [3 + 1, 0, 3 + 2]


def test_says_what_a_chapter_computes_on(tmp_path: Path) -> None:
    book = small_book(
        tmp_path,
        **{"01_a": ["from mmoe_lib.tasks import synthetic"], "02_b": ["from companion.results import *"]},
    )
    settings = Settings(census_data="real")
    assert [data_used(chapter, settings) for chapter in book.notebooks()] == ["synthetic", "stored results"]
    notebooks = {notebook.stem: notebook for notebook in Book().notebooks()}
    assert data_used(notebooks["04_census"], settings) == "census real"
    assert data_used(notebooks["05_recommendation"], settings) == "kuairand simulated"


def test_page_has_a_row_a_chapter_with_both_devices(tmp_path: Path) -> None:
    path = tmp_path / "chapters.csv"
    write_row(path, row(python_version="3.11.7", torch_version="2.13.0+cpu", pandas_version="3.0.0"))
    write_row(path, row(device="NVIDIA H100", seconds="4.4"))
    write_row(path, row(preset="laptop", seconds="300.0"))
    lines = chapter_times_markdown(
        chapter_times(tmp_path), {"01_a.ipynb": "First", "02_b.ipynb": "Second"}
    ).splitlines()
    assert sorted(lines[2:]) == [
        "| [First](01_a.ipynb) | 10 | 4 | smoke | synthetic | 1,200 | 3.11.7, 2.13.0+cpu, 3.0.0 |",
        "| [First](01_a.ipynb) | 300 | not run | laptop | synthetic | 1,200 | -, -, - |",
        "| [Second](02_b.ipynb) | not run | not run | | | | |",
    ]
    nothing = chapter_times_markdown(chapter_times(tmp_path / "nowhere"), {"01_a.ipynb": "First"})
    assert nothing.splitlines()[2:] == ["| [First](01_a.ipynb) | not run | not run | | | | |"]


def test_every_results_file_is_listed_with_its_own_counts() -> None:
    files = stored_results()
    folder = Book().root / "data" / "results"
    assert list(files.index) == sorted(path.name for path in folder.glob("*.csv"))
    synthetic = pd.read_csv(folder / "synthetic.csv")
    assert files.loc["synthetic.csv", "rows"] == len(synthetic)
    assert files.loc["synthetic.csv", "runs a setting"] == "200"
    assert files.loc["synthetic.csv", "hours"] == pytest.approx(synthetic["seconds"].sum() / 3600)
    assert files["hours"].isna()["benchmark.csv"]
    assert files.loc["census_tuning.csv", "runs a setting"] == "a trial a row"
    table = stored_results_table(files)
    assert table.loc["benchmark.csv", "hours"] == ""
    assert not table.astype(str).apply(lambda column: column.str.contains(r"\d\.\d{3,}")).to_numpy().any()


def test_files_that_are_no_whole_study_are_listed_as_they_are(tmp_path: Path) -> None:
    origin = "commit,command,preset,device,torch_version,data,seconds"
    (tmp_path / "study.csv").write_text(
        f"model,setting,learning_rate,seed,{origin}\n"
        "A,s,0.1,0,12345e678901,c,paper,cpu,2,synthetic,36\n"
        "A,s,0.1,1,12345e678901+,c,paper,cpu,2,synthetic,36\n"
        "B,s,0.1,0,12345e678901,c,paper,cpu,2,synthetic,108\n",
        encoding="utf-8",
    )
    files = stored_results(tmp_path)
    assert files.loc["study.csv", "commits"] == "12345e678901, 12345e678901+"
    assert files.loc["study.csv", "runs a setting"] == "1 to 2"
    assert files.loc["study.csv", "hours"] == pytest.approx(0.05)
    with pytest.raises(FileNotFoundError, match="no CSV files of results"):
        stored_results(tmp_path / "empty")
