"""A simulated stand-in for KuaiRand-Pure, for machines that can have neither the files nor a network.

It has the columns, categories and value ranges that the publishers describe, and nothing else of the real set:
no row of it and no count over its rows is stored here. All else follows from the numbers stated below.

- A user has a taste (one number a topic) and two inclinations, to watch for long and to like; a video has a
  topic and a quality. All are standard normal and hidden; some columns of the user and video tables show them
  through noise, the others are noise alone.
- A feed picks a topic by the user's taste and a video in it by popularity. A few impressions share the time
  of the one before: they are one request.
- Both labels are drawn with logits that add inclination, quality and the taste for the topic. The logit of
  `long_view` also depends on the `long_view` of the impression before the request, that of `is_like` on the
  impression's own `long_view`.
- The random log shows videos drawn uniformly from all of them, in the days of the second official log. It
  changes no user's state: what comes before in the standard log decides.

About 35 % of the impressions are long views and 2 % liked, with a correlation of about 0.09; gradient boosting
on the user and video columns reaches an AUC of about 0.7 and 0.85. These are near the real set's numbers, but
no result on the stand-in is an estimate of one there.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmoe_lib.tasks.kuairand import KuaiRandTables
from mmoe_lib.tasks.kuairand.columns import LOG_COLUMNS, USER_COLUMNS, VIDEO_COLUMNS
from mmoe_lib.tasks.kuairand.files import KUAIRAND_PURE, checked_log, checked_users, checked_videos
from mmoe_lib.tasks.kuairand.history import in_order

NUM_USERS = 2_000
"""Users when nothing else is asked for."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FIRST_DAY = date(2022, 4, 8)
NUM_DAYS = 31
SECOND_LOG_DAY = 14
"""Days after the first one until the second official log, and the random one, begin: 22 April."""

BEIJING = timezone(timedelta(hours=8))
DAY_MS = 86_400_000

NUM_TOPICS = 6
TAGS_PER_TOPIC = 10
SECOND_TAG = 0.25
"""Share of the videos with two tags, both of their topic."""

SPREAD_OF_IMPRESSIONS = 0.6
"""Impressions a user are log-normal with this standard deviation, at least one and at most five times the mean."""
MOST_TIMES_THE_MEAN = 5
SAME_REQUEST = 0.03
"""Chance of an impression to come with the one before."""
CHOICE_BY_TASTE = 0.8
"""The feed picks a topic with a probability proportional to exp(this * taste)."""
SPREAD_OF_POPULARITY = 1.2

# Logits: what a standard deviation of each hidden number adds.
LONG_VIEW = {"start": -1.33, "inclination": 0.6, "quality": 0.7, "taste": 0.5, "after long view": 0.5}
LIKE = {"start": -6.15, "inclination": 1.6, "quality": 0.5, "taste": 0.4, "long view": 1.1}

BLANK_DURATION, BLANK_MUSIC, BLANK_TAG = 0.03, 0.03, 0.01
BLANK_USER_CODE = 0.03
"""Shares of blank values in the columns that may be blank."""

# fmt: off
ACTIVE_DEGREES = ("full_active", "high_active", "middle_active", "2_14_day_new", "low_active",
                  "30day_retention", "single_low_active", "day_new", "UNKNOWN")
