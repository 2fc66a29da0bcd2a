"""Join results folders that were filled apart: on several machines, or by shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from companion.study.cells import KEY, append_rows, read_rows, waiting_cells
from companion.study.columns import RUN_COLUMNS
from companion.study.plan import Plan, Study, check_writable
from companion.study.presets import PRESETS

MAY_DIFFER = {"commit", "command", "device", "torch_version", *RUN_COLUMNS, "seconds"}
"""Columns in which the same run may differ: where and when it was trained."""


def merge(studies: Mapping[str, Study], folders: Sequence[Path], target: Path) -> dict[str, int]:
    """Add the rows of some folders to those of another, in the order that a study gives them.

    A run that stands in several is taken once, as it is in the first; the target comes before all.

    Args:
        studies: By name; files of none of them are left alone.
        folders: To read.
        target: To fill; it need not be there.

    Returns:
        Rows by file.

    Raises:
        ValueError: If a file is no whole table of results, or the same run has two results; nothing is written.
        OSError: If a folder is not there, or the target cannot be written.
    """
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}, expected one with results: see its name")
    plans = [Plan(study, preset, target) for study in studies.values() for preset in PRESETS.values()]
    named = dict.fromkeys(part.file for plan in plans for part in plan.parts)
    names = [name for name in named if any((folder / name).exists() for folder in folders)]
    merged = {name: _joined(name, [target, *folders]) for name in names}
    check_writable(target)
    for plan in plans:
        for part in plan.parts:
            rows = merged.get(part.file, pd.DataFrame())
            new = rows[rows["preset"] == plan.preset.name] if len(rows) else rows
            if new.empty:
                continue
            cells = plan.cells(part) or []
            waiting_cells(cells, new, plan.preset.name, part.file)  # refuses rows of another setting
            append_rows(target / part.file, new, cells)
    return {name: len(rows) for name, rows in merged.items() if len(rows)}


def _joined(name: str, folders: Sequence[Path]) -> pd.DataFrame:
    """The rows of one file from all folders that have it.

    Raises:
        ValueError: If columns differ, or the rows of one run.
    """
    found = {folder: rows for folder in folders if len(rows := read_rows(folder / name))}
    if not found:
        return pd.DataFrame()
    (first, rows), *rest = found.items()
    for folder, others in rest:
        if list(others.columns) != list(rows.columns):
            apart = sorted(set(others.columns) ^ set(rows.columns))
            raise ValueError(
                f"{name} has other columns in {folder} than in {first} ({', '.join(apart) or 'their order'}), expected "
                "the same: they are of two versions, merge those of one"
            )
        both = rows.merge(others, on=KEY, suffixes=("", " of the other"))
        for column in rows.columns:
            if column in KEY or column in MAY_DIFFER:
                continue
            one, two = both[column], both[f"{column} of the other"]
            differs = (one != two) & ~(one.isna() & two.isna())
            if differs.any():
                run = both[differs].iloc[0]
                raise ValueError(
                    f"{name}: {run['model']}, {run['setting']}, seed {run['seed']} has {column} "
                    f"{run[f'{column} of the other']} in {folder} and {run[column]} before it, expected one result: "
                    "delete the rows of one of them"
                )
        rows = pd.concat([rows, others], ignore_index=True).drop_duplicates(KEY, keep="first")
    return rows
