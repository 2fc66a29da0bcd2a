"""The stand-in: official columns, the stated rates, and labels that follow from features and history."""

import hashlib
import time
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pandas.testing import assert_frame_equal
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from companion.study import kuairand_simulated
from companion.study.kuairand_simulated import BEIJING, Drawn, draw, load_simulated
from mmoe_lib.tasks.kuairand import encode
from mmoe_lib.tasks.kuairand.columns import LOG_COLUMNS, USER_COLUMNS, USER_TEXT, VIDEO_COLUMNS, VIDEO_TEXT
from mmoe_lib.tasks.kuairand.files import checked_log, checked_users, checked_videos


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return draw(1_500, 800, generator=np.random.default_rng(0))


def in_order(log: pd.DataFrame) -> pd.DataFrame:
    return log.sort_values(["user_id", "time_ms", "video_id"]).reset_index(drop=True)


def test_the_stand_in_loads_and_encodes_like_the_real_set() -> None:
    first, again, other = (load_simulated(200, seed=seed) for seed in (1, 1, 2))
    assert first.simulated
    assert first.source.startswith("simulated stand-in for KuaiRand-Pure, drawn with seed 1, 200 users, ")
    assert tuple(first.log.columns) == LOG_COLUMNS
    assert_frame_equal(first.log, again.log)
    assert not first.log.equals(other.log)
    data = encode(first)
    assert data.simulated
    assert data.random is not None
    for part in (data.train, data.validation, data.test, data.random):
        x, y = data.features.rows(part, slice(None))
        assert x.shape == (len(part), data.num_inputs)
        assert np.isfinite(x.numpy()).all()
        assert set(y.unique().tolist()) == {0.0, 1.0}


def test_it_has_the_official_columns_and_passes_the_checks_of_real_files(drawn: Drawn) -> None:
    for log in (drawn.log, drawn.random):
        assert tuple(log.columns) == LOG_COLUMNS
        assert set(log.dtypes) == {np.dtype(np.int64)}
        assert len(checked_log(log, "log", times_may_be_blank=False)) == len(log)
    assert tuple(drawn.users.columns) == USER_COLUMNS
    assert tuple(drawn.videos.columns) == VIDEO_COLUMNS
    assert len(checked_users(drawn.users, "users")) == 1_500
    assert len(checked_videos(drawn.videos, "videos")) == 800
    for table, text in ((drawn.users, USER_TEXT), (drawn.videos, VIDEO_TEXT)):
        assert {column for column in table if not pd.api.types.is_numeric_dtype(table[column])} == set(text)


def test_only_the_columns_that_may_be_blank_are(drawn: Drawn) -> None:
    blank = drawn.users.isna().mean()
    assert set(blank.index[blank > 0]) == {f"onehot_feat{code}" for code in (4, *range(12, 18))}
    blank = drawn.videos.isna().mean()
    assert set(blank.index[blank > 0]) == {"video_duration", "music_type", "tag"}
    assert blank.max() < 0.06


def test_every_user_and_video_is_in_its_table_once_and_every_user_in_the_log(drawn: Drawn) -> None:
    assert drawn.users["user_id"].tolist() == list(range(1_500))
    assert drawn.videos["video_id"].tolist() == list(range(800))
    for log in (drawn.log, drawn.random):
        assert set(log["user_id"]) == set(range(1_500))
        assert log["video_id"].isin(drawn.videos["video_id"]).all()
    assert 30 < len(drawn.log) / 1_500 < 40
    assert 17 < len(drawn.random) / 1_500 < 23


