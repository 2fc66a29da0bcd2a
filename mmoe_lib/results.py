"""Read the paper's numbers and ours, and say how sure a mean is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

DATA = Path(__file__).parents[1] / "data"

SMALL_SAMPLE = 20
"""Below this many runs a mean's interval is Student's: a bootstrap of 5 runs covers the truth 83 times in 100."""


def _read(folder: str, name: str) -> pd.DataFrame:
    path = DATA / folder / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no data/{folder}/{name}.csv, expected it in the repository: clone the whole of it, "
            "the book's numbers are not part of the installed package"
        )
    return pd.read_csv(path)


def read_paper(name: str) -> pd.DataFrame:
    """A table of the paper's published numbers, such as "figure2_label_correlation".

    Raises:
        FileNotFoundError: If the repository's data/ is not there, or holds no such table.
    """
    return _read("paper", name)


def read_results(name: str, preset: str | None = None) -> pd.DataFrame:
    """The rows of one of our studies, such as "census_first"; one row a run.

    Args:
        name: The file's name.
        preset: Only the rows of this preset; None for all.

    Raises:
        FileNotFoundError: If the repository's data/ is not there, or holds no such table.
        ValueError: If there are no rows of this preset.
    """
    rows = _read("results", name)
    chosen = rows if preset is None else rows[rows["preset"] == preset]
    if chosen.empty:
        raise ValueError(f"data/results/{name}.csv has no rows of preset {preset!r}: run its study first")
    return chosen.reset_index(drop=True)


def mean_interval(values: ArrayLike, *, level: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """Mean of independent runs with a confidence interval.

    From `SMALL_SAMPLE` runs on a percentile bootstrap of 10,000 resamples, below it Student's t.

    Args:
        values: One number a run.
        level: Of confidence.
        seed: Of the resampling.

    Returns:
        Mean, lower and upper end.

    Raises:
        ValueError: If there are fewer than two values, or one is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise ValueError(
            f"got {sample.size} values of shape {sample.shape}, expected two or more finite numbers in one row: "
            "an interval needs repeated runs, and diverged ones are to be counted apart"
        )
    mean = float(sample.mean())
    if len(sample) < SMALL_SAMPLE:
        half = stats.t.ppf((1 + level) / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample))
        return mean, mean - float(half), mean + float(half)
    resampled = np.random.default_rng(seed).choice(sample, size=(10_000, len(sample))).mean(axis=1)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def summarise(rows: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Mean, 95 % interval and number of runs of one column for each group of rows.

    Returns:
        One row a group, in order of appearance: the columns `by`, then mean, low, high, runs.
    """
    summaries = [
        (*key, *mean_interval(group[value]), len(group)) for key, group in rows.groupby(list(by), sort=False)
    ]
    return pd.DataFrame(summaries, columns=[*by, "mean", "low", "high", "runs"])


def difference_interval(
    ours: ArrayLike, theirs: ArrayLike, *, level: float = 0.95
) -> tuple[float, float, float]:
    """Difference of two means of independent runs, `ours` minus `theirs`, with Welch's confidence interval.

    Returns:
        Difference, lower and upper end.

    Raises:
        ValueError: If either side has fewer than two values.
    """
    first, second = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"got {len(first)} and {len(second)} runs, expected two or more of each: one run has no spread"
        )
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(level)
    return float(first.mean() - second.mean()), float(interval.low), float(interval.high)


def paired_interval(
    statistic: Callable[..., NDArray[np.float64]], *columns: ArrayLike, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """A statistic of several columns of runs, with the percentile bootstrap's interval of 10,000 resamples of rows.

    Row r of every column is the same seed, so a resample takes the same rows of all.

    Args:
        statistic: Columns (..., N) to (...), computed along the last dimension.
        columns: One number a seed each, all of length N.
        level: Of confidence.
        seed: Of the resampling.

    Returns:
        The statistic of all rows, lower and upper end.

    Raises:
        ValueError: If there are fewer than two rows, lengths differ, or a value is not finite.
    """
    samples = [np.asarray(column, dtype=np.float64) for column in columns]
    lengths = {sample.shape for sample in samples}
    finite = all(bool(np.isfinite(sample).all()) for sample in samples)
    if len(lengths) != 1 or samples[0].ndim != 1 or len(samples[0]) < 2 or not finite:
        raise ValueError(
            f"got columns of shapes {sorted(lengths)}, expected as many finite numbers, two or more, in each: "
            "pairs need both runs, and diverged ones are to be counted apart"
        )
    count = len(samples[0])
    rows = np.random.default_rng(seed).integers(0, count, size=(10_000, count))
    resampled = statistic(*(sample[rows] for sample in samples))
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(statistic(*samples)), float(low), float(high)


def show_interval(mean: float, low: float, high: float, *, digits: int = 4) -> str:
    """The text "mean [low, high]"."""
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


_CENSUS_PAPER = {
    "income": ("table1_census_income", "income_auc_mean"),
    "education": ("table2_census_education", "education_auc_mean"),
}


def census_paper(group: str) -> pd.DataFrame:
    """The paper's mean AUCs of a census group under our names: model, test_main_auc, test_auxiliary_auc."""
    table, main = _CENSUS_PAPER[group]
    names = {main: "test_main_auc", "marital_auc_mean": "test_auxiliary_auc"}
    return read_paper(table)[["model", *names]].rename(columns=names)


def census_table(rows: pd.DataFrame, group: str) -> pd.DataFrame:
    """Our means with 95 % intervals beside the paper's means of 400 runs, a row a model.

    Args:
        rows: Rows of a census study, one a run: model, setting, test_main_auc, test_auxiliary_auc.
        group: "income" or "education".

    Raises:
        ValueError: If there are no rows of that group.
    """
    chosen = rows[rows["setting"] == group]
    if chosen.empty:
        raise ValueError(f"there are no rows of group {group!r}, expected some: run the study first")
    paper = census_paper(group).set_index("model")
    columns: dict[str, dict[str, str | int]] = {}
    for model in dict.fromkeys(chosen["model"]):
        runs = chosen[chosen["model"] == model]
        columns[model] = {"runs": len(runs)}
        for value, title in (("test_main_auc", group), ("test_auxiliary_auc", "never married")):
            columns[model][f"{title}: ours"] = show_interval(*mean_interval(runs[value]))
            columns[model][f"{title}: paper"] = f"{paper.loc[model, value]:.4f}"
    return pd.DataFrame(columns).T


def census_differences(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """How far one model's mean test AUC of the main task lies above each other's, in AUC points (1/100).

    Args:
        rows: Rows of a census study, one a run: model, setting, test_main_auc.
        model: The model that is compared with the others.

    Returns:
        A row a group of tasks, a column an other model, each cell with Welch's 95 % interval; and the
        distance between the largest and the smallest of all the models' means.
    """
    table: dict[str, dict[str, str]] = {}
    for group in dict.fromkeys(rows["setting"]):
        points = 100 * rows[rows["setting"] == group].set_index("model")["test_main_auc"]
        others = [other for other in dict.fromkeys(points.index) if other != model]
        table[group] = {
            f"minus {other}": show_interval(*difference_interval(points[[model]], points[[other]]), digits=2)
            for other in others
        }
        means = points.groupby(level=0).mean()
        table[group]["all means within"] = f"{means.max() - means.min():.2f}"
    return pd.DataFrame(table).T


def loss_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """The stored curves of a synthetic study in long form, without runs that diverged.

    Args:
        rows: Rows of `data/results/synthetic.csv`: model, task_correlation, seed, steps, curve_1, curve_2, ...

    Returns:
        One row a run and point: model, task_correlation, seed, step, loss; the loss is the mean of the steps
        since the point before.
    """
    points = [name for name in rows.columns if name.startswith("curve_")]
    trained = rows[rows["diverged_step"] == 0]
    long = trained.melt(["model", "task_correlation", "seed", "steps"], points, "point", "loss")
    number = long["point"].str.removeprefix("curve_").astype(int)
    long["step"] = number * (long["steps"] // len(points))
    return long[["model", "task_correlation", "seed", "step", "loss"]]


def paper_losses() -> dict[tuple[str, float], float]:
    """The last mean loss of each curve in the paper's figures 3 and 4, by model and task correlation."""
    small = read_paper("figure3_shared_bottom_loss").assign(model="Shared-Bottom-16")
    curves = pd.concat([small, read_paper("figure4_mean_loss")])
    last = curves.sort_values("step_as_printed").drop_duplicates(["model", "task_correlation"], keep="last")
    keys = zip(last["model"], last["task_correlation"], strict=True)
    return dict(zip(((str(model), float(p)) for model, p in keys), last["mean_loss"], strict=True))


def histogram_runs(histogram: pd.DataFrame) -> dict[tuple[str, float], NDArray[np.float64]]:
    """The runs in each panel of the paper's figure 5 by model and correlation, each at the middle of its bin."""
    middle = (histogram["bin_left"] + histogram["bin_right"]) / 2
    runs = {}
    for model, p in dict.fromkeys(zip(histogram["model"], histogram["task_correlation"], strict=True)):
        panel = (histogram["model"] == model) & (histogram["task_correlation"] == p)
        runs[str(model), float(p)] = np.repeat(middle[panel].to_numpy(), histogram.loc[panel, "runs_of_200"])
    return runs


def expert_use(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean gate weights of every run, experts in an order that can be compared between runs.

    Experts have no names of their own: expert 3 of one run is not expert 3 of another. So the experts of each
    run are ranked by how much more task 1 uses them than task 2; rank 1 is the most of task 1's own.

    Args:
        rows: Rows of a synthetic study: task_correlation, seed, gate_1_1 .. gate_2_8.

    Returns:
        One row a run, task and rank: task_correlation, seed, task, rank, weight.
    """
    pieces = []
    for row in rows.to_dict("records"):
        experts = sum(name.startswith("gate_1_") for name in rows.columns)
        weights = np.array([[row[f"gate_{k}_{i + 1}"] for i in range(experts)] for k in (1, 2)])  # (2, n)
        order = np.argsort(weights[1] - weights[0], kind="stable")
        for task in (0, 1):
            pieces.append(
                pd.DataFrame(
                    {
                        "task_correlation": row["task_correlation"],
                        "seed": row["seed"],
                        "task": task + 1,
                        "rank": range(1, experts + 1),
                        "weight": weights[task, order],
                    }
                )
            )
    return pd.concat(pieces, ignore_index=True)


HUMPS = (0.13, 0.27)
"""Where the valleys between the humps of figure 5 lie, in the paper's histograms and in ours."""


HUMP_NAMES = (f"below {HUMPS[0]}", f"{HUMPS[0]} to {HUMPS[1]}", f"above {HUMPS[1]}")


def hump_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Percent of the runs of each model and correlation in the low, the middle and the high hump of losses.

    Args:
        rows: Columns model, task_correlation, loss_1; one row a run. A run without a loss is in no hump.

    Returns:
        Index model and task_correlation; columns "below 0.13", "0.13 to 0.27", "above 0.27".
    """
    inside = pd.DataFrame({name: hump_of(rows["loss_1"]) == name for name in HUMP_NAMES})
    return 100 * inside.groupby([rows["model"], rows["task_correlation"]], sort=False).mean()


def hump_of(losses: pd.Series[float]) -> pd.Series[str]:
    """The name of the hump that each loss lies in, one of `HUMP_NAMES`; none for a run without a loss."""
    bounds = [-np.inf, *HUMPS, np.inf]
    return pd.cut(losses, bounds, labels=list(HUMP_NAMES)).astype("object")


def choice_orders(rows: pd.DataFrame) -> pd.DataFrame:
    """For each choice and correlation, which model has the lowest and which the highest mean loss.

    Args:
        rows: Columns choice, task_correlation, model, loss_1; one row a run.

    Returns:
        Index choice and task_correlation; columns best, worst, and whether Shared-Bottom is worst.
    """
    means = rows.pivot_table(
        index=["choice", "task_correlation"], columns="model", values="loss_1", sort=False
    )
    orders = pd.DataFrame({"best": means.idxmin(axis=1), "worst": means.idxmax(axis=1)})
    return orders.assign(**{"Shared-Bottom worst": orders["worst"] == "Shared-Bottom"})


def choice_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What holds under each choice: gains of both mixtures, and MMoE's gap between correlations, as intervals.

    Args:
        rows: Columns choice, task_correlation (two values), model, seed, loss_1; one row a run.

    Returns:
        A row a choice: Shared-Bottom's loss minus each mixture's at both correlations, and by how much OMoE's gap
        between the correlations exceeds MMoE's, each paired by seed. A seed with a diverged run is left out.
    """
    low, high = sorted(rows["task_correlation"].unique())
    table: dict[str, dict[str, str]] = {}
    for choice in dict.fromkeys(rows["choice"]):
        losses = (
            rows[rows["choice"] == choice]
            .pivot_table(index="seed", columns=["model", "task_correlation"], values="loss_1")
            .dropna()
        )
        column = {key: losses[key].to_numpy() for key in losses.columns}
        table[choice] = {}
        for p in (low, high):
            for model in ("OMoE", "MMoE"):
                interval = paired_interval(
                    lambda a, b: (a - b).mean(axis=-1), column["Shared-Bottom", p], column[model, p]
                )
                table[choice][f"Shared-Bottom's minus {model}'s, p = {p:g}"] = show_interval(
                    *interval, digits=2
                )
        interval = paired_interval(
            lambda a, b, c, d: (a - b - c + d).mean(axis=-1),
            *(column[model, p] for model in ("OMoE", "MMoE") for p in (low, high)),
        )
        table[choice]["OMoE's gap minus MMoE's"] = show_interval(*interval, digits=2)
    return pd.DataFrame(table).T
