"""The paper's tables, intervals with the coverage they promise, and tables built from rows."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from companion.checkout import DATA
from companion.results import (
    choice_orders,
    choice_table,
    difference_interval,
    expert_use,
    hump_shares,
    intervals,
    loss_curves,
    mean_interval,
    paired_interval,
    paper_losses,
    read_paper,
    read_results,
)


def test_the_papers_numbers_are_whole() -> None:
    assert len(read_paper("figure2_label_correlation")) == 9
    histogram = read_paper("figure5_final_loss_histogram")
    assert set(histogram.groupby(["model", "task_correlation"])["runs_of_200"].sum()) == {200}
    assert set(read_paper("table1_census_income")["model"]) >= {
        "Single-Task",
        "Shared-Bottom",
        "OMoE",
        "MMoE",
    }


def _coverage(runs: int, experiments: int = 1_500) -> float:
    samples = np.random.default_rng(11).normal(3.0, 2.0, size=(experiments, runs))
    intervals = [mean_interval(sample, seed=seed) for seed, sample in enumerate(samples)]
    return float(np.mean([low <= 3.0 <= high for _, low, high in intervals]))


@pytest.mark.parametrize("runs", [3, 5, 24])
def test_intervals_cover_the_truth_as_often_as_they_say(runs: int) -> None:
    # binomial spread of 1,500 experiments is 0.006; a percentile bootstrap of 24 runs is a little short
    assert 0.92 < _coverage(runs) < 0.97


def test_a_bootstrap_of_five_runs_would_cover_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "SMALL_SAMPLE", 2)
    assert 0.78 < _coverage(5, 600) < 0.87


def test_bootstrap_agrees_with_scipys() -> None:
    sample = np.random.default_rng(2).exponential(size=200)
    mean, low, high = mean_interval(sample)
    reference = stats.bootstrap((sample,), np.mean, method="percentile", rng=np.random.default_rng(1))
    assert mean == pytest.approx(sample.mean())
    assert low == pytest.approx(reference.confidence_interval.low, abs=0.01)
    assert high == pytest.approx(reference.confidence_interval.high, abs=0.01)


def test_difference_is_welchs() -> None:
    ours, theirs = [1.0, 2.0, 4.0], [0.5, 0.6, 0.7, 0.9]
    mean, low, high = difference_interval(ours, theirs)
    spread = np.var(ours, ddof=1) / 3 + np.var(theirs, ddof=1) / 4
    assert mean == pytest.approx(7 / 3 - 0.675)
    assert (low + high) / 2 == pytest.approx(mean)
    assert (high - low) / 2 / math.sqrt(spread) == pytest.approx(
        stats.t.ppf(0.975, spread**2 / (np.var(ours, ddof=1) ** 2 / 18 + np.var(theirs, ddof=1) ** 2 / 48))
    )


@pytest.mark.parametrize("bad", [[], [1.0], [1.0, math.nan], [[1.0, 2.0]]])
def test_an_interval_needs_repeated_finite_runs(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="expected two or more"):
        mean_interval(bad)


def test_a_difference_needs_repeated_runs() -> None:
    with pytest.raises(ValueError, match="got 1 and 2 runs"):
        difference_interval([1.0], [1.0, 2.0])


def test_tables_that_are_not_there_are_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"data/paper/figure9\.csv"):
        read_paper("figure9")
    with pytest.raises(ValueError, match="no rows of preset 'gigantic'"):
        read_results("synthetic", preset="gigantic")


def test_stored_results_name_their_origin() -> None:
    for path in (DATA / "results").glob("*.csv"):
        rows = pd.read_csv(path)
        for column in ("commit", "command", "preset", "device", "torch_version", "data"):
            assert rows[column].notna().all(), (path.name, column)
        assert not rows["commit"].astype(str).str.contains("none").any()
        if path.stem.startswith("benchmark") or path.stem == "chapters":  # not a run a row
            continue
        assert rows["seconds"].notna().all()
        assert not rows.duplicated(["model", "setting", "learning_rate", "seed", "preset"]).any()


# --- the synthetic study -----------------------------------------------------------------------------


def test_paired_intervals_use_the_pairs() -> None:
    """Two columns that differ by little beside what they share: only pairs can tell."""
    random = np.random.default_rng(0)
    shared = random.standard_normal(60)
    first, second = shared + 0.3 + 0.1 * random.standard_normal(60), shared
    estimate, low, high = paired_interval(lambda a, b: (a - b).mean(axis=-1), first, second)
    assert estimate == pytest.approx(float((first - second).mean()))
    assert 0.2 < low < 0.3 < high < 0.4
    reference = stats.bootstrap(
        (first, second), lambda a, b, axis: (a - b).mean(axis=axis), paired=True, method="percentile"
    ).confidence_interval
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.005)


def test_few_pairs_have_students_interval_of_their_differences() -> None:
    random = np.random.default_rng(3)
    first, second = random.normal(0.5, 1.0, 9), random.normal(0.0, 1.0, 9)
    found = paired_interval(lambda a, b: (a - b).mean(axis=-1), first, second)
    assert found == pytest.approx(mean_interval(first - second), rel=1e-10)
    reference = stats.ttest_rel(first, second).confidence_interval()
    assert found[1:] == pytest.approx((reference.low, reference.high))


@pytest.mark.parametrize(
    ("statistic", "truth"),
    [
        (lambda a, b: (a - b).mean(axis=-1), 1.0),
        (lambda a, b: 100 * (a.mean(axis=-1) / b.mean(axis=-1) - 1), 20.0),
    ],
    ids=["difference", "percent"],
)
def test_intervals_of_five_pairs_cover_the_truth_as_often_as_they_say(
    statistic: Callable[..., NDArray[np.float64]], truth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bootstrap of five pairs would not."""

    def coverage(experiments: int) -> float:
        random = np.random.default_rng(7)
        hits = 0
        for _ in range(experiments):
            shared = random.normal(5.0, 0.5, 5)
            ours, theirs = (shared + mean + random.normal(0, 0.3, 5) for mean in (1.0, 0.0))
            _, low, high = paired_interval(statistic, ours, theirs)
            hits += low <= truth <= high
        return hits / experiments

    assert 0.92 < coverage(1_000) < 0.98
    monkeypatch.setattr(intervals, "SMALL_SAMPLE", 2)
    assert coverage(400) < 0.9


