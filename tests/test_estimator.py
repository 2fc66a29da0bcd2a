"""The estimators pass scikit-learn's own checks, and do in its tools what `MultiTaskModel` does alone."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from mmoe_lib.frames import FitSettings, MultiTaskModel, estimator
from mmoe_lib.frames.estimator import MultiTaskClassifier, MultiTaskRegressor

QUICK: dict[str, Any] = {
    "epochs": 10,
    "learning_rate": 0.05,
    "batch_size": 32,
    "sizes": {"num_experts": 2, "expert_widths": (8,), "tower_widths": ()},
}
TARGETS = ("sum", "difference")
DO_NOT_APPLY = {
    "check_sample_weight_equivalence_on_dense_data": (
        "a row with weight 2 stands in one minibatch, the same row twice in two: equal in the mean over orders only"
    )
}
ASKS_FOR_MORE = ("check_array_api_input",)
"""Checks that scikit-learn leaves out where the environment does not name SCIPY_ARRAY_API: arrays are of numpy here."""

pytestmark = pytest.mark.filterwarnings("ignore:.*not predicted better")  # so short a training learns little


@pytest.mark.parametrize("kind", [MultiTaskRegressor, MultiTaskClassifier])
def test_scikit_learns_checks(kind: Any) -> None:
    found = check_estimator(kind(**QUICK), expected_failed_checks=DO_NOT_APPLY, on_skip=None)
    assert len(found) > 50
    left = {one["check_name"]: one["status"] for one in found if one["status"] != "passed"}
    assert left == {**dict.fromkeys(DO_NOT_APPLY, "xfail"), **dict.fromkeys(ASKS_FOR_MORE, "skipped")}


def tasks(rows: int = 240) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(rows, 2)), columns=["a", "b"])
    x["city"] = rng.choice(["Bern", "Oslo"], rows)
    own = x["a"] + 2 * (x["city"] == "Oslo")
    return x, pd.DataFrame(dict(zip(TARGETS, (own + x["b"], own - x["b"]), strict=True)))


def test_it_is_the_model_on_a_frame() -> None:
    x, y = tasks()
    ours = MultiTaskRegressor(**QUICK).fit(x, y).predict(x)
    settings = FitSettings(epochs=10, learning_rate=0.05, batch_size=32)
    sizes = QUICK["sizes"]
    model = MultiTaskModel.fit(
        x.join(y), [*TARGETS], validation=None, sizes=sizes, settings=settings, progress=False
    )
    np.testing.assert_allclose(ours, model.predict(x), rtol=1e-6)


def test_labels_may_be_missing_and_weights_count() -> None:
    x, y = tasks()
    y.loc[::2, "sum"] = np.nan
    model = MultiTaskRegressor(**QUICK).fit(x, y)
    assert np.isfinite(model.predict(x)).all()
    wrong = y["difference"].copy()
    wrong[120:] = -100.0
    weights = np.repeat([1.0, 0.0], 120)
    ours = MultiTaskRegressor(**QUICK).fit(x, wrong, sample_weight=weights)
    assert ours.score(x[:120], wrong[:120]) > 0.8  # rows of weight 0 are not learned


def test_a_pipeline_and_a_grid() -> None:
    x, y = tasks()
    scaled = ColumnTransformer([("scaled", StandardScaler(), ["a", "b"])], remainder="passthrough")
    pipeline = make_pipeline(scaled.set_output(transform="pandas"), MultiTaskRegressor(**QUICK))
    grid = {"multitaskregressor__model": ["Shared-Bottom"], "multitaskregressor__learning_rate": [1e-6, 0.02]}
    pipeline.set_params(multitaskregressor__sizes=None)
    search = GridSearchCV(pipeline, grid, cv=2).fit(x, y)
    assert search.best_params_["multitaskregressor__learning_rate"] == 0.02
    assert search.best_score_ > 0.8
    with pytest.raises(AttributeError):
        _ = clone(search.best_estimator_)[-1].model_  # a clone is not fitted


def test_classes_of_several_targets_come_back_as_they_were() -> None:
    x, y = tasks()
    size = np.where(y["sum"] > 2, "large", np.where(y["sum"] < 0, "small", "middle"))
    both = np.column_stack([size, np.where(y["difference"] > 1, "yes", "no")])
    model = MultiTaskClassifier(**QUICK).fit(x, both)
    assert [list(values) for values in model.classes_] == [["large", "middle", "small"], ["no", "yes"]]
    assert [given.shape for given in model.predict_proba(x)] == [(240, 3), (240, 2)]
    for given in model.predict_proba(x):
        np.testing.assert_allclose(given.sum(axis=1), 1, rtol=1e-6)
    assert ((model.predict(x) == both).mean(axis=0) > 0.75).all()
    marks = np.column_stack([y["sum"] > 0, y["difference"] > 0]).astype(int)
    found = cross_val_predict(MultiTaskClassifier(**QUICK), x, marks, cv=2)
    assert (found == marks).mean() > 0.8


def test_what_cannot_be_meant_is_refused() -> None:
    x, y = tasks(20)
    with pytest.raises(ValueError, match="one class, expected two or more"):
        MultiTaskClassifier(**QUICK).fit(x, np.zeros(20))
    with pytest.raises(ValueError, match="X has a column 'target 0', expected another name"):
        MultiTaskRegressor(**QUICK).fit(x.rename(columns={"a": "target 0"}), y)


def test_the_example() -> None:
    assert doctest.testmod(estimator) == (0, 8)
