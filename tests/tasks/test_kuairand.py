import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from generated_kuairand import STATISTICS, GeneratedKuaiRand, md5
from numpy.typing import NDArray
from test_download import Server

from mmoe_lib.tasks.download import DownloadError, OfficialFile
from mmoe_lib.tasks.kuairand import KuaiRandTables, RankingData, encode, load
from mmoe_lib.tasks.kuairand.columns import (
    FIRST_LOG,
    LABELS,
    LOG_COLUMNS,
    RANDOM_LOG,
    SECOND_LOG,
    USER_COLUMNS,
    USER_DENSE,
    USERS,
    VIDEO_COLUMNS,
    VIDEOS,
)
from mmoe_lib.tasks.kuairand.files import KUAIRAND_PURE, archive_of_all, read_log

pytestmark = pytest.mark.usefixtures("alone")

SAME_IMPRESSION = (
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "play_time_ms",
    "profile_stay_time",
    "comment_stay_time",
    "is_profile_enter",
)
"""The outcomes of an impression, known only after it: never inputs of the same impression."""
PARTS = ("train", "validation", "test")
LONG, LIKE = LABELS

Change = Callable[[GeneratedKuaiRand], None]


@pytest.fixture
def made(tmp_path: Path) -> GeneratedKuaiRand:
    folder = tmp_path / "by hand"
    folder.mkdir()
    return GeneratedKuaiRand(folder)


