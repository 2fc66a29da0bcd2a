"""Read, normalise and write notebooks, so that the same content is the same bytes."""

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
KEPT_CELL_METADATA = ("tags", "mystnb")
COLAB_GPU = {"accelerator": "GPU", "colab": {"gpuType": "T4"}}
KEPT_NOTEBOOK_METADATA = ("mystnb",)
KEPT_OUTPUT_METADATA = ("scrapbook",)  # what `glue` needs

SOLUTION = "solution"
"""Tag of the cells that `with_solutions` appends."""
_SOLUTIONS = re.compile(r"<details>\s*<summary>Solution</summary>(.+?)</details>", re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.+?)^```", re.DOTALL | re.MULTILINE)


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook, in the format's newest minor version."""
    return nbformat.read(path, as_version=4)


def write_notebook(notebook: NotebookNode, path: Path) -> bool:
    """Write a notebook whole or not at all.

    Returns:
        Whether the file changed.
    """
    text = notebook_text(notebook)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
    return True


def notebook_text(notebook: NotebookNode) -> str:
    """The file's text: long texts as lists of lines, so that git shows changes by line."""
    lines: dict[str, Any] = json.loads(nbformat.writes(notebook, version=nbformat.NO_CONVERT))
    return json.dumps(lines, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell bears a tag."""
    return tag in cell.metadata.get("tags", [])


def with_solutions(notebook: NotebookNode) -> NotebookNode:
    """A copy that also runs the Python of its exercises' solutions, each a cell at the end, tagged by its number."""
    copied = copy.deepcopy(notebook)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for number, solution in enumerate(_SOLUTIONS.findall(prose), start=1):
        for code in _PYTHON.findall(solution):
            cell = nbformat.v4.new_code_cell(code.rstrip())
            cell.metadata["tags"] = [SOLUTION, f"exercise-{number}"]
            copied.cells.append(cell)
    return copied


def normalise(notebook: NotebookNode) -> None:
    """Take out, in place, all that differs from one run to the next.

    Cells are named by their position, code cells counted from 1, tags sorted, stream outputs that the kernel
    sent in pieces joined, and all metadata dropped but what Jupyter Book reads.
    """
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    kept = {key: notebook.metadata[key] for key in KEPT_NOTEBOOK_METADATA if key in notebook.metadata}
    # Colab gives a GPU to a notebook that asks for one: to those that use it where it is faster.
    uses_gpu = any(cell.cell_type == "code" and "faster_device(" in cell.source for cell in notebook.cells)
    notebook.metadata = nbformat.from_dict(
        {
            **kept,
            **(COLAB_GPU if uses_gpu else {}),
            "kernelspec": KERNEL,
            "language_info": {"name": "python"},
        }
    )
    count = 0
    for position, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{position:02d}"
        metadata = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        if "tags" in metadata:
            metadata["tags"] = sorted(set(metadata["tags"]))
        cell.metadata = nbformat.from_dict(metadata)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = _joined_streams(cell.outputs)
        for output in cell.outputs:
            if "metadata" in output:
                glued = {key: output.metadata[key] for key in KEPT_OUTPUT_METADATA if key in output.metadata}
                output.metadata = nbformat.from_dict(glued)
            if "execution_count" in output:
                output.execution_count = count
            output.pop("transient", None)


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if (
            last is not None
            and output.output_type == last.output_type == "stream"
            and output.name == last.name
        ):
            last.text += output.text
        else:
            joined.append(output)
    return joined
