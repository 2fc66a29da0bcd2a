"""What the claims come to in one universe, and in what share of many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.claims.claim import Claim
from companion.claims.synthetic import (
    CORRELATIONS,
    ENDS,
    MODELS,
    claim_1,
    claim_2,
    claim_3,
    claim_4,
    claim_5,
    claim_6,
    claim_7,
    headlines,
)
from companion.claims.verdict import CONTRADICTS, OPEN, SUPPORTS, larger
from companion.results import exact_rate, show_interval
from companion.results.universes import Difference, Setting, difference_of, runs_of

WORDS = (SUPPORTS, OPEN, CONTRADICTS)


def trained_claims(
    rows: pd.DataFrame,
    paper_losses: Mapping[Setting, float],
    paper_runs: Mapping[Setting, NDArray[np.float64]],
) -> list[Claim]:
    """Claims 1 to 7 in one universe, those of which its models have been trained at every correlation on the same seeds.

    Args:
        rows: Of its runs, such as `data/results/universes_nearest_40.csv`.
        paper_losses: Last mean loss of the paper's figures 3 and 4 by model and correlation.
        paper_runs: `companion.results.histogram_runs` of its figure 5.
    """
    seeds = {
        model: [set(of_p["seed"]) for _, of_p in of_model.groupby("task_correlation")]
        for model, of_model in rows.groupby("model")
    }
    whole = {
        str(model)
        for model, some in seeds.items()
        if len(some) == len(CORRELATIONS) and all(one == some[0] for one in some)
    }
    found = [claim_1(rows, paper_losses)] if "Shared-Bottom-16" in whole else []
    if set(MODELS) <= whole:
        found += [claim(rows, paper_losses) for claim in (claim_2, claim_3, claim_4)]
        found += [claim(rows, paper_runs) for claim in (claim_5, claim_6, claim_7)]
    return found


def over_universes(in_universes: Mapping[str, Sequence[Claim]], words: pd.DataFrame) -> pd.DataFrame:
    """The verdict of each claim in some universes that are looked at closely, and in what share of many.

    Args:
        in_universes: By name, claims as `trained_claims` gives them.
        words: As `claim_words` gives them.

    Returns:
        Index claim; what it says, a column a universe with the verdict and its counts, and how many of the universes
        support it, leave it open and contradict it.
    """
    statements = {claim.number: claim.statement for claims in in_universes.values() for claim in claims}
    table = pd.DataFrame({"claim": statements}).sort_index()
    for name, claims in in_universes.items():
        verdicts = {claim.number: f"{claim.verdict} ({claim.counts})" for claim in claims}
        table[name] = [verdicts.get(number, "not run") for number in table.index]
    counts = pd.crosstab(words["claim"], words["word"]).reindex(columns=list(WORDS), fill_value=0)
    of_all = {
        number: f"{row[SUPPORTS]} for, {row[OPEN]} open, {row[CONTRADICTS]} against"
        for number, row in counts.iterrows()
    }
    universes = words["universe"].nunique()
    table[f"{universes} universes"] = [of_all.get(number, "") for number in table.index]
    return table.rename_axis("number")


def _questions() -> Iterator[tuple[str, Difference]]:
    half, one = ENDS

    def ask(question: str, first: Setting, second: Setting) -> tuple[str, Difference]:
        return question, Difference(question, first, second)

    for model in ("Shared-Bottom-16", "Shared-Bottom", "OMoE", "MMoE"):
        yield ask(f"Is {model} worse at p = 0.5 than at 1?", (model, half), (model, one))
    for p in CORRELATIONS:
        yield ask(f"Does MMoE beat Shared-Bottom, p = {p:g}?", ("Shared-Bottom", p), ("MMoE", p))
    for p in CORRELATIONS:
        yield ask(f"Does a gate per task beat one gate, p = {p:g}?", ("OMoE", p), ("MMoE", p))
    for model in ("Single-Task", "Single-Task-61"):
        yield ask(
            f"Is there negative transfer: does {model} beat Shared-Bottom, p = 0.5?",
            ("Shared-Bottom", half),
            (model, half),
        )
    for model in ("Single-Task", "Single-Task-61"):
        yield ask(f"Does MMoE beat {model}, p = 0.5?", (model, half), ("MMoE", half))
    for p in ENDS:
        yield ask(f"Do two layers beat one, p = {p:g}?", ("Shared-Bottom", p), ("Shared-Bottom-96-32", p))
    for p in ENDS:
        yield ask(f"Does MMoE beat two layers, p = {p:g}?", ("Shared-Bottom-96-32", p), ("MMoE", p))


QUESTIONS = tuple(_questions())
"""What is asked in a universe: a question, and the difference that answers it with "supports" for yes."""


def claim_words(survey: pd.DataFrame) -> pd.DataFrame:
    """The word that claims 2 to 7 get in every universe, by the comparison that gives them theirs.

    Args:
        survey: Rows of `data/results/universes_survey.csv`, of one preset.

    Returns:
        One row per universe and claim: universe, claim, estimate, low, high, word. A universe in which fewer than two
        seeds learned has none.
    """
    found = []
    for universe, rows in survey.groupby("universe"):
        try:
            comparisons = headlines(rows)
        except ValueError:  # too few that learned, or a setting is still to be run
            continue
        for number, one in comparisons.items():
            found.append((universe, number, one.estimate, one.low, one.high, one.word))
    return pd.DataFrame(found, columns=["universe", "claim", "estimate", "low", "high", "word"])


def claim_shares(words: pd.DataFrame) -> pd.DataFrame:
    """In what share of the universes each claim is supported, open, contradicted, with exact 95 % intervals.

    Args:
        words: As `claim_words` gives them.

    Returns:
        Index claim; the three shares as text, and the number of universes.
    """
    table = {}
    for number, rows in words.groupby("claim"):
        shares = {word: exact_rate(int((rows["word"] == word).sum()), len(rows)) for word in WORDS}
        table[number] = {
            **{word: f"{show_interval(*share, digits=2)}" for word, share in shares.items()},
            "universes": str(len(rows)),
        }
    return pd.DataFrame(table).T.rename_axis("claim")


def answers(
    rows: pd.DataFrame,
    paper: Mapping[Setting, float],
    questions: Sequence[tuple[str, Difference]] = QUESTIONS,
    independent: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Differences of mean losses over both tasks in one universe, each with its word.

    Args:
        rows: Of its runs.
        paper: Last mean losses of the paper's figures.
        questions: As `QUESTIONS`. Those of which there are fewer than two runs are left out.
        independent: The same differences by other code: first_model, first_p, second_model, second_p, estimate, low,
            high. They stand beside ours.

    Returns:
        Index question; ours with interval, the independent one, the paper's, the word by the rule of `verdict`, and runs
        of the smaller side.
    """
    others = {
        ((row["first_model"], row["first_p"]), (row["second_model"], row["second_p"])): show_interval(
            row["estimate"], row["low"], row["high"], digits=3
        )
        for row in ([] if independent is None else independent.to_dict("records"))
    }
    runs = {setting: values for setting, values in runs_of(rows).items() if len(values) > 1}
    rule = larger("loss")
    table = {}
    for question, difference in questions:
        if not {difference.first, difference.second} <= set(runs):
            continue
        interval = difference_of(runs, difference)
        printed = paper.get(difference.first, np.nan) - paper.get(difference.second, np.nan)
        table[question] = {
            "difference of losses": show_interval(*interval, digits=3),
            **({"independent code": others.get((difference.first, difference.second), "")} if others else {}),
            "paper": "" if np.isnan(printed) else f"{printed:.3f}",
            "yes: supports": rule.word(*interval, printed),
            "runs": str(min(len(runs[difference.first]), len(runs[difference.second]))),
        }
    return pd.DataFrame(table).T.rename_axis("question")
