"""Small files in the official layout of KuaiRand-Pure, drawn without any row of the real set."""

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmoe_lib.tasks.download import Release
from mmoe_lib.tasks.kuairand.columns import (
    FIRST_LOG,
    LOG_COLUMNS,
    RANDOM_LOG,
    SECOND_LOG,
    USER_COLUMNS,
    USER_TEXT,
    USERS,
    VIDEO_COLUMNS,
    VIDEOS,
)
from mmoe_lib.tasks.kuairand.files import KUAIRAND_PURE

STATISTICS = "video_features_statistic_pure.csv"
"""The file with averages over the month, which nothing may open."""

DAY_MS = 86_400_000
NUM_USERS, NUM_VIDEOS = 24, 30


def log_rows(rows: int, first_day: int, days: int, generator: np.random.Generator) -> pd.DataFrame:
    """Impressions on some days of 2022 (counted from 8 April), many of them two or three to a request."""
    time = first_day * DAY_MS + generator.integers(0, days * DAY_MS // 1000, size=rows) * 1000
    user = generator.integers(0, NUM_USERS, size=rows)
    # Every fourth row takes user and time of the one before: one request.
    for row in range(1, rows):
        if row % 4 == 0 or row % 12 == 1:
            user[row], time[row] = user[row - 1], time[row - 1]
    day = pd.Timestamp(2022, 4, 8) + pd.to_timedelta(time // DAY_MS, unit="D")
    frame: dict[str, NDArray[Any]] = {c: generator.integers(0, 2, size=rows) for c in LOG_COLUMNS}
    frame |= {
        "user_id": user,
        "video_id": generator.integers(0, NUM_VIDEOS, size=rows),
        "date": pd.Series(day).dt.strftime("%Y%m%d").astype(int).to_numpy(),
        "time_ms": 1_649_347_200_000 + time,
        "is_like": (generator.random(rows) < 0.1).astype(int),
        "is_rand": np.zeros(rows, dtype=int),
    }
    for column in ("play_time_ms", "duration_ms", "profile_stay_time", "comment_stay_time"):
        frame[column] = generator.integers(0, 90_000, size=rows)
    return pd.DataFrame(frame)[list(LOG_COLUMNS)]


def blanked(log: pd.DataFrame) -> pd.DataFrame:
    """The log as a reconstruction has it: sorted, with only ids, labels and is_rand filled."""
    log = log.sort_values(["user_id", "time_ms"], kind="stable").reset_index(drop=True).astype("object")
    known = ("user_id", "video_id", "is_like", "long_view", "is_rand")
    log[[column for column in LOG_COLUMNS if column not in known]] = None
    return log


class GeneratedKuaiRand:
    """Small files in a folder as a user would put them there; change a frame and `write` again.

    User 23 and video 29 have no features; video 28 has neither author nor duration nor tag.
    """

    def __init__(self, folder: Path, *, times_blank: bool = False) -> None:
        self.folder = folder
        generator = np.random.default_rng(5)
        self.first = log_rows(500, 0, 14, generator)
        if times_blank:
            self.first = blanked(self.first)
        second = log_rows(400, 14, 17, generator)
        self.second = pd.concat([second, second.iloc[[3, 17, 17]]], ignore_index=True)  # exact duplicates
        self.random: pd.DataFrame | None = log_rows(150, 14, 17, generator).assign(is_rand=1)
        users = {column: generator.integers(0, 4, size=NUM_USERS - 1) for column in USER_COLUMNS}
        users |= {column: np.array(["a", "(10,50]", "b"])[users[column] % 3] for column in USER_TEXT}
        users["user_id"] = np.arange(NUM_USERS - 1)
        users["fans_user_num"] = generator.integers(0, 5000, size=NUM_USERS - 1)
        self.users = pd.DataFrame(users)[list(USER_COLUMNS)].astype({"onehot_feat4": "object"})
        self.users.loc[2, "onehot_feat4"] = None
        videos = {column: generator.integers(1, 5, size=NUM_VIDEOS - 1) for column in VIDEO_COLUMNS}
        videos["video_id"] = np.arange(NUM_VIDEOS - 1)
        videos["video_duration"] = generator.integers(5_000, 90_000, size=NUM_VIDEOS - 1)
        self.videos = pd.DataFrame(videos)[list(VIDEO_COLUMNS)].astype("object")
        self.videos["video_type"] = "NORMAL"
        self.videos["upload_type"] = np.array(["Web", "Kmovie"])[np.arange(NUM_VIDEOS - 1) % 2]
        self.videos["upload_dt"] = np.array(["2022-04-09", "2022-04-11"])[np.arange(NUM_VIDEOS - 1) % 2]
        self.videos["tag"] = np.array(["39,68", "39", "7"])[np.arange(NUM_VIDEOS - 1) % 3]
        self.videos.loc[28, ["author_id", "video_duration", "tag"]] = None
        self.write()

    def texts(self) -> dict[str, bytes]:
        """The text of each file by its name."""
        frames = {FIRST_LOG: self.first, SECOND_LOG: self.second, USERS: self.users, VIDEOS: self.videos}
        if self.random is not None:
            frames[RANDOM_LOG] = self.random
        return {name: frame.to_csv(index=False).encode() for name, frame in frames.items()}

    def write(self, *, zipped: bool = True) -> None:
        """Write all files, in place of those that lie there, and a file of month statistics that is no table."""
        for file in list(self.folder.iterdir()):
            file.unlink()
        for name, text in self.texts().items():
            if zipped:
                (self.folder / f"{name}.gz").write_bytes(gzip.compress(text, mtime=0))
            else:
                (self.folder / name).write_bytes(text)
        (self.folder / STATISTICS).write_bytes(b"\x00 not to be opened")

    @property
    def release(self) -> Release:
        """A release of these rows that is offered nowhere."""
        rows = len(self.first) + len(self.second) + 100
        return replace(KUAIRAND_PURE, title="generated KuaiRand", sources=(), md5="", complete_rows=rows)

    def archive(self) -> bytes:
        """A .tar.gz as the publisher packs it, with the month statistics."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, text in {**self.texts(), STATISTICS: b"statistics", "README.md": b"read me"}.items():
                info = tarfile.TarInfo(f"KuaiRand-Pure/data/{name}")
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text))
        return packed.getvalue()


def md5(content: bytes) -> str:
    """The md5 of an archive, as the publisher states it."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
