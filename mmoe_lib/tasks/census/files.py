"""Census-Income's official files: found or downloaded, checked, parsed, and kept in a fast form."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmoe_lib.files import write_whole
from mmoe_lib.tasks.census.columns import COLUMNS, CONTINUOUS, NOMINAL, WEIGHT, categories
from mmoe_lib.tasks.download import DAMAGED, OfficialFile, Release, Source, open_text

_FAST_FORM = 1  # raised when the layout of the .npz changes


def _offered_in(folder: str) -> Source:
    return {name: f"{folder}/{name}.gz" for name in ("census-income.data", "census-income.test")}


UCI_117 = Release(
    title="Census-Income (KDD), UCI data set 117",
    folder="census-income",
    places=("census-income", "."),
    files=(
        OfficialFile(
            "census-income.data", 199_523, "3676a81db7d3528f3f8b9f3c699d0f0aa28db45e6e994fa0b8ed38327539ee86"
        ),
        OfficialFile(
            "census-income.test", 99_762, "98402b1ab879573d0a7f38a699a40258080e25e33d3401e7bf9c96d3fa0fab8c"
        ),
    ),
    by_hand="put census-income.data.gz and census-income.test.gz (https://archive.ics.uci.edu/dataset/117) in a "
    "folder and pass it as path= or in the environment variable MMOE_DATA",
    sources=(
        dict.fromkeys(
            ("census-income.data", "census-income.test"),
            "https://archive.ics.uci.edu/static/public/117/census+income+kdd.zip",
        ),
        _offered_in("https://archive.ics.uci.edu/ml/machine-learning-databases/census-income-mld"),
        _offered_in(
            "https://raw.githubusercontent.com/drawbridge/keras-mmoe/5532ffb3ed6bccf4a0eae9d189fa0d661357425f/data"
        ),
    ),
    mistaken={"adult*": "the Adult set with 15 columns, another one"},
)
"""The only release there is, the train table first; tests pass generated ones."""

available = UCI_117.available
"""Whether the real files can be had, as `mmoe_lib.tasks.download.Release.available` tells it."""


def read(
    files: Mapping[str, Path], *, cache: str | os.PathLike[str] | None = None, release: Release = UCI_117
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """The train and test table, and the sha256 of each file's text, by name.

    The first time the files are parsed and checked, and a fast form (an .npz of codes, keyed by the sums of
    the files as they lie there) is left in the cache; from then on that is read.

    Args:
        files: by name, from `release.find_or_download`.
        cache: the folder of the fast form; None for that of downloads.
        release: what the files should be.

    Raises:
        ValueError: a file is not the official one (cut short, Adult, another sum).
    """
    folder = release.cache_folder(cache)
    fast = folder / f"fast-{_key(files)}.npz"
    expected = {file.name: file.sha256 for file in release.files}
    if fast.is_file():
        try:
            train, test, sums = _read_fast(fast)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            pass  # not readable: parse again and write it anew
        else:
            if sums == expected:
                return train, test, sums
    train, test, sums = parse(files, release=release)
    try:
        _write_fast(fast, train, test, sums)
    except OSError as error:
        warnings.warn(
            f"cannot write to the cache folder {folder} ({error.strerror}): the files will be parsed anew "
            "each time; pass cache= a writable folder",
            RuntimeWarning,
            stacklevel=3,
        )
    return train, test, sums


def parse(
    files: Mapping[str, Path],
    listed: Mapping[str, Sequence[str]] | None = None,
    *,
    release: Release = UCI_117,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Parse and check both files.

    Args:
        files: by name, where they lie.
        listed: the categories that lead each nominal column, `categories()` when None. Values outside of them
            follow, sorted.
        release: what the files should be.

    Returns:
        As `read`. Values carry no blanks at either end; a nominal column has the same dtype in both tables.

    Raises:
        ValueError: a file is not the official one.
    """
    listed = categories() if listed is None else listed
    raw = []
    sums = {}
    for official in release.files:
        text = _checked_text(files[official.name], official)
        sums[official.name] = official.sha256
        raw.append(
            pd.read_csv(
                io.BytesIO(text),
                header=None,
                names=list(COLUMNS),
                dtype={
                    c: "float32" if c == WEIGHT else "int32" if c in CONTINUOUS else "category"
                    for c in COLUMNS
                },
                skipinitialspace=True,
                na_filter=False,  # "NA" is a value of hisp_origin
                low_memory=False,
            )
        )
    for column in NOMINAL:
        values = [[str(value).strip() for value in table[column].cat.categories] for table in raw]
        unlisted = sorted({*values[0], *values[1]}.difference(listed[column]))
        names = [*listed[column], *unlisted]
        position = {name: index for index, name in enumerate(names)}
        dtype = pd.CategoricalDtype(names)
        for table, own in zip(raw, values, strict=True):
            translate = np.array([position[value] for value in own])
            codes = translate[table[column].cat.codes.to_numpy()]
            table[column] = pd.Categorical.from_codes(codes, dtype=dtype)
    return raw[0], raw[1], sums


