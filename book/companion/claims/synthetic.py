"""Claims 1 to 8, on synthetic data.

Runs of one seed share initial weights, directions and inputs at every correlation, so they are compared in
pairs, and intervals come from resampling seeds. The two tasks of a run are made alike, so both are used: their mean
loss where means are compared, the mean of their two spreads where spreads are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.claims.claim import Claim, Comparison
from companion.claims.comparing import of_means, of_pairs
from companion.claims.verdict import Rule, larger, same
from companion.results import paired_superiority

Array = NDArray[np.float64]

MODELS = ("Shared-Bottom", "OMoE", "MMoE")
CORRELATIONS = (0.5, 0.9, 1.0)
ENDS = (0.5, 1.0)
TASKS = (1, 2)
BEST_SHARE = 0.05
"""The lowest losses are the mean of this share of the runs: the very lowest of 200 says little."""
TRIMMED = 0.05
"""Share of the runs left out at either end before a spread is taken."""

DIED = 1.0
"""A task whose final squared error lies above this was not learned: the run died. Labels have a variance of about
2.9; runs that died end near 1.7, all others below 0.44."""

_NO_SCORE = 1e6
"""Stands for the loss of a run that diverged where runs are ranked: worse than any other."""


def died(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which runs of a synthetic study died: one of their tasks was not learned (`DIED`), or training diverged.

    Args:
        rows: Columns loss_1, loss_2, diverged_step; one row per run.
    """
    losses = rows[[f"loss_{task}" for task in TASKS]]
    return (losses > DIED).any(axis=1) | losses.isna().any(axis=1) | (rows["diverged_step"] > 0)


@dataclass(frozen=True)
class Runs:
    """Final losses of one preset of the synthetic study, of both tasks.

    Attributes:
        losses: Test losses; index seed, columns (model, p, task). NaN of a run that diverged.
        diverged: How many runs of these settings diverged.
        died: How many died, those that diverged among them.
    """

    losses: pd.DataFrame
    diverged: int = 0
    died: int = 0

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        models: Sequence[str] = MODELS,
        correlations: Sequence[float] = CORRELATIONS,
    ) -> Runs:
        """Take the runs of some models from rows of the study.

        Raises:
            ValueError: If a setting is missing, or the settings were run with different seeds.
        """
        chosen = rows[rows["model"].isin(models) & rows["task_correlation"].isin(correlations)]
        counts = chosen.groupby(["model", "task_correlation"]).size()
        wanted = [(model, p) for model in models for p in correlations]
        missing = [setting for setting in wanted if setting not in counts.index]
        if missing:
            raise ValueError(
                f"there are no runs of {missing[0]}, expected some of every setting: run the study"
            )
        long = chosen.melt(
            ["seed", "model", "task_correlation"], [f"loss_{task}" for task in TASKS], "task", "loss"
        )
        long["task"] = long["task"].str.removeprefix("loss_").astype(int)
        table = long.pivot_table(
            index="seed", columns=["model", "task_correlation", "task"], values="loss", dropna=False
        )
        if counts.min() != counts.max() or len(table) != counts.iloc[0]:
            raise ValueError(
                f"settings have {counts.min()} to {counts.max()} runs over {len(table)} seeds, expected the same "
                "seeds of each: finish the study"
            )
        return cls(table, int((chosen["diverged_step"] > 0).sum()), int(died(chosen).sum()))

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def number(self) -> int:
        """Of all runs of all settings."""
        return len(self.losses) * len(self.losses.columns) // len(TASKS)

    def of_task(self, model: str, p: float, task: int) -> Array:
        """Losses of one task of one setting by seed."""
        return self.losses[model, p, task].to_numpy(dtype=np.float64)

    def of_setting(self, model: str, p: float) -> Array:
        """Mean of both tasks' losses of one setting by seed."""
        return np.mean([self.of_task(model, p, task) for task in TASKS], axis=0)

    def learned(self, *settings: tuple[str, float]) -> NDArray[np.bool_]:
        """By seed, whether its runs of all these settings learned both tasks."""
        able = [self.of_task(*setting, task) <= DIED for setting in settings for task in TASKS]
        return np.logical_and.reduce(able)


