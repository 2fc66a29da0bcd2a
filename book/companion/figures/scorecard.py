"""The figure of the scorecard: of each claim, which comparisons are for it, which open, which against."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from companion.claims import CONTRADICTS, OPEN, SUPPORTS, ClaimRow
from companion.figures.style import WIDTH, finish, theme

WORD_STYLES = {
    SUPPORTS: ("#0072B2", "", "for"),
    OPEN: ("#dddddd", "", "open"),
    CONTRADICTS: ("#D55E00", "////", "against"),
}
"""Colour, hatching and name of each word; the counts are written beside the bar, so that no reader needs the colour."""


def word_bars(rows: Sequence[ClaimRow], finding: str) -> Figure:
    """For each claim a bar: the shares of its comparisons that are for it, open and against it, verdict and counts beside.

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
        figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.31 * len(rows)))
        left = np.zeros(len(rows))
        for word, (colour, hatch, _) in WORD_STYLES.items():
            share = np.array([100 * row.claim.count(word) / len(row.claim.comparisons) for row in rows])
            axes.barh(places, share, 0.66, left=left, color=colour, hatch=hatch, edgecolor="white", lw=0.6)
            left += share
        for place, row in zip(places, rows, strict=True):
            axes.annotate(
                f"{row.claim.verdict}; {row.claim.counts}",
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
            xlabel="comparisons of the claim (%)",
        )
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        figure.legend(
            handles=[
                Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=name)
                for colour, hatch, name in WORD_STYLES.values()
            ],
            loc="outside lower center",
            ncols=len(WORD_STYLES),
        )
        return finish(figure, finding)
