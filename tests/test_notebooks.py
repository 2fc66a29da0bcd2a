"""The rules of the chapters, as far as they can be read off the files; nbval runs them."""

import copy
import itertools
import re
from pathlib import Path

import pytest
from _scripts.execute import declared_parameters
from _scripts.layout import Book
from _scripts.links import COLAB_TAG, colab_cell
from _scripts.notebooks import has_tag, normalise, notebook_text, read_notebook
from _scripts.settings import DATA_SETS
from nbformat import NotebookNode

BOOK = Book()
NOTEBOOKS = BOOK.notebooks()
CHAPTERS = BOOK.chapters()

# What the first cell holds, in this order.
OPENING = (
    (r"\A# \S", "a title"),
    (r"\n> \*\*In short\*\*\n>\n(?:> - .+\n){3}\n", "what is found, in three lines"),
    (r"\*\*The question\.?\*\*", "the question"),
    (
        r"\bSections? \d[\d., toand]* of the paper",
        "the section of the paper, as in `Section 3.2 of the paper`",
    ),
    (r"\*\*What you will learn\.?\*\*\s+(- .+\n?)+", "what you will learn, as a list"),
    (r"\*\*What you need\.?\*\*", "what you need"),
    (r"\bminutes?\b.* CPU\b", "the minutes it takes on a CPU"),
    (r"\bGPU\b", "the minutes it takes on a GPU, or that none is needed"),
)
# The last headings, in this order.
CLOSING = ("## What we found", "## What is left open", "## Exercises", "## Further reading")
EXERCISES = 3
SOLUTION = re.compile(r"<details>\s*<summary>Solution</summary>\s*\n\n(.+?)\n\n</details>", re.DOTALL)

PARAMETERS = {
    "preset": "smoke",
    "device": "auto",
    "census_data": "simulated",
    "kuairand_data": "simulated",
}
TAGS = {
    "colab",
    "parameters",
    "hide-input",
    "hide-output",
    "hide-cell",
    "remove-input",
    "remove-cell",
    "full-width",
}
# What differs from machine to machine or from run to run.
UNSTABLE = (
    (
        re.compile(r"(?<![\w:/.<])/(?:home|root|usr|tmp|Users|opt|content|mnt|var|private)/"),
        "an absolute path",
    ),
    (re.compile(re.escape(str(BOOK.root))), "the path of this checkout"),
    (re.compile(r"\b0x[0-9a-f]{6,}"), "a memory address"),
    (re.compile(r"\b\d{1,2}:\d{2}:\d{2}\b"), "a time of day"),
    (re.compile(r"\b(?:it/s|s/it)\b"), "a progress bar"),
)

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(output: NotebookNode) -> list[str]:
    """Every text of an output; pictures are none."""
    if output.output_type == "stream":
        return [output.text]
    return [str(text) for kind, text in output.get("data", {}).items() if not kind.startswith("image/png")]


def is_picture(cell: NotebookNode) -> bool:
    return any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))


@each_chapter
def test_opens_with_what_a_reader_asks_first(path: Path) -> None:
    text, position = read_notebook(path).cells[0].source, 0
    for pattern, what in OPENING:
        found = re.compile(pattern).search(text, position)
        assert found, (
            f"{path.name}: the first cell lacks {what} (/{pattern}/ after {text[:position][-40:]!r})"
        )
        position = found.start() + 1


