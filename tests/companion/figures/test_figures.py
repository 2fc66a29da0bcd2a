"""Figures draw the numbers they are given, state what is simulated, and change no global style."""

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from companion import figures
from companion.results import mean_interval, read_paper
from mmoe_lib.tasks.synthetic import CALIBRATED

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


# --- census -----------------------------------------------------------------------------------------


def test_a_papers_mean_far_below_all_runs_is_written_and_does_not_stretch_the_axis() -> None:
    paper = pd.DataFrame(
        {"model": ["MMoE", "OMoE"], "test_main_auc": [0.92, 0.55], "test_auxiliary_auc": [0.97, 0.97]}
    )
    axes = figures.auc_dots(ROWS, PANELS, "A finding", simulated=False, paper=paper).axes[0]
    assert [text.get_text() for text in axes.texts] == ["paper: 0.5500"]
    assert axes.get_xlim()[0] > 0.75
    assert any(line.get_marker() == "D" and line.get_xdata() == [0.92] for line in axes.lines)


def test_many_runs_are_all_drawn_and_diverged_ones_left_out() -> None:
    rows = pd.DataFrame({"model": "MMoE", "test_main_auc": [*np.linspace(0.90, 0.95, 50), np.nan]})
    axes = figures.auc_dots(rows, {"test_main_auc": "income"}, "A finding", simulated=False).axes[0]
    assert len(np.asarray(axes.lines[0].get_xdata())) == 50


def test_every_trial_is_drawn_and_the_line_is_the_best_trained_to_its_end() -> None:
    trials = pd.DataFrame(
        [
            (model, group, number, state, auc)
            for model in ("OMoE", "MMoE")
            for group in ("income", "education")
            for number, (state, auc) in enumerate(
                [("complete", 0.90), ("pruned", 0.93), ("complete", 0.92), ("complete", 0.91)]
            )
        ],
        columns=["model", "setting", "seed", "state", "validation_auc"],
    )
    figure = figures.trial_dots(trials, "A finding")
    assert len(figure.axes) == 4
    stopped, ended, best = figure.axes[0].lines
    assert list(np.asarray(stopped.get_xdata())) == [1]
    assert list(np.asarray(ended.get_xdata())) == [0, 2, 3]
    lowest = np.quantile([0.90, 0.93, 0.92, 0.91] * 2, 0.15)  # a worse trial lies on the lower edge
    assert np.asarray(best.get_ydata()) == pytest.approx([lowest, lowest, 0.92, 0.92])


def test_changes_are_drawn_at_their_points_beside_the_zero_line() -> None:
    table = pd.DataFrame(
        {
            "change": ["batch 256", "education kept"] * 2,
            "model": ["Shared-Bottom"] * 2 + ["MMoE"] * 2,
            "points": [0.1, 1.0, -0.1, 0.9],
            "low": [0.0, 0.9, -0.2, 0.8],
            "high": [0.2, 1.1, 0.0, 1.0],
        }
    )
    axes = figures.change_dots({"income": table}, "A finding").axes[0]
    zero, *rest = axes.lines
    assert list(np.asarray(zero.get_xdata())) == [0, 0]
    drawn = [list(np.asarray(line.get_xdata())) for line in rest]
    assert [0.1, 1.0] in drawn
    assert [-0.1, 0.9] in drawn
    assert [label.get_text() for label in axes.get_yticklabels()] == ["batch 256", "education kept"]


def test_the_methods_have_colours_of_their_own() -> None:
    assert len(figures.COLOURS) == 8
    assert len(set(figures.COLOURS.values())) == 8


# --- the synthetic study -----------------------------------------------------------------------------


def _study() -> pd.DataFrame:
    rows = [
        {
            "model": model,
            "task_correlation": p,
            "seed": seed,
            "step": step,
            "loss": 1 / step + 0.1 * index + seed / 50,
        }
        for index, model in enumerate(("MMoE", "OMoE", "Shared-Bottom"))
        for p in (0.5, 0.9, 1.0)
        for seed in range(4)
        for step in (1000, 2000)
    ]
    return pd.DataFrame(rows)