@pytest.fixture(params=["times known", "times of the first log blank"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> KuaiRandTables:
    folder = tmp_path / "files"
    folder.mkdir()
    return load(GeneratedKuaiRand(folder, times_blank="blank" in request.param).folder)


@pytest.fixture(scope="session")
def real_files() -> dict[str, Path]:
    """The real files by MMOE_DATA or the cache; nothing is downloaded."""
    found = KUAIRAND_PURE.find()
    if found is None:
        pytest.skip("the real KuaiRand-Pure files are not here: set MMOE_DATA to the folder that holds them")
    return found


@pytest.fixture(scope="session")
def real(real_files: dict[str, Path]) -> KuaiRandTables:
    return load(real_files[FIRST_LOG].parent)


@pytest.fixture(scope="session")
def real_data(real: KuaiRandTables) -> RankingData:
    return encode(real)


@pytest.fixture
def server() -> Iterator[Callable[[dict[str, bytes]], Server]]:
    servers: list[Server] = []

    def start(pages: dict[str, bytes]) -> Server:
        servers.append(Server(pages))
        return servers[-1]

    yield start
    for each in servers:
        each.close()


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


def inputs(data: RankingData) -> NDArray[np.float32]:
    """The inputs of train, validation and test below each other."""
    return np.concatenate([data.features.rows(getattr(data, p), slice(None))[0].numpy() for p in PARTS])


def in_parts(log: pd.DataFrame) -> pd.DataFrame:
    """The log's rows in the order of `inputs`, with the row of the log as index."""
    date = log["date"].fillna(0)
    part = (date > 20220424).astype(int) + (date > 20220430)
    return log.iloc[np.argsort(part.to_numpy(), kind="stable")]


def same_data(a: RankingData, b: RankingData) -> bool:
    tables_same = all(
        torch.equal(getattr(a.features, name), getattr(b.features, name))
        for name in ("user_table", "video_table")
    )
    return tables_same and all(
        torch.equal(getattr(getattr(a, p), field.name), getattr(getattr(b, p), field.name))
        for p in PARTS
        for field in fields(a.train)
    )


# --- loading ---


def test_the_tables_have_the_official_columns_without_exact_duplicates(made: GeneratedKuaiRand) -> None:
    loaded = load(made.folder, release=made.release)
    assert tuple(loaded.log.columns) == LOG_COLUMNS
    assert tuple(loaded.users.columns) == USER_COLUMNS
    assert tuple(loaded.videos.columns) == VIDEO_COLUMNS
    assert (len(LOG_COLUMNS), len(USER_COLUMNS), len(VIDEO_COLUMNS)) == (19, 31, 12)
    assert len(loaded.log) == 900
    assert not loaded.log.duplicated().any()
    assert not loaded.simulated
    assert loaded.source == "generated KuaiRand, 903 of 1,003 rows; 3 exact duplicates among them dropped"
    written = pd.concat([made.first, made.second]).drop_duplicates().sort_values(list(LOG_COLUMNS))
    read = loaded.log.sort_values(list(LOG_COLUMNS))
    np.testing.assert_array_equal(read.to_numpy(np.float64), written.to_numpy(np.float64))
    assert loaded.sha256 == {name: hashlib.sha256(text).hexdigest() for name, text in made.texts().items()}
    assert loaded.random is not None
    assert len(loaded.random) == 150


def test_blank_columns_stay_blank_and_rows_without_a_time_are_no_duplicates(tmp_path: Path) -> None:
    made = GeneratedKuaiRand(tmp_path, times_blank=True)
    made.first = pd.concat([made.first.iloc[:1], made.first], ignore_index=True)
    made.write()
    log = load(tmp_path).log
    assert len(log) == 901
    blank = log["time_ms"].isna()
    assert blank.sum() == 501
    assert log.loc[blank, ["date", "is_click", "play_time_ms", "tab"]].isna().all(axis=None)
    for column in ("user_id", "video_id", *LABELS):
        assert log.loc[blank, column].tolist() == made.first[column].tolist()


@pytest.mark.parametrize("inside", [".", "kuairand-pure", "KuaiRand-Pure/data"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_are_found_plain_or_gz_in_three_places(
    made: GeneratedKuaiRand, tmp_path: Path, inside: str, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write(zipped=zipped)
    given = tmp_path / "data"
    (given / inside).parent.mkdir(parents=True, exist_ok=True)
    if inside == ".":
        given = made.folder
    else:
        made.folder.rename(given / inside)
    by_path = load(given, cache=tmp_path / "cache")
    monkeypatch.setenv("MMOE_DATA", str(given))
    by_variable = load(cache=tmp_path / "cache")
    pd.testing.assert_frame_equal(by_path.log, by_variable.log)
    assert by_path.sha256 == by_variable.sha256
    assert not (tmp_path / "cache").exists()


def test_without_the_log_of_random_impressions_there_is_none(made: GeneratedKuaiRand) -> None:
    with_random = encode(load(made.folder))
    made.random = None
    made.write()
    without = load(made.folder)
    assert without.random is None
    assert RANDOM_LOG not in without.sha256
    data = encode(without)
    assert data.random is None
    assert same_data(data, with_random)  # random impressions are no part of anybody's history


class Opened:
    """Remembers the files that this process opens while `watching`."""

    def __init__(self) -> None:
        self.watching = False
        self.names: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event == "open":
            self.names.append(str(arguments[0]))

    @contextmanager
    def watch(self) -> Iterator[None]:
        self.watching = True
        try:
            yield
        finally:
            self.watching = False


def test_the_month_statistics_are_never_opened(made: GeneratedKuaiRand) -> None:
    assert (made.folder / STATISTICS).is_file()
    opened = Opened()
    with opened.watch():
        encode(load(made.folder))
    assert {Path(name).name for name in opened.names if name.startswith(str(made.folder))} == {
        f"{name}.gz" for name in (FIRST_LOG, SECOND_LOG, RANDOM_LOG, USERS, VIDEOS)
    }


# --- order ---


def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sample(frac=1.0, random_state=3).reset_index(drop=True)


def test_a_log_out_of_order_gives_the_same(made: GeneratedKuaiRand) -> None:
    # One impression twice at one time with another outcome: only the content can order these.
    made.second = pd.concat([made.second, made.second.iloc[[8]].assign(hourmin=7, tab=5)], ignore_index=True)
    made.write()
    ordered = load(made.folder)
    made.first, made.second = shuffled(made.first), shuffled(made.second)
    made.users, made.videos = shuffled(made.users), shuffled(made.videos)
    made.write()
    again = load(made.folder)
    pd.testing.assert_frame_equal(ordered.log, again.log)
    # The rows of the feature tables moved, the inputs did not.
    np.testing.assert_array_equal(inputs(encode(ordered)), inputs(encode(again)))


def test_rows_without_a_time_keep_their_order_within_a_user(tmp_path: Path) -> None:
    made = GeneratedKuaiRand(tmp_path, times_blank=True)
    ordered = load(tmp_path)
    # Users interleaved: the first impression of each, then the second of each, and so on.
    turn = made.first.groupby("user_id").cumcount()
    made.first = made.first.iloc[np.argsort(turn.to_numpy(), kind="stable")]
    assert not made.first["user_id"].is_monotonic_increasing
    made.second = shuffled(made.second)
    made.write()
    pd.testing.assert_frame_equal(ordered.log, load(tmp_path).log)


def test_the_order_is_by_user_and_time_with_the_first_log_before_the_second(tables: KuaiRandTables) -> None:
    log = tables.log
    assert log["user_id"].is_monotonic_increasing
    for _, own in log.groupby("user_id"):
        assert own["time_ms"].fillna(0).is_monotonic_increasing
        assert own["date"].fillna(0).is_monotonic_increasing


# --- encoding ---


def test_the_parts_are_split_by_day_and_rows_without_a_day_are_train(tables: KuaiRandTables) -> None:
    data = encode(tables)
    date = tables.log["date"]
    train = date.isna() | (date <= 20220424)
    assert len(data.train) == train.sum()
    assert len(data.validation) == ((date >= 20220425) & (date <= 20220430)).sum()
    assert len(data.test) == ((date >= 20220501) & (date <= 20220508)).sum()
    labels = torch.cat([getattr(data, part).labels for part in PARTS]).numpy()
    np.testing.assert_array_equal(labels, in_parts(tables.log)[list(LABELS)].to_numpy())
    assert data.task_names == ("engagement", "satisfaction")
    moved = encode(tables, train_end=20220428, validation_end=20220502)
    assert len(moved.test) == (date >= 20220503).sum()


def test_types_and_shapes_are_as_described(tables: KuaiRandTables) -> None:
    data = encode(tables)
    f, part = data.features, data.train
    kinds = {field.name: getattr(part, field.name).dtype for field in fields(part)}
    assert kinds == {
        "user": torch.int32,
        "video": torch.int32,
        "previous": torch.int32,
        "outcome": torch.uint8,
        "history": torch.float32,
        "labels": torch.uint8,
    }
    assert len(f.user_table) == len(tables.users) + 1
    assert len(f.video_table) == len(tables.videos) + 2
    assert (data.num_sparse, data.num_dense) == (27 + 8 + 2 + 1, 4 + 4 + 7)
    x, y = f.rows(part, torch.tensor([4, 2, 2]))
    assert x.shape == (3, data.num_inputs)
    assert (x.dtype, y.dtype, y.shape) == (torch.float32, torch.float32, (3, 2))
    sliced, _ = f.rows(part, slice(0, 5))
    assert torch.equal(x, sliced[[4, 2, 2]])
    moved, _ = f.to("cpu").rows(part.to("cpu"), slice(0, 5))
    assert torch.equal(moved, sliced)


def test_ids_are_whole_in_their_slice_and_numbers_in_0_to_1(tables: KuaiRandTables) -> None:
    data = encode(tables, min_count=3)
    f = data.features
    assert not set(f.sparse_names).intersection(SAME_IMPRESSION)
    assert not set(f.dense_names).intersection(SAME_IMPRESSION)
    x = inputs(data)
    ids, numbers = x[:, : data.num_sparse], x[:, data.num_sparse :]
    assert (ids == ids.round()).all()
    assert numbers.min() == 0
    assert numbers.max() == 1
    # The unknown bucket of each feature is the first id of its slice.
    unknown = [*f.user_table[-1, : f.num_user_sparse], *f.video_table[-1, : f.num_video_sparse]]
    start = [int(value) for value in unknown] + [f.outcome_start]
    assert start == sorted(set(start))
    assert start[0] == 0
    assert f.vocabulary == f.outcome_start + 5
    for at in range(f.num_user_sparse + f.num_video_sparse):
        assert (ids[:, at] >= start[at]).all()
        assert (ids[:, at] < start[at + 1]).all()
    outcome = ids[:, f.sparse_names.index("previous_outcome")]
    assert set(outcome - f.outcome_start) == {0, 1, 2, 3, 4}


def test_a_value_is_listed_when_it_occurs_often_enough_in_train(tables: KuaiRandTables) -> None:
    log = tables.log
    train = log[log["date"].isna() | (log["date"] <= 20220424)]
    times = train["video_id"].value_counts()
    floor = int(times.median())
    f = encode(tables, min_count=floor).features
    ids = f.video_table[:, 0].numpy()
    unknown = ids[-1]
    for row, video in enumerate(tables.videos["video_id"]):
        assert (ids[row] != unknown) == (times.get(video, 0) >= floor)
    listed = ids[ids != unknown]
    assert sorted(listed) == list(unknown + 1 + np.arange(len(listed)))
    # Tags count over videos: "39,68" and "39" are one.
    tags = f.video_table[:, f.num_video_sparse - 1].numpy()
    for a, b in ((0, 1), (3, 4)):
        assert tags[a] == tags[b] != unknown
    assert tags[0] != tags[2]
    assert tags[28] == tags[-1]  # blank


def test_users_and_videos_without_features_get_the_spare_rows(tables: KuaiRandTables) -> None:
    data = encode(tables)
    log = in_parts(tables.log).reset_index(drop=True)
    user = torch.cat([getattr(data, part).user for part in PARTS]).numpy()
    video = torch.cat([getattr(data, part).video for part in PARTS]).numpy()
    assert (log["user_id"] == 23).any()
    assert (log["video_id"] == 29).any()
    np.testing.assert_array_equal(user, log["user_id"])  # user 23 is one past the table
    np.testing.assert_array_equal(video, log["video_id"])
    f = data.features
    assert (f.user_table[23, f.num_user_sparse :] == 0).all()
    assert torch.equal(f.video_table[29], f.video_table[30])


def test_a_user_who_is_only_in_test_rows_is_unknown(made: GeneratedKuaiRand) -> None:
    """Neither their id nor the size of their numbers is known to a model that saw train alone."""
    late = made.second["date"] > 20220430
    made.first.loc[made.first["user_id"] == 7, "user_id"] = 8
    made.second.loc[(made.second["user_id"] == 7) & ~late, "user_id"] = 8
    assert (made.second["user_id"] == 7).sum() > 3
    made.users.loc[7, "fans_user_num"] = 10_000_000
    made.write()
    tables = load(made.folder)
    f = encode(tables, min_count=1).features
    ids = f.user_table[:, 0]
    assert [row for row in range(len(tables.users)) if ids[row] == ids[-1]] == [7]
    fans = f.user_table[:, f.num_user_sparse + USER_DENSE.index("fans_user_num")].numpy()
    others = [user for user in range(len(tables.users)) if user != 7]
    by_hand = np.log1p(tables.users["fans_user_num"].to_numpy(np.float64)[others])
    np.testing.assert_allclose(fans[others], (by_hand - by_hand.min()) / np.ptp(by_hand), atol=1e-6)
    assert fans[7] == 1


def test_unknown_ids_in_the_log_are_no_error(made: GeneratedKuaiRand) -> None:
    made.second.loc[5, ["user_id", "video_id"]] = 123_456_789
    made.write()
    data = encode(load(made.folder))
    date = made.second["date"][5]
    part = data.train if date <= 20220424 else data.validation if date <= 20220430 else data.test
    # The largest user id is sorted to the end. It shares the row of user 23, but not the history.
    assert [int(column[-1]) for column in (part.user, part.video, part.outcome)] == [23, 29, 0]
    assert part.history[-1, 0] == 0
    x, _ = data.features.rows(part, slice(len(part) - 1, None))
    assert torch.equal(x[0, :27], data.features.user_table[-1, :27])
    assert np.isfinite(inputs(data)).all()


def test_numbers_are_scaled_by_what_occurs_in_train(made: GeneratedKuaiRand) -> None:
    """A video seen only later may be longer than all of train; it is clipped and stretches nothing."""
    made.first.loc[made.first["video_id"] == 7, "video_id"] = 8
    day = made.second["date"]
    made.second.loc[(made.second["video_id"] == 7) & (day <= 20220424), "video_id"] = 8
    assert (made.second["video_id"] == 7).any()
    made.videos.loc[7, "video_duration"] = 10_000_000
    made.write()
    tables = load(made.folder)
    f = encode(tables).features
    length = f.video_table[:, f.num_video_sparse].numpy()
    others = [video for video in range(28) if video != 7]
    by_hand = np.log1p(tables.videos["video_duration"].to_numpy(np.float64)[others])
    expected = (by_hand - by_hand.min()) / np.ptp(by_hand)
    np.testing.assert_allclose(length[others], expected, atol=1e-6)
    assert length[7] == 1
    assert length[28] == 0  # missing


def history_by_hand(
    log: pd.DataFrame, videos: pd.DataFrame, random: pd.DataFrame | None = None
) -> list[list[float]]:
    """The history of every row of `random` (or of the log) in the log, row by row."""
    author = dict(zip(videos["video_id"], videos["author_id"], strict=True))
    result = []
    asked = log if random is None else random
    for at, (user, video, time) in enumerate(asked[["user_id", "video_id", "time_ms"]].to_numpy(np.float64)):
        own = log[log["user_id"] == user]
        earlier = own["time_ms"].isna() | (own["time_ms"] < time)
        before = own[own.index < at] if np.isnan(time) else own[earlier]
        by = author.get(int(video), np.nan)
        same_author = before[before["video_id"].map(author) == by]
        last = before.tail(5)
        previous = before.tail(1)
        result.append(
            [
                np.log1p(len(before)),
                (before[LONG].sum() + 5 / 3) / (len(before) + 5),
                (before[LIKE].sum() + 5 / 50) / (len(before) + 5),
                (last[LONG].sum() + 1 / 3) / (len(last) + 1),
                np.log1p((before["video_id"] == video).sum()),
                np.log1p(len(same_author)),
                (same_author[LONG].sum() + 1 / 3) / (len(same_author) + 1),
                -1 if previous.empty else previous["video_id"].iloc[0],
                0 if previous.empty else 1 + previous[LONG].iloc[0] + 2 * previous[LIKE].iloc[0],
            ]
        )
    return result


def test_the_history_is_what_counting_row_by_row_gives(tables: KuaiRandTables) -> None:
    data = encode(tables)
    by_hand = pd.DataFrame(history_by_hand(tables.log, tables.videos))
    expected = by_hand.loc[in_parts(tables.log).index].to_numpy()
    high = expected[: len(data.train)].max(axis=0)
    for column in (0, 4, 5):
        expected[:, column] = np.clip(expected[:, column] / high[column], 0, 1)
    counts = torch.cat([getattr(data, part).history for part in PARTS]).numpy()
    np.testing.assert_allclose(counts, expected[:, :7], atol=1e-6)
    previous = torch.cat([getattr(data, part).previous for part in PARTS]).numpy()
    np.testing.assert_array_equal(
        previous, np.where(expected[:, 7] < 0, len(tables.videos) + 1, expected[:, 7])
    )
    outcome = torch.cat([getattr(data, part).outcome for part in PARTS]).numpy()
    np.testing.assert_array_equal(outcome, expected[:, 8])


def test_random_impressions_of_the_test_days_see_the_log_before_them(tables: KuaiRandTables) -> None:
    data = encode(tables)
    assert tables.random is not None
    assert data.random is not None
    random = tables.random[tables.random["date"] > 20220430].reset_index(drop=True)
    assert len(data.random) == len(random) > 20
    by_hand = np.array(history_by_hand(tables.log, tables.videos, random))
    np.testing.assert_allclose(data.random.history[:, [1, 2, 3, 6]], by_hand[:, [1, 2, 3, 6]], atol=1e-6)
    np.testing.assert_array_equal(data.random.outcome, by_hand[:, 8])
    np.testing.assert_array_equal(data.random.labels, random[list(LABELS)])


# --- nothing from the future ---


def mutated(log: pd.DataFrame, rows: NDArray[np.bool_]) -> pd.DataFrame:
    """The log with every outcome of some rows changed."""
    log = log.copy()
    for column in SAME_IMPRESSION:
        if column in LABELS:
            log.loc[rows, column] = 1 - log.loc[rows, column]
        else:
            log.loc[rows, column] = log.loc[rows, column].fillna(0) + 17
    return log


def test_all_outcomes_are_listed() -> None:
    given = {"user_id", "video_id", "date", "hourmin", "time_ms", "duration_ms", "is_rand", "tab"}
    assert set(SAME_IMPRESSION) == set(LOG_COLUMNS) - given


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.95, 0.999])
def test_no_input_knows_an_outcome_of_its_own_or_of_a_later_impression(
    tables: KuaiRandTables, share: float
) -> None:
    """Change all outcomes from some moment on, for everybody: inputs up to that moment stay bit for bit."""
    log = tables.log
    # The moment as a rank of requests within the user, which both kinds of log have.
    request = log["time_ms"].fillna(pd.Series(np.arange(len(log)) - 1.0 * len(log)))
    rank = request.groupby(log["user_id"]).rank(method="dense").to_numpy()
    last = pd.Series(rank).groupby(log["user_id"].to_numpy()).transform("max").to_numpy()
    moment = np.maximum(1, np.ceil(share * last))
    changed = encode(replace(tables, log=mutated(log, rank >= moment)))
    order = in_parts(log).index.to_numpy()
    before, after = inputs(encode(tables)), inputs(changed)
    unaffected = (rank <= moment)[order]
    np.testing.assert_array_equal(before[unaffected], after[unaffected])
    # The comparison can fail: all but the unaffected know of the change.
    assert share > 0.9 or (before[~unaffected] != after[~unaffected]).any(axis=1).mean() > 0.9
    labels = [torch.cat([getattr(d, part).labels for part in PARTS]) for d in (encode(tables), changed)]
    np.testing.assert_array_equal((labels[0] != labels[1]).all(dim=1), (rank >= moment)[order])


def test_one_changed_impression_reaches_later_ones_of_its_user_only(tables: KuaiRandTables) -> None:
    log = tables.log
    order = in_parts(log).index.to_numpy()
    before = inputs(encode(tables))
    for row in range(7, len(log), 97):
        rows = np.arange(len(log)) == row
        after = inputs(encode(replace(tables, log=mutated(log, rows))))
        reached = np.zeros(len(log), dtype=bool)
        reached[order] = (before != after).any(axis=1)
        own = (log["user_id"] == log["user_id"][row]).to_numpy()
        time = log["time_ms"]
        later = own & (log.index > row) & ~(time == time[row]).to_numpy()
        np.testing.assert_array_equal(reached, later)


def test_rows_of_one_request_see_the_same_history(tables: KuaiRandTables) -> None:
    log = in_parts(tables.log).reset_index(drop=True)
    x = encode(tables).features.sparse_names.index("previous_outcome")
    values = inputs(encode(tables))
    timed = log[log["time_ms"].notna()]
    several = 0
    for _, rows in timed.groupby(["user_id", "time_ms"]):
        several += len(rows) > 1
        seen = values[rows.index][:, [x - 2, x - 1, x, -7, -6, -5, -4]]
        assert (seen == seen[0]).all()
    assert several > 50


# --- input that cannot be ---


def drop(table: str, column: str) -> Change:
    def change(made: GeneratedKuaiRand) -> None:
        setattr(made, table, getattr(made, table).drop(columns=column))

    return change


def put(table: str, column: str, value: object, row: int = 3) -> Change:
    def change(made: GeneratedKuaiRand) -> None:
        frame = getattr(made, table).astype("object")
        frame.loc[row, column] = value
        setattr(made, table, frame)

    return change


def twice(table: str, **other: object) -> Change:
    def change(made: GeneratedKuaiRand) -> None:
        frame = getattr(made, table)
        setattr(made, table, pd.concat([frame, frame.iloc[[4]].assign(**other)], ignore_index=True))

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop("second", "time_ms"), r"lacks 1 of its 19 columns \(time_ms\)"),
        (drop("first", "long_view"), r"lacks 1 of its 19 columns \(long_view\)"),
        (drop("random", "tab"), r"lacks 1 of its 19 columns \(tab\)"),
        (drop("users", "onehot_feat17"), r"lacks 1 of its 31 columns \(onehot_feat17\)"),
        (drop("videos", "tag"), r"lacks 1 of its 12 columns \(tag\)"),
        (put("second", "duration_ms", -5), "duration_ms is -5 in 1 rows, expected milliseconds from 0 up"),
        (put("first", "play_time_ms", -1), "play_time_ms is -1 in 1 rows"),
        (put("videos", "video_duration", -7), "video_duration is -7 in 1 rows"),
        (put("second", "is_like", 2), "is_like is 2 in 1 rows, expected 0 or 1"),
        (put("first", "long_view", -1), "long_view is -1 in 1 rows, expected 0 or 1"),
        (put("first", "long_view", 0.5), "long_view is 0.5 in 1 rows, expected 0 or 1"),
        (put("second", "long_view", None), "long_view is blank in 1 rows, expected 0 or 1"),
        (put("random", "is_like", 3), "is_like is 3 in 1 rows, expected 0 or 1"),
        (put("second", "video_id", None), "video_id is blank in 1 rows, expected a whole number"),
        (put("second", "user_id", 1.5), "user_id is 1.5 in 1 rows, expected a whole number"),
        (put("second", "tab", "main"), "cannot be read .*main"),
        (put("videos", "upload_dt", "9 April"), "upload_dt is 9 April in 1 rows, expected dates"),
        (twice("users"), "user_id 4 stands in more than one row"),
        (twice("users", register_days=99), "user_id 4 stands in more than one row"),
        (twice("videos"), "video_id 4 stands in more than one row"),
        (twice("videos", tag="1"), "video_id 4 stands in more than one row"),
        (put("second", "date", None), "1 rows have only one of date and time_ms"),
        (put("first", "time_ms", None), "1 rows have only one of date and time_ms"),
    ],
)
def test_a_file_that_cannot_be_is_one_clear_error(made: GeneratedKuaiRand, change: Change, told: str) -> None:
    change(made)
    made.write()
    with pytest.raises(ValueError, match=told) as caught:
        load(made.folder)
    message = one_line(caught.value)
    assert str(made.folder) in message
    assert ": " in message.split(" rows")[-1] or ", " in message  # what to do


