"""The recommendation chapter's figures draw the numbers that they are given, and say what is simulated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer

from companion import figures
from companion.results import mean_interval, paper_gates, recommendation_paper

pytestmark = pytest.mark.usefixtures("headless")

METHODS = ("Single-Task", "Shared-Bottom", "MMoE")


def scores() -> pd.DataFrame:
    """AUC 0.7 + 0.01 a third + 0.001 a method + 0.0001 a seed; with SGD 0.1 lower."""
    return pd.DataFrame(
        [
            {"model": model, "setting": setting, "seed": seed, "diverged_step": 0}
            | {
                f"test_engagement_{measure}_{third}": (0.7 if measure == "auc" else 0.1)
                + 0.01 * third + 0.001 * place + 0.0001 * seed - (0.1 if setting == "SGD" else 0)
                for measure in ("auc", "r2")
                for third in (1, 2, 3)
            }
            for setting in ("SGD", "Adam")
            for place, model in enumerate(METHODS)
            for seed in range(3)
        ]
    )  # fmt: skip


def drawn(axes: Axes) -> list[list[float]]:
    """Heights of the dots of each container with error bars."""
    bars = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    return [np.asarray(bar.lines[0].get_ydata()).tolist() for bar in bars if bar.lines[0] is not None]


def test_checkpoints_draw_each_methods_mean_a_panel_an_optimiser_and_the_papers_apart() -> None:
    figure = figures.checkpoint_dots(scores(), "A finding", simulated=False, paper=recommendation_paper())
    sgd, adam, paper = figure.axes
    assert drawn(sgd)[0] == pytest.approx([0.6101, 0.6201, 0.6301])  # Single-Task
    assert drawn(adam)[2] == pytest.approx([0.7121, 0.7221, 0.7321])  # MMoE
    # Single-Task is not in table 3.
    assert drawn(paper) == [[0.6879, 0.6888, 0.6900], [0.6894, 0.6897, 0.6908]]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "ours, SGD",
        "ours, Adam",
        "the paper's table 3",
    ]
    assert len({axes.get_ylim() for axes in figure.axes}) == 3  # an axis of its own each
    assert figure.get_suptitle() == "A finding"
    assert figure.legends[0].get_texts()[-1].get_text() == "MMoE"


def test_methods_stand_side_by_side_and_a_diverged_run_is_not_drawn() -> None:
    rows = scores()
    rows.loc[rows["seed"] == 2, "diverged_step"] = 5
    rows.loc[rows["seed"] == 2, "test_engagement_r2_1"] = 9.0
    figure = figures.checkpoint_dots(rows, "A finding", simulated=False, measure="r2")
    adam = figure.axes[1]
    assert len(figure.axes) == 2
    assert drawn(adam)[1] == pytest.approx([0.11105, 0.12105, 0.13105])
    places = [
        float(np.asarray(line.get_xdata())[0])
        for line in adam.lines
        if line.get_marker() in figures.MARKERS.values()
    ]
    assert len(set(places)) == len(METHODS)
    assert "R²" in figure.axes[0].get_ylabel()


def use() -> pd.DataFrame:
    rows = [
        (setting, seed, task, rank, 0.1 * rank + 0.01 * seed + (0.05 if setting == "SGD" else 0) * task)
        for setting in ("SGD", "Adam")
        for seed in range(3)
        for task in (1, 2)
        for rank in (1, 2, 3, 4)
    ]
    return pd.DataFrame(rows, columns=["setting", "seed", "task", "rank", "weight"])


def test_gate_bars_are_means_over_runs_with_intervals_beside_the_papers_without() -> None:
    figure = figures.gate_bars(use(), paper_gates(), "A finding", simulated=False)
    sgd, adam, paper = figure.axes

    def heights(axes: Axes) -> list[list[float]]:
        bars = [container for container in axes.containers if isinstance(container, BarContainer)]
        return [[patch.get_height() for patch in bar] for bar in bars]

    assert heights(adam)[0] == pytest.approx([0.11, 0.21, 0.31, 0.41])
    assert heights(sgd)[1] == pytest.approx([0.21, 0.31, 0.41, 0.51])
    assert heights(paper) == [[0.4407, 0.1817, 0.2130, 0.1646], [0.1388, 0.0157, 0.0702, 0.7753]]
    (first, *_) = (container for container in adam.containers if isinstance(container, ErrorbarContainer))
    reach = np.asarray(first.lines[2][0].get_segments()[0])[:, 1]
    assert reach == pytest.approx(mean_interval([0.10, 0.11, 0.12])[1:])
    assert not any(isinstance(container, ErrorbarContainer) for container in paper.containers)
    engagement, satisfaction = (
        container for container in adam.containers if isinstance(container, BarContainer)
    )
    assert engagement[0].get_hatch() != satisfaction[0].get_hatch()  # told apart without colour


def frame() -> pd.DataFrame:
    rows = [
        (model, seed, step / 10, 0.4 - 0.01 * step + 0.001 * seed, 0.02 + 0.001 * step + 0.01 * place)
        for place, model in enumerate(METHODS)
        for seed in range(3)
        for step in range(11)
    ]
    return pd.DataFrame(rows, columns=["model", "seed", "weight", "engagement", "satisfaction"])


def test_curves_are_means_over_runs_with_satisfaction_along_and_engagement_up() -> None:
    axes = figures.tradeoff_curves(frame().sample(frac=1, random_state=0), "A finding", simulated=False).axes[
        0
    ]
    curves = [line for line in axes.lines if len(np.asarray(line.get_xdata())) == 11]
    assert len(curves) == len(METHODS)
    mmoe = curves[2]
    assert np.asarray(mmoe.get_xdata()) == pytest.approx([100 * (0.04 + 0.001 * step) for step in range(11)])
    assert np.asarray(mmoe.get_ydata()) == pytest.approx([100 * (0.401 - 0.01 * step) for step in range(11)])
    marked = [line for line in axes.lines if len(np.asarray(line.get_xdata())) == 1]
    assert [float(np.asarray(line.get_ydata())[0]) for line in marked[:3]] == pytest.approx(
        [40.1, 35.1, 30.1]
    )
    assert len({str(line.get_markerfacecolor()) for line in marked[:3]}) == 3
    assert "liked" in axes.get_xlabel()
    assert "viewed long" in axes.get_ylabel()


def serving() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model": ["MMoE", "Shared-Bottom", "Cross-Stitch"],
            "multiply_adds": [1_100, 1_000, 2_050],
            "compiled_ratio_1000": [1.2, 1.0, 2.1],
            "compiled_ratio_1000_low": [1.1, 1.0, 2.0],
            "compiled_ratio_1000_high": [1.4, 1.0, 2.2],
            "ratio_1000": [1.15, 1.0, 1.9],
            "ratio_1000_low": [1.12, 1.0, 1.8],
            "ratio_1000_high": [1.2, 1.0, 2.3],
        }
    )


def test_serving_bars_are_ratios_to_shared_bottoms() -> None:
    figure = figures.serving_bars(serving(), "A finding")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["Shared-Bottom", "Cross-Stitch", "MMoE"]
    widths = [[patch.get_width() for patch in axes.patches] for axes in figure.axes]  # type: ignore[attr-defined]
    assert widths == [pytest.approx(row) for row in ([1, 2.05, 1.1], [1, 1.9, 1.15], [1, 2.1, 1.2])]
    assert [text.get_text() for text in figure.axes[2].texts] == ["1.00", "2.10", "1.20"]
    with pytest.raises(ValueError, match="0 rows of Shared-Bottom"):
        figures.serving_bars(serving().iloc[[0, 2]], "A finding")


@pytest.mark.parametrize("simulated", [True, False])
def test_what_is_simulated_says_so_in_the_title_and_every_axis_has_a_label(simulated: bool) -> None:
    for figure in (
        figures.checkpoint_dots(scores(), "A finding", simulated=simulated),
        figures.gate_bars(use(), paper_gates(), "A finding", simulated=simulated),
        figures.tradeoff_curves(frame(), "A finding", simulated=simulated),
    ):
        assert figure.get_suptitle().startswith("A finding")
        assert ("simulated" in figure.get_suptitle()) == simulated
        assert all(axes.get_xlabel() for axes in figure.axes)
        assert figure.axes[0].get_ylabel()
