"""Figures of the extensions chapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from companion.figures.style import COLOURS, MARKERS, WIDTH, finish, theme
from companion.results.extensions import BETTER, NEITHER, WORSE, Comparisons, share_name

VERDICTS = {BETTER: ("#009E73", "^"), WORSE: ("#D55E00", "v"), NEITHER: ("#666666", "o")}
"""Colour and marker of what a difference shows."""
LINES = {name: (COLOURS[name], marker) for name, marker in MARKERS.items()} | {
    "CGC": ("#CC79A7", "X"),
    "PLE": ("#E69F00", "v"),
    "Deeper MMoE": ("#8C510A", "d"),
}
"""Colour and marker of each model that is drawn along a setting."""
TASKS = {"rare": ("#0072B2", "o"), "other": ("#E69F00", "s")}
"""Colour and marker of the task whose positives were taken away, and of the other."""
BALANCED = {
    "plain sum": ("#666666", "o"),
    "uncertainty weighting": ("#0072B2", "s"),
    "GradNorm": ("#D55E00", "v"),
    "PCGrad": ("#56B4E9", "D"),
    "CAGrad": ("#009E73", "P"),
    "Nash-MTL": ("#CC79A7", "X"),
    "UPGrad": ("#E69F00", "^"),
}
"""Colour and marker of each way to weigh tasks anew at every step."""
UNIT_TASKS = {1: TASKS["rare"], 2: TASKS["other"]}
"""Colour and marker of the task in the paper's unit, and of the one in another."""
NAMES = {"rare": "the rare task", "other": "the other task"}


def against_mmoe(found: Comparisons, models: Sequence[str], finding: str) -> Figure:
    """Every extension minus MMoE on both sets, with 95 % intervals: a dot left or right of MMoE's line.

    Args:
        found: From `companion.results.compare_extensions`.
        models: Rows, from top to bottom.
        finding: The title.
    """
    panels = {
        "synthetic tasks, p = 0.5\nsquared error": found.loss,
        "Census-Income: income\nAUC points": found.main,
        "Census-Income: never married\nAUC points": found.auxiliary,
    }
    with theme():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(WIDTH, 1.3 + 0.27 * len(models)), sharey=True, squeeze=False
        )
        for place, (title, compared) in zip(axes[0], panels.items(), strict=True):
            place.axvline(0, color=COLOURS["MMoE"], lw=1.2)
            for row, model in enumerate(models):
                difference, low, high = (
                    float(compared[name][model])
                    for name in ("difference", "difference_low", "difference_high")
                )
                colour, marker = VERDICTS[str(compared["verdict"][model])]
                place.errorbar(
                    difference, row, xerr=[[difference - low], [high - difference]], fmt=marker, ms=5, capsize=2.5,
                    color=colour,
                )  # fmt: skip
            place.set_title(title, fontsize=9)
            place.set(xlabel="minus MMoE's", ylim=(len(models) - 0.5, -0.5))
        axes[0][0].set(yticks=range(len(models)), yticklabels=models)
        handles = [
            Line2D([], [], color=colour, marker=marker, ls="", label=verdict)
            for verdict, (colour, marker) in VERDICTS.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        return finish(figure, finding)


def polarisation(found: Comparisons, models: Sequence[str], finding: str) -> Figure:
    """What a regulariser does to the gates against what it does to the metric, on both sets.

    Args:
        found: From `companion.results.compare_extensions`.
        models: MMoE and its regularised forms.
        finding: The title.
    """
    panels: Sequence[tuple[str, str, pd.DataFrame, str]] = (
        ("synthetic tasks, p = 0.5", "synthetic_gate_entropy", found.loss, "squared error"),
        ("Census-Income", "gate_entropy", found.main, "income AUC (points)"),
    )
    with theme():
        figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.9))
        colours = ["#009E73", "#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9"]
        families = list(dict.fromkeys(model.rsplit(" ", 1)[0] for model in models))
        for place, (title, measure, compared, label) in zip(axes, panels, strict=True):
            for model in models:
                family = model.rsplit(" ", 1)[0]
                mean, low, high = (float(compared[name][model]) for name in ("mean", "low", "high"))
                index = families.index(family)
                place.errorbar(
                    float(found.gates[measure][model]), mean, yerr=[[mean - low], [high - mean]],
                    fmt="osv^DP"[index], ms=9 if model.endswith("0.1") else 5, capsize=2.5, color=colours[index],
                )  # fmt: skip
            place.set_title(title, fontsize=9)
            place.set(xlabel="entropy of the gates (1: all experts alike)", ylabel=label)
        handles = [
            Line2D([], [], color=colours[index], marker="osv^DP"[index], ls="", label=family)
            for index, family in enumerate(families)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(families))
        return finish(figure, finding)


