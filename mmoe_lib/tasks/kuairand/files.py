"""KuaiRand-Pure's files: found or downloaded, checked against the official layout, parsed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmoe_lib.tasks.download import DAMAGED, OfficialFile, Release, Source, open_text
from mmoe_lib.tasks.kuairand.columns import (
    FIRST_LOG,
    LABELS,
    LOG_COLUMNS,
    LOG_DURATIONS,
    RANDOM_LOG,
    SECOND_LOG,
    USER_COLUMNS,
    USER_TEXT,
    USERS,
    VIDEO_COLUMNS,
    VIDEO_DURATIONS,
    VIDEO_TEXT,
    VIDEOS,
)


def archive_of_all(address: str) -> Source:
    """A place that offers one archive with all files."""
    return dict.fromkeys((FIRST_LOG, SECOND_LOG, USERS, VIDEOS, RANDOM_LOG), address)


KUAIRAND_PURE = Release(
    title="KuaiRand-Pure",
    folder="kuairand-pure",
    places=("kuairand-pure", "KuaiRand-Pure/data", "."),  # our own name, that of the archive, the folder
    files=tuple(OfficialFile(name) for name in (FIRST_LOG, SECOND_LOG, USERS, VIDEOS)),
    optional=(RANDOM_LOG,),
    by_hand="unpack KuaiRand-Pure.tar.gz (https://zenodo.org/records/10439422) in a folder and pass it as path= or in "
    "the environment variable MMOE_DATA",
    sources=(archive_of_all("https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz"),),
    md5="0820331067a3784d9691136f772b35a7",
    complete_rows=1_436_609,  # of both standard logs together, exact duplicates included
)
"""The only release there is; tests pass generated ones."""

available = KUAIRAND_PURE.available
"""Whether the real files can be had, as `mmoe_lib.tasks.download.Release.available` tells it."""


def read_log(path: Path, *, times_may_be_blank: bool) -> tuple[pd.DataFrame, str]:
    """A log as it is in the file, and the sha256 of its text.

    Args:
        path: of the .csv or .csv.gz.
        times_may_be_blank: whether rows without date and time are allowed, as in a reconstructed first log.

    Returns:
        The 19 columns; ids as int64, labels as uint8, the others as float64 with NaN for blanks.

    Raises:
        ValueError: the file is damaged, a column is missing, or a value cannot be: see `checked_log`.
    """
    frame, total = _read(path, LOG_COLUMNS, ())
    return checked_log(frame, str(path), times_may_be_blank=times_may_be_blank), total


def read_users(path: Path) -> tuple[pd.DataFrame, str]:
    """The user table and the sha256 of its text; raises ValueError as `read_log`."""
    frame, total = _read(path, USER_COLUMNS, USER_TEXT)
    return checked_users(frame, str(path)), total


def read_videos(path: Path) -> tuple[pd.DataFrame, str]:
    """The video table and the sha256 of its text; raises ValueError as `read_log`."""
    frame, total = _read(path, VIDEO_COLUMNS, VIDEO_TEXT)
    return checked_videos(frame, str(path)), total


def checked_log(frame: pd.DataFrame, name: str, *, times_may_be_blank: bool) -> pd.DataFrame:
    """The log in the types of `read_log`, after a look at what cannot be.

    Raises:
        ValueError: a missing column, a blank id, a label that is not 0 or 1, a negative duration, a row
            without date or time where that is not allowed, or one with only one of the two.
    """
    log = _numbers(_columns(frame, LOG_COLUMNS, name), LOG_COLUMNS, name)
    log = _ids(log, ("user_id", "video_id"), name)
    for label in LABELS:
        strange = ~log[label].isin((0, 1)).to_numpy()
        if strange.any():
            raise ValueError(
                f"{name}: {label} is {_shown(log[label], strange)} in {strange.sum():,} rows, expected 0 or 1: "
                "correct or remove these rows"
            )
    log = log.astype(dict.fromkeys(LABELS, np.uint8))
    _no_negative(log, LOG_DURATIONS, name)
    no_time = log["time_ms"].isna().to_numpy()
    no_date = log["date"].isna().to_numpy()
    if (no_time != no_date).any():
        raise ValueError(
            f"{name}: {(no_time != no_date).sum():,} rows have only one of date and time_ms, expected both or "
            "(in the first log) neither: fill or remove these rows"
        )
    if not times_may_be_blank and no_time.any():
        raise ValueError(
            f"{name}: {no_time.sum():,} rows have no time_ms, expected one in every row (only rows of "
            f"{FIRST_LOG} may lack it): fill or remove these rows"
        )
    return log


def checked_users(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The user table with its 31 columns; ids int64, text as str, the others float64.

    Raises:
        ValueError: a missing column, a blank id, or a user that stands in more than one row.
    """
    numbers = tuple(column for column in USER_COLUMNS if column not in USER_TEXT)
    users = _ids(_numbers(_columns(frame, USER_COLUMNS, name), numbers, name), ("user_id",), name)
    _no_duplicates(users, "user_id", name)
    return users


