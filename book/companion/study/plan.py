"""A study as an object: its name, and the files that it fills, in order."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from companion.study.cells import (
    KEY,
    Cell,
    CellsFailedError,
    Shard,
    Stacks,
    append_rows,
    read_rows,
    results_of,
    rows_of,
    run_cells,
    waiting_cells,
)
from companion.study.columns import RUN_COLUMNS
from companion.study.executors import LOCAL, Executor, Failed
from companion.study.origin import Origin
from companion.study.presets import Preset

MOST_RUNS = 2_000
"""Runs of a stack on a GPU: twice as many as fill an H100."""


def synthetic_data() -> str:
    """Stands where others have the sums of their data files: everything is drawn."""
    return "synthetic"


@dataclass(frozen=True)
class Stacked:
    """How several cells of a part are run together where one cell does not fill the device.

    Attributes:
        alike: What cells of one stack have in common.
        run: Called as run(cells, device=device); gives the rows of each.
        cpu_runs: Runs of a stack on a CPU; 0 where each cell is run alone there.
    """

    alike: Callable[[Cell[Any]], Hashable]
    run: Callable[..., list[pd.DataFrame]]
    cpu_runs: int = 0


@dataclass(frozen=True)
class Part:
    """A list of cells whose rows stand in one file.

    Attributes:
        file: Its name.
        cells: Its cells, from the rows of `after` (of one preset), or from an empty table.
        run: Called as run(cell, device=device); gives the rows of one cell. It can be pickled.
        stacked: The same for several cells together, for a GPU; None for a part that has no such way.
        data: What its cells are trained on, for the origin of its rows: sums of the files.
        after: The part that must be done first.
        unit: What a row is.
        columns: What `run` gives beside the seed; () where that is not told.
    """

    file: str
    cells: Callable[[pd.DataFrame], Sequence[Cell[Any]]]
    run: Callable[..., pd.DataFrame]
    stacked: Stacked | None = None
    data: Callable[[], str] = synthetic_data
    after: Part | None = None
    unit: str = "runs"
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """What the command line calls by its name.

    Attributes:
        name: Of the study.
        parts: Its parts for a preset, where results are in a folder; a part stands behind the one it waits for.
    """

    name: str
    parts: Callable[[Preset, Path], Sequence[Part]]


@dataclass(frozen=True)
class Plan:
    """A study at a preset in a folder of results.

    Attributes:
        study: The study.
        preset: How much.
        folder: Of its files.
    """

    study: Study
    preset: Preset
    folder: Path

    @property
    def parts(self) -> list[Part]:
        """The parts, in the order in which they are run."""
        return list(self.study.parts(self.preset, self.folder))

    def rows(self, part: Part) -> pd.DataFrame:
        """All rows of the part's file.

        Raises:
            ValueError: If it is no table of results.
        """
        return read_rows(self.folder / part.file)

    def cells(self, part: Part) -> list[Cell[Any]] | None:
        """The cells of a part; None as long as a part before it is not done.

        Raises:
            ValueError: If the rows before it do not tell what its cells are.
        """
        if part.after is None:
            return list(part.cells(pd.DataFrame()))
        if self.waiting(part.after) != []:
            return None
        rows = self.rows(part.after)
        with _of_file(part.after.file):
            return list(part.cells(rows[rows["preset"] == self.preset.name]))

    def waiting(self, part: Part) -> list[Cell[Any]] | None:
        """Those of its cells of which a row is missing; None as long as a part before it is not done."""
        cells = self.cells(part)
        return cells and waiting_cells(cells, self.rows(part), self.preset.name, part.file)

    def find(self, key: str) -> tuple[Part, Cell[Any], list[Cell[Any]]]:
        """The cell that has a key, with its part and all cells of that.

        Args:
            key: As `Cell.key`, or with the file in front, such as "synthetic.csv: MMoE, p = 1, ...".

        Raises:
            ValueError: If there is none, or one in several files.
        """
        found = [
            (part, cell, cells)
            for part in self.parts
            for cells in [self.cells(part) or []]
            for cell in cells
            if key in (cell.key, f"{part.file}: {cell.key}")
        ]
        if len(found) != 1:
            files = ", ".join(part.file for part, _, _ in found)
            raise ValueError(
                f"cell is {key!r}, which "
                + (f"stands in {files}, expected one: put the file in front" if found else "there is not")
                + f": see python -m companion.study {self.study.name} --preset {self.preset.name} --list"
            )
        return found[0]

    def not_done(self) -> list[str]:
        """What is missing, a line a file."""
        lines = []
        for part in self.parts:
            waiting = self.waiting(part)
            if waiting is None:
                assert part.after is not None
                lines.append(f"{part.file}: waits for {part.after.file}")
            elif waiting:
                lines.append(f"{part.file}: {sum(len(cell.seeds) for cell in waiting)} {part.unit} wait")
        return lines


@contextmanager
def _of_file(name: str) -> Iterator[None]:
    """Whatever its rows lead to is told with the file's name."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{name}: {what}") from error


