"""`make status`: run every chapter once, one after another, and note how long each took."""

import csv
import io
import os
import platform
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from _scripts.execute import Run, asked_data, declared_parameters, parameters_for, run_all
from _scripts.layout import Book, BookError
from _scripts.notebooks import read_notebook
from _scripts.settings import DATA_SETS, Settings, read_settings

COLUMNS = (
    "chapter",
    "seconds",
    "results_rows",
    "machine",
    "load_before",
    "python_version",
    "pandas_version",
    "commit",
    "command",
    "preset",
    "device",
    "torch_version",
    "data",
)
KEY = ("chapter", "preset", "device", "data")
"""A new row takes the place of the one that agrees in these."""
BUSY = 0.5
"""A load above this at the start: something else is running, and the seconds are not those of the chapter."""


def time_chapters(book: Book, settings: Settings, names: Sequence[str] = ()) -> None:
    """Run chapters one after another with given settings and write a row each into data/results/chapters.csv.

    The row of a chapter is written when it ends, in place of its row with the same preset, device and data.
    Outputs stored in the notebooks are not touched.

    Args:
        book: Whose chapters.
        settings: Preset, device and which data.
        names: Of the notebooks; all chapters when empty.

    Raises:
        BookError: A chapter is unknown, or failed; a line each. The others are finished and their rows kept.
    """
    chapters = {chapter.name: chapter for chapter in book.chapters()}
    unknown = [name for name in names if name not in chapters]
    if unknown:
        raise BookError(f"{unknown[0]} is no chapter: expected one of {', '.join(chapters)}")
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"the machine is busy (load {load:.1f}): seconds will be too many", flush=True)
    failures = []
    for name in names or chapters:
        chapter = chapters[name]
        with tempfile.TemporaryDirectory() as folder:
            run = Run(
                chapter,
                Path(folder) / name,
                book.source,
                parameters_for(chapter, settings),
                settings.seconds_a_cell,
                Path(folder) / "failed",
            )
            ((_, seconds, error),) = run_all([run], 1, book.build / "kernels.log")
        if error is not None:
            failures.append(error)
            continue
        write_row(
            book.root / "data" / "results" / "chapters.csv",
            {
                "chapter": name,
                "seconds": f"{seconds:.1f}",
                "results_rows": str(results_rows(book, chapter)),
                "machine": machine(),
                "load_before": f"{load:.2f}",
                "python_version": platform.python_version(),
                "pandas_version": version("pandas"),
                **_origin(chapter, settings),
            },
        )
        print(f"{name}: {seconds:.0f} s", flush=True)
    if failures:
        raise BookError(*failures)


def write_row(path: Path, row: Mapping[str, str]) -> None:
    """Put a row into the file in one atomic step, in place of the one with the same `KEY`; sorted by chapter.

    Raises:
        BookError: the file has other columns.
    """
    from mmoe_lib.files import write_whole

    rows: list[dict[str, str]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise BookError(
                f"{path.name} has the columns {', '.join(reader.fieldnames or ())}, expected {', '.join(COLUMNS)}: "
                "it is of another version, delete it and run `make status` again"
            )
    rows = [old for old in rows if any(old[name] != row[name] for name in KEY)]
    rows.append(dict(row))
    rows.sort(key=lambda one: [one[name] for name in KEY])
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue().encode())


def results_rows(book: Book, chapter: Path) -> int:
    """How many rows of data/results/ a chapter reads, by the names of the files in its code."""
    code = "\n".join(cell.source for cell in read_notebook(chapter).cells if cell.cell_type == "code")
    read = set(re.findall(r"read_results\(\s*\"(\w+)\"", code))
    if re.search(r"\bscorecard\(", code):
        from companion.claims.scorecard import RESULTS

        read |= set(RESULTS)
    files = [book.root / "data" / "results" / f"{name}.csv" for name in read]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) - 1 for file in files if file.is_file())


def data_used(chapter: Path, settings: Settings) -> str:
    """What a chapter computes on: "census real", "synthetic", or "stored results" where it draws none."""
    chosen = settings.parameters()
    sets = [name for name in declared_parameters(chapter) if name in DATA_SETS]
    if sets:
        return " + ".join(f"{name.removesuffix('_data')} {chosen[name]}" for name in sets)
    code = "\n".join(cell.source for cell in read_notebook(chapter).cells if cell.cell_type == "code")
    return "synthetic" if "mmoe_lib.tasks" in code else "stored results"


def machine() -> str:
    """The processor's name and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", described.read_text(encoding="utf-8"), re.MULTILINE)
        name = found.group(1) if found else name
    return f"{' '.join(name.split())} ({os.cpu_count()} cores)"


def _origin(chapter: Path, settings: Settings) -> dict[str, str]:
    import torch

    from companion.study.origin import Origin

    typed = " ".join(f"{name.upper()}={value}" for name, value in settings.parameters().items())
    device = torch.device("cuda" if settings.may_take_gpu else "cpu")
    return Origin.now(f"make status {typed}", settings.preset, device, data_used(chapter, settings)).columns()


if __name__ == "__main__":
    the_book = Book()
    try:
        chosen_settings = read_settings(os.environ, asked=asked_data(the_book))
        time_chapters(the_book, chosen_settings, sys.argv[1:])
    except BookError as failure:
        sys.exit("\n".join(f"error: {line}" for line in failure.lines()))
