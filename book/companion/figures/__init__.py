"""The book's figures: one function a figure, tables in, a matplotlib figure out.

A title states the finding, so the chapter passes it; what is drawn from simulated data says so in the
title whatever the chapter passed. Dark text on an opaque white ground reads in light and in dark mode.
"""

from companion.figures import diagrams, interactive
from companion.figures.census import auc_dots, change_dots, correlation_samples, label_rates, trial_dots
from companion.figures.decision import flow_chart
from companion.figures.extensions import (
    against_mmoe,
    along,
    polarisation,
    rare_points,
    unit_dots,
    weights_along,
)
from companion.figures.models import expert_use
from companion.figures.recommendation import (
    checkpoint_dots,
    gate_bars,
    outcome_rates,
    serving_bars,
    tradeoff_curves,
)
from companion.figures.style import COLOURS, CORRELATION_STYLES, MARKERS, WIDTH
from companion.figures.synthetic import (
    calibrations,
    choice_dots,
    errors_by_place,
    gate_use,
    label_correlations,
    label_scatter,
    loss_curves,
    loss_histograms,
    model_curves,
    step_axes,
)

__all__ = [
    "COLOURS",
    "CORRELATION_STYLES",
    "MARKERS",
    "WIDTH",
    "against_mmoe",
    "along",
    "auc_dots",
    "calibrations",
    "change_dots",
    "checkpoint_dots",
    "choice_dots",
    "correlation_samples",
    "diagrams",
    "errors_by_place",
    "expert_use",
    "flow_chart",
    "gate_bars",
    "gate_use",
    "interactive",
    "label_correlations",
    "label_rates",
    "label_scatter",
    "loss_curves",
    "loss_histograms",
    "model_curves",
    "outcome_rates",
    "polarisation",
    "rare_points",
    "serving_bars",
    "step_axes",
    "tradeoff_curves",
    "trial_dots",
    "unit_dots",
    "weights_along",
]
