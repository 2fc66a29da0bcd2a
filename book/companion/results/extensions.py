"""Chapter 6 in tables: the extensions beside MMoE, more tasks, and rare labels with and without a remedy.

Differences of AUC are in points: hundredths. A difference is said to be one where its 95 % interval and, over the
family that is compared, Holm's correction of its test agree; all else is "no difference shown".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from companion.results.census import learned
from companion.results.intervals import difference_interval, holm, mean_interval, show_interval

BASE = "MMoE"
BETTER, WORSE, NEITHER = "better", "worse", "no difference shown"


def against_base(
    rows: pd.DataFrame, value: str, *, lower_is_better: bool, base: str = BASE, scale: float = 1.0
) -> pd.DataFrame:
    """Every model's runs against those of one model: means, differences, and what they show.

    Args:
        rows: One row a run: the column model and `value`; NaN where a run diverged.
        value: What is compared.
        lower_is_better: Whether a negative difference is a gain.
        base: The model that the others are compared with.
        scale: Multiplies means and differences, 100 for AUC points.

    Returns:
        By model: mean, low, high, runs; difference from the base, difference_low, difference_high (Welch); p_value
        after Holm's correction over all models; verdict, "" for the base itself.

    Raises:
        ValueError: If there are no runs of the base.
    """
    if base not in set(rows["model"]):
        raise ValueError(f"there are no runs of {base}, expected some to compare with: run the study first")
    samples = {
        str(model): scale * group[value].dropna().to_numpy()
        for model, group in rows.groupby("model", sort=False)
    }
    found = pd.DataFrame(
        {model: (*mean_interval(values), len(values)) for model, values in samples.items()},
        index=["mean", "low", "high", "runs"],
    ).T
    others = [model for model in samples if model != base]
    differences = {model: difference_interval(samples[model], samples[base]) for model in others}
    p_values = holm([stats.ttest_ind(samples[m], samples[base], equal_var=False).pvalue for m in others])
    names = ["difference", "difference_low", "difference_high"]
    found[names] = pd.DataFrame(differences, index=names).T.reindex(found.index)
    found["p_value"] = pd.Series(dict(zip(others, p_values, strict=True))).reindex(found.index)
    sign = -1 if lower_is_better else 1
    found["verdict"] = [
        ""
        if model == base
        else _verdict(sign * row["difference"], row["difference_low"], row["difference_high"], row["p_value"])
        for model, row in found.iterrows()
    ]
    return found.astype({"runs": int})


def _verdict(gain: float, low: float, high: float, p_value: float = 0.0) -> str:
    shown = (low > 0 or high < 0) and p_value < 0.05
    return NEITHER if not shown else BETTER if gain > 0 else WORSE


def show_difference(difference: float, low: float, high: float, *, digits: int = 2) -> str:
    """The text "+0.12 [-0.01, +0.25]"."""
    return f"{difference:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


@dataclass(frozen=True)
class Comparisons:
    """The extensions against MMoE, by model.

    Attributes:
        loss: Of the synthetic tasks, task 1.
        main: Points of the census main task's AUC, runs that learned it.
        auxiliary: Points of the other task's.
        dead: Runs on Census-Income that learned nothing of the main task.
        gates: Mean of each measure of the gates on Census-Income, and on the synthetic tasks with "synthetic_".
    """

    loss: pd.DataFrame
    main: pd.DataFrame
    auxiliary: pd.DataFrame
    dead: pd.Series
    gates: pd.DataFrame


def compare_extensions(synthetic: pd.DataFrame, census: pd.DataFrame) -> Comparisons:
    """All extensions against MMoE on both sets.

    Args:
        synthetic: Rows of one preset of `data/results/extensions_gates.csv`.
        census: Rows of one preset of `data/results/extensions_census.csv`.
    """
    able = learned(census)
    measures = ["gate_entropy", "gate_largest", "experts_used", "gate_distance"]
    gates = able.groupby("model", sort=False)[measures].mean()
    there = synthetic.groupby("model", sort=False)[measures].mean().add_prefix("synthetic_")
    return Comparisons(
        against_base(synthetic, "loss_1", lower_is_better=True),
        against_base(able, "test_main_auc", lower_is_better=False, scale=100),
        against_base(able, "test_auxiliary_auc", lower_is_better=False, scale=100),
        (census.groupby("model", sort=False).size() - able.groupby("model", sort=False).size()).astype(int),
        gates.join(there, how="outer"),
    )


def extension_table(
    found: Comparisons, costs: pd.DataFrame, models: Sequence[str], *, base: str = BASE
) -> pd.DataFrame:
    """The comparison of some models as text: differences from MMoE with intervals, cost over MMoE's, advice.

    Args:
        found: From `compare_extensions`.
        costs: By model: columns whose values are shown over the base's, such as multiply-adds.
        models: Rows of the table, in order.
        base: The model that the others are compared with.
    """
    table: dict[str, dict[str, str]] = {}
    for model in models:
        loss = [float(found.loss[name][model]) for name in ("mean", "low", "high")]
        ratios = {str(name): float(costs[name][model] / costs[name][base]) for name in costs}
        table[model] = {
            "synthetic loss": show_interval(*loss, digits=3),
            "minus MMoE's": _difference_text(found.loss, model, digits=3),
            "income, points": _difference_text(found.main, model),
            "never married, points": _difference_text(found.auxiliary, model),
            "dead": f"{found.dead[model]}",
            **{name: f"{ratio:.2f} x" for name, ratio in ratios.items()},
            "advice": "" if model == base else advice(found, model, list(ratios.values())[-1]),
        }
    return pd.DataFrame(table).T


def _difference_text(compared: pd.DataFrame, model: str, *, digits: int = 2) -> str:
    numbers = [float(compared[name][model]) for name in ("difference", "difference_low", "difference_high")]
    return "" if np.isnan(numbers[0]) else show_difference(*numbers, digits=digits)


def advice(found: Comparisons, model: str, cost: float) -> str:
    """One sentence from what the runs show of a model beside MMoE, and from its cost over MMoE's.

    It is a rule: a gain on the real data counts more than one on the synthetic tasks, and no gain is worth no cost.
    """
    loss, main, auxiliary = (
        str(part["verdict"][model]) for part in (found.loss, found.main, found.auxiliary)
    )
    price = (
        "at a higher price" if cost > 1.15 else "at a lower price" if cost < 0.85 else "at about MMoE's price"
    )
    real = {main, auxiliary}
    if WORSE in real and BETTER in real:
        return f"It moves one census task up and the other down, {price}: only if the first is the one that counts."
    if BETTER in real:
        extra = ", and it also trains the hard tasks better" if loss == BETTER else ""
        caution = ", though the hard synthetic tasks lose" if loss == WORSE else ""
        return f"Worth a try, {price}: better on a census task{extra}{caution}."
    if WORSE in real:
        extra = "it helps the hard synthetic tasks and" if loss == BETTER else "it"
        return f"Not on such a table: {extra} loses on a census task, {price}."
    if loss == BETTER:
        return f"Try it where single runs end at very different losses, {price}: no difference on real data."
    if loss == WORSE:
        return f"Leave it, {price}: the hard tasks train worse, and the census tasks gain nothing."
    return f"No reason to change, {price}: no difference shown on either set."


def by_setting(rows: pd.DataFrame, setting: str, value: str) -> pd.DataFrame:
    """Mean and 95 % interval of a value for each model and value of a setting: model, setting, mean, low, high, runs.

    Args:
        rows: One row a run; those that diverged, NaN, are left out.
        setting: Column that is varied, such as num_tasks.
        value: What is averaged.
    """
    records = [
        (model, place, *mean_interval(group[value]), len(group))
        for (model, place), group in rows.dropna(subset=[value]).groupby(["model", setting], sort=False)
    ]
    return pd.DataFrame(records, columns=["model", setting, "mean", "low", "high", "runs"])


def setting_table(summary: pd.DataFrame, setting: str, *, digits: int = 3) -> pd.DataFrame:
    """The same as text, a row a model and a column a value of the setting."""
    text = [
        show_interval(row.mean, row.low, row.high, digits=digits)  # type: ignore[arg-type]
        for row in summary[["mean", "low", "high"]].itertuples(name="Row")
    ]
    return summary.assign(text=text).pivot_table(
        index="model", columns=setting, values="text", aggfunc="first", sort=False
    )


PLAIN = "plain sum"


@dataclass(frozen=True)
class PairedPoints:
    """Mean difference of two ways to train in AUC points, over draws of what is kept.

    Attributes:
        points: The mean.
        low: Lower end of Student's 95 % interval.
        high: Upper end.
        draws: How many there are.
        p_value: Of Student's test, two-sided.
    """

    points: float
    low: float
    high: float
    draws: int
    p_value: float


def paired_points(
    rows: pd.DataFrame, value: str, ours: Mapping[str, object], theirs: Mapping[str, object]
) -> PairedPoints:
    """Two ways to train, compared on the draws that both have.

    Args:
        rows: Rows of one preset of a file `data/results/rare_labels_*.csv`.
        value: A column of AUCs.
        ours: Column to value, of the runs on one side.
        theirs: The same for the other side.

    Raises:
        ValueError: If fewer than two draws have both.
    """
    sides = []
    for wanted in (ours, theirs):
        chosen = rows
        for column, expected in wanted.items():
            chosen = chosen[chosen[column] == expected]
        sides.append(chosen.set_index("seed")[value])
    points = 100 * (sides[0] - sides[1]).dropna()
    if len(points) < 2:
        raise ValueError(
            f"{len(points)} draws have both {dict(ours)} and {dict(theirs)}, expected two or more: run the study first"
        )
    p_value = float(stats.ttest_1samp(points, 0).pvalue)
    # Of differences that are all the same, 0 say, the test knows no p-value.
    p_value = p_value if np.isfinite(p_value) else 0.0 if points.mean() else 1.0
    return PairedPoints(*mean_interval(points), len(points), p_value)


def _compared(
    rows: pd.DataFrame, column: str, base: str, others: Sequence[str]
) -> dict[tuple[str, str], dict[str, float | int | str]]:
    """Others minus the base by (other, task); Holm's correction is over the others, for each task."""
    found: dict[tuple[str, str], dict[str, float | int | str]] = {}
    for task in ("rare", "other"):
        pairs = [paired_points(rows, f"test_{task}_auc", {column: other}, {column: base}) for other in others]
        corrected = holm([pair.p_value for pair in pairs])
        for other, pair, p_value in zip(others, pairs, corrected, strict=True):
            found[other, task] = {
                "points": pair.points,
                "points_low": pair.low,
                "points_high": pair.high,
                "draws": pair.draws,
                "p_value": float(p_value),
                "verdict": _verdict(pair.points, pair.low, pair.high, float(p_value)),
            }
    return found