def test_the_days_are_those_of_the_official_logs_and_agree_with_the_times(drawn: Drawn) -> None:
    assert (drawn.log["date"].min(), drawn.log["date"].max()) == (20220408, 20220508)
    assert (drawn.random["date"].min(), drawn.random["date"].max()) == (20220422, 20220508)
    for log in (drawn.log, drawn.random):
        assert log["time_ms"].is_monotonic_increasing
        some = log.iloc[:: len(log) // 50]
        for time_ms, day, hour in some[["time_ms", "date", "hourmin"]].to_numpy().tolist():
            moment = datetime.fromtimestamp(time_ms / 1000, tz=BEIJING)
            assert f"{moment:%Y%m%d}" == str(day)
            assert moment.hour * 100 == hour
    assert draw(20, 6, 20, generator=np.random.default_rng(0)).log["date"].max() <= 20220427


@pytest.mark.parametrize("seed", range(5))
def test_the_rates_are_the_stated_ones(seed: int) -> None:
    log = draw(1_500, 800, generator=np.random.default_rng(seed)).log
    assert log["long_view"].mean() == pytest.approx(0.35, abs=0.04)
    assert log["is_like"].mean() == pytest.approx(0.02, abs=0.005)
    assert log["long_view"].corr(log["is_like"]) == pytest.approx(0.09, abs=0.02)


def test_a_long_view_is_what_the_play_time_says(drawn: Drawn) -> None:
    for log in (drawn.log, drawn.random):
        assert (log["duration_ms"] >= 5_000).all()
        enough = log["play_time_ms"] >= log["duration_ms"].clip(upper=18_000)
        assert (enough == (log["long_view"] == 1)).all()
        assert (log["duration_ms"] < 18_000).any()
    log = drawn.log.merge(drawn.videos, on="video_id")
    known = log["video_duration"].notna()
    assert (log["video_duration"] == log["duration_ms"])[known].all()


@pytest.mark.parametrize(("label", "low", "high"), [("long_view", 0.65, 0.76), ("is_like", 0.78, 0.92)])
def test_gradient_boosting_learns_from_the_tables(drawn: Drawn, label: str, low: float, high: float) -> None:
    rows = drawn.log.merge(drawn.users, on="user_id").merge(drawn.videos, on="video_id")
    inputs = rows[[*USER_COLUMNS, *VIDEO_COLUMNS]].copy()
    inputs["tag"] = inputs["tag"].str.split(",").str[0]
    for column in (*USER_TEXT, *VIDEO_TEXT):
        inputs[column] = pd.factorize(inputs[column])[0]
    train, test = (rows["date"] <= 20220424).to_numpy(), (rows["date"] >= 20220501).to_numpy()
    model = HistGradientBoostingClassifier(
        max_iter=40, learning_rate=0.1, max_leaf_nodes=16, min_samples_leaf=100
    ).fit(inputs[train], rows.loc[train, label])
    predicted = model.predict_proba(inputs[test])[:, 1]
    assert low < roc_auc_score(rows.loc[test, label], predicted) < high


def test_a_long_view_makes_the_next_one_likelier() -> None:
    """Beyond what it says of the user, which an earlier impression says as well."""

    def effect(bonus: float, monkeypatch: pytest.MonkeyPatch) -> float:
        monkeypatch.setitem(kuairand_simulated.LONG_VIEW, "after long view", bonus)
        log = in_order(draw(3_000, 800, generator=np.random.default_rng(2), impressions=60).log)
        rows = log.groupby("user_id")["long_view"]
        # What the user did three impressions ago tells as much of who it is, and little of the last one.
        last, long_ago = rows.shift(1), rows.shift(3)
        return float(
            log["long_view"].groupby(last).mean().diff().iloc[1]
            - log["long_view"].groupby(long_ago).mean().diff().iloc[1]
        )

    with pytest.MonkeyPatch.context() as patch:
        assert effect(0.5, patch) > 0.05
        assert abs(effect(0.0, patch)) < 0.01


def by_loop(
    user: NDArray[np.int64],
    moment: NDArray[np.int64],
    otherwise: NDArray[np.bool_],
    after: NDArray[np.bool_],
) -> list[bool]:
    """Long views one row after the other: a request sees the last row of the request before it."""
    views: list[bool] = []
    for row in range(len(user)):
        before = row - 1
        while before >= 0 and user[before] == user[row] and moment[before] == moment[row]:
            before -= 1
        seen = before >= 0 and user[before] == user[row] and views[before]
        views.append(bool(after[row] if seen else otherwise[row]))
    return views


def test_long_views_follow_each_other_as_in_a_loop_over_rows() -> None:
    random = np.random.default_rng(8)
    user = np.sort(random.integers(0, 12, 2_000))
    moment = np.sort(user * 10_000 + random.integers(0, 120, 2_000))  # many requests of several rows
    chance = random.random(2_000)
    otherwise, after = chance < 0.1, chance < 0.9
    before = kuairand_simulated._row_before_request(user, moment)
    assert kuairand_simulated._follow(before, otherwise, after).tolist() == by_loop(
        user, moment, otherwise, after
    )
    assert 0.2 < np.mean(before == np.arange(2_000) - 1) < 0.9


def test_a_few_impressions_share_a_request(drawn: Drawn) -> None:
    log = in_order(drawn.log)
    shares = log.duplicated(["user_id", "time_ms"]).mean()
    assert shares == pytest.approx(0.03, abs=0.005)


def test_the_random_log_shows_every_video_alike_and_the_feed_does_not(drawn: Drawn) -> None:
    def spread(log: pd.DataFrame) -> float:
        """Variance of the counts over their mean: 1 for uniform draws."""
        counts = np.bincount(log["video_id"], minlength=800)
        return float(counts.var() / counts.mean())

    assert spread(drawn.random) == pytest.approx(1, abs=4 * np.sqrt(2 / 800))
    assert spread(drawn.log) > 20
    assert (drawn.random["is_rand"] == 1).all()
    assert (drawn.log["is_rand"] == 0).all()
    # A feed picks by taste and popularity, so what it shows is watched more.
    assert drawn.random["long_view"].mean() < drawn.log["long_view"].mean() - 0.03


def test_a_random_impression_depends_on_the_last_one_of_the_feed() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kuairand_simulated.LONG_VIEW, "after long view", 50.0)
        strong = draw(200, 100, generator=np.random.default_rng(3))
    random = strong.random.sort_values("time_ms")
    last = pd.merge_asof(
        random,
        strong.log[["time_ms", "user_id", "video_id", "long_view"]].sort_values(
            ["time_ms", "user_id", "video_id"]
        ),
        on="time_ms",
        by="user_id",
        allow_exact_matches=False,
        suffixes=("", "_before"),
    )
    assert (last["long_view"][last["long_view_before"] == 1] == 1).all()
    assert last["long_view"][last["long_view_before"].isna()].mean() < 0.6


