"""Tables 1 and 2 of the paper beside ours, and what moves an AUC on Census-Income.

Differences are in AUC points: hundredths, so that 0.9410 lies 0.02 points above 0.9408.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from companion.results.intervals import difference_interval, holm, mean_interval, show_interval
from companion.results.reading import read_paper

_PAPER = {
    "income": ("table1_census_income", "income_auc_mean", "income_auc_best", "marital_auc_at_best_income"),
    "education": (
        "table2_census_education",
        "education_auc_mean",
        "education_auc_best",
        "marital_auc_at_best_education",
    ),
}


def census_paper(group: str, *, best: bool = False) -> pd.DataFrame:
    """The paper's AUCs of a census group under our names: model, test_main_auc, test_auxiliary_auc.

    Args:
        group: "income" (table 1) or "education" (table 2).
        best: The run with the best main-task AUC instead of the mean of 400.
    """
    table, mean, best_main, at_best = _PAPER[group]
    names = (
        {best_main: "test_main_auc", at_best: "test_auxiliary_auc"}
        if best
        else {mean: "test_main_auc", "marital_auc_mean": "test_auxiliary_auc"}
    )
    return read_paper(table)[["model", *names]].rename(columns=names)


def balanced(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs whose seeds every method has on every group, so that all means are of as many runs.

    While a study is under way some methods are a chunk ahead.
    """
    pairs = rows[["model", "setting"]].drop_duplicates()
    runs = rows.groupby("seed")["model"].transform("size")
    return rows[runs == len(pairs)].reset_index(drop=True)


LEARNED_NOTHING = 0.55
"""A main-task AUC below this: the run gives (nearly) everyone the same score. None lies between 0.51 and 0.87."""


