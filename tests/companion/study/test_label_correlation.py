"""The stored trials of figure 2."""

import pytest

from companion.results import read_paper, read_results
from companion.study.cells import Cell
from companion.study.label_correlation import COSINES, Choices, label_cells, run_labels
from companion.study.presets import PRESETS
from companion.synthetic_labels import label_correlation


def test_a_cell_is_a_point_of_the_papers_figure_and_a_seed_a_trial() -> None:
    assert list(COSINES) == read_paper("figure2_label_correlation")["weight_cosine"].tolist()
    cells = label_cells(PRESETS["smoke"])
    assert [cell.choices.weight_cosine for cell in cells] == list(COSINES)
    assert {len(cell.seeds) for cell in cells} == {PRESETS["smoke"].label_correlation_trials}


def test_trials_scatter_about_the_closed_form_and_are_known_by_their_seed() -> None:
    cell = Cell("-", "cosine = 0.9", 0.0, (3, 4, 5, 6), Choices(0.9, 10_000))
    found = run_labels(cell)
    assert list(found.columns) == ["seed", "label_correlation"]
    # A sample correlation r of 10,000 points has a standard deviation of about (1 - r^2) / 100 or a little more.
    assert found["label_correlation"].mean() == pytest.approx(label_correlation(0.9), abs=0.03)
    later = Cell("-", "cosine = 0.9", 0.0, (5, 6), cell.choices)
    assert run_labels(later)["label_correlation"].tolist() == found["label_correlation"].tolist()[2:]


def test_the_stored_trials_are_those_of_the_paper_preset() -> None:
    rows = read_results("synthetic_labels", preset="paper")
    assert rows.groupby("weight_cosine").size().to_dict() == dict.fromkeys(COSINES, 100)
    means = rows.groupby("weight_cosine")["label_correlation"].mean()
    for cosine, mean in means.items():
        assert mean == pytest.approx(label_correlation(float(str(cosine))), abs=0.005)
