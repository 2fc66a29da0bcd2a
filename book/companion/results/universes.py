"""Tables of the universes: how near to the paper's figures, and in what share of them each difference is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from companion.results.intervals import (
    SMALL_SAMPLE,
    difference_interval,
    mean_interval,
    paired_interval,
    show_interval,
)
from companion.results.reading import read_independent

Array = NDArray[np.float64]
Setting = tuple[str, float]
"""A model and a task correlation."""

BAND = 1 / 30
"""One bin of the paper's figure 5: a smaller difference of losses does not matter here."""
STUCK = 0.3
"""A loss above it belongs to the upper hump of figure 5: of a run that got stuck."""
FEATURES = (
    "sines",
    "signal_variance",
    "linear_share",
    "even_share",
    "roughness",
    "slowest",
    "fastest",
    "slow_sines",
    "middle_sines",
    "fast_sines",
)
"""Of a universe's label, by which a difference may be predicted; with its batch, rate and initial weights."""


@dataclass(frozen=True)
class Difference:
    """A difference of mean losses over both tasks that is asked of every universe.

    Attributes:
        name: How it is called.
        first: From this setting's mean,
        second: this one's is taken.
    """

    name: str
    first: Setting
    second: Setting


def _at(p: float, first: str, second: str) -> Difference:
    return Difference(f"{first} minus {second} at p = {p:g}", (first, p), (second, p))


DIFFERENCES = (
    *(
        Difference(f"{model}: p = 0.5 minus 1", (model, 0.5), (model, 1.0))
        for model in ("Shared-Bottom", "OMoE", "MMoE")
    ),
    *(_at(p, "Shared-Bottom", "MMoE") for p in (0.5, 1.0)),
    *(_at(p, "Shared-Bottom", "OMoE") for p in (0.5, 1.0)),
    *(_at(p, "OMoE", "MMoE") for p in (0.5, 1.0)),
    _at(0.5, "Shared-Bottom", "Single-Task"),
    _at(0.5, "MMoE", "Single-Task"),
    *(_at(p, "Shared-Bottom-96-32", "MMoE") for p in (0.5, 1.0)),
    *(_at(p, "Shared-Bottom", "Shared-Bottom-96-32") for p in (0.5, 1.0)),
)
"""What is asked; the first eleven have been asked by independent code too."""


def both_tasks(rows: pd.DataFrame) -> pd.Series[float]:
    """The mean of both tasks' final losses of each run: the tasks are alike, so neither is the reported one."""
    return rows[["loss_1", "loss_2"]].mean(axis=1, skipna=False)


def runs_of(rows: pd.DataFrame) -> dict[tuple[str, float], pd.Series[float]]:
    """Losses over both tasks by model and correlation, each by seed; runs that diverged are left out."""
    trained = rows[rows["diverged_step"] == 0]
    losses = both_tasks(trained).set_axis(trained["seed"])
    keys = [trained["model"].to_numpy(), trained["task_correlation"].to_numpy()]
    return {
        (str(model), float(str(p))): values
        for (model, p), values in losses.groupby([pd.Series(key, losses.index) for key in keys], sort=False)
    }


def difference_of(
    runs: Mapping[tuple[str, float], pd.Series[float]], difference: Difference
) -> tuple[float, float, float]:
    """A difference of means with its 95 % interval: paired by seed where both have the same, else Welch's.

    Raises:
        KeyError: If a setting has no runs.
    """
    first, second = runs[difference.first], runs[difference.second]
    shared = first.index.intersection(second.index)
    if len(shared) == len(first) == len(second):
        return paired_interval(
            lambda a, b: (a - b).mean(axis=-1), first.loc[shared].to_numpy(), second.loc[shared].to_numpy()
        )
    return difference_interval(first.to_numpy(), second.to_numpy())