@each_chapter
def test_closes_with_findings_exercises_and_reading(path: Path) -> None:
    prose = "\n".join(cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown")
    headings = [line.strip() for line in prose.splitlines() if line.startswith("## ")]
    assert tuple(headings[-len(CLOSING) :]) == CLOSING
    exercises = prose.split("## Exercises")[1].split("## Further reading")[0]
    assert len(SOLUTION.findall(exercises)) >= EXERCISES
    assert exercises.count("<details>") == exercises.count("</details>") == len(SOLUTION.findall(exercises))


@each_chapter
def test_declares_its_parameters_with_the_defaults_of_the_stored_outputs(path: Path) -> None:
    cells = [cell for cell in read_notebook(path).cells if has_tag(cell, "parameters")]
    assert len(cells) == 1
    declared = declared_parameters(path)
    assert {"preset", "device"} <= set(declared)
    assert declared == {name: PARAMETERS[name] for name in declared}


@each_notebook
def test_sets_up_colab_in_its_first_code_cell(path: Path) -> None:
    first, *others = code_cells(read_notebook(path))
    # The opening page hides the cell, a chapter shows it folded.
    assert first.metadata["tags"] == [COLAB_TAG, "hide-input" if path in CHAPTERS else "remove-cell"]
    assert first.source == colab_cell(BOOK), "run `make outputs`"
    assert not any(has_tag(cell, COLAB_TAG) or has_tag(cell, "remove-cell") for cell in others)


@each_notebook
def test_asks_colab_for_a_gpu_where_it_would_use_one(path: Path) -> None:
    notebook = read_notebook(path)
    uses = any("faster_device(" in cell.source for cell in code_cells(notebook))
    assert (notebook.metadata.get("accelerator") == "GPU") == uses
    assert ("gpuType" in notebook.metadata.get("colab", {})) == uses


@each_notebook
def test_is_stored_as_make_outputs_writes_it(path: Path) -> None:
    notebook = read_notebook(path)
    stored = copy.deepcopy(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "run `make outputs`"
    normalise(notebook)
    assert notebook_text(notebook) == path.read_text(encoding="utf-8"), "run `make outputs`"
    assert notebook == stored


@each_notebook
def test_every_output_is_compared(path: Path) -> None:
    for cell in code_cells(read_notebook(path)):
        assert set(cell.metadata.get("tags", [])) <= TAGS
        assert "NBVAL" not in cell.source


@each_notebook
def test_outputs_hold_no_error_and_nothing_of_one_run(path: Path) -> None:
    for cell in code_cells(read_notebook(path)):
        for output in cell.outputs:
            assert output.output_type != "error", f"{cell.id}: {output.get('ename')}"
            assert output.get("name") != "stderr", f"{cell.id} writes to stderr: {output.text}"
            for text in texts(output):
                for pattern, what in UNSTABLE:
                    assert not pattern.search(text), f"{cell.id} shows {what}: {text[:200]!r}"


@each_notebook
def test_every_figure_has_a_name_a_caption_and_a_text_for_those_who_do_not_see_it(path: Path) -> None:
    for cell in code_cells(read_notebook(path)):
        if is_picture(cell):
            shown = cell.metadata.get("mystnb", {})
            figure, image = shown.get("figure", {}), shown.get("image", {})
            assert figure.get("name", "").startswith("fig-"), cell.id
            assert len(figure.get("caption", "")) > 20, cell.id
            assert len(image.get("alt", "")) > 20, cell.id
            assert image["alt"] != figure["caption"], cell.id


def test_names_of_figures_are_unique_in_the_book() -> None:
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in code_cells(read_notebook(path))
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    "path",
    [path for path in CHAPTERS if set(DATA_SETS) & set(declared_parameters(path))],
    ids=lambda path: path.stem,
)
def test_figures_of_simulated_data_say_so(path: Path) -> None:
    """A picture's own title cannot be read here: so the call that draws it must pass on what the data are."""
    cells = code_cells(read_notebook(path))
    pictures = [number for number, cell in enumerate(cells) if is_picture(cell)]
    assert pictures
    for number in pictures:
        caption = cells[number].metadata["mystnb"]["figure"]["caption"]
        told = re.search(r"simulated=(simulated|True)|simulated", cells[number].source)
        assert told or "simulated" in caption or "data/results/" in caption, cells[number].id
    before = [text for cell in cells[: pictures[0]] for output in cell.outputs for text in texts(output)]
    assert any("simulated" in text for text in before), "no output above the first figure names the data"


@each_notebook
def test_headings_descend_one_level_at_a_time(path: Path) -> None:
    prose = [cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown"]
    without_code = re.sub(r"```.*?```", "", "\n".join(prose), flags=re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", without_code, flags=re.MULTILINE)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
