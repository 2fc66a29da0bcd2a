"""Cells of a study: run those that are not yet in the file, append the rows of each at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

import pandas as pd
from filelock import FileLock

from companion.study.origin import Origin
from companion.study.workers import Workers
from mmoe_lib.files import write_whole
from mmoe_lib.progress import progress_bar

KEY = ["model", "setting", "learning_rate", "seed", "preset"]
"""The columns that tell one run from another."""


@dataclass(frozen=True)
class Cell:
    """Runs that are trained together, as one ensemble.

    Attributes:
        model: Its name.
        setting: What it is trained on, such as a group of tasks or a correlation.
        learning_rate: Of every run.
        seeds: One a run.
        facts: Columns that say how it is trained, such as the number of steps. Rows that are in the file
            already must agree with them.
    """

    model: str
    setting: str
    learning_rate: float
    seeds: tuple[int, ...]
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


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

    alike: Callable[[Cell], Hashable]
    run: Callable[[Sequence[Cell]], list[pd.DataFrame]]
    most: int

    def of(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """The stacks, each where its first cell stands; a cell of more than `most` runs is a stack of its own."""
        stacks: list[list[Cell]] = []
        open_stacks: dict[Hashable, list[Cell]] = {}
        for cell in cells:
            key = self.alike(cell)
            stack = open_stacks.get(key, [])
            if not stack or sum(len(one.seeds) for one in stack) + len(cell.seeds) > self.most:
                stack = open_stacks[key] = []
                stacks.append(stack)
            stack.append(cell)
        return stacks


def run_cells(
    cells: Sequence[Cell],
    run: Callable[[Cell], pd.DataFrame],
    path: Path,
    origin: Origin,
    *,
    workers: int = 1,
    stacks: Stacks | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run the cells whose rows are not in the file, one after another or side by side.

    The rows of a cell are added when it ends, by writing the whole file anew beside the old one and
    renaming it: a killed study loses at most the cells that were running. Rows stand in the order of the
    cells, whichever ended first. Two studies may fill one file at the same time.

    Args:
        cells: What to run.
        run: Gives one row a seed, with the column seed and the cell's results. With several workers it must
            be a function that can be pickled.
        path: The CSV file.
        origin: Goes into every row; rows of another preset stay in the file and are not counted.
        workers: Processes; 1 runs the cells in this one.
        stacks: Runs several cells together, in this process; takes the place of `run`.
        progress: Show a progress bar.

    Returns:
        All rows of the file.

    Raises:
        ValueError: If the file has other columns than these results, is cut short, or holds these runs
            trained in another way.
        WorkerDiedError: If a worker process died.
        OSError: If the file cannot be written; it is then as it was.
    """
    rows = read_rows(path)
    waiting = waiting_cells(cells, rows, origin.preset)
    if not waiting:
        return rows
    timed = partial(_timed, run)
    if stacks is not None:
        results = _stacked(stacks, waiting)
    elif workers > 1 and len(waiting) > 1:
        results = Workers(timed, workers).results(waiting)
    else:
        results = ((cell, timed(cell)) for cell in waiting)
    total = sum(len(cell.seeds) for cell in waiting)
    with progress_bar(total=total, label=path.stem, unit="run", show=progress) as bar:
        for cell, (found, seconds) in results:
            new = pd.DataFrame(
                {
                    "model": cell.model,
                    "setting": cell.setting,
                    "learning_rate": cell.learning_rate,
                    **cell.facts,
                    **{name: found[name] for name in found.columns},
                    **origin.columns(),
                    "seconds": round(seconds / len(cell.seeds), 2),
                }
            )
            rows = append_rows(path, new, cells)
            bar.update(len(cell.seeds))
    return rows


def _timed(run: Callable[[Cell], pd.DataFrame], cell: Cell) -> tuple[pd.DataFrame, float]:
    start = time.perf_counter()
    found = run(cell)
    return found, time.perf_counter() - start


def _stacked(stacks: Stacks, cells: Sequence[Cell]) -> Iterator[tuple[Cell, tuple[pd.DataFrame, float]]]:
    for stack in stacks.of(cells):
        start = time.perf_counter()
        found = stacks.run(stack)
        a_run = (time.perf_counter() - start) / sum(len(cell.seeds) for cell in stack)
        for cell, rows in zip(stack, found, strict=True):
            yield cell, (rows, a_run * len(cell.seeds))


def waiting_cells(cells: Sequence[Cell], rows: pd.DataFrame, preset: str) -> list[Cell]:
    """The cells of which a run is missing in these rows of a results file.

    Raises:
        ValueError: If the rows hold one of these runs, trained in another way.
    """
    return [cell for cell in cells if not _is_there(cell, rows, preset)]


def _is_there(cell: Cell, rows: pd.DataFrame, preset: str) -> bool:
    if rows.empty:
        return False
    same = rows[
        (rows["model"] == cell.model)
        & (rows["setting"] == cell.setting)
        & (rows["learning_rate"] == cell.learning_rate)
        & (rows["preset"] == preset)
        & rows["seed"].isin(cell.seeds)
    ]
    for name, value in cell.facts.items():
        found = set(same[name]) if name in same else {"nothing"} if len(same) else set()
        if found - {value}:
            raise ValueError(
                f"the rows of {cell.model}, {cell.setting} in the file have {name} {sorted(found, key=str)}, "
                f"expected {value}: they are of another setting, move the file away to run the study again"
            )
    return set(cell.seeds) <= set(same["seed"])


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a results file; an empty table when there is none yet.

    Raises:
        ValueError: If the file is no table of results, or its last line is cut short.
    """
    if not path.exists():
        return pd.DataFrame()
    text = path.read_text()
    lines = text.splitlines()
    widths = {line.count(",") for line in lines}
    if not text.endswith("\n") or len(widths) != 1 or not set(KEY) <= set(lines[0].split(",")):
        raise ValueError(
            f"{path.name} is not a whole table of results, expected the columns {', '.join(KEY)} and full lines: "
            "restore it from git, or delete it to run the study again"
        )
    # As text: a commit such as 12345e678901 is no number.
    return pd.read_csv(path, dtype={column.name: str for column in fields(Origin)})


def append_rows(path: Path, new: pd.DataFrame, cells: Sequence[Cell] = ()) -> pd.DataFrame:
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
        rows = _in_order(rows.drop_duplicates(KEY, keep="last"), cells)
        write_whole(path, rows.to_csv(index=False, lineterminator="\n").encode())
    return rows


def _in_order(rows: pd.DataFrame, cells: Sequence[Cell]) -> pd.DataFrame:
    places = {
        (cell.model, cell.setting, cell.learning_rate, seed): place
        for place, (cell, seed) in enumerate((cell, seed) for cell in cells for seed in cell.seeds)
    }
    keys = zip(rows["model"], rows["setting"], rows["learning_rate"], rows["seed"], strict=True)
    order = pd.Series([places.get(key, -1) for key in keys], index=rows.index)
    return rows.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
