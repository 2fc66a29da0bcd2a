"""The columns of KuaiRand-Pure: what each file holds, which are outcomes, which a model may see.

Source: Gao et al., "KuaiRand", CIKM 2022 (doi 10.1145/3511808.3557624); the fields are described in
github.com/chongminggao/KuaiRand.
"""

from __future__ import annotations

FIRST_LOG = "log_standard_4_08_to_4_21_pure.csv"
SECOND_LOG = "log_standard_4_22_to_5_08_pure.csv"
RANDOM_LOG = "log_random_4_22_to_5_08_pure.csv"
USERS = "user_features_pure.csv"
VIDEOS = "video_features_basic_pure.csv"
"""The names of the files. A sixth one of the archive, `video_features_statistic_pure.csv`, is never opened: its
averages run over the whole month, so they tell of the days that a model is judged on."""

# fmt: off
LOG_COLUMNS = (
    "user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "is_like", "is_follow", "is_comment",
    "is_forward", "is_hate", "long_view", "play_time_ms", "duration_ms", "profile_stay_time",
    "comment_stay_time", "is_profile_enter", "is_rand", "tab",
)
"""The 19 columns of a log in file order; a row is one impression, a video shown to a user."""

USER_COLUMNS = (
    "user_id", "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author",
    "follow_user_num", "follow_user_num_range", "fans_user_num", "fans_user_num_range", "friend_user_num",
    "friend_user_num_range", "register_days", "register_days_range",
    *(f"onehot_feat{index}" for index in range(18)),
)
"""The 31 columns of the user table in file order."""

VIDEO_COLUMNS = (
    "video_id", "author_id", "video_type", "upload_dt", "upload_type", "visible_status", "video_duration",
    "server_width", "server_height", "music_id", "music_type", "tag",
)
"""The 12 columns of the video table in file order."""
# fmt: on

ENGAGEMENT = "long_view"
"""The main task: was the video watched for long?"""

SATISFACTION = "is_like"
"""The second task: was it liked? About one impression in fifty."""

TASK_NAMES = ("engagement", "satisfaction")
"""The tasks in the order of the labels' columns."""

LABELS = (ENGAGEMENT, SATISFACTION)
"""The columns of the labels in the order of `TASK_NAMES`."""

LOG_DURATIONS = ("play_time_ms", "duration_ms", "profile_stay_time", "comment_stay_time")
VIDEO_DURATIONS = ("video_duration",)
"""Columns in milliseconds, which cannot be negative. (0 occurs, where the length of a video is not known.)"""

USER_TEXT = (
    "user_active_degree",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
)
VIDEO_TEXT = ("video_type", "upload_dt", "upload_type", "tag")
"""The columns that are not numbers."""

USER_SPARSE = (
    "user_id",
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{index}" for index in range(18)),
)
USER_DENSE = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
"""What a model sees of a user: names, which get embeddings, and numbers."""

VIDEO_SPARSE = (
    "video_id",
    "author_id",
    "video_type",
    "upload_type",
    "visible_status",
    "music_id",
    "music_type",
    "tag",
)
VIDEO_DENSE = ("video_duration", "server_width", "server_height", "upload_dt")
"""What a model sees of the candidate video."""

PREVIOUS_SPARSE = ("video_id", "tag")
"""What a model sees of the video shown to the user before; with the embeddings of the candidate's columns."""
