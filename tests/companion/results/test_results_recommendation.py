"""Tables 3 and 4, figure 6, the cost of serving and claims 10 to 12, from rows whose answers are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion.claims import claim_10, claim_11, claim_12, ranker_died
from companion.results import (
    collapse_table,
    expert_use,
    gate_concentration,
    gate_table,
    holm,
    live_table,
    mean_interval,
    paired_difference,
    paired_differences,
    paired_interval,
    paper_gates,
    recommendation_paper,
    recommendation_table,
    reference_table,
    satisfaction_spread,
    satisfaction_table,
    serving_table,
    show_interval,
    signed_rank,
    streaming_table,
    tradeoff_frame,
    training_speed_table,
)

METHODS = ("Single-Task", "Shared-Bottom", "L2-Constrained", "Cross-Stitch", "OMoE", "MMoE")
AUC, R2 = "test_engagement_auc_3", "test_engagement_r2_3"
EVEN = (0.25, 0.25, 0.25, 0.25)


def runs(
    model: str,
    setting: str = "Adam",
    *,
    scores: dict[str, float] | None = None,
    gates: tuple[tuple[float, ...], tuple[float, ...]] = (EVEN, EVEN),
    number: int = 12,
) -> pd.DataFrame:
    """Runs around known scores, 0.70, 0.10 and 0.86 unless told otherwise.

    As in the study, runs of a seed share most of their luck: a method's own is a tenth of it, with mean 0.
    """
    luck = np.random.default_rng(0).normal(0, 1e-3, number)
    own = np.random.default_rng([METHODS.index(model), len(setting)]).normal(0, 1e-4, number)
    own -= own.mean()
    rows = pd.DataFrame({"model": model, "setting": setting, "seed": range(number), "diverged_step": 0})
    for third in (1, 2, 3):
        for measure, usual in (("engagement_auc", 0.70), ("engagement_r2", 0.10), ("satisfaction_auc", 0.86)):
            name = f"test_{measure}_{third}"
            rows[name] = (scores or {}).get(name, usual) + luck + own
    rows["satisfaction_auc_se"] = 0.004
    for index in range(11):
        rows[f"top_engagement_{index}"], rows[f"top_satisfaction_{index}"] = (
            0.4 - index / 100,
            0.02 + index / 1000,
        )
    for task, weights in zip((1, 2), gates, strict=True):
        for expert, weight in enumerate(weights, start=1):
            rows[f"gate_{task}_{expert}"] = weight if model in ("OMoE", "MMoE") else np.nan
    return rows


def study(scores: dict[str, dict[str, float]] | None = None, number: int = 12) -> pd.DataFrame:
    """Every method with both optimisers, scores by method."""
    return pd.concat(
        [
            runs(model, setting, scores=(scores or {}).get(model), number=number)
            for setting in ("SGD", "Adam")
            for model in METHODS
        ],
        ignore_index=True,
    )


def papers_scores() -> dict[str, dict[str, float]]:
    table = recommendation_paper().set_index("model")
    return {str(model): {str(name): float(table[name][model]) for name in table} for model in table.index}


# --- table 3 ----------------------------------------------------------------------------------------


def test_the_papers_checkpoints_are_our_thirds() -> None:
    paper = recommendation_paper().set_index("model")
    assert paper.loc["MMoE", "test_engagement_auc_1"] == 0.6894
    assert paper.loc["MMoE", AUC] == 0.6908
    assert paper.loc["L2-Constrained", "test_engagement_r2_2"] == 0.09030
    assert paper.shape == (5, 6)


def test_table_3_has_our_mean_beside_the_papers_and_methods_in_its_order() -> None:
    rows = study({"MMoE": {AUC: 0.71, R2: 0.11}}).sample(frac=1, random_state=0)
    table = recommendation_table(rows, "Adam")
    assert tuple(table.index) == METHODS
    sample = rows.loc[(rows["model"] == "MMoE") & (rows["setting"] == "Adam"), AUC]
    mean, low, high = mean_interval(sample.to_numpy())
    assert table.loc["MMoE", "AUC, 3/3: ours"] == show_interval(mean, low, high)
    assert mean == pytest.approx(0.71, abs=1e-3)
    assert table.loc["MMoE", "AUC, 3/3: paper"] == "0.6908"
    assert table.loc["MMoE", "R2, 3/3: paper"] == "0.09362"
    assert table.loc["Single-Task", "AUC, 1/3: paper"] == ""
    assert table.loc["OMoE", "runs"] == 12
    assert not any(str(name).startswith("R2") for name in recommendation_table(rows, "SGD", ["auc"]))


def test_a_run_that_diverged_is_counted_and_in_no_mean_whatever_scores_it_had_before() -> None:
    rows = study()
    index = rows.index[(rows["model"] == "OMoE") & (rows["setting"] == "SGD") & (rows["seed"] < 2)]
    rows.loc[index, "diverged_step"] = 700
    rows.loc[index, ["test_engagement_auc_1", "test_satisfaction_auc_3"]] = 0.5  # noted before it diverged
    rows.loc[index, AUC] = np.nan
    table = recommendation_table(rows, "SGD")
    assert table["runs"].to_dict() == dict.fromkeys(METHODS, 12) | {"OMoE": 10}
    assert table["diverged"].to_dict() == dict.fromkeys(METHODS, 0) | {"OMoE": 2}
    kept = rows[(rows["model"] == "OMoE") & (rows["setting"] == "SGD") & (rows["seed"] >= 2)]
    for third in (1, 3):
        expected = show_interval(*mean_interval(kept[f"test_engagement_auc_{third}"]))
        assert table.loc["OMoE", f"AUC, {third}/3: ours"] == expected
    assert str(satisfaction_table(rows, "SGD").loc["OMoE", "satisfaction AUC"]).startswith("0.86")
    assert paired_difference(rows, "SGD", AUC, "MMoE", "OMoE").seeds == 10
    assert paired_difference(rows, "SGD", AUC, "MMoE", "Shared-Bottom").seeds == 12
    claim = claim_10(rows)
    assert (claim.runs, claim.diverged) == (10, 2)


def test_a_method_of_which_one_run_or_none_ended_has_no_interval() -> None:
    rows = study(number=3)
    of_omoe = (rows["model"] == "OMoE") & (rows["setting"] == "SGD")
    rows.loc[of_omoe & (rows["seed"] > 0), "diverged_step"] = 1
    (score,) = rows.loc[of_omoe & (rows["seed"] == 0), AUC]
    assert recommendation_table(rows, "SGD").loc["OMoE", "AUC, 3/3: ours"] == f"{score:.4f}"
    rows.loc[of_omoe, "diverged_step"] = 1
    assert recommendation_table(rows, "SGD").loc["OMoE", "AUC, 3/3: ours"] == ""
    assert satisfaction_table(rows, "SGD").loc["OMoE", "points below the best"] == ""
    with pytest.raises(ValueError, match="all 3 runs of OMoE with 'SGD' diverged"):
        paired_difference(rows, "SGD", AUC, "MMoE", "OMoE")


# --- satisfaction -----------------------------------------------------------------------------------


def test_satisfaction_has_the_half_width_over_test_rows_beside_the_methods_spread() -> None:
    rows = study(
        {"Single-Task": {"test_satisfaction_auc_3": 0.857}, "MMoE": {"test_satisfaction_auc_3": 0.862}}
    )
    table = satisfaction_table(rows, "Adam")
    assert table.loc["MMoE", "points below the best"] == "0.00"
    assert table.loc["Single-Task", "points below the best"] == "0.50"
    assert table.loc["OMoE", "points below the best"] == "0.20"
    assert set(table["± points over test rows"]) == {"0.78"}  # 100 * 1.96 * 0.004
    spread, half_width = satisfaction_spread(rows, "Adam")
    assert spread == pytest.approx(0.5)
    assert half_width == pytest.approx(100 * 1.959964 * 0.004)


# --- pairs ------------------------------------------------------------------------------------------


def test_pairs_are_signed_in_points_paired_by_seed_and_corrected() -> None:
    rows = study({"MMoE": {AUC: 0.701}}).sample(frac=1, random_state=1)
    table = paired_differences(rows, "Adam", AUC)
    assert len(table) == 15
    pairs = table.set_index(["first", "second"])
    columns = {
        model: rows[(rows["model"] == model) & (rows["setting"] == "Adam")]
        .sort_values("seed")[AUC]
        .to_numpy()
        for model in METHODS
    }
    (pair,) = table[(table["first"] == "Shared-Bottom") & (table["second"] == "MMoE")].to_dict("records")
    assert pair["points"] == pytest.approx(-0.1)
    expected = paired_interval(
        lambda a, b: (a - b).mean(axis=-1), 100 * columns["Shared-Bottom"], 100 * columns["MMoE"]
    )
    assert (pair["points"], pair["low"], pair["high"]) == pytest.approx(expected)
    # The luck that a seed's runs share is ten times the difference: only pairs can show it.
    assert pair["high"] < 0
    assert pair["high"] - pair["low"] < 0.03
    raw = [signed_rank(columns[first], columns[second]) for first, second in pairs.index]
    np.testing.assert_allclose(pairs["p_value"], holm(raw))
    assert pair["p_value"] == pytest.approx(15 * 2 / 2**12)  # all 12 of one sign: the least that there is
    assert float(pairs["p_value"]["Single-Task", "OMoE"]) > 0.05
    assert set(pairs["seeds"]) == {12}


def test_the_test_of_equal_pairs_finds_nothing_and_of_others_is_wilcoxons() -> None:
    assert signed_rank([0.7, 0.8, 0.9], [0.7, 0.8, 0.9]) == 1
    first, second = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.zeros(5)
    assert signed_rank(first, second) == signed_rank(second, first) == pytest.approx(2 / 2**5)
    sample = np.random.default_rng(0).normal(size=(2, 15))
    assert signed_rank(*sample) == pytest.approx(stats.wilcoxon(*sample).pvalue)


def test_what_is_missing_or_twice_there_is_said_in_one_line() -> None:
    rows = study(number=3)
    without = rows[rows["model"] != "Cross-Stitch"]
    without_dropout = rows[rows["model"] == "MMoE"].assign(optimiser="SGD", gate_dropout=0.0)
    for ask, message in (
        (lambda: recommendation_table(rows, "Adagrad"), "no rows of 'Adagrad'"),
        (lambda: satisfaction_table(rows, "Adagrad"), "no rows of 'Adagrad'"),
        (lambda: paired_difference(without, "SGD", AUC, "MMoE", "Cross-Stitch"), "no runs of Cross-Stitch with 'SGD'"),
        (lambda: paired_differences(rows[rows["model"] == "MMoE"], "SGD", AUC), "runs of MMoE alone"),
        (lambda: tradeoff_frame(without, "SGD", ["MMoE", "Cross-Stitch"]), "no runs of Cross-Stitch"),
        (lambda: live_table(rows[rows["model"] != "Single-Task"], "SGD"), "no runs of Single-Task"),
        (lambda: live_table(rows, "SGD", weight=0.55), "weight is 0.55, expected one of 0, 0.1, 0.2 .. 1"),
        (lambda: gate_table(rows[rows["model"] != "MMoE"]), "no run has gate weights"),
        (lambda: collapse_table(rows, without_dropout), "and gate dropout"),
        (lambda: claim_10(without), "no runs of Cross-Stitch with 'SGD'"),
        (lambda: claim_10(rows[rows["setting"] == "SGD"]), "with 'Adam'"),
        (lambda: claim_11(rows[rows["model"] != "MMoE"]), "no runs of MMoE with 'SGD'"),
        (lambda: claim_12(serving()[serving()["model"] != "MMoE"]), "0 rows of MMoE"),
        (lambda: serving_table(serving()[serving()["model"] != "Shared-Bottom"]), "0 rows of Shared-Bottom"),
        (lambda: recommendation_table(pd.concat([rows, rows]), "SGD"), "has seed 0 twice"),
        (lambda: claim_10(pd.concat([rows, rows])), "has seed 0 twice"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message) as error:
            ask()
        assert "expected" in str(error.value)
        assert "\n" not in str(error.value)


def test_pairs_need_two_seeds_in_common() -> None:
    rows = study(number=3)
    of_mmoe = rows["model"] == "MMoE"
    rows.loc[of_mmoe, "seed"] += 2
    with pytest.raises(ValueError, match="MMoE and OMoE have 1 seeds in common"):
        paired_difference(rows, "SGD", AUC, "MMoE", "OMoE")


# --- the ranking ------------------------------------------------------------------------------------


def test_the_tradeoff_has_a_row_a_run_and_weight() -> None:
    rows = study(number=2)
    frame = tradeoff_frame(rows, "SGD", ["Shared-Bottom", "MMoE"])
    assert list(frame) == ["model", "seed", "weight", "engagement", "satisfaction"]
    assert len(frame) == 2 * 2 * 11
    assert sorted(set(frame["weight"])) == pytest.approx([step / 10 for step in range(11)])
    at = frame[(frame["model"] == "MMoE") & (frame["seed"] == 1) & np.isclose(frame["weight"], 0.3)]
    assert at[["engagement", "satisfaction"]].to_numpy().tolist() == [pytest.approx([0.37, 0.023])]


def test_table_4_offline_is_the_percent_that_the_new_ranking_gains_over_the_old() -> None:
    rows = study()
    new = (rows["model"] == "MMoE") & (rows["setting"] == "Adam")
    rows.loc[new, "top_engagement_5"] = 0.35 * 1.02
    rows.loc[new, "top_satisfaction_5"] = 0.025 * 0.9
    rows.loc[new, "top_satisfaction_10"] = 0.06
    row = live_table(rows, "Adam").loc["MMoE over Shared-Bottom"]
    assert row["seeds"] == 12
    assert row["engagement, offline: ours (%)"] == "+2.00 [+2.00, +2.00]"
    assert row["satisfaction, offline: ours (%)"] == "-10.00 [-10.00, -10.00]"
    assert row["engagement, live: paper (%)"] == "+0.25 (at 95 % confidence)"
    first = live_table(rows, "Adam").loc["Shared-Bottom over Single-Task"]
    assert first["engagement, offline: ours (%)"] == "+0.00 [+0.00, +0.00]"
    assert first["engagement, live: paper (%)"] == "-0.22 (at 90 % confidence)"
    assert first["satisfaction, live: paper (%)"] == "+19.72 (at 95 % confidence)"
    whole = live_table(rows, "Adam", weight=1).loc["MMoE over Shared-Bottom"]
    assert whole["satisfaction, offline: ours (%)"].startswith("+100.00")  # 0.06 over 0.03


# --- gates ------------------------------------------------------------------------------------------


def test_figure_6_is_ranked_by_the_rule_of_our_runs() -> None:
    paper = paper_gates()
    assert list(paper) == ["setting", "task", "rank", "weight"]
    # engagement's minus satisfaction's: 0.302, -0.611, 0.143, 0.166
    assert paper.loc[paper["task"] == 1, "weight"].tolist() == [0.4407, 0.1817, 0.2130, 0.1646]
    assert paper.loc[paper["task"] == 2, "weight"].tolist() == [0.1388, 0.0157, 0.0702, 0.7753]
    shuffled = runs(
        "MMoE", gates=((0.1646, 0.2130, 0.4407, 0.1817), (0.7753, 0.0702, 0.1388, 0.0157)), number=1
    )
    ours = expert_use(shuffled, by="setting")
    assert ours["weight"].tolist() == paper["weight"].tolist()


def test_concentration_is_the_largest_weight_and_the_effective_number_of_experts() -> None:
    rows = pd.concat(
        [
            runs("MMoE", gates=(EVEN, (0.5, 0.5, 0.0, 0.0)), number=1),
            runs("MMoE", "SGD", gates=((0.95, 0.05, 0.0, 0.0), (0.05, 0.93, 0.02, 0.0)), number=1),
            runs("OMoE", gates=((0.3, 0.3, 0.395, 0.005),) * 2, number=1),
            runs("Shared-Bottom", number=1),
            runs("MMoE", number=1).assign(diverged_step=3),
        ],
        ignore_index=True,
    )
    found = gate_concentration(rows)
    assert found["model"].tolist() == ["MMoE", "MMoE", "OMoE"]  # neither without gates nor diverged
    assert found["largest_1"].tolist() == [0.25, 0.95, 0.395]
    assert found["largest_2"].tolist() == [0.5, 0.93, 0.395]
    assert [found["effective_1"][0], found["effective_2"][0]] == pytest.approx([4, 2])
    assert found["collapsed"].tolist() == [False, True, False]
    # Satisfaction's gate alone leaves experts 3 and 4 out in the first run; in the second no gate uses the fourth.
    assert found["dead"].tolist() == [False, True, True]


def test_gate_table_has_both_tasks_beside_the_papers() -> None:
    rows = pd.concat(
        [study(), runs("MMoE", "Other", gates=((0.4, 0.2, 0.2, 0.2), (0.7, 0.1, 0.1, 0.1)))],
        ignore_index=True,
    )
    table = gate_table(rows)
    assert list(table.index)[:2] == ["SGD: engagement", "SGD: satisfaction"]
    assert table.loc["Other: satisfaction", "largest weight: ours"] == "0.700 [0.700, 0.700]"
    assert table.loc["Other: engagement", "largest weight: ours"] == "0.400 [0.400, 0.400]"
    assert table.loc["Adam: engagement", "effective experts: ours"] == "4.00 [4.00, 4.00]"
    assert table.loc["SGD: engagement", "largest weight: paper"] == "0.441"
    assert table.loc["SGD: satisfaction", "largest weight: paper"] == "0.775"
    weights = np.array([0.1388, 0.7753, 0.0702, 0.0157])
    assert table.loc["SGD: satisfaction", "effective experts: paper"] == (
        f"{np.exp(-(weights * np.log(weights)).sum()):.2f}"
    )


def test_collapses_are_counted_with_wilsons_interval_and_dropout_is_paired_by_seed() -> None:
    rows = study(number=10)
    of_mmoe = (rows["model"] == "MMoE") & (rows["setting"] == "SGD")
    gates = ["gate_1_1", "gate_1_2", "gate_1_3", "gate_1_4"]
    rows.loc[of_mmoe & (rows["seed"] < 3), gates] = [0.97, 0.01, 0.01, 0.01]
    with_dropout = pd.concat(
        [
            runs("MMoE", f"{optimiser}: gate dropout 0.1", scores={AUC: 0.702}, number=4).assign(
                optimiser=optimiser, gate_dropout=0.1
            )
            for optimiser in ("SGD", "Adam")
        ],
        ignore_index=True,
    )
    with_dropout[AUC] = [*(rows.loc[of_mmoe & (rows["seed"] < 4), AUC] + 0.002)] * 2
    with_dropout.loc[[3, 7], "diverged_step"] = 9
    table = collapse_table(rows, with_dropout)
    assert list(table.index)[:3] == ["SGD: OMoE", "SGD: MMoE", "SGD: MMoE, gate dropout 0.1"]
    # Wilson by hand for 3 of 10: (0.3 + z^2 / 20 +- z sqrt(0.021 + z^2 / 400)) / (1 + z^2 / 10), z = 1.96
    assert table.loc["SGD: MMoE", "a gate collapsed (%)"] == "30 [11, 60]"
    assert table.loc["SGD: OMoE", "a gate collapsed (%)"] == "0 [0, 28]"
    assert table.loc["Adam: MMoE", "a gate collapsed (%)"] == "0 [0, 28]"
    assert table.loc["SGD: MMoE", "a dead expert (%)"] == "0 [0, 28]"  # satisfaction's gate uses them
    dropped = table.loc["SGD: MMoE, gate dropout 0.1"]
    assert (dropped["runs"], dropped["diverged"]) == (3, 1)
    assert dropped["AUC points by dropout"] == "+0.20 [+0.20, +0.20]"
    assert table.loc["SGD: MMoE", "AUC points by dropout"] == ""


# --- cost and references ----------------------------------------------------------------------------


def serving(**ratios: tuple[float, float, float]) -> pd.DataFrame:
    """Costs by method; multiply-adds and both latencies have the ratio 1, 1, 2, 2, 1.1, 1.1 unless told otherwise."""
    usual = dict(zip(METHODS, (2.0, 1.0, 2.0, 2.0, 1.1, 1.1), strict=True))
    rows = []
    for model, ratio in usual.items():
        middle, low, high = ratios.get(model.replace("-", "_"), (ratio, 0.99 * ratio, 1.01 * ratio))
        row: dict[str, float | str] = {
            "model": model, "parameters": 1_000 + 100 * ratio, "embedding_parameters": 1_000,
            "multiply_adds": 500 * ratio, "rows_per_second": 4_000 / ratio, "rounds": 7,
        }  # fmt: skip
        for batch in (1, 1000):
            row |= {f"p50_ms_{batch}": 0.2 * middle, f"p99_ms_{batch}": 0.3 * middle}
            row |= {f"ratio_{batch}": middle, f"ratio_{batch}_low": low, f"ratio_{batch}_high": high}
            row |= {f"compiled_p50_ms_{batch}": 0.1 * middle, f"compiled_ratio_{batch}": middle}
            row |= {f"compiled_ratio_{batch}_low": low, f"compiled_ratio_{batch}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def test_costs_are_divided_by_shared_bottoms() -> None:
    table = serving_table(serving(MMoE=(1.2, 1.1, 1.3)).sample(frac=1, random_state=0))
    assert tuple(table.index) == METHODS
    row = table.loc["MMoE"]
    assert row["parameters"] == "1,110 (1.01x)"
    assert row["outside embeddings"] == "110 (1.10x)"
    assert row["multiply-adds"] == "550 (1.10x)"
    assert row["p50 ms, 1,000 rows"] == "0.24"
    assert row["p99 ms, 1 row"] == "0.36"
    assert row["p50 ratio, 1 row"] == "1.20 [1.10, 1.30]"
    assert row["compiled p50 ms, 1,000 rows"] == "0.12"
    assert row["compiled p50 ratio, 1 row"] == "1.20 [1.10, 1.30]"
    assert table.loc["Cross-Stitch", "rows a second"] == "2,000 (0.50x)"


def test_references_have_a_row_a_model_and_inputs() -> None:
    rows = pd.DataFrame(
        {
            "model": "Gradient boosting",
            "setting": ["user and video features", "all inputs"],
            "test_engagement_auc": [0.7071, 0.75],
            "test_engagement_r2": [0.0931, 0.1],
            "test_satisfaction_auc": [0.8682, 0.9],
        }
    )
    table = reference_table(rows)
    assert list(table.index) == [
        "Gradient boosting, user and video features",
        "Gradient boosting, all inputs",
    ]
    assert table.iloc[0].tolist() == ["0.7071", "0.0931", "0.8682"]


# --- claims -----------------------------------------------------------------------------------------


def test_claim_10_on_the_papers_own_numbers_where_seeds_agree() -> None:
    """Runs of one seed differ by 0.01 points here: what matters in table 3 supports, what is smaller is open."""
    claim = claim_10(study(papers_scores()))
    assert len(claim.comparisons) == 2 * 2 * 3 * 5
    for comparison in claim.comparisons:
        assert comparison.estimate == pytest.approx(comparison.paper)
        clear = abs(comparison.paper - 0.1) > 1e-9
        assert not clear or comparison.word == ("supports" if comparison.paper > 0.1 else "open")
        assert comparison.of_paper == pytest.approx(1)
    assert claim.verdict == "open"
    assert claim.headline_comparison.note == "the paper's own is smaller"  # 0.08 points
    assert claim.comparisons[0].what == "SGD, AUC after 1/3: MMoE minus Shared-Bottom"
    assert claim.comparisons[0].paper == pytest.approx(0.15)  # 0.6894 - 0.6879 in points
    (below,) = (
        c for c in claim.comparisons if c.what == "Adam, R2 after 3/3: Shared-Bottom minus L2-Constrained"
    )
    assert below.paper == pytest.approx(0.074)
    assert (claim.runs, claim.diverged, claim.died, claim.of_runs) == (12, 0, 0, 120)


def test_claim_10_is_contradicted_where_methods_are_alike_or_in_the_other_order() -> None:
    alike = claim_10(study())
    assert alike.verdict == "contradicted"
    assert alike.count("contradicts") == 60
    scores = papers_scores()
    turned = {
        model: {name: 2 * scores["OMoE"][name] - value for name, value in columns.items()}
        for model, columns in scores.items()
    }
    found = claim_10(study(turned))
    assert found.verdict == "contradicted"
    for comparison in found.comparisons:
        assert comparison.estimate == pytest.approx(-comparison.paper)
        assert (comparison.word == "contradicts") == (comparison.paper > 0)


def test_the_order_of_the_rows_is_the_unit_of_claim_10() -> None:
    """Ten seeds in each of two orders, which pull in opposite directions: the mean says nothing of a third order."""
    rows = study({"MMoE": {AUC: 0.71}}, number=20)
    rows["order"] = rows["seed"] % 2
    of_mmoe = rows["model"] == "MMoE"
    steady = claim_10(rows).headline_comparison
    assert steady.word == "supports"
    assert steady.estimate == pytest.approx(1.0, abs=0.01)
    rows.loc[of_mmoe, AUC] += 0.02 * (rows.loc[of_mmoe, "order"] - 0.5)
    split = claim_10(rows).headline_comparison
    assert split.estimate == pytest.approx(steady.estimate, abs=1e-3)
    # two means, 1 point to either side: Student's t of one degree of freedom is 12.7
    assert split.high - split.estimate == pytest.approx(stats.t.ppf(0.975, 1) * 1.0, abs=0.1)
    assert split.word == "open"
    assert (
        claim_10(rows.drop(columns="order")).headline_comparison.word == "supports"
    )  # if seeds were the unit
    assert "order of the rows" in claim_10(rows).statistic


def test_a_ranker_that_died_is_a_rate_and_in_no_mean() -> None:
    rows = study()
    row = (rows["model"] == "MMoE") & (rows["setting"] == "SGD") & (rows["seed"] == 3)
    rows.loc[row, "test_satisfaction_auc_3"] = 0.5  # the other task alone
    claim = claim_10(rows)
    assert (claim.died, claim.runs) == (1, 11)
    assert ranker_died(rows).sum() == 1
    assert claim_11(rows).runs == 11


def test_claim_11_asks_whether_a_gate_concentrates_and_whether_more_than_the_other() -> None:
    more = ((0.4, 0.2, 0.2, 0.2), (0.7, 0.1, 0.1, 0.1))
    rows = pd.concat(
        [runs("MMoE", "SGD", gates=more, number=8), runs("MMoE", "Adam", gates=more[::-1], number=8)],
        ignore_index=True,
    )
    claim = claim_11(rows)
    assert [c.estimate for c in claim.comparisons] == pytest.approx([0.45, 0.3, 0.15, -0.3])
    assert [c.word for c in claim.comparisons] == ["supports", "supports", "contradicts", "contradicts"]
    assert claim.verdict == "supported"
    assert [round(c.paper, 4) for c in claim.comparisons] == [0.5253, 0.3346] * 2  # 0.7753, 0.4407
    rows.loc[0, "diverged_step"] = 4
    assert (claim_11(rows).runs, claim_11(rows).diverged) == (7, 1)
    even = pd.concat([runs("MMoE", "SGD"), runs("MMoE", "Adam")], ignore_index=True)
    assert claim_11(even).verdict == "contradicted"


def test_a_gate_that_hardly_differs_does_not_concentrate() -> None:
    """0.33 against 0.30 of four experts: every run agrees on the sign, and nothing concentrates."""
    gates = ((0.30, 0.24, 0.23, 0.23), (0.33, 0.23, 0.22, 0.22))
    rows = pd.concat([runs("MMoE", name, gates=gates) for name in ("SGD", "Adam")], ignore_index=True)
    claim = claim_11(rows)
    assert all(comparison.low > 0 for comparison in claim.comparisons)
    assert claim.count("contradicts") == 4


def test_claim_12_looks_at_the_whole_interval() -> None:
    claim = claim_12(serving())
    assert claim.verdict == "supported"
    assert claim.runs == 7
    assert len(claim.comparisons) == 15
    by_name = {c.what: c for c in claim.comparisons}
    added = by_name["multiply-adds: MMoE's over Shared-Bottom's"]
    assert (added.estimate, added.low, added.high) == pytest.approx((1.1, 1.1, 1.1))
    assert np.isnan(added.paper)
    assert by_name["p50 at 1 row: Cross-Stitch's over Shared-Bottom's"].paper == 2
    assert "1.25" in claim.statistic
    assert "1.75 to 2.25" in claim.statistic
    wide = claim_12(
        serving(MMoE=(1.1, 1.0, 1.3), L2_Constrained=(2.0, 1.7, 2.1), Cross_Stitch=(2.0, 1.9, 2.3))
    )
    assert {c.what for c in wide.comparisons if c.supports} == {
        f"multiply-adds: {model}'s over Shared-Bottom's"
        for model in ("MMoE", "L2-Constrained", "Cross-Stitch")
    }
    assert wide.verdict == "open"
    cheap = claim_12(serving(Cross_Stitch=(1.0, 0.99, 1.01)))
    assert {c.word for c in cheap.comparisons if "p50" in c.what and "Cross" in c.what} == {"contradicts"}


def test_speeds_are_shown_beside_those_of_the_plain_loops() -> None:
    rows = pd.DataFrame(
        {
            "kind": ["plain loop, DataLoader", "ensemble"],
            "runs": [1, 20],
            "rows_per_second": [50_000.0, 300_000.0],
            "ratio": [1.0, 6.0],
            "ratio_low": [1.0, 5.5],
            "ratio_high": [1.0, 6.5],
            "ratio_sliced": [0.8, 4.8],
        }
    )
    table = training_speed_table(rows)
    assert list(table.loc["ensemble, 20 runs"]) == ["300,000", "6.0 [5.5, 6.5]", "4.8"]
    logs = pd.DataFrame(
        {
            "log": ["in memory", "streamed"],
            "rows": [10**6, 10**8],
            "disk_mb": [41.0, 4100.6],
            "per_second": [40_000.0, 39_000.0],
            "ratio": [1.0, 0.975],
            "memory_mb": [500.4, 510.2],
        }
    )
    assert list(streaming_table(logs).loc["streamed"]) == ["100,000,000", "4,101", "39,000", "0.97", "510"]