def test_a_row_of_the_second_log_without_a_time_is_an_error(made: GeneratedKuaiRand) -> None:
    for column in ("date", "time_ms"):
        put("second", column, None)(made)
    made.write()
    with pytest.raises(ValueError, match="1 rows have no time_ms, expected one in every row") as caught:
        load(made.folder)
    assert SECOND_LOG in one_line(caught.value)


def test_a_user_with_and_without_times_in_the_first_log_has_no_order(made: GeneratedKuaiRand) -> None:
    for column in ("date", "time_ms"):
        put("first", column, None)(made)
    made.write()
    user = made.first["user_id"][3]
    with pytest.raises(ValueError, match=f"user {user} has rows with and without time_ms") as caught:
        load(made.folder)
    one_line(caught.value)


def test_a_cut_file_is_one_clear_error(made: GeneratedKuaiRand) -> None:
    file = made.folder / f"{SECOND_LOG}.gz"
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ValueError, match="is cut short or damaged") as caught:
        load(made.folder)
    one_line(caught.value)


def test_a_folder_without_the_files_or_with_a_part_is_an_error(
    made: GeneratedKuaiRand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="which is not a folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no {FIRST_LOG}"):
        load(tmp_path / "empty")
    (made.folder / f"{VIDEOS}.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"holds a part of the files, {VIDEOS}\(.gz\) missing"
    ) as caught:
        load(made.folder)
    one_line(caught.value)
    monkeypatch.setenv("MMOE_DATA", str(made.folder))
    with pytest.raises(FileNotFoundError, match="MMOE_DATA"):
        load()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train_end": 20220501}, "expected train before validation before test"),
        ({"train_end": 20220430}, "expected train before validation before test"),
        ({"train_end": 20220301}, "no row is train"),
        ({"train_end": 20220331, "validation_end": 20220401}, "no row is train"),
        ({"validation_end": 20220508}, "no row is test"),
        ({"min_count": 0}, "min_count is 0, expected 1 or more"),
    ],
)
def test_periods_out_of_order_or_empty_are_errors(
    made: GeneratedKuaiRand, settings: dict[str, int], told: str
) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        encode(load(made.folder), **settings)
    one_line(caught.value)


