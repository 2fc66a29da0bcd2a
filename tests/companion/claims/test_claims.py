"""Verdicts: of runs whose answer is known, and of the numbers of the paper's own figures."""

import numpy as np
import pandas as pd
import pytest

from companion.claims import (
    BY_THEOREM,
    Claim,
    Comparison,
    Larger,
    Runs,
    claim_1,
    claim_2,
    claim_3,
    claim_4,
    claim_5,
    claim_6,
    claim_7,
    claim_8,
    claims_table,
    comparisons_table,
    died,
    larger,
    same,
    synthetic_claims,
)
from companion.claims.synthetic import trimmed_deviation
from companion.claims.verdict import LOSS
from companion.results import histogram_runs, paper_losses, read_paper

MODELS = ("Shared-Bottom-16", "Shared-Bottom", "OMoE", "MMoE")
PAPER = paper_losses()
PAPER_RUNS = histogram_runs(read_paper("figure5_final_loss_histogram"))
SPREADS = {setting: float(runs.std()) for setting, runs in PAPER_RUNS.items()}


def rows(
    means: dict[tuple[str, float], float] | None = None,
    spreads: dict[tuple[str, float], float] | None = None,
    runs: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Runs with given means and standard deviations; 0.2 and 0.02 unless told otherwise.

    As in the study, the runs of a seed share some of their luck.
    """
    random = np.random.default_rng(seed)
    luck = random.standard_normal(runs)
    pieces = []
    for model in MODELS:
        for p in (0.5, 0.9, 1.0):
            noise = (luck + random.standard_normal(runs)) / np.sqrt(2)
            noise = (noise - noise.mean()) / noise.std()
            losses = (means or {}).get((model, p), 0.2) + (spreads or {}).get((model, p), 0.02) * noise
            pieces.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "task_correlation": p,
                        "seed": range(runs),
                        "diverged_step": 0,
                        "loss_1": losses,
                        "loss_2": losses[::-1],  # the second task's luck is another seed's
                    }
                )
            )
    return pd.concat(pieces, ignore_index=True)


LIKE_THE_PAPER = rows(PAPER, {**SPREADS, **{("Shared-Bottom-16", p): 0.1 for p in (0.5, 0.9, 1.0)}}, runs=200)


def words(claim: Claim) -> list[str]:
    return [comparison.word for comparison in claim.comparisons]


def test_the_papers_own_means_and_spreads_give_its_claims_back() -> None:
    """200 runs with the means and spreads of its figures: what its text says must come out, and nothing against it."""
    found = {claim.number: claim for claim in synthetic_claims(LIKE_THE_PAPER, PAPER, PAPER_RUNS)}
    assert found[1].verdict == found[3].verdict == found[4].verdict == found[5].verdict == "supported"
    # of its nine differences five are as small as nothing: MMoE's 0.083 against 0.070 is the headline
    assert found[2].verdict == "open"
    assert "the paper's own is smaller" in found[2].headline_comparison.note
    for number in (1, 2, 3, 4):
        assert "contradicts" not in words(found[number])
        for comparison in found[number].comparisons:
            assert comparison.estimate == pytest.approx(comparison.paper, abs=1e-9)
            if comparison.paper > 0 and not np.isnan(comparison.of_paper):
                assert comparison.of_paper == pytest.approx(1)


def test_equal_models_contradict_a_difference_and_support_an_equality() -> None:
    same_runs = rows()
    for claim in (claim_1, claim_4):
        found = claim(same_runs, PAPER)
        assert found.verdict == "contradicted"
        assert set(words(found)) == {"contradicts"}
        assert all(comparison.low < 0 < comparison.high for comparison in found.comparisons)
    # where the paper's own difference is as small as our interval is wide, equal models leave it open
    assert words(claim_2(same_runs, PAPER))[6:] == ["open", "contradicts", "contradicts"]
    assert words(claim_3(same_runs, PAPER)) == ["contradicts", "contradicts", "supports"]
    assert words(claim_7(same_runs, {})) == ["supports"] * 3


def test_a_difference_in_the_other_direction_contradicts() -> None:
    upside_down = rows(
        {("Shared-Bottom-16", 0.5): 0.1, ("Shared-Bottom-16", 0.9): 0.2, ("Shared-Bottom-16", 1.0): 0.3}
    )
    claim = claim_1(upside_down, PAPER)
    assert claim.verdict == "contradicted"
    assert [round(c.estimate, 3) for c in claim.comparisons] == [-0.1, -0.1, -0.2]
    assert all(c.high < 0 for c in claim.comparisons)


def test_the_headline_alone_gives_the_claim_its_word() -> None:
    falls = {("MMoE", 0.5): 0.3, ("MMoE", 0.9): 0.2, ("MMoE", 1.0): 0.1}
    claim = claim_2(rows(falls), PAPER)
    assert (claim.verdict, claim.headline) == ("supported", "MMoE: loss at p = 0.5 minus at p = 1")
    assert [c.supports for c in claim.comparisons] == [False] * 6 + [True] * 3
    assert claim.counts == "3 for, 6 against, 0 open"
    assert claim.headline_comparison.estimate == pytest.approx(0.2)


def test_gaps_are_compared_with_mmoes() -> None:
    means = {("OMoE", 0.5): 0.3, ("Shared-Bottom", 0.5): 0.4, ("MMoE", 0.5): 0.25}
    claim = claim_3(rows(means), PAPER)
    omoe, shared, _ = claim.comparisons
    assert [omoe.estimate, shared.estimate] == pytest.approx([0.05, 0.15])
    assert words(claim) == ["supports"] * 3
    apart = claim_3(rows({**means, ("MMoE", 1.0): 0.25}), PAPER).comparisons[2]
    assert apart.word == "contradicts"  # 0.05 is more than a bin of figure 5
    # paper: (0.146 - 0.078) - (0.083 - 0.070)
    assert omoe.paper == pytest.approx(
        PAPER["OMoE", 0.5] - PAPER["OMoE", 1.0] - PAPER["MMoE", 0.5] + PAPER["MMoE", 1.0]
    )


@pytest.mark.parametrize("side", [-1, 1])
def test_agreement_needs_the_whole_interval_within_a_bin(side: int) -> None:
    """A gap whose interval reaches over the edge of the bin leaves open whether the two agree."""
    agreement = claim_3(rows({("MMoE", 1.0): 0.2 + side * LOSS}), PAPER).comparisons[2]
    assert agreement.low < -side * LOSS < agreement.high
    assert max(abs(agreement.low), abs(agreement.high)) < 1.5 * LOSS
    assert agreement.word == "open"


def test_an_estimate_lies_in_its_interval() -> None:
    Comparison("a", 1.0, 1.0, 1.0, larger("loss"), ranks=(0.5, 0.5, 0.5))
    for low, high in ((1.1, 2.0), (0.0, 0.9), (2.0, 0.0), (np.nan, 2.0)):
        with pytest.raises(
            ValueError, match=r"a: estimate 1\.0 .* expected low <= estimate <= high"
        ) as caught:
            Comparison("a", 1.0, low, high, larger("loss"))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"a: estimate 0\.5 with the interval 0\.6"):
        Comparison("a", 1.0, 0.0, 2.0, larger("loss"), ranks=(0.5, 0.6, 0.7))


def test_spreads_are_ratios_of_trimmed_deviations_of_both_tasks() -> None:
    wide = rows(spreads={("Shared-Bottom", p): 0.06 for p in (0.5, 0.9, 1.0)})
    claim = claim_5(wide, PAPER_RUNS)
    assert claim.verdict == "supported"
    assert set(words(claim)) == {"supports"}
    for comparison in claim.comparisons:
        assert comparison.estimate == pytest.approx(3, rel=0.2)
        assert 2 < comparison.low < 3 < comparison.high < 4.5
    by_deviation = [c for c in claim.beside if c.what.endswith("standard deviation")]
    assert [c.estimate for c in by_deviation] == pytest.approx([3] * 6)
    assert len(claim.beside) == 12
    narrow = rows(spreads={("OMoE", 0.5): 0.05})
    at_one, at_half = claim_6(narrow, PAPER_RUNS).comparisons
    assert at_half.supports
    assert at_half.paper == pytest.approx(
        float(trimmed_deviation(PAPER_RUNS["OMoE", 0.5]) / trimmed_deviation(PAPER_RUNS["MMoE", 0.5]))
    )
    # 100 runs leave a ratio of two spreads open to a quarter either way: nothing is shown, so nothing is supported
    assert at_one.low < 0.8 or at_one.high > 1.25 or at_one.supports


def test_no_run_decides_a_spread() -> None:
    """One run far off moves a standard deviation sixfold; the trimmed one and the word stay."""
    table = rows(runs=200)
    before = claim_6(table, PAPER_RUNS)
    row = table.index[(table["model"] == "OMoE") & (table["task_correlation"] == 0.5)][3]
    table.loc[row, "loss_1"] = 0.99  # learned, just so
    after = claim_6(table, PAPER_RUNS)
    assert words(after) == words(before)
    assert after.comparisons[1].estimate == pytest.approx(before.comparisons[1].estimate, rel=0.05)
    assert next(c.estimate for c in after.beside if "p = 0.5" in c.what and "deviation" in c.what) > 1.5


def test_a_trimmed_deviation_leaves_out_a_twentieth_at_either_end() -> None:
    losses = np.array([*range(1, 19), 100.0, -100.0])
    assert float(trimmed_deviation(losses)) == pytest.approx(np.arange(1, 19).std())
    assert trimmed_deviation(np.stack([losses, 2 * losses])).tolist() == pytest.approx(
        [np.arange(1, 19).std(), 2 * np.arange(1, 19).std()]
    )


def test_the_lowest_losses_are_those_of_the_best_runs() -> None:
    table = rows()
    bad_runs = (table["model"] == "Shared-Bottom") & (table["seed"] % 4 > 0)
    table.loc[bad_runs, ["loss_1", "loss_2"]] += 0.5  # most runs are bad, the best are not
    assert set(words(claim_7(table, PAPER_RUNS))) == {"supports"}
    assert claim_7(table, PAPER_RUNS).comparisons[0].paper == pytest.approx(0.0767 - 0.0467, abs=1e-3)
    table.loc[table["model"] == "Shared-Bottom", ["loss_1", "loss_2"]] += 0.1
    claim = claim_7(table, {})
    assert claim.verdict == "contradicted"
    assert all(comparison.estimate > 0.08 for comparison in claim.comparisons)


def test_label_correlations_of_neighbouring_cosines_rise_by_theorem() -> None:
    random = np.random.default_rng(0)
    luck = 0.05 * random.standard_normal(50)  # of a trial, the same at every cosine
    samples = {p: list(p**4 + luck + 0.001 * random.standard_normal(50)) for p in (0.4, 0.5, 0.9)}
    claim = claim_8(samples, {0.4: 0.05, 0.5: 0.07, 0.9: 0.3})
    assert (claim.verdict, words(claim)) == (BY_THEOREM, ["supports"] * 2)
    assert "theorem" in claim.statistic
    first = claim.comparisons[0]
    assert first.estimate == pytest.approx(0.5**4 - 0.4**4, abs=0.001)
    assert first.high - first.low < 0.002  # pairs of trials, or it would be twenty times as wide
    assert claim.comparisons[1].paper == pytest.approx(0.23)
    turned = claim_8({0.4: samples[0.5], 0.5: samples[0.4]}, {})
    assert turned.verdict == "contradicted"  # then our own sampling would be wrong


def test_the_papers_histogram_holds_200_runs_a_panel_with_the_means_of_figure_4() -> None:
    assert {len(runs) for runs in PAPER_RUNS.values()} == {200}
    for setting, runs in PAPER_RUNS.items():
        assert float(runs.mean()) == pytest.approx(PAPER[setting], abs=0.005)


def test_a_changed_result_changes_the_verdict() -> None:
    table = LIKE_THE_PAPER.copy()
    assert claim_4(table, PAPER).verdict == "supported"
    table.loc[(table["model"] == "MMoE") & (table["task_correlation"] == 0.5), ["loss_1", "loss_2"]] += 0.3
    changed = claim_4(table, PAPER)
    assert changed.verdict == "contradicted"
    assert changed.counts == "5 for, 1 against, 0 open"


def test_both_tasks_count() -> None:
    table = LIKE_THE_PAPER.copy()
    table["loss_2"] = 0.2  # the second task knows no difference: half of every effect is gone
    before, after = claim_4(LIKE_THE_PAPER, PAPER), claim_4(table, PAPER)
    for one, other in zip(before.comparisons, after.comparisons, strict=True):
        assert other.estimate == pytest.approx(one.estimate / 2, abs=1e-9)


@pytest.mark.parametrize("task", ["loss_1", "loss_2"])
def test_a_run_that_died_is_a_rate_and_a_rank_and_in_no_mean(task: str) -> None:
    table = rows({("Shared-Bottom", p): 0.3 for p in (0.5, 0.9, 1.0)})
    whole = claim_4(table, PAPER)
    row = table.index[(table["model"] == "MMoE") & (table["task_correlation"] == 0.5) & (table["seed"] == 7)]
    table.loc[row, task] = 1.7
    assert died(table).sum() == 1
    claim = claim_4(table, PAPER)
    assert (claim.died, claim.of_runs, claim.diverged) == (1, 900, 0)
    assert claim.died_text == "1 of 900: 0.1 [0.0, 0.6] %"
    half = next(c for c in claim.comparisons if c.what == "p = 0.5: Shared-Bottom's loss minus MMoE's")
    before = next(c for c in whole.comparisons if c.what == half.what)
    assert half.estimate == pytest.approx(before.estimate, abs=0.001)  # 1.7 alone would move it by 0.008
    assert before.ranks is not None
    assert half.ranks is not None
    assert half.ranks[0] == pytest.approx(before.ranks[0] - 0.01)
    # of all other comparisons the seed is still a part
    others = [
        (c, d) for c, d in zip(claim.comparisons, whole.comparisons, strict=True) if c.what != half.what
    ]
    assert all(c == d for c, d in others)


def test_a_diverged_run_died_and_its_seed_stays_in_other_settings() -> None:
    table = rows()
    row = table.index[(table["model"] == "MMoE") & (table["task_correlation"] == 1) & (table["seed"] == 7)][0]
    table.loc[row, ["diverged_step", "loss_1", "loss_2"]] = [12, np.nan, np.nan]
    runs = Runs.of(table)
    assert (len(runs), runs.diverged, runs.died) == (100, 1, 1)
    assert runs.learned(("MMoE", 1.0)).sum() == 99
    assert runs.learned(("MMoE", 0.5), ("OMoE", 1.0)).all()
    claim = claim_4(table, PAPER)
    assert (claim.runs, claim.diverged, claim.died) == (100, 1, 1)
    assert claims_table([claim])["runs that died"].str.startswith("1 of 900: ").all()
    assert claim_3(table, PAPER).comparisons[0].ranks is not None


def test_a_study_that_is_not_finished_has_no_verdict() -> None:
    table = rows()
    with pytest.raises(ValueError, match=r"no runs of \('MMoE', 1\.0\)"):
        Runs.of(table[(table["model"] != "MMoE") | (table["task_correlation"] != 1)])
    with pytest.raises(ValueError, match="expected the same seeds of each: finish the study"):
        claim_2(table.drop(index=table.index[-1]), PAPER)
    with pytest.raises(ValueError, match="expected the same seeds"):
        claim_2(table.assign(seed=[*table["seed"][:-1], 1000]), PAPER)


def test_tables_show_what_was_found() -> None:
    claim = Claim(
        9,
        "s",
        "t",
        (
            Comparison("a", 0.1, 0.05, 0.2, larger("loss"), 0.2, (0.75, 0.7, 0.8)),
            Comparison("b", 0, -1, 1, same("loss")),
            Comparison("c", 0.04, 0.03, 0.05, Larger(0.035), 0.01, one_run_decides=True),
        ),
        5,
        died=1,
        of_runs=10,
        beside=(Comparison("d", -0.1, -0.2, 0.01, larger("loss")),),
    )
    assert claim.verdict == "supported"
    table = comparisons_table(claim)
    assert table.to_numpy().tolist() == [
        ["0.100 [0.050, 0.200]", "0.200", "0.50", "0.033", "supports", "75 [70, 80]"],
        ["0.000 [-1.000, 1.000]", "", "", "-0.033 to 0.033", "open", ""],
        [
            "0.040 [0.030, 0.050]",
            "0.010",
            "4.00",
            "0.035",
            "open (the paper's own is smaller; one run decides)",
            "",
        ],
        ["-0.100 [-0.200, 0.010]", "", "", "0.033", "contradicts", ""],
    ]
    assert table.index[-1] == "beside, not counted: d"
    assert claims_table([claim]).to_numpy().tolist() == [
        ["s", "supported", "1 for, 0 against, 2 open", "0.50", 5, "1 of 10: 10.0 [0.3, 44.5] %"]
    ]