def learned(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs that learned the main task at all; the others are counted beside them, by `stuck_table`."""
    return rows[~(rows["test_main_auc"] < LEARNED_NOTHING)].reset_index(drop=True)


def stuck_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How many runs learned nothing of their main task, a row a method.

    Args:
        rows: Rows of a census study, one a run.

    Returns:
        For each group the number of such runs of all, and their share in percent with Wilson's 95 % interval over
        both groups.
    """
    stuck = rows["test_main_auc"] < LEARNED_NOTHING
    table: dict[str, dict[str, str]] = {}
    for model in dict.fromkeys(rows["model"]):
        of_model = rows["model"] == model
        table[model] = {}
        for group in dict.fromkeys(rows["setting"]):
            chosen = of_model & (rows["setting"] == group)
            table[model][group] = f"{int((stuck & chosen).sum())} of {int(chosen.sum())}"
        interval = stats.binomtest(int((stuck & of_model).sum()), int(of_model.sum())).proportion_ci(
            method="wilson"
        )
        share = 100 * float(stuck[of_model].mean())
        table[model]["both (%)"] = show_interval(
            share, 100 * float(interval.low), 100 * float(interval.high), digits=1
        )
    return pd.DataFrame(table).T


def _trained(rows: pd.DataFrame, group: str) -> pd.DataFrame:
    """The runs of a group that did not diverge.

    Raises:
        ValueError: If there are none.
    """
    chosen = rows[rows["setting"] == group]
    if chosen.empty:
        raise ValueError(f"there are no rows of group {group!r}, expected some: run the study first")
    return chosen.dropna(subset=["test_main_auc", "test_auxiliary_auc"])


def census_table(rows: pd.DataFrame, group: str) -> pd.DataFrame:
    """Our means with 95 % intervals and standard deviations beside the paper's means of 400 runs, a row a method.

    The main task's mean over all runs stands beside that of the runs that learned it (see `LEARNED_NOTHING`), whose
    standard deviation is shown.

    Args:
        rows: Rows of a census study, one a run: model, setting, test_main_auc, test_auxiliary_auc.
        group: "income" or "education".

    Raises:
        ValueError: If there are no rows of that group.
    """
    trained = _trained(rows, group)
    paper = census_paper(group).set_index("model")
    columns: dict[str, dict[str, str | int]] = {}
    for model in dict.fromkeys(trained["model"]):
        runs = trained[trained["model"] == model]
        main, auxiliary = runs["test_main_auc"], runs["test_auxiliary_auc"]
        able = main[main >= LEARNED_NOTHING]
        columns[model] = {
            "runs": len(runs),
            "learned nothing": len(runs) - len(able),
            f"{group}: all runs": show_interval(*mean_interval(main)),
            f"{group}: runs that learned": show_interval(*mean_interval(able)) if len(able) > 1 else "",
            f"{group}: sd of these": f"{able.std():.4f}" if len(able) > 1 else "",
            f"{group}: paper": f"{paper.loc[model, 'test_main_auc']:.4f}",
            "never married: ours": show_interval(*mean_interval(auxiliary)),
            "never married: paper": f"{paper.loc[model, 'test_auxiliary_auc']:.4f}",
        }
    return pd.DataFrame(columns).T


def census_best(rows: pd.DataFrame, group: str) -> pd.DataFrame:
    """The best run of each method: chosen on validation, as one may, and chosen on test, to compare with the paper.

    The paper does not say on which half its best run was chosen.

    Args:
        rows: As for `census_table`, with validation_main_auc.
        group: "income" or "education".

    Returns:
        A row a method: test AUC of both tasks for each choice, and the paper's.
    """
    trained, paper = _trained(rows, group), census_paper(group, best=True).set_index("model")
    table: dict[str, dict[str, str]] = {}
    for model in dict.fromkeys(trained["model"]):
        runs = trained[trained["model"] == model]
        by_validation, by_test = (
            runs.loc[runs[f"{part}_main_auc"].idxmax()] for part in ("validation", "test")
        )
        table[model] = {}
        for value, title in (("test_main_auc", group), ("test_auxiliary_auc", "never married")):
            table[model][f"{title}: chosen on validation"] = f"{by_validation[value]:.4f}"
            table[model][f"{title}: chosen on test"] = f"{by_test[value]:.4f}"
            table[model][f"{title}: paper"] = f"{paper.loc[model, value]:.4f}"
    return pd.DataFrame(table).T


def pairwise_differences(rows: pd.DataFrame, group: str, value: str = "test_main_auc") -> pd.DataFrame:
    """Every pair of methods: the difference of their means in AUC points, and whether it is more than chance.

    Runs of two methods share nothing but the order of the rows, so they are compared as independent samples: Welch's
    interval and test, the p-values of all pairs corrected by Holm's method.

    Args:
        rows: As for `census_table`.
        group: "income" or "education".
        value: Which AUC.

    Returns:
        One row a pair: first, second, points (first minus second), low, high (95 %, of the pair alone), p_value
        (corrected).
    """
    trained = _trained(rows, group)
    samples = {
        model: 100 * trained.loc[trained["model"] == model, value].to_numpy()
        for model in dict.fromkeys(trained["model"])
    }
    pairs = []
    for first, second in itertools.combinations(samples, 2):
        interval = difference_interval(samples[first], samples[second])
        test = stats.ttest_ind(samples[first], samples[second], equal_var=False)
        pairs.append((first, second, *interval, float(test.pvalue)))
    table = pd.DataFrame(pairs, columns=["first", "second", "points", "low", "high", "p_value"])
    return table.assign(p_value=holm(table["p_value"]))


def pairwise_table(differences: pd.DataFrame) -> pd.DataFrame:
    """`pairwise_differences` as a square: row minus column in AUC points, a star where Holm's p-value is below 0.05."""
    names = list(dict.fromkeys([*differences["first"], *differences["second"]]))
    square = pd.DataFrame("", index=names, columns=names)
    for pair in differences.to_dict("records"):
        star = "*" if pair["p_value"] < 0.05 else ""
        square.loc[pair["first"], pair["second"]] = f"{pair['points']:+.2f}{star}"
        square.loc[pair["second"], pair["first"]] = f"{-pair['points']:+.2f}{star}"
    return square


def census_order(
    rows: pd.DataFrame, group: str, value: str = "test_main_auc", *, resamples: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """The order of the methods' means, and how sure it is: a bootstrap of the runs of each.

    Args:
        rows: As for `census_table`.
        group: "income" or "education".
        value: Which AUC.
        resamples: How often the runs are drawn anew, with replacement, and the means ranked.
        seed: Of the resampling.

    Returns:
        A row a method, best first: mean, rank in the paper, rank (1 is best), low and high (95 % of the
        resampled ranks), first (percent of the resamples in which it is best).
    """
    trained, generator = _trained(rows, group), np.random.default_rng(seed)
    models = list(dict.fromkeys(trained["model"]))
    means, resampled = [], []
    for model in models:
        sample = trained.loc[trained["model"] == model, value].to_numpy()
        means.append(sample.mean())
        resampled.append(generator.choice(sample, size=(resamples, len(sample))).mean(axis=1))
    ranks = stats.rankdata(-np.stack(resampled), axis=0)  # (methods, resamples)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=1)
    paper = census_paper(group).set_index("model")[value].rank(ascending=False, method="min")
    table = pd.DataFrame(
        {
            "mean": np.round(means, 4),
            "rank in the paper": [int(paper[model]) for model in models],
            "rank": stats.rankdata(-np.array(means)).astype(int),
            "low": low.astype(int),
            "high": high.astype(int),
            "first": np.round(100 * (ranks == 1).mean(axis=1), 1),
        },
        index=pd.Index(models, name="method"),
    )
    return table.sort_values("rank", kind="stable")


def changes_table(
    rows: pd.DataFrame,
    group: str,
    baseline: str = "as in the study",
) -> pd.DataFrame:
    """How many AUC points each change moves the main task, a row a change and method.

    Args:
        rows: Rows of `data/results/census_choices.csv`, with group, change and model.
        group: "income" or "education".
        baseline: What the changes are compared with.

    Returns:
        Columns change, model, points, low, high (Welch's 95 % interval), runs, diverged.
    """
    found = []
    of_group = rows[rows["group"] == group]
    change = of_group["change"]
    for model in dict.fromkeys(of_group.loc[change == baseline, "model"]):
        points = 100 * of_group.loc[of_group["model"] == model, "test_main_auc"]
        base = points[change == baseline].dropna()
        for name in dict.fromkeys(change):
            if name == baseline or name not in set(change[of_group["model"] == model]):
                continue
            sample = points[change == name]
            trained = sample.dropna()
            interval = difference_interval(trained, base) if len(trained) > 1 else (np.nan,) * 3
            found.append((name, model, *interval, len(sample), len(sample) - len(trained)))
    return pd.DataFrame(found, columns=["change", "model", "points", "low", "high", "runs", "diverged"])


def tucker_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, lowest and highest test AUC of Tensor-Factorization under each setting, both groups side by side.

    Args:
        rows: Rows of `data/results/census_tucker.csv`, with group and change.
    """
    table: dict[str, dict[str, str]] = {}
    for (group, name), runs in rows.groupby(["group", "change"], sort=False):
        titles = {"test_main_auc": str(group), "test_auxiliary_auc": f"never married ({group})"}
        for value, title in titles.items():
            sample = runs[value]
            text = f"{sample.mean():.4f} ({sample.min():.4f} to {sample.max():.4f})"
            table.setdefault(str(name), {})[title] = text
    return pd.DataFrame(table).T


def cost_table(benchmark: pd.DataFrame, steps: Mapping[str, int]) -> pd.DataFrame:
    """What a run and an answer cost, a row a method.

    Args:
        benchmark: `data/results/benchmark_census.csv`.
        steps: Of one run, by method.

    Returns:
        Seconds a run in a plain loop over one model and as one of many trained together, both on one core; how many
        times faster; its share of the speed of a plain matrix product; milliseconds for one row and for 4,096.
    """
    table: dict[str, dict[str, str]] = {}
    for method, number in steps.items():
        rows = benchmark[benchmark["model"] == method]
        plain = rows[rows["kind"] == "plain loop"].iloc[0]
        many = rows[rows["kind"].str.startswith("ensemble")].iloc[0]
        answers = rows[rows["kind"] == "inference"].set_index("batch")["p50_ms"]
        table[method] = {
            "s a run, plain loop": f"{number / plain['per_second']:.1f}",
            "s a run, many at once": f"{number / many['per_second']:.1f}",
            "x": f"{many['per_second'] / plain['per_second']:.1f}",
            "share of peak": f"{many['peak_share']:.2f}",
            "ms, 1 row": f"{answers[1]:.3f}",
            "ms, 4,096 rows": f"{answers[4096]:.1f}",
        }
    return pd.DataFrame(table).T


def alpha_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean test AUC of L2-Constrained with 95 % intervals for several strengths of its pull, both groups.

    Args:
        rows: Rows of `data/results/census_choices.csv`, with group and alpha.
    """
    table: dict[str, dict[str, str | int]] = {}
    for (group, alpha), runs in rows.dropna(subset=["alpha"]).groupby(["group", "alpha"], sort=False):
        sample = runs["test_main_auc"].dropna()
        told = table.setdefault(f"{alpha:g}", {"runs": len(sample)})
        told[str(group)] = show_interval(*mean_interval(sample))
    found = pd.DataFrame(table).T
    found.index.name = "alpha"
    return found
