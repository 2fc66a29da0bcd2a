"""Claims in one universe and over many, by hand-made rows."""

import numpy as np
import pandas as pd
import pytest

from companion.claims import CONTRADICTS, OPEN, SUPPORTS
from companion.claims.synthetic import headlines
from companion.claims.universes import (
    QUESTIONS,
    answers,
    claim_shares,
    claim_words,
    over_universes,
    trained_claims,
)
from companion.results.reading import read_independent
from companion.results.universes import DIFFERENCES, Difference

MODELS = ("Shared-Bottom", "OMoE", "MMoE")


def _rows(
    means: dict[tuple[str, float], float], universe: int = 0, runs: int = 12, spread: float = 0.01
) -> pd.DataFrame:
    random = np.random.default_rng(universe)
    noise = random.normal(0, spread, (runs, 2))
    return pd.concat(
        pd.DataFrame(
            {
                "universe": universe, "model": model, "task_correlation": p, "seed": range(runs), "diverged_step": 0,
                "loss_1": mean + noise[:, 0] + random.normal(0, spread / 5, runs),
                "loss_2": mean + noise[:, 1] + random.normal(0, spread / 5, runs),
            }
        )
        for (model, p), mean in means.items()
    )  # fmt: skip


def _means(bottom: float, omoe: float, mmoe: float, gap: float = 0.0) -> dict[tuple[str, float], float]:
    values = dict(zip(MODELS, (bottom, omoe, mmoe), strict=True))
    return {(model, p): values[model] + (gap if p == 0.5 else 0) for model in MODELS for p in (0.5, 1.0)}


def test_each_universe_gets_the_word_of_its_own_rows() -> None:
    survey = pd.concat(
        [_rows(_means(0.2, 0.1, 0.1), 1), _rows(_means(0.1, 0.1, 0.1), 2), _rows(_means(0.1, 0.1, 0.2), 3)]
    )
    words = claim_words(survey).query("claim == 4").set_index("universe")["word"]
    assert words.to_dict() == {1: SUPPORTS, 2: CONTRADICTS, 3: CONTRADICTS}
    estimates = claim_words(survey).query("claim == 4").set_index("universe")["estimate"]
    assert estimates.to_dict() == pytest.approx({1: 0.1, 2: 0.0, 3: -0.1}, abs=0.003)
    assert set(claim_words(survey)["claim"]) == {2, 3, 4, 5, 6, 7}


def test_the_gap_is_the_shared_bottoms_over_mmoes() -> None:
    means = _means(0.2, 0.1, 0.1) | {("Shared-Bottom", 0.5): 0.3}
    assert headlines(_rows(means))[3].estimate == pytest.approx(0.1, abs=0.004)
    assert headlines(_rows(_means(0.2, 0.1, 0.1, gap=0.07)))[2].estimate == pytest.approx(0.07, abs=0.004)
    assert headlines(_rows(_means(0.2, 0.1, 0.1, gap=0.07)))[3].word == CONTRADICTS


def test_a_universe_without_all_settings_or_with_runs_that_never_learned_has_no_word() -> None:
    half = _rows({(model, 0.5): 0.1 for model in MODELS}, 1)
    never = _rows(_means(2.5, 2.5, 2.5), 2)
    assert claim_words(pd.concat([half, never])).empty


def test_shares_are_counts_with_exact_intervals() -> None:
    words = pd.DataFrame(
        {"universe": range(10), "claim": 4, "word": [SUPPORTS] * 6 + [OPEN] * 3 + [CONTRADICTS]}
    )
    row = claim_shares(words).loc[4]
    assert row[SUPPORTS] == "0.60 [0.26, 0.88]"  # Clopper and Pearson's of 6 in 10
    assert row[OPEN].startswith("0.30")
    assert row[CONTRADICTS].startswith("0.10")
    assert row["universes"] == "10"


def test_answers_stand_beside_the_papers_and_leave_out_what_was_not_run() -> None:
    rows = _rows(_means(0.25, 0.1, 0.1))
    questions = [
        ("lead", Difference("lead", ("Shared-Bottom", 0.5), ("MMoE", 0.5))),
        ("equal", Difference("equal", ("OMoE", 1.0), ("MMoE", 1.0))),
        ("never run", Difference("never run", ("Single-Task", 0.5), ("MMoE", 0.5))),
    ]
    found = answers(rows, {("Shared-Bottom", 0.5): 0.25, ("MMoE", 0.5): 0.08}, questions)
    assert found["yes: supports"].to_dict() == {"lead": SUPPORTS, "equal": CONTRADICTS}
    assert set(answers(rows, {}).index) < {question for question, _ in QUESTIONS}
    assert found["paper"].to_dict() == {"lead": "0.170", "equal": ""}
    assert len({difference.name for difference in DIFFERENCES}) == len(DIFFERENCES)


def test_claims_of_models_that_were_not_trained_at_every_correlation_are_left_out() -> None:
    means = {(model, p): 0.1 for model in MODELS for p in (0.5, 0.9, 1.0)}
    paper = {(model, p): 0.1 for model in (*MODELS, "Shared-Bottom-16") for p in (0.5, 0.9, 1.0)}
    rows = _rows(means)
    assert [claim.number for claim in trained_claims(rows, paper, {})] == [2, 3, 4, 5, 6, 7]
    small = _rows({("Shared-Bottom-16", p): 0.3 for p in (0.5, 0.9, 1.0)}, runs=6)
    assert [claim.number for claim in trained_claims(small, paper, {})] == [1]
    assert trained_claims(small[small["task_correlation"] != 0.9], paper, {}) == []
    fewer = small[(small["task_correlation"] != 0.9) | (small["seed"] < 3)]
    assert trained_claims(fewer, paper, {}) == []


def test_the_table_over_universes_counts_words() -> None:
    survey = pd.concat([_rows(_means(0.2, 0.1, 0.1), 1), _rows(_means(0.1, 0.1, 0.1), 2)])
    means = {(model, p): 0.1 for model in MODELS for p in (0.5, 0.9, 1.0)}
    table = over_universes({"one": trained_claims(_rows(means), {}, {})}, claim_words(survey))
    assert table.loc[4, "2 universes"] == "1 for, 0 open, 1 against"
    assert table.loc[4, "one"] == "contradicted (0 for, 6 against, 0 open)"
    assert list(table.index) == [2, 3, 4, 5, 6, 7]


def test_numbers_of_other_code_stand_beside_the_difference_that_they_are_of() -> None:
    rows = _rows(_means(0.25, 0.1, 0.1))
    theirs = pd.DataFrame(
        [("Shared-Bottom", 0.5, "MMoE", 0.5, 0.1, 0.0, 0.2)],
        columns=["first_model", "first_p", "second_model", "second_p", "estimate", "low", "high"],
    )
    found = answers(rows, {}, independent=theirs)["independent code"]
    assert found["Does MMoE beat Shared-Bottom, p = 0.5?"] == "0.100 [0.000, 0.200]"
    assert (found.drop("Does MMoE beat Shared-Bottom, p = 0.5?") == "").all()
    assert "independent code" not in answers(rows, {})


def test_the_stored_independent_differences_are_all_asked() -> None:
    asked = {(difference.first, difference.second) for _, difference in QUESTIONS}
    theirs = read_independent("nearest_differences")
    pairs = {
        ((row["first_model"], row["first_p"]), (row["second_model"], row["second_p"]))
        for row in theirs.to_dict("records")
    }
    assert pairs <= asked
    assert theirs["estimate"].between(theirs["low"], theirs["high"]).all()
