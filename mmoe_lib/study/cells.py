"""Cells of a study: run those that are not yet in the file, append the rows of each at once."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mmoe_lib.progress import progress_bar
from mmoe_lib.study.origin import Origin

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
    """

    model: str
    setting: str
    learning_rate: float
    seeds: tuple[int, ...]


def run_cells(
    cells: Sequence[Cell],
    run: Callable[[Cell], pd.DataFrame],
    path: Path,
    origin: Origin,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Run the cells whose rows are not in the file, one after another.

    The rows of a cell are added when it ends, by writing the whole file anew beside the old one and
    renaming it: a killed study loses at most the cell that was running.

    Args:
        cells: What to run.
        run: Gives one row a seed, with the column seed and the cell's results.
        path: The CSV file.
        origin: Goes into every row; rows of another preset stay in the file and are not counted.
        progress: Show a progress bar.

    Returns:
        All rows of the file.

    Raises:
        ValueError: If the file has other columns than these results, or is cut short.
    """
    rows = read_rows(path)
    waiting = [cell for cell in cells if not _is_there(cell, rows, origin)]
    for cell in progress_bar(waiting, label=path.stem, unit="cell", show=progress):
        start = time.perf_counter()
        found = run(cell)
        new = pd.DataFrame(
            {
                "model": cell.model,
                "setting": cell.setting,
                "learning_rate": cell.learning_rate,
                **{name: found[name] for name in found.columns},
                **origin.columns(),
                "seconds": round((time.perf_counter() - start) / len(cell.seeds), 2),
            }
        )
        rows = append_rows(path, new)
    return rows


def _is_there(cell: Cell, rows: pd.DataFrame, origin: Origin) -> bool:
    if rows.empty:
        return False
    same = (
        (rows["model"] == cell.model)
        & (rows["setting"] == cell.setting)
        & (rows["learning_rate"] == cell.learning_rate)
        & (rows["preset"] == origin.preset)
    )
    return set(cell.seeds) <= set(rows.loc[same, "seed"])


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
    return pd.read_csv(path)


def append_rows(path: Path, new: pd.DataFrame) -> pd.DataFrame:
    """Add rows to a results file in one atomic step; a row of the same run replaces the old one.

    Returns:
        All rows of the file.

    Raises:
        ValueError: If the file's columns differ, or a text holds a comma or a line break.
    """
    old = read_rows(path)
    if not old.empty and list(old.columns) != list(new.columns):
        raise ValueError(
            f"{path.name} has the columns {', '.join(old.columns)}, expected {', '.join(new.columns)}: "
            "it is of another version, move it away to run the study again"
        )
    texts = new.select_dtypes(exclude="number").astype(str)
    if texts.apply(lambda column: column.str.contains(r"[,\n\"]").any()).any():
        raise ValueError(
            "a text holds a comma, a quote or a line break, expected none: results are plain CSV"
        )
    rows = pd.concat([old, new], ignore_index=True).drop_duplicates(KEY, keep="last")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(rows.to_csv(index=False, lineterminator="\n"))
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return rows
