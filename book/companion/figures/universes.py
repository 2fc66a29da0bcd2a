"""Figures of the universes: how near to the paper's, in what share of them, with noise, beside controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.figures.style import CORRELATION_STYLES, WIDTH, finish, theme

BAND = "#dddddd"
"""Colour of the band in which a difference does not matter."""


def distance_curves(curves: Mapping[str, pd.DataFrame], noise: tuple[float, float], finding: str) -> Figure:
    """How far the runs are from figure 5 as training goes on, a line a universe.

    Args:
        curves: By universe, columns step and distance.
        noise: Between what distances as many runs drawn from the paper's own histograms lie.
        finding: The title.
    """
    styles = (("#009E73", "-"), ("#0072B2", (0, (5, 1.5))), ("#D55E00", (0, (1, 1))))
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 2.8))
        for (name, curve), (colour, dashes) in zip(curves.items(), styles, strict=False):
            axes.plot(curve["step"] / 1000, curve["distance"], color=colour, ls=dashes, lw=1.6, label=name)
            best = curve.sort_values("distance").iloc[0]
            axes.plot(best["step"] / 1000, best["distance"], "o", color=colour, ms=5)
        axes.axhspan(*noise, color=BAND, lw=0, label="the paper's own noise")
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
            xlabel="difference of mean losses; dots: universes, bar: median, diamond: the nearest universe",
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
        notes: What each is, in a few words.
        finding: The title.
    """
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 1.0 + 0.36 * len(order)))
        for shift, (p, rows) in zip((-0.14, 0.14), levels.groupby("task_correlation"), strict=False):
            found = rows.set_index("model").reindex(list(order))
            colour, _ = CORRELATION_STYLES[float(str(p))]
            axes.errorbar(
                found["mean"], np.arange(len(order)) + shift,
                xerr=[found["mean"] - found["low"], found["high"] - found["mean"]],
                fmt="o" if p == 1 else "s", ms=5, capsize=2.5, color=colour, label=f"p = {p:g}",
            )  # fmt: skip
        labels = [f"{notes.get(model, model)}" for model in order]
        axes.set(
            yticks=range(len(order)), yticklabels=labels, xlabel="loss, mean of both tasks", xlim=(0, None)
        )
        axes.invert_yaxis()
        axes.legend(loc="lower right")
        return finish(figure, finding)


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
