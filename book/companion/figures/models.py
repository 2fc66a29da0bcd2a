"""Figures of the models themselves: their architecture, and which expert they use."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from companion.figures.style import WIDTH, finish, theme

_Point = tuple[float, float]


TASK_COLOURS = ("#D55E00", "#0072B2")


def architectures(
    finding: str, models: Sequence[str] = ("Shared-Bottom", "OMoE", "MMoE"), columns: int = 3
) -> Figure:
    """Models as boxes and arrows, two tasks, three experts.

    Args:
        finding: The title.
        models: Any of the seven methods.
        columns: Panels side by side.
    """
    rows = -(-len(models) // columns)
    with theme(), plt.rc_context({"axes.grid": False}):
        figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 3.3 if rows == 1 else 2.6 * rows))
        for place in axes.flat:
            place.set(xlim=(0, 6), ylim=(0, 6))
            place.axis("off")
        for place, title in zip(axes.flat, models, strict=False):
            place.set_title(title)
            _Drawing(place, 8 if columns <= 3 else 6.5).draw(title)
        return finish(figure, finding)


class _Drawing:
    """One model in one panel."""

    def __init__(self, axes: Axes, size: float) -> None:
        self.axes, self.size = axes, size

    def draw(self, model: str) -> None:
        source = self.box(3, 0.5, 2.2, "input $x$", "#666666")
        towers = [
            self.box(x, 5.3, 2.2, f"tower $h_{k}$", colour)
            for k, (x, colour) in enumerate(zip((1.6, 4.4), TASK_COLOURS, strict=True), start=1)
        ]
        if model == "Shared-Bottom":
            bottom = self.box(3, 2.6, 4.2, "shared bottom $f$", "#009E73")
            self.arrow(source, bottom)
            for tower in towers:
                self.arrow(bottom, tower)
        elif model in ("OMoE", "MMoE"):
            self.mixture(source, towers, gates=2 if model == "MMoE" else 1)
        else:
            self.networks(model, source, towers)

    def networks(self, model: str, source: _Point, towers: list[_Point]) -> None:
        """A network a task, tied in one way or another."""
        names = ["$W_{::1}$", "$W_{::2}$"] if model == "Tensor-Factorization" else ["$f_1$", "$f_2$"]
        level = 3.3 if model == "Tensor-Factorization" else 2.1 if model == "Cross-Stitch" else 2.6
        bottoms = [
            self.box(x, level, 2.0, name, colour)
            for x, name, colour in zip((1.6, 4.4), names, TASK_COLOURS, strict=True)
        ]
        if model == "Cross-Stitch":
            unit = self.box(3, 3.7, 4.6, r"cross-stitch $\alpha$", "#CC79A7")
            for bottom, tower in zip(bottoms, towers, strict=True):
                self.arrow(source, bottom)
                self.arrow(bottom, (bottom[0], unit[1]))
                self.arrow((bottom[0], unit[1]), tower)
            return
        below = source
        if model == "Tensor-Factorization":
            below = self.box(3, 1.95, 5.4, r"$W = S \times_1 U_1 \times_2 U_2 \times_3 U_3$", "#CC79A7")
            self.arrow(source, below)
        for bottom, tower in zip(bottoms, towers, strict=True):
            self.arrow(below, bottom)
            self.arrow(bottom, tower)
        if model == "L2-Constrained":
            self.axes.annotate(
                "", (4.4, 3.5), (1.6, 3.5), arrowprops={"arrowstyle": "<|-|>", "color": "#CC79A7", "ls": "--"}
            )
            self.axes.text(
                3,
                3.85,
                r"$\alpha\,\|\theta_1 - \theta_2\|^2$",
                ha="center",
                fontsize=self.size,
                color="#111111",
            )

    def mixture(self, source: _Point, towers: list[_Point], gates: int) -> None:
        """Experts, and a sum of them for each gate."""
        experts = [
            self.box(x, 2.3, 0.85, f"$f_{i}$", "#009E73") for i, x in enumerate((1.9, 3.0, 4.1), start=1)
        ]
        sums = [(1.6, 3.9), (4.4, 3.9)] if gates == 2 else [(3.0, 3.9)]
        places = [(0.45, 2.3, "$g^1$"), (5.55, 2.3, "$g^2$")] if gates == 2 else [(0.45, 2.3, "$g$")]
        for expert in experts:
            self.arrow(source, expert)
        for (x, y), (gate_x, gate_y, name) in zip(sums, places, strict=True):
            mixed = self.box(x, y, 0.9, "$\\Sigma$", "#CC79A7")
            gate = self.box(gate_x, gate_y, 0.7, name, "#E69F00")
            self.arrow(source, gate, "--")
            self.arrow(gate, mixed, "--")
            for expert in experts:
                self.arrow(expert, mixed)
        for tower, (x, y) in zip(towers, sums * (2 // len(sums)), strict=True):
            self.arrow((x, y), tower)

    def box(self, x: float, y: float, width: float, text: str, colour: str) -> _Point:
        self.axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - 0.35), width, 0.7, "round,pad=0.05", fc=colour + "33", ec=colour
            )
        )
        self.axes.text(x, y, text, ha="center", va="center", fontsize=self.size, color="#111111")
        return x, y

    def arrow(self, start: _Point, end: _Point, dashes: str = "-") -> None:
        self.axes.add_patch(
            FancyArrowPatch(
                (start[0], start[1] + 0.42), (end[0], end[1] - 0.42), arrowstyle="-|>", mutation_scale=7,
                lw=0.9, ls=dashes, color="#444444",
            )
        )  # fmt: skip


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
