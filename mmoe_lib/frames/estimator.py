"""A model of `MODELS` in scikit-learn's shape: for `clone`, `Pipeline`, `GridSearchCV` and its scorers.

Needs scikit-learn 1.6 or newer, so that it is imported by its own name.

>>> import numpy as np
>>> from sklearn.model_selection import GridSearchCV
>>> from mmoe_lib.frames.estimator import MultiTaskRegressor
>>> x = np.random.default_rng(0).normal(size=(300, 3))
>>> y = np.column_stack([x[:, 0] + x[:, 1], x[:, 0] - x[:, 1]])  # two tasks
>>> model = MultiTaskRegressor(epochs=20, learning_rate=0.01)
>>> search = GridSearchCV(model, {"model": ["MMoE", "Shared-Bottom"]}, cv=2).fit(x, y)
>>> bool(search.best_score_ > 0.9), search.predict(x).shape
(True, (300, 2))
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mmoe_lib.frames.encoder import Embedding
from mmoe_lib.frames.model import FitSettings, MultiTaskModel
from mmoe_lib.models.layers import ModelBuilder

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_array, check_consistent_length, check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "mmoe_lib.frames.estimator needs scikit-learn: run `pip install 'scikit-learn>=1.6'`"
    ) from error

_WEIGHT = "sample weight"


class MultiTaskEstimator(BaseEstimator):  # type: ignore[misc]
    """What regressor and classifier share; the arguments are those of `MultiTaskModel.fit` and `FitSettings`.

    Args:
        model: A name of `MODELS`, or a builder.
        sizes: What the model is to have instead of its default sizes.
        embeddings: Names of the columns of a frame that are ids.
        epochs: Passes over the rows, at most.
        batch_size: Rows of a minibatch.
        learning_rate: Of Adam.
        weight_decay: Of AdamW.
        runs: Models with initial weights of their own, whose mean predicts.
        validation: Share of the rows that decides when to stop; None runs all epochs, as `MLPRegressor` does.
        patience: Epochs without a lower validation loss after which a run stops.
        balancer: A name of `BALANCERS`, or None.
        random_state: Seed of initial weights and orders; a RandomState or None draws it.
        device: "cpu", "cuda" or "auto".

    Attributes:
        model_: The trained `MultiTaskModel`.
        n_features_in_: Columns of X.
    """

    def __init__(
        self,
        model: str | ModelBuilder = "MMoE",
        *,
        sizes: Mapping[str, Any] | None = None,
        embeddings: Sequence[str] | Mapping[str, Embedding | int | None] = (),
        epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.0,
        runs: int = 1,
        validation: float | None = None,
        patience: int | None = 10,
        balancer: str | None = None,
        random_state: int | np.random.RandomState | None = 0,
        device: str = "cpu",
    ) -> None:
        self.model, self.sizes, self.embeddings = model, sizes, embeddings
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.weight_decay, self.runs, self.validation = weight_decay, runs, validation
        self.patience, self.balancer = patience, balancer
        self.random_state, self.device = random_state, device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.input_tags.allow_nan = True
        return tags

    def _frame(self, x: Any, *, reset: bool) -> pd.DataFrame:
        """Columns of a frame as they are, those of an array as numbers called x0, x1, ..."""
        if isinstance(x, pd.DataFrame):
            validate_data(self, x, reset=reset, skip_check_array=True)
            return x.set_axis([str(name) for name in x.columns], axis=1).reset_index(drop=True)
        x = validate_data(self, x, reset=reset, ensure_all_finite="allow-nan")
        return pd.DataFrame(x, columns=[f"x{place}" for place in range(x.shape[1])])

    def _read(self, x: Any, y: Any, **how: Any) -> tuple[pd.DataFrame, NDArray[Any]]:
        """X as a frame and y as (N, K), read as `check_array` is told; notes whether y was (N,)."""
        frame = self._frame(x, reset=True)
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        given = check_array(y, ensure_2d=False, input_name="y", **how)
        self._flat = given.ndim == 1
        return frame, given[:, None] if self._flat else given

    def _fit(self, frame: pd.DataFrame, y: NDArray[Any], classes: Sequence[int], sample_weight: Any) -> None:
        """Train on y (N, K), of which the columns of these numbers are classes."""
        check_consistent_length(frame, y)
        if len(frame) < 2:
            raise ValueError(f"n_samples = {len(frame)}, expected 2 or more: one sample has no spread")
        names = [f"target {place}" for place in range(y.shape[1])]
        weighted = sample_weight is not None
        taken = [name for name in [*names, _WEIGHT] if name in frame.columns]
        if taken:
            raise ValueError(f"X has a column {taken[0]!r}, expected another name: it is taken, rename it")
        whole = frame.assign(**dict(zip(names, y.T, strict=True)))
        if weighted:
            whole[_WEIGHT] = _check_sample_weight(sample_weight, frame)
        seed: Any = self.random_state
        if seed is None or isinstance(seed, np.random.RandomState):
            seed = check_random_state(seed).randint(2**31 - 1)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", ".*is predicted as a real value"
            )  # as the user of a regressor wants
            self.model_ = MultiTaskModel.fit(
                whole,
                names,
                list(frame.columns),
                model=self.model,
                sizes=self.sizes,
                weights=_WEIGHT if weighted else None,
                classes=[names[place] for place in classes],
                embeddings=self.embeddings,
                validation=self.validation,
                settings=FitSettings(
                    epochs=self.epochs,
                    batch_size=self.batch_size,
                    learning_rate=self.learning_rate,
                    patience=self.patience,
                    runs=self.runs,
                    seed=seed,
                    device=self.device,
                    weight_decay=self.weight_decay,
                    balancer=self.balancer,
                ),
                progress=False,
            )

    def _predicted(self, x: Any) -> pd.DataFrame:
        check_is_fitted(self)
        return self.model_.predict(self._frame(x, reset=False))


class MultiTaskRegressor(RegressorMixin, MultiTaskEstimator):  # type: ignore[misc]
    """K values of each row; NaN in y where a label is missing. Its arguments are those of `MultiTaskEstimator`."""

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> MultiTaskRegressor:
        """Train on X (N, d), an array of numbers or a frame of anything `FrameEncoder` reads, and y (N,) or (N, K).

        Raises:
            ValueError: What `MultiTaskModel.fit` and scikit-learn's validation refuse.
        """
        frame, given = self._read(X, y, ensure_all_finite="allow-nan", dtype=np.float64)
        self._fit(frame, given, [], sample_weight)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The values, shaped as y was: (N,) or (N, K)."""
        values = self._predicted(X).to_numpy()
        return values[:, 0] if self._flat else values


