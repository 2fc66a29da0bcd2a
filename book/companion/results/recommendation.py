"""Table 3, figure 6 and table 4 of the paper beside ours, and what the rankers cost to serve.

Differences are in points: hundredths of an AUC or of an R2, so that 0.6908 lies 0.08 points above 0.6900.

Runs of one seed visit the rows in the same order, so methods are compared in pairs of one seed. An interval over
runs says what other seeds would give on these test rows; what other test rows would give is DeLong's standard error.
A run that diverged has no score: it is counted, and in no mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from companion.results.intervals import holm, mean_interval, paired_interval, show_interval
from companion.results.reading import read_paper
from companion.results.synthetic import expert_use

METHODS = ("Single-Task", "Shared-Bottom", "L2-Constrained", "Cross-Stitch", "OMoE", "MMoE")
"""The order of the tables. The paper's table 3 has all but the first."""

TASKS = ("engagement", "satisfaction")
THIRDS = (1, 2, 3)
"""After which of training a run is judged: the paper's 2, 4 and 6 million steps."""

MEASURES = {"auc": "AUC", "r2": "R2"}

COLLAPSED = 0.9
"""A gate whose largest mean weight is above this reads one expert, whatever the input."""

DEAD = 0.01
"""An expert whose mean weight is below this in every gate is not used."""


class PairedDifference(NamedTuple):
    """How far one method lies above another, over runs of the same seeds.

    Attributes:
        points: Mean difference, first minus second, in points (1/100).
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        p_value: Of Wilcoxon's signed-rank test, two-sided, not corrected.
        seeds: How many seeds both have.
    """

    points: float
    low: float
    high: float
    p_value: float
    seeds: int


def recommendation_paper() -> pd.DataFrame:
    """The paper's table 3 under our names: model, test_engagement_auc_1 to _3, test_engagement_r2_1 to _3."""
    names = {
        f"{measure}_{2 * third}m": f"test_engagement_{measure}_{third}"
        for measure in MEASURES
        for third in THIRDS
    }
    return read_paper("table3_recommendation_engagement")[["model", *names]].rename(columns=names)


def trained_runs(rows: pd.DataFrame, optimiser: str, model: str) -> pd.DataFrame:
    """The runs of a method that did not diverge, by seed.

    Args:
        rows: Rows of one preset of `data/results/kuairand.csv`: model, setting, seed, diverged_step.
        optimiser: "SGD" or "Adam": what the column setting says.
        model: One of `METHODS`.

    Raises:
        ValueError: If there are none, or a seed stands there twice.
    """
    runs = _runs(rows, optimiser, model)
    trained = runs[runs["diverged_step"] == 0]
    if trained.empty:
        raise ValueError(
            f"all {len(runs)} runs of {model} with {optimiser!r} diverged, expected some that did not: "
            "choose a lower learning rate"
        )
    return trained.set_index("seed").sort_index()


