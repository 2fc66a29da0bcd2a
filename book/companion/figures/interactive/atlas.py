"""The atlas under the reader's hands: choose an effect and what it is held against, and open any pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.figures.interactive.fragment import Interactive, fragment
from companion.results.atlas import EFFECTS, FEATURES

SHOWN = {
    "sharing": "Shared-Bottom minus Single-Task",
    "MMoE": "MMoE minus Shared-Bottom",
    "gates": "MMoE minus OMoE",
    "gates or a layer": "MMoE minus deeper Shared-Bottom",
}
AXES = ("correlation", "rarity", "cosine", "norms")
REACH = 4.0
"""AUC points at which the axis ends at the latest."""


def atlas_data(
    effects: Mapping[str, pd.DataFrame], features: pd.DataFrame, pairs: pd.DataFrame, matters: float
) -> dict[str, Any]:
    """What the figure shows, rounded.

    Args:
        effects: Tables of `companion.results.atlas.pair_effects` by the names of `EFFECTS`.
        features: Of `companion.results.atlas.pair_features`.
        pairs: Of `data/results/atlas_pairs.csv`.
        matters: The smallest difference that matters, in points.
    """
    tables = {name: effects[name].set_index("pair") for name in EFFECTS}
    numbers = sorted(set.intersection(*(set(table.index) for table in tables.values()), set(features.index)))
    facts = pairs.set_index("seed").loc[numbers]
    values = {name: features.loc[numbers, name].to_numpy(dtype=float) for name in AXES}
    # As a share, which is easier to read than its logarithm.
    shown = {**values, "rarity": 100 * np.exp(values["rarity"])}
    names = {**FEATURES, "rarity": "share of the rarest class, %"}
    return {
        "matters": matters,
        "reach": REACH,
        "effects": [
            {
                "name": SHOWN[name],
                "values": [
                    [round(float(value), 2) for value in row]
                    for row in table.loc[numbers, ["effect", "low", "high"]].to_numpy()
                ],
            }
            for name, table in tables.items()
        ],
        "features": [
            {"name": names[name], "values": [round(float(value), 3) for value in shown[name]]}
            for name in AXES
        ],
        "pairs": [
            {
                "targets": [row["target_1"], row["target_2"]],
                "shares": [round(row["share_1"], 4), round(row["share_2"], 4)],
                "correlation": round(row["label_correlation"], 3),
            }
            for row in facts.to_dict("records")
        ],
    }


def atlas(
    effects: Mapping[str, pd.DataFrame],
    features: pd.DataFrame,
    pairs: pd.DataFrame,
    matters: float,
    picture: str | None = None,
) -> Interactive:
    """The interactive figure.

    Args:
        effects: As for `atlas_data`.
        features: The same.
        pairs: The same.
        matters: The same.
        picture: The name of the figure whose place it takes in the book.
    """
    data = atlas_data(effects, features, pairs, matters)
    count = len(data["pairs"])
    controls: list[dict[str, Any]] = [
        {
            "kind": "choice",
            "name": "effect",
            "label": "effect",
            "texts": list(SHOWN.values()),
            "start": list(SHOWN).index("MMoE"),
        },
        {
            "kind": "choice",
            "name": "x",
            "label": "held against",
            "texts": [feature["name"] for feature in data["features"]],
            "start": 0,
        },
        {
            "kind": "range",
            "name": "place",
            "label": "pair, from the lowest effect to the highest",
            "texts": [f"{place + 1} of {count}" for place in range(count)],
            "start": count - 1,
        },
    ]
    caption = (
        "Every pair of tasks of the atlas: the mean over both tasks of the difference in AUC, with its 95 % interval over "
        "runs; grey: too small to matter. Slide to open any pair."
    )
    elsewhere = (
        "In the HTML book and on Colab every pair can be opened here; the picture above shows the same pairs."
    )
    return fragment("atlas", ("atlas.js",), data, controls, caption, elsewhere=elsewhere, picture=picture)
