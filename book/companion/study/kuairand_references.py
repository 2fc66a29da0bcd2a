"""Gradient boosting on KuaiRand: what a reader would try first, on the same impressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from companion.study.cells import Cell, NoChoices
from companion.study.kuairand import RankingSource
from companion.study.scores import r_squared
from mmoe_lib.metrics import auc
from mmoe_lib.tasks.kuairand import Impressions, RankingData
from mmoe_lib.tasks.kuairand.history import HISTORY

INPUTS = ("user and video features", "all inputs")
"""Without and with what the user did before."""

_ROWS_AT_ONCE = 1 << 17
_MOST_CATEGORIES = 250
"""scikit-learn takes at most 255 categories a feature; the ids above this are read as ordered numbers."""


def reference_cells() -> list[Cell[NoChoices]]:
    """Both sets of inputs, once: the trees depend on no random initialisation."""
    return [Cell("Gradient boosting", inputs, 0.1, (0,), NoChoices()) for inputs in INPUTS]


COLUMNS = (
    *(f"test_{name}_{measure}" for name in ("engagement", "satisfaction") for measure in ("auc", "r2")),
    "train_rows",
)
"""What `run_reference` gives beside the seed."""


def run_reference(
    cell: Cell[NoChoices], source: RankingSource, device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """Fit one classifier a task with scikit-learn; one row: engagement AUC and R2 and satisfaction AUC on test.

    Histograms, at most 300 trees of 31 leaves shrunk by the cell's learning rate, stopped when a tenth of the
    training rows that it holds back no longer improves. Single ids of users and videos are left out, which trees
    cannot use; authors, music and two of the users' categories have too many values and are read as numbers.

    Args:
        cell: One of `reference_cells`.
        source: Of the data.
        device: Of the study; scikit-learn computes on the CPU whatever it is.

    Raises:
        ValueError: If there are no such inputs.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    if cell.setting not in INPUTS:
        raise ValueError(f"inputs are {cell.setting!r}, expected one of {', '.join(INPUTS)}")
    data = source.data()
    kept = _columns(data, with_history=cell.setting == "all inputs")
    train, test = (_inputs(data, part, kept) for part in (data.train, data.test))
    smallest = train.min(axis=0)
    is_id = np.array(kept) < data.num_sparse
    # Each feature's ids counted from 0; an id below them all is that of the unknown bucket, a missing value to trees.
    train[:, is_id] -= smallest[is_id]
    test[:, is_id] -= smallest[is_id]
    categories = is_id & (train.max(axis=0) < _MOST_CATEGORIES)
    found: dict[str, Any] = {"seed": list(cell.seeds)}
    for task, name in enumerate(("engagement", "satisfaction")):
        classifier = HistGradientBoostingClassifier(
            learning_rate=cell.learning_rate,
            max_iter=300,
            early_stopping=True,
            categorical_features=categories,
            random_state=cell.seeds[0],
        ).fit(train, data.train.labels[:, task].numpy())
        predicted = torch.from_numpy(classifier.predict_proba(test)[:, 1])
        labels = data.test.labels[:, task].float()
        found[f"test_{name}_auc"] = [round(float(auc(predicted, labels)), 6)]
        found[f"test_{name}_r2"] = [round(float(r_squared(predicted, labels)), 6)]
    return pd.DataFrame(found).assign(train_rows=len(data.train))


def _columns(data: RankingData, *, with_history: bool) -> list[int]:
    """Which columns of x the trees read."""
    names = (*data.features.sparse_names, *data.features.dense_names)
    past = {name for name in names if name.startswith("previous_")} | set(HISTORY)
    return [
        place
        for place, name in enumerate(names)
        if name not in ("user_id", "video_id", "previous_video_id") and (with_history or name not in past)
    ]


def _inputs(data: RankingData, part: Impressions, kept: list[int]) -> NDArray[np.float32]:
    """Some columns of x for all rows of a part, (N, columns)."""
    pieces = [
        data.features.rows(part, slice(start, start + _ROWS_AT_ONCE))[0][:, kept]
        for start in range(0, len(part), _ROWS_AT_ONCE)
    ]
    return torch.cat(pieces).numpy()
