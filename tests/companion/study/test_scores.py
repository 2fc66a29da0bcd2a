"""The standard error of an AUC and R2 of many runs, against scikit-learn and by hand, and what has none."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import r2_score

from companion.study.scores import auc_standard_error, r_squared
from mmoe_lib.metrics import auc

# --- standard error of the AUC ---


def delong_by_pairs(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """DeLong's formula written over all pairs of a positive and a negative."""
    positives, negatives = scores[labels == 1], scores[labels == 0]
    above = np.array(
        [[1.0 if p > n else 0.5 if p == n else 0.0 for n in negatives] for p in positives]
    )  # (positives, negatives)
    return float(
        np.sqrt(
            above.mean(axis=1).var(ddof=1) / len(positives) + above.mean(axis=0).var(ddof=1) / len(negatives)
        )
    )


@pytest.mark.parametrize("levels", [None, 2, 5])
@pytest.mark.parametrize("num_positive", [2, 3, 9, 15])
def test_standard_error_is_delongs_formula_over_all_pairs(levels: int | None, num_positive: int) -> None:
    random = np.random.default_rng(5)
    labels = np.zeros(17)
    labels[random.permutation(17)[:num_positive]] = 1
    scores = random.normal(size=(3, 17)) + labels
    if levels:
        scores = np.round(scores * levels / 4)
    ours = auc_standard_error(torch.tensor(scores), torch.tensor(labels))
    assert ours.shape == (3,)
    assert ours.tolist() == pytest.approx([delong_by_pairs(row, labels) for row in scores], abs=1e-12)


def test_standard_error_of_a_case_worked_by_hand() -> None:
    # Each positive lies above 1 and 1/2 of the negatives, each negative below 1 and 1/2 of the positives:
    # variance 1/8 on both sides, over 2 rows each.
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0])
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert float(auc_standard_error(scores, labels)) == pytest.approx((1 / 16 + 1 / 16) ** 0.5)
    assert float(auc_standard_error(torch.tensor([0.0, 9, 1, 8]), labels)) == 0.0  # told apart


@pytest.mark.parametrize("share", [0.02, 0.35])
def test_standard_error_is_the_spread_over_resampled_rows(share: float) -> None:
    random = np.random.default_rng(3)
    labels = (random.random(2_000) < share).astype(float)
    scores = random.normal(size=2_000) + labels
    ours = float(auc_standard_error(torch.tensor(scores), torch.tensor(labels)))
    resampled = []
    for _ in range(800):
        rows = random.integers(0, 2_000, 2_000)
        resampled.append(float(auc(torch.tensor(scores[rows]), torch.tensor(labels[rows]))))
    # The standard deviation of 800 draws is known to 2.5 %.
    assert ours == pytest.approx(np.std(resampled), rel=0.09)


def test_what_has_no_standard_error_is_refused() -> None:
    with pytest.raises(ValueError, match="1 row of one class, expected at least 2"):
        auc_standard_error(torch.zeros(2, 3), torch.tensor([0.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="1 row of one class, expected at least 2"):
        auc_standard_error(torch.zeros(2, 3), torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="NaN or infinity"):
        auc_standard_error(torch.tensor([0.0, torch.nan, 1.0]), torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="3 ones and 0 zeros"):
        auc_standard_error(torch.zeros(2, 3), torch.ones(3))


# --- share of variance explained ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_r_squared_agrees_with_scikit_learn(dtype: torch.dtype) -> None:
    random = np.random.default_rng(2)
    labels = (random.random(5_000) < 0.3).astype(float)
    probabilities = torch.tensor(random.random((4, 5_000)), dtype=dtype)
    probabilities[0] = torch.tensor(0.2 + 0.3 * labels, dtype=dtype)
    ours = r_squared(probabilities, torch.tensor(labels))
    assert ours.dtype == torch.float64
    expected = [r2_score(labels, row.astype(float)) for row in probabilities.numpy()]
    assert expected[0] > 0 > expected[1]
    assert ours.tolist() == pytest.approx(expected, abs=1e-12)


def test_r_squared_of_the_mean_is_0_and_of_the_labels_1() -> None:
    labels = torch.tensor([0, 0, 0, 1], dtype=torch.uint8)
    runs = torch.stack([torch.full((4,), 0.25), labels.float(), 1 - labels.float()])
    assert r_squared(runs, labels).tolist() == pytest.approx([0.0, 1.0, 1 - 4 / 0.75])
    assert float(r_squared(runs[1], labels)) == 1.0  # one run without its dimension


def test_what_has_no_r_squared_is_refused() -> None:
    with pytest.raises(ValueError, match="one class only"):
        r_squared(torch.full((2, 3), 0.5), torch.ones(3))
    with pytest.raises(ValueError, match="other than 0 and 1"):
        r_squared(torch.full((3,), 0.5), torch.tensor([0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="expected"):
        r_squared(torch.full((2, 3), 0.5), torch.zeros(4))
    for wrong in (torch.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="apply the sigmoid"):
            r_squared(torch.tensor([0.5, wrong, 0.5]), torch.tensor([0.0, 1.0, 1.0]))
