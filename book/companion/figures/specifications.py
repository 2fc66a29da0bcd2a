"""The specification curve: MMoE's lead under every protocol in order, and beneath each point what the protocol was."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.figures.style import COLOURS, MARKERS, WIDTH, finish, theme
from companion.results.specifications import CHOICES

SHORT = {"as in the study": "by range", "numbers standardised": "standardised"}
SHORT |= {"one for all runs": "one for all", "each run its own": "each its own"}
"""Of the levels' names, so that they fit beside the axis."""


LOOKS = {
    "Shared-Bottom": (MARKERS["Shared-Bottom"], COLOURS["Shared-Bottom"], 1.3, 0.0),
    "Single-Task": (MARKERS["Single-Task"], COLOURS["Single-Task"], 0.7, 0.28),
    "Deeper Shared-Bottom": ("x", "#0072B2", 0.7, 0.5),
}
"""Of each rival: marker, colour, width of the interval, and how far right of its protocol's place it stands."""


def specification_figure(
    curves: Mapping[str, Mapping[str, pd.DataFrame]], finding: str, matters: float
) -> Figure:
    """A column a group of tasks: above the sorted differences with intervals, below a mark at each choice's level.

    Args:
        curves: By group, then by rival, what `companion.results.specifications.specification_curve` gives; the first
            rival decides the order.
        finding: The title.
        matters: The smallest difference that matters, in points: the grey band.
    """
    with theme():
        figure, grid = plt.subplots(
            2,
            len(curves),
            figsize=(WIDTH, 7.2),
            sharey="row",
            squeeze=False,
            gridspec_kw={"height_ratios": [1, 1.5]},
        )
        levels = _levels([next(iter(of_group.values())) for of_group in curves.values()])
        for column, (group, of_group) in enumerate(curves.items()):
            first = next(iter(of_group.values()))
            order = {number: place for place, number in enumerate(first["specification"])}
            _differences(grid[0, column], of_group, order, matters)
            grid[0, column].set_title(f"{group}: {len(first)} protocols")
            _choices(grid[1, column], first, levels)
        grid[0, 0].set_ylabel("MMoE minus the other, AUC points")
        grid[0, -1].legend(loc="upper left")
        figure.supxlabel("protocols, by MMoE's lead over Shared-Bottom", fontsize=9)
        return finish(figure, finding)


def _differences(
    axes: Axes, of_group: Mapping[str, pd.DataFrame], order: Mapping[int, int], matters: float
) -> None:
    axes.axhspan(-matters, matters, color="#dddddd", lw=0, zorder=0)
    axes.axhline(0, color="#333333", lw=0.8)
    for rival, curve in of_group.items():
        seen = curve[curve["specification"].isin(list(order))]
        places = np.array([order[number] for number in seen["specification"]], dtype=float)
        marker, colour, width, shift = LOOKS[rival]
        axes.errorbar(
            places + shift,
            seen["difference"],
            yerr=[seen["difference"] - seen["low"], seen["high"] - seen["difference"]],
            fmt=marker,
            ms=4,
            lw=width,
            color=colour,
            label=f"minus {rival}",
        )
    axes.set_xticks([])


def _levels(curves: list[pd.DataFrame]) -> list[tuple[str, object]]:
    """Every level of every choice that occurs, a choice after the other."""
    together = pd.concat(curves)
    return [(choice, level) for choice in CHOICES for level in sorted(together[choice].unique())]


def _choices(axes: Axes, curve: pd.DataFrame, levels: list[tuple[str, object]]) -> None:
    heights = {level: row for row, level in enumerate(levels)}
    for number, choice in enumerate(CHOICES):
        rows = [heights[choice, level] for level in curve[choice]]
        axes.plot(range(len(curve)), rows, "|", ms=7, mew=1.6, color="#0072B2" if number % 2 else "#333333")
    names = [
        f"{CHOICES[choice]} {SHORT.get(str(level), f'{level:g}' if not isinstance(level, str) else level)}"
        for choice, level in levels
    ]
    axes.set_yticks(range(len(levels)), names, fontsize=7.5)
    axes.set_ylim(len(levels) - 0.5, -0.5)
    axes.set_xticks([])