def along(
    summaries: Mapping[str, pd.DataFrame],
    setting: str,
    labels: Mapping[str, str],
    xlabel: str,
    finding: str,
    *,
    ratio_scale: bool = False,
) -> Figure:
    """Means of every model along a setting that is varied, with 95 % intervals as bands; a panel a table.

    Args:
        summaries: By panel title: the columns model, the setting, mean; low and high where there is an interval.
        setting: Column of the x axis.
        labels: By panel title, the label of its y axis.
        xlabel: Label of the x axis.
        finding: The title.
        ratio_scale: Whether the settings are drawn by their ratios.
    """
    with theme():
        figure, axes = plt.subplots(1, len(summaries), figsize=(WIDTH, 3.6), squeeze=False)
        for place, (title, summary) in zip(axes[0], summaries.items(), strict=True):
            for model, rows in summary.groupby("model", sort=False):
                colour, marker = LINES[str(model)]
                place.plot(rows[setting], rows["mean"], marker=marker, ms=5, color=colour, label=str(model))
                if "low" in rows:
                    place.fill_between(rows[setting], rows["low"], rows["high"], color=colour, alpha=0.15)
            settings = sorted(set(summary[setting]))
            if ratio_scale:
                place.set_xscale("log")
                place.xaxis.set_minor_formatter(NullFormatter())
            place.xaxis.set_major_locator(FixedLocator(settings))
            place.set_xticklabels([f"{value:g}" for value in settings])
            place.set_title(title, fontsize=9)
            place.set(xlabel=xlabel, ylabel=labels[title])
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        return finish(figure, finding)


def _points(place: Axes, found: pd.DataFrame, names: Sequence[str], column: str) -> None:
    place.axvline(0, color="#333333", lw=1)
    for row, name in enumerate(names):
        for shift, (task, (colour, marker)) in zip((-0.14, 0.14), TASKS.items(), strict=True):
            one = found[(found[column] == name) & (found["task"] == task)]
            for points, low, high in zip(one["points"], one["points_low"], one["points_high"], strict=True):
                place.errorbar(
                    points, row + shift, xerr=[[points - low], [high - points]], fmt=marker, ms=4.5, capsize=2.5,
                    color=colour,
                )  # fmt: skip
    place.set(ylim=(len(names) - 0.5, -0.5))


