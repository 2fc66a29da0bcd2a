"""A calculator: what experts and gates cost for a reader's own number of tasks and sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from companion.figures.interactive.fragment import Interactive, fragment
from companion.figures.style import COLOURS, WIDTH, finish, theme
from mmoe_lib.models import MMoE, OMoE, SharedBottom, SingleTask, count_multiply_adds

LEVELS: Mapping[str, Sequence[int]] = {
    "tasks": (1, 2, 3, 4, 6, 8, 12, 16, 32),
    "inputs": (16, 32, 64, 128, 256, 512, 1024, 2048),
    "experts": (2, 3, 4, 6, 8, 16, 32),
    "units": (8, 16, 32, 64, 128, 256, 512),
    "tower": (8, 16, 32, 64, 128, 256),
    "below": (0, 1_000, 10_000, 100_000, 1_000_000, 10_000_000),
}
"""What can be chosen of each size."""
LABELS = {
    "tasks": "tasks",
    "inputs": "inputs",
    "experts": "experts",
    "units": "units of an expert",
    "tower": "units of a tower",
    "below": "multiply-adds below",
}
START = {"tasks": 2, "inputs": 64, "experts": 4, "units": 32, "tower": 16, "below": 10_000}
"""About the rankers of chapter 5."""


def models(tasks: int, inputs: int, experts: int, units: int, tower: int) -> dict[str, nn.Module]:
    """The four models of these sizes, without memory for their weights."""
    build: dict[str, Callable[..., nn.Module]] = {
        "Single-Task": partial(SingleTask, bottom_widths=(units,)),
        "Shared-Bottom": partial(SharedBottom, bottom_widths=(units,)),
        "OMoE": partial(OMoE, num_experts=experts, expert_widths=(units,)),
        "MMoE": partial(MMoE, num_experts=experts, expert_widths=(units,)),
    }
    with torch.device("meta"):
        return {name: make(inputs, tasks, tower_widths=(tower,)) for name, make in build.items()}


def _short(level: int) -> str:
    """A size in few letters, so that no control grows by a line: 10000000 is 10 M."""
    for unit, name in ((1_000_000, " M"), (1_000, " k")):
        if level >= unit and level % unit == 0:
            return f"{level // unit}{name}"
    return str(level)


def costs(measured: str, picture: str | None = None) -> Interactive:
    """The interactive figure.

    Args:
        measured: A sentence about times that were measured, below what is counted.
        picture: The name of the figure that `costs_picture` is in the book.
    """
    controls: list[dict[str, Any]] = [
        {
            "kind": "range",
            "name": name,
            "label": LABELS[name],
            "texts": [_short(level) for level in levels],
            "start": list(levels).index(START[name]),
        }
        for name, levels in LEVELS.items()
    ]
    caption = (
        "What four models cost where the top shared layer becomes experts of as many units, for your own sizes: multiply-adds "
        "of one row and parameters. Embeddings are looked up and not counted; time is another matter, below."
    )
    elsewhere = (
        "In the HTML book and on Colab the sizes can be changed here; the picture above shows the first ones."
    )
    data = {"levels": {name: list(levels) for name, levels in LEVELS.items()}, "measured": measured}
    return fragment("costs", ("costs.js",), data, controls, caption, elsewhere=elsewhere, picture=picture)


def costs_picture(finding: str) -> Figure:
    """Multiply-adds over Shared-Bottom's at the sizes that the calculator starts with.

    Args:
        finding: The title.
    """
    below, sizes = START["below"], {name: size for name, size in START.items() if name != "below"}
    counted = {name: count_multiply_adds(model) for name, model in models(**sizes).items()}
    one = counted["Shared-Bottom"] + below
    with theme():
        figure, axis = plt.subplots(figsize=(WIDTH, 2.2))
        for row, (name, adds) in enumerate(counted.items()):
            under = below * (START["tasks"] if name == "Single-Task" else 1)
            axis.barh(row, under / one, color=COLOURS[name], alpha=0.35, height=0.64)
            axis.barh(row, adds / one, left=under / one, color=COLOURS[name], height=0.64)
        axis.axvline(1, color="#333333", lw=1)
        axis.set(
            yticks=np.arange(len(counted)), yticklabels=list(counted),
            xlabel="multiply-adds of one row, times Shared-Bottom's; light: the layers below",
        )  # fmt: skip
        axis.invert_yaxis()
        return finish(figure, finding)
