"""The rule of a comparison: each word by hand, and what must be true of any interval."""

import re

import numpy as np
import pytest

from companion.claims import (
    CONTRADICTS,
    MARGINS,
    OPEN,
    SUPPORTS,
    Claim,
    Comparison,
    Larger,
    Within,
    larger,
    margins_markdown,
    same,
)
from companion.claims.comparing import of_clusters, of_means, of_pairs, of_samples
from companion.claims.verdict import TIMING_NOISE
from companion.results import read_results, serving_row

RATIO = Larger(1.25, nothing=1.0)


@pytest.mark.parametrize(
    ("estimate", "low", "high", "word"),
    [
        (0.15, 0.05, 0.25, SUPPORTS),
        (0.10, 0.05, 0.15, SUPPORTS),  # it reaches what matters
        (0.09, 0.05, 0.15, OPEN),  # it may matter or not
        (0.15, -0.01, 0.30, OPEN),  # it may be nothing
        (0.05, 0.02, 0.08, CONTRADICTS),  # there, and too small to matter
        (0.00, -0.05, 0.05, CONTRADICTS),
        (-0.2, -0.3, -0.1, CONTRADICTS),  # reversed
        (-0.2, -0.6, 0.2, OPEN),
    ],
)
def test_each_word_of_a_claimed_difference(estimate: float, low: float, high: float, word: str) -> None:
    assert Larger(0.1).word(estimate, low, high) == word
    assert Larger(0.1).word(estimate, low, high, paper=0.5) == word
    # of a ratio, as far from 1 as the other is from 0
    assert Larger(1.1, nothing=1.0).word(1 + estimate, 1 + low, 1 + high) == word


def test_a_rerun_that_finds_the_papers_small_difference_is_no_contradiction() -> None:
    rule = Larger(0.1)
    assert rule.word(0.04, 0.03, 0.05, paper=0.04) == OPEN
    assert rule.word(0.01, 0.00, 0.02, paper=0.04) == CONTRADICTS  # the paper's own is excluded
    assert rule.word(0.01, 0.00, 0.02, paper=-0.04) == OPEN  # its figure goes against its words
    assert rule.word(-0.02, -0.03, -0.01, paper=-0.04) == CONTRADICTS
    assert rule.word(0.2, 0.1, 0.3, paper=0.04) == SUPPORTS
    assert (rule.note(0.04), rule.note(0.4), rule.note(np.nan)) == ("the paper's own is smaller", "", "")


@pytest.mark.parametrize(
    ("estimate", "low", "high", "word"),
    [
        (0.00, -0.05, 0.05, SUPPORTS),
        (0.05, 0.02, 0.08, SUPPORTS),  # a difference that is shown, and is too small to matter
        (0.00, -0.20, 0.20, OPEN),  # holding 0 shows nothing
        (0.09, 0.05, 0.13, OPEN),
        (0.20, 0.11, 0.30, CONTRADICTS),
        (-0.20, -0.30, -0.11, CONTRADICTS),
    ],
)
def test_each_word_of_a_claimed_equality(estimate: float, low: float, high: float, word: str) -> None:
    rule = Within(-0.1, 0.1)
    assert rule.word(estimate, low, high) == word
    assert rule.word(-estimate, -high, -low) == word  # turned round, the same is still the same
    assert (rule.note(0.2), rule.note(0.05), rule.note(np.nan)) == ("the paper's own is outside", "", "")


def test_ratios_that_are_the_same_are_so_either_way_round() -> None:
    rule = same("spread")
    generator = np.random.default_rng(0)
    for low, estimate, high in np.sort(np.exp(generator.normal(0, 0.3, (500, 3))), axis=1):
        assert rule.word(estimate, low, high) == rule.word(1 / estimate, 1 / high, 1 / low)


@pytest.mark.parametrize("rule", [Larger(0.1), Within(-0.1, 0.1), Larger(0.3, nothing=0.1)])
def test_what_must_be_true_of_any_interval(rule: Larger | Within) -> None:
    generator = np.random.default_rng(1)
    seen = set()
    for low, estimate, high in np.sort(generator.normal(0, 0.25, (2_000, 3)), axis=1):
        comparison = Comparison("c", estimate, low, high, rule)
        seen.add(comparison.word)
        assert comparison.low <= comparison.estimate <= comparison.high
        wider = rule.word(estimate, low - 1, high + 1)
        assert wider == OPEN  # who knows less says less
        if isinstance(rule, Larger) and rule.nothing == 0 and comparison.word == SUPPORTS:
            assert (
                rule.word(-estimate, -high, -low) == CONTRADICTS
            )  # the opposite of what supports contradicts
        for paper in generator.normal(0, 0.25, 3):
            if comparison.word == CONTRADICTS and rule.word(estimate, low, high, paper) != CONTRADICTS:
                assert paper < high + 1e-12 or low <= 0  # only a smaller difference in the paper excuses
        if isinstance(rule, Larger):  # the paper's own number is never its contradiction
            assert rule.word(estimate, low, high, paper=estimate) != CONTRADICTS or estimate < rule.nothing
    assert seen == {SUPPORTS, CONTRADICTS, OPEN}