def leads_of(rows: pd.DataFrame, model: str, rivals: Sequence[str]) -> pd.DataFrame:
    """By how much lower a model's mean loss over both tasks is than each rival's at p = 0.5 and 1, with 95 % intervals.

    Columns: model (the rival), task_correlation, mean, low, high.

    Raises:
        KeyError: If a setting has no runs.
    """
    runs = runs_of(rows)
    found = [
        (rival, p, *difference_of(runs, Difference("", (rival, p), (model, p))))
        for rival in rivals
        for p in (0.5, 1.0)
    ]
    return pd.DataFrame(found, columns=["model", "task_correlation", "mean", "low", "high"])


def complete_universes(survey: pd.DataFrame) -> list[int]:
    """The universes in which every setting that `DIFFERENCES` ask for has been run, all with as many runs.

    Args:
        survey: Rows of `data/results/universes_survey.csv`, of one preset.
    """
    needed = {setting for one in DIFFERENCES for setting in (one.first, one.second)}
    found = []
    for universe, rows in survey.groupby("universe"):
        counts = rows.groupby(["model", "task_correlation"]).size()
        if needed <= set(counts.index) and counts.min() == counts.max():
            found.append(int(str(universe)))
    return found


def universe_differences(survey: pd.DataFrame) -> pd.DataFrame:
    """All of `DIFFERENCES` in every universe that has the runs for them.

    Args:
        survey: Rows of `data/results/universes_survey.csv`, of one preset.

    Returns:
        One row a universe and difference: universe, difference, estimate, low, high, runs.
    """
    found = []
    for universe, rows in survey.groupby("universe"):
        runs = {setting: values for setting, values in runs_of(rows).items() if len(values) > 1}
        for difference in DIFFERENCES:
            if {difference.first, difference.second} <= set(runs):
                fewest = min(len(runs[difference.first]), len(runs[difference.second]))
                found.append((universe, difference.name, *difference_of(runs, difference), fewest))
    return pd.DataFrame(found, columns=["universe", "difference", "estimate", "low", "high", "runs"])


def universe_shares(differences: pd.DataFrame, band: float = BAND) -> pd.DataFrame:
    """In what share of the universes each difference is there, with exact 95 % intervals.

    Args:
        differences: As `universe_differences` gives them.
        band: Below this a difference does not matter.

    Returns:
        Index difference; universes; mean and median over them; positive with positive_low and positive_high,
        Clopper and Pearson's interval; interval_above and interval_below, the shares whose own interval leaves out 0;
        above_band, below_band and inside_band of the estimates.
    """
    table = {}
    for name, rows in differences.groupby("difference", sort=False):
        estimate, count = rows["estimate"], len(rows)
        positive = stats.binomtest(int((estimate > 0).sum()), count).proportion_ci(0.95, "exact")
        table[name] = {
            "universes": count,
            "mean": estimate.mean(),
            "median": estimate.median(),
            "positive": (estimate > 0).mean(),
            "positive_low": positive.low,
            "positive_high": positive.high,
            "interval_above": (rows["low"] > 0).mean(),
            "interval_below": (rows["high"] < 0).mean(),
            "above_band": (estimate > band).mean(),
            "below_band": (estimate < -band).mean(),
            "inside_band": (estimate.abs() <= band).mean(),
        }
    return pd.DataFrame(table).T.rename_axis("difference")


