"""Figures of the census chapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from companion.figures.style import COLOURS, MARKERS, WIDTH, finish, theme
from companion.results import mean_interval


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


FAR = 0.02
"""An AUC of the paper that lies so far below all of ours is written at the edge, so that ours can be told apart."""


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
        rows: One row a run: the column model and those named by `metrics`; NaN for a run that diverged.
        metrics: Column to panel title.
        finding: The title.
        simulated: Whether the tables are the stand-in.
        paper: Columns model and those named by `metrics`: the paper's means; left out for simulated data.
    """
    models = list(dict.fromkeys(rows["model"]))
    many = len(rows) > 20 * len(models)
    with theme():
        figure, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 0.9 + 0.42 * len(models)), squeeze=False)
        for place, (column, title) in zip(axes[0], metrics.items(), strict=True):
            lowest = rows[column].min()
            for index, model in enumerate(models):
                values = rows.loc[rows["model"] == model, column].dropna()
                mean, low, high = mean_interval(values)
                colour = COLOURS[model]
                spread = np.resize([0.0, 0.06, -0.06, 0.03, -0.03] if many else [0.0], len(values))
                place.plot(
                    values, index - 0.2 + spread, ".", color=colour, alpha=0.25 if many else 0.5, ms=3 if many else 5
                )  # fmt: skip
                place.errorbar(
                    mean,
                    index + 0.08,
                    xerr=[[mean - low], [high - mean]],
                    fmt=MARKERS[model],
                    ms=5,
                    capsize=3,
                    color=colour,
                )
                if paper is not None:
                    given = float(paper.loc[paper["model"] == model, column].iloc[0])
                    if given < lowest - FAR:
                        place.annotate(
                            f"paper: {given:.4f}", (0.02, index + 0.3), xycoords=("axes fraction", "data"),
                            va="center", fontsize=7.5, color=COLOURS["paper"],
                        )  # fmt: skip
                    else:
                        place.plot(given, [index + 0.3], "D", mfc="none", color=COLOURS["paper"], ms=5)
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
            figure.legend(
                handles=[Line2D([], [], marker="D", mfc="none", color=COLOURS["paper"], ls="", ms=5)],
                labels=["the paper's mean of 400 runs"],
                loc="outside lower right",
            )
        return finish(figure, finding, simulated=simulated)


def trial_dots(trials: pd.DataFrame, finding: str) -> Figure:
    """Validation AUC of every trial of tuning, in the order in which they were made, a panel a method and group.

    Args:
        trials: Rows of `data/results/census_tuning.csv`: model, setting (the group), seed (the trial's number),
            state, validation_auc.
        finding: The title.
    """
    models, groups = list(dict.fromkeys(trials["model"])), list(dict.fromkeys(trials["setting"]))
    with theme():
        figure, axes = plt.subplots(
            len(groups), len(models), figsize=(WIDTH, 1.9 * len(groups) + 0.4), sharey="row", squeeze=False
        )
        for line, group in zip(axes, groups, strict=True):
            of_group = trials[trials["setting"] == group]
            bottom, top = of_group["validation_auc"].quantile(0.15), of_group["validation_auc"].max()
            for place, model in zip(line, models, strict=True):
                rows = of_group[of_group["model"] == model]
                seen = rows["validation_auc"].clip(lower=bottom)  # the worst lie far below: on the lower edge
                ended = rows["state"] == "complete"
                colour = COLOURS[model]
                place.plot(rows.loc[~ended, "seed"], seen[~ended], "x", ms=2.5, mew=0.7, color="#999999")
                place.plot(rows.loc[ended, "seed"], seen[ended], ".", ms=4, color=colour)
                best = seen.where(ended).cummax().ffill()
                place.plot(rows["seed"], best, drawstyle="steps-post", lw=1, color=colour)
                place.set_ylim(bottom - 0.04 * (top - bottom), top + 0.06 * (top - bottom))
                place.xaxis.set_major_locator(MaxNLocator(2, integer=True))
            line[0].set_ylabel(f"group “{group}”\nvalidation AUC")
        for place, model in zip(axes[0], models, strict=True):
            place.set_title(model.replace("-", "-\n", 1), fontsize=8)
        figure.supxlabel("trial", fontsize=9)
        return finish(figure, finding)


def change_dots(changes: Mapping[str, pd.DataFrame], finding: str) -> Figure:
    """By how many AUC points each change moves the main task, with 95 % intervals, a panel a group.

    Args:
        changes: By group, `companion.results.changes_table`: change, model, points, low, high.
        finding: The title.
    """
    names = list(dict.fromkeys(name for table in changes.values() for name in table["change"]))
    with theme():
        figure, axes = plt.subplots(
            1, len(changes), figsize=(WIDTH, 0.9 + 0.3 * len(names)), sharey=True, squeeze=False
        )
        for place, (group, table) in zip(axes[0], changes.items(), strict=True):
            place.axvline(0, color="#444444", lw=0.8)
            models = list(dict.fromkeys(table["model"]))
            for shift, model in zip((-0.14, 0.14), models, strict=False):
                rows = table[table["model"] == model]
                height = [names.index(name) + shift for name in rows["change"]]
                error = [rows["points"] - rows["low"], rows["high"] - rows["points"]]
                place.errorbar(
                    rows["points"], height, xerr=error, fmt=MARKERS[model], ms=4, capsize=2, lw=1,
                    color=COLOURS[model], label=model,
                )  # fmt: skip
            place.set_xscale("symlog", linthresh=0.1)
            place.set(title=f"group “{group}”", xlabel="AUC points (1/100) against the study")
            place.set(yticks=range(len(names)), yticklabels=names)
            place.xaxis.set_major_locator(FixedLocator([-10, -1, -0.1, 0, 0.1, 1, 10]))
            place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[0][0].invert_yaxis()
        axes[0][-1].legend(loc="best")
        return finish(figure, finding)
