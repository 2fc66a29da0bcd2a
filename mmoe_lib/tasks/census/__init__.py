"""Census-Income (KDD): its official files or a stand-in, and its two multi-task problems (section 6.3 of the MMoE paper)."""

from mmoe_lib.tasks.census.columns import GROUPS
from mmoe_lib.tasks.census.encoding import (
    CensusData,
    CensusTables,
    encode,
    load,
)
from mmoe_lib.tasks.census.files import available

__all__ = [
    "GROUPS",
    "CensusData",
    "CensusTables",
    "available",
    "encode",
    "load",
]
