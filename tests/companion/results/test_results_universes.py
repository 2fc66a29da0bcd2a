"""Distances to figure 5, differences universe by universe, and in what share of them each is there."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion.results import (
    difference_interval,
    histogram_runs,
    mean_interval,
    paired_interval,
    read_paper,
    universes,
)
from companion.results.reading import read_independent
from companion.results.universes import BAND, DIFFERENCES, Difference

LEAD = Difference("Shared-Bottom minus MMoE at p = 0.5", ("Shared-Bottom", 0.5), ("MMoE", 0.5))
PAPER = histogram_runs(read_paper("figure5_final_loss_histogram"))


def runs(
    model: str,
    p: float,
    losses: Sequence[float],
    *,
    second: Sequence[float] | None = None,
    first_seed: int = 0,
) -> pd.DataFrame:
    """Rows of a setting, a run a loss; a loss of NaN is a run that diverged."""
    return pd.DataFrame(
        {
            "model": model,
            "task_correlation": p,
            "seed": range(first_seed, first_seed + len(losses)),
            "loss_1": losses,
            "loss_2": losses if second is None else second,
            "diverged_step": [7 if math.isnan(loss) else 0 for loss in losses],
        }
    )


# Distances


def test_the_distance_of_a_shifted_sample_is_the_shift() -> None:
    losses = np.random.default_rng(0).exponential(0.1, 200)
    assert universes.panel_distance(losses + 0.07, losses) == pytest.approx(0.07)
    assert universes.panel_distance(losses, losses - 0.07) == pytest.approx(0.07)
    assert universes.panel_distance(losses, losses) == 0


def test_figure_5_has_no_distance_from_itself_and_one_shifted_panel_counts_a_ninth() -> None:
    distance, each = universes.figure_distance(PAPER, PAPER)
    assert distance == 0
    assert set(each) == set(PAPER)
    assert len(each) == 9
    shifted = {**PAPER, ("MMoE", 0.9): PAPER["MMoE", 0.9] + 0.18}
    distance, each = universes.figure_distance(shifted, PAPER)
    assert distance == pytest.approx(0.02)
    assert each["MMoE", 0.9] == pytest.approx(0.18)


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_panel_without_runs_is_refused_in_one_line(how: str) -> None:
    panels = {setting: losses for setting, losses in PAPER.items() if setting != ("OMoE", 0.9)}
    if how == "empty":
        panels["OMoE", 0.9] = np.array([])
    with pytest.raises(
        ValueError, match=r"no runs of \('OMoE', 0\.9\), expected some of every panel"
    ) as error:
        universes.figure_distance(panels, PAPER)
    assert "\n" not in str(error.value)


def test_distance_noise_shrinks_with_the_root_of_the_runs_to_a_quarter_of_a_bin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A draw lies anywhere in its bin, the printed run at its middle: that part stays.
    assert universes.distance_noise(PAPER, 20_000, repeats=3).mean() == pytest.approx(BAND / 4, rel=0.05)
    two_hundred = universes.distance_noise(PAPER, 200)
    assert two_hundred.shape == (200,)
    assert two_hundred.mean() == pytest.approx(0.013, abs=0.002)
    assert (two_hundred == universes.distance_noise(PAPER, 200)).all()
    assert (two_hundred != universes.distance_noise(PAPER, 200, seed=1)).any()
    monkeypatch.setattr(universes, "BAND", 0.0)  # draws at the middles too
    few, many = (universes.distance_noise(PAPER, runs, repeats=100).mean() for runs in (50, 800))
    assert few / many == pytest.approx(4, rel=0.1)


def test_distances_over_steps_are_those_of_task_1s_curves_alone() -> None:
    rows = pd.concat(
        [
            runs(model, p, losses.tolist()).assign(
                steps=900,
                curve_1=losses + 0.3,
                second_curve_1=9.0,
                curve_2=losses + 0.1,
                second_curve_2=9.0,
                curve_3=losses,
            )
            for (model, p), losses in PAPER.items()
        ]
    )
    beside = runs("Single-Task", 0.5, [9.0, 9.0]).assign(steps=900, curve_1=9.0, curve_2=9.0, curve_3=9.0)
    diverged = rows.iloc[:1].assign(diverged_step=3, curve_1=math.nan, curve_2=math.nan, curve_3=math.nan)
    found = universes.distance_over_steps(pd.concat([rows, beside, diverged]), PAPER)
    assert found["step"].tolist() == [300, 600, 900]
    assert found["distance"].to_numpy() == pytest.approx([0.3, 0.1, 0.0])


# Losses


def test_diverged_runs_are_left_out_and_both_tasks_enter() -> None:
    rows = pd.concat(
        [
            runs("MMoE", 0.5, [0.1, math.nan, 0.3], second=[0.5, math.nan, 0.7]),
            runs("OMoE", 1.0, [0.2, 0.2]),
        ]
    )
    assert universes.both_tasks(rows).iloc[[0, 2]].tolist() == pytest.approx([0.3, 0.5])
    found = universes.runs_of(rows)
    assert set(found) == {("MMoE", 0.5), ("OMoE", 1.0)}
    assert found["MMoE", 0.5].to_dict() == pytest.approx({0: 0.3, 2: 0.5})
    assert universes.losses_of_task_1(rows)["MMoE", 0.5].tolist() == [0.1, 0.3]
    assert universes.losses_of_task_1(rows, "loss_2")["MMoE", 0.5].tolist() == [0.5, 0.7]
    pooled = universes.losses_of_both_tasks(rows)
    assert sorted(pooled["MMoE", 0.5]) == [0.1, 0.3, 0.5, 0.7]
    assert len(pooled["OMoE", 1.0]) == 4


def test_a_task_without_a_loss_makes_no_mean_of_the_other() -> None:
    assert math.isnan(universes.both_tasks(runs("MMoE", 1.0, [0.1], second=[math.nan])).iloc[0])


def test_losses_are_counted_in_the_papers_bins_and_large_ones_in_the_last() -> None:
    edges = universes.figure_5_edges(read_paper("figure5_final_loss_histogram"))
    assert len(edges) == 31
    assert np.diff(edges) == pytest.approx(np.full(30, BAND), abs=2e-5)
    counts = universes.losses_in_bins(np.array([0.01, 0.02, 0.05, 0.99, 1.0, 2.4]), edges)
    assert counts.sum() == 6
    assert (counts[0], counts[1], counts[-1]) == (2, 1, 3)


def test_levels_count_diverged_runs_and_stuck_losses_of_both_tasks() -> None:
    rows = pd.concat(
        [
            runs("MMoE", 0.5, [0.1, 0.4, math.nan, 0.1], second=[0.1, 0.1, math.nan, 0.1]),
            runs("MMoE", 1.0, [0.1, math.nan]),  # a single trained run has no interval
            runs("OMoE", 1.0, [0.5, 0.6]),
            runs("Single-Task", 1.0, [0.1, 0.1]),  # not asked for
        ]
    )
    levels = universes.setting_levels(rows, ["OMoE", "MMoE"])
    assert levels[["model", "task_correlation"]].to_numpy().tolist() == [["OMoE", 1.0], ["MMoE", 0.5]]
    mmoe = levels.iloc[1]
    assert (mmoe["runs"], mmoe["diverged"]) == (3, 1)
    assert mmoe[["mean", "low", "high"]].tolist() == pytest.approx(mean_interval([0.1, 0.25, 0.1]))
    assert mmoe["stuck"] == pytest.approx(1 / 6)
    exact = stats.beta.ppf([0.025, 0.975], [1, 2], [6, 5])
    assert mmoe[["stuck_low", "stuck_high"]].tolist() == pytest.approx(exact, abs=1e-9)
    assert levels.iloc[0]["stuck"] == 1
    assert levels.iloc[0]["diverged"] == 0


# Differences


def test_runs_of_the_same_seeds_are_paired() -> None:
    random = np.random.default_rng(0)
    shared = random.uniform(0, 1, 12)
    first, second = shared + 0.05 + 0.01 * random.standard_normal(12), shared
    # in another order: it is the seed that pairs
    rows = pd.concat([runs("Shared-Bottom", 0.5, first.tolist()), runs("MMoE", 0.5, second.tolist())[::-1]])
    found = universes.difference_of(universes.runs_of(rows), LEAD)
    assert found == pytest.approx(paired_interval(lambda a, b: (a - b).mean(axis=-1), first, second))
    assert found[1] > 0.03
    assert difference_interval(first, second)[1] < -0.1


@pytest.mark.parametrize("how", ["other seeds", "a diverged run"])
def test_other_runs_have_welchs_interval(how: str) -> None:
    random = np.random.default_rng(1)
    first, second = random.uniform(0, 1, 12), random.uniform(0, 1, 12)
    if how == "a diverged run":
        second[3] = math.nan
    rows = pd.concat(
        [
            runs("Shared-Bottom", 0.5, first.tolist()),
            runs("MMoE", 0.5, second.tolist(), first_seed=100 if how == "other seeds" else 0),
        ]
    )
    found = universes.difference_of(universes.runs_of(rows), LEAD)
    assert found == pytest.approx(difference_interval(first, second[~np.isnan(second)]))


def test_every_universe_is_asked_what_it_has_runs_for() -> None:
    rows = pd.concat(
        [
            runs("Shared-Bottom", 0.5, [0.3, 0.4, 0.5]).assign(universe=0),
            runs("MMoE", 0.5, [0.1, 0.2, 0.3]).assign(universe=0),
            runs("MMoE", 1.0, [0.1, math.nan, 0.3]).assign(universe=0),
            runs("Shared-Bottom", 0.5, [0.3, 0.4]).assign(universe=4),
            runs("MMoE", 0.5, [0.1, math.nan]).assign(universe=4),  # one run is no mean with an interval
        ]
    )
    found = universes.universe_differences(rows)
    assert found[["universe", "difference", "runs"]].to_numpy().tolist() == [
        [0, "MMoE: p = 0.5 minus 1", 2],
        [0, LEAD.name, 3],
    ]
    assert found["estimate"].tolist() == pytest.approx([0.0, 0.2])
    assert (found["low"] <= found["estimate"]).all()
    assert (found["estimate"] <= found["high"]).all()


def test_the_first_eleven_have_been_asked_by_independent_code() -> None:
    theirs = set(read_independent("universe_shares")["difference"])
    assert {difference.name for difference in DIFFERENCES[:11]} == theirs
    assert len({difference.name for difference in DIFFERENCES}) == len(DIFFERENCES)
    for difference in DIFFERENCES:
        (first, p), (second, q) = difference.first, difference.second
        assert difference.name in (f"{first} minus {second} at p = {p:g}", f"{first}: p = {p:g} minus {q:g}")
        assert (first == second) != (p == q)


# Shares


def differences_of(name: str, estimates: Sequence[float], half: float = 0.02) -> pd.DataFrame:
    estimate = np.array(estimates)
    return pd.DataFrame(
        {
            "universe": range(len(estimate)),
            "difference": name,
            "estimate": estimate,
            "low": estimate - half,
            "high": estimate + half,
            "runs": 12,
        }
    )


def test_shares_count_universes() -> None:
    estimates = [0.05, 0.04, 0.03, 0.01, 0.01, -0.01, -0.03, -0.05]
    other = differences_of("other", [0.1, 0.1])
    shares = universes.universe_shares(pd.concat([differences_of("one", estimates), other]))
    assert list(shares.index) == ["one", "other"]
    one = shares.loc["one"]
    assert one["universes"] == 8
    assert one["mean"] == pytest.approx(np.mean(estimates))
    assert one["median"] == pytest.approx(0.01)
    assert one["positive"] == 5 / 8
    exact = stats.beta.ppf([0.025, 0.975], [5, 6], [4, 3])
    assert [one["positive_low"], one["positive_high"]] == pytest.approx(exact, abs=1e-9)
    assert (one["interval_above"], one["interval_below"]) == (3 / 8, 2 / 8)
    assert (one["above_band"], one["inside_band"], one["below_band"]) == (2 / 8, 5 / 8, 1 / 8)
    bands = shares[["above_band", "inside_band", "below_band"]].sum(axis=1)
    assert bands.to_numpy() == pytest.approx([1, 1])
    assert shares.loc["other", "positive_high"] == 1
    assert (
        universes.universe_shares(differences_of("one", estimates), band=0.045).loc["one", "above_band"]
        == 1 / 8
    )


def test_our_shares_stand_beside_those_of_independent_code_by_name() -> None:
    theirs = read_independent("universe_shares").set_index("difference")
    name = LEAD.name
    positive = round(float(str(theirs.loc[name, "positive"])) * 100)
    estimates = [0.05] * positive + [-0.05] * (100 - positive)
    unknown = differences_of("only ours", [0.1, 0.2])
    opposite = differences_of("OMoE minus MMoE at p = 0.5", [-0.1] * 100)
    shares = universes.universe_shares(pd.concat([unknown, opposite, differences_of(name, estimates)]))
    table = universes.shares_beside_independent(shares)
    assert set(table.index) == {name, "OMoE minus MMoE at p = 0.5"}
    assert table.loc[name, "Fisher's p"] == "1.00"
    assert table.loc["OMoE minus MMoE at p = 0.5", "Fisher's p"] == "0.00"
    assert table.loc[name, "theirs: share above 0"] == "0.80"
    assert str(table.loc[name, "ours: share above 0"]).startswith("0.80 [0.7")
    assert table.loc[name, "theirs: mean"] == "+0.052"
    assert table.loc[name, "ours: above the band"] == "0.80"
    assert table.loc[name, "theirs: above the band"] == "0.51"


# Noise


def test_leads_with_noise_are_paired_and_of_what_has_both_models() -> None:
    rows = pd.concat(
        [
            runs("Shared-Bottom", 0.5, [0.3, 0.5, 0.4]).assign(noise_variance=0.01),
            runs("MMoE", 0.5, [0.2, 0.4, 0.3]).assign(noise_variance=0.01),
            runs("Shared-Bottom", 0.5, [1.3, 1.5, 1.4]).assign(noise_variance=1.0),
            runs("MMoE", 0.5, [1.3, 1.5, math.nan]).assign(noise_variance=1.0),
            runs("MMoE", 1.0, [1.3, 1.5, 1.4]).assign(noise_variance=1.0),  # alone
            runs("Shared-Bottom", 1.0, [1.3, math.nan, math.nan]).assign(noise_variance=1.0),  # one run
        ]
    )
    leads = universes.noise_leads(rows, "Shared-Bottom", "MMoE")
    assert leads[["noise_variance", "task_correlation", "runs"]].to_numpy().tolist() == [
        [0.01, 0.5, 3],
        [1, 0.5, 2],
    ]
    quiet, loud = leads[["estimate", "low", "high"]].to_numpy().tolist()
    assert quiet == pytest.approx([0.1, 0.1, 0.1])
    assert loud == pytest.approx(difference_interval([1.3, 1.5, 1.4], [1.3, 1.5]))
    back = universes.noise_leads(rows, "MMoE", "Shared-Bottom")
    assert back["estimate"].to_numpy() == pytest.approx(-leads["estimate"].to_numpy())


# A surrogate


def labels(count: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({name: random.uniform(0, 1, count) for name in universes.FEATURES})
    rows["seed"] = range(count)
    rows["own_batch_size"] = random.choice([32, 64, 128], count)
    rows["own_rate"] = random.uniform(3e-4, 3e-3, count)
    rows["own_initialiser"] = random.choice(["torch", "glorot"], count)
    return rows


def test_a_surrogate_finds_what_depends_on_the_label_and_nothing_in_noise() -> None:
    rows = labels(150)
    smooth = 0.1 * np.sin(3 * rows["roughness"].to_numpy() - 1)
    weights = 0.1 * (rows["own_initialiser"] == "glorot").to_numpy()
    noise = np.random.default_rng(1).standard_normal(150)
    found = universes.surrogate_skill(
        pd.concat(
            [
                differences_of("smooth", smooth.tolist()),
                differences_of("weights", weights.tolist()),
                differences_of("noise", noise.tolist()),
                differences_of("few", smooth[:19].tolist()),
                differences_of("enough", smooth[:20].tolist()),
            ]
        ),
        rows.sample(frac=1, random_state=0),  # rows are found by the universe's number
    )
    assert list(found.index) == ["smooth", "weights", "noise", "enough"]
    skill, says_most = found["skill"].astype(float).to_dict(), found["says most"].to_dict()
    assert skill["smooth"] > 0.85
    assert skill["weights"] > 0.95
    assert skill["noise"] < 0.05
    assert (says_most["smooth"], says_most["weights"]) == ("roughness", "glorot")
    assert found["universes"].tolist() == [150, 150, 150, 20]


def _with_curves() -> pd.DataFrame:
    """Two models at two correlations whose both curves fall as 1 / step, the second model's by a fixed factor lower."""
    rows = []
    for model, factor in (("Shared-Bottom", 1.0), ("MMoE", 0.5)):
        for p in (0.5, 1.0):
            for seed in range(25):
                row = {"model": model, "task_correlation": p, "seed": seed, "steps": 400, "diverged_step": 0}
                for point in range(1, 5):
                    level = factor * (1 + 0.01 * seed) / point
                    row |= {f"curve_{point}": level + 0.1, f"second_curve_{point}": level - 0.1}
                rows.append(row)
    return pd.DataFrame(rows)


