"""What the book rests on: how long its chapters take, and what every file of stored results holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from companion.checkout import DATA

CHAPTER_TIMES = "chapters"
"""The file of `data/results/` that `make status` writes; its rows are chapters, not runs."""

_TEXTS = ["commit", "command", "preset", "device", "data", "torch_version"]
_SETTING = ["model", "setting", "learning_rate", "preset"]


def stored_results(folder: Path | None = None) -> pd.DataFrame:
    """Every results file, a row each.

    Args:
        folder: Of the CSV files; None for the repository's `data/results/`.

    Returns:
        Index file; rows; runs a setting, from the setting that has fewest to the one that has most, "" for files
        whose rows are no runs; preset; device; commits; command; data; hours, the sum of the seconds of its runs, each
        the share of one process, NaN where none are noted.

    Raises:
        FileNotFoundError: If the folder holds no results.
    """
    paths = sorted((folder or DATA / "results").glob("*.csv"))
    if not paths:
        raise FileNotFoundError(
            "there are no CSV files of results, expected them in data/results/: clone the whole repository"
        )
    return pd.DataFrame([_file(path) for path in paths]).set_index("file")


def _file(path: Path) -> dict[str, str | int | float]:
    # As text: a commit such as 12345e678901 is no number.
    rows = pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str))
    timed = "seconds" in rows and "seed" in rows
    return {
        "file": path.name,
        "rows": len(rows),
        "runs a setting": _runs(rows),
        **{name: ", ".join(dict.fromkeys(rows[name])) for name in ("preset", "device", "data", "command")},
        "commits": ", ".join(dict.fromkeys(rows["commit"])),
        "hours": float(rows["seconds"].sum()) / 3600 if timed else float("nan"),
    }


def _runs(rows: pd.DataFrame) -> str:
    if "seed" not in rows:
        return ""
    if "state" in rows:  # of a search: its seeds are the numbers of the trials
        return "a trial a row"
    counts = rows.groupby(_SETTING).size()
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def stored_results_table(files: pd.DataFrame) -> pd.DataFrame:
    """The same as text for a page, without data and command."""
    return pd.DataFrame(
        {
            "rows": [f"{count:,}" for count in files["rows"]],
            "runs a setting": files["runs a setting"],
            "preset": files["preset"],
            "device": files["device"],
            "commits": files["commits"],
            "hours": [_hours(value) for value in files["hours"]],
        },
        index=files.index,
    )


def _hours(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2f}" if value >= 0.01 else "< 0.01"


def chapter_times(folder: Path | None = None) -> pd.DataFrame:
    """The rows that `make status` wrote; an empty table when it has not been run."""
    path = (folder or DATA / "results") / f"{CHAPTER_TIMES}.csv"
    return pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str)) if path.exists() else pd.DataFrame()


def chapter_times_markdown(times: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """Seconds of every chapter on a CPU and on a GPU, as a table in Markdown.

    Args:
        times: Rows of `chapter_times`: chapter, preset, device, data, seconds, results_rows, python_version,
            torch_version, pandas_version.
        titles: Of all chapters, by the name of the notebook; one without rows is listed as not run.

    Returns:
        A row a chapter, preset and data.
    """
    lines = [
        "| Chapter | CPU (s) | GPU (s) | Preset | Data | Stored rows read | Python, torch, pandas |",
        "|---|---|---|---|---|---|---|",
    ]
    for chapter, title in titles.items():
        rows = times[times["chapter"] == chapter] if len(times) else times
        link = f"[{title}]({chapter})"
        if rows.empty:
            lines.append(f"| {link} | not run | not run | | | | |")
            continue
        for (preset, data), same in rows.groupby(["preset", "data"], sort=False):
            last = same.iloc[-1]
            versions = f"{last['python_version']}, {last['torch_version']}, {last['pandas_version']}"
            cpu, gpu = _seconds(same[same["device"] == "cpu"]), _seconds(same[same["device"] != "cpu"])
            lines.append(
                f"| {link} | {cpu} | {gpu} | {preset} | {data} | {last['results_rows']:,} | {versions} |"
            )
    return "\n".join(lines)


def _seconds(rows: pd.DataFrame) -> str:
    return f"{rows['seconds'].iloc[-1]:.0f}" if len(rows) else "not run"
