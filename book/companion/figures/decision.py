"""The decision page as a flow chart: questions down the middle, what to do at the side."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.figures.style import COLOURS, finish, theme

QUESTION, ADVICE = "#0072B2", COLOURS["MMoE"]
SIZE = 13
"""Of the letters in points: they can be read on a phone too, where the picture is half as wide."""


def flow_chart(steps: Sequence[tuple[str, str]], last: str, finding: str) -> Figure:
    """Questions from top to bottom; a yes leads to the right, to what to do, a no leads down.

    Args:
        steps: Questions, each with what to do where the answer is yes. Lines are broken as they stand.
        last: What to do where every answer is no.
        finding: The title.
    """
    with theme(), plt.rc_context({"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(6.4, 1.15 * (len(steps) + 1) + 0.4))
        axes.set(xlim=(0, 10), ylim=(-len(steps) - 0.5, 0.5))
        axes.axis("off")
        for row, (question, advice) in enumerate(steps):
            _box(axes, 2.3, -row, question, QUESTION)
            _box(axes, 7.9, -row, advice, ADVICE)
            _arrow(axes, (4.55, -row), (5.75, -row), "yes", (5.1, -row + 0.14))
            _arrow(axes, (2.3, -row - 0.36), (2.3, -row - 0.64), "no", (2.75, -row - 0.5))
        _box(axes, 2.3, -len(steps), last, ADVICE)
        return finish(figure, finding)


def _box(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": colour, "linewidth": 1.6}
    axes.text(x, y, text, ha="center", va="center", fontsize=SIZE, color="#222222", bbox=box)


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], word: str, place: tuple[float, float]
) -> None:
    arrow = {"arrowstyle": "-|>", "color": "#555555", "lw": 1.4}
    axes.annotate("", xy=end, xytext=start, arrowprops=arrow)
    axes.text(*place, word, ha="center", va="center", fontsize=SIZE - 1, color="#555555")
