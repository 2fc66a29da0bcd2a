"""The specification curve's design is even and stable, its models are of one size, and its runs are what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from companion.study import specifications
from companion.study.census import CensusSource
from companion.study.presets import PRESETS
from companion.study.specifications import EARLY, MODELS, ORDERS, PASSES, builder, parameters, specification
from mmoe_lib.models import MMoE
from mmoe_lib.tasks.census import GROUPS

SOURCE = CensusSource(train_rows=2_000, test_rows=2_000, simulated=True)


def test_the_design_covers_every_level_evenly_from_its_first_part_on() -> None:
    drawn = [specification(number, "income") for number in range(16)]
    assert len({choices.schedule for choices, _ in drawn}) == len(PASSES)
    for name, levels in (
        ("schedule", tuple(PASSES)),
        ("row_order", ORDERS),
        ("depth", (1, 2)),
        ("units", (32, 64, 128, 256)),
    ):
        counts = [sum(getattr(choices, name) == level for choices, _ in drawn) for level in levels]
        assert max(counts) - min(counts) <= 2, name
    rates = [rate for _, rate in drawn]
    low, high = specifications.RATES
    assert low <= min(rates) < 2 * low
    assert high / 2 < max(rates) <= high
    # As stored: a design that moves would make another study of the rows that are there.
    assert drawn[0] == specification(0, "income")
    assert (drawn[0][0].schedule, drawn[0][0].batch_size, drawn[0][0].units, drawn[0][1]) == (
        "6 passes",
        512,
        64,
        0.00052,
    )
    with pytest.raises(ValueError, match="expected 0 to 63"):
        specification(64, "income")


def test_an_unfinished_study_has_as_many_runs_of_each_model_and_a_first_part_of_the_design() -> None:
    cells = specifications.cells(PRESETS["paper"])
    assert len(cells) == 48 * 2 * len(MODELS) * 2
    first = cells[: len(cells) // 2]
    assert {cell.seeds for cell in first} == {(0, 1, 2, 3, 4)}
    # The first group's whole curve comes before the second's.
    drawn = [(list(GROUPS).index(cell.choices.group), cell.choices.specification) for cell in first]
    assert drawn == sorted(drawn)


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_a_layer_more_costs_no_more_parameters_than_the_mixture(number: int) -> None:
    choices, _ = specification(number, "income")
    sizes = {model: parameters(builder(model, choices, 480, 2), 480, 2) for model in MODELS}
    assert sizes["Deeper Shared-Bottom"] == pytest.approx(sizes["MMoE"], rel=0.01)
    with torch.device("meta"):
        mixture = builder("MMoE", choices, 480, 2)(480, 2)
    assert isinstance(mixture, MMoE)
    with pytest.raises(ValueError, match="expected one of Single-Task"):
        builder("OMoE", choices, 480, 2)


@pytest.mark.parametrize("passes", ["3 passes", EARLY])
def test_runs_keep_the_weights_that_they_say(passes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specifications, "PATIENCE", 1)
    cell = specifications.cells(PRESETS["smoke"])[1]
    choices = replace(cell.choices, schedule=passes, batch_size=500, units=32, row_order=ORDERS[1])
    rows = specifications.run(replace(cell, choices=choices, seeds=(0, 1), learning_rate=0.01), SOURCE)
    assert (rows["test_main_auc"] > 0.75).all()
    assert set(rows.columns) == {"seed", *specifications.COLUMNS}
    if passes != EARLY:
        assert set(rows["best_pass"]) == {3}
    else:
        assert rows["best_pass"].between(1, 24).all()


def test_orders_are_shared_or_each_run_s_own() -> None:
    data = SOURCE.data("income")
    choices, _ = specification(0, "income")
    choices = replace(choices, batch_size=100)
    together, _ = next(
        specifications._batches(data, replace(choices, row_order=ORDERS[0]), (0, 1), torch.device("cpu"))
    )
    apart, labels = next(
        specifications._batches(data, replace(choices, row_order=ORDERS[1]), (0, 1), torch.device("cpu"))
    )
    assert together.dim() == 2
    assert apart.shape[:2] == labels.shape[:2] == (2, 100)
    assert not torch.equal(apart[0], apart[1])


def test_the_test_half_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its labels turned round every run keeps the same pass and the same validation AUC."""
    cell = specifications.cells(PRESETS["smoke"])[3]
    choices = replace(cell.choices, schedule=EARLY, batch_size=500, units=32)
    cell = replace(cell, choices=choices, seeds=(0,), learning_rate=0.01)
    honest = specifications.run(cell, SOURCE)
    data = SOURCE.data("income", choices.variant)
    poisoned = replace(data, y_test=1 - data.y_test)
    monkeypatch.setattr(CensusSource, "data", lambda *_: poisoned)
    turned = specifications.run(cell, SOURCE)
    chosen = ["best_pass", "validation_main_auc", "validation_auxiliary_auc"]
    assert honest[chosen].equals(turned[chosen])
    assert turned["test_main_auc"].iloc[0] == pytest.approx(1 - honest["test_main_auc"].iloc[0], abs=1e-5)


def test_run_r_of_a_cell_is_that_run_alone() -> None:
    """Runs with orders of their own: what is trained beside one does not change it."""
    cell = specifications.cells(PRESETS["smoke"])[3]
    choices = replace(cell.choices, schedule="3 passes", batch_size=500, units=32, row_order=ORDERS[1])
    both = specifications.run(replace(cell, choices=choices, seeds=(0, 1)), SOURCE)
    alone = specifications.run(replace(cell, choices=choices, seeds=(1,)), SOURCE)
    assert both["test_main_auc"][1] == pytest.approx(alone["test_main_auc"][0], abs=2e-5)
