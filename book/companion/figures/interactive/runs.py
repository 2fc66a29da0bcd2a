"""All runs of the census study: pick a group, a metric and methods, and see every run."""

from __future__ import annotations

from typing import Any

import pandas as pd

from companion.figures.interactive.fragment import Interactive, colour_name, fragment
from companion.results import LEARNED_NOTHING, mean_interval
from mmoe_lib.tasks.census import GROUPS

METRICS = {
    "test_main_auc": "test AUC of the main task",
    "test_auxiliary_auc": "test AUC of “never married”",
    "validation_main_auc": "validation AUC of the main task",
    "validation_auxiliary_auc": "validation AUC of “never married”",
}
SCALE = 1_000_000
"""AUCs are stored to six decimals: as whole numbers they take a third less room."""


def runs_data(rows: pd.DataFrame) -> dict[str, Any]:
    """Every run's AUCs, with the mean and the 95 % interval of all and of those that learned the main task.

    Args:
        rows: Of `data/results/census.csv`, one a run; runs that diverged are left out.
    """
    methods = list(dict.fromkeys(rows["model"]))
    groups = []
    for group in dict.fromkeys(rows["setting"]):
        metrics = []
        for metric in METRICS:
            table = []
            for method in methods:
                runs = rows[(rows["setting"] == group) & (rows["model"] == method)].dropna(subset=[metric])
                runs = runs.reset_index(drop=True)
                stuck = runs["test_main_auc"] < LEARNED_NOTHING
                table.append(
                    {
                        "values": [round(SCALE * value) for value in runs[metric]],
                        "stuck": [int(run) for run in runs.index[stuck]],
                        "all": _summary(runs[metric]),
                        "learned": _summary(runs.loc[~stuck, metric]),
                    }
                )
            metrics.append(table)
        groups.append({"name": f"Group “{group}” ({GROUPS[group].main.name})", "metrics": metrics})
    return {
        "scale": SCALE,
        "methods": [{"name": method, "colour": colour_name(method)} for method in methods],
        "metrics": list(METRICS.values()),
        "groups": groups,
    }


def _summary(values: pd.Series[float]) -> list[float] | None:
    """Mean, lower and upper end; None where there are too few runs for an interval."""
    return [round(end, 5) for end in mean_interval(values)] if len(values) > 1 else None


def census_runs(rows: pd.DataFrame) -> Interactive:
    """The interactive figure: group, metric, methods, and whether runs that learned nothing count.

    Its picture are the two of `auc_dots` above it, which also hold the paper's means.

    Args:
        rows: Of `data/results/census.csv`, one a run.
    """
    data = runs_data(rows)
    methods = [method["name"] for method in data["methods"]]
    controls = [
        {
            "kind": "choice",
            "name": "group",
            "label": "group of tasks",
            "texts": [group["name"] for group in data["groups"]],
            "start": 0,
        },
        {"kind": "choice", "name": "metric", "label": "metric", "texts": data["metrics"], "start": 0},
        {
            "kind": "checks",
            "name": "methods",
            "label": "methods",
            "texts": methods,
            "start": [True] * len(methods),
        },
        {
            "kind": "check",
            "name": "learned",
            "label": "leave out runs that learned nothing of the main task",
            "start": True,
        },
    ]
    caption = (
        f"Real Census-Income data: a dot a run, below the dots the mean of the runs shown with its 95 % interval. A run "
        f"has learned nothing if its main task's test AUC is below {LEARNED_NOTHING}. From data/results/census.csv."
    )
    elsewhere = (
        "In the HTML book and on Colab group, metric and methods can be picked here; the two pictures above show the "
        "test AUCs of the runs that learned."
    )
    return fragment("census-runs", ("census_runs.js",), data, controls, caption, elsewhere=elsewhere)