def _checked_text(path: Path, official: OfficialFile) -> bytes:
    """The uncompressed text, or an error that says in what way it is not the official one."""
    try:
        with open_text(path) as file:
            text = file.read()
    except DAMAGED as error:
        raise ValueError(f"{path} is cut short or damaged and does not unpack: {_again(official)}") from error
    actual = hashlib.sha256(text).hexdigest()
    if actual == official.sha256:
        return text
    columns = text.split(b"\n", 1)[0].count(b",") + 1
    if columns == 15:
        raise ValueError(
            f"{path} has 15 columns: it is the Adult set (48,842 rows), expected Census-Income (KDD) with "
            f"{len(COLUMNS)} columns: {_again(official)}"
        )
    if columns != len(COLUMNS):
        raise ValueError(f"{path} has {columns} columns, expected {len(COLUMNS)}: {_again(official)}")
    rows = text.count(b"\n") + (not text.endswith(b"\n"))
    if rows != official.rows:
        kind = "is cut short, it" if rows < official.rows else "is too long, it"
        raise ValueError(f"{path} {kind} has {rows:,} rows, expected {official.rows:,}: {_again(official)}")
    raise ValueError(
        f"{path} has the wrong sum: sha256 of the text {actual}, expected {official.sha256}: "
        f"{_again(official)}"
    )


def _again(official: OfficialFile) -> str:
    return f"remove it and get {official.name}.gz anew from https://archive.ics.uci.edu/dataset/117"


def _key(files: Mapping[str, Path]) -> str:
    """Changes with the bytes of the files, the listed categories and the layout of the fast form."""
    key = hashlib.sha256(f"{_FAST_FORM} {sorted(categories().items())}".encode())
    for _, path in sorted(files.items()):  # data, test
        key.update(hashlib.sha256(path.read_bytes()).digest())
    return key.hexdigest()[:16]


def _write_fast(target: Path, train: pd.DataFrame, test: pd.DataFrame, sums: Mapping[str, str]) -> None:
    arrays: dict[str, NDArray[Any]] = {"sums": np.array(list(sums.items()))}
    for column in COLUMNS:
        both = pd.concat([train[column], test[column]])
        if column in NOMINAL:
            arrays[f"categories {column}"] = np.array([str(value) for value in both.cat.categories])
            arrays[column] = both.cat.codes.to_numpy()
        else:
            arrays[column] = both.to_numpy()
    arrays["train rows"] = np.array(len(train))
    target.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_whole(target, content.getvalue())


def _read_fast(path: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    with np.load(path, allow_pickle=False) as arrays:
        columns: dict[str, Any] = {}
        for column in COLUMNS:
            columns[column] = arrays[column]
            if column in NOMINAL:
                dtype = pd.CategoricalDtype([str(value) for value in arrays[f"categories {column}"]])
                columns[column] = pd.Categorical.from_codes(columns[column], dtype=dtype)
        rows = int(arrays["train rows"])
        sums = {str(name): str(value) for name, value in arrays["sums"]}
    both = pd.DataFrame(columns)
    return both.iloc[:rows].copy(), both.iloc[rows:].reset_index(drop=True), sums
