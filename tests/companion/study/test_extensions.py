"""The studies of chapter 6: which cells there are, what is taken away, what is chosen, and that they run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from companion.extensions import EXTENSIONS, STRENGTHS
from companion.study.__main__ import main
from companion.study.cells import Cell
from companion.study.census import CensusSource
from companion.study.extensions import census, gates, gradients, rare_labels, units
from companion.study.extensions.rare_labels import REMEDIES, SHARES, Choices, Sources, kept_rows, loss_of
from companion.study.kuairand import RankingSource
from companion.study.presets import PRESETS
from companion.study.scores import polarisation
from mmoe_lib.models import count_multiply_adds
from mmoe_lib.tasks import synthetic as task
from mmoe_lib.training import Ensemble, binary_cross_entropy, squared_error
from mmoe_lib.training.losses import weighted

TINY = replace(
    PRESETS["smoke"],
    extension_runs=2,
    extension_census_runs=2,
    extension_steps=5,
    extension_tuning_runs=2,
    extension_small_runs=2,
    extension_unit_runs=2,
    synthetic_chunk=2,
    census_chunk=2,
    census_epochs=1,
    rare_draws=4,
    rare_tuning_runs=2,
)
SOURCES = Sources(CensusSource(3_000, 2_000, simulated=True), RankingSource(60, simulated=True))
PAPER = PRESETS["paper"]


def test_the_study_compares_what_chapter_6_names_at_one_size() -> None:
    families = {name: extension.family for name, extension in EXTENSIONS.items()}
    assert sum(family == "gates" for family in families.values()) == 5
    assert sum(family == "layers" for family in families.values()) == 2
    assert sum(family == "regularised" for family in families.values()) == 4 * len(STRENGTHS)
    costs = {name: count_multiply_adds(extension.build(100, 2)) for name, extension in EXTENSIONS.items()}
    assert costs["Top-2 gates"] == costs["Gate dropout"] == costs["Even load 0.1"] == costs["MMoE"]
    deeper, plain = (EXTENSIONS[name].build(100, 2).state_dict() for name in ("Deeper MMoE", "MMoE"))
    added = {name: value for name, value in deeper.items() if name not in plain}
    assert {name: value.shape for name, value in plain.items()}.items() <= {
        name: value.shape for name, value in deeper.items()
    }.items()
    assert sum(value.numel() for value in added.values()) == 8 * (
        16 * 16 + 16
    )  # a second layer in each expert
    # eight experts of 16 units in all, and gates of six of them
    assert abs(costs["CGC"] / costs["MMoE"] - 1) < 0.05


def test_polarisation_has_its_closed_forms() -> None:
    even = torch.full((1, 10, 2, 4), 0.25)
    one = torch.zeros(1, 10, 2, 4)
    one[:, :, 0, 0] = one[:, :, 1, 3] = 1
    found = {name: values.tolist() for name, values in polarisation(torch.cat([even, one])).items()}
    assert found["gate_entropy"] == pytest.approx([1, 0], abs=1e-6)
    assert found["gate_largest"] == pytest.approx([0.25, 1])
    assert found["experts_used"] == [4, 2]
    assert found["gate_distance"] == pytest.approx([0, 1])


@pytest.mark.parametrize("name", ["Shared-Bottom", "Gate dropout", "CGC", "Sharper gates 0.1"])
def test_a_synthetic_cell_gives_a_row_a_run_and_the_same_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "TEST_ROWS", 500)
    rates = dict.fromkeys(gates.COMPARED, 1e-3)
    cell = next(c for c in gates.reported_cells(TINY, rates) if c.model == name)
    rows = gates.run(cell)
    assert list(rows["seed"]) == [0, 1]
    assert bool(rows["loss_1"].between(0.1, 10).all())
    assert bool((rows["loss_worst"] >= rows["loss_1"]).all())
    assert rows["gate_entropy"].notna().all() == (name != "Shared-Bottom")
    pd.testing.assert_frame_equal(rows, gates.run(cell))


def test_sixteen_tasks_have_sixteen_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "TEST_ROWS", 500)
    cell = next(c for c in gates.task_cells(TINY) if c.setting == "16 tasks" and c.model == "MMoE")
    ensemble, history = gates.train_cell(cell, progress=False)
    assert history.losses[-1].shape == (2, 16)
    assert ensemble.module(0)(torch.zeros(3, 100)).shape == (3, 16)


def test_more_runs_of_a_setting_go_on_where_the_stored_ones_end() -> None:
    six, twelve = (replace(PAPER, extension_small_runs=runs) for runs in (6, 12))
    for cells_of in (gates.layer_cells, gates.task_cells):
        first, all_cells = cells_of(six), cells_of(twelve)
        assert all_cells[: len(first)] == first
        assert {cell.seeds for cell in all_cells[len(first) :]} == {tuple(range(6, 12))}


def _unit_cells(remedy: str) -> list[Cell[Any]]:
    return [c for c in units.reported_cells(TINY, {"MMoE": 1e-3}) if c.facts["remedy"] == remedy]


def test_a_unit_that_the_weight_undoes_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With u = 10 and the weight 1/100, outputs divided by 10 have the loss that u = 1 has at equal weights."""
    monkeypatch.setattr(gates, "TEST_ROWS", 500)
    found = {}
    for unit, weight in ((1.0, 1.0), (10.0, 0.01)):
        choices = units.Choices(0.5, unit, "fixed weights", weight, 1, 32)
        (x, y), *_ = gates.fresh_rows(0.5, (0, 1), task.CALIBRATED, torch.device("cpu"))
        ((_, scaled),) = units._in_unit(iter([(x, y)]), unit)
        outputs = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, unit])
        loss = weighted(squared_error, units._weights(choices))
        found[unit] = loss(outputs.flatten(0, 1), scaled.flatten(0, 1)) * (1 + weight)
    torch.testing.assert_close(found[1.0], found[10.0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("remedy", ["plain sum", "fixed weights", "uncertainty weighting", "PCGrad"])
def test_a_unit_cell_tells_losses_in_the_papers_unit(remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "TEST_ROWS", 500)
    cells = _unit_cells(remedy)
    assert [cell.facts["unit"] for cell in cells] == ([10.0] if remedy == "fixed weights" else [1.0, 10.0])
    for cell in cells:
        rows = units.run(cell)
        assert list(rows["seed"]) == [0, 1]
        # Five steps have learned nothing: of both tasks all is left, which would differ 100 times in their units.
        assert bool((rows["loss_2"] / rows["loss_1"]).between(0.5, 2).all())
        pd.testing.assert_frame_equal(rows, units.run(cell))


@pytest.mark.parametrize("unit", [1.0, 10.0])
def test_losses_are_told_in_the_papers_unit_whatever_a_model_was_trained_in(
    unit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs set by hand: 0.3 for task 1 and, in the trained unit, 0.5 u for task 2."""

    class Constant(nn.Module):
        def __init__(self, generator: torch.Generator) -> None:
            super().__init__()
            self.output = nn.Parameter(torch.tensor([0.3, 0.5 * unit]))

        def forward(self, x: Tensor) -> Tensor:
            return self.output.expand(*x.shape[:-1], 2)

    monkeypatch.setattr(gates, "TEST_ROWS", 500)
    choices = units.Choices(0.5, unit, "plain sum", 1.0, 1, 32)
    found = units._losses(Ensemble(Constant, (0, 1)), choices, (0, 1))
    labels = torch.cat([y for _, y in gates.fresh_rows(0.5, (0, 1), task.CALIBRATED, torch.device("cpu"))], 1)
    # mean (c - y)^2,  c = (0.3, 0.5)
    expected = (labels - torch.tensor([0.3, 0.5])).square().mean(dim=1)
    torch.testing.assert_close(found, expected)


def test_the_rate_with_the_lowest_loss_is_chosen_and_passed_on() -> None:
    names = [name for name in gates.COMPARED if EXTENSIONS[name].own_rate]
    rows = pd.DataFrame(
        [
            (name, rate, 0.5 if rate == 1e-3 else 0.4 if name == "MMoE" and rate == 3e-3 else 0.6)
            for name in names
            for rate in gates.RATES
        ],
        columns=["model", "learning_rate", "loss_mean"],
    )
    chosen = gates.chosen_rates(rows)
    assert chosen["CGC"] == 1e-3
    assert chosen["MMoE"] == chosen["Even load 0.1"] == 3e-3
    rows.loc[(rows["model"] == "CGC") & (rows["learning_rate"] == 1e-3), "loss_mean"] = float("nan")
    assert gates.chosen_rates(rows)["CGC"] == gates.RATES[0]  # a rate with a diverged run is not chosen
    with pytest.raises(ValueError, match="PLE: runs diverged at every learning rate"):
        gates.chosen_rates(rows[rows["model"] != "PLE"])


def test_only_positives_leave_and_smaller_shares_keep_fewer_of_the_same() -> None:
    positive = torch.rand(5_000, generator=torch.Generator().manual_seed(0)) < 0.1
    whole, tenth, hundredth = (set(kept_rows(positive, share, 3).tolist()) for share in SHARES)
    assert whole == set(range(5_000))
    negatives = set((~positive).nonzero().squeeze(1).tolist())
    assert negatives < hundredth < tenth < whole
    assert len(tenth) - len(negatives) == round(0.1 * int(positive.sum()))
    assert len(hundredth) - len(negatives) == round(0.01 * int(positive.sum()))
    assert set(kept_rows(positive, 0.1, 4).tolist()) != tenth
    with pytest.raises(ValueError, match="share is 0"):
        kept_rows(positive, 0.0, 0)
    with pytest.raises(ValueError, match="is none, expected one or more"):
        kept_rows(positive[:20], 0.01, 0)


def _choices(remedy: str, weight: float = 1.0, data_set: str = "census") -> Choices:
    return Choices(data_set, 0.1, remedy, weight, 1)


def test_each_remedy_changes_the_loss_as_it_says() -> None:
    generator = torch.Generator().manual_seed(2)
    logits, rates = torch.randn(400, 2, generator=generator), torch.tensor([0.05, 0.4])
    labels = (torch.rand(400, 2, generator=generator) < rates).float()
    plain = binary_cross_entropy(logits, labels)
    for name, remedy in REMEDIES.items():
        if not isinstance(remedy, str):
            assert torch.equal(loss_of(_choices(name), rates)(logits, labels), plain)
    weighed = loss_of(_choices("fixed weights", 3.0), rates)(logits, labels)
    torch.testing.assert_close(weighed, plain * torch.tensor([1.5, 0.5]))  # income is the rare task
    weighed = loss_of(_choices("fixed weights", 3.0, "kuairand"), rates)(logits, labels)
    torch.testing.assert_close(weighed, plain * torch.tensor([0.5, 1.5]))  # satisfaction is
    # class weights: a classifier that knows nothing is best at 0, where both classes weigh the same
    zero = torch.zeros(1, 2, requires_grad=True)
    balanced = loss_of(_choices("class weights"), labels.mean(dim=0))(zero.expand(400, 2), labels)
    (gradient,) = torch.autograd.grad(balanced.sum(), zero)
    torch.testing.assert_close(gradient, torch.zeros(1, 2), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="remedy is 'hope'"):
        loss_of(_choices("hope"), rates)


def _rates() -> dict[tuple[str, float], float]:
    return {(model, share): 1e-3 for model in rare_labels.MODELS for share in SHARES}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data_set", ["census", "kuairand"])
@pytest.mark.parametrize("remedy", ["plain sum", "fixed weights", "GradNorm", "UPGrad"])
def test_a_rare_cell_runs_on_both_sets_and_is_the_same_again(data_set: str, remedy: str) -> None:
    weights = {("MMoE", share): 3.0 for share in SHARES}
    cells = rare_labels.reported_cells(TINY, data_set, _rates(), weights)
    cell = next(c for c in cells if c.model == "MMoE" and c.setting == f"{data_set} 0.1: {remedy}")
    rows = rare_labels.run(cell, SOURCES)
    assert list(rows["seed"]) == [0, 1, 2, 3]
    assert bool(rows[["test_rare_auc", "test_other_auc", "validation_mean_auc"]].notna().all(axis=None))
    pd.testing.assert_frame_equal(rows, rare_labels.run(cell, SOURCES))
    whole = SOURCES.census.data("income").y_train[:, 0].sum() if data_set == "census" else None
    if whole is not None:
        assert int(rows["positives"].iloc[0]) == round(0.1 * float(whole))


def test_remedies_are_compared_in_pairs_of_one_draw() -> None:
    cells = rare_labels.reported_cells(PAPER, "census", _rates(), {("MMoE", share): 1.0 for share in SHARES})
    for share in SHARES[1:]:
        seeds = {
            remedy: [
                c.seeds
                for c in cells
                if c.model == "MMoE" and c.facts["share"] == share and c.facts["remedy"] == remedy
            ]
            for remedy in REMEDIES
        }
        assert all(found == seeds["plain sum"] for found in seeds.values())
    assert {seed for c in cells for seed in c.seeds} == set(range(PAPER.rare_draws))
    assert len({(c.model, c.setting, c.seeds) for c in cells}) == len(cells)  # a key is a run


def test_large_weights_are_run_on_the_reported_draws() -> None:
    reported = rare_labels.reported_cells(PAPER, "kuairand", _rates(), {("MMoE", s): 1.0 for s in SHARES})
    plain = [c for c in reported if c.model == "MMoE" and c.setting == "kuairand 0.01: plain sum"]
    cells = rare_labels.large_weight_cells(PAPER, "kuairand", _rates())
    for weight in rare_labels.LARGE_WEIGHTS:
        mine = [c for c in cells if c.facts["weight"] == weight]
        assert [c.seeds for c in mine] == [c.seeds for c in plain]
        assert [c.learning_rate for c in mine] == [c.learning_rate for c in plain]
        assert {c.setting for c in mine} == {f"kuairand 0.01: fixed weights {weight:g}"}


def test_what_is_watched_has_its_closed_forms() -> None:
    # two runs: gradients (3, 0) and (0, 4) are at right angles, (1, 0) and (-2, 0) opposed; the third has none
    vectors = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [-2.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]])
    weights = torch.tensor([[1.0, 1.0], [0.5, 1.5], [1.0, 1.0]])
    found = gradients.measures(weights, vectors @ vectors.transpose(1, 2), rare=1)
    assert found["weight"].tolist() == [0.5, 0.75, 0.5]
    assert found["cosine"][:2].tolist() == pytest.approx([0, -1])
    assert found["conflict"][:2].tolist() == [0, 1]
    assert (10 ** found["ratio"][:2]).tolist() == pytest.approx([4 / 3, 2])
    assert all(bool(found[name][2].isnan()) for name in ("cosine", "conflict", "ratio"))
    assert gradients._mean(np.array([[1.0, np.nan], [3.0, np.nan]], np.float32))[0] == 2
    assert np.isnan(gradients._mean(np.array([[1.0, np.nan], [3.0, np.nan]], np.float32))[1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data_set", ["census", "kuairand"])
@pytest.mark.parametrize("remedy", ["plain sum", "GradNorm"])
def test_a_watched_run_is_the_same_run(data_set: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watching changes nothing, and the plain sum has the weight one half throughout."""
    monkeypatch.setattr(gradients, "SHARE", 0.1)  # a hundredth of so few rows is none,
    monkeypatch.setattr(gradients, "PARTS", 1)  # and there are two steps at most
    watched = next(
        c for c in gradients.watched_cells(TINY, data_set, _rates()) if c.facts["remedy"] == remedy
    )
    rows, unwatched = gradients.run(watched, SOURCES), rare_labels.run(watched, SOURCES)
    assert rows["test_rare_auc"].tolist() == pytest.approx(unwatched["test_rare_auc"].tolist(), abs=1e-4)
    weights = rows.filter(regex="^weight_")
    assert weights.shape == (4, 1)
    # GradNorm's first step has equal weights too, and on KuaiRand there is but one.
    assert bool((weights == 0.5).all(axis=None)) == (remedy == "plain sum" or data_set == "kuairand")
    assert set(np.sign(rows.filter(regex="^conflict_").to_numpy()).ravel()) <= {0.0, 1.0}
    assert bool(rows.filter(regex="^ratio_").notna().all(axis=None))


def test_rate_and_weight_are_chosen_on_validation() -> None:
    rows = []
    for model in rare_labels.MODELS:
        for share in SHARES:
            for rate in rare_labels.TUNED["census"]:
                good = 0.9 if rate == 3e-3 else 0.8
                rows.append(("census", model, share, rate, 1.0, "plain sum", good))
            if model == "MMoE":
                rows.append(
                    ("census", model, share, 3e-3, 10.0, "fixed weights", 0.95 if share < 0.1 else 0.7)
                )
                rows.append(("census", model, share, 1e-3, 0.1, "fixed weights", 0.99))  # not the chosen rate
    names = ["data_set", "model", "share", "learning_rate", "weight", "remedy", "validation_mean_auc"]
    tuning = pd.DataFrame(rows, columns=names)
    assert set(rare_labels.chosen(tuning, "census", "learning_rate").values()) == {3e-3}
    weights = rare_labels.chosen(tuning, "census", "weight")
    assert weights == {("MMoE", 0.1): 1.0, ("MMoE", 0.01): 10.0}
    with pytest.raises(ValueError, match="has no AUC on kuairand"):
        rare_labels.chosen(tuning, "kuairand", "learning_rate")


def test_a_census_cell_scores_and_measures_gates() -> None:
    rates = dict.fromkeys(EXTENSIONS, 3e-3)
    cells = census.reported_cells(TINY, rates)
    assert {c.model for c in cells} == set(EXTENSIONS)
    for name in ("Top-2 gates", "Single-Task"):
        rows = census.run(next(c for c in cells if c.model == name), SOURCES.census)
        assert bool(rows["test_main_auc"].between(0, 1).all())
        assert rows["gate_entropy"].notna().all() == (name == "Top-2 gates")


def test_the_command_lists_what_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["extensions", "--preset", "paper", "--results", str(tmp_path), "--status", "--device", "cpu"]
    assert main(command) == 0
    told = capsys.readouterr().out.splitlines()
    # 11 models of their own rate without Single-Task, 3 rates, 4 runs
    assert told[0] == "extensions_gates_tuning.csv: 0 of 132 runs, preset paper"
    # 5 models, 4 numbers of tasks, 12 runs
    assert "extensions_tasks.csv: 0 of 240 runs, preset paper" in told
    assert not list(tmp_path.iterdir())
