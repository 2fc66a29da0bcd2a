"""Comparing runs: scipy's intervals, a word about size, and a chance that is met when it is tried."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

import mmoe_lib
from mmoe_lib.compare import RunComparison, compare_runs

Array = NDArray[np.float64]


def drawn(*means: float, runs: int = 8, spread: float = 1.0, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {f"m{place}": rng.normal(mean, spread, runs) for place, mean in enumerate(means)}


def only(comparison: RunComparison) -> dict[str, Any]:
    assert len(comparison.pairs) == 1
    return dict(comparison.pairs.iloc[0])


def test_it_is_found_at_the_top() -> None:
    assert mmoe_lib.compare_runs is compare_runs
    with pytest.raises(AttributeError, match="no attribute 'compare_run'"):
        _ = mmoe_lib.compare_run


def test_intervals_are_scipys() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0, 1, 7), rng.normal(1, 3, 12)
    welch = stats.ttest_ind(theirs, ours, equal_var=False).confidence_interval(0.9)
    pair = only(compare_runs({"a": ours, "b": theirs}, 0.1, level=0.9))
    assert [pair["low"], pair["high"]] == pytest.approx([welch.low, welch.high], rel=1e-12)
    student = stats.ttest_rel(theirs[:7], ours).confidence_interval(0.95)
    pair = only(compare_runs({"a": ours, "b": theirs[:7]}, 0.1, paired=True))
    assert [pair["low"], pair["high"]] == pytest.approx([student.low, student.high], rel=1e-12)


def test_several_pairs_share_the_error() -> None:
    three = compare_runs(drawn(0, 1, 2), 0.1, level=0.95)
    assert len(three.pairs) == 3
    assert three.level == pytest.approx(1 - 0.05 / 3)
    two = compare_runs(
        {name: values for name, values in drawn(0, 1, 2).items() if name != "m2"}, 0.1, level=three.level
    )
    assert two.pairs.iloc[0]["low"] == three.pairs.iloc[0]["low"]


@pytest.mark.parametrize(
    ("mean", "spread", "word"),
    [(1, 0.1, "larger"), (-1, 0.1, "smaller"), (0.05, 0.1, "no difference that matters"), (1, 5, "open")],
)
def test_word(mean: float, spread: float, word: str) -> None:
    assert only(compare_runs(drawn(0, mean, spread=spread, seed=1), 0.5))["word"] == word


def test_a_sure_but_small_difference_is_not_larger() -> None:
    pair = only(compare_runs({"a": [0, 0.01, -0.01], "b": [0.2, 0.21, 0.19]}, 0.5))
    assert pair["low"] > 0
    assert pair["word"] == "no difference that matters"


def test_the_needed_runs_are_the_first_that_decide() -> None:
    runs = drawn(0, 1, runs=5, spread=1.5, seed=3)
    pair = only(compare_runs(runs, 0.2))
    needed, difference = int(pair["runs_needed"]), abs(float(pair["difference"]))
    assert pair["word"] == "open"
    assert needed > 5
    spreads = [values.var(ddof=1) for values in runs.values()]

    def half(count: int) -> float:  # Welch's, of as many runs with the same spreads
        parts = [spread / count for spread in spreads]
        freedom = sum(parts) ** 2 / sum(part**2 / (count - 1) for part in parts)
        return math.sqrt(sum(parts)) * float(stats.t.ppf(0.975, freedom))

    assert half(needed) < difference <= half(needed - 1)


def test_the_chance_of_the_other_order_is_met_by_reruns() -> None:
    rng = np.random.default_rng(2)
    first, second, again, anew = (rng.normal(0, 1, (20_000, 5)) for _ in range(4))
    old, new = second.mean(1) - first.mean(1), anew.mean(1) - again.mean(1)
    spread = np.sqrt((first.var(1, ddof=1) + second.var(1, ddof=1)) / 5)
    parts = np.stack([first.var(1, ddof=1), second.var(1, ddof=1)]) / 5
    freedom = parts.sum(0) ** 2 / (parts**2 / 4).sum(0)
    # What the chance rests on: new less old over sqrt(2) s is Student's, whatever the true means are.
    below = stats.t.cdf((new - old) / (np.sqrt(2) * spread), freedom)
    assert np.mean(below < 0.1) == pytest.approx(0.1, abs=0.012)
    one = only(compare_runs({"a": first[0], "b": second[0]}, 0.1))
    expected = stats.t.cdf(-abs(old[0]) / (np.sqrt(2) * spread[0]), freedom[0])
    assert one["opposite_order"] == pytest.approx(expected, rel=1e-12)


def test_dead_runs_are_counted_and_left_out() -> None:
    results: dict[str, list[float | None]] = {
        "a": [0.5, 0.5004, 0.8, 0.81, None, 0.79],
        "b": [0.8, 0.82, 0.81, math.nan, 0.8, math.inf],
    }
    comparison = compare_runs(results, 0.001, dead=0.5)
    a, b = comparison.methods.to_dict("records")
    assert (a["died"], b["died"]) == (3, 2)
    assert a["mean"] == pytest.approx(0.8)
    exact = stats.binomtest(3, 6).proportion_ci(0.95, "exact")
    assert [a["died_low"], a["died_high"]] == pytest.approx([exact.low, exact.high])
    # Of pairs only the run in which neither died is left twice or more, else it is said.
    paired = compare_runs(
        {"a": [*results["a"][2:], 0.7], "b": [0.8, 0.82, 0.81, 0.8, 0.9]}, 0.001, paired=True
    )
    assert paired.pairs.iloc[0]["difference"] == pytest.approx(np.mean([0.0, 0.01, 0.01, 0.2]))


def test_a_run_far_from_the_others_is_pointed_out_and_one_run_that_decides_too() -> None:
    far = {"a": [0.0, 0.1, -0.1, 0.05, -0.05, 9.0], "b": [0.0, 0.1, -0.1, 0.05, -0.05, 0.02]}
    assert [row["outliers"] for row in compare_runs(far, 0.1).methods.to_dict("records")] == [(5,), ()]
    deciding = {"a": [0.0, 0.1, 0.2, 0.1, 0.0], "b": [0.45, 0.46, 0.45, 0.44, 1.4]}
    pair = only(compare_runs(deciding, 0.5))
    assert (pair["word"], pair["one_run_decides"]) == ("larger", True)
    assert not only(compare_runs(drawn(0, 9), 0.5))["one_run_decides"]


def test_equal_runs_have_no_spread_and_still_a_word() -> None:
    same = only(compare_runs({"a": [1.0, 1.0], "b": [1.0, 1.0]}, 0.1))
    assert (same["word"], same["opposite_order"], same["runs_needed"]) == (
        "no difference that matters",
        0.5,
        2,
    )
    apart = only(compare_runs({"a": [1.0, 1.0], "b": [2.0, 2.0]}, 0.1))
    assert (apart["word"], apart["opposite_order"]) == ("larger", 0.0)
    never = only(compare_runs({"a": [0.0, 1.0], "b": [0.0, 1.0]}, 0.0))
    assert (never["word"], never["runs_needed"]) == ("open", math.inf)


@pytest.mark.parametrize(
    ("results", "options", "message"),
    [
        ({"a": [1, 2]}, {}, "got 1 methods, expected two or more"),
        ({"a": [1, 2], "b": [1]}, {}, "a and b have 1 runs that did not die"),
        ({"a": [1, 2, 3], "b": [1, 2]}, {"paired": True}, "expected as many of each"),
        ({"a": [[1, 2]], "b": [1, 2]}, {}, "a has results of shape"),
        ({"a": [1, 2], "b": [1, 2]}, {"smallest": -1}, "smallest=-1"),
        ({"a": [1, 2], "b": [1, 2]}, {"smallest": math.nan}, "smallest=nan"),
        ({"a": [1, 2], "b": [1, 2]}, {"level": 1}, "level=1"),
    ],
)
def test_bad_input_is_one_line(results: dict[str, object], options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        compare_runs(results, **{"smallest": 0.1, **options})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_without_scipy_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        compare_runs({"a": [1, 2], "b": [1, 2]}, 0.1)
