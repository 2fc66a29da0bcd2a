"""The lab: the paper's synthetic experiment, trained by the reader's own browser in the pocket universe."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from companion import pocket
from companion.figures.interactive.fragment import Interactive, colour_name, fragment
from companion.figures.style import COLOURS, LINES, MARKERS, WIDTH, finish, theme

DASHES = {"Single-Task": "8 3 2 3", "Shared-Bottom": "7 3", "OMoE": "2 2", "MMoE": "none"}
LOOKS = 100
"""How often a training is looked at: the places of the slider back through the steps."""
TEST_ROWS = 256
"""Rows, of a run's own, on which its loss is measured."""

CORRELATIONS = [round(p / 10, 1) for p in range(11)]
NOISES = [0, 0.05, 0.1, 0.2, 0.5, 1]
RATES = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05]
RUNS = [2, 4, 8, 12, 16, 24, 32]
STEPS = [1_000, 2_000, 3_000, 6_000, 12_000]
START_RUNS, SEED = 12, 1
"""The first seed, as it comes."""


def lab_data() -> dict[str, Any]:
    """What the page trains: the universe, the models' sizes, and what each control stands for.

    Returns:
        universe and sizes as `engine.js` takes them, models with their colours, and under `values` the numbers that a
        control's places mean.
    """
    constants = pocket.POCKET
    return {
        "universe": {
            "c": constants.c,
            "alpha": list(constants.alpha),
            "beta": [round(beta, 6) for beta in constants.beta],
            "inputs": constants.num_inputs,
        },
        "sizes": {"inputs": constants.num_inputs, **pocket.SIZES},
        "rows": pocket.ROWS,
        "testRows": TEST_ROWS,
        "looks": LOOKS,
        "learned": pocket.LEARNED,
        "seed": SEED,
        "models": [
            {"name": name, "colour": colour_name(name), "dash": DASHES[name]} for name in pocket.POCKET_MODELS
        ],
        "values": {"p": CORRELATIONS, "noise": NOISES, "rate": RATES, "runs": RUNS, "steps": STEPS},
    }


def lab(picture: str | None = None) -> Interactive:
    """The interactive figure: settings, start and pause, and a way back through the steps.

    Args:
        picture: The name of the figure that `lab_picture` is in the book.
    """
    data = lab_data()
    starts = {
        "p": pocket.CORRELATION,
        "noise": pocket.POCKET.noise_variance**0.5,
        "rate": pocket.LEARNING_RATE,
        "runs": START_RUNS,
        "steps": pocket.STEPS,
    }
    ranges = [
        ("p", "task correlation p", [f"p = {p:g}" for p in CORRELATIONS]),
        ("noise", "noise (standard deviation)", [f"{noise:g}" for noise in NOISES]),
        ("rate", "learning rate", [f"{rate:g}" for rate in RATES]),
        ("runs", "runs of each model", [str(runs) for runs in RUNS]),
        ("steps", "steps", [f"{steps:,}" for steps in STEPS]),
    ]
    controls: list[dict[str, Any]] = [
        {
            "kind": "range",
            "name": name,
            "label": label,
            "texts": texts,
            "start": data["values"][name].index(round(starts[name], 6)),
        }
        for name, label, texts in ranges
    ]
    models = [model["name"] for model in data["models"]]
    controls.append(
        {
            "kind": "checks",
            "name": "models",
            "label": "models",
            "texts": models,
            "start": [True] * len(models),
        }
    )
    caption = (
        "Press Start: this page itself trains the networks, in a universe chosen for teaching, in which within seconds few "
        "of Shared-Bottom's runs learn both labels and most of MMoE's do, while some of each get stuck. A line and a dot a run; "
        "losses on rows that no network has seen; the dashed mark is the loss below which a run counts as having learned "
        "both labels. The link holds every setting."
    )
    elsewhere = "In the HTML book and on Colab a reader can train these networks here; the picture above shows a training."
    return fragment(
        "lab",
        ("engine.js", "lab.js"),
        data,
        controls,
        caption,
        elsewhere=elsewhere,
        picture=picture,
        styles=("lab.css",),
    )


def lab_picture(document: dict[str, Any], finding: str) -> Figure:
    """What the lab shows at its end: every run's loss over the steps, and where all runs stand.

    Args:
        document: Of `companion.results.read_pocket`: the same universe, trained by the library.
        finding: The title.
    """
    steps = np.array(document["steps"]) / 1000
    with theme():
        figure, (curves, ends) = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
        for name in ("Shared-Bottom", "MMoE"):
            for run, losses in enumerate(document["models"][name]["losses"]):
                curves.plot(
                    steps,
                    losses,
                    color=COLOURS[name],
                    ls=LINES[name],
                    lw=0.8,
                    alpha=0.7,
                    label=None if run else name,
                )
        curves.set(
            yscale="log", xlabel="thousand steps", ylabel="loss, mean of both tasks", title="Every run"
        )
        curves.legend()
        names = list(document["models"])
        for row, name in enumerate(names):
            final = np.sort([losses[-1] for losses in document["models"][name]["losses"]])
            # Runs in the order of their losses climb a little, so that equal ones do not hide each other.
            heights = row + np.linspace(0.3, -0.3, len(final))
            ends.plot(final, heights, color=COLOURS[name], marker=MARKERS[name], ls="", ms=4, alpha=0.8)
        ends.axvline(pocket.learned_below(), color="#333333", ls=":", lw=1)
        ends.set(
            xscale="log", xlabel="loss after the last step", title="Where they end; left of the line: learned"
        )
        ticks = [0.03, 0.1, 0.3]
        ends.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ends.minorticks_off()
        ends.set_yticks(range(len(names)), names)
        ends.invert_yaxis()
        return finish(figure, finding)
