"""The specification curve of Census-Income: MMoE's lead under many draws of what the protocol leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy import stats

from companion.results.census import LEARNED_NOTHING
from companion.results.intervals import difference_interval, mean_interval

MMOE = "MMoE"
RIVALS = ("Shared-Bottom", "Single-Task", "Deeper Shared-Bottom")
CHOICES: Mapping[str, str] = MappingProxyType(
    {
        "schedule": "trained for",
        "batch_size": "batch",
        "variant": "encoding",
        "units": "hidden units",
        "depth": "hidden layers",
        "decay": "weight decay",
        "row_order": "order of the rows",
    }
)
"""The columns in which specifications differ, and what readers call them."""


def specification_curve(
    rows: pd.DataFrame, group: str, rival: str, value: str = "test_main_auc"
) -> pd.DataFrame:
    """MMoE minus a rival under every specification, in AUC points, the lowest first.

    Columns: specification, those of `CHOICES`, learning_rate, difference, low, high (Welch's 95 % interval over the runs
    that learned), dead_mmoe, dead_rival (runs that did not, of `runs` each). Specifications that are not complete are
    left out.

    Args:
        rows: Of `data/results/census_specifications.csv`, one preset.
        group: Of tasks.
        rival: One of `RIVALS`.
        value: The metric.
    """
    found = []
    for number, of_one in rows[rows["group"] == group].groupby("specification"):
        runs = {model: of_one[of_one["model"] == model] for model in (MMOE, rival)}
        able = {
            model: of_model[of_model[value] >= LEARNED_NOTHING][value] for model, of_model in runs.items()
        }
        if min(map(len, able.values())) < 2:
            continue
        difference = 100 * np.array(difference_interval(able[MMOE], able[rival]))
        first = of_one.iloc[0]
        found.append(
            {
                "specification": number,
                **{name: first[name] for name in (*CHOICES, "learning_rate")},
                **dict(zip(("difference", "low", "high"), difference, strict=True)),
                "dead_mmoe": len(runs[MMOE]) - len(able[MMOE]),
                "dead_rival": len(runs[rival]) - len(able[rival]),
                "runs": len(runs[MMOE]),
            }
        )
    columns = [
        "specification",
        *CHOICES,
        "learning_rate",
        "difference",
        "low",
        "high",
        "dead_mmoe",
        "dead_rival",
        "runs",
    ]
    return pd.DataFrame(found, columns=columns).sort_values("difference", ignore_index=True)


def curve_summary(curve: pd.DataFrame, matters: float) -> dict[str, float]:
    """A specification curve in numbers: its mean over specifications with an interval, and how many say what.

    Args:
        curve: Of `specification_curve`.
        matters: The smallest difference that matters, in points.

    Returns:
        specifications; mean, low, high over specifications (the unit is the specification); above and below (intervals
        that exclude 0), larger and smaller (those whose difference also reaches what matters).
    """
    mean, low, high = mean_interval(curve["difference"])
    above, below = curve["low"] > 0, curve["high"] < 0
    return {
        "specifications": len(curve),
        "mean": mean,
        "low": low,
        "high": high,
        "above": int(above.sum()),
        "below": int(below.sum()),
        "larger": int((above & (curve["difference"] >= matters)).sum()),
        "smaller": int((below & (curve["difference"] <= -matters)).sum()),
    }


def what_choices_are_worth(curve: pd.DataFrame) -> pd.DataFrame:
    """How MMoE's lead moves with each choice: of every level the mean over its specifications less that of all others.

    Columns: choice, level, specifications, worth, low, high (Welch's interval over specifications), p (of all levels of a
    choice together: one-way analysis of variance). Levels with fewer than two specifications have NaN.
    """
    found = []
    for choice, name in CHOICES.items():
        levels = [part["difference"].to_numpy() for _, part in curve.groupby(choice) if len(part) > 1]
        p = float(stats.f_oneway(*levels).pvalue) if len(levels) > 1 else float("nan")
        for level, part in curve.groupby(choice):
            others = curve.loc[curve[choice] != level, "difference"]
            enough = min(len(part), len(others)) > 1
            worth = difference_interval(part["difference"], others) if enough else (float("nan"),) * 3
            found.append((name, str(level), len(part), *worth, p))
    return pd.DataFrame(found, columns=["choice", "level", "specifications", "worth", "low", "high", "p"])
