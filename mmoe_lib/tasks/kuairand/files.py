"""KuaiRand-Pure's files: found or downloaded, checked against the official layout, parsed."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmoe_lib.tasks import download
from mmoe_lib.tasks.download import (
    ALL_WITHIN,
    ANSWER_WITHIN,
    DAMAGED,
    FileSet,
    cache_folder,
    can_be_had,
    fetch_archive,
    open_text,
)
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

FOLDER = "kuairand-pure"
PLACES = (FOLDER, "KuaiRand-Pure/data", ".")
"""Where the files may lie below a folder that was named: our own name, that of the archive, the folder."""

BY_HAND = (
    "unpack KuaiRand-Pure.tar.gz (https://zenodo.org/records/10439422) in a folder and pass it as path= or in "
    "the environment variable MMOE_DATA"
)


@dataclass(frozen=True)
class Release:
    """The published archive.

    Attributes:
        title: for readers.
        archives: addresses of the .tar.gz, the preferred one first.
        md5: of the archive, as published.
        complete_rows: of both standard logs together, exact duplicates included.
        needed: the files without which nothing can be done.
        optional: files that are taken when they are there.
    """

    title: str
    archives: tuple[str, ...]
    md5: str
    complete_rows: int
    needed: tuple[str, ...] = (FIRST_LOG, SECOND_LOG, USERS, VIDEOS)
    optional: tuple[str, ...] = (RANDOM_LOG,)


KUAIRAND_PURE = Release(
    title="KuaiRand-Pure",
    archives=("https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz",),
    md5="0820331067a3784d9691136f772b35a7",
    complete_rows=1_436_609,
)
"""The only release there is; tests pass generated ones."""


@dataclass(frozen=True)
class KuaiRandFiles:
    """Where the files lie (.csv or .csv.gz); `random` is None when the log of random impressions is absent."""

    first_log: Path
    second_log: Path
    users: Path
    videos: Path
    random: Path | None


def find(
    path: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    release: Release = KUAIRAND_PURE,
) -> KuaiRandFiles | None:
    """Find the files of a release on this machine, without a network, as `download.find` does; None when they are not."""
    found = download.find(_file_set(release), path, cache=cache)
    if found is None:
        return None
    first, second, users, videos = (found[name] for name in release.needed)
    return KuaiRandFiles(first, second, users, videos, found.get(RANDOM_LOG))


def _file_set(release: Release) -> FileSet:
    return FileSet(FOLDER, PLACES, release.needed, BY_HAND, release.optional)


def find_or_download(
    path: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    release: Release = KUAIRAND_PURE,
    progress: bool = True,
    answer_within: float = ANSWER_WITHIN,
    all_within: float = ALL_WITHIN,
) -> KuaiRandFiles:
    """Find the files as `find` does, else download the archive and put its files into the cache.

    Raises:
        FileNotFoundError: as `download.find`.
        DownloadError: no address gave the archive with the published md5; without a network this takes at
            most 20 s.
        OSError: the cache cannot be written.
    """
    found = find(path, cache=cache, release=release)
    if found is not None:
        return found
    files = _file_set(release)
    fetch_archive(
        files,
        release.archives,
        release.md5,
        cache_folder(files, cache),
        title=release.title,
        answer_within=answer_within,
        all_within=all_within,
        progress=progress,
    )
    return cast(KuaiRandFiles, find(path, cache=cache, release=release))


def available(
    path: str | os.PathLike[str] | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    release: Release = KUAIRAND_PURE,
    progress: bool = True,
) -> bool:
    """Whether the real files can be had, as `download.can_be_had` tells it; downloads them when that is what it takes."""
    return can_be_had(lambda: find_or_download(path, cache=cache, release=release, progress=progress))


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
