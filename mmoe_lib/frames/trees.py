"""Boosted trees, scikit-learn's, on the columns of a frame as they are: what networks are to be measured against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from mmoe_lib.frames.columns import Floats, numbers_of
from mmoe_lib.frames.encoder import FrameEncoder, Ids, Number, places_of
from mmoe_lib.frames.targets import Target, weights_of

TREE_RATES = (0.03, 0.1, 0.3)
"""Learning rates that the trees are tried with."""

ROUNDS = 100
"""Trees at most, one a class where there are several."""

MOST_CATEGORIES = 255
"""Values above which a column is no category to scikit-learn's trees."""


def tree_inputs(encoder: FrameEncoder, frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as they are, categories and ids as one of up to 255 categories, else by their place; NaN where missing.

    Lists and hashed ids are left out.
    """
    columns: dict[str, Any] = {}
    for column in encoder.columns:
        if isinstance(column, Number):
            columns[column.name] = numbers_of(frame[column.name])
        elif not (isinstance(column, Ids) and (column.length > 1 or column.buckets)):
            known = {value: place for place, value in enumerate(column.values)}
            places = places_of(column.name, frame[column.name], known)
            values = np.where(places < 0, np.nan, places)
            few = len(known) <= MOST_CATEGORIES
            columns[column.name] = pd.Categorical(values, categories=range(len(known))) if few else values
    return pd.DataFrame(columns, index=frame.index)


def fit_trees(
    encoder: FrameEncoder,
    target: Target,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    weights: str | None,
    *,
    rate: float,
    seed: int,
) -> tuple[Callable[[pd.DataFrame], Floats], float]:
    """Boost trees for one target and keep as many as have the lowest validation loss.

    Args:
        encoder: Names the columns and their values.
        target: What is predicted.
        train: Training rows; those without a label are left out, here and in validation.
        validation: Rows that decide how many trees are kept.
        weights: Name of a column that says how much each row counts, or None.
        rate: Learning rate.
        seed: Draws the half of the columns that each split looks at.

    Returns:
        A frame to predictions (N, outputs), and the loss: cross-entropy, or of a real target the squared error.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    def read(frame: pd.DataFrame) -> tuple[pd.DataFrame, Floats, Floats]:
        y, given = target.values(frame), weights_of(frame, weights)
        w = np.ones(len(y)) if given is None else given
        known = ~np.isnan(y)
        return tree_inputs(encoder, frame[known]), y[known], w[known]

    (x, y, w), (x_held, y_held, w_held) = read(train), read(validation)
    real = not (target.binary or target.classes)
    kind = HistGradientBoostingRegressor if real else HistGradientBoostingClassifier
    trees = kind(
        learning_rate=rate,
        max_iter=ROUNDS,
        max_features=0.5,
        early_stopping=False,
        categorical_features=[dtype == "category" for dtype in x.dtypes],
        random_state=seed,
    )
    staged = trees.staged_predict if real else trees.staged_predict_proba
    rows = np.arange(len(y_held))
    with threadpool_limits(1, user_api="openmp"):  # threads of so small fits wait for each other
        trees.fit(x, y, sample_weight=w)
        course = [
            float(np.average(np.square(y_held - one), weights=w_held))
            if real
            else float(np.average(-np.log(one[rows, y_held.astype(int)].clip(1e-12)), weights=w_held))
            for one in staged(x_held)
        ]
    best = int(np.argmin(course))

    def predict(frame: pd.DataFrame) -> Floats:
        found: Floats = next(one for at, one in enumerate(staged(tree_inputs(encoder, frame))) if at == best)
        return found[:, None] if real else found[:, 1:] if target.binary else found

    return predict, course[best]
