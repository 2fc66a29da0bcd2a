"""Figures of the census chapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmoe_lib.figures.style import COLOURS, MARKERS, WIDTH, finish, theme
from mmoe_lib.results import mean_interval


def label_rates(rates: pd.DataFrame, finding: str, *, simulated: bool) -> Figure:
    """Share of positive answers of each census label in train and test.

    Args:
        rates: Labels as index, columns train and test.
        finding: The title.
        simulated: Whether the tables are the stand-in.
    """
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 2.2))
        place = np.arange(len(rates))
        for shift, (part, colour) in zip(
            (-0.19, 0.19), (("train", "#0072B2"), ("test", "#E69F00")), strict=True
        ):
            bars = axes.barh(place + shift, 100 * rates[part], 0.36, color=colour, label=part)
            axes.bar_label(bars, fmt="%.1f %%", padding=3, fontsize=8)
        axes.set(yticks=place, yticklabels=rates.index, xlabel="people with this label (%)", xlim=(0, 52))
        axes.invert_yaxis()
        axes.legend(loc="upper right")
        return finish(figure, finding, simulated=simulated)


def correlation_samples(
    samples: Mapping[str, Sequence[float]], paper: Mapping[str, float], finding: str, *, simulated: bool
) -> Figure:
    """Label correlations of repeated samples of 10,000 rows, with the paper's one number for each group.

    Args:
        samples: By group, one correlation a sample.
        paper: By group, the paper's number.
        finding: The title.
        simulated: Whether the tables are the stand-in.
    """
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 2.6))
        for (group, values), colour in zip(samples.items(), ("#0072B2", "#D55E00"), strict=True):
            sns.histplot(
                x=np.asarray(values), bins=15, color=colour, alpha=0.45, ax=axes, label=f"group “{group}”"
            )
            axes.axvline(paper[group], color=colour, lw=2, ls="--")
            axes.annotate(
                f"paper {paper[group]}", (paper[group], 1), (3, -2), xycoords=("data", "axes fraction"),
                textcoords="offset points", va="top", fontsize=8.5, color=colour,
            )  # fmt: skip
        axes.set(
            xlabel="absolute Pearson correlation of the two labels, 10,000 random rows",
            ylabel="samples",
        )
        axes.legend(loc="upper center")
        return finish(figure, finding, simulated=simulated)


def auc_dots(
    rows: pd.DataFrame,
    metrics: dict[str, str],
    finding: str,
    *,
    simulated: bool,
    paper: pd.DataFrame | None = None,
) -> Figure:
    """Every run's AUC as a dot, each model's mean with its 95 % interval, the paper's mean as a diamond.

    Args:
        rows: One row a run: the column model and those named by `metrics`.
        metrics: Column to panel title.
        finding: The title.
        simulated: Whether the tables are the stand-in.
        paper: Columns model and those named by `metrics`: the paper's means; left out for simulated data.
    """
    models = list(dict.fromkeys(rows["model"]))
    with theme():
        figure, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 0.9 + 0.42 * len(models)), squeeze=False)
        for place, (column, title) in zip(axes[0], metrics.items(), strict=True):
            for index, model in enumerate(models):
                values = rows.loc[rows["model"] == model, column]
                mean, low, high = mean_interval(values)
                colour = COLOURS[model]
                place.plot(values, np.full(len(values), index - 0.2), ".", color=colour, alpha=0.5, ms=5)
                place.errorbar(
                    mean,
                    index,
                    xerr=[[mean - low], [high - mean]],
                    fmt=MARKERS[model],
                    ms=5,
                    capsize=3,
                    color=colour,
                )
                if paper is not None:
                    given = paper.loc[paper["model"] == model, column]
                    place.plot(given, [index + 0.25], "D", mfc="none", color=COLOURS["paper"], ms=5)
            place.set(
                title=title,
                yticks=range(len(models)),
                yticklabels=models,
                xlabel="test AUC",
                ylim=(-0.6, len(models) - 0.4),
            )
            place.invert_yaxis()
            place.xaxis.set_major_locator(MaxNLocator(5))
        for place in axes[0][1:]:
            place.set_yticklabels([])
        if paper is not None:
            axes[0][-1].plot(
                [], [], "D", mfc="none", color=COLOURS["paper"], ms=5, label="paper's mean of 400"
            )
            axes[0][-1].legend(loc="center")
        return finish(figure, finding, simulated=simulated)
