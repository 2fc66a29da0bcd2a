"""The book's figures: one function a figure, tables in, a matplotlib figure out.

A title states the finding, so the chapter passes it; what is drawn from simulated data says so in the
title whatever the chapter passed. Dark text on an opaque white ground reads in light and in dark mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from mmoe_lib.results import mean_interval, summarise
from mmoe_lib.tasks.synthetic import CALIBRATED, Constants, noiseless_labels

# Okabe and Ito's colours, told apart by readers with any colour vision; each also has a marker or a dash.
COLOURS = {
    "Single-Task": "#666666",
    "Shared-Bottom": "#D55E00",
    "OMoE": "#0072B2",
    "MMoE": "#009E73",
    "paper": "#000000",
}
MARKERS = {"Single-Task": "D", "Shared-Bottom": "s", "OMoE": "^", "MMoE": "o"}
CORRELATION_STYLES = {0.5: ("#CC79A7", "-"), 0.9: ("#0072B2", (0, (5, 1.5))), 1.0: ("#E69F00", (0, (1, 1)))}
WIDTH = 7.6  # inches; the page's text column at 130 dots an inch


@contextmanager
def _theme() -> Iterator[None]:
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


def _finish(figure: Figure, finding: str, *, simulated: bool = False) -> Figure:
    suffix = " (simulated data)" if simulated and "simulated" not in finding.lower() else ""
    figure.suptitle(finding + suffix, x=0.01, ha="left", fontsize=11, fontweight="bold")
    for axes in figure.axes:
        sns.despine(ax=axes)
    return figure


def label_scatter(
    samples: dict[float, torch.Tensor], finding: str, constants: Constants = CALIBRATED
) -> Figure:
    """The synthetic label as a function of the projection, and both labels against each other.

    Args:
        samples: By task correlation p, labels (N, 2).
        finding: The title.
        constants: Which sines to draw.
    """
    with _theme():
        figure, axes = plt.subplots(1, 1 + len(samples), figsize=(WIDTH, 2.5))
        z = torch.linspace(-3, 3, 600)
        axes[0].plot(z, noiseless_labels(constants.c * z, constants), color="#333333", lw=1.2)
        axes[0].plot(z, constants.c * z, color="#999999", lw=1.2, ls="--")
        axes[0].set(title="Label without noise", xlabel="projection $w'x / c$", ylabel="label $y$")
        limit = 1.05 * max(float(values.abs().max()) for values in samples.values())
        for place, (p, labels) in zip(axes[1:], samples.items(), strict=True):
            colour = CORRELATION_STYLES.get(p, ("#333333", "-"))[0]
            place.scatter(labels[:, 0], labels[:, 1], s=3, alpha=0.35, color=colour, linewidths=0)
            pearson = float(torch.corrcoef(labels.T.double())[0, 1])
            place.set(title=f"p = {p:g}: labels at {pearson:.2f}", xlabel="label of task 1", aspect="equal")
            place.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[-5, 0, 5], yticks=[-5, 0, 5])
        axes[1].set_ylabel("label of task 2")
        return _finish(figure, finding)


def label_correlations(ours: pd.DataFrame, paper: pd.DataFrame, curve: pd.DataFrame, finding: str) -> Figure:
    """Figure 2 of the paper: label correlation against weight cosine, ours on the paper's points.

    Args:
        ours: Columns weight_cosine, mean, two_standard_deviations, from sampling.
        paper: `read_paper("figure2_label_correlation")`.
        curve: Columns weight_cosine, label_correlation: the closed form.
        finding: The title.
    """
    with _theme():
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(WIDTH, 4.4), sharex=True, height_ratios=[3, 1.3])
        top.plot(
            curve["weight_cosine"],
            curve["label_correlation"],
            color=COLOURS["MMoE"],
            lw=1.4,
            label="closed form",
        )
        top.errorbar(
            ours["weight_cosine"], ours["mean"], ours["two_standard_deviations"],
            fmt="o", ms=4, capsize=3, color=COLOURS["OMoE"], label="our samples, ± 2 sd",
        )  # fmt: skip
        top.errorbar(
            paper["weight_cosine"] + 0.006, paper["label_correlation_mean"], paper["two_standard_deviations"],
            fmt="D", ms=5, mfc="none", capsize=3, color=COLOURS["paper"], label="paper, figure 2, ± 2 sd",
        )  # fmt: skip
        top.set_ylabel("label correlation (Pearson)")
        top.legend(loc="upper left")
        exact = np.interp(paper["weight_cosine"], curve["weight_cosine"], curve["label_correlation"])
        bottom.axhline(0, color="#999999", lw=0.8)
        bottom.plot(
            paper["weight_cosine"], exact - paper["label_correlation_mean"], "s", ms=4, color=COLOURS["MMoE"]
        )
        bottom.set(
            xlabel="weight cosine p (paper's points drawn 0.006 to the right)",
            ylabel="closed form\nminus paper",
            ylim=(-0.004, 0.004),
        )
        return _finish(figure, finding)


def loss_curves(ours: pd.DataFrame, paper: pd.DataFrame, finding: str) -> Figure:
    """Mean loss over the steps for each task correlation, ours with 95 % intervals, the paper's beside it.

    Args:
        ours: Columns task_correlation, step, seed, loss; one row a run and step.
        paper: Columns task_correlation, step_as_printed, mean_loss.
        finding: The title.
    """
    with _theme():
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.1))
        summary = summarise(ours, ["task_correlation", "step"], "loss")
        for p, rows in _by_correlation(summary):
            colour, dashes = CORRELATION_STYLES[p]
            left.plot(rows["step"], rows["mean"], color=colour, ls=dashes, lw=1.5, label=f"p = {p:g}")
            left.fill_between(rows["step"], rows["low"], rows["high"], color=colour, alpha=0.2, lw=0)
        for p, rows in _by_correlation(paper):
            colour, dashes = CORRELATION_STYLES[p]
            right.plot(
                rows["step_as_printed"],
                rows["mean_loss"],
                color=colour,
                ls=dashes,
                lw=1.5,
                label=f"p = {p:g}",
            )
        runs = int(summary["runs"].min())
        left.set(
            title=f"Ours: {runs} runs, 95 % interval",
            xlabel="step",
            ylabel="squared error of a task",
            ylim=(0, None),
        )
        right.set(
            title="The paper's figure 3: 200 runs",
            xlabel="steps as printed (“k”)",
            ylabel="loss",
            ylim=(0, None),
        )
        left.legend(title="task correlation")
        return _finish(figure, finding)


def _by_correlation(rows: pd.DataFrame) -> Iterator[tuple[float, pd.DataFrame]]:
    for p in sorted(rows["task_correlation"].unique()):
        yield float(p), rows[rows["task_correlation"] == p]


def architectures(finding: str) -> Figure:
    """Shared-Bottom, OMoE and MMoE as boxes and arrows, two tasks, three experts."""
    with _theme(), plt.rc_context({"axes.grid": False}):
        figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.3))
        for place, title in zip(axes, ("Shared-Bottom", "OMoE", "MMoE"), strict=True):
            place.set(xlim=(0, 6), ylim=(0, 6), title=title)
            place.axis("off")
            _boxes(place, title)
        return _finish(figure, finding)


def _boxes(axes: Axes, model: str) -> None:
    def box(x: float, y: float, width: float, text: str, colour: str) -> tuple[float, float]:
        axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - 0.35), width, 0.7, "round,pad=0.05", fc=colour + "33", ec=colour
            )
        )
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color="#111111")
        return x, y

    def arrow(start: tuple[float, float], end: tuple[float, float], dashes: str = "-") -> None:
        axes.add_patch(
            FancyArrowPatch(
                (start[0], start[1] + 0.42), (end[0], end[1] - 0.42), arrowstyle="-|>", mutation_scale=7,
                lw=0.9, ls=dashes, color="#444444",
            )
        )  # fmt: skip

    source = box(3, 0.5, 2.2, "input $x$", "#666666")
    towers = [box(1.6, 5.3, 2.0, "tower $h_1$", "#D55E00"), box(4.4, 5.3, 2.0, "tower $h_2$", "#0072B2")]
    if model == "Shared-Bottom":
        bottom = box(3, 2.6, 4.2, "shared bottom $f$", "#009E73")
        arrow(source, bottom)
        for tower in towers:
            arrow(bottom, tower)
        return
    experts = [box(x, 2.3, 0.85, f"$f_{i}$", "#009E73") for i, x in enumerate((1.9, 3.0, 4.1), start=1)]
    sums = [(1.6, 3.9), (4.4, 3.9)] if model == "MMoE" else [(3.0, 3.9)]
    gates = [(0.45, 2.3, "$g^1$"), (5.55, 2.3, "$g^2$")] if model == "MMoE" else [(0.45, 2.3, "$g$")]
    for expert in experts:
        arrow(source, expert)
    for (x, y), (gate_x, gate_y, name) in zip(sums, gates, strict=True):
        mixed = box(x, y, 0.9, "$\\Sigma$", "#CC79A7")
        gate = box(gate_x, gate_y, 0.7, name, "#E69F00")
        arrow(source, gate, "--")
        arrow(gate, mixed, "--")
        for expert in experts:
            arrow(expert, mixed)
    for tower, (x, y) in zip(towers, sums * (2 // len(sums)), strict=True):
        arrow((x, y), tower)


def label_rates(rates: pd.DataFrame, finding: str, *, simulated: bool) -> Figure:
    """Share of positive answers of each census label in train and test.

    Args:
        rates: Labels as index, columns train and test.
        finding: The title.
        simulated: Whether the tables are the stand-in.
    """
    with _theme():
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
        return _finish(figure, finding, simulated=simulated)


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
    with _theme():
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
        return _finish(figure, finding, simulated=simulated)


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
    with _theme():
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
        return _finish(figure, finding, simulated=simulated)


def expert_use(weights: torch.Tensor, finding: str, *, simulated: bool = False) -> Figure:
    """Mean gate weight of each expert for each task, one panel a run.

    Args:
        weights: Mean gate weights (R, K, n).
        finding: The title.
        simulated: Whether the inputs are a stand-in.
    """
    runs, num_tasks, num_experts = weights.shape
    with _theme(), plt.rc_context({"axes.grid": False}):
        figure, axes = plt.subplots(1, runs, figsize=(WIDTH, 1.7), squeeze=False)
        for run, place in enumerate(axes[0]):
            image = place.imshow(
                weights[run].numpy(), cmap="cividis", vmin=0, vmax=float(weights.max()), aspect="auto"
            )
            place.set(title=f"run {run}", xticks=range(num_experts), xticklabels=range(1, num_experts + 1))
            place.set(xlabel="expert", yticks=range(num_tasks), yticklabels=[])
        axes[0][0].set_yticklabels([f"task {k + 1}" for k in range(num_tasks)])
        figure.colorbar(image, ax=axes, label="mean gate weight")
        return _finish(figure, finding, simulated=simulated)