def paired_runs(
    first: pd.DataFrame, second: pd.DataFrame, what: str = "the two methods"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the seeds that both have, in the same order.

    Args:
        first: `trained_runs` of one method.
        second: Of another.
        what: Named in the error.

    Raises:
        ValueError: If fewer than two seeds are in both.
    """
    seeds = first.index.intersection(second.index)
    if len(seeds) < 2:
        raise ValueError(
            f"{what} have {len(seeds)} seeds in common that did not diverge, expected two or more: run more seeds"
        )
    return first.loc[seeds], second.loc[seeds]


def signed_rank(first: ArrayLike, second: ArrayLike) -> float:
    """P-value of Wilcoxon's signed-rank test of pairs, two-sided; 1 where no pair differs."""
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0


def paired_difference(
    rows: pd.DataFrame, optimiser: str, value: str, first: str, second: str
) -> PairedDifference:
    """How far one method lies above another in the mean, paired by seed.

    Seeds that diverged with either are left out of this pair, and of no other.

    Args:
        rows: As for `trained_runs`, with the column `value`.
        optimiser: "SGD" or "Adam".
        value: Such as "test_engagement_auc_3".
        first: A method.
        second: The method it is compared with.

    Raises:
        ValueError: If a method was not run, or fewer than two seeds are in both.
    """
    one, other = paired_runs(
        trained_runs(rows, optimiser, first), trained_runs(rows, optimiser, second), f"{first} and {second}"
    )
    interval = _mean_difference(100 * one[value], 100 * other[value])
    return PairedDifference(*interval, signed_rank(one[value], other[value]), len(one))


def paired_differences(rows: pd.DataFrame, optimiser: str, value: str) -> pd.DataFrame:
    """Every pair of methods: the mean difference over common seeds in points, and whether it is more than chance.

    With k seeds no p-value is below 2^(1 - k): fifteen pairs need ten seeds to be called different.

    Args:
        rows: As for `paired_difference`.
        optimiser: "SGD" or "Adam".
        value: Which score, such as "test_engagement_auc_3".

    Returns:
        One row a pair: first, second, points (first minus second), low, high (95 %, of the pair alone), p_value
        (Wilcoxon's signed-rank test, Holm's correction over all pairs), seeds.

    Raises:
        ValueError: If there are fewer than two methods, or a pair has fewer than two seeds.
    """
    models = _models(rows, optimiser)
    if len(models) < 2:
        raise ValueError(
            f"there are runs of {models[0]} alone with {optimiser!r}, expected two methods or more: run the study first"
        )
    pairs = [
        (first, second, *paired_difference(rows, optimiser, value, first, second))
        for first, second in itertools.combinations(models, 2)
    ]
    table = pd.DataFrame(pairs, columns=["first", "second", *PairedDifference._fields])
    return table.assign(p_value=holm(table["p_value"]))


def recommendation_table(
    rows: pd.DataFrame, optimiser: str, measures: Sequence[str] = ("auc", "r2")
) -> pd.DataFrame:
    """Table 3: engagement AUC and R2 after each third of training with 95 % intervals beside the paper's.

    Args:
        rows: Rows of one preset of `data/results/kuairand.csv`.
        optimiser: "SGD", as the paper prints, or "Adam".
        measures: "auc", "r2" or both.

    Returns:
        A row a method: runs that ended, runs that diverged, and for each measure and third ours and the paper's,
        which is of other data; empty for Single-Task, which table 3 does not have.

    Raises:
        ValueError: If there are no rows of that optimiser.
    """
    paper = recommendation_paper().set_index("model")
    table: dict[str, dict[str, str | int]] = {}
    for model in _models(rows, optimiser):
        runs = _scored(rows, optimiser, model)
        table[model] = _counts(runs)
        for measure in measures:
            for third in THIRDS:
                value, title = f"test_engagement_{measure}_{third}", f"{MEASURES[measure]}, {third}/3"
                digits = 4 if measure == "auc" else 5  # as table 3 prints them
                printed = paper[value]
                table[model][f"{title}: ours"] = _mean_text(runs[value])
                table[model][f"{title}: paper"] = f"{printed[model]:.{digits}f}" if model in printed else ""
    return pd.DataFrame(table).T


def satisfaction_table(rows: pd.DataFrame, optimiser: str) -> pd.DataFrame:
    """Satisfaction AUC at the end of training, and how little of it the test rows tell.

    The paper leaves it out because it is too noisy to be shown offline: compare how far a method lies below the
    best with the half-width of the interval over test rows. That half-width is of one AUC; two methods meet
    the same rows, so the noise of their difference is smaller than that of either.

    Args:
        rows: Rows of one preset of `data/results/kuairand.csv`.
        optimiser: "SGD" or "Adam".

    Returns:
        A row a method: runs, diverged, the mean with its 95 % interval over runs, how many points the mean lies
        below the best method's, and 1.96 times the mean of DeLong's standard errors in points.

    Raises:
        ValueError: If there are no rows of that optimiser.
    """
    models = _models(rows, optimiser)
    scored = {model: _scored(rows, optimiser, model) for model in models}
    best = pd.Series([runs["test_satisfaction_auc_3"].mean() for runs in scored.values()]).max()
    table: dict[str, dict[str, str | int]] = {}
    for model, runs in scored.items():
        auc, half = runs["test_satisfaction_auc_3"], _half_width(runs)
        ended = bool(auc.notna().any())
        table[model] = _counts(runs) | {
            "satisfaction AUC": _mean_text(auc),
            "points below the best": f"{100 * (best - auc.mean()):.2f}" if ended else "",
            "± points over test rows": f"{half:.2f}" if ended else "",
        }
    return pd.DataFrame(table).T


def satisfaction_spread(rows: pd.DataFrame, optimiser: str) -> tuple[float, float]:
    """Largest minus smallest of the methods' mean satisfaction AUCs, and the mean half-width over test rows.

    Args:
        rows: As for `satisfaction_table`.
        optimiser: "SGD" or "Adam".

    Returns:
        Both in points (1/100).

    Raises:
        ValueError: If there are no rows of that optimiser.
    """
    scored = [_scored(rows, optimiser, model) for model in _models(rows, optimiser)]
    means = pd.Series([runs["test_satisfaction_auc_3"].mean() for runs in scored])
    half_widths = pd.Series([_half_width(runs) for runs in scored])
    return 100 * float(means.max() - means.min()), float(half_widths.mean())


def tradeoff_frame(rows: pd.DataFrame, optimiser: str, models: Sequence[str]) -> pd.DataFrame:
    """Engagement and satisfaction of the better half of each user's impressions, by weight of satisfaction.

    Args:
        rows: Rows of one preset of `data/results/kuairand.csv`: top_engagement_0 .. top_satisfaction_10.
        optimiser: "SGD" or "Adam".
        models: Which methods.

    Returns:
        One row a run and weight: model, seed, weight (0 to 1), engagement, satisfaction (shares of impressions).

    Raises:
        ValueError: If a method was not run.
    """
    last = _last_weight(rows)
    pieces = []
    for model in models:
        runs = trained_runs(rows, optimiser, model)
        for place in range(last + 1):
            top = {task: runs[f"top_{task}_{place}"].to_numpy() for task in TASKS}
            pieces.append(pd.DataFrame({"model": model, "seed": runs.index, "weight": place / last} | top))
    return pd.concat(pieces, ignore_index=True)


def live_table(rows: pd.DataFrame, optimiser: str, *, weight: float = 0.5) -> pd.DataFrame:
    """Table 4's question asked of logged impressions: what one method's ranking gains over another's, in percent.

    Ours is the change of the mean label in the better half of each user's impressions, which the platform had
    picked already. The paper's is the change of what users did on live traffic. They are two quantities, and only
    their signs may be compared.

    Args:
        rows: Rows of one preset of `data/results/kuairand.csv`.
        optimiser: "SGD" or "Adam".
        weight: Of satisfaction in the mix that ranks, a tenth: 0, 0.1 .. 1.

    Returns:
        A row a comparison of table 4: seeds, and for each label ours (offline, 95 % bootstrap interval over
        seeds) and the paper's (live, with the confidence level that it states).

    Raises:
        ValueError: If a method was not run, or the weight is none of those that were tried.
    """
    last = _last_weight(rows)
    place = round(weight * last)
    if not 0 <= place <= last or not np.isclose(place, weight * last):
        raise ValueError(f"weight is {weight:g}, expected one of 0, {1 / last:g}, {2 / last:g} .. 1")
    table: dict[str, dict[str, str | int]] = {}
    pairs = {f"{new} over {old}": (new, old) for new, old in itertools.permutations(METHODS, 2)}
    for printed in read_paper("table4_live_experiment").to_dict("records"):
        name = str(printed["comparison"])
        new, old = pairs[name]
        ours, theirs = paired_runs(
            trained_runs(rows, optimiser, new), trained_runs(rows, optimiser, old), f"{new} and {old}"
        )
        table[name] = {"seeds": len(ours)}
        for task in TASKS:
            column = f"top_{task}_{place}"
            change = paired_interval(_percent_change, ours[column], theirs[column])
            level = printed[f"{task}_confidence_level"]
            table[name][f"{task}, offline: ours (%)"] = _signed(*change)
            table[name][f"{task}, live: paper (%)"] = (
                f"{printed[f'{task}_percent']:+.2f} (at {level:.0f} % confidence)"
            )
    return pd.DataFrame(table).T


def gate_concentration(rows: pd.DataFrame) -> pd.DataFrame:
    """How much the gates of each run concentrate on few experts, without runs that diverged or have no gates.

    Args:
        rows: Columns model, setting, seed, diverged_step, gate_1_1 .. gate_2_n: mean weights over the test rows.

    Returns:
        One row a run: model, setting, seed; largest_1, largest_2: the largest mean weight in the gate of either
        task; effective_1, effective_2: exp(entropy of the mean weights), n when all are alike and 1 when one has
        all; collapsed: whether a gate's largest is above `COLLAPSED`; dead: whether an expert's weight is below
        `DEAD` in both gates.

    Raises:
        ValueError: If no run has gates.
    """
    runs = rows[(rows["diverged_step"] == 0) & rows["gate_1_1"].notna()]
    if runs.empty:
        raise ValueError("no run has gate weights, expected runs of OMoE or MMoE that did not diverge")
    weights = np.stack([_gate_weights(runs, task) for task in (1, 2)])  # (2, runs, n)
    largest = weights.max(axis=2)
    # sum of -g log g, 0 for an expert without weight
    effective = np.exp(stats.entropy(weights, axis=2))
    return (
        runs[["model", "setting", "seed"]]
        .assign(
            largest_1=largest[0],
            largest_2=largest[1],
            effective_1=effective[0],
            effective_2=effective[1],
            collapsed=(largest > COLLAPSED).any(axis=0),
            dead=(weights.max(axis=0) < DEAD).any(axis=1),
        )
        .reset_index(drop=True)
    )


def paper_gates() -> pd.DataFrame:
    """Figure 6 in the form and the order of `expert_use`: setting ("paper"), task, rank, weight."""
    printed = read_paper("figure6_gate_distribution")
    row: dict[str, float | str] = {"setting": "paper", "seed": 0}
    for number, task in enumerate(TASKS, start=1):
        weights = printed[printed["task"] == task].sort_values("expert")["mean_gate_weight"]
        row |= {f"gate_{number}_{place}": float(weight) for place, weight in enumerate(weights, start=1)}
    return expert_use(pd.DataFrame([row]), by="setting").drop(columns="seed")


def gate_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Figure 6 in two numbers a task: how much MMoE's gate gives to one expert, and how many experts it uses.

    Args:
        rows: Rows of one preset of `data/results/kuairand.csv`; those of MMoE are taken.

    Returns:
        A row an optimiser and task: runs; the mean over runs of the largest mean weight, and of the effective
        number of experts, with 95 % intervals; the paper's beside both.

    Raises:
        ValueError: If no run of MMoE has gates.
    """
    found = gate_concentration(rows[rows["model"] == "MMoE"])
    printed = paper_gates()
    table: dict[str, dict[str, str | int]] = {}
    for optimiser in _optimisers(found):
        runs = found[found["setting"] == optimiser]
        for number, task in enumerate(TASKS, start=1):
            weights = printed.loc[printed["task"] == number, "weight"]
            table[f"{optimiser}: {task}"] = {
                "runs": len(runs),
                "largest weight: ours": _mean_text(runs[f"largest_{number}"], digits=3),
                "largest weight: paper": f"{weights.max():.3f}",
                "effective experts: ours": _mean_text(runs[f"effective_{number}"], digits=2),
                "effective experts: paper": f"{np.exp(stats.entropy(weights)):.2f}",
            }
    return pd.DataFrame(table).T


def collapse_table(rows: pd.DataFrame, gates: pd.DataFrame) -> pd.DataFrame:
    """How often a gate collapses or an expert dies, and what gate dropout does about it.

    Args:
        rows: Rows of one preset of `data/results/kuairand.csv`; those of OMoE and MMoE are taken.
        gates: Of the same preset of `data/results/kuairand_gates.csv`.

    Returns:
        A row an optimiser and mixture: runs, diverged; percent of the runs with a collapsed gate and with a dead
        expert, with Wilson's 95 % intervals; with dropout also by how many points of engagement AUC it moves
        MMoE at the end of training, paired by seed.

    Raises:
        ValueError: If OMoE, MMoE or MMoE with gate dropout is missing for an optimiser.
    """
    table: dict[str, dict[str, str | int]] = {}
    for optimiser in _optimisers(rows):
        dropped_runs = gates[(gates["optimiser"] == optimiser) & (gates["gate_dropout"] > 0)]
        dropouts = dropped_runs.drop_duplicates("setting")
        if dropouts.empty:
            raise ValueError(
                f"there are no runs of MMoE with {optimiser!r} and gate dropout, expected some: run the study of gates"
            )
        without = trained_runs(rows, optimiser, "MMoE")
        for model in ("OMoE", "MMoE"):
            table[f"{optimiser}: {model}"] = _collapses(rows, optimiser, model)
        for setting, dropout in zip(dropouts["setting"], dropouts["gate_dropout"], strict=True):
            name = f"{optimiser}: MMoE, gate dropout {dropout:g}"
            table[name] = _collapses(gates, setting, "MMoE")
            dropped, paired = paired_runs(trained_runs(gates, setting, "MMoE"), without, f"{name} and MMoE")
            value = "test_engagement_auc_3"
            table[name]["AUC points by dropout"] = _signed(
                *_mean_difference(100 * dropped[value], 100 * paired[value])
            )
    return pd.DataFrame(table).T


def serving_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What each method costs to serve, and how many times Shared-Bottom's cost that is.

    Args:
        rows: `data/results/benchmark_serving.csv`, one row a method.

    Returns:
        A row a method: parameters, those outside the embeddings and multiply-adds of one row, each with the ratio
        to Shared-Bottom's; milliseconds of a request of 1 and of 1,000 rows, half of them (p50) and 99 in 100
        (p99) within; the median over rounds of the ratio of the p50s with the lowest and highest round; both p50s again
        for the model under torch.compile; rows a
        second with its ratio.

    Raises:
        ValueError: If Shared-Bottom is missing.
    """
    base = serving_row(rows, "Shared-Bottom")
    table: dict[str, dict[str, str]] = {}
    for model in _in_order(rows["model"]):
        row = serving_row(rows, model)
        dense, base_dense = (r["parameters"] - r["embedding_parameters"] for r in (row, base))
        table[model] = {
            "parameters": _with_ratio(row["parameters"], base["parameters"]),
            "outside embeddings": _with_ratio(dense, base_dense),
            "multiply-adds": _with_ratio(row["multiply_adds"], base["multiply_adds"]),
        }
        for batch in (1, 1000):
            name = "1 row" if batch == 1 else f"{batch:,} rows"
            ratio = (row[f"ratio_{batch}"], row[f"ratio_{batch}_low"], row[f"ratio_{batch}_high"])
            table[model] |= {
                f"p50 ms, {name}": f"{row[f'p50_ms_{batch}']:.3g}",
                f"p99 ms, {name}": f"{row[f'p99_ms_{batch}']:.3g}",
                f"p50 ratio, {name}": show_interval(*ratio, digits=2),
            }
            compiled = (row[f"compiled_ratio_{batch}{end}"] for end in ("", "_low", "_high"))
            table[model] |= {
                f"compiled p50 ms, {name}": f"{row[f'compiled_p50_ms_{batch}']:.3g}",
                f"compiled p50 ratio, {name}": show_interval(*compiled, digits=2),
            }
        table[model]["rows a second"] = _with_ratio(row["rows_per_second"], base["rows_per_second"])
    return pd.DataFrame(table).T


def serving_row(rows: pd.DataFrame, model: str) -> pd.Series[float]:
    """The one row of a method in `data/results/benchmark_serving.csv`.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = rows[rows["model"] == model]
    if len(found) != 1:
        raise ValueError(
            f"there are {len(found)} rows of {model}, expected one a method: measure the serving cost of all methods"
        )
    return found.iloc[0]


def training_speed_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How fast the MMoE ranker trains at batch 1,024 on one core, a row a contender.

    Args:
        rows: `data/results/benchmark_ranking.csv`.

    Returns:
        Rows a second of all runs together, and how many times those of a plain loop with a DataLoader and of one with
        sliced batches; medians over rounds, for the first with the lowest and highest round.
    """
    table: dict[str, dict[str, str]] = {}
    for row in rows.to_dict("records"):
        name = str(row["kind"]) + ("" if str(row["kind"]).startswith("plain") else f", {row['runs']} runs")
        ratio = (row["ratio"], row["ratio_low"], row["ratio_high"])
        table[name] = {
            "rows a second": f"{row['rows_per_second']:,.0f}",
            "times the DataLoader's": show_interval(*ratio, digits=1),
            "times the sliced loop's": f"{row['ratio_sliced']:.1f}",
        }
    return pd.DataFrame(table).T


def streaming_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Training from a log in memory, the same streamed, and a longer one streamed, a row each.

    Args:
        rows: `data/results/benchmark_streaming.csv`.
    """
    return pd.DataFrame(
        {
            "rows of the log": [f"{value:,.0f}" for value in rows["rows"]],
            "on disk (MB)": [f"{value:,.0f}" for value in rows["disk_mb"]],
            "rows a second": [f"{value:,.0f}" for value in rows["per_second"]],
            "times in memory": [f"{value:.2f}" for value in rows["ratio"]],
            "most memory (MB)": [f"{value:,.0f}" for value in rows["memory_mb"]],
        },
        index=pd.Index(rows["log"], name=None),
    )


def reference_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Engagement AUC and R2 and satisfaction AUC of the models that are no neural network, a row a model and inputs.

    Args:
        rows: Rows of one preset of `data/results/kuairand_references.csv`.
    """
    columns = {
        "test_engagement_auc": "engagement AUC",
        "test_engagement_r2": "engagement R2",
        "test_satisfaction_auc": "satisfaction AUC",
    }
    names = [f"{model}, {setting}" for model, setting in zip(rows["model"], rows["setting"], strict=True)]
    return pd.DataFrame(
        {title: [f"{value:.4f}" for value in rows[column]] for column, title in columns.items()},
        index=pd.Index(names, name="reference"),
    )


def _optimisers(rows: pd.DataFrame) -> list[str]:
    """The settings of rows, SGD first, as the paper prints it."""
    return sorted(dict.fromkeys(rows["setting"]), key=lambda name: (name != "SGD", name))


def _in_order(models: pd.Series[str]) -> list[str]:
    """Methods in the order of the tables, those without a place there last."""
    found = list(dict.fromkeys(models))
    return [name for name in METHODS if name in found] + [name for name in found if name not in METHODS]


def _models(rows: pd.DataFrame, optimiser: str) -> list[str]:
    chosen = rows[rows["setting"] == optimiser]
    if chosen.empty:
        raise ValueError(f"there are no rows of {optimiser!r}, expected some: run the study first")
    return _in_order(chosen["model"])


def _runs(rows: pd.DataFrame, optimiser: str, model: str) -> pd.DataFrame:
    """All runs of a method, one a seed."""
    runs = rows[(rows["setting"] == optimiser) & (rows["model"] == model)]
    if runs.empty:
        raise ValueError(
            f"there are no runs of {model} with {optimiser!r}, expected some of every method: run the study first"
        )
    if runs["seed"].duplicated().any():
        seed = runs.loc[runs["seed"].duplicated(), "seed"].iloc[0]
        raise ValueError(
            f"{model} with {optimiser!r} has seed {seed} twice, expected one row a seed: take the rows of one preset"
        )
    return runs


def _scored(rows: pd.DataFrame, optimiser: str, model: str) -> pd.DataFrame:
    """All runs of a method, with the scores of a run that diverged on the way taken away."""
    runs = _runs(rows, optimiser, model).copy()
    scores = [name for name in runs.columns if name.startswith(("test_", "top_")) or name.endswith("_auc_se")]
    runs[scores] = runs[scores].where(runs["diverged_step"] == 0)
    return runs


def _counts(runs: pd.DataFrame) -> dict[str, str | int]:
    diverged = int((runs["diverged_step"] > 0).sum())
    return {"runs": len(runs) - diverged, "diverged": diverged}


def _mean_text(values: pd.Series[float], digits: int = 4) -> str:
    """Mean and interval of the runs that ended; a mean alone of one, nothing of none."""
    sample = values.dropna()
    if len(sample) > 1:
        return show_interval(*mean_interval(sample), digits=digits)
    return f"{sample.iloc[0]:.{digits}f}" if len(sample) else ""


def _half_width(runs: pd.DataFrame) -> float:
    """Of the 95 % interval of a satisfaction AUC over test rows, in points."""
    return 100 * float(stats.norm.ppf(0.975)) * float(runs["satisfaction_auc_se"].mean())


def _mean_difference(first: ArrayLike, second: ArrayLike) -> tuple[float, float, float]:
    return paired_interval(lambda a, b: (a - b).mean(axis=-1), first, second)


def _percent_change(new: NDArray[np.float64], old: NDArray[np.float64]) -> NDArray[np.float64]:
    change: NDArray[np.float64] = 100 * (new.mean(axis=-1) / old.mean(axis=-1) - 1)
    return change


def _signed(mean: float, low: float, high: float) -> str:
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _with_ratio(number: float, base: float) -> str:
    return f"{number:,.0f} ({number / base:.2f}x)"


def _last_weight(rows: pd.DataFrame) -> int:
    """The number of the last of the weights that were tried, which run from 0 to 1 in equal steps."""
    return sum(name.startswith("top_engagement_") for name in rows.columns) - 1


def _gate_weights(rows: pd.DataFrame, task: int) -> NDArray[np.float64]:
    """Mean weights in a task's gate, (runs, n)."""
    names = [f"gate_{task}_{place}" for place in range(1, len(rows.columns) + 1)]
    return rows[[name for name in names if name in rows]].to_numpy(dtype=np.float64)


def _collapses(rows: pd.DataFrame, setting: str, model: str) -> dict[str, str | int]:
    runs = _runs(rows, setting, model)
    found = gate_concentration(trained_runs(rows, setting, model).reset_index())
    return _counts(runs) | {
        "a gate collapsed (%)": _share(int(found["collapsed"].sum()), len(found)),
        "a dead expert (%)": _share(int(found["dead"].sum()), len(found)),
        "AUC points by dropout": "",
    }


def _share(count: int, number: int) -> str:
    """Percent with Wilson's 95 % interval."""
    interval = stats.binomtest(count, number).proportion_ci(method="wilson")
    return show_interval(100 * count / number, 100 * interval.low, 100 * interval.high, digits=0)
