"""Two methods without any sharing or any network, on the same inputs: what a reader would try first."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from companion.study.cells import Cell, NoChoices
from companion.study.census import SCORES, CensusSource
from mmoe_lib.metrics import auc
from mmoe_lib.tasks.census import GROUPS

REFERENCES = ("Logistic regression", "Gradient boosting")


def reference_cells() -> list[Cell[NoChoices]]:
    """Both methods on both groups, once: neither depends on a random initialisation."""
    return [Cell(method, group, 0.1, (0,), NoChoices()) for group in GROUPS for method in REFERENCES]


COLUMNS = (*SCORES, "train_rows")
"""What `run_reference` gives beside the seed."""


def run_reference(
    cell: Cell[NoChoices], source: CensusSource, device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """Fit one classifier a task with scikit-learn; one row with the AUCs of `census.score`.

    Logistic regression: penalty 1/2 ||w||^2 against the summed loss (C = 1), fitted to the end; the cell's
    learning rate is none of its. Gradient boosting: histograms, at most 500 trees of 31 leaves shrunk by the cell's
    learning rate, stopped when a tenth of the training rows that it holds back no longer improves.

    Args:
        cell: One of `reference_cells`.
        source: Of the data.
        device: Of the study; scikit-learn computes on the CPU whatever it is.

    Raises:
        ValueError: If there is no such method.
    """
    data = source.data(cell.setting)
    columns: dict[str, Any] = {"seed": list(cell.seeds)}
    parts = {"validation": (data.x_validation, data.y_validation), "test": (data.x_test, data.y_test)}
    classifiers = [
        _classifier(cell).fit(_inputs(cell, data.x_train), data.y_train[:, task].numpy()) for task in (0, 1)
    ]
    for part, (x, y) in parts.items():
        for task, name in enumerate(("main", "auxiliary")):
            scores = torch.from_numpy(classifiers[task].decision_function(_inputs(cell, x)))
            columns[f"{part}_{name}_auc"] = [round(float(auc(scores, y[:, task])), 6)]
    return pd.DataFrame(columns).assign(train_rows=len(data.x_train))


def _classifier(cell: Cell[NoChoices]) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    if cell.model == "Logistic regression":
        return LogisticRegression(C=1.0, max_iter=1_000)
    if cell.model == "Gradient boosting":
        return HistGradientBoostingClassifier(
            learning_rate=cell.learning_rate,
            max_iter=500,
            early_stopping=True,
            random_state=cell.seeds[0],
        )
    raise ValueError(
        f"method is {cell.model!r}, expected one of {', '.join(REFERENCES)}: choose one of these"
    )


def _inputs(cell: Cell[NoChoices], x: torch.Tensor) -> Any:
    from scipy import sparse

    values = x.numpy()
    return sparse.csr_matrix(values) if cell.model == "Logistic regression" else values