ACTIVE_SHARES = (0.6, 0.25, 0.07, 0.03, 0.02, 0.01, 0.01, 0.005, 0.005)
RANGES = {
    "follow_user_num": ((1, 11, 51, 101, 151, 251, 501), (
        "0", "(0,10]", "(10,50]", "(50,100]", "(100,150]", "(150,250]", "(250,500]", "500+")),
    "fans_user_num": ((1, 10, 100, 1_000, 5_000, 10_000, 100_000, 1_000_000), (
        "0", "[1,10)", "[10,100)", "[100,1k)", "[1k,5k)", "[5k,1w)", "[1w,10w)", "[10w,100w)", "[100w,1000w)")),
    "friend_user_num": ((1, 5, 30, 60, 120, 250), (
        "0", "[1,5)", "[5,30)", "[30,60)", "[60,120)", "[120,250)", "250+")),
    "register_days": ((15, 31, 61, 91, 181, 366, 731), (
        "8-14", "15-30", "31-60", "61-90", "91-180", "181-365", "366-730", "730+")),
}
"""First number of every range but the lowest, and the names of all."""
LOG_MEAN_AND_SPREAD = {
    "follow_user_num": (4.6, 1.5), "fans_user_num": (3.8, 1.8), "friend_user_num": (2.8, 1.6),
    "register_days": (6.8, 0.9),
}
ONEHOT_SIZES = (2, 7, 50, 1471, 15, 34, 3, 118, 454, 7, 5, 5, 2, 2, 2, 2, 2, 2)
"""Codes of each encrypted user feature, 0 to size - 1, as the publishers describe them."""
MAY_BE_BLANK = (4, *range(12, 18))

VIDEO_TYPES, VIDEO_TYPE_SHARES = ("NORMAL", "AD", "UNKNOWN"), (0.98, 0.019, 0.001)
UPLOAD_TYPES = ("LongImport", "Web", "ShortImport", "Kmovie", "LongPicture", "PictureSet", "ShortCamera",
                "LongCamera", "ShareFromOtherApp", "FollowShoot", "PhotoCopy", "AiCutVideo", "LipsSync", "UNKNOWN")
UPLOAD_SHARES = (0.35, 0.3, 0.12, 0.12, 0.02, 0.02, 0.02, 0.01, 0.01, 0.01, 0.005, 0.005, 0.005, 0.005)
SIZES = ((720, 1280), (1280, 720), (1080, 1920), (540, 960))
SIZE_SHARES = (0.6, 0.2, 0.15, 0.05)
MUSIC_TYPES, MUSIC_SHARES = (9, 4, 8, 7, 11), (0.85, 0.1, 0.03, 0.01, 0.01)
TABS, TAB_SHARES = tuple(range(15)), (0.09, 0.76, 0.03, *(0.01,) * 12)
# fmt: on

LONG_ENOUGH_MS = 18_000
"""A long view lasts the whole video, or this long if the video is longer, as the publishers define it."""


class Drawn(NamedTuple):
    """The tables of the stand-in, with the official columns in their order.

    Attributes:
        log: impressions of the feed, 19 columns, all int64, in the order of time.
        users: one row a user, 31 columns: numbers int64, codes that may be blank float64, and text.
        videos: one row a video, 12 columns, likewise.
        random: impressions of uniformly drawn videos, 19 columns as in `log`, is_rand 1.
    """

    log: pd.DataFrame
    users: pd.DataFrame
    videos: pd.DataFrame
    random: pd.DataFrame


class _Hidden(NamedTuple):
    """What no table holds of U users and V videos."""

    taste: Floats  # (U, T)
    watching: Floats  # (U,) inclination to watch for long
    liking: Floats  # (U,) inclination to like
    topic: Integers  # (V,)
    quality: Floats  # (V,)
    popularity: Floats  # (V,) positive
    duration: Integers  # (V,) milliseconds


def load_simulated(num_users: int = NUM_USERS, *, seed: int = 0) -> KuaiRandTables:
    """The stand-in as `mmoe_lib.tasks.kuairand.load` gives the real set; no file of that is touched.

    Args:
        num_users: how many users.
        seed: the same seed gives the same tables on every machine.

    Raises:
        ValueError: there is no user.
    """
    drawn, users, videos, raw = draw(num_users, generator=np.random.default_rng(seed))
    name = "the simulated log"
    log, random = (in_order(checked_log(one, name, times_may_be_blank=False))[0] for one in (drawn, raw))
    source = f"simulated stand-in for {KUAIRAND_PURE.title}, drawn with seed {seed}, {num_users:,} users, {len(log):,} rows"
    return KuaiRandTables(
        log,
        checked_users(users, "the simulated user table"),
        checked_videos(videos, "the simulated video table"),
        random,
        simulated=True,
        source=source,
        sha256={},
    )