def show_state(plan: Plan, *, every_cell: bool = False) -> None:
    """Print how much of every file is there, and each of its cells if asked for."""
    some_wait = False
    for part in plan.parts:
        cells = plan.cells(part)
        some_wait |= cells is None
        if not cells:
            continue
        waiting = waiting_cells(cells, plan.rows(part), plan.preset.name, part.file)
        runs, left = (sum(len(cell.seeds) for cell in some) for some in (cells, waiting))
        print(f"{part.file}: {runs - left} of {runs} {part.unit}, preset {plan.preset.name}")
        for cell in cells if every_cell else ():
            print(f"  {'waits' if cell in waiting else 'done':5}  {cell.key}")
    if some_wait:
        print("the other files are listed when tuning has chosen the settings")


def run_study(
    plan: Plan,
    device: torch.device,
    *,
    executor: Executor = LOCAL,
    most_runs: int = MOST_RUNS,
    shard: Shard | None = None,
    progress: bool = True,
) -> bool:
    """Run what waits, part after part; a cell that fails is told and costs the parts that wait for it.

    Args:
        plan: What to run.
        device: Where to train.
        executor: Who runs the cells.
        most_runs: Of a stack, on a GPU.
        shard: What of each part is run here; None for all.
        progress: Show a progress bar.

    Returns:
        Whether all parts are done, or what of them was to be done here.

    Raises:
        ValueError: If a file holds something else than these results.
        OSError: If data are missing, or a file cannot be written.
    """
    for part in plan.parts:  # a file that is damaged is found before hours have been spent on another
        _check_header(plan, part)
    # One thread here as in the workers: the order of sums, and so the table, must not depend on their number.
    torch.set_num_threads(1)
    failed = False
    for part in plan.parts:
        if not (cells := plan.cells(part)):
            continue
        _check_header(plan, part)  # its cells may be known only now
        rows = plan.rows(part)
        if waiting_cells(cells, rows, plan.preset.name, part.file):
            origin = executor.prepared(_origin(plan, part, device), part.data)
            check_writable(plan.folder)
            try:
                rows = run_cells(
                    cells,
                    partial(part.run, device=device),
                    plan.folder / part.file,
                    origin,
                    executor=executor,
                    stacks=_stacks(part, device, most_runs),
                    shard=shard,
                    progress=progress,
                )
            except CellsFailedError as error:
                failed = True
                print(f"error: {error}", file=sys.stderr)
                continue
        print(f"{part.file}: {len(rows)} {part.unit}")
    missing = plan.not_done()
    if shard and not failed:
        print(f"shard {shard} is done; left for the others: {'; '.join(missing) or 'nothing'}")
        return True
    if missing:
        print(f"error: the study is not done: {'; '.join(missing)}", file=sys.stderr)
    return not missing


