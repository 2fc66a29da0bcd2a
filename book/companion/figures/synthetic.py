"""Figures of the synthetic tasks and of what is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from companion.figures.style import COLOURS, CORRELATION_STYLES, LINES, MARKERS, WIDTH, finish, theme
from companion.results import summarise
from mmoe_lib.tasks.synthetic import CALIBRATED, Constants, noiseless_labels


def label_scatter(
    samples: dict[float, torch.Tensor], finding: str, constants: Constants = CALIBRATED
) -> Figure:
    """The synthetic label as a function of the projection, and both labels against each other.

    Args:
        samples: By task correlation p, labels (N, 2).
        finding: The title.
        constants: Which sines to draw.
    """
    with theme():
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
        return finish(figure, finding)


def label_correlations(ours: pd.DataFrame, paper: pd.DataFrame, curve: pd.DataFrame, finding: str) -> Figure:
    """Figure 2 of the paper: label correlation against weight cosine, ours on the paper's points.

    Args:
        ours: Columns weight_cosine, mean, two_standard_deviations, from sampling.
        paper: `read_paper("figure2_label_correlation")`.
        curve: Columns weight_cosine, label_correlation: the closed form.
        finding: The title.
    """
    with theme():
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
        return finish(figure, finding)


def loss_curves(ours: pd.DataFrame, paper: pd.DataFrame, finding: str) -> Figure:
    """Mean loss over the steps for each task correlation, ours with 95 % intervals, the paper's beside it.

    Args:
        ours: Columns task_correlation, step, seed, loss; one row a run and step.
        paper: Columns task_correlation, step_as_printed, mean_loss.
        finding: The title.
    """
    with theme():
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
        return finish(figure, finding)


def _by_correlation(rows: pd.DataFrame) -> Iterator[tuple[float, pd.DataFrame]]:
    for p in sorted(rows["task_correlation"].unique()):
        yield float(p), rows[rows["task_correlation"] == p]


def model_curves(ours: pd.DataFrame, paper: pd.DataFrame, finding: str) -> Figure:
    """Figure 4: mean loss over the steps, a column a correlation, a line a model; ours above, the paper's below.

    Args:
        ours: Columns model, task_correlation, step, seed, loss; one row a run and step.
        paper: Columns model, task_correlation, step_as_printed, mean_loss.
        finding: The title.
    """
    summary = summarise(ours, ["model", "task_correlation", "step"], "loss")
    correlations = sorted(summary["task_correlation"].unique())
    top = 1.1 * float(paper["mean_loss"].max())
    with theme():
        figure, axes = plt.subplots(2, len(correlations), figsize=(WIDTH, 4.6), sharey=True, squeeze=False)
        for column, p in enumerate(correlations):
            above, below = axes[0][column], axes[1][column]
            for model in ("Shared-Bottom", "OMoE", "MMoE"):
                style = {"color": COLOURS[model], "ls": LINES[model], "lw": 1.5}
                rows = summary[(summary["model"] == model) & (summary["task_correlation"] == p)]
                above.plot(rows["step"] / 1000, rows["mean"], label=model, **style)
                above.fill_between(
                    rows["step"] / 1000, rows["low"], rows["high"], color=COLOURS[model], alpha=0.2, lw=0
                )
                printed = paper[(paper["model"] == model) & (paper["task_correlation"] == p)]
                below.plot(printed["step_as_printed"], printed["mean_loss"], **style)
            above.set(title=f"p = {p:g}, ours ({int(summary['runs'].min())} runs)", xlabel="thousand steps")
            below.set(title=f"p = {p:g}, the paper's", xlabel="steps as printed (“k”)", ylim=(0, top))
        for row in axes:
            row[0].set_ylabel("squared error of a task")
        axes[0][-1].legend(loc="upper right")
        return finish(figure, finding)


def loss_histograms(rows: pd.DataFrame, paper: pd.DataFrame, finding: str) -> Figure:
    """Figure 5: final losses of all runs, a row a model, a column a correlation, in the paper's bins.

    Losses above its last bin are counted in that bin.

    Args:
        rows: Columns model, task_correlation, loss_1; one row a run.
        paper: `read_paper("figure5_final_loss_histogram")`.
        finding: The title.
    """
    correlations = sorted(rows["task_correlation"].unique())
    models = ("Shared-Bottom", "OMoE", "MMoE")
    edges = np.append(np.sort(paper["bin_left"].unique()), paper["bin_right"].max())
    with theme():
        figure, axes = plt.subplots(
            len(models), len(correlations), figsize=(WIDTH, 5.2), sharex=True, sharey=True, squeeze=False
        )
        for row, model in zip(axes, models, strict=True):
            for place, p in zip(row, correlations, strict=True):
                losses = rows.loc[
                    (rows["model"] == model) & (rows["task_correlation"] == p), "loss_1"
                ].dropna()
                counts, _ = np.histogram(losses.clip(upper=edges[-1]), edges)
                printed = paper[(paper["model"] == model) & (paper["task_correlation"] == p)]
                share = 100 * printed.sort_values("bin_left")["runs_of_200"] / 200
                place.stairs(
                    100 * counts / len(losses),
                    edges,
                    fill=True,
                    color=COLOURS[model],
                    alpha=0.55,
                    label="ours",
                )
                place.stairs(share, edges, color=COLOURS["paper"], lw=1.1, label="paper")
                place.set(title=f"{model}, p = {p:g}", xlim=(0, 0.75))
            row[0].set_ylabel("% of runs")
        for place in axes[-1]:
            place.set_xlabel("final loss")
        axes[0][-1].legend(loc="upper right")
        return finish(figure, finding)


def gate_use(
    use: pd.DataFrame, distances: pd.DataFrame, finding: str, *, by: str = "task_correlation"
) -> Figure:
    """What MMoE's gates learn: weights of both tasks over ranked experts, and how far the tasks' gates are apart.

    Args:
        use: `companion.results.expert_use`: the column `by`, seed, task, rank, weight.
        distances: The column `by` and gate_distance; one row a run.
        finding: The title.
        by: What differs from panel to panel: "task_correlation", or "setting" for the groups of census.
    """
    values = sorted(use[by].unique())
    titles = [f"p = {value:g}" if by == "task_correlation" else f"group “{value}”" for value in values]
    styles = CORRELATION_STYLES if by == "task_correlation" else {}
    with theme():
        figure, axes = plt.subplots(
            1, len(values) + 1, figsize=(WIDTH, 2.9), width_ratios=[1] * len(values) + [1.1]
        )
        for place, value, title in zip(axes, values, titles, strict=False):
            for task, (colour, marker) in {1: ("#D55E00", "o"), 2: ("#0072B2", "s")}.items():
                rows = use[(use[by] == value) & (use["task"] == task)].groupby("rank")["weight"]
                mean, low, high = rows.mean(), rows.quantile(0.1), rows.quantile(0.9)
                place.plot(
                    mean.index, mean, marker=marker, ms=3.5, lw=1.2, color=colour, label=f"task {task}"
                )
                place.fill_between(mean.index, low, high, color=colour, alpha=0.18, lw=0)
            most = int(use.loc[use[by] == value, "rank"].max())
            place.set(title=title, xlabel="expert, ranked", xticks=sorted({1, (most + 1) // 2, most}))
            place.set_ylim(0, 0.4 if by == "task_correlation" else None)
        axes[0].set_ylabel("mean gate weight")
        axes[0].legend(loc="upper center")
        data = [distances.loc[distances[by] == value, "gate_distance"] for value in values]
        last = axes[-1]
        parts = last.violinplot(data, showextrema=False, widths=0.8)
        for body, value in zip(parts["bodies"], values, strict=True):
            body.set(facecolor=styles.get(value, ("#0072B2",))[0], alpha=0.5)
        last.plot(range(1, len(data) + 1), [values.median() for values in data], "kD", ms=4)
        last.set(
            title="distance of the gates",
            xticks=range(1, len(data) + 1),
            xticklabels=titles,
            ylim=(0, None),
        )
        return finish(figure, finding)


def errors_by_place(rows: pd.DataFrame, finding: str, constants: Constants = CALIBRATED) -> Figure:
    """The label, and below it where along its projection the runs of each hump of figure 5 are wrong.

    Args:
        rows: Columns hump and error_1 .. error_n, mean squared errors in n equal bins of the projection from -3
            to 3 standard deviations; one row a run.
        finding: The title.
        constants: Of the label.
    """
    errors = [name for name in rows.columns if name.startswith("error_")]
    edges = np.linspace(-3, 3, len(errors) + 1)
    humps = list(dict.fromkeys(rows["hump"]))
    styles = zip(humps, ("#009E73", "#E69F00", "#D55E00"), ("-", (0, (5, 1.5)), (0, (1, 1))), strict=False)
    with theme():
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(WIDTH, 4.6), sharex=True, height_ratios=[1, 1.5])
        z = torch.linspace(-3, 3, 600)
        top.plot(z, noiseless_labels(constants.c * z, constants), color="#333333", lw=1.2)
        top.set_ylabel("label\nwithout noise")
        for hump, colour, dashes in styles:
            runs = rows.loc[rows["hump"] == hump, errors]
            middle = (edges[1:] + edges[:-1]) / 2
            label = f"loss {hump}: {len(runs)} runs"
            bottom.plot(middle, runs.mean(), color=colour, ls=dashes, lw=1.6, marker="o", ms=3, label=label)
            bottom.fill_between(
                middle, runs.quantile(0.1), runs.quantile(0.9), color=colour, alpha=0.18, lw=0
            )
        bottom.set(
            xlabel="projection $w'x / c$ in standard deviations",
            ylabel="squared error there",
            ylim=(0, 3),
            xlim=(-3, 3),
        )
        bottom.legend(loc="upper center")
        return finish(figure, finding)


def choice_dots(rows: pd.DataFrame, finding: str) -> Figure:
    """Mean final loss of each model under each choice, with 95 % intervals, a panel a correlation.

    Args:
        rows: Columns choice, model, task_correlation, loss_1; one row a run.
        finding: The title.
    """
    choices, correlations = list(dict.fromkeys(rows["choice"])), sorted(rows["task_correlation"].unique())
    with theme():
        figure, axes = plt.subplots(
            1,
            len(correlations),
            figsize=(WIDTH, 1.1 + 0.42 * len(choices)),
            sharey=True,
            sharex=True,
            squeeze=False,
        )
        for place, p in zip(axes[0], correlations, strict=True):
            summary = summarise(
                rows[rows["task_correlation"] == p].dropna(subset=["loss_1"]), ["choice", "model"], "loss_1"
            )
            for shift, model in zip((-0.22, 0, 0.22), ("Shared-Bottom", "OMoE", "MMoE"), strict=True):
                found = summary[summary["model"] == model].set_index("choice").loc[choices]
                place.errorbar(
                    found["mean"], np.arange(len(choices)) + shift,
                    xerr=[found["mean"] - found["low"], found["high"] - found["mean"]],
                    fmt=MARKERS[model], ms=4.5, capsize=2.5, color=COLOURS[model], label=model,
                )  # fmt: skip
            place.set(
                title=f"p = {p:g}", xlabel="final loss", yticks=range(len(choices)), yticklabels=choices
            )
        axes[0][0].invert_yaxis()
        axes[0][0].set_xlim(0, None)
        axes[0][-1].legend(loc="best")
        return finish(figure, finding)


def calibrations(chosen: Mapping[str, Constants], deviations: Mapping[str, float], finding: str) -> Figure:
    """The label without noise under several sets of constants, a panel a set.

    Args:
        chosen: By name.
        deviations: By name, the largest distance to the paper's figure 2.
        finding: The title.
    """
    with theme():
        figure, axes = plt.subplots(1, len(chosen), figsize=(WIDTH, 2.4), sharey=True, squeeze=False)
        z = torch.linspace(-3, 3, 600)
        for place, (name, constants) in zip(axes[0], chosen.items(), strict=True):
            place.plot(z, noiseless_labels(constants.c * z, constants), color=COLOURS["OMoE"], lw=1.2)
            place.plot(z, constants.c * z, color="#999999", lw=1.2, ls="--")
            place.set(title=f"{name}\noff by {deviations[name]:.4f}", xlabel="projection $w'x / c$")
        axes[0][0].set_ylabel("label without noise")
        return finish(figure, finding)


def step_axes(ours: pd.DataFrame, paper: pd.DataFrame, finding: str) -> Figure:
    """Our mean curve and the paper's under both readings of its step axis, on a logarithmic axis.

    Args:
        ours: Columns step, loss: the mean over runs.
        paper: Columns step_as_printed, mean_loss.
        finding: The title.
    """
    with theme():
        figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
        axes.plot(ours["step"], ours["loss"], color=COLOURS["MMoE"], lw=2, label="ours")
        printed = paper[paper["step_as_printed"] > 0]
        axes.plot(
            printed["step_as_printed"], printed["mean_loss"],
            color="#000000", ls="--", lw=1.5, label="paper, “10000” read as ten thousand steps",
        )  # fmt: skip
        axes.plot(
            1000 * printed["step_as_printed"], printed["mean_loss"],
            color="#CC79A7", ls="-.", lw=1.5, label="paper, “10000 (k)” read as ten million steps",
        )  # fmt: skip
        axes.set(xscale="log", xlabel="steps", ylabel="mean loss", ylim=(0, None))
        axes.legend()
        return finish(figure, finding)