def rare_points(
    found: pd.DataFrame, column: str, xlabel: str, finding: str, *, linear: float = 1.0
) -> Figure:
    """Differences of both tasks' AUCs with 95 % intervals, a panel a share of positives that is kept.

    Args:
        found: From `companion.results.pressed_down` or `remedies`: share, task, points, points_low, points_high.
        column: Column of the rows, "model" or "remedy".
        xlabel: Says what is subtracted.
        finding: The title.
        linear: The axis is linear up to so many points, and logarithmic beyond.
    """
    shown = found.dropna(subset=["points"])
    names, shares = list(dict.fromkeys(shown[column])), list(dict.fromkeys(shown["share"]))
    with theme():
        figure, axes = plt.subplots(
            1, len(shares), figsize=(WIDTH, 1.4 + 0.36 * len(names)), sharey=True, squeeze=False
        )
        for place, share in zip(axes[0], shares, strict=True):
            here = shown[shown["share"] == share]
            _points(place, here, names, column)
            widest = float(np.nanmax(np.abs(here[["points_low", "points_high"]].to_numpy())))
            if widest > 4 * linear:
                place.set_xscale("symlog", linthresh=linear)
                place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            place.set_title(share_name(share), fontsize=9)
            place.set(xlabel=xlabel)
        axes[0][0].set(yticks=range(len(names)), yticklabels=names)
        handles = [
            Line2D([], [], color=colour, marker=marker, ls="", label=NAMES[task])
            for task, (colour, marker) in TASKS.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        return finish(figure, finding)


def unit_dots(found: pd.DataFrame, finding: str) -> Figure:
    """Losses of both tasks with 95 % intervals under every way to balance them, a panel a unit of task 2.

    Args:
        found: From `companion.results.unit_losses`.
        finding: The title.
    """
    units, names = list(dict.fromkeys(found["unit"])), list(dict.fromkeys(found["remedy"]))
    # A remedy that is not run in the first unit stands after the plain sum all the same.
    names.sort(key=lambda name: (name != "plain sum", name != "fixed weights"))
    with theme():
        figure, axes = plt.subplots(
            1, len(units), figsize=(WIDTH, 1.6 + 0.34 * len(names)), sharey=True, squeeze=False, sharex=True
        )
        for place, unit in zip(axes[0], units, strict=True):
            for shift, (task, (colour, marker)) in zip((-0.14, 0.14), UNIT_TASKS.items(), strict=True):
                rows = found[(found["unit"] == unit) & (found["task"] == task)]
                plain = rows.loc[rows["remedy"] == "plain sum", "mean"]
                place.axvline(float(plain.iloc[0]), color=colour, lw=1, ls=":")
                for row in rows[["remedy", "mean", "low", "high"]].itertuples(index=False):
                    mean, low, high = (float(value) for value in row[1:])
                    place.errorbar(
                        mean, names.index(str(row[0])) + shift, xerr=[[mean - low], [high - mean]], fmt=marker,
                        ms=4.5, capsize=2.5, color=colour,
                    )  # fmt: skip
            label = "both tasks in one unit" if unit == 1 else f"task 2 in numbers {unit:g} times as large"
            place.set_title(label, fontsize=9)
            place.set(xlabel="squared error, in the paper's unit", ylim=(len(names) - 0.5, -0.5))
        axes[0][0].set(yticks=range(len(names)), yticklabels=names)
        handles = [
            Line2D([], [], color=colour, marker=marker, ls="", label=f"task {task}")
            for task, (colour, marker) in UNIT_TASKS.items()
        ]
        handles.append(Line2D([], [], color="#666666", lw=1, ls=":", label="mean of the plain sum"))
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        return finish(figure, finding)


def weights_along(panels: Mapping[str, pd.DataFrame], finding: str) -> Figure:
    """The rare task's share of the two weights along training, a line a balancer, with 95 % intervals as bands.

    Args:
        panels: By panel title, from `companion.results.along_training` with "weight".
        finding: The title.
    """
    with theme():
        figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.8), sharey=True, squeeze=False)
        for place, (title, summary) in zip(axes[0], panels.items(), strict=True):
            for remedy, rows in summary.groupby("remedy", sort=False):
                colour, marker = BALANCED[str(remedy)]
                place.plot(rows["part"], rows["mean"], marker=marker, ms=4.5, color=colour, label=str(remedy))
                place.fill_between(rows["part"], rows["low"], rows["high"], color=colour, alpha=0.15)
            place.set_title(title, fontsize=9)
            place.set(xlabel="tenth of training", xticks=range(1, 11), ylim=(0, 1))
        axes[0][0].set(ylabel="rare task's share of the weights")
        handles, names = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4)
        return finish(figure, finding)