def test_paired_intervals_refuse_what_has_no_pairs() -> None:
    def mean(*columns: np.ndarray) -> np.ndarray:
        return columns[0].mean(axis=-1)

    for columns in (([1.0, 2.0], [1.0]), ([1.0],), ([1.0, np.nan],), ([[1.0, 2.0]],)):
        with pytest.raises(ValueError, match="expected as many finite numbers") as caught:
            paired_interval(mean, *columns)
        assert "\n" not in str(caught.value)


STORED = pd.DataFrame(
    {
        "model": "MMoE",
        "task_correlation": [0.5, 0.5, 1.0],
        "seed": [0, 1, 0],
        "steps": 100,
        "diverged_step": [0, 7, 0],
        "curve_1": [3.0, 9.0, 2.0],
        "curve_2": [1.0, np.nan, 0.5],
        "loss_1": [0.1, np.nan, 0.4],
        **{f"gate_{k}_{i}": 0.5 for k in (1, 2) for i in (1, 2)},
    }
)


def test_stored_curves_in_long_form_leave_diverged_runs_out() -> None:
    long = loss_curves(STORED)
    assert sorted(zip(long["task_correlation"], long["step"], long["loss"], strict=True)) == [
        (0.5, 50, 3.0),
        (0.5, 100, 1.0),
        (1.0, 50, 2.0),
        (1.0, 100, 0.5),
    ]


def test_experts_are_ranked_by_the_task_that_uses_them_more() -> None:
    row = {"task_correlation": 0.5, "seed": 3}
    row |= {f"gate_1_{i + 1}": weight for i, weight in enumerate((0.1, 0.7, 0.2))}
    row |= {f"gate_2_{i + 1}": weight for i, weight in enumerate((0.6, 0.1, 0.3))}
    use = expert_use(pd.DataFrame([row]))
    assert use[use["task"] == 1].sort_values("rank")["weight"].tolist() == [0.7, 0.2, 0.1]
    assert use[use["task"] == 2].sort_values("rank")["weight"].tolist() == [0.1, 0.3, 0.6]


def test_humps_are_shares_of_all_runs() -> None:
    shares = hump_shares(STORED)
    assert list(shares.index) == [("MMoE", 0.5), ("MMoE", 1.0)]
    assert shares.to_numpy().tolist() == [[50, 0, 0], [0, 0, 100]]  # the diverged run is in no hump


def test_last_losses_of_the_paper_are_those_of_its_figures() -> None:
    losses = paper_losses()
    assert len(losses) == 12
    assert losses["Shared-Bottom-16", 0.5] == pytest.approx(0.397, abs=0.001)
    assert losses["MMoE", 0.5] == pytest.approx(0.0827, abs=0.001)


def test_choices_are_compared_in_pairs_and_ranked() -> None:
    means = {("Shared-Bottom", 0.5): 0.4, ("OMoE", 0.5): 0.3, ("MMoE", 0.5): 0.2}
    rows = pd.DataFrame(
        [
            ("as in the study", model, p, seed, means.get((model, p), 0.1) + seed / 10)
            for model in ("Shared-Bottom", "OMoE", "MMoE")
            for p in (0.5, 1.0)
            for seed in range(5)
        ],
        columns=["choice", "model", "task_correlation", "seed", "loss_1"],
    )
    rows.loc[rows["seed"] == 4, "loss_1"] = np.nan  # diverged: left out
    (row,) = choice_table(rows).to_dict("records")
    assert row["Shared-Bottom's minus OMoE's, p = 0.5"] == "0.10 [0.10, 0.10]"
    assert row["Shared-Bottom's minus MMoE's, p = 0.5"] == "0.20 [0.20, 0.20]"
    assert row["Shared-Bottom's minus MMoE's, p = 1"] == "0.00 [0.00, 0.00]"
    assert row["OMoE's gap minus MMoE's"] == "0.10 [0.10, 0.10]"
    first = choice_orders(rows).iloc[0]
    assert (first["best"], first["worst"], first["Shared-Bottom worst"]) == ("MMoE", "Shared-Bottom", True)


def test_the_stored_study_has_the_papers_number_of_runs_from_one_command() -> None:
    study = read_results("synthetic", preset="paper")
    assert (study.groupby(["model", "task_correlation"]).size() == 200).all()
    assert len(study) == 12 * 200
    assert (study["diverged_step"] == 0).all()
    # the runs that were trained again are the same runs
    parts = read_results("synthetic_parts", preset="paper")
    both = parts.merge(study, on=["model", "setting", "seed"])
    assert len(both) == len(parts) == 120
    assert (both["loss_1_x"] == both["loss_1_y"]).all()