def pressed_down(rows: pd.DataFrame) -> pd.DataFrame:
    """Does the big task press the small one down: models that share against a network a task, on every share.

    Returns:
        A row a share, model and task ("rare", "other"): share, positives (mean), model, task, auc, low, high; points
        over Single-Task, points_low, points_high; draws; p_value after Holm's correction over the models of a share
        and task; verdict. The last six are NaN for Single-Task.
    """
    records = []
    for share in dict.fromkeys(rows["share"]):
        here = rows[(rows["share"] == share) & (rows["remedy"] == PLAIN)]
        models = [str(model) for model in dict.fromkeys(here["model"])]
        compared = _compared(here, "model", "Single-Task", [m for m in models if m != "Single-Task"])
        for model in models:
            for task in ("rare", "other"):
                runs = here.loc[here["model"] == model, f"test_{task}_auc"].dropna()
                levels = dict(zip(("auc", "low", "high"), mean_interval(runs), strict=True))
                names = {"share": share, "positives": here["positives"].mean(), "model": model, "task": task}
                records.append({**names, **levels, **compared.get((model, task), {})})
    return pd.DataFrame(records)


def remedies(rows: pd.DataFrame, model: str = BASE) -> pd.DataFrame:
    """Which remedy helps: each against the plain sum of losses, same model, same draws.

    Returns:
        A row a share, remedy and task: share, remedy, task, points, points_low, points_high, draws, p_value after
        Holm's correction over the remedies of a share and task, verdict.
    """
    of_model = rows[rows["model"] == model]
    records = []
    for share in dict.fromkeys(of_model["share"]):
        here = of_model[of_model["share"] == share]
        tried = [str(remedy) for remedy in dict.fromkeys(here["remedy"]) if remedy != PLAIN]
        if not tried:
            continue
        for (remedy, task), found in _compared(here, "remedy", PLAIN, tried).items():
            records.append({"share": share, "remedy": remedy, "task": task, **found})
    return pd.DataFrame(records)


