"""Tables of the synthetic study."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion.results.intervals import paired_interval, show_interval
from companion.results.reading import read_paper


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


def expert_use(rows: pd.DataFrame, by: str = "task_correlation") -> pd.DataFrame:
    """Mean gate weights of every run, experts in an order that can be compared between runs.

    Experts have no names of their own: expert 3 of one run is not expert 3 of another. So the experts of each
    run are ranked by how much more task 1 uses them than task 2; rank 1 is the most of task 1's own.

    Args:
        rows: Rows of a study: the column `by`, seed, gate_1_1 .. gate_2_8; NaN where a run has fewer experts.
        by: The column that is kept beside the seed: "task_correlation", or "setting" for the groups of census.

    Returns:
        One row a run, task and rank: `by`, seed, task, rank, weight.
    """
    pieces = []
    for row in rows.to_dict("records"):
        experts = sum(name.startswith("gate_1_") and pd.notna(row[name]) for name in rows.columns)
        weights = np.array([[row[f"gate_{k}_{i + 1}"] for i in range(experts)] for k in (1, 2)])  # (2, n)
        order = np.argsort(weights[1] - weights[0], kind="stable")
        for task in (0, 1):
            pieces.append(
                pd.DataFrame(
                    {
                        by: row[by],
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
"""The three humps, lowest losses first."""


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