def shares_beside_independent(shares: pd.DataFrame) -> pd.DataFrame:
    """Our shares beside those of independent code, row by row, and whether they agree.

    They agree where the independent share of positive differences lies in the exact interval of ours; its own
    uncertainty, of 160 or 320 universes, is added by Fisher's exact test.

    Args:
        shares: As `universe_shares` gives them.

    Returns:
        Index difference; ours and theirs as text, and the test's two-sided p-value.
    """
    theirs = read_independent("universe_shares").set_index("difference").to_dict("index")
    ours = shares.to_dict("index")
    table = {}
    for name, other in theirs.items():
        if name not in ours:
            continue
        own = ours[name]
        counts = [
            [round(share * universes), round((1 - share) * universes)]
            for share, universes in (
                (float(row["positive"]), float(row["universes"])) for row in (own, other)
            )
        ]
        table[name] = {
            "ours: mean": f"{own['mean']:+.3f}",
            "theirs: mean": f"{other['mean']:+.3f}",
            "ours: share above 0": (
                f"{own['positive']:.2f} [{own['positive_low']:.2f}, {own['positive_high']:.2f}]"
            ),
            "theirs: share above 0": f"{other['positive']:.2f}",
            "ours: above the band": f"{own['above_band']:.2f}",
            "theirs: above the band": f"{other['above_band']:.2f}",
            "Fisher's p": f"{float(stats.fisher_exact(counts).pvalue):.2f}",
        }
    return pd.DataFrame(table).T.rename_axis("difference")


def panel_distance(losses: Array, printed: Array) -> float:
    """Wasserstein-1 distance between final losses and those of a panel of figure 5."""
    return float(stats.wasserstein_distance(losses, printed))


def figure_distance(
    panels: Mapping[Setting, Array], paper: Mapping[Setting, Array]
) -> tuple[float, dict[Setting, float]]:
    """The mean over the panels of figure 5 of their distances, and each.

    Args:
        panels: Losses of one task by model and correlation.
        paper: `histogram_runs` of the paper's figure 5.

    Raises:
        ValueError: If a panel of the paper's has no runs.
    """
    missing = [setting for setting in paper if setting not in panels or len(panels[setting]) == 0]
    if missing:
        raise ValueError(f"there are no runs of {missing[0]}, expected some of every panel: run the study")
    each = {setting: panel_distance(panels[setting], paper[setting]) for setting in paper}
    return float(np.mean(list(each.values()))), each


def losses_of_task_1(rows: pd.DataFrame, column: str = "loss_1") -> dict[Setting, Array]:
    """One column of the runs that did not diverge, by model and correlation."""
    trained = rows[rows["diverged_step"] == 0]
    return {
        (str(model), float(str(p))): group[column].to_numpy(dtype=np.float64)
        for (model, p), group in trained.groupby(["model", "task_correlation"], sort=False)
    }


def losses_of_both_tasks(rows: pd.DataFrame) -> dict[Setting, Array]:
    """Final losses of either task of the runs that did not diverge, by model and correlation: two a run."""
    first, second = losses_of_task_1(rows), losses_of_task_1(rows, "loss_2")
    return {setting: np.concatenate([first[setting], second[setting]]) for setting in first}


def figure_5_edges(histogram: pd.DataFrame) -> Array:
    """The edges of the paper's bins.

    Args:
        histogram: `read_paper("figure5_final_loss_histogram")`.
    """
    return np.append(np.sort(histogram["bin_left"].unique()), histogram["bin_right"].max()).astype(np.float64)


def losses_in_bins(losses: Array, edges: Array) -> NDArray[np.int64]:
    """How many losses lie in each bin; those above the last edge are counted in the last bin."""
    return np.histogram(losses.clip(max=edges[-1]), edges)[0].astype(np.int64)


