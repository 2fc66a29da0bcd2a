"""The picture of the README: every number where it belongs, and a title that counts."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from companion.claims import Comparison, larger
from companion.figures.summary import gain_dots, gain_finding

LOSSES = {
    "p = 0.5": Comparison("a", 0.05, 0.04, 0.07, larger("loss"), 0.17),
    "p = 1": Comparison("b", 0.08, 0.06, 0.09, larger("loss"), 0.13),
}
POINTS = {"income": Comparison("c", -0.5, -1.4, -0.3, larger("points"), 0.6)}


def test_gains_stand_at_their_numbers_with_their_intervals() -> None:
    figure = gain_dots({"loss": LOSSES, "AUC points": POINTS}, "MMoE is ahead")
    for axes, rows in zip(figure.axes, (LOSSES, POINTS), strict=True):
        ours, printed = [line for line in axes.lines if line.get_marker() in ("o", "D")]
        assert np.asarray(ours.get_xdata()).tolist() == [c.estimate for c in rows.values()]
        assert np.asarray(printed.get_xdata()).tolist() == [c.paper for c in rows.values()]
        ends = next(c for c in axes.collections if len(c.get_segments()) == len(rows))  # type: ignore[attr-defined]
        found = [tuple(segment[:, 0]) for segment in ends.get_segments()]  # type: ignore[attr-defined]
        for segment, comparison in zip(found, rows.values(), strict=True):
            assert segment == pytest.approx((comparison.low, comparison.high))
        assert [label.get_text() for label in axes.get_yticklabels()] == list(rows)
        (band,) = axes.patches  # what is too small to matter
        matters = next(iter(rows.values())).rule.matters  # type: ignore[union-attr]
        assert band.get_bbox().x0 == pytest.approx(-matters)  # type: ignore[attr-defined]
        assert band.get_bbox().x1 == pytest.approx(matters)  # type: ignore[attr-defined]
        # The first setting stands at the top.
        assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert [axes.get_xlabel() for axes in figure.axes] == ["loss", "AUC points"]
    assert figure.get_suptitle() == "MMoE is ahead"
    plt.close(figure)


def test_the_finding_counts_what_supports_it() -> None:
    groups = {"synthetic": list(LOSSES.values()), "real": list(POINTS.values())}
    assert (
        gain_finding(groups)
        == "MMoE gains what matters: synthetic 2 of 2 (0 against); real 0 of 1 (1 against)"
    )


@pytest.mark.parametrize("panels", [{}, {"loss": {}}])
def test_nothing_to_draw_is_said(panels: dict[str, dict[str, Comparison]]) -> None:
    with pytest.raises(ValueError, match="no comparison to draw"):
        gain_dots(panels, "nothing")
