"""Figures of the universes: how near to the paper's, in what share of them, with noise, beside controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.figures.style import COLOURS, CORRELATION_STYLES, WIDTH, finish, theme
from companion.results.universes import figure_5_edges, losses_in_bins, losses_of_both_tasks

BAND = "#dddddd"
"""Colour of the band in which a difference does not matter."""
SURVEYED = ("Single-Task", "Shared-Bottom", "Shared-Bottom-96-32", "OMoE", "MMoE")
"""Models of the survey, from the one that shares nothing to the one that chooses by task."""
ENDS = (0.5, 1.0)
"""The task correlations of the survey."""
FEWEST_RUNS = 2
"""Of which a histogram is drawn."""


def distance_curves(curves: Mapping[str, pd.DataFrame], noise: tuple[float, float], finding: str) -> Figure:
    """How far the runs are from figure 5 as training goes on, a line a universe.

    Args:
        curves: By universe, columns step and distance; three at most.
        noise: Between what distances as many runs drawn from the paper's own histograms lie.
        finding: The title.

    Raises:
        ValueError: If there are more curves than styles that can be told apart.
    """
    styles = (("#009E73", "-"), ("#0072B2", (0, (5, 1.5))), ("#D55E00", (0, (1, 1))))
    if len(curves) > len(styles):
        raise ValueError(
            f"got {len(curves)} curves, expected {len(styles)} at most: no more can be told apart, draw fewer"
        )
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 2.8))
        for (name, curve), (colour, dashes) in zip(curves.items(), styles, strict=False):
            axes.plot(curve["step"] / 1000, curve["distance"], color=colour, ls=dashes, lw=1.6, label=name)
            best = curve.sort_values("distance").iloc[0]
            axes.plot(best["step"] / 1000, best["distance"], "o", color=colour, ms=5)
        axes.axhspan(*noise, color="#aaaaaa", lw=0, label="the paper's own noise")
        axes.set(
            xlabel="thousand steps",
            ylabel="mean distance to figure 5\n(Wasserstein, loss)",
            ylim=(0, min(0.3, axes.get_ylim()[1])),
        )
        axes.legend(loc="upper right")
        return finish(figure, finding)


def universe_dots(
    differences: pd.DataFrame, names: Sequence[str], nearest: pd.DataFrame, band: float, finding: str
) -> Figure:
    """Every universe as a dot: a row a difference, the band of what does not matter behind them.

    Args:
        differences: Columns universe, difference, estimate; one row a universe and difference.
        names: The differences to show, from top to bottom.
        nearest: Columns difference, estimate: of the nearest universe, drawn as a diamond.
        band: Half its width.
        finding: The title.
    """
    random = np.random.default_rng(0)
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 1.0 + 0.42 * len(names)))
        axes.axvspan(-band, band, color=BAND, lw=0)
        axes.axvline(0, color="#666666", lw=0.8)
        for place, name in enumerate(names):
            values = differences.loc[differences["difference"] == name, "estimate"].to_numpy()
            if len(values) == 0:  # no universe has runs of both models: the row stays empty
                continue
            shift = random.uniform(-0.22, 0.22, len(values))
            axes.plot(values, place + shift, "o", ms=4, color="#0072B2", alpha=0.55, mew=0)
            axes.plot([np.median(values)] * 2, [place - 0.33, place + 0.33], color="#000000", lw=2)
            of_nearest = nearest.loc[nearest["difference"] == name, "estimate"]
            axes.plot(of_nearest, [place] * len(of_nearest), "D", ms=6, color="#D55E00", mec="white")
            share = 100 * float((values > 0).mean())
            axes.text(
                1.01, place, f"{share:.0f} %", transform=axes.get_yaxis_transform(), va="center", fontsize=8.5
            )
        axes.text(
            1.01,
            -0.75,
            "above 0",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8.5,
            color="#444444",
        )
        axes.set(
            yticks=range(len(names)),
            yticklabels=names,
            xlabel="difference of mean losses\ndots: universes, bar: median, diamond: the nearest universe",
            ylim=(len(names) - 0.45, -0.55),
        )
        axes.grid(axis="y", visible=False)
        return finish(figure, finding)


def lead_with_noise(leads: Mapping[str, pd.DataFrame], band: float, finding: str) -> Figure:
    """A lead against the noise of the labels, a panel a comparison, a line a correlation.

    Args:
        leads: By title, `companion.results.noise_leads`.
        band: Below this a difference does not matter.
        finding: The title.
    """
    with theme():
        figure, axes = plt.subplots(1, len(leads), figsize=(WIDTH, 2.9), sharey=True, squeeze=False)
        for place, (title, rows) in zip(axes[0], leads.items(), strict=True):
            place.axhspan(-band, band, color=BAND, lw=0)
            place.axhline(0, color="#666666", lw=0.8)
            for shift, (p, group) in zip((0.94, 1.0, 1.06), rows.groupby("task_correlation"), strict=False):
                colour, dashes = CORRELATION_STYLES[float(str(p))]
                place.errorbar(
                    group["noise_variance"] * shift, group["estimate"],
                    yerr=[group["estimate"] - group["low"], group["high"] - group["estimate"]],
                    color=colour, ls=dashes, marker="o", ms=4, lw=1.3, capsize=2.5, label=f"p = {p:g}",
                )  # fmt: skip
            ticks = sorted(rows["noise_variance"].unique())
            place.set(
                title=title,
                xscale="log",
                xlabel="noise variance",
                xticks=ticks,
                xticklabels=[f"{t:g}" for t in ticks],
            )
            place.minorticks_off()
        axes[0][0].set_ylabel("difference of mean losses")
        axes[0][-1].legend(loc="best")
        return finish(figure, finding)


def control_dots(
    levels: pd.DataFrame, order: Sequence[str], notes: Mapping[str, str], finding: str
) -> Figure:
    """Mean loss over both tasks of the mixture and of each control, with 95 % intervals, a colour a correlation.

    Args:
        levels: `companion.results.setting_levels`.
        order: Models from top to bottom.
        notes: What each is, in a few words, in place of its name.
        finding: The title.
    """
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 1.0 + 0.36 * len(order)))
        _dots_of_both_correlations(axes, levels, order, notes)
        axes.set(xlabel="loss, mean of both tasks", xlim=(0, None))
        return finish(figure, finding)


def lead_dots(leads: pd.DataFrame, notes: Mapping[str, str], band: float, finding: str) -> Figure:
    """By how much lower MMoE's loss is than each rival's, with 95 % intervals, a colour a correlation.

    Args:
        leads: `companion.results.universes.leads_of`.
        notes: The rivals from top to bottom, and what each is, in a few words.
        band: Differences up to it do not matter: a grey band.
        finding: The title.
    """
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 1.0 + 0.36 * len(notes)))
        axes.axvspan(-band, band, color=BAND, lw=0, zorder=0)
        axes.axvline(0, color="#777777", lw=0.8, zorder=1)
        _dots_of_both_correlations(axes, leads, list(notes), notes)
        axes.set_xlabel("loss minus MMoE's, mean of both tasks; grey: too small to matter")
        return finish(figure, finding)


def _dots_of_both_correlations(
    axes: Axes, levels: pd.DataFrame, order: Sequence[str], notes: Mapping[str, str]
) -> None:
    for shift, (p, rows) in zip((-0.14, 0.14), levels.groupby("task_correlation"), strict=False):
        found = rows.set_index("model").reindex(list(order))
        colour, _ = CORRELATION_STYLES[float(str(p))]
        axes.errorbar(
            found["mean"], np.arange(len(order)) + shift,
            xerr=[found["mean"] - found["low"], found["high"] - found["mean"]],
            fmt="o" if p == 1 else "s", ms=5, capsize=2.5, color=colour, label=f"p = {p:g}",
        )  # fmt: skip
    axes.set(yticks=range(len(order)), yticklabels=[notes.get(model, model) for model in order])
    axes.invert_yaxis()
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)  # above all points


def small_model_levels(curves: pd.DataFrame, paper: Mapping[float, float], finding: str) -> Figure:
    """Figure 3's model against steps, a line a correlation, and the paper's last levels as dashes.

    Args:
        curves: Columns task_correlation, step, mean, low, high.
        paper: The paper's last loss by correlation.
        finding: The title.
    """
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 2.9))
        for p, rows in curves.groupby("task_correlation"):
            colour, dashes = CORRELATION_STYLES[float(str(p))]
            axes.plot(
                rows["step"] / 1000, rows["mean"], color=colour, ls=dashes, lw=1.5, label=f"ours, p = {p:g}"
            )
            axes.fill_between(rows["step"] / 1000, rows["low"], rows["high"], color=colour, alpha=0.18, lw=0)
            axes.axhline(paper[float(str(p))], color=colour, lw=0.9, alpha=0.9)
            axes.text(
                1.005, paper[float(str(p))], f"paper {p:g}", transform=axes.get_yaxis_transform(), va="center",
                fontsize=8.5, color="#333333",
            )  # fmt: skip
        axes.set(xlabel="thousand steps", ylabel="loss, mean of both tasks", ylim=(0, 0.8))
        axes.legend(loc="upper right")
        return finish(figure, finding)


def universe_histograms(survey: pd.DataFrame, universe: int, paper: pd.DataFrame, finding: str) -> Figure:
    """Final losses of both tasks in one universe in the paper's bins, a row a model, a column a correlation.

    Losses above the last bin are counted in it; where there are fewer than two runs, it says so. Figure 5 of the paper
    is an outline where it shows the model.

    Args:
        survey: Rows of `data/results/universes_survey.csv`.
        universe: Its number.
        paper: `read_paper("figure5_final_loss_histogram")`.
        finding: The title.

    Raises:
        ValueError: If the survey has no runs in this universe.
    """
    rows = survey[survey["universe"] == universe]
    if rows.empty:
        raise ValueError(
            f"the survey has no runs in universe {universe}, expected some: choose one of its column universe"
        )
    losses, edges = losses_of_both_tasks(rows), figure_5_edges(paper)
    with theme():
        figure, axes = plt.subplots(
            len(SURVEYED), len(ENDS), figsize=(WIDTH, 7.2), sharex=True, sharey=True, squeeze=False
        )
        for row, model in zip(axes, SURVEYED, strict=True):
            for place, p in zip(row, ENDS, strict=True):
                found = losses.get((model, p), np.array([]))
                place.set(title=f"{model}, p = {p:g}: {len(found) // 2} runs", xlim=(edges[0], edges[-1]))
                if len(found) < 2 * FEWEST_RUNS:
                    place.text(0.5, 0.5, "fewer than two runs", transform=place.transAxes, ha="center")
                else:
                    place.stairs(
                        100 * losses_in_bins(found, edges) / len(found),
                        edges,
                        fill=True,
                        color=COLOURS[model.removesuffix("-96-32")],
                        alpha=0.55,
                        label="ours",
                    )
                printed = paper[(paper["model"] == model) & (paper["task_correlation"] == p)]
                if len(printed):
                    runs = printed.sort_values("bin_left")["runs_of_200"].to_numpy()
                    place.stairs(
                        100 * runs / runs.sum(),
                        edges,
                        color=COLOURS["paper"],
                        lw=1.1,
                        label="paper, figure 5",
                    )
            row[0].set_ylabel("% of losses")
        for place in axes[-1]:
            place.set(
                xlabel="final loss, both tasks (last bar: all above, too)", xticks=[0, 0.2, 0.4, 0.6, 0.8]
            )
        axes[-1][-1].legend(loc="upper right")
        return finish(figure, finding)


def share_bars(shares: pd.DataFrame, names: Sequence[str], finding: str) -> Figure:
    """In what share of universes each difference matters, in which direction, and in what share it is too small.

    Args:
        shares: Index difference; columns above_band, inside_band and below_band, shares of the universes.
        names: The differences to show, from top to bottom.
        finding: The title.
    """
    places = np.arange(len(names))
    parts = (
        ("above_band", "#0072B2", "", "larger, by more than matters"),
        ("inside_band", BAND, "", "too small to matter"),
        ("below_band", "#D55E00", "////", "smaller, by more than matters"),
    )
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 1.2 + 0.34 * len(names)))
        left = np.zeros(len(names))
        for column, colour, hatch, label in parts:
            width = 100 * shares.loc[list(names), column].to_numpy(dtype=np.float64)
            axes.barh(
                places,
                width,
                0.66,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                lw=0.6,
                label=label,
            )
            for place, start, size in zip(places, left, width, strict=True):
                if size >= 6:
                    # On hatching a number needs a ground of its own.
                    ground = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"} if hatch else None
                    axes.text(
                        start + size / 2, float(place), f"{size:.0f}", ha="center", va="center", fontsize=8.5,
                        color="white" if column == "above_band" else "black", bbox=ground,
                    )  # fmt: skip
            left += width
        axes.set(yticks=places, yticklabels=names, xlim=(0, 100), xlabel="universes (%)")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=len(parts))
        return finish(figure, finding)
