"""Pictures of the atlas: every pair's effect in order, and where on the map of correlation and rarity it lies."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from companion.figures.style import COLOURS, WIDTH, finish, theme

LARGEST = 1.5
"""Points at which the colours of the map end."""


def forest(
    effects: Mapping[str, tuple[pd.DataFrame, Mapping[str, float]]], finding: str, matters: float
) -> Figure:
    """A panel an effect: every pair with its interval, in order, over the mean of all and where a new pair lies.

    Args:
        effects: By title, the table of `companion.results.atlas.pair_effects` and its `meta_analysis`.
        finding: The title.
        matters: The smallest difference that matters, in points: the grey band.
    """
    with theme():
        figure, panels = plt.subplots(1, len(effects), figsize=(WIDTH, 4.6), sharey=True, squeeze=False)
        for axes, (title, (table, found)) in zip(panels[0], effects.items(), strict=True):
            ordered = table.sort_values("effect", ignore_index=True)
            places = np.arange(len(ordered))
            axes.axvspan(-matters, matters, color="#dddddd", lw=0, zorder=0)
            axes.axvline(0, color="#333333", lw=0.8)
            axes.hlines(places, ordered["low"], ordered["high"], color=COLOURS["OMoE"], lw=0.8)
            axes.plot(ordered["effect"], places, "o", ms=2.5, color=COLOURS["OMoE"])
            below = -0.05 * len(ordered) - 1.5
            axes.hlines(below, found["new_low"], found["new_high"], color=COLOURS["Shared-Bottom"], lw=1.2)
            axes.hlines(below, found["low"], found["high"], color=COLOURS["Shared-Bottom"], lw=5)
            axes.set(title=title, xlabel="AUC points", xlim=_limits(ordered, found))
            axes.set_yticks([below], ["all pairs: mean\nand a new pair"])
        panels[0, 0].set_ylabel("a pair of tasks each, in order")
        return finish(figure, finding)


def _limits(table: pd.DataFrame, found: Mapping[str, float]) -> tuple[float, float]:
    """Around the bulk: single pairs with long intervals would press the others together."""
    low = min(np.quantile(table["effect"], 0.04), found["new_low"])
    high = max(np.quantile(table["effect"], 0.96), found["new_high"])
    return float(low - 0.3), float(high + 0.3)


def effect_map(
    effects: Mapping[str, pd.DataFrame], features: pd.DataFrame, finding: str, *, x: str = "correlation"
) -> Figure:
    """A panel an effect: a dot a pair over its label correlation and its rarest class, coloured by the effect.

    Dots are larger where the interval excludes 0.

    Args:
        effects: By title, tables of `companion.results.atlas.pair_effects`.
        features: Of `companion.results.atlas.pair_features`.
        finding: The title.
        x: The feature along the axis.
    """
    with theme():
        figure, panels = plt.subplots(1, len(effects), figsize=(WIDTH, 3.2), sharey=True, squeeze=False)
        norm = TwoSlopeNorm(0, -LARGEST, LARGEST)
        for axes, (title, table) in zip(panels[0], effects.items(), strict=True):
            joined = table.set_index("pair").join(features, how="inner")
            sure = (joined["low"] > 0) | (joined["high"] < 0)
            dots = axes.scatter(
                joined[x],
                100 * np.exp(joined["rarity"]),
                c=joined["effect"].clip(-LARGEST, LARGEST),
                s=np.where(sure, 60, 18),
                cmap="PuOr_r",
                norm=norm,
                edgecolor="#333333",
                linewidth=0.5,
            )
            axes.set(yscale="log", title=title, xlabel="correlation of the two labels")
            axes.set_yticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        panels[0, 0].set_ylabel("share of the rarest class, %")
        figure.colorbar(dots, ax=panels[0].tolist(), label="effect, AUC points", fraction=0.05)
        return finish(figure, finding)
