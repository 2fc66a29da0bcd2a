"""KuaiRand-Pure: its official files, and ranking its videos for two tasks, as in section 6.4 of the MMoE paper."""

from mmoe_lib.tasks.kuairand.encoding import KuaiRandTables, RankingData, encode, load, some_users
from mmoe_lib.tasks.kuairand.features import FeatureTables, Impressions
from mmoe_lib.tasks.kuairand.files import available

__all__ = [
    "FeatureTables",
    "Impressions",
    "KuaiRandTables",
    "RankingData",
    "available",
    "encode",
    "load",
    "some_users",
]