def _of_settings(
    runs: Runs,
    what: str,
    statistic: Callable[..., Array],
    settings: Sequence[tuple[str, float]],
    rule: Rule,
    paper: float,
) -> Comparison:
    """A mean over seeds of a combination of settings' losses: where all learned, and by rank over all seeds."""
    able = runs.learned(*settings)
    columns = [runs.of_setting(*setting) for setting in settings]
    everyone = statistic(*(np.nan_to_num(column, nan=_NO_SCORE) for column in columns))
    return of_means(
        what,
        statistic(*(column[able] for column in columns)),
        rule,
        paper,
        paired_superiority(everyone, np.zeros_like(everyone)),
    )


def _minus(worse: Array, better: Array) -> Array:
    return worse - better


def _gap(a: Array, b: Array, c: Array, d: Array) -> Array:
    return (a - b) - (c - d)


def _falls_with_correlation(
    runs: Runs, model: str, paper: Mapping[tuple[str, float], float]
) -> list[Comparison]:
    pairs = [*itertools.pairwise(CORRELATIONS), (CORRELATIONS[0], CORRELATIONS[-1])]
    return [
        _of_settings(
            runs,
            f"{model}: loss at p = {below:g} minus at p = {above:g}",
            _minus,
            ((model, below), (model, above)),
            larger("loss"),
            paper.get((model, below), np.nan) - paper.get((model, above), np.nan),
        )
        for below, above in pairs
    ]


_DIFFERENCE = (
    "mean over seeds of the difference in the two tasks' mean loss, where both runs learned; 95 % bootstrap interval over "
    "seeds; matters from one bin of figure 5, 1/30. Beside it, over all seeds, the share of them in which the one that is "
    "said to be better is, with an exact interval"
)


def claim_1(rows: pd.DataFrame, paper: Mapping[tuple[str, float], float]) -> Claim:
    """Shared-Bottom's loss falls as the task correlation rises (figure 3, 16 shared units)."""
    runs = Runs.of(rows, ["Shared-Bottom-16"])
    return _claim(
        1,
        "Shared-Bottom's loss falls as the task correlation rises (figure 3)",
        _DIFFERENCE,
        _falls_with_correlation(runs, "Shared-Bottom-16", paper),
        runs,
        "Shared-Bottom-16: loss at p = 0.5 minus at p = 1",
    )


def claim_2(rows: pd.DataFrame, paper: Mapping[tuple[str, float], float]) -> Claim:
    """For every model, a higher correlation is better (figure 4)."""
    runs = Runs.of(rows)
    return _claim(
        2,
        "For every model, higher correlation is better (figure 4)",
        _DIFFERENCE,
        [c for model in MODELS for c in _falls_with_correlation(runs, model, paper)],
        runs,
        "MMoE: loss at p = 0.5 minus at p = 1",
    )


def claim_3(rows: pd.DataFrame, paper: Mapping[tuple[str, float], float]) -> Claim:
    """MMoE's gap between correlations is much smaller; at p = 1 MMoE and OMoE agree (figure 4)."""
    runs, comparisons = Runs.of(rows), []
    mmoe = ("MMoE", 0.5), ("MMoE", 1.0)

    def paper_gap(model: str) -> float:
        return paper.get((model, 0.5), np.nan) - paper.get((model, 1.0), np.nan)

    for model in ("OMoE", "Shared-Bottom"):
        comparisons.append(
            _of_settings(
                runs,
                f"gap between p = 0.5 and p = 1: {model}'s minus MMoE's",
                _gap,
                ((model, 0.5), (model, 1.0), *mmoe),
                larger("loss"),
                paper_gap(model) - paper_gap("MMoE"),
            )
        )
    comparisons.append(
        _of_settings(
            runs,
            "at p = 1: OMoE's loss minus MMoE's",
            _minus,
            (("OMoE", 1.0), ("MMoE", 1.0)),
            same("loss"),
            paper.get(("OMoE", 1.0), np.nan) - paper.get(("MMoE", 1.0), np.nan),
        )
    )
    return _claim(
        3,
        "MMoE's gap between correlations is much smaller than the others'; at correlation 1 MMoE and OMoE agree "
        "(figure 4)",
        "difference of the mean gaps of the two tasks' mean loss, paired by seed, where all four runs learned; 95 % "
        "bootstrap interval; matters from one bin of figure 5, 1/30. Agreement: the whole interval within one bin. Beside "
        "it the share of all seeds, as for claim 1",
        comparisons,
        runs,
        "gap between p = 0.5 and p = 1: Shared-Bottom's minus MMoE's",
    )


