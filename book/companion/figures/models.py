"""The figure of trained models: which expert they use. How they are built is drawn by `diagrams`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from companion.figures.style import WIDTH, finish, theme


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