def _check_header(plan: Plan, part: Part) -> None:
    """Refuse a file that rows are to be added to and that lacks one of their columns.

    Raises:
        ValueError: If it does, or is no table of results.
    """
    rows = plan.rows(part)
    waiting = plan.waiting(part)
    if rows.empty or waiting == []:
        return
    facts = waiting[0].facts if waiting else {}
    origin = [column.name for column in fields(Origin)]
    expected = dict.fromkeys([*KEY, *facts, *part.columns, *origin, "seconds"])
    missing = [name for name in expected if name not in rows]
    if missing:
        raise ValueError(
            f"{part.file} has no {', '.join(missing)}, expected a column of each: restore the file from git, or move it "
            "away to run the study again"
        )


def run_again(plan: Plan, key: str, device: torch.device, *, compare: bool) -> None:
    """Run one cell whether its rows are there or not, and replace them, or print both and write nothing.

    Args:
        plan: To which it belongs.
        key: As in `Plan.find`.
        device: Where to train.
        compare: Print the stored rows beside the new ones; write nothing.

    Raises:
        ValueError: If there is no such cell, it is a search, or no row of it is stored to compare with.
        CellsFailedError: If it fails.
    """
    part, cell, cells = plan.find(key)
    if cell.search:
        raise ValueError(
            f"{cell.key} is a search, which goes on from its journal, expected a cell of runs: to search anew, move "
            "the journal and the rows away"
        )
    stored = rows_of(cell, plan.rows(part), plan.preset.name)
    if compare and set(stored.get("seed", ())) != set(cell.seeds):
        raise ValueError(f"{part.file} holds not all rows of {cell.key}, expected them: nothing to compare")
    origin = _origin(plan, part, device)
    if not compare:
        check_writable(plan.folder)
    torch.set_num_threads(1)
    run, stacks = partial(part.run, device=device), _stacks(part, device, MOST_RUNS)
    ((_, found),) = results_of([cell], run, stacks=stacks)
    if isinstance(found, Failed):
        raise CellsFailedError(plan.folder / part.file, [(cell, found)])
    if compare:
        print(f"{part.file}: {cell.key}, stored by {', '.join(dict.fromkeys(stored['commit']))}")
        print(compared(stored, found.rows(origin)))
    else:
        append_rows(plan.folder / part.file, found.rows(origin), cells)
        print(f"{part.file}: {cell.key} has been run again")


def compared(stored: pd.DataFrame, again: pd.DataFrame) -> str:
    """Means over runs of every column of results, stored and run again, and the largest difference of a run.

    Args:
        stored: Rows of one cell.
        again: Rows of the same runs.
    """
    stored, again = (rows.set_index("seed").sort_index() for rows in (stored, again))
    origin = {*(column.name for column in fields(Origin)), *RUN_COLUMNS, *KEY, "seconds"}
    names = [
        name
        for name in again.columns
        if name in stored and name not in origin and pd.api.types.is_numeric_dtype(again[name])
    ]
    before, after = (rows[names].astype(float) for rows in (stored, again))
    apart = (after - before).abs()
    apart = apart.mask(before.isna() & after.isna(), 0.0).mask(before.isna() ^ after.isna(), math.inf)
    table = pd.DataFrame({"stored": before.mean(), "again": after.mean(), "largest difference": apart.max()})
    worst = apart.max()
    name = str(worst.idxmax())
    return f"{table.to_string()}\nlargest difference: {worst.max():g}, {name} of seed {apart[name].idxmax()}"


def _origin(plan: Plan, part: Part, device: torch.device) -> Origin:
    command = f"python -m companion.study {plan.study.name} --preset {plan.preset.name}"
    return Origin.now(command, plan.preset.name, device, part.data())


def check_writable(folder: Path) -> None:
    """Make the folder if there is none, and see that files can be written there, before hours are spent.

    Raises:
        OSError: If they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write in {folder} ({error.strerror or error}), expected a folder for the results: choose "
            "another with --results"
        ) from error


def _stacks(part: Part, device: torch.device, most_runs: int) -> Stacks | None:
    if part.stacked is None:
        return None
    most = most_runs if device.type == "cuda" else part.stacked.cpu_runs
    return Stacks(part.stacked.alike, partial(part.stacked.run, device=device), most) if most else None