def draw(
    num_users: int = NUM_USERS,
    num_videos: int = 1_000,
    num_days: int = NUM_DAYS,
    *,
    generator: np.random.Generator,
    impressions: float = 35.0,
    random_impressions: float = 20.0,
) -> Drawn:
    """Draw users, videos and what was shown to whom.

    The same generator state gives the same tables on every machine: only uniform and standard normal numbers
    are drawn, and they are compared with thresholds or rounded to whole numbers.

    Args:
        num_users: how many users, ids from 0.
        num_videos: how many videos, ids from 0.
        num_days: days of the log from 8 April 2022 on, more than 14, because the random log begins on 22 April.
        generator: the source of randomness, e.g. `numpy.random.default_rng(seed)`.
        impressions: mean impressions a user in the standard log.
        random_impressions: mean impressions a user in the random log.

    Returns:
        The four tables.

    Raises:
        ValueError: fewer than one user, one video for each of the six topics, 15 days or one impression a user.
    """
    least = {"num_users": 1, "num_videos": NUM_TOPICS, "num_days": SECOND_LOG_DAY + 1}
    asked: dict[str, float] = {"num_users": num_users, "num_videos": num_videos, "num_days": num_days}
    for name, number in least.items():
        if asked[name] < number:
            raise ValueError(f"the stand-in needs {name} of at least {number}, got {asked[name]}")
    for name, mean in (("impressions", impressions), ("random_impressions", random_impressions)):
        if not 1 <= mean < np.inf:
            raise ValueError(f"the stand-in needs {name} of at least 1 a user, got {mean}")

    hidden = _draw_hidden(num_users, num_videos, generator)
    users = _draw_users(hidden, generator)
    videos = _draw_videos(hidden, generator)

    user, time = _draw_times(num_users, impressions, 0, num_days, generator)
    time = _join_requests(user, time, generator)
    video = _feed(hidden, user, generator)
    order = np.lexsort((video, time, user))  # within a request by video, as the loader has it
    user, time, video = user[order], time[order], video[order]
    before = _row_before_request(user, time)
    chance = generator.random(len(user))
    long_view = _follow(
        before,
        chance < _sigmoid(_long_view_logit(hidden, user, video)),
        chance < _sigmoid(_long_view_logit(hidden, user, video) + LONG_VIEW["after long view"]),
    )
    log = _log(hidden, user, video, time, long_view, generator, is_random=False)

    random_user, random_time = _draw_times(num_users, random_impressions, SECOND_LOG_DAY, num_days, generator)
    random_video = _below(num_videos, generator.random(len(random_user)))
    last = _last_before(user, time, random_user, random_time)
    logit = _long_view_logit(hidden, random_user, random_video)
    logit += LONG_VIEW["after long view"] * np.where(last >= 0, long_view[last], 0)
    random_long_view = generator.random(len(logit)) < _sigmoid(logit)
    random = _log(hidden, random_user, random_video, random_time, random_long_view, generator, is_random=True)
    return Drawn(log, users, videos, random)


def _draw_hidden(num_users: int, num_videos: int, generator: np.random.Generator) -> _Hidden:
    quality = generator.standard_normal(num_videos)
    # Good videos are a little shorter and a little more popular.
    log_seconds = 4.0 - 0.5 * quality + 0.8 * generator.standard_normal(num_videos)
    # Every topic has videos: topics go round, the videos' order is drawn.
    topic = np.argsort(generator.random(num_videos), kind="stable") % NUM_TOPICS
    return _Hidden(
        taste=generator.standard_normal((num_users, NUM_TOPICS)),
        watching=generator.standard_normal(num_users),
        liking=generator.standard_normal(num_users),
        topic=topic,
        quality=quality,
        popularity=np.exp(0.2 * quality + SPREAD_OF_POPULARITY * generator.standard_normal(num_videos)),
        duration=np.clip(np.rint(1000 * np.exp(log_seconds)), 5_000, 1_200_000).astype(np.int64),
    )


