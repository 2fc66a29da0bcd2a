"""`make outputs`: run every chapter with its own parameters and store the outputs in it; renew the README."""

import os
import sys
import tempfile
from pathlib import Path

from _scripts.execute import Run, run_all
from _scripts.layout import Book, BookError
from _scripts.links import set_colab_cell, with_links
from _scripts.notebooks import normalise, read_notebook, write_notebook
from _scripts.settings import Settings
from _scripts.summary import RESULTS_START, renew


def refresh(book: Book) -> None:
    """Rewrite stored outputs, Colab cells, the README's links, results and picture in place.

    The same bytes when nothing changed.

    All chapters run before any is written: a failing one leaves the whole tree as it was.

    Raises:
        BookError: a chapter failed; a line each.
    """
    chapters = book.notebooks()
    with tempfile.TemporaryDirectory() as folder:
        runs = [_prepared(book, chapter, Path(folder)) for chapter in chapters]
        failures = []
        for run, seconds, error in run_all(runs, os.cpu_count() or 1, book.build / "kernels.log"):
            if error is None:
                print(f"{run.chapter.name}: executed in {seconds:.0f} s", flush=True)
            else:
                failures.append(error)
        if failures:
            raise BookError(*failures)
        for chapter, run in zip(chapters, runs, strict=True):
            changed = write_notebook(read_notebook(run.target), chapter)
            print(f"{chapter.name}: {'outputs changed' if changed else 'unchanged'}", flush=True)
    readme = book.root / "README.md"
    renewed = with_links(book, readme.read_text(encoding="utf-8"))
    if renewed != readme.read_text(encoding="utf-8"):
        readme.write_text(renewed, encoding="utf-8")
        print("README.md: links changed", flush=True)
    if RESULTS_START in renewed:
        renew(book)


def _prepared(book: Book, chapter: Path, folder: Path) -> Run:
    notebook = read_notebook(chapter)
    set_colab_cell(book, notebook, chapter)
    normalise(notebook)
    prepared = folder / "prepared" / chapter.name
    write_notebook(notebook, prepared)
    return Run(prepared, folder / chapter.name, book.source, {}, Settings().seconds_a_cell, folder / "failed")


if __name__ == "__main__":
    try:
        refresh(Book())
    except BookError as failure:
        sys.exit("\n".join(f"error: {line}" for line in failure.lines()))