def test_an_end_within_the_noise_of_a_time_that_is_measured_again_leaves_it_open() -> None:
    about, double = same("about", TIMING_NOISE), same("double", TIMING_NOISE)
    assert same("about").word(1.233, 1.224, 1.2498) == SUPPORTS
    assert about.word(1.233, 1.224, 1.2498) == OPEN  # by 0.0002
    assert about.word(1.1, 1.05, 1.2) == SUPPORTS
    assert about.word(0.5, 0.4, 0.6) == SUPPORTS  # cheaper is no more
    assert about.word(1.7, 1.4, 1.9) == CONTRADICTS
    assert double.word(1.765, 1.7502, 1.775) == OPEN
    assert double.word(2.0, 1.9, 2.1) == SUPPORTS
    assert double.word(1.3, 1.25, 1.35) == double.word(4.0, 3.5, 4.5) == CONTRADICTS
    assert (about.shown(2), double.shown(2)) == ("up to 1.25", "1.75 to 2.25")


def test_the_noise_is_what_two_names_of_the_same_networks_differ_by() -> None:
    serving = read_results("benchmark_serving")
    one, other = (serving_row(serving, model) for model in ("Single-Task", "L2-Constrained"))
    assert one["multiply_adds"] == other["multiply_adds"]
    apart = [
        abs(float(one[name] / other[name]) - 1)
        for name in ("ratio_1", "ratio_1000", "compiled_ratio_1", "compiled_ratio_1000")
    ]
    assert max(apart) < TIMING_NOISE < 2 * max(apart)


def test_every_margin_is_printed_with_a_reason() -> None:
    text = margins_markdown()
    for name, margin in MARGINS.items():
        assert len(margin.reason) > 20, name
        assert margin.reason in text
        assert margin.shown in text
    for name in ("loss", "spread", "order", "points", "by far", "gate", "gate gap"):
        (printed, *_) = re.findall(r"[\d.]+", MARGINS[name].shown.split("= ")[-1])
        assert float(printed) == pytest.approx(larger(name).matters, abs=5e-4)
        assert larger(name).margin == name
    assert same("loss").high == pytest.approx(1 / 30)
    assert same("spread").low == pytest.approx(1 / same("spread").high)


def test_one_run_decides_nothing() -> None:
    generator = np.random.default_rng(2)
    steady = 0.02 + 0.02 * generator.standard_normal(100)
    assert of_means("a", steady, Larger(0.1), 0.5).word == CONTRADICTS
    # without the run the interval excludes what matters, with it it does not: nothing is decided either way
    one_off = np.append(steady, 5.0)
    assert of_means("a", one_off, Larger(0.1), 0.5).word == OPEN
    # and where a run alone makes a support, that is open, and said
    edge = np.full(40, 0.0999)
    edge[0] = 0.2  # the mean is above 0.1 through this run only
    decided = of_means("a", edge, Larger(0.1), 0.5)
    assert decided.estimate > 0.1
    assert decided.low > 0
    assert (decided.word, decided.one_run_decides, decided.note) == (OPEN, True, "one run decides")


def test_one_run_decides_nothing_in_samples_clusters_and_ratios() -> None:
    generator = np.random.default_rng(3)
    flat = 0.0999 + 1e-4 * generator.standard_normal(50)
    flat[0] = 0.5
    sample = of_samples(
        "a", flat, np.zeros(50) + 1e-5 * generator.standard_normal(50), Larger(0.1), 1, (flat, flat)
    )
    assert sample.one_run_decides
    orders = np.arange(50) % 10
    assert of_clusters("a", flat, orders, Larger(0.1), 1, None).one_run_decides
    wide, narrow = generator.standard_normal(60), generator.standard_normal(60)
    wide[0] = 30.0

    def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(a.std(axis=-1) / b.std(axis=-1))

    assert (
        of_pairs("a", ratio, (np.delete(wide, 0), np.delete(narrow, 0)), Larger(3.5, 1.0), 5).word
        == CONTRADICTS
    )
    assert of_pairs("a", ratio, (wide, narrow), Larger(3.5, 1.0), 5).word == OPEN


def test_a_claim_takes_the_word_of_its_headline() -> None:
    yes = Comparison("yes", 0.2, 0.15, 0.25, Larger(0.1))
    no = Comparison("no", 0.0, -0.05, 0.05, Larger(0.1))
    perhaps = Comparison("perhaps", 0.1, -0.5, 0.5, Larger(0.1))
    for headline, verdict in (("yes", "supported"), ("no", "contradicted"), ("perhaps", "open")):
        claim = Claim(1, "s", "t", (yes, no, perhaps), 5, headline=headline)
        assert claim.verdict == verdict
        assert claim.counts == "1 for, 1 against, 1 open"
    assert Claim(1, "s", "t", (yes, perhaps), 5, theorem="it must").verdict == "holds by theorem"
    assert Claim(1, "s", "t", (yes, no), 5, theorem="it must").verdict == "supported"
