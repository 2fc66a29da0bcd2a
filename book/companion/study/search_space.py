"""What is tuned for each of the paper's seven methods, in which ranges, and the model that a choice gives.

Section 6.3 lists what the paper tunes: learning rate and number of steps for all; the number of experts and units
of each for the mixtures; size and alpha of L2-Constrained; both layer sizes of Cross-Stitch; ranks and size of
Tensor-Factorization. It states no range but the cap of 2,048 hidden units a layer. The ranges here end at 128
units over all tasks, so that the largest model of every method computes about as much: in a first layer of d
inputs 128 d multiply-adds, and for the mixtures those of the gates. `data/results/census_choices.csv` shows what larger layers give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import pandas as pd

from mmoe_lib.models import (
    CrossStitch,
    L2Constrained,
    MMoE,
    OMoE,
    SharedBottom,
    SingleTask,
    TensorFactorization,
)
from mmoe_lib.models.layers import ModelBuilder

UNIT_CAP = 2048
"""The paper's: hidden units a layer at most, experts x units for the mixtures, all tasks' networks together."""

TOWER_UNITS = 8
"""Hidden units of each tower, as in section 5.1; Cross-Stitch tunes them as the layer behind its unit."""

TASKS = 2

Settings = Mapping[str, int | float]


@dataclass(frozen=True)
class Range:
    """One number that is tuned, on a logarithmic scale unless `log` is false.

    Attributes:
        name: Of the setting.
        low: Smallest value.
        high: Largest value, included.
        meaning: A few words for the table.
        log: Whether ratios count rather than differences.
    """

    name: str
    low: int | float
    high: int | float
    meaning: str
    log: bool = True


LEARNING_RATE = Range("learning_rate", 3e-4, 1e-1, "Adam's")

SEARCH_SPACE: Mapping[str, tuple[Range, ...]] = {
    "Single-Task": (Range("units", 8, 64, "of each network"),),
    "Shared-Bottom": (Range("units", 16, 128, "of the bottom"),),
    "L2-Constrained": (
        Range("units", 8, 64, "of each network"),
        Range("alpha", 1e-6, 1e-1, "strength of the penalty"),
    ),
    "Cross-Stitch": (
        Range("units", 8, 64, "of each network"),
        Range("stitch_units", 4, 32, "of the layer behind the cross-stitch unit"),
    ),
    "Tensor-Factorization": (
        Range("units", 16, 64, "of each task's layer"),
        Range("rank_inputs", 2, 128, "r1"),
        Range("rank_units", 2, 16, "r2"),
        Range("rank_tasks", 1, 2, "r3", log=False),
    ),
    "OMoE": (
        Range("experts", 2, 8, "experts", log=False),
        Range("units", 4, 16, "of each expert"),
    ),
    "MMoE": (
        Range("experts", 2, 8, "experts", log=False),
        Range("units", 4, 16, "of each expert"),
    ),
}
"""The methods in the order of the paper's tables, and what is tuned beside learning rate and number of epochs."""

METHODS = tuple(SEARCH_SPACE)


def build(method: str, settings: Settings, depth: int = 1) -> ModelBuilder:
    """The builder of one run of a method; call it with (num_inputs, num_tasks, generator=...).

    Args:
        method: One of `METHODS`.
        settings: A value for each of its ranges in `SEARCH_SPACE`; it may lie outside of the range.
        depth: Layers of the bottom, or of each expert, all of the same width. The paper does not state its own.

    Raises:
        ValueError: If there is no such method, a setting is missing or unknown, a layer exceeds `UNIT_CAP`, or the
            model does not allow a value.
    """
    if method not in SEARCH_SPACE:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}: choose one of these")
    names = {tuned.name for tuned in SEARCH_SPACE[method]}
    if set(settings) != names:
        raise ValueError(
            f"settings of {method} are {', '.join(settings) or 'empty'}, expected {', '.join(sorted(names))}"
        )
    width = layer_units(method, settings)
    if width > UNIT_CAP:
        raise ValueError(
            f"{method} has {width} hidden units in a layer, expected at most {UNIT_CAP} over all tasks and "
            "experts: the paper's cap"
        )
    sizes = {name: int(value) for name, value in settings.items()}
    units = (sizes["units"],) * depth
    towers = (TOWER_UNITS,)
    if method in ("OMoE", "MMoE"):
        mixture = OMoE if method == "OMoE" else MMoE
        return partial(mixture, num_experts=sizes["experts"], expert_widths=units, tower_widths=towers)
    plain = partial(_NETWORKS[method], bottom_widths=units, tower_widths=towers)
    if method == "L2-Constrained":
        return partial(plain, alpha=float(settings["alpha"]))
    if method == "Cross-Stitch":
        return partial(plain, tower_widths=(sizes["stitch_units"],))
    if method == "Tensor-Factorization":
        first = (sizes["rank_inputs"], sizes["rank_units"], sizes["rank_tasks"])
        later = (min(first[0], sizes["units"]), *first[1:])  # a later layer has no more inputs than units
        return partial(plain, ranks=[first, *[later] * (depth - 1)])
    return plain


_NETWORKS: Mapping[str, ModelBuilder] = {
    "Single-Task": SingleTask,
    "Shared-Bottom": SharedBottom,
    "L2-Constrained": L2Constrained,
    "Cross-Stitch": CrossStitch,
    "Tensor-Factorization": TensorFactorization,
}


def layer_units(method: str, settings: Settings) -> int:
    """Hidden units of the method's widest layer, over all tasks' networks or experts."""
    copies = {"Shared-Bottom": 1, "OMoE": settings.get("experts", 1), "MMoE": settings.get("experts", 1)}
    return int(settings["units"] * copies.get(method, TASKS))


def largest(method: str) -> dict[str, int | float]:
    """The largest model of a method's search space; alpha, which is no size, in the middle of its range."""
    return {
        tuned.name: float(f"{math.sqrt(tuned.low * tuned.high):.1g}") if tuned.name == "alpha" else tuned.high
        for tuned in SEARCH_SPACE[method]
    }


def settings_text(settings: Settings) -> str:
    """One line for a CSV file, such as "units=64 alpha=0.001"; `read_settings` reads it back."""
    return " ".join(f"{name}={value:g}" for name, value in settings.items())


def read_settings(text: str) -> dict[str, int | float]:
    """The settings of such a line.

    Raises:
        ValueError: If it is not one.
    """
    settings: dict[str, int | float] = {}
    for part in text.split():
        name, equals, number = part.partition("=")
        if not equals:
            raise ValueError(f"settings are {text!r}, expected name=number, separated by blanks")
        value = float(number)
        settings[name] = int(value) if value.is_integer() else value
    return settings


def search_space_table() -> pd.DataFrame:
    """The ranges of all methods, for readers."""
    rows = {}
    for method, ranges in SEARCH_SPACE.items():
        for tuned in (LEARNING_RATE, *ranges):
            scale = "ratio" if tuned.log else "difference"
            rows[method, tuned.name] = {
                "from": f"{tuned.low:g}",
                "to": f"{tuned.high:g}",
                "scale": scale,
                "meaning": tuned.meaning,
            }
    table = pd.DataFrame(rows).T
    table.index.names = ["method", "setting"]
    return table