def test_no_row_in_the_validation_days_is_an_error(made: GeneratedKuaiRand) -> None:
    tables = load(made.folder)
    date = tables.log["date"]
    kept = tables.log[(date <= 20220424) | (date > 20220430)].reset_index(drop=True)
    with pytest.raises(ValueError, match="no row is validation"):
        encode(replace(tables, log=kept))


def test_a_log_that_was_mixed_after_loading_is_an_error(made: GeneratedKuaiRand) -> None:
    tables = load(made.folder)
    with pytest.raises(ValueError, match="not sorted by user_id and time_ms"):
        encode(replace(tables, log=shuffled(tables.log)))


# --- the archive ---


def test_the_archive_is_downloaded_once_and_its_statistics_left_in_it(
    made: GeneratedKuaiRand, tmp_path: Path, server: Callable[[dict[str, bytes]], Server]
) -> None:
    archive = made.archive()
    site = server({"/other": archive + b"x", "/good": archive})
    sources = tuple(archive_of_all(f"{site.address}/{page}") for page in ("missing", "other", "good"))
    release = replace(made.release, sources=sources, md5=md5(archive))
    cache = tmp_path / "cache"
    first = load(cache=cache, release=release)
    again = load(cache=cache, release=release)
    assert site.asked == ["/missing", "/other", "/good"]
    names = {f"{name}.gz" for name in (FIRST_LOG, SECOND_LOG, RANDOM_LOG, USERS, VIDEOS)}
    assert {file.name for file in (cache / "kuairand-pure").iterdir()} == names
    by_hand = load(made.folder, release=made.release)
    for got in (first, again):
        pd.testing.assert_frame_equal(got.log, by_hand.log)
        assert got.sha256 == by_hand.sha256


