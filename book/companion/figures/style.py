"""What all figures have in common: colours, markers, and a title that states the finding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

COLOURS = {
    "Single-Task": "#666666",
    "Shared-Bottom": "#D55E00",
    "L2-Constrained": "#E69F00",
    "Cross-Stitch": "#56B4E9",
    "Tensor-Factorization": "#CC79A7",
    "OMoE": "#0072B2",
    "MMoE": "#009E73",
    "paper": "#000000",
}
"""Okabe and Ito's colours, told apart by readers with any colour vision; each also has a marker or a dash."""
MARKERS = {
    "Single-Task": "D",
    "Shared-Bottom": "s",
    "L2-Constrained": "v",
    "Cross-Stitch": "P",
    "Tensor-Factorization": "X",
    "OMoE": "^",
    "MMoE": "o",
}
"""Matplotlib's markers of the methods."""
LINES: dict[str, Any] = {"Shared-Bottom": (0, (5, 1.5)), "OMoE": (0, (1, 1)), "MMoE": "-"}
CORRELATION_STYLES: dict[float, tuple[str, Any]] = {
    0.5: ("#CC79A7", "-"),
    0.9: ("#0072B2", (0, (5, 1.5))),
    1.0: ("#E69F00", (0, (1, 1))),
}
"""Colour and dash of each task correlation of the synthetic study."""

TASK_COLOURS = ("#D55E00", "#0072B2")
"""Of the first and the second of two tasks."""

WIDTH = 7.6
"""Of a figure in inches: the page's text column at 130 dots an inch."""


@contextmanager
def theme() -> Iterator[None]:
    """Fonts, colours of the ground and the grid, while a figure is drawn."""
    settings: Any = {
        "figure.dpi": 130,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "axes.labelsize": 9,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "grid.color": "#e6e6e6",
        "figure.constrained_layout.use": True,
    }
    with sns.axes_style("whitegrid"), plt.rc_context(settings):
        yield


def finish(figure: Figure, finding: str, *, simulated: bool = False) -> Figure:
    """Put the finding above the panels; simulated data are named there whatever the chapter passed."""
    suffix = " (simulated data)" if simulated and "simulated" not in finding.lower() else ""
    figure.suptitle(finding + suffix, x=0.01, ha="left", fontsize=11, fontweight="bold")
    for axes in figure.axes:
        sns.despine(ax=axes)
    return figure
