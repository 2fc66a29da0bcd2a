"""What all pairs say together: closed forms, coverage, and what was put into made rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from generated_atlas import pairs, runs
from scipy import stats

from companion.results import atlas


@pytest.fixture(scope="module")
def facts() -> pd.DataFrame:
    return pairs()


@pytest.fixture(scope="module")
def rows(facts: pd.DataFrame) -> pd.DataFrame:
    return runs(facts)


def test_with_equal_errors_the_meta_analysis_is_a_mean_and_its_interval() -> None:
    y = np.array([0.3, -0.1, 0.5, 0.2, 0.9])
    found = atlas.meta_analysis(y, np.full(5, 0.1))
    assert found["mean"] == pytest.approx(y.mean())
    assert found["tau"] ** 2 == pytest.approx(y.var(ddof=1) - 0.1**2, rel=1e-9)
    student = stats.ttest_1samp(y, 0).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((student.low, student.high))
    assert found["i_squared"] == pytest.approx(1 - 0.1**2 / y.var(ddof=1), rel=1e-9)
    assert found["new_low"] < found["low"] < found["mean"] < found["high"] < found["new_high"]


def test_effects_no_further_apart_than_their_errors_have_no_spread_between_pairs() -> None:
    found = atlas.meta_analysis([0.1, 0.11, 0.09], [0.5, 0.5, 0.5])
    assert found["tau"] == found["i_squared"] == 0
    # Then the mean is known as well as its errors say, however close the effects lie by luck.
    assert found["high"] - found["mean"] == pytest.approx(stats.t.ppf(0.975, 2) * 0.5 / 3**0.5)


def test_intervals_of_the_mean_and_of_a_new_pair_cover_what_they_say() -> None:
    rng = np.random.default_rng(0)
    mean, tau, covered, new = 0.2, 0.3, 0, 0
    for _ in range(400):
        errors = rng.uniform(0.05, 0.4, 30)
        found = atlas.meta_analysis(mean + rng.normal(0, tau, 30) + rng.normal(0, errors), errors)
        covered += found["low"] < mean < found["high"]
        new += found["new_low"] < mean + rng.normal(0, tau) < found["new_high"]
    assert 0.92 <= covered / 400 <= 0.98
    assert 0.92 <= new / 400 <= 0.98


@pytest.mark.parametrize(
    ("effects", "errors"), [([1, 2], [1, 1]), ([1, 2, 3], [1, 1, 0]), ([1, 2, 3], [1, 1])]
)
def test_a_meta_analysis_of_too_little_is_one_line(effects: list[float], errors: list[float]) -> None:
    with pytest.raises(ValueError, match="three or more finite ones"):
        atlas.meta_analysis(effects, errors)


def test_effects_are_in_points_over_both_tasks(rows: pd.DataFrame, facts: pd.DataFrame) -> None:
    sharing = atlas.pair_effects(rows, "sharing")
    assert len(sharing) == len(facts)
    assert sharing["effect"].mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(sharing["effect"], (sharing["effect_1"] + sharing["effect_2"]) / 2)
    counts = atlas.shares(sharing, 0.1)
    assert counts["helps"] == len(facts)
    assert sum(counts.values()) == 2 * counts["pairs"]


def test_what_predicts_is_found_and_noise_is_not(rows: pd.DataFrame, facts: pd.DataFrame) -> None:
    features = atlas.pair_features(rows, facts)
    found = atlas.predictors(atlas.pair_effects(rows, "MMoE"), features).set_index("feature")
    related, skill = atlas.FEATURES["related"], found["skill"]
    assert skill.drop("all together").idxmax() == related
    assert found["high"][related] < -0.8
    assert skill[related] > 0.9
    assert skill[atlas.FEATURES["cosine"]] < 0.2
    constant = atlas.predictors(atlas.pair_effects(rows, "sharing"), features).set_index("feature")
    assert constant["skill"]["all together"] < 0.3


def test_the_skill_is_that_of_leaving_out_one_row_after_the_other() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=12)
    wrong = base = 0.0
    for row in range(12):
        others = np.arange(12) != row
        design = np.column_stack([np.ones(11), x[others]])
        weights = np.linalg.lstsq(design, y[others], rcond=None)[0]
        wrong += (y[row] - np.array([1, *x[row]]) @ weights) ** 2
        base += (y[row] - y[others].mean()) ** 2
    assert atlas.left_out_skill(x, y) == pytest.approx(1 - wrong / base, rel=1e-9)


def test_dead_runs_are_left_out_and_counted_and_unfinished_pairs_too(rows: pd.DataFrame) -> None:
    changed = rows.copy()
    changed.loc[
        (changed["pair"] == 0) & (changed["model"] == "MMoE") & (changed["seed"] == 0), "test_auc_2"
    ] = 0.5
    found = atlas.pair_effects(changed, "MMoE").set_index("pair")
    assert found["dead"][0] == 1
    assert found["dead"].sum() == 1
    assert found["effect"].abs().max() < 1
    part = changed[~((changed["pair"] == 3) & (changed["model"] == "OMoE"))]
    assert 3 not in set(atlas.complete_pairs(part)["pair"])
    assert len(set(atlas.complete_pairs(part)["pair"])) == 29


def test_extremes_of_noise_come_back_when_they_are_looked_at_again(facts: pd.DataFrame) -> None:
    """All pairs gain the same; the one that seemed to gain most does not when it is trained anew."""
    level = facts.assign(label_correlation=0.9)  # MMoE gains nothing anywhere
    first = runs(level, noise=0.01)
    effects = atlas.pair_effects(first, "MMoE").set_index("pair")["effect"]
    top = effects.idxmax()
    again = runs(level, seeds=12, noise=0.01)
    found = atlas.looked_at_again(first, again[again["pair"] == top])
    assert list(found["pair"]) == [top]
    assert found["effect"].iloc[0] == pytest.approx(effects.max())
    assert abs(found["again"].iloc[0]) < found["effect"].iloc[0]