def _draw_users(hidden: _Hidden, generator: np.random.Generator) -> pd.DataFrame:
    """The user table. What shows the hidden numbers: activity, followed users, and four of the codes."""
    count = len(hidden.watching)
    columns: dict[str, Any] = {"user_id": np.arange(count)}

    def seen(values: Floats, noise: float) -> Floats:
        """Standard normal numbers that tell of `values` through noise of that standard deviation."""
        return (values + noise * generator.standard_normal(count)) / np.sqrt(1 + noise**2)

    # Ranks, so that the shares hold however few users there are.
    active = _ranks(-seen(hidden.watching, 1.0))
    columns["user_active_degree"] = np.array(ACTIVE_DEGREES)[_place(active, ACTIVE_SHARES)]
    columns["is_lowactive_period"] = np.zeros(count, dtype=np.int64)
    columns["is_live_streamer"] = np.where(generator.random(count) < 0.2, 1, -124)
    columns["is_video_author"] = (generator.random(count) < 0.8).astype(np.int64)
    for name, (mean, spread) in LOG_MEAN_AND_SPREAD.items():
        tells = hidden.liking if name == "follow_user_num" else np.zeros(count)
        numbers = np.floor(np.exp(mean + spread * seen(tells, 0.7))).astype(np.int64)
        if name == "register_days":
            numbers = np.clip(numbers, 8, 3_650)
        starts, names = RANGES[name]
        columns[name] = numbers
        columns[f"{name}_range"] = np.array(names)[np.searchsorted(starts, numbers, side="right")]
    telling = {
        1: 1 + np.argmax(hidden.taste, axis=1),  # the favourite topic
        2: _below(ONEHOT_SIZES[2], _ranks(seen(hidden.liking, 0.3))),
        9: _below(ONEHOT_SIZES[9], _ranks(seen(hidden.watching, 0.3))),
        10: _below(ONEHOT_SIZES[10], _ranks(seen(hidden.liking, 0.3))),
    }
    for code, size in enumerate(ONEHOT_SIZES):
        # Squared: low codes are frequent, as in any list of categories.
        values = _below(size, generator.random(count) ** 2)
        values = telling.get(code, values)
        if code in MAY_BE_BLANK:
            blank = generator.random(count) < BLANK_USER_CODE
            columns[f"onehot_feat{code}"] = np.where(blank, np.nan, values.astype(np.float64))
        else:
            columns[f"onehot_feat{code}"] = values
    return pd.DataFrame(columns)[list(USER_COLUMNS)]