def claim_4(rows: pd.DataFrame, paper: Mapping[tuple[str, float], float]) -> Claim:
    """Both MoE models beat Shared-Bottom at every correlation, on average (figure 4)."""
    runs = Runs.of(rows)
    comparisons = [
        _of_settings(
            runs,
            f"p = {p:g}: Shared-Bottom's loss minus {model}'s",
            _minus,
            (("Shared-Bottom", p), (model, p)),
            larger("loss"),
            paper.get(("Shared-Bottom", p), np.nan) - paper.get((model, p), np.nan),
        )
        for p in CORRELATIONS
        for model in ("OMoE", "MMoE")
    ]
    return _claim(
        4,
        "Both mixture models beat Shared-Bottom at every correlation, on average (figure 4)",
        _DIFFERENCE,
        comparisons,
        runs,
        "p = 0.5: Shared-Bottom's loss minus MMoE's",
    )


def _claim(
    number: int,
    statement: str,
    statistic: str,
    comparisons: Sequence[Comparison],
    runs: Runs,
    headline: str,
    beside: Sequence[Comparison] = (),
) -> Claim:
    return Claim(
        number,
        statement,
        statistic,
        tuple(comparisons),
        len(runs),
        runs.diverged,
        headline,
        died=runs.died,
        of_runs=runs.number,
        beside=tuple(beside),
    )


def trimmed_deviation(losses: Array) -> Array:
    """Standard deviation along the last dimension without the lowest and highest `TRIMMED` of the runs."""
    count = losses.shape[-1]
    out = int(TRIMMED * count)
    inner = np.partition(losses, (out, count - 1 - out), axis=-1)[..., out : count - out]
    return np.asarray(inner.std(axis=-1))


def _deviation(losses: Array) -> Array:
    return np.asarray(losses.std(axis=-1))


def _quartiles(losses: Array) -> Array:
    # numpy's quantile, which is slower: linear between the two runs around it
    places = [share * (losses.shape[-1] - 1) for share in (0.25, 0.75)]
    around = [(int(place), min(int(place) + 1, losses.shape[-1] - 1), place % 1) for place in places]
    ordered = np.partition(losses, [end for low, high, _ in around for end in (low, high)], axis=-1)
    low, high = ((1 - rest) * ordered[..., one] + rest * ordered[..., other] for one, other, rest in around)
    return np.asarray(high - low)


_BESIDE: dict[str, Callable[[Array], Array]] = {
    "standard deviation": _deviation,
    "interquartile range": _quartiles,
}


def _spread_ratio(
    runs: Runs,
    wide: tuple[str, float],
    narrow: tuple[str, float],
    rule: Rule,
    paper: Mapping[tuple[str, float], Array],
    spread: Callable[[Array], Array] = trimmed_deviation,
    measure: str = "",
) -> Comparison:
    """The mean of the two tasks' spreads of one setting over that of another, over seeds where both learned."""
    able = runs.learned(wide, narrow)
    columns = tuple(runs.of_task(*setting, task)[able] for setting in (wide, narrow) for task in TASKS)

    def ratio(*losses: Array) -> Array:
        spreads = [spread(values) for values in losses]
        return (spreads[0] + spreads[1]) / (spreads[2] + spreads[3])

    printed = (
        float(spread(paper[wide]) / spread(paper[narrow])) if {wide, narrow} <= set(paper) else float("nan")
    )
    what = f"p = {wide[1]:g}: {wide[0]}'s spread over {narrow[0]}'s"
    name = what + (f", {measure}" if measure else "")
    return of_pairs(name, ratio, columns, rule, printed, counted=not measure)