def share_name(share: float) -> str:
    """The text "all positives", "1 in 10" or "1 in 100"."""
    return "all positives" if np.isclose(share, 1) else f"1 in {round(1 / share)}"


def points_table(found: pd.DataFrame, row: str) -> pd.DataFrame:
    """Differences of `pressed_down` or `remedies` as text: a row a model or remedy, a column a share and task.

    Args:
        found: One of these.
        row: "model" or "remedy".
    """
    shown = found.dropna(subset=["points"])
    text = [
        show_difference(points, low, high)
        for points, low, high in zip(shown["points"], shown["points_low"], shown["points_high"], strict=True)
    ]
    names = [
        f"{share_name(share)}: {task}" for share, task in zip(shown["share"], shown["task"], strict=True)
    ]
    return shown.assign(text=text, column=names).pivot_table(
        index=row, columns="column", values="text", aggfunc="first", sort=False
    )


def unit_losses(rows: pd.DataFrame) -> pd.DataFrame:
    """Every way to balance two tasks in two units, against the plain sum in the same units.

    Args:
        rows: Rows of one preset of `data/results/extensions_units.csv`.

    Returns:
        A row a unit, remedy and task (1 and 2): unit, remedy, task, and the columns of `against_base`; Holm's
        correction is over the remedies of a unit and task.
    """
    found = []
    for unit, here in rows.groupby("unit", sort=False):
        named = here.assign(model=here["remedy"])
        for task in (1, 2):
            compared = against_base(named, f"loss_{task}", lower_is_better=True, base=PLAIN)
            found.append(compared.rename_axis("remedy").reset_index().assign(unit=unit, task=task))
    return pd.concat(found, ignore_index=True)


