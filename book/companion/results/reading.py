"""Read the paper's numbers and ours."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from companion.census_changes import with_changes
from companion.checkout import DATA


def _read(folder: str, name: str) -> pd.DataFrame:
    path = DATA / folder / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no data/{folder}/{name}.csv, expected it in the repository: clone the whole of it"
        )
    return pd.read_csv(path)


def read_paper(name: str) -> pd.DataFrame:
    """A table of the paper's published numbers, such as "figure2_label_correlation".

    Raises:
        FileNotFoundError: If the repository's data/ is not there, or holds no such table.
    """
    return _read("paper", name)


def read_independent(name: str) -> pd.DataFrame:
    """A table of numbers that independent code found, such as "universe_shares".

    Raises:
        FileNotFoundError: If the repository's data/ is not there, or holds no such table.
    """
    return _read("independent", name)


def read_results(name: str, preset: str | None = None) -> pd.DataFrame:
    """The rows of one of our studies, such as "census"; one row a run.

    Those of the changes on Census-Income get the columns of `companion.census_changes.with_changes`.

    Args:
        name: The file's name.
        preset: Only the rows of this preset; None for all.

    Raises:
        FileNotFoundError: If the repository's data/ is not there, or holds no such table.
        ValueError: If there are no rows of this preset.
    """
    rows = _read("results", name)
    chosen = rows if preset is None else rows[rows["preset"] == preset]
    if chosen.empty:
        raise ValueError(f"data/results/{name}.csv has no rows of preset {preset!r}: run its study first")
    chosen = chosen.reset_index(drop=True)
    return with_changes(chosen) if name in ("census_choices", "census_tucker") else chosen


def read_document(name: str) -> dict[str, Any]:
    """A JSON document of `data/results/`, such as "pocket".

    Raises:
        FileNotFoundError: If the repository's data/ is not there, or holds no such file.
    """
    path = DATA / "results" / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no data/results/{name}.json, expected it in the repository: clone the whole of it"
        )
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
