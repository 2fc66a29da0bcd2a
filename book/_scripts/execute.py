"""Run chapters with papermill, each only when something that it is made from changed."""

import ast
import logging
import multiprocessing
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from _scripts.fingerprints import fingerprint
from _scripts.kernels import prepare_environment
from _scripts.layout import Book, BookError
from _scripts.notebooks import SOLUTION, has_tag, normalise, read_notebook, with_solutions, write_notebook
from _scripts.settings import DATA_SETS, Settings

INJECTED = "injected-parameters"
INJECTED_COMMENT = "# Set when this page was built:"
ERROR_MARKER = "papermill-error-cell-tag"
SUM_SUFFIX = ".inputs.sha256"


@dataclass(frozen=True)
class Run:
    """One chapter to run.

    Attributes:
        chapter: the notebook, which stays as it is.
        target: where the executed copy goes.
        folder: the working directory of the kernel.
        parameters: values by name; names that the chapter does not declare are left out.
        seconds_a_cell: how long a cell may take; None for any time.
        failed: the folder for the half-run copy of a notebook that fails.
    """

    chapter: Path
    target: Path
    folder: Path
    parameters: dict[str, str]
    seconds_a_cell: int | None
    failed: Path


def execute_chapters(book: Book, settings: Settings) -> None:
    """Bring the executed copy of every chapter up to date, several at a time.

    A chapter runs again only when its notebook, the library, the stored results, the paper's numbers, the
    parameters or the installed packages changed. Each prints a line when it is done.

    Raises:
        BookError: chapters failed; a line each. The others are finished and kept.
    """
    shutil.rmtree(book.failed, ignore_errors=True)
    waiting: dict[Path, str] = {}
    for chapter in book.notebooks():
        total = _inputs(book, chapter, settings)
        if _is_current(book, chapter, total):
            print(f"{chapter.name}: up to date", flush=True)
        else:
            waiting[chapter] = total
    if not waiting:
        return
    runs = [
        Run(
            chapter,
            book.executed / chapter.name,
            book.source,
            parameters_for(chapter, settings),
            settings.seconds_a_cell,
            book.failed,
        )
        for chapter in waiting
    ]
    for run in runs:
        run.target.unlink(missing_ok=True)
        _sum_file(run.target).unlink(missing_ok=True)
    # Chapters that share a GPU would compete for its memory.
    workers = 1 if settings.may_take_gpu else os.cpu_count() or 1
    failures = []
    print(f"running {', '.join(run.chapter.name for run in runs)} ...", flush=True)
    for run, seconds, error in run_all(runs, workers, book.build / "kernels.log"):
        if error is None:
            _sum_file(run.target).write_text(waiting[run.chapter] + "\n", encoding="utf-8")
            print(f"{run.chapter.name}: executed in {seconds:.0f} s", flush=True)
        else:
            failures.append(error)
    if failures:
        raise BookError(*failures)


def parameters_for(chapter: Path, settings: Settings) -> dict[str, str]:
    """The settings that a chapter declares and that differ from the values written in it."""
    declared = declared_parameters(chapter)
    return {
        name: value
        for name, value in settings.parameters().items()
        if name in declared and declared[name] != value
    }


def asked_data(book: Book) -> tuple[str, ...]:
    """The sets of `settings.DATA_SETS` that chapters have as parameters."""
    declared = {name for chapter in book.notebooks() for name in declared_parameters(chapter)}
    return tuple(name for name in DATA_SETS if name in declared)


def declared_parameters(chapter: Path) -> dict[str, object]:
    """Names and values that the cell tagged `parameters` assigns.

    Raises:
        BookError: the cell holds anything but assignments of literals.
    """
    declared: dict[str, object] = {}
    for cell in read_notebook(chapter).cells:
        if cell.cell_type != "code" or not has_tag(cell, "parameters"):
            continue
        try:
            for line in ast.parse(cell.source).body:
                if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
                    raise ValueError(ast.unparse(line))
                declared[line.targets[0].id] = ast.literal_eval(line.value)
        except (ValueError, SyntaxError) as error:
            raise BookError(
                f"{chapter.name}: the cell tagged `parameters` may only assign literals to names, not: {error}"
            ) from error
    return declared