def checked_videos(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The video table with its 12 columns; ids int64, text as str, the others float64.

    Raises:
        ValueError: a missing column, a blank id, a video that stands in more than one row, a negative
            duration, or an upload date that is none.
    """
    numbers = tuple(column for column in VIDEO_COLUMNS if column not in VIDEO_TEXT)
    videos = _ids(_numbers(_columns(frame, VIDEO_COLUMNS, name), numbers, name), ("video_id",), name)
    _no_duplicates(videos, "video_id", name)
    _no_negative(videos, VIDEO_DURATIONS, name)
    days = pd.to_datetime(videos["upload_dt"], format="%Y-%m-%d", errors="coerce")
    strange = (days.isna() & videos["upload_dt"].notna()).to_numpy()
    if strange.any():
        raise ValueError(
            f"{name}: upload_dt is {_shown(videos['upload_dt'], strange)} in {strange.sum():,} rows, expected "
            "dates such as 2022-04-09: correct or blank them"
        )
    return videos


def _read(path: Path, columns: Sequence[str], text: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """The listed columns of a file and the sha256 of its text."""
    try:
        with open_text(path) as file:
            content = file.read()
    except DAMAGED as error:
        raise ValueError(
            f"{path} is cut short or damaged and does not unpack: remove it and get it anew"
        ) from error
    header = content.split(b"\n", 1)[0].decode("utf-8", "replace").strip().split(",")
    _no_missing(header, columns, str(path))
    kinds = {c: "str" if c in text else "float64" for c in columns}
    try:
        frame = pd.read_csv(io.BytesIO(content), usecols=list(columns), dtype=kinds)
    except (ValueError, pd.errors.ParserError) as error:
        told = " ".join(str(error).split())
        raise ValueError(
            f"{path} cannot be read ({told}), expected numbers under {', '.join(c for c in columns if c not in text)}"
            ": get the file anew"
        ) from error
    return frame, hashlib.sha256(content).hexdigest()


def _no_missing(there: Iterable[str], columns: Sequence[str], name: str) -> None:
    have = set(there)
    missing = [column for column in columns if column not in have]
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} of its {len(columns)} columns ({', '.join(missing)}): expected a file in "
            "the official layout of KuaiRand-Pure, get it anew"
        )


def _columns(frame: pd.DataFrame, columns: Sequence[str], name: str) -> pd.DataFrame:
    """The listed columns in their order, with a fresh index."""
    _no_missing((str(column) for column in frame.columns), columns, name)
    return frame[list(columns)].reset_index(drop=True)


def _numbers(frame: pd.DataFrame, columns: Sequence[str], name: str) -> pd.DataFrame:
    try:
        return frame.astype(dict.fromkeys(columns, np.float64))
    except (ValueError, TypeError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{name} holds what is no number ({told}): correct or blank it") from error


def _ids(frame: pd.DataFrame, columns: Sequence[str], name: str) -> pd.DataFrame:
    for column in columns:
        strange = ~(frame[column] % 1 == 0).to_numpy()
        if strange.any():
            raise ValueError(
                f"{name}: {column} is {_shown(frame[column], strange)} in {strange.sum():,} rows, expected a whole "
                "number in every row: correct or remove these rows"
            )
    return frame.astype(dict.fromkeys(columns, np.int64))


def _no_negative(frame: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    for column in columns:
        negative = (frame[column] < 0).to_numpy()
        if negative.any():
            raise ValueError(
                f"{name}: {column} is {_shown(frame[column], negative)} in {negative.sum():,} rows, expected "
                "milliseconds from 0 up: correct or blank these values"
            )


def _no_duplicates(frame: pd.DataFrame, column: str, name: str) -> None:
    again = frame[column].duplicated().to_numpy()
    if again.any():
        raise ValueError(
            f"{name}: {column} {_shown(frame[column], again)} stands in more than one row ({again.sum():,} rows too "
            "many), expected one row each: keep one of them"
        )


def _shown(column: pd.Series, rows: NDArray[np.bool_]) -> str:
    """The first of the values in question, for an error."""
    value = column[rows].iloc[0]
    if pd.isna(value):
        return "blank"
    return f"{value:.15g}" if isinstance(value, float) else str(value)