_SPREAD = (
    "ratio of the standard deviations over runs that learned, each without the lowest and highest 5 % of its runs and "
    "averaged over the two tasks, 95 % bootstrap interval over seeds. Trimmed, because no run may decide it; a deviation, "
    "because the losses lie in humps, which an interquartile range steps over. Both others stand beside it"
)


def claim_5(rows: pd.DataFrame, paper: Mapping[tuple[str, float], Array]) -> Claim:
    """Shared-Bottom's spread of final losses is much larger than the mixture models' (figure 5).

    `paper` holds the runs of figure 5's histograms.
    """
    runs = Runs.of(rows)
    pairs = [(("Shared-Bottom", p), (model, p)) for p in CORRELATIONS for model in ("OMoE", "MMoE")]
    return _claim(
        5,
        "Shared-Bottom's spread of final losses is much larger than the mixture models' (figure 5)",
        _SPREAD + "; matters from a ratio of 1.25",
        [_spread_ratio(runs, *pair, larger("spread"), paper) for pair in pairs],
        runs,
        "p = 0.5: Shared-Bottom's spread over MMoE's",
        [
            _spread_ratio(runs, *pair, larger("spread"), paper, spread, name)
            for pair in pairs
            for name, spread in _BESIDE.items()
        ],
    )


def claim_6(rows: pd.DataFrame, paper: Mapping[tuple[str, float], Array]) -> Claim:
    """OMoE is as robust as MMoE at p = 1 and clearly less at p = 0.5 (figure 5).

    `paper` holds the runs of figure 5's histograms.
    """
    runs = Runs.of(rows)
    pairs = [(("OMoE", p), ("MMoE", p), rule) for p, rule in ((1.0, same("spread")), (0.5, larger("spread")))]
    return _claim(
        6,
        "OMoE is as robust as MMoE at correlation 1 and clearly less at 0.5 (figure 5)",
        _SPREAD + "; at p = 1 the whole interval within 0.80 to 1.25, at p = 0.5 it matters from 1.25",
        [_spread_ratio(runs, *pair, paper) for pair in pairs],
        runs,
        "p = 0.5: OMoE's spread over MMoE's",
        [
            _spread_ratio(runs, *pair, paper, spread, name)
            for pair in pairs
            for name, spread in _BESIDE.items()
        ],
    )


def _best(losses: Array) -> Array:
    count = max(1, round(BEST_SHARE * losses.shape[-1]))
    return np.partition(losses, count - 1, axis=-1)[..., :count].mean(axis=-1)


def _between(best: Sequence[Array]) -> Array:
    return np.asarray(np.max(best, axis=0) - np.min(best, axis=0))


def _lowest(runs: Runs, p: float, paper: float) -> Comparison:
    """How far the three models' lowest losses lie apart at one correlation."""

    def distance(*losses: Array) -> Array:
        return _between(
            [(_best(one) + _best(other)) / 2 for one, other in zip(losses[::2], losses[1::2], strict=True)]
        )

    settings = [(model, p) for model in MODELS]
    able = runs.learned(*settings)
    columns = tuple(runs.of_task(*setting, task)[able] for setting in settings for task in TASKS)
    return of_pairs(
        f"p = {p:g}: largest minus smallest of the three models' lowest losses",
        distance,
        columns,
        same("loss"),
        paper,
    )


def claim_7(rows: pd.DataFrame, paper: Mapping[tuple[str, float], Array]) -> Claim:
    """The lowest losses of the three models are comparable (figure 5).

    `paper` holds the runs of figure 5's histograms.
    """
    runs, comparisons = Runs.of(rows), []
    for p in CORRELATIONS:
        settings = [(model, p) for model in MODELS]
        printed = (
            float(_between([_best(paper[setting]) for setting in settings]))
            if set(settings) <= set(paper)
            else float("nan")
        )
        comparisons.append(_lowest(runs, p, printed))
    return _claim(
        7,
        "The lowest losses of the three models are comparable (figure 5)",
        f"mean of the lowest {BEST_SHARE:.0%} of the runs, averaged over the two tasks; 95 % bootstrap interval over seeds; "
        "comparable: the whole interval within one bin of figure 5, 1/30",
        comparisons,
        runs,
        "p = 0.5: largest minus smallest of the three models' lowest losses",
    )