def run_all(runs: list[Run], workers: int, log: Path) -> Iterator[tuple[Run, float, str | None]]:
    """Run notebooks in processes of their own; yields each with its seconds and error line as it ends.

    Args:
        runs: one or more.
        workers: how many at a time.
        log: a file for what the kernels themselves, not the notebooks, write to stderr.
    """
    prepare_environment(os.environ)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    pool = ProcessPoolExecutor(
        min(workers, len(runs)), multiprocessing.get_context("spawn"), _write_errors_to, (log,)
    )
    with pool:
        futures: dict[Future[tuple[float, str | None]], Run] = {
            pool.submit(run_one, run): run for run in runs
        }
        for future in as_completed(futures):
            run = futures[future]
            try:
                seconds, error = future.result()
            except BrokenProcessPool:
                seconds, error = 0.0, f"{run.chapter.name}: the process that ran it was killed (memory?)"
            yield run, seconds, error


def _write_errors_to(log: Path) -> None:
    """Send stderr of this process, and of the kernels that it will start, to the end of a file."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 2)


def run_one(run: Run) -> tuple[float, str | None]:
    """Run one notebook and then its exercises' solutions; the target appears only when all ran to their end.

    Returns:
        Seconds, and a line about the failure: notebook, cell and error.
    """
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillException, PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    unfinished = run.failed / run.chapter.name
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    with_them = unfinished.with_name(f"with-solutions.{unfinished.name}")
    write_notebook(with_solutions(read_notebook(run.chapter)), with_them)
    start = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            execute_notebook(
                with_them,
                unfinished,
                run.parameters,
                kernel_name="python3",
                language="python",
                cwd=run.folder,
                progress_bar=False,
                execution_timeout=run.seconds_a_cell,
            )
    except PapermillExecutionError as failure:
        what = f"{failure.ename}: {failure.evalue}"
    except CellTimeoutError:
        what = f"CellTimeoutError: the cell took longer than {run.seconds_a_cell} s"
    except DeadKernelError:
        what = "DeadKernelError: the kernel died (memory, or a crash in compiled code)"
    except (PapermillException, OSError, ValueError, RuntimeError) as failure:
        what = f"{type(failure).__name__}: {failure}"
    else:
        notebook = read_notebook(unfinished)
        notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, SOLUTION)]
        show_injected(notebook)
        normalise(notebook)
        write_notebook(notebook, run.target)
        unfinished.unlink()
        return time.monotonic() - start, None
    finally:
        with_them.unlink(missing_ok=True)
    where = _failed_cell(run.chapter, unfinished)
    line = " ".join(f"{run.chapter.name}{where}: {what}".split())
    return time.monotonic() - start, line


def show_injected(notebook: NotebookNode) -> None:
    """Say above the injected parameters, in place, what they are: the page must show what it was run with."""
    for cell in notebook.cells:
        if has_tag(cell, INJECTED):
            values = cell.source.split("\n", 1)[1]
            cell.source = f"{INJECTED_COMMENT}\n{values}".rstrip("\n")


def _failed_cell(chapter: Path, unfinished: Path) -> str:
    """Which cell of the chapter, as its author sees it, the half-run copy stopped at."""
    if not unfinished.is_file():
        return ""
    # Papermill put cells in: a marker at the top, one before the failed cell, and the parameters.
    ran = [cell for cell in read_notebook(unfinished).cells if not has_tag(cell, ERROR_MARKER)]
    # Its status is no help: papermill calls a cell completed that timed out or took the kernel down.
    started = [
        cell
        for cell in ran
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    if not started:
        return ""
    failed = started[-1]
    if has_tag(failed, SOLUTION):
        return f", solution of {failed.metadata['tags'][-1].replace('-', ' ')}"
    own = [cell for cell in ran if not has_tag(cell, INJECTED)]
    if failed not in own:
        return ", injected parameters"
    position = own.index(failed)
    code = sum(cell.cell_type == "code" for cell in own[: position + 1])
    return f", cell {position + 1} (In [{code}])"


def _inputs(book: Book, chapter: Path, settings: Settings) -> str:
    parts = [
        chapter,
        book.root / "mmoe_lib",
        book.source / "companion",
        book.root / "data" / "paper",
        book.root / "data" / "results",
        book.root / "data" / "independent",
        book.source / "_scripts",
    ]
    return fingerprint(book.root, parts, parameters_for(chapter, settings))


def _is_current(book: Book, chapter: Path, total: str) -> bool:
    target = book.executed / chapter.name
    stored = _sum_file(target)
    return target.is_file() and stored.is_file() and stored.read_text(encoding="utf-8").strip() == total


def _sum_file(target: Path) -> Path:
    return target.with_suffix(SUM_SUFFIX)
