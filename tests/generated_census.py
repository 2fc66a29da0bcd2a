"""Small files in the official format of Census-Income, drawn from the stand-in."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mmoe_lib.tasks.census import simulated as census_simulated
from mmoe_lib.tasks.census.columns import NOMINAL
from mmoe_lib.tasks.census.files import UCI_117
from mmoe_lib.tasks.download import OfficialFile, Release


def official_text(people: pd.DataFrame) -> bytes:
    """The table as the real files write it: no header, a blank after each comma, some blanks behind."""
    columns = [
        people[column].astype(str) if column in NOMINAL else people[column].map("{:g}".format)
        for column in people.columns
    ]
    rows = zip(*columns, strict=True)
    lines = [", ".join(row).replace("inspctrs,", "inspctrs ,") for row in rows]
    return ("\n".join(lines) + "\n").encode()


def release_of(texts: Mapping[str, bytes], sources: tuple[Mapping[str, str], ...] = ()) -> Release:
    """A release whose rows and sums are those of generated texts."""
    files = tuple(
        OfficialFile(name, text.count(b"\n"), hashlib.sha256(text).hexdigest())
        for name, text in texts.items()
    )
    return replace(UCI_117, title="generated census", files=files, sources=sources)


class Generated:
    """Small files in the official format, lying in a folder as a user would put them there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train = census_simulated.draw(600, np.random.default_rng(1))
        self.test = census_simulated.draw(401, np.random.default_rng(2))
        self.write()

    def write(self) -> None:
        """Write both tables; after a change of `train` or `test` this makes a new release."""
        self.texts = {
            "census-income.data": official_text(self.train),
            "census-income.test": official_text(self.test),
        }
        self.release = release_of(self.texts)
        for name, text in self.texts.items():
            (self.folder / f"{name}.gz").write_bytes(gzip.compress(text, mtime=0))