def test_the_same_seed_gives_the_same_tables_on_every_machine() -> None:
    first, second = (draw(60, 40, generator=np.random.default_rng(3)) for _ in range(2))
    for mine, theirs in zip(first, second, strict=True):
        assert_frame_equal(mine, theirs)
    other = draw(60, 40, generator=np.random.default_rng(4))
    assert not first.log.equals(other.log)
    # Written down once: a different number here means that every stored output of the book changes.
    digest = hashlib.sha256()
    for table in first:
        digest.update(table.to_csv(index=False, lineterminator="\n").encode())
    assert digest.hexdigest()[:16] == "6ab4980668f8ed6f"


def test_it_takes_less_than_a_second() -> None:
    start = time.process_time()
    draw(1_500, 1_000, generator=np.random.default_rng(1))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"num_users": 0}, "num_users of at least 1, got 0"),
        ({"num_videos": 5}, "num_videos of at least 6, got 5"),
        ({"num_days": 14}, "num_days of at least 15, got 14"),
        ({"impressions": 0.5}, "impressions of at least 1 a user, got 0.5"),
        ({"random_impressions": float("nan")}, "random_impressions of at least 1 a user, got nan"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        draw(**arguments, generator=np.random.default_rng(0))


def test_the_smallest_stand_in_is_one_user() -> None:
    tables = draw(1, 6, 15, generator=np.random.default_rng(0), impressions=1, random_impressions=1)
    assert (len(tables.users), len(tables.videos)) == (1, 6)
    assert len(tables.log) >= 1
    assert set(tables.random["date"]) == {20220422}
