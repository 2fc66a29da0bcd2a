"""The slide along the task correlation p: labels, losses and gates at every p between 0 and 1."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.figures.interactive.fragment import Interactive, colour_name, fragment
from companion.figures.style import COLOURS, LINES, MARKERS, WIDTH, finish, theme
from companion.results import expert_use, loss_curves, summarise
from companion.synthetic_labels import label_correlation

MODELS = ("Shared-Bottom", "OMoE", "MMoE")
DASHES = {"Shared-Bottom": "7 3", "OMoE": "2 2", "MMoE": "none"}
CURVE_TOP = 0.8
"""Where the axis of losses ends: above it lies only the first of fifty points, the same for all models."""


def slide_data(rows: pd.DataFrame) -> dict[str, Any]:
    """What the figure shows at each p, rounded.

    Args:
        rows: Of `data/results/synthetic_slide.csv`, one a run; runs that diverged are left out.
    """
    trained = rows[(rows["diverged_step"] == 0) & rows["model"].isin(MODELS)]
    correlations = [float(p) for p in np.sort(trained["task_correlation"].unique())]
    curves = summarise(loss_curves(trained), ["model", "task_correlation", "step"], "loss")
    final = summarise(trained, ["model", "task_correlation"], "loss_1")
    models = []
    for model in MODELS:
        of_model = curves[curves["model"] == model].sort_values("step")
        ends = final[final["model"] == model].set_index("task_correlation").loc[correlations]
        models.append(
            {
                "name": model,
                "colour": colour_name(model),
                "dash": DASHES[model],
                "curves": [_intervals(of_model[of_model["task_correlation"] == p]) for p in correlations],
                "final": [list(end) for end in zip(*_intervals(ends).values(), strict=True)],
                "runs": ends["runs"].astype(int).tolist(),
            }
        )
    mixtures = trained[trained["model"] == "MMoE"]
    use = expert_use(mixtures).groupby(["task_correlation", "task", "rank"])["weight"].mean()
    gates = [[_rounded(use.loc[p, task]) for task in (1, 2)] for p in correlations]
    closed = np.linspace(correlations[0], correlations[-1], 51).tolist()
    distance = summarise(mixtures, ["task_correlation"], "gate_distance").set_index("task_correlation")
    return {
        "p": [round(p, 2) for p in correlations],
        "correlation": [round(label_correlation(p), 4) for p in correlations],
        "closed": {
            "p": [round(p, 4) for p in closed],
            "correlation": [round(label_correlation(p), 4) for p in closed],
        },
        "steps": [int(step) for step in np.sort(curves["step"].unique())],
        "top": CURVE_TOP,
        "models": models,
        "gates": gates,
        "gateTop": float(np.ceil(10 * max(max(task) for pair in gates for task in pair)) / 10),
        "distance": _intervals(distance.loc[correlations]),
        "distanceTop": float(np.ceil(10 * distance["high"].max()) / 10),
    }


def _intervals(summary: pd.DataFrame) -> dict[str, list[float]]:
    return {end: _rounded(summary[end]) for end in ("mean", "low", "high")}


def _rounded(values: pd.Series[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


def slide_p(rows: pd.DataFrame, picture: str | None = None) -> Interactive:
    """The interactive figure: a slider for p.

    Args:
        rows: Of `data/results/synthetic_slide.csv`, one a run.
        picture: The name of the figure that `slide_p_picture` is in the book.
    """
    data = slide_data(rows)
    control = {
        "kind": "range",
        "name": "p",
        "label": "task correlation p",
        "texts": [f"p = {p:g}" for p in data["p"]],
        "start": len(data["p"]) // 2,
    }
    caption = (
        "Move the slider, or use the arrow keys. Losses: means over runs with 95 % intervals, squared error of task 1; "
        f"the axis ends at {CURVE_TOP}. Gates: experts of each run ranked by how much more task 1 uses them. "
        "Label correlation: closed form. From data/results/synthetic_slide.csv."
    )
    elsewhere = "In the HTML book and on Colab p can be moved here; the picture above shows the same runs."
    return fragment(
        "slide-p", ("slide_p.js",), data, [control], caption, elsewhere=elsewhere, picture=picture
    )


def slide_p_picture(rows: pd.DataFrame, finding: str) -> Figure:
    """The same runs without a slider: label correlation, final losses and distance of the gates over p.

    Args:
        rows: As for `slide_p`.
        finding: The title.
    """
    data = slide_data(rows)
    p = data["p"]
    with theme():
        figure, (labels, losses, gates) = plt.subplots(1, 3, figsize=(WIDTH, 2.8))
        labels.plot(data["closed"]["p"], data["closed"]["correlation"], color="#333333", lw=1.5)
        labels.set(title="Labels", ylabel="correlation of the labels", ylim=(None, 1.02))
        for model in data["models"]:
            name, final = model["name"], np.array(model["final"])
            losses.plot(
                p, final[:, 0], color=COLOURS[name], ls=LINES[name], marker=MARKERS[name], ms=3.5, label=name
            )
            losses.fill_between(p, final[:, 1], final[:, 2], color=COLOURS[name], alpha=0.2, lw=0)
        losses.set(title="Losses", ylabel="final loss of task 1", ylim=(0, None))
        losses.legend()
        distance = data["distance"]
        gates.plot(p, distance["mean"], color=COLOURS["MMoE"], marker="o", ms=3.5)
        gates.fill_between(p, distance["low"], distance["high"], color=COLOURS["MMoE"], alpha=0.2, lw=0)
        gates.set(title="MMoE's gates", ylabel="distance of the two gates", ylim=(0, None))
        for place in (labels, losses, gates):
            place.set_xlabel("task correlation p")
        return finish(figure, finding)
