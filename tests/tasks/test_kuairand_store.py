"""A store holds what was written, comes whole or not at all, and says what is wrong with it in one line."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmoe_lib.tasks.kuairand import store as kuairand_store
from mmoe_lib.tasks.kuairand.column_files import mapped
from mmoe_lib.tasks.kuairand.columns import (
    PREVIOUS_SPARSE,
    USER_DENSE,
    USER_SPARSE,
    VIDEO_DENSE,
    VIDEO_SPARSE,
)
from mmoe_lib.tasks.kuairand.features import FeatureTables, Impressions
from mmoe_lib.tasks.kuairand.history import HISTORY
from mmoe_lib.tasks.kuairand.store import COLUMNS, ImpressionStore, open_store, write

USERS, VIDEOS, ROWS = 6, 9, 1000


@pytest.fixture
def features() -> FeatureTables:
    def table(rows: int, ids: int, numbers: int) -> Tensor:
        return torch.cat([torch.randint(100, (rows, ids)), torch.rand(rows, numbers)], dim=1)

    return FeatureTables(
        user_table=table(USERS, len(USER_SPARSE), len(USER_DENSE)),
        video_table=table(VIDEOS, len(VIDEO_SPARSE), len(VIDEO_DENSE)),
        num_user_sparse=len(USER_SPARSE),
        num_video_sparse=len(VIDEO_SPARSE),
        vocabulary=105,
        outcome_start=100,
        sparse_names=(*USER_SPARSE, *VIDEO_SPARSE, *PREVIOUS_SPARSE, "previous_outcome"),
        dense_names=(*USER_DENSE, *VIDEO_DENSE, *HISTORY),
    )


@pytest.fixture
def part() -> Impressions:
    return Impressions(
        user=torch.randint(USERS, (ROWS,), dtype=torch.int32),
        video=torch.randint(VIDEOS, (ROWS,), dtype=torch.int32),
        previous=torch.randint(VIDEOS, (ROWS,), dtype=torch.int32),
        outcome=torch.randint(5, (ROWS,), dtype=torch.uint8),
        history=torch.rand(ROWS, len(HISTORY)),
        labels=torch.randint(2, (ROWS, 2), dtype=torch.uint8),
    )


@pytest.fixture
def store(tmp_path: Path, part: Impressions, features: FeatureTables) -> ImpressionStore:
    return write(tmp_path / "store", part, features)


def _slice(part: Impressions, rows: slice) -> Impressions:
    return Impressions(**{name: getattr(part, name)[rows] for name in COLUMNS})


def _equal(one: Impressions | FeatureTables, other: Impressions | FeatureTables) -> bool:
    assert type(one) is type(other)
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, torch.Tensor):
            if left.dtype != right.dtype or not torch.equal(left, right):
                return False
        elif left != right or type(left) is not type(right):
            return False
    return True


def test_what_is_read_is_what_was_written(
    store: ImpressionStore, part: Impressions, features: FeatureTables
) -> None:
    opened = open_store(store.folder)
    assert len(opened) == ROWS
    assert _equal(opened.impressions(), part)
    assert _equal(opened.features, features)
    bytes_a_row = sum(mapped(path).nbytes for path in opened.columns.values()) / ROWS
    assert bytes_a_row == 43


def test_pieces_make_the_same_files_as_the_whole(
    store: ImpressionStore, part: Impressions, features: FeatureTables, tmp_path: Path
) -> None:
    bounds = [0, 1, 400, 400, ROWS]  # one piece is empty
    pieces = (_slice(part, slice(a, b)) for a, b in pairwise(bounds))
    other = write(tmp_path / "around" / "pieces", pieces, features)
    for path in store.folder.iterdir():
        assert (other.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_columns_are_plain_npy_files(store: ImpressionStore, part: Impressions) -> None:
    for name, path in store.columns.items():
        np.testing.assert_array_equal(np.load(path), getattr(part, name).numpy())


def test_rows_are_joined_as_in_memory(
    store: ImpressionStore, part: Impressions, features: FeatureTables
) -> None:
    rows = torch.tensor([5, 999, 0, 5])
    x, y = store.take({name: getattr(part, name)[rows] for name in COLUMNS})
    expected = features.rows(part, rows)
    assert torch.equal(x, expected[0])
    assert torch.equal(y, expected[1])
    assert x.shape == (4, len(features.sparse_names) + len(features.dense_names))
    (ids, numbers), labels = store.take_pairs({name: getattr(part, name)[rows] for name in COLUMNS})
    assert ids.dtype == torch.int64
    assert torch.equal(torch.cat([ids, numbers], dim=1), x)
    assert torch.equal(labels, y)


def test_a_write_that_fails_leaves_nothing(
    part: Impressions, features: FeatureTables, tmp_path: Path
) -> None:
    def pieces() -> Iterator[Impressions]:
        yield part
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "store", pieces(), features)
    assert list(tmp_path.iterdir()) == []


def test_until_the_end_there_is_no_folder_of_that_name(
    part: Impressions, features: FeatureTables, tmp_path: Path
) -> None:
    """What a process killed at any of these moments leaves behind is not opened."""
    seen: list[Path] = []

    def pieces() -> Iterator[Impressions]:
        yield part
        seen.extend(tmp_path.iterdir())
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            open_store(tmp_path / "store")
        with pytest.raises(FileNotFoundError, match=r"holds no store\.json"):
            open_store(seen[0])
        yield part

    assert len(write(tmp_path / "store", pieces(), features)) == 2 * ROWS
    assert [path.name.startswith(".store-unfinished") for path in seen] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_store_is_not_written_over(
    store: ImpressionStore, part: Impressions, features: FeatureTables
) -> None:
    with pytest.raises(FileExistsError, match="is there already: delete it"):
        write(store.folder, _slice(part, slice(10)), features)
    assert len(open_store(store.folder)) == ROWS


@pytest.mark.parametrize("name", [*COLUMNS, "user_table", "video_table"])
@pytest.mark.parametrize("damage", ["missing", "cut in its header", "cut", "longer", "no numbers"])
def test_a_damaged_file_is_one_line(store: ImpressionStore, name: str, damage: str) -> None:
    path = store.folder / f"{name}.npy"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "no numbers":
        path.write_text("not a column")
    else:
        path.write_bytes({"cut": content[:-1], "longer": content + b"0"}.get(damage, content[:20]))
    error = FileNotFoundError if damage == "missing" else ValueError
    with pytest.raises(error, match="write the store again") as raised:
        open_store(store.folder)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_columns_of_other_length_or_type_are_one_line(store: ImpressionStore) -> None:
    video = np.load(store.columns["video"])
    np.save(store.columns["video"], video[:-1])
    with pytest.raises(
        ValueError, match=r"video\.npy is int32 of shape \(999,\), expected int32 .*\(1000,\)"
    ):
        open_store(store.folder)
    np.save(store.columns["video"], video.astype(np.int64))
    with pytest.raises(ValueError, match=r"video\.npy is int64 .*expected int32"):
        open_store(store.folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"num_rows": 1000, "features": {"users": 3}}'])
def test_damaged_contents_are_one_line(store: ImpressionStore, text: str) -> None:
    (store.folder / kuairand_store.CONTENTS).write_text(text)
    with pytest.raises(ValueError, match=r"store\.json is damaged") as raised:
        open_store(store.folder)
    assert "\n" not in str(raised.value)


def test_contents_can_be_read_by_people(store: ImpressionStore) -> None:
    contents = json.loads((store.folder / "store.json").read_text(encoding="utf-8"))
    assert contents["num_rows"] == ROWS
    assert contents["features"]["outcome_start"] == 100


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("user", 3, USERS, "user is 6 in row 1,003, expected 0 to 5"),
        ("video", 0, -1, "video is -1 in row 1,000, expected 0 to 8"),
        ("previous", 999, VIDEOS, "previous is 9 in row 1,999, expected 0 to 8"),
        ("outcome", 5, 5, "outcome is 5 in row 1,005, expected 0 to 4"),
        ("history", 7, float("nan"), "history is nan in row 1,007, expected finite numbers"),
        ("labels", 8, 2, "labels is 2 in row 1,008, expected 0 to 1"),
    ],
)
def test_impossible_numbers_are_not_written(
    part: Impressions,
    features: FeatureTables,
    tmp_path: Path,
    name: str,
    row: int,
    value: float,
    message: str,
) -> None:
    column = getattr(part, name).clone()
    column[row] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        write(tmp_path / "store", [part, replace(part, **{name: column})], features)
    assert list(tmp_path.iterdir()) == []


def test_columns_that_do_not_belong_together_are_not_written(
    part: Impressions, features: FeatureTables, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    with pytest.raises(ValueError, match=r"different numbers of rows \(user 1,000, video 999,"):
        write(folder, replace(part, video=part.video[:-1]), features)
    with pytest.raises(ValueError, match=r"history holds float32 rows of shape \(6,\), expected .*\(7,\)"):
        write(folder, replace(part, history=part.history[:, :6]), features)
    with pytest.raises(ValueError, match="user holds int64 rows"):
        write(folder, replace(part, user=part.user.long()), features)
    for nothing in (iter(()), _slice(part, slice(0))):
        with pytest.raises(ValueError, match="there are no impressions"):
            write(folder, nothing, features)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_oserror(
    part: Impressions, features: FeatureTables, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write(tmp_path / "file" / "store", part, features)
