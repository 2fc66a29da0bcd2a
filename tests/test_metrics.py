"""AUC of many runs, against scikit-learn and by hand, and what has none; what gates do."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from mmoe_lib.metrics import accuracy, auc, gate_use, log_loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [None, 2, 7, 50])
@pytest.mark.parametrize("share", [0.003, 0.5, 0.99])
def test_agrees_with_scikit_learn(dtype: torch.dtype, levels: int | None, share: float) -> None:
    random = np.random.default_rng(7)
    labels = (random.random(3_000) < share).astype(float)
    labels[:2] = 0, 1
    scores = torch.tensor(random.normal(size=(4, 3_000)) + labels, dtype=dtype)
    if levels:
        scores = (scores * levels / 4).round()  # many ties
    ours = auc(scores, torch.tensor(labels))
    expected = [roc_auc_score(labels, row) for row in scores.numpy()]
    assert ours.tolist() == pytest.approx(expected, abs=1e-6)


def test_weights_and_missing_labels_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(3)
    labels, weights = (random.random(400) < 0.3).astype(float), random.integers(0, 4, 400).astype(float)
    scores = torch.tensor((random.normal(size=(3, 400)) + labels).round(1))  # ties
    expected = [roc_auc_score(labels, row, sample_weight=weights) for row in scores.numpy()]
    assert auc(scores, torch.tensor(labels), torch.tensor(weights)).tolist() == pytest.approx(expected)
    known = random.random(400) < 0.5
    holes = torch.tensor(np.where(known, labels, np.nan))
    assert torch.equal(auc(scores, holes), auc(scores[:, known], torch.tensor(labels[known])))


def test_metrics_of_classes_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(4)
    shares = random.dirichlet([1, 1, 1], (2, 50))
    labels, weights = random.integers(0, 3, 50), random.random(50)
    holes = labels.astype(float)
    holes[:10] = np.nan
    given = torch.tensor(shares), torch.tensor(holes), torch.tensor(weights)
    for ours, theirs in (
        (accuracy, lambda y, p, w: accuracy_score(y, p.argmax(axis=1), sample_weight=w)),
        (log_loss, lambda y, p, w: sklearn_log_loss(y, p, sample_weight=w, labels=[0, 1, 2])),
    ):
        weighted = [theirs(labels[10:], run[10:], weights[10:]) for run in shares]
        plain = [theirs(labels[10:], run[10:], None) for run in shares]
        assert ours(*given).tolist() == pytest.approx(weighted)
        assert ours(*given[:2]).tolist() == pytest.approx(plain)


def test_known_values() -> None:
    labels = torch.tensor([0.0, 0.0, 1.0, 1.0])
    scores = torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1], [0, 0, 0, 0], [1, 3, 2, 4], [1, 2, 2, 2]])
    assert auc(scores, labels).tolist() == [1.0, 0.0, 0.5, 0.75, 0.75]
    assert float(auc(scores[0], labels)) == 1.0  # one run without its dimension


def test_each_task_has_an_auc_of_its_own() -> None:
    random = np.random.default_rng(1)
    scores, labels = (
        torch.tensor(random.normal(size=(3, 50, 2))),
        torch.tensor(random.integers(0, 2, (50, 2))),
    )
    tasks = [auc(scores[..., k], labels[:, k]) for k in range(2)]
    for k, values in enumerate(tasks):
        expected = [roc_auc_score(labels[:, k], scores[r, :, k]) for r in range(3)]
        assert values.tolist() == pytest.approx(expected, abs=1e-12)


def test_what_has_no_auc_is_refused() -> None:
    scores = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="0 ones and 3 zeros"):
        auc(scores, torch.zeros(3))
    with pytest.raises(ValueError, match="3 ones and 0 zeros"):
        auc(scores, torch.ones(3))
    with pytest.raises(ValueError, match="other than 0 and 1"):
        auc(scores, torch.tensor([0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="expected"):
        auc(scores, torch.zeros(4))
    with pytest.raises(ValueError, match="NaN or infinity"):
        auc(torch.tensor([0.0, torch.nan, 1.0]), torch.tensor([0.0, 1.0, 1.0]))


def test_gate_use_has_its_closed_forms() -> None:
    even, first, second = [0.25] * 4, [1.0, 0, 0, 0], [0, 1.0, 0, 0]
    # (R, N, K, n): a run whose gates are even, one whose tasks read an expert each, one whose rows do
    weights = torch.tensor([[[even, even]] * 2, [[first, second]] * 2, [[first, first], [second, second]]])
    use = gate_use(weights)
    assert use.distance.tolist() == [0, 1, 0]
    torch.testing.assert_close(use.entropy, torch.tensor([[np.log(4)] * 2, [0, 0], [0, 0]]).float())
    assert use.means[1].tolist() == [first, second]
    assert use.means[2].tolist() == [[0.5, 0.5, 0, 0]] * 2
