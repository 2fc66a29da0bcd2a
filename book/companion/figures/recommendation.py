"""Figures of the recommendation chapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import stats

from companion.figures.style import COLOURS, LINES, MARKERS, TASK_COLOURS, WIDTH, finish, theme
from companion.results import mean_interval, serving_row, summarise

_MEASURES = {"auc": "engagement AUC", "r2": "engagement R²"}
_MARKED = (0.0, 0.5, 1.0)
"""Weights of satisfaction that are marked on a trade-off curve, from hollow to filled."""


OUTCOMES = ("no video before", "neither", "viewed long", "liked", "both")
"""What a user did with the video before, in the order of `Impressions.outcome`."""


def outcome_rates(
    outcome: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]], finding: str, *, simulated: bool
) -> Figure:
    """Share of impressions with each label by what the same user did with the video before.

    The intervals are Wilson's at 95 %, as if impressions were independent; those of one user are not.

    Args:
        outcome: (N,) 0 to 4, as in `OUTCOMES`.
        labels: (N, 2) engagement and satisfaction.
        finding: The title.
        simulated: Whether the impressions are the stand-in.
    """
    with theme():
        figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.6), sharey=True)
        for task, (place, name) in enumerate(zip(axes, ("viewed long", "liked"), strict=True)):
            for row in range(len(OUTCOMES)):
                chosen = labels[outcome == row, task]
                if not len(chosen):
                    continue
                test = stats.binomtest(int(chosen.sum()), len(chosen))
                interval = test.proportion_ci(method="wilson")
                mean = float(chosen.mean())
                place.barh(row, 100 * mean, 0.62, color=TASK_COLOURS[task])
                place.errorbar(
                    100 * mean,
                    row,
                    xerr=[[100 * (mean - interval.low)], [100 * (interval.high - mean)]],
                    fmt="none",
                    ecolor="#222222",
                    elinewidth=1,
                    capsize=2.5,
                )
            place.set(title=name, xlabel="share of impressions (%)", xlim=(0, None))
            place.grid(visible=False, axis="y")
        axes[0].set(yticks=range(len(OUTCOMES)), yticklabels=OUTCOMES, ylabel="the video before")
        axes[0].invert_yaxis()
        return finish(figure, finding, simulated=simulated)


def checkpoint_dots(
    rows: pd.DataFrame,
    finding: str,
    *,
    simulated: bool,
    measure: str = "auc",
    paper: pd.DataFrame | None = None,
) -> Figure:
    """Table 3: a score after each third of training, methods side by side with 95 % intervals, a panel an optimiser.

    Every panel has its own axis: the paper's data are others than ours, and one optimiser may be far behind.

    Args:
        rows: One row a run: model, setting (the optimiser), diverged_step, test_engagement_auc_1 .. _3 or
            test_engagement_r2_1 .. _3. Runs that diverged are not drawn.
        finding: The title.
        simulated: Whether the impressions are the stand-in.
        measure: "auc" or "r2".
        paper: `companion.results.recommendation_paper()`, drawn in a panel of its own; left out for simulated data.
    """
    models, settings = _drawn_models(rows), list(dict.fromkeys(rows["setting"]))
    columns = [f"test_engagement_{measure}_{third}" for third in (1, 2, 3)]
    panels = len(settings) + (paper is not None)
    with theme():
        figure, axes = plt.subplots(1, panels, figsize=(WIDTH, 3.3), squeeze=False)
        for place, setting in zip(axes[0], settings, strict=False):
            trained = rows[(rows["setting"] == setting) & (rows["diverged_step"] == 0)]
            for model, shift in _side_by_side(models):
                runs = trained.loc[trained["model"] == model, columns]
                if runs.empty:
                    continue
                intervals = [mean_interval(runs[column]) for column in columns]
                _dots(place, np.arange(1, 4) + shift, intervals, model)
            place.set(title=f"ours, {setting}", xlabel="third of training")
        if paper is not None:
            last = axes[0][-1]
            for model, shift in _side_by_side(models):
                printed = paper.loc[paper["model"] == model, columns]
                if not printed.empty:
                    _dots(
                        last,
                        np.arange(1, 4) + shift,
                        [(value, value, value) for value in printed.iloc[0]],
                        model,
                    )
            last.set(title="the paper's table 3", xlabel="million steps")
            last.set_xticks([1, 2, 3], labels=["2", "4", "6"])
        for place in axes[0][: len(settings)]:
            place.set_xticks([1, 2, 3], labels=["1/3", "2/3", "3/3"])
        for place in axes[0]:
            place.grid(visible=False, axis="x")
            place.yaxis.set_major_locator(MaxNLocator(6))
        axes[0][0].set_ylabel(_MEASURES[measure])
        _method_legend(figure, models)
        return finish(figure, finding, simulated=simulated)


def gate_bars(use: pd.DataFrame, paper: pd.DataFrame, finding: str, *, simulated: bool) -> Figure:
    """Figure 6: mean gate weight of each expert and task, ours with 95 % intervals over runs beside the paper's.

    Args:
        use: `companion.results.expert_use(rows, by="setting")` of MMoE: setting (the optimiser), seed, task, rank,
            weight. Expert 1 is the one that engagement uses most beyond satisfaction, by run.
        paper: `companion.results.paper_gates()`, whose one model is ranked by the same rule.
        finding: The title.
        simulated: Whether the impressions are the stand-in.
    """
    settings = list(dict.fromkeys(use["setting"]))
    titles = {f"ours, {setting}": use[use["setting"] == setting] for setting in settings}
    titles["the paper's figure 6"] = paper
    with theme():
        figure, axes = plt.subplots(1, len(titles), figsize=(WIDTH, 2.9), sharey=True, squeeze=False)
        for place, (title, weights) in zip(axes[0], titles.items(), strict=True):
            for task, (name, shift, colour, hatch) in _GATES.items():
                by_rank = weights[weights["task"] == task].groupby("rank")["weight"]
                mean = by_rank.mean()
                # In the last panel there is one model, so no interval.
                error = (
                    np.array([_reach(*mean_interval(values)) for _, values in by_rank]).T
                    if "seed" in weights
                    else None
                )
                place.bar(
                    mean.index + shift, mean, 0.38, yerr=error, capsize=2.5, ecolor="#222222", color=colour,
                    hatch=hatch, edgecolor="white", lw=0, error_kw={"lw": 1}, label=name,
                )  # fmt: skip
            place.set(title=title, xlabel="expert, ranked", xticks=sorted(weights["rank"].unique()))
            place.grid(visible=False, axis="x")
        axes[0][0].set(ylabel="mean gate weight", ylim=(0, None))
        axes[0][0].legend(loc="best")
        return finish(figure, finding, simulated=simulated)


_GATES: Mapping[int, tuple[str, float, str, str]] = {
    1: ("engagement", -0.2, TASK_COLOURS[0], ""),
    2: ("satisfaction", 0.2, TASK_COLOURS[1], "///"),
}


def tradeoff_curves(frame: pd.DataFrame, finding: str, *, simulated: bool) -> Figure:
    """Engagement against satisfaction of the better half of each user's impressions, a curve a method.

    Along a curve the weight of satisfaction in the mix that ranks runs from 0 to 1; 0, 1/2 and 1 are marked. Every
    point has the 95 % intervals of its two means over runs.

    Args:
        frame: `companion.results.tradeoff_frame`: model, seed, weight, engagement, satisfaction.
        finding: The title.
        simulated: Whether the impressions are the stand-in.
    """
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 3.8))
        for model in _drawn_models(frame):
            rows = frame[frame["model"] == model]
            x = summarise(rows, ["weight"], "satisfaction").set_index("weight").sort_index()
            y = summarise(rows, ["weight"], "engagement").set_index("weight").sort_index()
            colour = COLOURS[model]
            axes.plot(
                100 * x["mean"], 100 * y["mean"], color=colour, ls=LINES.get(model, "-."), lw=1.4, zorder=2
            )
            axes.errorbar(
                100 * x["mean"], 100 * y["mean"], xerr=100 * _reaches(x), yerr=100 * _reaches(y), fmt="none",
                ecolor=colour, alpha=0.45, elinewidth=0.9, zorder=1,
            )  # fmt: skip
            marked = [weight for weight in _MARKED if weight in x.index]
            for weight, face in zip(marked, ("white", "#cccccc", colour), strict=False):
                axes.plot(
                    100 * x["mean"][weight], 100 * y["mean"][weight], marker=MARKERS[model], ms=7,
                    mfc=face, mec=colour, ls="", zorder=3,
                )  # fmt: skip
        axes.set(
            xlabel="liked: share of the impressions ranked first (%)",
            ylabel="viewed long: share of the\nimpressions ranked first (%)",
        )
        models = _drawn_models(frame)
        curves = [
            Line2D([], [], color=COLOURS[m], ls=LINES.get(m, "-."), marker=MARKERS[m], ms=6) for m in models
        ]
        weights = [
            Line2D([], [], color="#444444", marker="o", mfc=face, ls="", ms=6)
            for face in ("white", "#cccccc", "#444444")
        ]
        names = [f"weight of satisfaction {weight:g}" for weight in _MARKED]
        axes.legend([*curves, *weights], [*models, *names], loc="best")
        return finish(figure, finding, simulated=simulated)


def serving_bars(rows: pd.DataFrame, finding: str) -> Figure:
    """What serving costs relative to Shared-Bottom: multiply-adds, and p50 latency at 1,000 rows, plain and compiled.

    Args:
        rows: `data/results/benchmark_serving.csv`: model, multiply_adds, ratio_1000 and compiled_ratio_1000 with
            _low and _high, the lowest and the highest round.
        finding: The title.

    Raises:
        ValueError: If Shared-Bottom is missing.
    """
    models = _drawn_models(rows)
    base = float(serving_row(rows, "Shared-Bottom")["multiply_adds"])
    costs = rows.set_index("model").loc[models]
    multiply_adds = costs["multiply_adds"] / base
    panels = {"multiply-adds": (multiply_adds, multiply_adds, multiply_adds)} | {
        f"p50, {name}": tuple(costs[f"{column}{end}"] for end in ("", "_low", "_high"))
        for column, name in (("ratio_1000", "1,000 rows"), ("compiled_ratio_1000", "the same compiled"))
    }
    with theme():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(WIDTH, 0.9 + 0.36 * len(models)), sharex=True, sharey=True
        )
        places = np.arange(len(models))
        for place, (title, (ratio, low, high)) in zip(axes, panels.items(), strict=True):
            place.barh(places, ratio, 0.62, color=[COLOURS[model] for model in models], alpha=0.85)
            place.errorbar(
                ratio, places, xerr=[ratio - low, high - ratio], fmt="none", ecolor="#222222", elinewidth=1
            )
            for height, value, end in zip(places, ratio, high, strict=True):
                place.annotate(
                    f"{value:.2f}", (end, height), (4, 0), textcoords="offset points", va="center", fontsize=8
                )
            for line in (1, 2):
                place.axvline(line, color="#444444", lw=0.8, ls="--" if line == 2 else "-")
            place.set(title=title, xlabel="times Shared-Bottom's", xticks=[0, 1, 2])
            place.grid(visible=False, axis="y")
        largest = max(float(high.max()) for _, _, high in panels.values())
        axes[0].set(yticks=places, yticklabels=models, xlim=(0, 1.22 * largest))
        axes[0].invert_yaxis()
        return finish(figure, finding)


def _drawn_models(rows: pd.DataFrame) -> list[str]:
    """The methods of rows, in the order of their colours."""
    found = set(rows["model"])
    return [model for model in MARKERS if model in found]


def _side_by_side(models: Sequence[str]) -> list[tuple[str, float]]:
    """How far from a checkpoint each method is drawn."""
    return list(zip(models, np.linspace(-0.3, 0.3, len(models)).tolist(), strict=True))


def _reach(mean: float, low: float, high: float) -> tuple[float, float]:
    return mean - low, high - mean


def _reaches(summary: pd.DataFrame) -> NDArray[np.floating[Any]]:
    """How far each interval reaches below and above its mean, (2, points)."""
    return np.stack([summary["mean"] - summary["low"], summary["high"] - summary["mean"]])


def _dots(
    axes: Axes,
    x: NDArray[np.floating[Any]],
    intervals: Sequence[tuple[float, float, float]],
    model: str,
) -> None:
    mean = [interval[0] for interval in intervals]
    error = np.array([_reach(*interval) for interval in intervals]).T
    axes.errorbar(
        x, mean, yerr=error if error.any() else None, fmt=MARKERS[model], ms=4.5, capsize=2.5, lw=1.1,
        color=COLOURS[model],
    )  # fmt: skip


def _method_legend(figure: Figure, models: Sequence[str]) -> None:
    handles = [Line2D([], [], color=COLOURS[m], marker=MARKERS[m], ls="", ms=5) for m in models]
    figure.legend(handles, list(models), loc="outside lower center", ncols=len(models), columnspacing=1.2)