def test_a_curve_is_the_mean_of_both_tasks_at_its_steps() -> None:
    curve = universes.curve_of_both(_with_curves(), "Shared-Bottom")
    assert curve["step"].unique().tolist() == [100, 200, 300, 400]
    assert curve.query("task_correlation == 0.5")["mean"].tolist() == pytest.approx(
        [1.12 / point for point in range(1, 5)]
    )
    assert (curve["low"] < curve["mean"]).all()
    assert universes.nearest_step(curve, {0.5: 1.12 / 3, 1.0: 1.12 / 3}) == 300


def test_a_lead_is_paired_by_seed_at_the_point_next_to_the_step_asked_for() -> None:
    table = universes.lead_over_steps(_with_curves(), "Shared-Bottom", "MMoE", (90, 400))
    assert table.index.tolist() == ["100", "400"]
    assert str(table.loc["100", "p = 1"]).startswith("0.560 [")
    assert str(table.loc["400", "p = 0.5"]).startswith("0.140 [")


def test_a_universe_is_complete_when_every_setting_has_as_many_runs() -> None:
    settings = sorted({setting for one in DIFFERENCES for setting in (one.first, one.second)})
    rows = pd.DataFrame(
        [(universe, *setting) for universe in (1, 2, 3) for setting in settings for _ in range(2)],
        columns=["universe", "model", "task_correlation"],
    )
    assert universes.complete_universes(rows) == [1, 2, 3]
    model, p = settings[0]
    lacking = rows[(rows["universe"] != 2) | (rows["model"] != model) | (rows["task_correlation"] != p)]
    assert universes.complete_universes(lacking) == [1, 3]
    assert universes.complete_universes(rows.drop(index=[len(rows) - 1])) == [1, 2]
