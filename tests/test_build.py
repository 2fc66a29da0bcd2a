"""The build: what runs again, what a failure leaves behind, and that stored files are the same bytes."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest
import yaml
from _scripts import set_up as set_up_script
from _scripts.build import build
from _scripts.execute import Run as ChapterRun
from _scripts.execute import declared_parameters, execute_chapters, parameters_for, run_one
from _scripts.kernels import prepare_environment
from _scripts.layout import ROOT, Book, BookError
from _scripts.links import README_END, README_START, colab_cell, colab_link, readme_block, with_links
from _scripts.notebooks import normalise, notebook_text, read_notebook
from _scripts.outputs import refresh
from _scripts.pages import build_pages
from _scripts.settings import Settings, read_settings

ENVIRONMENT = {
    "PRESET": "smoke",
    "DEVICE": "cpu",
    "CENSUS_DATA": "simulated",
    "KUAIRAND_DATA": "simulated",
}
COLAB = ("colab", "# written by `make outputs`")
PARAMETERS = ("parameters", 'preset = "smoke"  # or more\ndevice = "auto"')


def make_book(root: Path, cells: Sequence[tuple[str, str]] = ()) -> Book:
    """A book of one page and one chapter; cells are pairs of a tag and a source, "" for no tag."""
    book = Book(root)
    (root / "mmoe_lib").mkdir(parents=True)
    (root / "mmoe_lib" / "__init__.py").write_text('"""A library."""\n', encoding="utf-8")
    book.source.mkdir()
    book.config_file.write_text((ROOT / "_config.yml").read_text(encoding="utf-8"), encoding="utf-8")
    (book.source / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nchapters:\n  - file: 01_chapter\n", encoding="utf-8"
    )
    (book.source / "index.md").write_text("# The book\n\n[Chapter](01_chapter.ipynb)\n", encoding="utf-8")
    (book.source / "references.bib").write_text("", encoding="utf-8")
    (book.source / "_vendor" / "mathjax").mkdir(parents=True)
    (book.source / "_vendor" / "mathjax" / "LICENSE").write_text("none\n", encoding="utf-8")
    # What `_config.yml` loads as extensions.
    shutil.copytree(
        ROOT / "book" / "_scripts", book.source / "_scripts", ignore=shutil.ignore_patterns("__pycache__")
    )
    (root / "README.md").write_text(f"# The book\n\n{README_START}\n{README_END}\n", encoding="utf-8")
    write_chapter(book, cells)
    return book


def write_chapter(book: Book, cells: Sequence[tuple[str, str]]) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A chapter")])
    for tag, source in cells:
        metadata = {"tags": [tag]} if tag else {}
        notebook.cells.append(nbformat.v4.new_code_cell(source, metadata=metadata))
    path = book.source / "01_chapter.ipynb"
    nbformat.write(notebook, path)
    return path


def run_of(book: Book, seconds: int | None = None) -> ChapterRun:
    chapter = book.source / "01_chapter.ipynb"
    return ChapterRun(chapter, book.executed / chapter.name, book.source, {}, seconds, book.failed)


# A chapter that fails


def test_failing_chapter_ends_the_build_with_one_line_and_no_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [PARAMETERS, ("", "first = 1"), ("", "print('so far')\nfirst / 0"), ("", "print('never')")]
    book = make_book(tmp_path, cells)
    book.html.mkdir(parents=True)
    (book.html / "index.html").write_text("pages of an earlier build", encoding="utf-8")

    assert build(book, {**ENVIRONMENT, "PRESET": "laptop"}) == 1

    # The build put a cell with preset = "laptop" in; the author's count does not know it.
    errors = capsys.readouterr().err
    assert errors == "error: 01_chapter.ipynb, cell 4 (In [3]): ZeroDivisionError: division by zero\n"
    assert not (book.executed / "01_chapter.ipynb").exists()
    half_run = (book.failed / "01_chapter.ipynb").read_text(encoding="utf-8")
    assert "so far" in half_run
    assert not book.html.exists()
    assert (book.earlier_html / "index.html").read_text(encoding="utf-8") == "pages of an earlier build"


SOLVED = """## Exercises