def test_figure_4_shows_ours_above_the_papers_with_every_model_in_each() -> None:
    paper = read_paper("figure4_mean_loss")
    figure = figures.model_curves(_study(), paper, "A finding")
    above, below = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title(loc="left") for axes in above] == [
        f"p = {p:g}, ours (4 runs)" for p in (0.5, 0.9, 1.0)
    ]
    assert all("paper" in axes.get_title(loc="left") for axes in below)
    for axes in figure.axes:
        assert len(axes.lines) == 3
        assert axes.get_xlabel()
    shown = above[0].lines[2].get_ydata()  # MMoE's mean over seeds 0 to 3
    assert shown == pytest.approx([0.001 + 0.03, 0.0005 + 0.03])
    printed = paper[(paper["model"] == "OMoE") & (paper["task_correlation"] == 0.9)]
    assert below[1].lines[1].get_ydata() == pytest.approx(printed["mean_loss"].to_numpy())


def test_figure_5_counts_every_run_once_in_the_papers_bins() -> None:
    paper = read_paper("figure5_final_loss_histogram")
    rows = _study().rename(columns={"loss": "loss_1"})
    rows.loc[0, "loss_1"] = 7.0  # beyond the last bin
    figure = figures.loss_histograms(rows, paper, "A finding")
    assert len(figure.axes) == 9
    for axes in figure.axes:
        for patch in axes.patches:
            shares, _, _ = patch.get_data()  # type: ignore[attr-defined]
            assert len(shares) == 30
            assert float(shares.sum()) == pytest.approx(100)
    of_mmoe, _, _ = figure.axes[6].patches[0].get_data()  # type: ignore[attr-defined]
    assert of_mmoe[-1] == pytest.approx(12.5)  # at 0.5: 1 of 8


def test_gates_parts_choices_calibrations_and_step_axes_draw_what_they_are_given() -> None:
    use = pd.DataFrame(
        [(p, s, t, r, 0.1 * r * t) for p in (0.5, 1.0) for s in (0, 1) for t in (1, 2) for r in range(1, 9)],
        columns=["task_correlation", "seed", "task", "rank", "weight"],
    )
    distances = pd.DataFrame(
        {"task_correlation": [0.5, 0.5, 1.0, 1.0], "gate_distance": [0.6, 0.7, 0.1, 0.2]}
    )
    gates = figures.gate_use(use, distances, "A finding")
    assert gates.axes[0].lines[1].get_ydata() == pytest.approx([0.2 * r for r in range(1, 9)])
    assert gates.axes[2].lines[-1].get_ydata() == pytest.approx([0.65, 0.15])

    parts = pd.DataFrame(
        {"hump": ["low", "low", "high"], "error_1": [0.1, 0.3, 2.0], "error_2": [0.0, 0.0, 1.0]}
    )
    below = figures.errors_by_place(parts, "A finding").axes[1]
    assert below.lines[0].get_xdata() == pytest.approx([-1.5, 1.5])
    assert below.lines[0].get_ydata() == pytest.approx([0.2, 0.0])
    assert below.lines[1].get_ydata() == pytest.approx([2.0, 1.0])
    labels = [line.get_label() for line in below.lines]
    assert labels == ["loss low: 2 runs", "loss high: 1 runs"]

    choices = _study().rename(columns={"loss": "loss_1"}).assign(choice="as in the study")
    dots = figures.choice_dots(choices, "A finding")
    assert [axes.get_title(loc="left") for axes in dots.axes] == ["p = 0.5", "p = 0.9", "p = 1"]

    names = {"one": CALIBRATED, "two": CALIBRATED}
    assert len(figures.calibrations(names, {"one": 0.001, "two": 0.002}, "A finding").axes) == 2

    ours = pd.DataFrame({"step": [1000, 2000], "loss": [1.0, 0.5]})
    axes = figures.step_axes(ours, read_paper("figure3_shared_bottom_loss"), "A finding").axes[0]
    literal, thousands = (np.asarray(line.get_xdata()) for line in axes.lines[1:3])
    assert thousands == pytest.approx(1000 * literal)
