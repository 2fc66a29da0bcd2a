"""Impressions on disk, for logs that memory does not hold: a folder with one .npy file a column.

`user`, `video`, `previous` are int32, `outcome` and `labels` uint8, `history` float32: 43 bytes a row. Halves
(float16) would make it 29, but rows read back would not be those written (a share of 1/3 would be off by
1e-4), and reading is not what limits training. The two feature tables lie beside the columns, and `store.json`
holds the number of rows and what the tables mean.

A store is written into a folder of another name, which is renamed when all is there. So a folder of the right
name is whole; what a killed process leaves behind has a name that begins with a dot.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmoe_lib.tasks.kuairand.column_files import ColumnWriter, mapped
from mmoe_lib.tasks.kuairand.features import NUM_OUTCOMES, FeatureTables, Impressions

COLUMNS = tuple(field.name for field in fields(Impressions))
"""The names of the columns; each is the file `<name>.npy`."""

TABLES = ("user_table", "video_table")
CONTENTS = "store.json"


@dataclass(frozen=True)
class ImpressionStore:
    """Impressions in a folder, N rows, of which nothing but the feature tables is in memory.

    Attributes:
        folder: where.
        features: the feature tables, in memory (a few MB).
        num_rows: N.
    """

    folder: Path
    features: FeatureTables
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    @property
    def columns(self) -> dict[str, Path]:
        """The file of each column, for `mmoe_lib.training.streaming.streamed_epochs`."""
        return {name: self.folder / f"{name}.npy" for name in COLUMNS}

    def take(self, rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Join B rows of the columns with the features: x (B, S + F) and y (B, 2), as `FeatureTables.rows`."""
        return self.features.rows(Impressions(**rows), slice(None))

    def take_pairs(self, rows: Mapping[str, Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The same with ids (B, S) and numbers (B, F) apart, as `FeatureTables.pairs`."""
        return self.features.pairs(Impressions(**rows), slice(None))

    def impressions(self) -> Impressions:
        """All rows in memory, 43 bytes each."""
        return Impressions(
            **{name: torch.from_numpy(np.array(mapped(path))) for name, path in self.columns.items()}
        )

    def to(self, device: torch.device | str) -> ImpressionStore:
        """The same with the feature tables on another device, for rows that lie there."""
        return replace(self, features=self.features.to(device))


def write(
    folder: str | os.PathLike[str], part: Impressions | Iterable[Impressions], features: FeatureTables
) -> ImpressionStore:
    """Write a store; afterwards it is there as a whole, or not at all.

    Args:
        folder: where it is to be; must not exist yet. The folder around it is made when missing.
        part: the impressions, or pieces of them one after another, for a log larger than memory.
        features: what their row numbers point to.

    Returns:
        The store, opened.

    Raises:
        FileExistsError: there is something of that name.
        ValueError: there are no rows, or a column is of another type or length than the others, points outside
            the feature tables, or holds what cannot be (labels other than 0 and 1, counts that are not finite).
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: delete it or choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-unfinished-"))
    try:
        num_rows = _write_columns(unfinished, [part] if isinstance(part, Impressions) else part, features)
        for name in TABLES:
            np.save(unfinished / f"{name}.npy", getattr(features, name).cpu().numpy())
        facts = {f.name: getattr(features, f.name) for f in fields(features) if f.name not in TABLES}
        contents = json.dumps({"num_rows": num_rows, "features": facts}, indent=1)
        (unfinished / CONTENTS).write_text(contents + "\n", encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp keeps others out
        os.rename(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return open_store(folder)


def open_store(folder: str | os.PathLike[str]) -> ImpressionStore:
    """Open a store. The length and type of every column are checked, their numbers are not looked at.

    Raises:
        FileNotFoundError: there is no such folder, or a file of it is missing.
        ValueError: a file is cut short, damaged, or has other rows than the rest.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}, expected a store: write it first")
    if not (folder / CONTENTS).is_file():
        raise FileNotFoundError(f"{folder} holds no {CONTENTS}, so it is no whole store: write it again")
    try:
        contents = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        num_rows = int(contents["num_rows"])
        facts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in contents["features"].items()
        }
        facts |= {name: torch.from_numpy(np.array(mapped(folder / f"{name}.npy"))) for name in TABLES}
        store = ImpressionStore(folder, FeatureTables(**facts), num_rows)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / CONTENTS} is damaged, expected what `write` leaves there: write the store again"
        ) from error
    for name, (dtype, shape) in _layout(store.features).items():
        column = mapped(store.columns[name])
        if column.dtype != dtype or column.shape != (num_rows, *shape):
            raise ValueError(
                f"{store.columns[name]} is {column.dtype} of shape {column.shape}, expected {dtype} of shape "
                f"{(num_rows, *shape)}: write the store again"
            )
    return store


def _layout(features: FeatureTables) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The type and the shape of a row of each column."""
    of_tables = features.user_table.shape[1] - features.num_user_sparse
    of_tables += features.video_table.shape[1] - features.num_video_sparse
    return {
        "user": ("int32", ()),
        "video": ("int32", ()),
        "previous": ("int32", ()),
        "outcome": ("uint8", ()),
        "history": ("float32", (len(features.dense_names) - of_tables,)),
        "labels": ("uint8", (2,)),
    }


def _write_columns(folder: Path, pieces: Iterable[Impressions], features: FeatureTables) -> int:
    """Write the columns; returns the number of rows."""
    num_rows = 0
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(ColumnWriter(folder / f"{name}.npy", dtype, shape))
            for name, (dtype, shape) in _layout(features).items()
        }
        for piece in pieces:
            arrays = {name: getattr(piece, name).cpu().numpy() for name in COLUMNS}
            _check(arrays, features, num_rows)
            for name, writer in writers.items():
                writer.append(arrays[name])
            num_rows += len(piece)
        if num_rows == 0:
            raise ValueError("there are no impressions, expected at least one row: nothing was written")
    return num_rows


def _check(arrays: Mapping[str, Any], features: FeatureTables, before: int) -> None:
    """Raise ValueError for columns of unequal length or numbers that cannot be; `before` rows came earlier."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise ValueError(f"the columns have different numbers of rows ({told}), expected one for all")
    limits = {
        "user": len(features.user_table),
        "video": len(features.video_table),
        "previous": len(features.video_table),
        "outcome": NUM_OUTCOMES,
        "labels": 2,
    }
    for name, array in arrays.items():
        if name in limits:
            wrong, expected = (array < 0) | (array >= limits[name]), f"0 to {limits[name] - 1:,}"
        else:
            wrong, expected = ~np.isfinite(array), "finite numbers"
        if wrong.any():
            place = tuple(np.argwhere(wrong)[0])
            raise ValueError(
                f"{name} is {array[place]} in row {before + int(place[0]):,}, expected {expected}: encode the log again"
            )
