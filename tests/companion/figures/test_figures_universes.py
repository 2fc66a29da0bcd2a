"""Figures of the universes draw what they are given: a dot a universe, a bar a bin, the band, the paper's outline."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from companion.figures import universes
from companion.figures.style import CORRELATION_STYLES
from companion.results import read_paper

FINDING = "A finding"
BAND = 1 / 30


@pytest.fixture(autouse=True)
def _headless() -> Iterator[None]:
    backend = mpl.get_backend()
    plt.switch_backend("agg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")
    plt.switch_backend(backend)


def drawn(figure: Figure, tmp_path: Path) -> Figure:
    """The figure, once it has been drawn without a warning, under its finding."""
    figure.savefig(tmp_path / "figure.png")
    assert figure.get_suptitle() == FINDING
    return figure


# Distances


def test_distances_are_a_line_a_universe_with_its_nearest_point(tmp_path: Path) -> None:
    curves = {
        "one": pd.DataFrame({"step": [1_000, 2_000, 3_000], "distance": [0.2, 0.05, 0.1]}),
        "two": pd.DataFrame({"step": [1_000, 2_000], "distance": [0.9, 0.08]}),
    }
    (axes,) = drawn(universes.distance_curves(curves, (0.011, 0.015), FINDING), tmp_path).axes
    one, nearest, two, other = axes.lines
    assert np.asarray(one.get_xdata()) == pytest.approx([1, 2, 3])
    assert np.asarray(one.get_ydata()) == pytest.approx([0.2, 0.05, 0.1])
    assert (nearest.get_xdata(), nearest.get_ydata()) == ([2.0], [0.05])
    assert (other.get_xdata(), other.get_ydata()) == ([2.0], [0.08])
    assert one.get_linestyle() != two.get_linestyle()
    noise = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (noise.y0, noise.y1) == pytest.approx((0.011, 0.015))
    assert axes.get_ylim() == pytest.approx((0, 0.3))
    assert axes.get_xlabel() == "thousand steps"
    assert "distance to figure 5" in axes.get_ylabel()


def test_more_curves_than_can_be_told_apart_are_refused_in_one_line() -> None:
    curve = pd.DataFrame({"step": [1_000], "distance": [0.2]})
    with pytest.raises(ValueError, match="got 4 curves, expected 3 at most"):
        universes.distance_curves(dict.fromkeys("abcd", curve), (0.0, 0.1), FINDING)


# Shares


def test_every_universe_is_a_dot_in_the_row_of_its_difference(tmp_path: Path) -> None:
    estimates = {"first": [0.1, -0.02, 0.03, 0.05], "second": [-0.1, -0.2]}
    differences = pd.DataFrame(
        [(name, number, value) for name, values in estimates.items() for number, value in enumerate(values)],
        columns=["difference", "universe", "estimate"],
    )
    nearest = pd.DataFrame({"difference": ["first"], "estimate": [0.07]})
    names = ["second", "nobody has it", "first"]
    (axes,) = drawn(universes.universe_dots(differences, names, nearest, BAND, FINDING), tmp_path).axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    found = [np.asarray(line.get_xdata()).tolist() for line in dots]
    assert found == [estimates["second"], estimates["first"]]
    for line, place in zip(dots, (0, 2), strict=True):
        assert np.abs(np.asarray(line.get_ydata()) - place).max() < 0.3
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    places = [np.column_stack([line.get_xdata(), line.get_ydata()]).tolist() for line in diamonds]
    assert places == [[], [[0.07, 2]]]
    bars = [np.asarray(line.get_xdata()).tolist() for line in axes.lines if line.get_linewidth() == 2]
    assert bars == [[pytest.approx(-0.15)] * 2, [pytest.approx(0.04)] * 2]
    assert [text.get_text() for text in axes.texts] == ["0 %", "75 %", "above 0"]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((-BAND, BAND))
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first stands at the top"
    assert axes.get_xlabel().startswith("difference of mean losses")


# Noise


def test_leads_with_noise_are_a_panel_a_comparison_and_a_line_a_correlation(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        [
            (variance, p, p / 10 - variance / 50, 0.0, 0.2, 12)
            for variance in (0.01, 0.1, 1.0)
            for p in (0.5, 0.9, 1.0)
        ],
        columns=["noise_variance", "task_correlation", "estimate", "low", "high", "runs"],
    ).assign(low=lambda table: table["estimate"] - 0.01, high=lambda table: table["estimate"] + 0.03)
    leads = {"over Shared-Bottom": rows, "over OMoE": rows[rows["task_correlation"] == 1]}
    left, right = drawn(universes.lead_with_noise(leads, BAND, FINDING), tmp_path).axes
    assert [axes.get_title(loc="left") for axes in (left, right)] == list(leads)
    bars = [part for part in left.containers if isinstance(part, ErrorbarContainer)]
    assert [part.get_label() for part in bars] == ["p = 0.5", "p = 0.9", "p = 1"]
    assert len(right.containers) == 1
    for part, p in zip(bars, (0.5, 0.9, 1.0), strict=True):
        line = part.lines[0]
        assert np.asarray(line.get_ydata()) == pytest.approx(
            rows.loc[rows["task_correlation"] == p, "estimate"].to_numpy()
        )
        assert line.get_color() == CORRELATION_STYLES[p][0]
        (segments,) = part.lines[2]
        heights = [(segment[0, 1], segment[1, 1]) for segment in segments.get_segments()]
        assert heights[0] == pytest.approx((p / 10 - 0.0002 - 0.01, p / 10 - 0.0002 + 0.03))
    for axes in (left, right):
        assert axes.get_xscale() == "log"
        assert axes.get_xlabel() == "noise variance"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1", "1"]
    assert left.get_ylabel() == "difference of mean losses"


# Controls


def test_controls_stand_in_order_with_their_notes_and_both_correlations(tmp_path: Path) -> None:
    levels = pd.DataFrame(
        [
            ("MMoE", 0.5, 0.1, 0.08, 0.13),
            ("MMoE", 1.0, 0.2, 0.19, 0.21),
            ("Own-Mixtures-4", 0.5, 0.3, 0.2, 0.4),
            ("not asked for", 1.0, 9.0, 8.0, 10.0),
        ],
        columns=["model", "task_correlation", "mean", "low", "high"],
    )
    order = ["Own-Mixtures-4", "MMoE"]
    (axes,) = drawn(
        universes.control_dots(levels, order, {"Own-Mixtures-4": "own experts"}, FINDING), tmp_path
    ).axes
    half, one = (part.lines[0] for part in axes.containers if isinstance(part, ErrorbarContainer))
    assert np.asarray(half.get_xdata()) == pytest.approx([0.3, 0.1])
    assert np.asarray(one.get_xdata()) == pytest.approx([np.nan, 0.2], nan_ok=True)
    assert np.asarray(one.get_ydata()) - np.asarray(half.get_ydata()) == pytest.approx([0.28, 0.28])
    assert half.get_marker() != one.get_marker()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["own experts", "MMoE"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first stands at the top"
    assert axes.get_xlabel() == "loss, mean of both tasks"


# Figure 3's model


def test_the_small_models_curves_stand_beside_the_papers_levels(tmp_path: Path) -> None:
    curves = pd.DataFrame(
        [(p, step, p / 2 + 100 / step, 0.0, 1.0) for p in (0.5, 1.0) for step in (1_000, 2_000)],
        columns=["task_correlation", "step", "mean", "low", "high"],
    )
    (axes,) = drawn(universes.small_model_levels(curves, {0.5: 0.33, 1.0: 0.22}, FINDING), tmp_path).axes
    ours = [line for line in axes.lines if str(line.get_label()).startswith("ours")]
    assert [line.get_label() for line in ours] == ["ours, p = 0.5", "ours, p = 1"]
    assert np.asarray(ours[1].get_xdata()) == pytest.approx([1, 2])
    assert np.asarray(ours[1].get_ydata()) == pytest.approx([0.6, 0.55])
    levels = [np.asarray(line.get_ydata())[0] for line in axes.lines if line not in ours]
    assert levels == [0.33, 0.22]
    assert [text.get_text() for text in axes.texts] == ["paper 0.5", "paper 1"]
    assert axes.get_xlabel() == "thousand steps"
    assert axes.get_ylabel() == "loss, mean of both tasks"


# One universe


def survey() -> pd.DataFrame:
    """Two universes; in the second one MMoE has a single run left at p = 1, and OMoE none."""
    rows = [
        (
            universe,
            model,
            p,
            seed,
            0 if universe == 3 or model != "MMoE" or p < 1 or seed == 0 else 9,
            loss,
            second,
        )
        for universe in (3, 8)
        for model in universes.SURVEYED
        for p in universes.ENDS
        for seed, (loss, second) in enumerate([(0.05, 0.05), (0.05, 0.2), (0.05, 2.4), (0.15, 0.15)])
        if (universe, model, p) != (8, "OMoE", 1.0)
    ]
    names = ["universe", "model", "task_correlation", "seed", "diverged_step", "loss_1", "loss_2"]
    return pd.DataFrame(rows, columns=names)


def test_a_universes_losses_are_all_in_the_papers_bins_beside_the_papers_outline(tmp_path: Path) -> None:
    paper = read_paper("figure5_final_loss_histogram")
    figure = drawn(universes.universe_histograms(survey(), 3, paper, FINDING), tmp_path)
    assert len(figure.axes) == 10
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == [
        "Single-Task, p = 0.5: 4 runs",
        "Single-Task, p = 1: 4 runs",
        "Shared-Bottom, p = 0.5: 4 runs",
    ]
    for axes, title in zip(figure.axes, titles, strict=True):
        ours, *outline = (patch.get_data()[0] for patch in axes.patches)  # type: ignore[attr-defined]
        assert ours[[1, 4, 6, -1]] == pytest.approx([50, 25, 12.5, 12.5])
        assert ours.sum() == pytest.approx(100)
        assert len(outline) == ("Single" not in title and "96-32" not in title)
        for printed in outline:
            assert printed.sum() == pytest.approx(100)
    mmoe = figure.axes[8].patches[1].get_data()[0]  # type: ignore[attr-defined]
    assert mmoe[1] == 100 * 117 / 200
    assert all(axes.get_xlabel().startswith("final loss, both tasks") for axes in figure.axes[-2:])
    assert figure.axes[0].get_ylabel() == "% of losses"


def test_too_few_runs_are_said_in_words(tmp_path: Path) -> None:
    paper = read_paper("figure5_final_loss_histogram")
    figure = drawn(universes.universe_histograms(survey(), 8, paper, FINDING), tmp_path)
    said = {axes.get_title(loc="left"): [text.get_text() for text in axes.texts] for axes in figure.axes}
    few = {title for title, texts in said.items() if texts == ["fewer than two runs"]}
    assert few == {"MMoE, p = 1: 1 runs", "OMoE, p = 1: 0 runs"}
    assert [len(axes.patches) for axes in figure.axes[-2:]] == [2, 1]


def test_a_universe_without_runs_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="the survey has no runs in universe 5, expected some"):
        universes.universe_histograms(survey(), 5, read_paper("figure5_final_loss_histogram"), FINDING)


def test_shares_of_universes_fill_each_bar() -> None:
    shares = pd.DataFrame(
        {"above_band": [0.5, 0.02], "inside_band": [0.3, 0.9], "below_band": [0.2, 0.08]},
        index=["one", "other"],
    )
    figure = universes.share_bars(shares, ["other", "one"], "half of them")
    axes = figure.axes[0]
    ends = {round(bar.get_x() + bar.get_width()) for bar in axes.containers[-1]}
    assert ends == {100}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["other", "one"]
    assert {text.get_text() for text in axes.texts} == {
        "50",
        "30",
        "20",
        "90",
        "8",
    }  # 2 is too narrow for its number
