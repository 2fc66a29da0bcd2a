"""Figures of the models themselves: their architecture, and which expert they use."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from mmoe_lib.figures.style import WIDTH, finish, theme


def architectures(finding: str) -> Figure:
    """Shared-Bottom, OMoE and MMoE as boxes and arrows, two tasks, three experts."""
    with theme(), plt.rc_context({"axes.grid": False}):
        figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.3))
        for place, title in zip(axes, ("Shared-Bottom", "OMoE", "MMoE"), strict=True):
            place.set(xlim=(0, 6), ylim=(0, 6), title=title)
            place.axis("off")
            _boxes(place, title)
        return finish(figure, finding)


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


def expert_use(weights: torch.Tensor, finding: str, *, simulated: bool = False) -> Figure:
    """Mean gate weight of each expert for each task, one panel a run.

    Args:
        weights: Mean gate weights (R, K, n).
        finding: The title.
        simulated: Whether the inputs are a stand-in.
    """
    runs, num_tasks, num_experts = weights.shape
    with theme(), plt.rc_context({"axes.grid": False}):
        figure, axes = plt.subplots(1, runs, figsize=(WIDTH, 1.7), squeeze=False)
        for run, place in enumerate(axes[0]):
            image = place.imshow(
                weights[run].numpy(), cmap="cividis", vmin=0, vmax=float(weights.max()), aspect="auto"
            )
            place.set(title=f"run {run}", xticks=range(num_experts), xticklabels=range(1, num_experts + 1))
            place.set(xlabel="expert", yticks=range(num_tasks), yticklabels=[])
        axes[0][0].set_yticklabels([f"task {k + 1}" for k in range(num_tasks)])
        figure.colorbar(image, ax=axes, label="mean gate weight")
        return finish(figure, finding, simulated=simulated)
