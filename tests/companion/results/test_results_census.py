"""Tables 1 and 2 and claim 9, from rows whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion.census_changes import ALPHAS, CHANGES, with_changes
from companion.claims import census_died, claim_9
from companion.results import (
    alpha_table,
    balanced,
    census_best,
    census_order,
    census_paper,
    census_table,
    changes_table,
    clustered_interval,
    cost_table,
    difference_interval,
    exact_rate,
    holm,
    learned,
    mean_interval,
    most_influential,
    paired_superiority,
    pairwise_differences,
    pairwise_table,
    read_paper,
    read_results,
    show_interval,
    stuck_table,
    superiority,
    tucker_table,
)

METHODS = list(read_paper("table1_census_income")["model"])


def runs(means: dict[str, float], group: str = "income", sd: float = 2e-4, number: int = 30) -> pd.DataFrame:
    """Runs of each method around a known mean."""
    generator = np.random.default_rng(0)
    pieces = []
    for model, mean in means.items():
        noise = generator.normal(0, sd, size=(3, number))
        noise -= noise.mean(axis=1, keepdims=True)
        pieces.append(
            pd.DataFrame(
                {
                    "model": model,
                    "setting": group,
                    "seed": range(number),
                    "test_main_auc": mean + noise[0],
                    "validation_main_auc": mean + noise[1],
                    "test_auxiliary_auc": 0.99 + noise[2],
                    "diverged_step": 0,
                }
            )
        )
    return pd.concat(pieces, ignore_index=True)


def papers_order(group: str) -> dict[str, float]:
    means = census_paper(group).set_index("model")["test_main_auc"]
    return {str(model): float(mean) for model, mean in means.items()}


def test_holm_is_the_textbooks_and_keeps_the_order_of_p_values() -> None:
    # Holm's procedure by hand: 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.5 * 1.
    np.testing.assert_allclose(holm([0.03, 0.01, 0.5, 0.02]), [0.06, 0.04, 0.5, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    p_values = np.random.default_rng(0).uniform(size=50)
    corrected = holm(p_values)
    assert (np.diff(corrected[np.argsort(p_values)]) >= 0).all()
    assert ((p_values <= corrected) & (corrected <= np.minimum(1, 50 * p_values))).all()


def test_holm_finds_a_difference_where_there_is_none_in_one_family_of_twenty() -> None:
    generator = np.random.default_rng(1)
    families = generator.uniform(size=(4_000, 21))
    wrong = np.mean([holm(p_values).min() < 0.05 for p_values in families])
    # P(at least one) = 1 - (1 - 0.05 / 21)^21 = 0.0488 for independent tests; four standard errors
    assert wrong == pytest.approx(0.0488, abs=4 * np.sqrt(0.0488 * 0.9512 / 4_000))


def test_the_table_holds_our_mean_and_the_papers() -> None:
    rows = runs({"MMoE": 0.94, "OMoE": 0.93}, number=3)
    table = census_table(rows, "income")
    sample = rows.loc[rows["model"] == "MMoE", "test_main_auc"]
    assert table.loc["MMoE", "runs"] == 3
    assert table.loc["MMoE", "income: all runs"] == show_interval(*mean_interval(sample))
    assert table.loc["MMoE", "income: runs that learned"] == show_interval(*mean_interval(sample))
    assert table.loc["MMoE", "income: sd of these"] == f"{np.std(sample, ddof=1):.4f}"
    assert table.loc["MMoE", "income: paper"] == "0.9359"
    assert table.loc["MMoE", "never married: paper"] == "0.9927"
    with pytest.raises(ValueError, match="no rows of group 'education'"):
        census_table(rows, "education")


def test_a_diverged_run_is_left_out_of_the_mean_and_counted() -> None:
    rows = runs({"MMoE": 0.94}, number=5)
    rows.loc[0, ["test_main_auc", "test_auxiliary_auc"]] = np.nan
    assert census_table(rows, "income").loc["MMoE", "runs"] == 4


def test_a_run_that_learned_nothing_is_in_the_mean_of_all_and_counted() -> None:
    rows = pd.concat(
        [runs({"MMoE": 0.94, "OMoE": 0.93}, number=5), runs({"MMoE": 0.88}, "education", number=5)]
    )
    rows = rows.reset_index(drop=True)
    rows.loc[0, "test_main_auc"] = 0.5
    table = census_table(rows, "income")
    others = rows.loc[1:4, "test_main_auc"]
    assert table.loc["MMoE", "learned nothing"] == 1
    assert table.loc["OMoE", "learned nothing"] == 0
    assert table.loc["MMoE", "income: runs that learned"] == show_interval(*mean_interval(others))
    assert float(str(table.loc["MMoE", "income: all runs"])[:6]) == pytest.approx(
        (0.5 + others.sum()) / 5, abs=1e-4
    )
    assert len(learned(rows)) == len(rows) - 1
    stuck = stuck_table(rows)
    assert stuck.loc["MMoE", "income"] == "1 of 5"
    assert stuck.loc["MMoE", "education"] == "0 of 5"
    assert stuck.loc["MMoE", "both (%)"] == "10.0 [1.8, 40.4]"  # Wilson's interval of 1 in 10


def test_the_best_run_is_chosen_on_validation_and_shown_beside_the_one_chosen_on_test() -> None:
    rows = pd.DataFrame(
        {
            "model": "MMoE",
            "setting": "income",
            "validation_main_auc": [0.95, 0.94],
            "test_main_auc": [0.941, 0.943],
            "test_auxiliary_auc": [0.991, 0.992],
        }
    )
    best = census_best(rows, "income").loc["MMoE"]
    assert best["income: chosen on validation"] == "0.9410"
    assert best["never married: chosen on validation"] == "0.9910"
    assert best["income: chosen on test"] == "0.9430"
    assert best["income: paper"] == "0.9410"  # table 1
    assert best["never married: paper"] == "0.9926"


def test_pairs_are_in_points_signed_and_corrected() -> None:
    rows = runs({"Single-Task": 0.940, "OMoE": 0.9405, "MMoE": 0.9405})
    pairs = pairwise_differences(rows, "income").set_index(["first", "second"])
    assert len(pairs) == 3
    samples = [100 * rows.loc[rows["model"] == model, "test_main_auc"] for model in ("Single-Task", "OMoE")]
    pair = pairs.loc[[("Single-Task", "OMoE")]].iloc[0]
    assert tuple(pair[["points", "low", "high"]]) == pytest.approx(difference_interval(*samples))
    assert pair["points"] == pytest.approx(-0.05)
    raw = [
        stats.ttest_ind(
            *(rows.loc[rows["model"] == model, "test_main_auc"] for model in names), equal_var=False
        ).pvalue
        for names in pairs.index
    ]
    np.testing.assert_allclose(pairs["p_value"], holm(raw))
    square = pairwise_table(pairs.reset_index())
    assert square.loc["Single-Task", "OMoE"] == "-0.05*"
    assert square.loc["OMoE", "Single-Task"] == "+0.05*"
    assert not str(square.loc["OMoE", "MMoE"]).endswith("*")


def test_order_is_sure_where_means_lie_apart_and_open_where_they_do_not() -> None:
    rows = runs({"Single-Task": 0.940, "OMoE": 0.945, "MMoE": 0.945, "Shared-Bottom": 0.930})
    order = census_order(rows, "income", resamples=2_000)
    assert set(order.index[:2]) == {"OMoE", "MMoE"}
    assert tuple(order.loc["Shared-Bottom", ["low", "high"]]) == (4, 4)
    assert tuple(order.loc["Single-Task", ["low", "high"]]) == (3, 3)
    for model in ("OMoE", "MMoE"):  # two equal means: each is first in half of the resamples
        assert tuple(order.loc[model, ["low", "high"]]) == (1, 2)
        assert order.loc[model, "first"] == pytest.approx(50, abs=5)
    assert order.loc["MMoE", "rank in the paper"] == 2  # 0.9359, as L2-Constrained's, behind Cross-Stitch
    assert order["first"].sum() == pytest.approx(100, abs=0.2)


def test_changes_are_points_against_the_study_by_method() -> None:
    rows = pd.DataFrame(
        {
            "model": ["MMoE"] * 9,
            "group": "income",
            "setting": ["income: as in the study"] * 3
            + ["income: batch 256"] * 3
            + ["income: numbers unscaled"] * 3,
            "test_main_auc": [0.940, 0.941, 0.942, 0.950, 0.951, 0.952, np.nan, 0.5, np.nan],
        }
    )
    changes = changes_table(with_changes(rows), "income").set_index("change")
    expected = difference_interval([95.0, 95.1, 95.2], [94.0, 94.1, 94.2])
    assert tuple(changes.loc["batch 256", ["points", "low", "high"]]) == pytest.approx(expected)
    assert changes.loc["numbers unscaled", "diverged"] == 2
    assert changes.loc[["numbers unscaled"], "points"].isna().all()


def test_every_stored_setting_is_one_of_the_changes_and_no_other_is_read() -> None:
    names = [change.setting for change in CHANGES]
    assert len(names) == len(set(names))
    for name in ("census_choices", "census_tucker"):
        rows = read_results(name)
        assert (rows["setting"] == rows["group"] + ": " + rows["change"]).all()
    pulled = read_results("census_choices").dropna(subset=["alpha"])
    assert set(pulled["alpha"]) == set(ALPHAS)
    assert set(pulled["model"]) == {"L2-Constrained"}
    with pytest.raises(ValueError, match="setting is 'income: batch 7', expected one of"):
        with_changes(pd.DataFrame({"setting": ["income: batch 256", "income: batch 7"]}))


def test_tucker_table_shows_mean_and_range_of_both_groups() -> None:
    rows = pd.DataFrame(
        {
            "group": ["income"] * 2 + ["education"] * 2,
            "setting": ["income: r1 = 1"] * 2 + ["education: r1 = 1"] * 2,
            "test_main_auc": [0.7, 0.9, 0.6, 0.6],
            "test_auxiliary_auc": [0.8, 0.8, 0.9, 0.9],
        }
    )
    table = tucker_table(with_changes(rows))
    assert table.loc["r1 = 1", "income"] == "0.8000 (0.7000 to 0.9000)"
    assert table.loc["r1 = 1", "never married (education)"] == "0.9000 (0.9000 to 0.9000)"


def test_claim_9_on_the_papers_own_means() -> None:
    """What matters in its tables supports the claim; on income Cross-Stitch lies above MMoE, which contradicts it."""
    rows = pd.concat([runs(papers_order(group), group, sd=1e-5) for group in ("income", "education")])
    claim = claim_9(rows)
    assert claim.verdict == "supported"
    assert len(claim.comparisons) == 2 * (6 + 3 + 1)
    for comparison in claim.comparisons:
        assert comparison.estimate == pytest.approx(comparison.paper, abs=1e-6)
        matters = 1.0 if "Tensor" in comparison.what and "other" in comparison.what else 0.1
        assert abs(comparison.paper - matters) < 1e-6 or comparison.supports == (comparison.paper > matters)
    assert {c.what for c in claim.comparisons if c.word == "contradicts"} == {
        "income: MMoE minus Cross-Stitch"  # -0.02 points
    }


def test_claim_9_in_the_other_order_and_where_methods_are_alike() -> None:
    order = ["MMoE", "Cross-Stitch", "L2-Constrained", "OMoE", "Single-Task", "Shared-Bottom"]
    means = {model: 0.95 - 0.002 * place for place, model in enumerate(order)} | {"Tensor-Factorization": 0.7}
    rows = pd.concat([runs(means, group) for group in ("income", "education")])
    claim = claim_9(rows)
    assert (claim.verdict, claim.counts) == ("supported", "20 for, 0 against, 0 open")
    assert claim.headline_comparison.ranks == (1.0, 1.0, 1.0)
    turned = dict(zip(means, reversed(means.values()), strict=True))
    rows = pd.concat([runs(turned, group) for group in ("income", "education")])
    found = claim_9(rows)
    assert (found.verdict, found.count("supports")) == ("contradicted", 0)
    assert found.headline_comparison.ranks == (0.0, 0.0, 0.0)
    alike = dict.fromkeys(METHODS, 0.94)
    rows = pd.concat([runs(alike, group) for group in ("income", "education")])
    assert claim_9(rows).verdict == "contradicted"  # 30 runs show that nothing that matters lies between them
    assert claim_9(rows).runs == 30


def test_a_run_that_died_is_a_rate_and_a_rank_and_decides_nothing() -> None:
    means = dict.fromkeys(METHODS, 0.94) | {"MMoE": 0.945}
    rows = pd.concat([runs(means, group) for group in ("income", "education")], ignore_index=True)
    before = claim_9(rows).headline_comparison
    rows.loc[
        (rows["model"] == "MMoE") & (rows["setting"] == "income") & (rows["seed"] == 3), "test_main_auc"
    ] = 0.5
    rows.loc[
        (rows["model"] == "MMoE") & (rows["setting"] == "income") & (rows["seed"] == 4), "test_auxiliary_auc"
    ] = 0.5
    claim = claim_9(rows)
    after = claim.headline_comparison
    assert (claim.died, claim.of_runs) == (2, 2 * 7 * 30)
    assert (before.word, after.word) == ("supports", "supports")
    assert after.estimate == pytest.approx(before.estimate, abs=0.01)  # with the dead run it would be -0.98
    assert before.ranks is not None
    assert after.ranks is not None
    assert before.ranks[0] == 1
    assert after.ranks[0] == pytest.approx(29 / 30)
    assert census_died(rows).sum() == 2


def test_claim_9_needs_every_method() -> None:
    rows = pd.concat([runs(papers_order("income")), runs({"MMoE": 0.88}, "education")])
    with pytest.raises(ValueError, match="expected some of every method"):
        claim_9(rows)
    rows = pd.concat([runs(papers_order(group), group) for group in ("income", "education")])
    rows.loc[rows["model"] == "OMoE", "test_main_auc"] = 0.5
    with pytest.raises(ValueError, match="fewer than two runs of OMoE, income, learned both tasks"):
        claim_9(rows)


def test_cost_table_divides_the_steps_of_a_run_by_the_speed() -> None:
    benchmark = pd.DataFrame(
        {
            "kind": ["plain loop", "ensemble, eager", "inference", "inference"],
            "model": "MMoE",
            "batch": [1024, 1024, 1, 4096],
            "per_second": [50.0, 200.0, 1.0, 1.0],
            "peak_share": [0.1, 0.5, np.nan, np.nan],
            "p50_ms": [1.0, 1.0, 0.25, 8.0],
        }
    )
    row = cost_table(benchmark, {"MMoE": 1_000}).loc["MMoE"]
    assert list(row) == ["20.0", "5.0", "4.0", "0.50", "0.250", "8.0"]


def test_alpha_table_has_a_row_an_alpha_and_a_column_a_group() -> None:
    rows = pd.DataFrame(
        {
            "group": ["income"] * 4 + ["education"] * 2 + ["income"],
            "setting": ["income: alpha = 0"] * 2 + ["income: alpha = 1e-05"] * 2 + ["education: alpha = 0"] * 2
            + ["income: batch 256"],
            "test_main_auc": [0.940, 0.942, 0.943, 0.943, 0.89, 0.88, 0.1],
        }
    )  # fmt: skip
    table = alpha_table(with_changes(rows))
    assert list(table.index) == ["0", "1e-05"]
    assert table.loc["0", "income"] == show_interval(*mean_interval([0.940, 0.942]))
    assert table.loc["0", "education"] == show_interval(*mean_interval([0.89, 0.88]))


def test_balanced_keeps_the_seeds_that_every_method_has_on_every_group() -> None:
    rows = pd.DataFrame(
        [
            (model, group, seed)
            for model, seeds in (("MMoE", range(4)), ("OMoE", range(3)))
            for group in ("income", "education")
            for seed in seeds
            if (model, group, seed) != ("OMoE", "income", 1)
        ],
        columns=["model", "setting", "seed"],
    )
    kept = balanced(rows)
    assert sorted(set(kept["seed"])) == [0, 2]
    assert len(kept) == 2 * 2 * 2


def test_superiority_is_mann_and_whitneys_u_and_covers_the_truth() -> None:
    generator = np.random.default_rng(4)
    first, second = generator.normal(0.5, 1, 60), np.round(generator.normal(0, 2, 40), 1)
    probability, low, high = superiority(first, second)
    assert probability == pytest.approx(stats.mannwhitneyu(first, second).statistic / (60 * 40))
    assert low < probability < high
    turned = superiority(second, first)
    assert turned == pytest.approx((1 - probability, 1 - high, 1 - low))
    truth = stats.norm.cdf(0.5 / np.sqrt(5))
    inside = 0
    for _ in range(400):
        _, low, high = superiority(generator.normal(0.5, 1, 40), generator.normal(0, 2, 40))
        inside += low <= truth <= high
    assert 0.91 < inside / 400 < 0.985
    assert superiority([1.0, np.inf], [0.0, -np.inf]) == (1, 1, 1)
    with pytest.raises(ValueError, match="one run has no spread"):
        superiority([1.0], [1.0, 2.0])


def test_shares_have_clopper_and_pearsons_interval() -> None:
    share, low, high = exact_rate(4, 1200)
    assert share == pytest.approx(4 / 1200)
    # its ends by their definition: the rates under which as many, or as few, come with 2.5 %
    assert stats.binom.sf(3, 1200, low) == pytest.approx(0.025)
    assert stats.binom.cdf(4, 1200, high) == pytest.approx(0.025)
    assert exact_rate(0, 10)[:2] == (0, 0)
    assert paired_superiority([3.0, 2.0, np.inf, 1.0], [1.0, 3.0, 5.0, 1.0]) == exact_rate(2, 3)
    assert paired_superiority([1.0, 2.0], [1.0, 2.0]) == (0.5, 0.0, 1.0)
    with pytest.raises(ValueError, match="a rate needs runs"):
        exact_rate(0, 0)
    with pytest.raises(ValueError, match="two rows of as many numbers"):
        paired_superiority([1.0, np.nan], [1.0, 2.0])


def test_clusters_are_the_unit_where_there_are_some() -> None:
    generator = np.random.default_rng(5)
    inside = {"clusters": 0, "runs": 0}
    for _ in range(300):
        clusters = np.repeat(np.arange(4), 5)
        values = generator.normal(0, 1, 4)[clusters] + generator.normal(0, 0.3, 20)
        mean, low, high = clustered_interval(values, clusters)
        assert low <= mean <= high
        inside["clusters"] += low <= 0 <= high
        _, low, high = mean_interval(values)
        inside["runs"] += low <= 0 <= high
    assert inside["clusters"] > 0.92 * 300
    assert inside["runs"] < 0.75 * 300  # what one gets who takes runs for the unit
    assert clustered_interval(values, np.arange(20)) == mean_interval(values)
    assert clustered_interval(values, np.zeros(20)) == mean_interval(values)
    with pytest.raises(ValueError, match="name each value's cluster"):
        clustered_interval(values, clusters[:-1])


def test_the_most_influential_rows_are_those_without_which_a_statistic_moves_most() -> None:
    values = np.array([1.0, 2.0, 30.0, 3.0, -20.0, 2.5])
    assert most_influential(lambda a: a.mean(axis=-1), values) == [2, 4]
