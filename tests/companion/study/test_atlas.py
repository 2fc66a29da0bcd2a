"""The atlas: targets that no input gives away, pairs that cover the strata, models of one size, a wall before the test half."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as reference

from companion import census_targets
from companion.census_targets import (
    FAMILIES,
    FAMILY_OF,
    Target,
    auc_of_column,
    target_of,
    targets,
    telling_columns,
)
from companion.study import atlas
from companion.study.atlas import MODELS, PairChoices, builder, draw_pairs, pair_data
from companion.study.cells import Cell
from companion.study.census import CensusSource
from companion.study.presets import PRESETS
from companion.study.scores import average_precision, log_loss
from companion.study.specifications import parameters
from mmoe_lib.tasks.census import encode
from mmoe_lib.tasks.census.columns import COLUMNS, WEIGHT

SOURCE = CensusSource(train_rows=3_000, test_rows=2_000, simulated=True)
FIRST, SECOND = Target("sex", "Male"), Target("age", least=40)


@pytest.fixture(scope="module")
def train() -> pd.DataFrame:
    return SOURCE.tables().train


def a_cell(model: str, seeds: tuple[int, ...] = (0, 1)) -> Cell[PairChoices]:
    return Cell(model, "pair 0", 0.01, seeds, PairChoices(0, FIRST.name, SECOND.name))


def test_every_column_but_the_weight_is_in_one_family() -> None:
    assert Counter(column for columns in FAMILIES.values() for column in columns) == Counter(
        column for column in COLUMNS if column != WEIGHT
    )
    assert set(FAMILY_OF) == set(COLUMNS) - {WEIGHT}


def test_names_are_unique_and_lead_back(train: pd.DataFrame) -> None:
    every = census_targets.candidates()
    assert len({target.name for target in every}) == len(every)
    assert not any(set(target.name) & set(',"\n') for target in every)
    found = targets(train)
    assert all(target_of(target.name) == target for target in found)
    shares = [target.answers(train).mean() for target in found]
    assert 0.01 <= min(shares) <= max(shares) <= 0.99
    with pytest.raises(ValueError, match="Census-Income does not hold"):
        target_of("sex is Yes")


def test_a_recode_and_a_subset_of_a_target_are_no_inputs(train: pd.DataFrame) -> None:
    table = train.copy()
    # Two columns of other families that say the target: one as it is, one split in two.
    table["race"] = np.where(SECOND.answers(table), "old", "young")
    table["year"] = np.where(SECOND.answers(table), np.where(table["age"] > 60, "a", "b"), "c")
    assert set(telling_columns(SECOND, table)) == {"age", "race", "year", WEIGHT}
    with pytest.raises(ValueError, match="one class"):
        telling_columns(Target("age", least=200), train)


def test_the_auc_of_a_column_is_that_of_its_shares() -> None:
    rng = np.random.default_rng(0)
    column = pd.Series(rng.integers(0, 5, 300))
    answers = rng.random(300) < 0.2 + 0.1 * column.to_numpy()
    shares = pd.Series(answers).groupby(column).transform("mean")
    assert auc_of_column(column, answers) == pytest.approx(reference.roc_auc_score(answers, shares))


def test_no_input_gives_a_target_away() -> None:
    data = pair_data(SOURCE, FIRST, SECOND)
    for target in (FIRST, SECOND):
        assert not set(data.columns) & set(FAMILIES[target.family])
        answers = target.answers(SOURCE.tables().train)
        for column in data.columns:
            assert auc_of_column(SOURCE.tables().train[column], answers) < census_targets.TELLS
    whole = encode(SOURCE.tables(), "income")
    kept = [place for place, name in enumerate(whole.feature_names) if name.split("=")[0] in data.columns]
    torch.testing.assert_close(data.x_test, whole.x_test[:, kept])


def test_pairs_cover_the_strata_from_the_first_on(train: pd.DataFrame) -> None:
    drawn = draw_pairs(train, 40)
    assert draw_pairs(train, 12) == drawn[:12]  # a smaller atlas is the first part of a larger one
    correlations = np.abs([correlation for *_, correlation in drawn])
    assert (correlations < 0.9).all()
    assert np.ptp(np.searchsorted(atlas.CORRELATIONS, correlations[:12])) >= 2
    uses = Counter(target.name for first, second, _ in drawn for target in (first, second))
    assert max(uses.values()) <= atlas.MOST_USES
    for first, second, correlation in drawn:
        assert first.column != second.column
        exact = np.corrcoef(first.answers(train), second.answers(train))[0, 1]
        assert correlation == pytest.approx(exact, abs=1e-4)
    with pytest.raises(ValueError, match="pairs can be drawn"):
        draw_pairs(train, 100_000)


@pytest.mark.parametrize("model", MODELS)
def test_models_are_of_one_size(model: str) -> None:
    size = parameters(builder(model, 400, 2), 400, 2)
    assert size == pytest.approx(parameters(builder("MMoE", 400, 2), 400, 2), rel=0.04)


@pytest.mark.parametrize("model", ["Shared-Bottom", "MMoE"])
def test_a_cell_learns_and_says_what_it_saw(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas, "PASSES", 3)
    rows = atlas.run(a_cell(model), SOURCE)
    assert set(rows.columns) == {"seed", *atlas.COLUMNS}
    assert (rows["test_auc_2"] > 0.7).all()
    assert rows["gradient_cosine"].notna().all() == (model == "Shared-Bottom")
    assert rows["gate_distance"].notna().all() == (model == "MMoE")
    assert rows["best_pass"].between(1, 3).all()


def test_the_gradients_are_those_of_the_shared_weights() -> None:
    data = pair_data(SOURCE, FIRST, SECOND)
    module = builder("Shared-Bottom", data.x_train.shape[1], 2)(
        data.x_train.shape[1], 2, generator=torch.Generator().manual_seed(0)
    )
    cosine, *norms = atlas.task_gradients(module, data)
    same = replace(data, y_train=data.y_train[:, :1].expand(-1, 2))
    with torch.no_grad():  # one task twice: the same tower and label, so the same gradient
        first, second = (dict(tower.named_parameters()) for tower in module.towers.towers)  # type: ignore[union-attr]
        for name, weight in second.items():
            weight.copy_(first[name])
    alone, *equal = atlas.task_gradients(module, same)
    assert -1 <= cosine <= 1
    assert min(norms) > 0
    assert alone == pytest.approx(1, abs=1e-5)
    assert equal[0] == pytest.approx(equal[1])


def test_the_test_half_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas, "PASSES", 4)
    honest = atlas.run(a_cell("MMoE"), SOURCE)
    data = pair_data(SOURCE, FIRST, SECOND)
    monkeypatch.setattr(atlas, "_pair", lambda *_: replace(data, y_test=1 - data.y_test))
    turned = atlas.run(a_cell("MMoE"), SOURCE)
    chosen = ["best_pass", "validation_auc_1", "validation_auc_2"]
    assert honest[chosen].equals(turned[chosen])
    np.testing.assert_allclose(turned["test_auc_1"], 1 - honest["test_auc_1"], atol=2e-6)


def test_one_class_in_a_split_is_one_line() -> None:
    small = CensusSource(train_rows=3_000, test_rows=12, simulated=True)
    rare = min(
        targets(SOURCE.tables().train), key=lambda target: target.answers(SOURCE.tables().train).mean()
    )
    with pytest.raises(ValueError, match="has one class in the validation rows") as error:
        pair_data(small, rare, Target("sex", "Male" if rare.column != "sex" else "Female"))
    assert "\n" not in str(error.value)


def test_the_extremes_are_looked_at_from_fresh_seeds() -> None:
    rows = pd.DataFrame(
        [
            {"pair": pair, "model": model, "seed": seed, "target_1": FIRST.name, "target_2": SECOND.name}
            | {"test_auc_1": 0.8 + 0.001 * pair * (model == "MMoE"), "test_auc_2": 0.8}
            for pair in range(20)
            for model in MODELS
            for seed in range(2)
        ]
    )
    cells = atlas.again_cells(PRESETS["paper"], rows)
    assert list(dict.fromkeys(cell.choices.pair for cell in cells)) == [0, 1, 2, 3, 19, 18, 17, 16]
    assert all(min(cell.seeds) >= 1_000 for cell in cells)


def test_average_precision_and_log_loss_are_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 200, generator=generator).round(decimals=1)  # ties
    labels = (torch.rand(200, generator=generator) < 0.3).float()
    for run in range(3):
        expected = reference.average_precision_score(labels.numpy(), logits[run].numpy())
        assert float(average_precision(logits, labels)[run]) == pytest.approx(expected, rel=1e-12)
        expected = reference.log_loss(labels.numpy(), torch.sigmoid(logits[run].double()).numpy())
        assert float(log_loss(logits, labels)[run]) == pytest.approx(expected, rel=1e-9)