**1.** A word.

<details>
<summary>Solution</summary>

A word.

</details>

**2.** A number.

<details>
<summary>Solution</summary>

```python
{code}
```

</details>
"""


def make_solved(root: Path, code: str) -> Book:
    """A book whose chapter sets a number and has two exercises, the second of which is solved by this code."""
    book = make_book(root, [("", "number = 1")])
    path = book.source / "01_chapter.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell(SOLVED.format(code=code)))
    nbformat.write(notebook, path)
    return book


def test_solutions_of_exercises_are_run_and_not_shown(tmp_path: Path) -> None:
    book = make_solved(tmp_path, "from pathlib import Path\nPath('solved').write_text(str(number + 1))")
    _, line = run_one(run_of(book))
    assert line is None
    assert (book.source / "solved").read_text(encoding="utf-8") == "2"
    shown = nbformat.read(book.executed / "01_chapter.ipynb", as_version=4)
    assert [cell.source for cell in shown.cells if cell.cell_type == "code"] == ["number = 1"]


def test_a_solution_that_fails_is_named(tmp_path: Path) -> None:
    book = make_solved(tmp_path, "number / 0")
    _, line = run_one(run_of(book))
    assert line == "01_chapter.ipynb, solution of exercise 2: ZeroDivisionError: division by zero"
    assert not book.executed.exists()


def test_cell_that_takes_too_long_is_named(tmp_path: Path) -> None:
    book = make_book(tmp_path, [("", "import time"), ("", "time.sleep(60)")])
    _, line = run_one(run_of(book, seconds=1))
    assert line == "01_chapter.ipynb, cell 3 (In [2]): CellTimeoutError: the cell took longer than 1 s"
    assert not book.executed.exists()


def test_kernel_that_dies_is_named(tmp_path: Path) -> None:
    book = make_book(tmp_path, [("", "import os, signal"), ("", "os.kill(os.getpid(), signal.SIGKILL)")])
    _, line = run_one(run_of(book))
    assert line is not None
    assert line.startswith("01_chapter.ipynb, cell 3 (In [2]): DeadKernelError: ")
    assert "\n" not in line
    assert not book.executed.exists()


# Settings


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"PRESET": "huge"}, "PRESET=huge is unknown: expected one of smoke, laptop, paper"),
        ({"DEVICE": "tpu"}, "DEVICE=tpu is unknown: expected auto, cpu, cuda or cuda:NUMBER"),
        ({"CENSUS_DATA": "fake"}, "CENSUS_DATA=fake is unknown: expected one of auto, real, simulated"),
        ({"KUAIRAND_DATA": "fake"}, "KUAIRAND_DATA=fake is unknown: expected one of auto, real, simulated"),
    ],
)
def test_unknown_setting_is_one_line_and_leaves_the_pages_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: dict[str, str], expected: str
) -> None:
    cells = [("parameters", 'preset = "smoke"\ndevice = "cpu"\ncensus_data = "simulated"'), ("", "1 / 0")]
    book = make_book(tmp_path, cells)
    book.html.mkdir(parents=True)
    assert build(book, {**ENVIRONMENT, **wrong}) == 1
    assert capsys.readouterr().err == f"error: {expected}\n"
    assert book.html.is_dir()
    assert not book.executed.exists()


def test_defaults_take_what_the_machine_has() -> None:
    both = read_settings({}, has_cuda=lambda: True, has_data=lambda name: True)
    assert both == Settings("smoke", "auto", "real", "real")
    one = read_settings({}, has_cuda=lambda: True, has_data=lambda name: name == "kuairand_data")
    assert one == Settings("smoke", "auto", "simulated", "real")
    neither = read_settings({"PRESET": ""}, has_cuda=lambda: False, has_data=lambda name: False)
    assert neither == Settings("smoke", "auto", "simulated", "simulated")
    assert not neither.may_take_gpu
    unasked = read_settings({"DEVICE": "cpu"}, has_data=lambda name: pytest.fail("looked"), asked=())
    assert unasked.census_data == unasked.kuairand_data == "simulated"


def test_asking_for_what_is_not_there_is_an_error() -> None:
    with pytest.raises(BookError, match="torch sees no CUDA device"):
        read_settings({"DEVICE": "cuda"}, has_cuda=lambda: False, has_data=lambda name: False)
    with pytest.raises(BookError, match="point MMOE_DATA at a folder"):
        read_settings({**ENVIRONMENT, "CENSUS_DATA": "real"}, has_data=lambda name: False)
    with pytest.raises(BookError, match="KUAIRAND_DATA=real, but the files"):
        read_settings({**ENVIRONMENT, "KUAIRAND_DATA": "real"}, has_data=lambda name: False)


def test_wrong_data_folder_is_an_error_and_no_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMOE_DATA", "/no/such/folder")
    with pytest.raises(BookError, match="/no/such/folder"):
        read_settings({"DEVICE": "cpu"})


def test_chapter_gets_the_parameters_that_it_declares_and_that_differ(tmp_path: Path) -> None:
    book = make_book(tmp_path, [PARAMETERS])
    chapter = book.source / "01_chapter.ipynb"
    assert parameters_for(chapter, Settings()) == {}
    assert parameters_for(chapter, Settings("paper", "cuda", "real")) == {"preset": "paper", "device": "cuda"}
    write_chapter(book, [("parameters", "preset = str(1)")])
    with pytest.raises(BookError, match="may only assign literals"):
        declared_parameters(chapter)


# What runs again


def test_chapter_runs_again_only_when_something_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = 'import os\nwith open("runs", "a") as file:\n    file.write("x")\nprint(preset, os.environ["TQDM_DISABLE"])'
    book = make_book(tmp_path, [PARAMETERS, ("", source)])
    copy = book.executed / "01_chapter.ipynb"

    def runs_after(settings: Settings) -> int:
        execute_chapters(book, settings)
        return len((book.source / "runs").read_text(encoding="utf-8"))

    assert runs_after(Settings()) == 1
    first = copy.read_bytes()
    assert runs_after(Settings()) == 1
    assert "up to date" in capsys.readouterr().out

    (book.root / "mmoe_lib" / "new.py").write_text("new = 1\n", encoding="utf-8")
    assert runs_after(Settings()) == 2
    assert copy.read_bytes() == first, "the same content must be the same bytes"

    assert runs_after(Settings(preset="laptop")) == 3
    cells = read_notebook(copy).cells
    assert [cell.source for cell in cells[2:3]] == ['# Set when this page was built:\npreset = "laptop"']
    assert cells[3].outputs[0].text == "laptop 1\n"

    (book.root / "data" / "results").mkdir(parents=True)
    (book.root / "data" / "results" / "study.csv").write_text("loss\n1\n", encoding="utf-8")
    assert runs_after(Settings(preset="laptop")) == 4

    (book.source / "companion").mkdir()
    (book.source / "companion" / "new.py").write_text("new = 1\n", encoding="utf-8")
    assert runs_after(Settings(preset="laptop")) == 5


# Stored outputs


def test_normalised_notebooks_are_the_same_bytes() -> None:
    def one_run(time: str, pieces: Sequence[str], count: int) -> str:
        outputs = [nbformat.v4.new_output("stream", name="stdout", text=piece) for piece in pieces]
        cell = nbformat.v4.new_code_cell("print('a')\nprint('b')", outputs=outputs, execution_count=count)
        cell.metadata = nbformat.from_dict(
            {"tags": ["b", "a"], "papermill": {"start_time": time}, "ExecuteTime": time}
        )
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"duration": time}})
        normalise(notebook)
        return notebook_text(notebook)

    text = one_run("12:00:01", ["a\n", "b\n"], count=7)
    assert text == one_run("13:30:00", ["a\nb\n"], count=9)
    cell = json.loads(text)["cells"][0]
    assert (cell["id"], cell["execution_count"]) == ("cell-01", 1)
    assert cell["metadata"] == {"tags": ["a", "b"]}
    assert cell["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["a\n", "b\n"]}]


def test_make_outputs_writes_the_same_bytes_twice_and_nothing_after_a_failure(tmp_path: Path) -> None:
    book = make_book(
        tmp_path, [COLAB, PARAMETERS, ("", "import os\nprint(preset, os.path.basename(os.getcwd()))")]
    )
    chapter = book.source / "01_chapter.ipynb"

    refresh(book)
    stored, readme = chapter.read_bytes(), (book.root / "README.md").read_bytes()
    cells = read_notebook(chapter).cells
    assert cells[3].outputs[0].text == "smoke book\n"
    assert cells[1].source == colab_cell(book)
    assert colab_link(book, chapter) in readme.decode()
    refresh(book)
    assert (chapter.read_bytes(), (book.root / "README.md").read_bytes()) == (stored, readme)

    chapter.write_bytes(stored.replace(b"print(preset", b"print(missing"))
    broken = chapter.read_bytes()
    with pytest.raises(BookError, match=r"01_chapter\.ipynb, cell 4 \(In \[3\]\): NameError"):
        refresh(book)
    assert chapter.read_bytes() == broken


# Table of contents and pages


def test_missing_table_of_contents_or_page_is_said(tmp_path: Path) -> None:
    book = make_book(tmp_path)
    (book.source / "01_chapter.ipynb").unlink()
    with pytest.raises(BookError, match="names '01_chapter', but there is neither"):
        book.pages()
    (book.source / "_toc.yml").write_text("format: jb-book\n", encoding="utf-8")
    with pytest.raises(BookError, match="names no page"):
        book.pages()
    (book.source / "_toc.yml").unlink()
    with pytest.raises(BookError, match=r"_toc\.yml is missing"):
        book.pages()
    (book.source / "_toc.yml").write_text("root: index\n", encoding="utf-8")
    with pytest.raises(BookError, match="names no notebook"):
        book.notebooks()


def test_pages_are_built_whole_and_a_warning_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = make_book(tmp_path, [PARAMETERS, ("", "print('a printed line')")])
    assert build(book, ENVIRONMENT) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"open {(book.html / 'index.html').as_uri()}"
    page = (book.html / "01_chapter.html").read_text(encoding="utf-8")
    assert "a printed line" in page
    assert colab_link(book, book.source / "01_chapter.ipynb") in page
    # Scripts and styles come from the folder itself.
    assert not re.findall(r'<(?:script|link)[^>]*(?:src|href)="https?://[^"]*\.(?:js|css)', page)

    build_pages(book)
    assert "pages: up to date" in capsys.readouterr().out

    (book.root / "mmoe_lib" / "new.py").write_text(
        '"""A docstring is a part of the pages."""\n', encoding="utf-8"
    )
    build_pages(book)
    assert "pages: built" in capsys.readouterr().out

    (book.source / "index.md").write_text("# The book\n\n[Nowhere](missing.md)\n", encoding="utf-8")
    assert build(book, ENVIRONMENT) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("error: book/index.md:3: WARNING: ")
    assert errors[-1] == "error: pages: Jupyter Book ended with 1 warnings, see _build/html.log"
    assert not book.html.exists()


# One address


def test_no_file_names_another_repository_than_config() -> None:
    """Every address that belongs to the book is made from the one in `_config.yml`."""
    book = Book()
    owner, name = book.repository_url.removeprefix("https://github.com/").split("/")
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    own = re.compile(
        rf"github\.com/([\w.-]+)/{re.escape(name)}\b|research\.google\.com/github/([\w.-]+/[\w.-]+)"
        rf"|github\.com/([\w.-]+/[\w.-]+)/actions|([\w-]+)\.github\.io/{re.escape(name)}\b"
    )
    seen = 0
    for file in tracked:
        path = ROOT / file
        if not path.is_file() or path.suffix not in {".md", ".ipynb", ".yml", ".toml", ".py", ".cff"}:
            continue
        if path.parts[-2] == "_scripts" or path == Path(__file__):
            continue  # they hold the patterns
        for match in own.finditer(path.read_text(encoding="utf-8")):
            found = next(group for group in match.groups() if group)
            assert found in (owner, owner.lower(), f"{owner}/{name}"), f"{file}: {match.group()}"
            seen += 1
    assert seen > 0


def test_readme_holds_the_links_of_the_chapters() -> None:
    book = Book()
    assert readme_block(book) in (ROOT / "README.md").read_text(encoding="utf-8"), "run `make outputs`"


def test_links_follow_the_address_in_config(tmp_path: Path) -> None:
    book = make_book(tmp_path)
    text = book.config_file.read_text(encoding="utf-8")
    book.config_file.write_text(
        text.replace(Book().repository_url, "https://github.com/Ann/Book"), encoding="utf-8"
    )
    readme = with_links(book, f"before\n{README_START}\nold\n{README_END}\nafter\n")
    assert "https://colab.research.google.com/github/Ann/Book/blob/main/book/01_chapter.ipynb" in readme
    assert "https://ann.github.io/Book/" in readme
    assert "old" not in readme
    assert 'address = "https://github.com/Ann/Book"\n    folder = "/content/Book"\n' in colab_cell(book)
    with pytest.raises(BookError, match="are missing"):
        with_links(book, "no markers")
    book.config_file.write_text("repository:\n  url: nowhere\n", encoding="utf-8")
    with pytest.raises(BookError, match=r"repository\.url is 'nowhere'"):
        _ = book.repository_url


# Set-up and automation


def test_missing_venv_module_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        SystemExit, match=r"^error: .*run `sudo apt install python3\.\d+-venv`, then make again$"
    ):
        set_up_script.set_up(tmp_path)
    assert list(tmp_path.iterdir()) == []


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", text, flags=re.MULTILINE))


def test_default_goal_of_make_is_help() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    for target in ("book", "test", "outputs", "clean"):
        assert f"make {target}" in done.stdout
        assert target in make_targets()


def workflows() -> list[Path]:
    return sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", workflows(), ids=lambda path: path.stem)
def test_workflow_calls_what_exists(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content[True], "`on:` is read as the boolean by YAML 1.1"
    assert content["permissions"] in ({}, {"contents": "read"}), "a job that needs more says so itself"
    commands = 0
    for job in content["jobs"].values():
        assert "timeout-minutes" in job
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
                if step["uses"].startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False
            for target in re.findall(
                r"^\s*(?:[A-Z_]+=\S+ )*make ([a-z]+)", step.get("run", ""), re.MULTILINE
            ):
                assert target in make_targets()
                commands += 1
            for file in re.findall(r"\b(?:book|tests|data)/[\w./-]+", step.get("run", "")):
                assert (ROOT / file).exists(), file
    assert commands or path.stem in {"colab", "versions", "nightly", "release"}


def test_the_workflows_are_these() -> None:
    assert {path.stem for path in workflows()} == {
        "tests",
        "gpu",
        "colab",
        "pages",
        "versions",
        "nightly",
        "release",
    }


def test_a_pinned_action_has_one_commit_and_names_its_release() -> None:
    pins: dict[str, set[str]] = {}
    for path in workflows():
        for action, pin in re.findall(r"uses: ([\w/-]+)@(.*)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[0-9a-f]{40} # v\d+\.\d+\.\d+", pin), f"{path.name}: {action}@{pin}"
            pins.setdefault(action, set()).add(pin)
    assert pins
    assert all(len(found) == 1 for found in pins.values()), pins


def test_own_check_runs_tests_and_book() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert re.findall(r"^make (\w+)$", text, flags=re.MULTILINE) == ["test", "book"]
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_kernels_find_data_that_were_named_relative_to_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"MMOE_DATA": "../files", "MPLBACKEND": "tkagg"}
    prepare_environment(environment)
    assert environment["MMOE_DATA"] == str(tmp_path.parent / "files")
    assert "MPLBACKEND" not in environment