def unit_table(found: pd.DataFrame) -> pd.DataFrame:
    """`unit_losses` as text: a row a remedy, a column a unit and task, the loss and its difference from the plain sum."""
    text = [
        show_interval(row.mean, row.low, row.high, digits=2)  # type: ignore[arg-type]
        + ("" if np.isnan(row.difference) else f", {row.difference:+.2f}")  # type: ignore[arg-type]
        + {BETTER: " (better)", WORSE: " (worse)"}.get(str(row.verdict), "")
        for row in found[["mean", "low", "high", "difference", "verdict"]].itertuples(name="Row")
    ]
    names = [f"unit {unit:g}: task {task}" for unit, task in zip(found["unit"], found["task"], strict=True)]
    return (
        found.assign(text=text, column=names)
        .pivot_table(index="remedy", columns="column", values="text", aggfunc="first", sort=False)
        .fillna("not run")
    )


def along_training(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure of the watched runs in each tenth of training: remedy, part (1 to 10), mean, low, high, runs.

    Args:
        rows: Rows of one preset of `data/results/rare_labels_*_gradients.csv`.
        measure: "weight", "ratio", "cosine" or "conflict", as `companion.study.extensions.gradients` names them.
    """
    parts = rows.filter(regex=f"^{measure}_").assign(remedy=rows["remedy"])
    long = parts.melt(id_vars=["remedy"], var_name="part", value_name=measure)
    long["part"] = long["part"].str.rsplit("_", n=1).str[1].astype(int)
    named = long.rename(columns={"remedy": "model"})
    return by_setting(named, "part", measure).rename(columns={"model": "remedy", "setting": "part"})
