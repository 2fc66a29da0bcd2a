"""The specification curve finds what was put into made rows, and counts what its intervals say."""

from __future__ import annotations

import numpy as np
import pytest
from generated_specifications import made

from companion.results.specifications import (
    CHOICES,
    curve_summary,
    specification_curve,
    what_choices_are_worth,
)


def test_the_curve_is_in_order_and_in_points() -> None:
    curve = specification_curve(made(), "income", "Shared-Bottom")
    assert len(curve) == 16
    assert curve["difference"].is_monotonic_increasing
    assert (curve["low"] < curve["difference"]).all()
    assert curve.loc[curve["variant"] == 2, "difference"].mean() == pytest.approx(0.4, abs=0.05)
    assert set(curve.loc[8:, "variant"]) == {2}  # the larger half
    summary = curve_summary(curve, 0.1)
    assert summary["specifications"] == 16
    assert summary["larger"] == 8
    assert summary["smaller"] == 0
    assert summary["low"] <= summary["mean"] <= summary["high"]


def test_dead_runs_are_counted_and_no_part_of_a_mean() -> None:
    rows = made()
    dead = (rows["specification"] == 3) & (rows["model"] == "MMoE") & (rows["seed"] < 2)
    rows.loc[dead, "test_main_auc"] = [0.5, np.nan]
    curve = specification_curve(rows, "income", "Shared-Bottom").set_index("specification")
    assert curve.loc[3, "dead_mmoe"] == 2
    assert curve["dead_rival"].sum() == 0
    assert curve["difference"].abs().max() < 1
    rows.loc[
        (rows["specification"] == 3) & (rows["model"] == "MMoE") & (rows["seed"] > 0), "test_main_auc"
    ] = 0.5
    assert 3 not in set(specification_curve(rows, "income", "Shared-Bottom")["specification"])


def test_the_choice_that_decides_is_found_and_no_other() -> None:
    worth = what_choices_are_worth(specification_curve(made(), "income", "Shared-Bottom"))
    p = worth.groupby("choice")["p"].first()
    assert p.idxmin() == CHOICES["variant"]
    assert p.min() < 1e-6
    assert (p.drop(CHOICES["variant"]).dropna() > 0.1).all()
    deep = worth[(worth["choice"] == CHOICES["variant"]) & (worth["level"] == "2")].iloc[0]
    assert deep["low"] < 0.4 < deep["high"]
