"""Figures draw the numbers they are given, state what is simulated, and change no global style."""

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from mmoe_lib import figures
from mmoe_lib.results import mean_interval

ROWS = pd.DataFrame(
    {
        "model": ["MMoE"] * 3 + ["OMoE"] * 3,
        "test_main_auc": [0.90, 0.91, 0.95, 0.80, 0.82, 0.81],
        "test_auxiliary_auc": [0.99, 0.98, 0.97, 0.96, 0.95, 0.94],
    }
)
PANELS = {"test_main_auc": "income", "test_auxiliary_auc": "never married"}


@pytest.fixture(autouse=True)
def _headless() -> Iterator[None]:
    before, backend = dict(mpl.rcParams), mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)
    for name in ("figure.dpi", "axes.titlesize", "axes.facecolor", "axes.grid"):
        assert mpl.rcParams[name] == before[name]


def test_auc_dots_draw_every_run_the_mean_and_the_papers_mean() -> None:
    paper = pd.DataFrame(
        {"model": ["MMoE", "OMoE"], "test_main_auc": [0.94, 0.93], "test_auxiliary_auc": [0.99, 0.98]}
    )
    figure = figures.auc_dots(ROWS, PANELS, "A finding", simulated=False, paper=paper)
    drawn = [tuple(np.asarray(line.get_xdata(), dtype=float)) for line in figure.axes[0].lines]
    assert (0.90, 0.91, 0.95) in drawn
    assert (0.94,) in drawn
    assert any(line == pytest.approx((mean_interval([0.90, 0.91, 0.95])[0],)) for line in drawn)


@pytest.mark.parametrize("simulated", [True, False])
def test_what_is_simulated_says_so_in_the_title(simulated: bool) -> None:
    rates = pd.DataFrame({"train": [0.1, 0.2], "test": [0.1, 0.2]}, index=["a", "b"])
    samples = {"income": [0.17, 0.18], "education": [0.24, 0.23]}
    published = {"income": 0.1768, "education": 0.2373}
    for figure in (
        figures.auc_dots(ROWS, PANELS, "A finding", simulated=simulated),
        figures.label_rates(rates, "A finding", simulated=simulated),
        figures.correlation_samples(samples, published, "A finding", simulated=simulated),
        figures.expert_use(torch.rand(2, 2, 3), "A finding", simulated=simulated),
    ):
        title = figure.get_suptitle()
        assert title.startswith("A finding")
        assert ("simulated" in title) == simulated


def test_loss_curves_draw_the_mean_over_runs() -> None:
    ours = pd.DataFrame(
        [
            (p, step, seed, p + step / 100 + seed)
            for p in (0.5, 0.9, 1.0)
            for step in (10, 20)
            for seed in range(4)
        ],
        columns=["task_correlation", "step", "seed", "loss"],
    )
    paper = pd.DataFrame(
        {"task_correlation": [0.5, 0.5], "step_as_printed": [0, 100], "mean_loss": [1.1, 0.7]}
    )
    figure = figures.loss_curves(ours, paper, "A finding")
    left, right = figure.axes
    assert list(np.asarray(left.lines[1].get_ydata())) == pytest.approx([0.9 + 0.1 + 1.5, 0.9 + 0.2 + 1.5])
    assert len(left.lines) == len(left.collections) == 3
    assert list(np.asarray(right.lines[0].get_ydata())) == [1.1, 0.7]


def test_every_axis_of_numbers_has_a_label() -> None:
    labels = {p: torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) for p in (0.5, 1.0)}
    for figure in (
        figures.label_scatter(labels, "A finding"),
        figures.auc_dots(ROWS, PANELS, "x", simulated=False),
    ):
        assert all(axes.get_xlabel() for axes in figure.axes)


def test_models_and_correlations_are_told_apart_without_colour() -> None:
    assert len(set(figures.MARKERS.values())) == len(figures.MARKERS)
    assert len({str(dashes) for _, dashes in figures.CORRELATION_STYLES.values()}) == 3
    assert set(figures.MARKERS) < set(figures.COLOURS)


def test_the_same_table_gives_the_same_picture() -> None:
    def pixels() -> bytes:
        figure = figures.auc_dots(ROWS, PANELS, "A finding", simulated=False)
        figure.canvas.draw()
        return bytes(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]

    assert pixels() == pixels()
