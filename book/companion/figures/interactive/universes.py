"""All universes of the survey: pick one, and see its label, every model's final losses, and figure 5 as an outline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.figures.interactive.fragment import Interactive, colour_name, fragment
from companion.figures.universes import ENDS, FEWEST_RUNS, SURVEYED
from companion.results.universes import (
    DIFFERENCES,
    figure_5_edges,
    losses_in_bins,
    losses_of_both_tasks,
    universe_differences,
)

LEAD = "Shared-Bottom minus MMoE"
"""By which universes are ordered, at p = 0.5."""
SHOWN = (LEAD, "OMoE minus MMoE", "Shared-Bottom minus Shared-Bottom-96-32")
"""The differences that are said in words."""
KINDS = {"figure 2": "meets figure 2", "PLE": "PLE's kind", "smoother": "smoother", "rougher": "rougher"}
"""Of universes, in words."""
INITIALISERS = {"torch": "PyTorch's", "glorot": "Glorot's"}
"""Initial weights, in words."""


def universes_data(
    survey_rows: pd.DataFrame, universe_rows: pd.DataFrame, paper_histogram: pd.DataFrame
) -> dict[str, Any]:
    """What the figure shows of each universe, by MMoE's lead over Shared-Bottom at p = 0.5, the smallest first.

    Universes without a lead, for want of runs, come last; those without any runs are left out.

    Args:
        survey_rows: Of `data/results/universes_survey.csv`, one a run; runs that diverged are left out.
        universe_rows: Of `data/results/universes.csv`, one a universe.
        paper_histogram: `read_paper("figure5_final_loss_histogram")`.

    Returns:
        The middle of the paper's bins, its runs in percent, and a universe each: number, kind, batch, rate, weights, c,
        speeds (alpha c) and phases (beta) of its label, counts of losses in the bins by model and correlation (without
        the empty bins at the end), and differences with their intervals by name and correlation, None where there are
        too few runs.

    Raises:
        ValueError: If a universe of the survey has no row, or more than one, or there is no run at all.
    """
    if survey_rows.empty:
        raise ValueError("the survey has no rows, expected a run each: run the study of the universes first")
    labels = universe_rows.set_index("seed")
    if not labels.index.is_unique:
        raise ValueError(
            f"{len(labels)} rows describe {labels.index.nunique()} universes, expected one each: choose one preset"
        )
    edges = figure_5_edges(paper_histogram)
    table = universe_differences(survey_rows)
    table = table[table["difference"].isin(_names())]
    intervals = {
        (int(row["universe"]), str(row["difference"])): [
            round(float(row[end]), 4) for end in ("estimate", "low", "high")
        ]
        for row in table.to_dict("records")
    }
    universes = []
    for number, rows in survey_rows.groupby("universe"):
        universe = int(str(number))
        if universe not in labels.index:
            raise ValueError(
                f"universe {universe} of the survey has no row among {len(labels)}, expected one: read both files of one "
                "preset"
            )
        losses = losses_of_both_tasks(rows)
        universes.append(
            {
                "number": universe,
                **_label(labels.loc[universe].to_dict()),
                "counts": [[_counts(losses.get((model, p)), edges) for p in ENDS] for model in SURVEYED],
                "differences": [
                    [intervals.get((universe, _name(shown, p))) for p in ENDS] for shown in SHOWN
                ],
            }
        )
    universes.sort(key=_order)
    return {
        "p": list(ENDS),
        "edges": [round(float(edge), 5) for edge in edges],
        "fewest": FEWEST_RUNS,
        "models": [
            {
                "name": model,
                "colour": colour_name(model.removesuffix("-96-32")),
                "paper": [_printed(paper_histogram, model, p) for p in ENDS],
            }
            for model in SURVEYED
        ],
        "differences": list(SHOWN),
        "universes": universes,
    }


def _name(shown: str, p: float) -> str:
    return f"{shown} at p = {p:g}"


def _names() -> set[str]:
    names = {_name(shown, p) for shown in SHOWN for p in ENDS}
    assert names <= {difference.name for difference in DIFFERENCES}
    return names


def _order(universe: Mapping[str, Any]) -> tuple[float, int]:
    lead = universe["differences"][0][0]
    return math.inf if lead is None else lead[0], universe["number"]


def _label(row: Mapping[Any, Any]) -> dict[str, Any]:
    alpha, beta = (
        [float(row[f"{letter}_{place}"]) for place in range(1, 11)] for letter in ("alpha", "beta")
    )
    c = float(row["c"])
    return {
        "kind": KINDS[row["kind"]],
        "batch": int(row["own_batch_size"]),
        "rate": float(row["own_rate"]),
        "weights": INITIALISERS[row["own_initialiser"]],
        "c": round(c, 4),
        "speeds": [round(value * c, 3) for value in alpha if not math.isnan(value)],
        "phases": [round(value, 3) for value in beta if not math.isnan(value)],
    }


def _counts(
    losses: np.ndarray[Any, np.dtype[np.float64]] | None, edges: np.ndarray[Any, np.dtype[np.float64]]
) -> list[int]:
    if losses is None:
        return []
    counts = losses_in_bins(losses, edges)
    return [int(count) for count in np.trim_zeros(counts, "b")]


def _printed(histogram: pd.DataFrame, model: str, p: float) -> list[float] | None:
    panel = histogram[(histogram["model"] == model) & (histogram["task_correlation"] == p)]
    if panel.empty:
        return None
    runs = panel.sort_values("bin_left")["runs_of_200"]
    return [round(float(share), 2) for share in 100 * runs / runs.sum()]


def universes(
    survey_rows: pd.DataFrame,
    universe_rows: pd.DataFrame,
    paper_histogram: pd.DataFrame,
    picture: str | None = None,
) -> Interactive:
    """The interactive figure: a slider over the universes, by MMoE's lead, and one or both task correlations.

    Args:
        survey_rows: Of `data/results/universes_survey.csv`, one a run.
        universe_rows: Of `data/results/universes.csv`, one a universe.
        paper_histogram: `read_paper("figure5_final_loss_histogram")`.
        picture: The name of the figure that `companion.figures.universes.universe_histograms` is in the book.

    Raises:
        ValueError: As `universes_data`.
    """
    data = universes_data(survey_rows, universe_rows, paper_histogram)
    with_lead = sum(universe["differences"][0][0] is not None for universe in data["universes"])
    controls = [
        {
            "kind": "range",
            "name": "universe",
            "label": "universe",
            "texts": [_said(universe) for universe in data["universes"]],
            "start": max(0, with_lead - 1) // 2,
        },
        {
            "kind": "choice",
            "name": "p",
            "label": "task correlation",
            "texts": [*(f"p = {p:g}" for p in ENDS), "both"],
            "start": 0,
        },
    ]
    caption = (
        "Move the slider, or use the arrow keys: from the universe in which MMoE leads Shared-Bottom least at p = 0.5 to "
        "that in which it leads most. Bars: final losses of both tasks of all runs, in the bins of the paper's figure 5, "
        "which is the outline; the last bar counts all above, too. Differences of mean losses with 95 % intervals. "
        "Shared-Bottom-96-32 has two layers. From data/results/universes_survey.csv and data/results/universes.csv."
    )
    elsewhere = (
        "In the HTML book and on Colab any universe can be picked here; the picture above shows one of them."
    )
    return fragment(
        "universes", ("universes.js",), data, controls, caption, elsewhere=elsewhere, picture=picture
    )


def _said(universe: Mapping[str, Any]) -> str:
    lead = universe["differences"][0][0]
    return f"{universe['number']}, {'no lead' if lead is None else f'lead {lead[0]:+.3f}'}"
