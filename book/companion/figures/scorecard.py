"""The figure of the scorecard: how much of each claim came back."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from companion.claims import ClaimRow
from companion.figures.style import WIDTH, finish, theme

VERDICT_COLOURS = {"holds": "#009E73", "holds in part": "#E69F00", "does not hold": "#D55E00"}
"""Each verdict is also written beside its bar, so that no reader needs the colour."""


def support_shares(rows: Sequence[ClaimRow], finding: str) -> Figure:
    """For each claim a bar: which share of its comparisons supports it, with the count and the verdict beside it.

    Args:
        rows: Of the scorecard.
        finding: The title.

    Raises:
        ValueError: If there are no rows.
    """
    if not rows:
        raise ValueError("there are no claims to draw, expected one or more: compute the scorecard first")
    places = np.arange(len(rows))
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 0.8 + 0.31 * len(rows)))
        axes.barh(places, [100] * len(rows), 0.66, color="#eeeeee")
        axes.barh(
            places,
            [100 * row.share for row in rows],
            0.66,
            color=[VERDICT_COLOURS[row.claim.verdict] for row in rows],
        )
        for place, row in zip(places, rows, strict=True):
            axes.annotate(
                f"{row.claim.verdict}, {row.support}",
                (100, place),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
        names = [f"{row.claim.number}. {row.title}" for row in rows]
        axes.set(
            yticks=places,
            yticklabels=names,
            xlim=(0, 100),
            xticks=[0, 25, 50, 75, 100],
            xlabel="comparisons that support the claim (%)",
        )
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        return finish(figure, finding)
