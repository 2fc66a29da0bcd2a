"""The specification curve shows every protocol, its interval and its choices."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from generated_specifications import made

from companion.figures.specifications import specification_figure
from companion.results.specifications import CHOICES, specification_curve


def test_every_protocol_has_its_point_and_a_mark_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "backend", "agg")
    rivals = ("Shared-Bottom", "Deeper Shared-Bottom")
    curves = {"income": {rival: specification_curve(made(), "income", rival) for rival in rivals}}
    figure = specification_figure(curves, "a finding", 0.1)
    above, below = figure.axes
    heights = [np.asarray(line.get_ydata(), dtype=float) for line in above.get_lines()]
    points = next(height for height in heights if len(height) == 16)
    np.testing.assert_allclose(points, curves["income"][rivals[0]]["difference"].astype(float))
    assert sum(np.size(line.get_xdata()) for line in below.get_lines()) == 16 * len(CHOICES)
    assert figure.get_suptitle() == "a finding"
    plt.close(figure)
