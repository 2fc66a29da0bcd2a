"""The one picture that says most: what MMoE gains over Shared-Bottom, in the paper and in our runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from companion.claims import CONTRADICTS, SUPPORTS, Comparison, Larger
from companion.figures.style import COLOURS, WIDTH, finish, theme


def gain_dots(panels: Mapping[str, Mapping[str, Comparison]], finding: str) -> Figure:
    """Differences between two models with their intervals, ours beside the paper's, one panel per measure.

    What is too small to matter is shaded.

    Args:
        panels: By the measure with its unit, which stands at the axis: by the setting, the comparison. Above 0 is a
            gain.
        finding: The title.

    Raises:
        ValueError: If a panel has no comparison.
    """
    if not panels or not all(panels.values()):
        raise ValueError(
            "there is no comparison to draw, expected one or more per panel: compute the claims first"
        )
    tallest = max(len(rows) for rows in panels.values())
    with theme():
        figure, line = plt.subplots(1, len(panels), figsize=(WIDTH, 1.5 + 0.42 * tallest), squeeze=False)
        for axes, (measure, rows) in zip(line[0], panels.items(), strict=True):
            ours, printed = list(rows.values()), [comparison.paper for comparison in rows.values()]
            middle = np.array([comparison.estimate for comparison in ours])
            ends = np.array([[comparison.low, comparison.high] for comparison in ours]).T
            places = np.arange(len(ours))
            axes.axvline(0, color="#444444", lw=0.8)
            matters = max((c.rule.matters for c in ours if isinstance(c.rule, Larger)), default=0.0)
            axes.axvspan(-matters, matters, color="#bbbbbb", alpha=0.35, lw=0, label="too small to matter")
            axes.errorbar(
                middle, places - 0.12, xerr=abs(ends - middle), fmt="o", ms=5, capsize=3, lw=1.4,
                color=COLOURS["MMoE"], label="ours, 95 % interval",
            )  # fmt: skip
            axes.plot(
                printed, places + 0.12, "D", ms=5, mfc="white", mec=COLOURS["paper"], label="the paper's"
            )
            axes.set(yticks=places, yticklabels=list(rows), xlabel=measure, ylim=(len(ours) - 0.5, -0.5))
            axes.grid(visible=False, axis="y")
        handles, labels = line[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        return finish(figure, finding)


def gain_finding(groups: Mapping[str, Sequence[Comparison]]) -> str:
    """The title of `gain_dots`: in how many comparisons of each group MMoE is better by a difference that matters.

    Args:
        groups: By what its settings are called, such as "real": its comparisons.
    """
    return "MMoE gains what matters: " + "; ".join(
        f"{name} {sum(c.word == SUPPORTS for c in rows)} of {len(rows)} "
        f"({sum(c.word == CONTRADICTS for c in rows)} against)"
        for name, rows in groups.items()
    )
