"""Cells of a study: run those that are not yet in the file, append the rows of each at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import pandas as pd
from filelock import FileLock

from companion.study.columns import check_columns, with_run_columns
from companion.study.executors import LOCAL, Executor, Failed
from companion.study.origin import Origin, processor
from mmoe_lib.files import write_whole
from mmoe_lib.progress import progress_bar

KEY = ["model", "setting", "learning_rate", "seed", "preset"]
"""The columns that tell one run from another."""


CellChoices = TypeVar("CellChoices", covariant=True)


@dataclass(frozen=True)
class Cell(Generic[CellChoices]):
    """Runs that are trained together, as one ensemble.

    Attributes:
        model: Its name.
        setting: What it is trained on, such as a group of tasks or a correlation.
        learning_rate: Of every run; 0 where none is needed.
        seeds: One a run; the numbers of the trials of a search.
        choices: How it is trained, a frozen dataclass of numbers and texts; `NoChoices` where there is nothing to
            choose. Its fields are columns of every row, and rows that are in the file already must agree with them.
        search: Whether its rows are the trials of a search, which each name a rate of their own.
    """

    model: str
    setting: str
    learning_rate: float
    seeds: tuple[int, ...]
    choices: CellChoices
    search: bool = False

    @property
    def facts(self) -> dict[str, str | int | float]:
        """The fields of its choices as columns."""
        choices: Any = self.choices
        return {column.name: getattr(choices, column.name) for column in fields(choices)}

    @property
    def key(self) -> str:
        """What it is called on the command line: model, setting, learning rate and seeds."""
        runs = f"{self.seeds[0]} to {self.seeds[-1]}"
        if self.search:
            return f"{self.model}, {self.setting}, trials {runs}"
        return f"{self.model}, {self.setting}, learning rate {self.learning_rate:g}, seeds {runs}"


@dataclass(frozen=True)
class NoChoices:
    """Of a cell that is known by model, setting, rate and seeds alone."""


def chunks(runs: int, chunk: int) -> list[tuple[int, ...]]:
    """The seeds 0 .. runs - 1 in chunks that are trained together."""
    return [tuple(range(start, min(start + chunk, runs))) for start in range(0, runs, chunk)]


@dataclass(frozen=True)
class Stacks:
    """How cells are run together, on a device that one cell's runs do not fill.

    Attributes:
        alike: What cells of one stack have in common.
        run: Gives the rows of each cell of a stack.
        most: Runs of a stack.
    """

    alike: Callable[[Cell[Any]], Hashable]
    run: Callable[[Sequence[Cell[Any]]], list[pd.DataFrame]]
    most: int

    def of(self, cells: Sequence[Cell[Any]]) -> list[list[Cell[Any]]]:
        """The stacks, each where its first cell stands; a cell of more than `most` runs is a stack of its own."""
        stacks: list[list[Cell[Any]]] = []
        open_stacks: dict[Hashable, list[Cell[Any]]] = {}
        for cell in cells:
            key = self.alike(cell)
            stack = open_stacks.get(key, [])
            if not stack or sum(len(one.seeds) for one in stack) + len(cell.seeds) > self.most:
                stack = open_stacks[key] = []
                stacks.append(stack)
            stack.append(cell)
        return stacks


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of what waits: every n-th cell.

    Attributes:
        index: Which of them, from 1.
        number: How many there are.
    """

    index: int
    number: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """The shard that is written "1/4".

        Raises:
            ValueError: If it is none.
        """
        index, slash, number = text.partition("/")
        if not (slash and index.isdecimal() and number.isdecimal() and 1 <= int(index) <= int(number)):
            raise ValueError(f"shard is {text!r}, expected two numbers such as 1/4: the first of four parts")
        return cls(int(index), int(number))

    def __str__(self) -> str:
        return f"{self.index}/{self.number}"

    def of(self, cells: Sequence[Cell[CellChoices]]) -> list[Cell[CellChoices]]:
        """Its share of some cells."""
        return list(cells[self.index - 1 :: self.number])


class CellsFailedError(RuntimeError):
    """Cells that raised, or whose process died; the rows of all others are in the file.

    Attributes:
        failed: Each with what happened.
    """

    def __init__(self, path: Path, failed: Sequence[tuple[Cell[Any], Failed]]) -> None:
        self.failed = list(failed)
        by_reason: dict[str, list[str]] = {}
        for cell, what in failed:
            by_reason.setdefault(what.reason, []).append(cell.key)
        told = [
            f"{path.name}: {keys[0]}{f' and {len(keys) - 1} more cells' if len(keys) > 1 else ''} failed: {reason}"
            for reason, keys in by_reason.items()
        ]
        super().__init__("; ".join(told))