def distance_over_steps(rows: pd.DataFrame, paper: Mapping[Setting, Array]) -> pd.DataFrame:
    """How far the training losses of task 1 are from figure 5 as training goes on.

    Args:
        rows: Runs of its three models at the three correlations, with their curves.
        paper: `histogram_runs` of the paper's figure 5.

    Returns:
        One row a point of the curves: step, distance (the mean over the nine panels).
    """
    settings = pd.MultiIndex.from_frame(rows[["model", "task_correlation"]])
    chosen = rows[settings.isin(list(paper))]
    points = [name for name in rows.columns if str(name).startswith("curve_")]
    steps = int(rows["steps"].iloc[0])
    found = []
    for number, name in enumerate(points, start=1):
        distance, _ = figure_distance(losses_of_task_1(chosen, name), paper)
        found.append((number * (steps // len(points)), distance))
    return pd.DataFrame(found, columns=["step", "distance"])


def distance_noise(paper: Mapping[Setting, Array], runs: int, *, repeats: int = 200, seed: int = 0) -> Array:
    """The distance of figure 5 from itself: of as many runs drawn from its own histograms, each within its bin.

    What is due to the draw shrinks with the root of the runs; a quarter of a bin is left, since the printed runs stand
    at the middle of their bins, as they do beside ours.

    Args:
        paper: `histogram_runs` of the paper's figure 5, at the middle of bins of 1/30.
        runs: Of each panel.
        repeats: How often they are drawn.
        seed: Of the draws.

    Returns:
        Mean distances over the panels, (repeats,).
    """
    random = np.random.default_rng(seed)
    return np.array(
        [
            np.mean(
                [
                    panel_distance(
                        random.choice(printed, runs) + random.uniform(-BAND / 2, BAND / 2, runs), printed
                    )
                    for printed in paper.values()
                ]
            )
            for _ in range(repeats)
        ]
    )


def setting_levels(rows: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Mean loss over both tasks, the share of stuck runs, and how many, of each model and correlation.

    Returns:
        One row a model and correlation that has two runs or more: model, task_correlation, mean, low, high, stuck
        (of all losses of either task), stuck_low and stuck_high (exact), runs, diverged.
    """
    found = []
    for model in models:
        of_model = rows[rows["model"] == model]
        for p, group in of_model.groupby("task_correlation"):
            trained = group[group["diverged_step"] == 0]
            if len(trained) < 2:
                continue
            losses = trained[["loss_1", "loss_2"]].to_numpy()
            stuck = stats.binomtest(int((losses > STUCK).sum()), losses.size)
            share = stuck.proportion_ci(0.95, "exact")
            found.append(
                (
                    *(model, p, *mean_interval(both_tasks(trained))),
                    *(stuck.statistic, share.low, share.high, len(trained), len(group) - len(trained)),
                )
            )
    names = [
        "model",
        "task_correlation",
        "mean",
        "low",
        "high",
        "stuck",
        "stuck_low",
        "stuck_high",
        "runs",
        "diverged",
    ]
    return pd.DataFrame(found, columns=names)


def _points_of_both(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """The mean of both tasks' curves, a column a point, with model, task_correlation and seed as index; and the steps."""
    trained = rows[rows["diverged_step"] == 0]
    first = [name for name in rows.columns if str(name).startswith("curve_")]
    second = [f"second_{name}" for name in first]
    steps = [place * (int(rows["steps"].iloc[0]) // len(first)) for place in range(1, len(first) + 1)]
    means = (trained[first].to_numpy(float) + trained[second].to_numpy(float)) / 2
    index = pd.MultiIndex.from_frame(trained[["model", "task_correlation", "seed"]])
    return pd.DataFrame(means, index=index, columns=steps), steps


def curve_of_both(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """One model's training loss, the mean of both tasks, over the steps.

    Args:
        rows: Runs with the curves of both tasks.
        model: Whose.

    Returns:
        One row a correlation and point: task_correlation, step, mean, low, high.
    """
    points, steps = _points_of_both(rows[rows["model"] == model])
    found = [
        (p, step, *mean_interval(group[step]))
        for p, group in points.groupby("task_correlation")
        for step in steps
    ]
    return pd.DataFrame(found, columns=["task_correlation", "step", "mean", "low", "high"])


def nearest_step(curve: pd.DataFrame, levels: Mapping[float, float]) -> int:
    """The step at which a model's mean losses are nearest to given levels, in mean absolute distance.

    Args:
        curve: As `curve_of_both` gives it.
        levels: By task correlation.
    """
    wide = curve.pivot_table(index="step", columns="task_correlation", values="mean")[list(levels)]
    return int(str((wide - pd.Series(levels)).abs().mean(axis=1).idxmin()))


def lead_over_steps(rows: pd.DataFrame, first: str, second: str, steps: Sequence[int]) -> pd.DataFrame:
    """How much lower the second model's training loss is, at the points of the curves next to some steps.

    Args:
        rows: Runs with the curves of both tasks.
        first: The model from whose loss
        second: this one's is taken.
        steps: Where.

    Returns:
        Index step, a column a correlation, as text with 95 % intervals, paired by seed.
    """
    points, noted = _points_of_both(rows[rows["model"].isin([first, second])])
    table: dict[str, dict[str, str]] = {}
    for p in sorted(points.index.get_level_values("task_correlation").unique()):
        losses = {
            model: points.xs((model, p), level=("model", "task_correlation")) for model in (first, second)
        }
        shared = losses[first].index.intersection(losses[second].index)
        column = {}
        for asked in steps:
            step = min(noted, key=lambda one: abs(one - asked))
            pair = [losses[model].loc[shared, step].to_numpy() for model in (first, second)]
            interval = paired_interval(lambda a, b: (a - b).mean(axis=-1), *pair)
            column[f"{step:,}"] = show_interval(*interval, digits=3)
        table[f"p = {p:g}"] = column
    return pd.DataFrame(table).rename_axis("step")


def noise_leads(rows: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """How much lower the second model's loss is at each noise and correlation, paired by seed.

    Args:
        rows: Of a study of noise: model, task_correlation, noise_variance, seed, loss_1, loss_2, diverged_step.
        first: The model from whose loss
        second: this one's is taken.

    Returns:
        One row a noise variance and correlation that has two runs or more of both: noise_variance, task_correlation,
        estimate, low, high, runs.
    """
    found = []
    for (variance, correlation), group in rows.groupby(["noise_variance", "task_correlation"]):
        runs = {setting: values for setting, values in runs_of(group).items() if len(values) > 1}
        p = float(str(correlation))
        if {(first, p), (second, p)} <= set(runs):
            interval = difference_of(runs, Difference("", (first, p), (second, p)))
            found.append((variance, p, *interval, min(len(runs[first, p]), len(runs[second, p]))))
    return pd.DataFrame(
        found, columns=["noise_variance", "task_correlation", "estimate", "low", "high", "runs"]
    )


def surrogate_skill(differences: pd.DataFrame, labels: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How well a universe's own choices predict each difference: cross-validated R2 of extremely random trees.

    A value of 0 or less says that the mean of the other universes predicts as well.

    Args:
        differences: As `universe_differences` gives them.
        labels: Rows of `data/results/universes.csv`: seed (the universe), `FEATURES`, own_batch_size, own_rate,
            own_initialiser.
        seed: Of the trees and folds.

    Returns:
        Index difference: skill, the choice that says most (by permutation), and universes. Differences of fewer
        universes than an interval needs (`SMALL_SAMPLE`) are left out.
    """
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold, cross_val_predict

    known = labels.set_index("seed")
    inputs = known[[*FEATURES, "own_batch_size", "own_rate"]].assign(
        glorot=(known["own_initialiser"] == "glorot").astype(float)
    )
    table = {}
    for name, rows in differences.groupby("difference", sort=False):
        if len(rows) < SMALL_SAMPLE:
            continue
        x, y = inputs.loc[rows["universe"]], rows["estimate"].to_numpy()
        trees = ExtraTreesRegressor(200, min_samples_leaf=3, random_state=seed)
        predicted = cross_val_predict(trees, x, y, cv=KFold(5, shuffle=True, random_state=seed))
        importance = permutation_importance(trees.fit(x, y), x, y, n_repeats=3, random_state=seed)
        table[name] = {
            "skill": 1 - float(((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum()),
            "says most": x.columns[int(importance["importances_mean"].argmax())],
            "universes": len(rows),
        }
    return pd.DataFrame(table).T.rename_axis("difference")