THEOREM = (
    "the label correlation is a sum of h_k^2 p^k, which rises with p from 0 on for any constants; ours were fitted to "
    "these points"
)
"""Why claim 8 cannot fail."""


def claim_8(samples: Mapping[float, Sequence[float]], paper: Mapping[float, float]) -> Claim:
    """The label correlation rises with the weight cosine (figure 2), which holds by theorem.

    Args:
        samples: By cosine, one label correlation per trial; trial t of every cosine has the same directions, inputs
            and noise, so trials are compared in pairs.
        paper: By cosine, the mean that figure 2 shows.
    """
    cosines = sorted(samples)
    comparisons = [
        of_means(
            f"label correlation at cosine {above:g} minus at {below:g}",
            np.asarray(samples[above], dtype=np.float64) - np.asarray(samples[below], dtype=np.float64),
            larger("order"),
            paper.get(above, np.nan) - paper.get(below, np.nan),
        )
        for below, above in itertools.pairwise(cosines)
    ]
    return Claim(
        8,
        "Label correlation rises with weight cosine, so that the cosine can stand in for it (figure 2)",
        f"holds by theorem: {THEOREM}. Checked by sampling: mean difference of neighbouring cosines over trials of the "
        "same directions, inputs and noise, 95 % bootstrap interval over trials; matters from 0, since the claim is about "
        "order",
        tuple(comparisons),
        min(len(values) for values in samples.values()),
        headline=comparisons[0].what,
        theorem=THEOREM,
    )


def headlines(rows: pd.DataFrame) -> dict[int, Comparison]:
    """The comparison that gives claims 2 to 7 their word, of runs at the two ends of the correlation alone.

    Args:
        rows: Runs of the three models at p = 0.5 and p = 1, on the same seeds.

    Returns:
        By claim.

    Raises:
        ValueError: If a setting is missing, or the settings were run with different seeds.
    """
    runs, nan = Runs.of(rows, correlations=ENDS), float("nan")
    half, one = ENDS
    mmoe, bottom, omoe = "MMoE", "Shared-Bottom", "OMoE"
    of_means_: dict[int, tuple[str, Callable[..., Array], tuple[tuple[str, float], ...]]] = {
        2: ("MMoE: loss at p = 0.5 minus at p = 1", _minus, ((mmoe, half), (mmoe, one))),
        3: (
            "gap between p = 0.5 and p = 1: Shared-Bottom's minus MMoE's",
            _gap,
            ((bottom, half), (bottom, one), (mmoe, half), (mmoe, one)),
        ),
        4: ("p = 0.5: Shared-Bottom's loss minus MMoE's", _minus, ((bottom, half), (mmoe, half))),
    }
    found = {
        number: _of_settings(runs, what, statistic, settings, larger("loss"), nan)
        for number, (what, statistic, settings) in of_means_.items()
    }
    found[5] = _spread_ratio(runs, (bottom, half), (mmoe, half), larger("spread"), {})
    found[6] = _spread_ratio(runs, (omoe, half), (mmoe, half), larger("spread"), {})
    return found | {7: _lowest(runs, half, nan)}


_ON_MEANS: tuple[Callable[[pd.DataFrame, Mapping[tuple[str, float], float]], Claim], ...] = (
    claim_1,
    claim_2,
    claim_3,
    claim_4,
)
_ON_SPREADS = (claim_5, claim_6, claim_7)


def synthetic_claims(
    rows: pd.DataFrame,
    paper_losses: Mapping[tuple[str, float], float],
    paper_runs: Mapping[tuple[str, float], Array],
) -> list[Claim]:
    """Claims 1 to 7, from rows of the synthetic study.

    Args:
        rows: One preset of `data/results/synthetic.csv`.
        paper_losses: Last mean loss of the paper's figures 3 and 4 by model and correlation.
        paper_runs: `companion.results.histogram_runs` of its figure 5.
    """
    return [claim(rows, paper_losses) for claim in _ON_MEANS] + [
        claim(rows, paper_runs) for claim in _ON_SPREADS
    ]