class MultiTaskClassifier(ClassifierMixin, MultiTaskEstimator):  # type: ignore[misc]
    """Classes of K targets of each row. Its arguments are those of `MultiTaskEstimator`.

    Attributes:
        classes_: The classes of y, sorted; of several targets a list of them.
    """

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> MultiTaskClassifier:
        """Train on X (N, d), an array of numbers or a frame of anything `FrameEncoder` reads, and y (N,) or (N, K).

        Raises:
            ValueError: What `MultiTaskModel.fit` and scikit-learn's validation refuse.
        """
        frame, given = self._read(X, y, dtype=None)
        check_classification_targets(given)
        found = [np.unique(column, return_inverse=True) for column in given.T]
        if min(len(values) for values, _ in found) < 2:
            raise ValueError(
                "y holds one class, expected two or more of each target: there is nothing to learn"
            )
        several = [place for place, (values, _) in enumerate(found) if len(values) > 2]
        self._fit(frame, np.column_stack([codes for _, codes in found]), several, sample_weight)
        self.classes_: Any = found[0][0] if self._flat else [values for values, _ in found]
        return self

    def predict_proba(self, X: Any) -> Any:
        """Probabilities (N, C) of the classes in their order; of several targets a list of such."""
        predicted = self._predicted(X)
        every = []
        for place, values in enumerate([self.classes_] if self._flat else self.classes_):
            name = f"target {place}"
            if name in predicted:  # of two
                one = predicted[name].to_numpy()
                every.append(np.column_stack([1 - one, one]))
            else:
                names = [f"{name}={code}" for code in range(len(values))]
                every.append(predicted.reindex(columns=names, fill_value=0.0).to_numpy())
        return every[0] if self._flat else every

    def predict(self, X: Any) -> NDArray[Any]:
        """The most likely classes, (N,) or (N, K)."""
        given = self.predict_proba(X)
        if self._flat:
            return self.classes_[given.argmax(axis=1)]
        return np.column_stack([v[p.argmax(axis=1)] for v, p in zip(self.classes_, given, strict=True)])
