"""Tables of what a GPU reached: the benchmark against JAX, and the studies that ran there."""

from __future__ import annotations

import pandas as pd

_PLACE = ["runs", "batch", "commit"]


def speed_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Whole trainings beside JAX's of the same shape and call, in thousands of steps of a run a second.

    Args:
        rows: Of `data/results/benchmark_gpu.csv`.

    Returns:
        One row a training: runs, batch, kind, lanes, steps a second with the lowest and highest of the rounds, JAX's,
        the ratio of both ("" where JAX was not measured), and seconds before the first step.
    """
    jax = rows[rows["kind"] == "JAX"].set_index(_PLACE)["per_second"]
    ours = rows[rows["kind"].str.startswith("whole")].sort_values(["runs", "batch"], kind="stable")
    table = []
    for _, row in ours.iterrows():
        place = tuple(row[_PLACE])
        other = float(jax[place]) if place in jax.index else None
        table.append(
            {
                "runs x batch": f"{row['runs']} x {row['batch']:.0f}",
                "training": row["kind"],
                "lanes": int(row["lanes"]),
                "thousand steps/s": f"{row['per_second'] / 1e3:,.0f}",
                "lowest to highest": f"{row['lowest'] / 1e3:,.0f} to {row['highest'] / 1e3:,.0f}",
                "JAX": "" if other is None else f"{other / 1e3:,.0f}",
                "of JAX's": "" if other is None else f"{row['per_second'] / other:.2f}",
                "seconds before": f"{row['ready_seconds']:.0f}",
            }
        )
    return pd.DataFrame(table).set_index("runs x batch")


def study_speed(rows: pd.DataFrame) -> pd.DataFrame:
    """What a study's rows from a GPU say of each model: runs, steps, mean losses by setting, and seconds.

    Args:
        rows: Of a results file of the synthetic kind; those from a CPU are left out.
    """
    table = {}
    for model, some in rows[rows["device"] != "cpu"].groupby("model", sort=False):
        losses = (some["loss_1"] + some["loss_2"]) / 2
        means = losses.groupby(some["setting"], sort=False).mean()
        table[model] = {
            "runs": f"{len(some):,}",
            "steps a run": f"{some['steps'].iloc[0]:,}",
            **{f"loss, {setting}": f"{value:.3f}" for setting, value in means.items()},
            "seconds": f"{some['seconds'].sum():.0f}",
        }
    return pd.DataFrame(table).T