def _draw_videos(hidden: _Hidden, generator: np.random.Generator) -> pd.DataFrame:
    """The video table. What shows the hidden numbers: length, upload type, music type and tag."""
    count = len(hidden.quality)

    def blank(share: float, values: Integers) -> Floats:
        return np.where(generator.random(count) < share, np.nan, values.astype(np.float64))

    # A third of the authors that there are videos, so that an author has several.
    author = _below(max(1, count // 3), generator.random(count))
    shown = hidden.quality + 0.7 * generator.standard_normal(count)
    heard = hidden.quality + 1.0 * generator.standard_normal(count)
    size = np.array(SIZES)[_place(generator.random(count), SIZE_SHARES)]
    tags = 1 + hidden.topic[:, None] + NUM_TOPICS * _below(TAGS_PER_TOPIC, generator.random((count, 2)) ** 2)
    first, second = tags.astype(str).T
    two = (generator.random(count) < SECOND_TAG) & (first != second)
    tag = pd.Series(np.where(two, np.char.add(np.char.add(first, ","), second), first))
    day = [(FIRST_DAY + timedelta(days=offset)).isoformat() for offset in range(1, 4)]
    columns = {
        "video_id": np.arange(count),
        "author_id": author,
        "video_type": np.array(VIDEO_TYPES)[_place(generator.random(count), VIDEO_TYPE_SHARES)],
        "upload_dt": np.array(day)[_below(3, generator.random(count))],
        "upload_type": np.array(UPLOAD_TYPES)[_place(_ranks(-shown), UPLOAD_SHARES)],
        "visible_status": np.zeros(count),
        "video_duration": blank(BLANK_DURATION, hidden.duration),
        "server_width": size[:, 0].astype(np.float64),
        "server_height": size[:, 1].astype(np.float64),
        "music_id": _below(max(1, count // 2), generator.random(count) ** 2),
        "music_type": blank(BLANK_MUSIC, np.array(MUSIC_TYPES)[_place(_ranks(-heard), MUSIC_SHARES)]),
        "tag": tag.mask(generator.random(count) < BLANK_TAG),
    }
    return pd.DataFrame(columns)[list(VIDEO_COLUMNS)]


def _draw_times(
    num_users: int, mean: float, first_day: int, end_day: int, generator: np.random.Generator
) -> tuple[Integers, Integers]:
    """User and time (ms since the first day) of impressions, sorted by both."""
    spread = SPREAD_OF_IMPRESSIONS
    times = np.exp(spread * generator.standard_normal(num_users) - spread**2 / 2)
    counts = np.clip(np.rint(mean * times), 1, MOST_TIMES_THE_MEAN * mean).astype(np.int64)
    user = np.repeat(np.arange(num_users), counts)
    time = first_day * DAY_MS + _below((end_day - first_day) * DAY_MS, generator.random(len(user)))
    order = np.lexsort((time, user))
    return user, time[order]


def _join_requests(user: Integers, time: Integers, generator: np.random.Generator) -> Integers:
    """Some impressions take the time of the user's impression before."""
    joins = generator.random(len(user)) < SAME_REQUEST
    joins &= ~_starts(user)
    rows = np.arange(len(user))
    return time[np.maximum.accumulate(np.where(joins, 0, rows))]


def _feed(hidden: _Hidden, user: Integers, generator: np.random.Generator) -> Integers:
    """A video for each impression: a topic by the user's taste, then a video in it by popularity."""
    liked = np.exp(CHOICE_BY_TASTE * hidden.taste)
    upper = np.cumsum(liked, axis=1) / liked.sum(axis=1, keepdims=True)
    # The last bound is 1 but for rounding, so it is not compared with.
    topic = (generator.random(len(user))[:, None] >= upper[user, :-1]).sum(axis=1)
    by_topic = np.argsort(hidden.topic, kind="stable")
    reached = np.cumsum(hidden.popularity[by_topic])
    last = np.cumsum(np.bincount(hidden.topic, minlength=NUM_TOPICS)) - 1
    end = reached[last]
    start = np.append(0.0, end[:-1])
    wanted = start[topic] + generator.random(len(user)) * (end - start)[topic]
    return by_topic[np.minimum(np.searchsorted(reached, wanted, side="right"), last[topic])]


def _long_view_logit(hidden: _Hidden, user: Integers, video: Integers) -> Floats:
    """Of an impression that follows one that was no long view."""
    return (
        LONG_VIEW["start"]
        + LONG_VIEW["inclination"] * hidden.watching[user]
        + LONG_VIEW["quality"] * hidden.quality[video]
        + LONG_VIEW["taste"] * hidden.taste[user, hidden.topic[video]]
    )


def _starts(user: Integers) -> NDArray[np.bool_]:
    """Which rows are the first of their user."""
    return np.append(True, user[1:] != user[:-1])


def _row_before_request(user: Integers, time: Integers) -> Integers:
    """For rows sorted by user and time: the last row of this user's request before; -1 if there is none."""
    rows = np.arange(len(user))
    first_of_user = _starts(user)
    first_of_request = first_of_user | np.append(True, time[1:] != time[:-1])
    request_start = np.maximum.accumulate(np.where(first_of_request, rows, 0))
    user_start = np.maximum.accumulate(np.where(first_of_user, rows, 0))
    return np.where(request_start > user_start, request_start - 1, -1)


def _follow(
    before: Integers, otherwise: NDArray[np.bool_], after_long_view: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Long views, each decided by the one in row `before`, without a loop over rows.

    A row is 1 whatever came before, 0 whatever came before, or (as `after_long_view` holds wherever
    `otherwise` does) equal to the row before. So each row that follows points at the row it equals, and
    pointers are doubled until all of them end at a row that is decided.
    """
    rows = np.arange(len(before))
    decided = (otherwise == after_long_view) | (before < 0)
    points_at = np.where(decided, rows, before)
    while True:
        further = points_at[points_at]
        if np.array_equal(further, points_at):
            return otherwise[points_at]
        points_at = further


def _last_before(user: Integers, time: Integers, later_user: Integers, later_time: Integers) -> Integers:
    """For each later impression, the last row of the same user with an earlier time; -1 if there is none."""
    span = max(int(time.max(initial=0)), int(later_time.max(initial=0))) + 1
    row = np.searchsorted(user * span + time, later_user * span + later_time, side="left") - 1
    return np.where((row >= 0) & (user[row] == later_user), row, -1)


def _log(
    hidden: _Hidden,
    user: Integers,
    video: Integers,
    time: Integers,
    long_view: NDArray[np.bool_],
    generator: np.random.Generator,
    *,
    is_random: bool,
) -> pd.DataFrame:
    """The 19 columns of a log, sorted by time; the other outcomes follow from the long views."""

    def happens(chance: NDArray[np.floating[Any]] | float) -> Integers:
        return (generator.random(len(user)) < chance).astype(np.int64)

    like_logit = (
        LIKE["start"]
        + LIKE["inclination"] * hidden.liking[user]
        + LIKE["quality"] * hidden.quality[video]
        + LIKE["taste"] * hidden.taste[user, hidden.topic[video]]
        + LIKE["long view"] * long_view
    )
    like = happens(_sigmoid(like_logit))
    duration = hidden.duration[video]
    enough = np.minimum(duration, LONG_ENOUGH_MS)
    part = generator.random(len(user))
    played = np.where(long_view, enough + _below(duration, part), _below(enough, part**3))
    enters = happens(0.01 + 0.05 * like)
    reads = happens(0.03)
    started = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=BEIJING)
    num_days = int(time.max()) // DAY_MS + 1
    names = np.array([int(f"{FIRST_DAY + timedelta(days=day):%Y%m%d}") for day in range(num_days)])
    columns = {
        "user_id": user,
        "video_id": video,
        "date": names[time // DAY_MS],
        "hourmin": time % DAY_MS // 3_600_000 * 100,
        "time_ms": int(started.timestamp()) * 1000 + time,
        "is_click": happens(np.where(long_view, 0.99, 0.2)),
        "is_like": like,
        "is_follow": happens(0.001 + 0.03 * like),
        "is_comment": happens(0.002 + 0.02 * like),
        "is_forward": happens(0.001 + 0.005 * like),
        "is_hate": happens(0.001 * (1 - like)),
        "long_view": long_view.astype(np.int64),
        "play_time_ms": played,
        "duration_ms": duration,
        "profile_stay_time": enters * _below(60_000, generator.random(len(user))),
        "comment_stay_time": reads * _below(60_000, generator.random(len(user))),
        "is_profile_enter": enters,
        "is_rand": np.full(len(user), int(is_random)),
        "tab": np.array(TABS)[_place(generator.random(len(user)), TAB_SHARES)],
    }
    log = pd.DataFrame(columns)[list(LOG_COLUMNS)]
    return log.iloc[np.argsort(time, kind="stable")].reset_index(drop=True)


def _sigmoid(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))


def _below(limit: int | Integers, uniform: Floats) -> Integers:
    """Whole numbers from 0 to limit - 1."""
    return (limit * uniform).astype(np.int64)


def _place(uniform: Floats, shares: tuple[float, ...]) -> Integers:
    """The category of each number in [0, 1), by shares that add up to 1."""
    return np.searchsorted(np.cumsum(shares)[:-1], uniform, side="right")


def _ranks(values: Floats) -> Floats:
    """Ranks brought into [0, 1), evenly spread."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") / len(values)