def test_a_wrong_archive_is_refused_with_its_sum(
    made: GeneratedKuaiRand, tmp_path: Path, server: Callable[[dict[str, bytes]], Server]
) -> None:
    archive = made.archive()
    cut = archive[: len(archive) // 2]
    site = server({"/wrong": archive, "/cut": cut, "/half": archive})
    for page, expected, told in (
        ("wrong", md5(b"another"), f"the archive has the md5 {md5(archive)}, expected {md5(b'another')}"),
        ("cut", md5(archive), f"the archive has the md5 {md5(cut)}"),
        ("cut", md5(cut), "cut short or damaged"),
        ("half", md5(archive), "the download broke off"),
        ("404", md5(archive), "HTTP 404"),
    ):
        release = replace(made.release, sources=(archive_of_all(f"{site.address}/{page}"),), md5=expected)
        with pytest.raises(DownloadError) as caught:
            release.find_or_download(cache=tmp_path / "cache", progress=False)
        message = one_line(caught.value)
        assert told in message
        assert f"{site.address}/{page}" in message
        assert message.endswith("in the environment variable MMOE_DATA")
        assert list((tmp_path / "cache" / "kuairand-pure").iterdir()) == []


def test_an_archive_without_a_needed_file_is_refused(
    made: GeneratedKuaiRand, tmp_path: Path, server: Callable[[dict[str, bytes]], Server]
) -> None:
    archive = made.archive()
    site = server({"/a": archive})
    other = OfficialFile("videos_of_another_set.csv")
    release = replace(
        made.release,
        sources=({**archive_of_all(f"{site.address}/a"), other.name: f"{site.address}/a"},),
        md5=md5(archive),
        files=(*made.release.files[:3], other),
    )
    with pytest.raises(DownloadError, match=r"holds no videos_of_another_set\.csv"):
        release.find_or_download(cache=tmp_path, progress=False)


def test_a_cache_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(OSError, match="cannot write to the cache folder") as caught:
        KUAIRAND_PURE.find_or_download(cache=tmp_path / "a file" / "x")
    one_line(caught.value)


def test_the_published_archive_is_named() -> None:
    assert KUAIRAND_PURE.md5 == "0820331067a3784d9691136f772b35a7"
    (source,) = KUAIRAND_PURE.sources
    assert set(source.values()) == {"https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz"}
    assert set(source) == {FIRST_LOG, SECOND_LOG, USERS, VIDEOS, RANDOM_LOG}
    assert KUAIRAND_PURE.complete_rows == 1_436_609


# --- the real files ---


def test_the_real_counts_are_those_of_the_source(real_files: dict[str, Path], real: KuaiRandTables) -> None:
    assert (
        real.source == "KuaiRand-Pure, 1,045,516 of 1,436,609 rows; 5,460 exact duplicates among them dropped"
    )
    assert len(real.log) == 1_045_516 - 5_460
    assert (len(real.users), len(real.videos)) == (27_285, 7_583)
    second, _ = read_log(real_files[SECOND_LOG], times_may_be_blank=False)
    assert len(second) == 228_329
    late = second["date"] > 20220430
    again = second.duplicated()
    assert (again[~late].sum(), again[late].sum()) == (2_750, 2_710)
    blank = real.log["time_ms"].isna()
    assert blank.sum() == 817_187
    # The stated rates are those of the files, duplicates included.
    rates = [part.mean().round(4).tolist() for part in (real.log.loc[blank, list(LABELS)],)]
    rates += [second.loc[days, list(LABELS)].mean().round(4).tolist() for days in (~late, late)]
    np.testing.assert_allclose(rates, [[0.357, 0.0197], [0.307, 0.0171], [0.313, 0.0171]], atol=6e-4)
    train = real.log.loc[blank, list(LABELS)].to_numpy(np.float64)
    assert abs(np.corrcoef(train.T)[0, 1] - 0.094) < 0.0005


def test_the_real_parts_have_their_rows(real: KuaiRandTables, real_data: RankingData) -> None:
    second = real.log["date"].dropna()
    late = int((second > 20220430).sum())
    assert [len(getattr(real_data, part)) for part in PARTS] == [817_187, len(second) - late, late]
    assert len(second) == 228_329 - 5_460
    assert real_data.features.vocabulary < 1 << 24
    assert real_data.random is None
    for part in PARTS:
        x, y = real_data.features.rows(getattr(real_data, part), slice(0, None, 50))
        assert x[:, real_data.num_sparse :].min() >= 0
        assert x[:, real_data.num_sparse :].max() <= 1
        assert x[:, : real_data.num_sparse].max() < real_data.features.vocabulary
        assert set(y.unique().tolist()) == {0.0, 1.0}


def test_real_test_outcomes_reach_no_input_of_their_day_before(
    real: KuaiRandTables, real_data: RankingData
) -> None:
    """All outcomes from 4 May on changed: every input up to 3 May is the same."""
    date = real.log["date"].fillna(0).to_numpy()
    first = real.log.loc[date > 20220503, "time_ms"].min()
    changed = encode(replace(real, log=mutated(real.log, (real.log["time_ms"] >= first).to_numpy())))
    for part in ("train", "validation"):
        for field in fields(real_data.train):
            a, b = (getattr(getattr(d, part), field.name) for d in (real_data, changed))
            assert torch.equal(a, b), (part, field.name)
    time = real.log.loc[date > 20220430, "time_ms"].to_numpy()
    same = (real_data.test.history == changed.test.history).all(dim=1).numpy()
    assert same[time <= first].all()
    assert not same[time > first].all()


def test_the_real_set_is_ready_in_30_seconds_and_3_gigabytes(real_files: dict[str, Path]) -> None:
    program = (
        "import json, resource, sys, time; start = time.process_time()\n"  # what a busy machine does not change
        "from mmoe_lib.tasks.kuairand import encode, load\n"
        "data = encode(load(sys.argv[1]))\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "print(json.dumps([len(data.train), time.process_time() - start, peak]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(real_files[FIRST_LOG].parent)],
        check=True,
        capture_output=True,
        text=True,
    )
    rows, seconds, peak = json.loads(ran.stdout)
    assert rows == 817_187
    assert seconds < 30
    assert peak < 3e9