def run_cells(
    cells: Sequence[Cell[CellChoices]],
    run: Callable[[Cell[CellChoices]], pd.DataFrame],
    path: Path,
    origin: Origin,
    *,
    executor: Executor = LOCAL,
    stacks: Stacks | None = None,
    shard: Shard | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run the cells whose rows are not in the file.

    The rows of a cell are added when it ends, by writing the whole file anew beside the old one and
    renaming it: a killed study loses at most the cells that were running, and a cell that raises loses only
    itself. Rows stand in the order of the cells, whichever ended first. Two studies may fill one file at the
    same time.

    Args:
        cells: What to run.
        run: Gives one row a seed, with the column seed and the cell's results. Where cells run in processes of
            their own it must be a function that can be pickled.
        path: The CSV file.
        origin: Goes into every row; rows of another preset stay in the file and are not counted.
        executor: Who runs them.
        stacks: Runs several cells together; takes the place of `run`.
        shard: What of the cells that wait is run here; None for all.
        progress: Show a progress bar.

    Returns:
        All rows of the file.

    Raises:
        ValueError: If the file has other columns than these results, is cut short, or holds these runs
            trained in another way.
        CellsFailedError: If a cell failed; the others have been run.
        OSError: If the file cannot be written; it is then as it was.
    """
    rows = read_rows(path)
    waiting = waiting_cells(cells, rows, origin.preset, path.name)
    if shard is not None:
        waiting = shard.of(waiting)
    if not waiting:
        return rows
    failed: list[tuple[Cell[Any], Failed]] = []
    total = sum(len(cell.seeds) for cell in waiting)
    with progress_bar(total=total, label=path.stem, unit="run", show=progress) as bar:
        for cell, found in results_of(waiting, run, executor, stacks):
            if isinstance(found, Failed):
                failed.append((cell, found))
            else:
                rows = append_rows(path, found.rows(origin), cells)
            bar.update(len(cell.seeds))
    if failed:
        raise CellsFailedError(path, failed)
    return rows


@dataclass(frozen=True)
class Results:
    """What the runs of a cell gave.

    Attributes:
        cell: The cell.
        found: A row a run: the column seed and the results; also compiled, where the step was.
        seconds: Of a run, its share of those that were trained together.
        chunk: Runs that were trained together.
        processor: Of the machine.
    """

    cell: Cell[Any]
    found: pd.DataFrame
    seconds: float
    chunk: int
    processor: str

    def rows(self, origin: Origin) -> pd.DataFrame:
        """The rows of the results file."""
        cell, found = self.cell, self.found
        columns: dict[str, Any] = {
            "model": cell.model,
            "setting": cell.setting,
            "learning_rate": cell.learning_rate,
            **cell.facts,
            **{name: found[name] for name in found.columns if name not in ("seconds", "compiled")},
            **origin.columns(),
            "chunk": self.chunk,
            "compiled": found.get("compiled", False),
            "device_model": self.processor if origin.device == "cpu" else origin.device,
            # The trials of a search take seconds of their own.
            "seconds": found["seconds"] if "seconds" in found else round(self.seconds, 2),
        }
        return with_run_columns(pd.DataFrame(columns))


def results_of(
    cells: Sequence[Cell[Any]],
    run: Callable[[Cell[Any]], pd.DataFrame],
    executor: Executor = LOCAL,
    stacks: Stacks | None = None,
) -> Iterator[tuple[Cell[Any], Results | Failed]]:
    """Cells with what their runs gave, as they end; of a stack that fails each cell is tried alone."""
    tasks = [tuple(stack) for stack in stacks.of(cells)] if stacks else [(cell,) for cell in cells]
    work = partial(_trained, run, stacks.run if stacks else None)
    alone: list[tuple[Cell[Any], ...]] = []
    for stack, found in executor.results(work, tasks):
        if not isinstance(found, Failed):
            yield from zip(stack, found, strict=True)
        elif len(stack) == 1:
            yield stack[0], found
        else:
            alone += [(cell,) for cell in stack]
    for stack, found in executor.results(work, alone):
        yield stack[0], found if isinstance(found, Failed) else found[0]


def _trained(
    run: Callable[[Cell[Any]], pd.DataFrame],
    run_together: Callable[[Sequence[Cell[Any]]], list[pd.DataFrame]] | None,
    stack: tuple[Cell[Any], ...],
) -> list[Results]:
    """The results of the cells of a stack, in their order."""
    start = time.perf_counter()
    found = run_together(stack) if run_together else [run(cell) for cell in stack]
    runs = sum(len(cell.seeds) for cell in stack)
    seconds = (time.perf_counter() - start) / runs
    return [Results(cell, rows, seconds, runs, processor()) for cell, rows in zip(stack, found, strict=True)]


def waiting_cells(
    cells: Sequence[Cell[CellChoices]], rows: pd.DataFrame, preset: str, file: str = "the file"
) -> list[Cell[CellChoices]]:
    """The cells of which a run is missing in these rows of a results file.

    Raises:
        ValueError: If the rows hold one of these runs, trained in another way.
    """
    return [cell for cell in cells if not _is_there(cell, rows, preset, file)]


def rows_of(cell: Cell[Any], rows: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The rows of a results file that are a cell's."""
    if rows.empty:
        return rows
    same = rows[
        (rows["model"] == cell.model)
        & (rows["setting"] == cell.setting)
        & (rows["preset"] == preset)
        & rows["seed"].isin(cell.seeds)
    ]
    return same if cell.search else same[same["learning_rate"] == cell.learning_rate]


def _is_there(cell: Cell[Any], rows: pd.DataFrame, preset: str, file: str) -> bool:
    same = rows_of(cell, rows, preset)
    if same.empty:
        return False
    for name, value in cell.facts.items():
        found = set(same[name]) if name in same else {"nothing"} if len(same) else set()
        if found - {value}:
            raise ValueError(
                f"the rows of {cell.model}, {cell.setting} in {file} have {name} {sorted(found, key=str)}, "
                f"expected {value}: they are of another setting, move the file away to run the study again"
            )
    return set(cell.seeds) <= set(same["seed"])


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a results file; an empty table when there is none yet.

    Rows written before there were `RUN_COLUMNS` have them all the same, empty.

    Raises:
        ValueError: If the file is no table of results, its last line is cut short, or a value is of another kind
            than its column's or out of range.
    """
    if not path.exists():
        return pd.DataFrame()
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} is no text in UTF-8 ({error.reason} at byte {error.start}), expected a table of results: "
            "restore it from git, or delete it to run the study again"
        ) from error
    lines = text.splitlines()
    widths = {line.count(",") for line in lines}
    if not text.endswith("\n") or len(widths) != 1 or not set(KEY) <= set(lines[0].split(",")):
        raise ValueError(
            f"{path.name} is not a whole table of results, expected the columns {', '.join(KEY)} and full lines: "
            "restore it from git, or delete it to run the study again"
        )
    # As text: a commit such as 12345e678901 is no number.
    try:
        rows = pd.read_csv(StringIO(text), dtype={column.name: str for column in fields(Origin)})
    except ValueError as error:  # such as more values in a line than its quotes let one count
        raise ValueError(f"{path.name}: {' '.join(str(error).split())}") from error
    check_columns(rows, path.name)
    return with_run_columns(rows)


def append_rows(path: Path, new: pd.DataFrame, cells: Sequence[Cell[Any]] = ()) -> pd.DataFrame:
    """Add rows to a results file in one atomic step; a row of the same run replaces the old one.

    Args:
        path: The CSV file.
        new: One row a run.
        cells: Their order is the order of the rows; rows of none of them stand in front, as they came.

    Returns:
        All rows of the file.

    Raises:
        ValueError: If the file's columns differ, or a text holds a comma or a line break.
        OSError: If the file cannot be written; it is then as it was.
    """
    texts = new.select_dtypes(exclude="number").astype(str)
    if texts.apply(lambda column: column.str.contains(r"[,\n\"]").any()).any():
        raise ValueError(
            "a text holds a comma, a quote or a line break, expected none: results are plain CSV"
        )
    new = with_run_columns(new)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only one process at a time; the lock goes with the process, however that ends.
    with FileLock(path.with_name(f".{path.name}.lock")):
        old = read_rows(path)
        if not old.empty and list(old.columns) != list(new.columns):
            raise ValueError(
                f"{path.name} has the columns {', '.join(old.columns)}, expected {', '.join(new.columns)}: "
                "it is of another version, move it away to run the study again"
            )
        rows = pd.concat([old, new], ignore_index=True) if len(old) else new
        # The trials of a search are all told again when one is added: those that the file has keep their origin.
        keep: Literal["first", "last"] = "first" if any(cell.search for cell in cells) else "last"
        rows = _in_order(rows.drop_duplicates(KEY, keep=keep), cells)
        try:
            write_whole(path, rows.to_csv(index=False, lineterminator="\n").encode())
        except OSError as error:
            raise OSError(
                f"{path.name} cannot be written ({error.strerror or error}), expected room for it: it is as it was, "
                "make room and start again"
            ) from error
    return rows


def _in_order(rows: pd.DataFrame, cells: Sequence[Cell[Any]]) -> pd.DataFrame:
    places = {
        (cell.model, cell.setting, None if cell.search else cell.learning_rate, seed): place
        for place, (cell, seed) in enumerate((cell, seed) for cell in cells for seed in cell.seeds)
    }
    keys = zip(rows["model"], rows["setting"], rows["learning_rate"], rows["seed"], strict=True)
    order = pd.Series(
        [places.get(key, places.get((*key[:2], None, key[3]), -1)) for key in keys], index=rows.index
    )
    return rows.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
