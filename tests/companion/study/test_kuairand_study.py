"""The recommendation study, on the simulated stand-in."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import r2_score, roc_auc_score
from torch import Tensor

from companion.checkout import ROOT
from companion.study import kuairand, kuairand_references, off_policy
from companion.study.__main__ import main
from companion.study.cells import Cell, NoChoices, run_cells
from companion.study.kuairand import (
    RATES,
    TUNING_SEED,
    Choices,
    Chosen,
    RankingSource,
    chosen_settings,
    probabilities,
    reported_cells,
    train_rankers,
    tuning_cells,
)
from companion.study.kuairand_simulated import load_simulated
from companion.study.origin import Origin
from companion.study.policies import tradeoff
from companion.study.presets import PRESETS
from companion.study.rankers import METHODS, build_ranker
from mmoe_lib.models import count_multiply_adds
from mmoe_lib.tasks.kuairand import Impressions, RankingData, some_users
from mmoe_lib.tasks.kuairand.files import KUAIRAND_PURE

SOURCE = RankingSource(users=200, simulated=True)
SMALL = replace(PRESETS["smoke"], kuairand_epochs=3, kuairand_seeds=4, kuairand_chunk=2)
CHOSEN = {
    (method, optimiser): Chosen(
        method, optimiser, 1e-2 if optimiser == "Adam" else 1.0, 1e-4 if method == "L2-Constrained" else 0.0
    )
    for method in METHODS
    for optimiser in RATES
}


def cell(method: str = "MMoE", optimiser: str = "Adam", seeds: tuple[int, ...] = (0, 1)) -> Cell[Any]:
    """The first cell of a method, with these seeds."""
    cells = reported_cells(SMALL, CHOSEN)
    found = next(c for c in cells if c.model == method and c.setting == optimiser)
    return replace(found, seeds=seeds)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return kuairand.run(cell(), SOURCE, "cpu")


def test_scores_agree_with_scikit_learn(rows: pd.DataFrame) -> None:
    data = SOURCE.data()
    choices = cell().choices
    runs, _ = train_rankers("MMoE", data, (0, 1), choices, learning_rate=1e-2, progress=False)
    predicted = probabilities(runs, data, data.test).numpy()
    labels = data.test.labels.numpy()
    for run in (0, 1):
        row = rows.iloc[run]
        assert row["test_engagement_auc_3"] == pytest.approx(
            roc_auc_score(labels[:, 0], predicted[run, :, 0]), abs=1e-6
        )
        assert row["test_satisfaction_auc_3"] == pytest.approx(
            roc_auc_score(labels[:, 1], predicted[run, :, 1]), abs=1e-6
        )
        assert row["test_engagement_r2_3"] == pytest.approx(
            r2_score(labels[:, 0], predicted[run, :, 0]), abs=1e-5
        )


def test_judges_after_each_third_and_ranks_at_the_end(rows: pd.DataFrame) -> None:
    data = SOURCE.data()
    steps = 3 * (len(data.train) // 1024)
    assert steps % 3 == 0
    # A run that is trained for a third of the steps is the whole run's state after that third.
    choices = Choices("Adam", 1, experts=4)
    runs, _ = train_rankers("MMoE", data, (0, 1), choices, learning_rate=1e-2, progress=False)
    predicted = probabilities(runs, data, data.test)
    judged = kuairand.judge(predicted, data.test.labels.float())
    np.testing.assert_allclose(rows["test_engagement_auc_1"], judged["engagement_auc"], atol=1e-6)
    assert (rows["test_engagement_auc_3"] - rows["test_engagement_auc_1"]).abs().max() > 1e-4
    top = rows[[f"top_engagement_{index}" for index in range(11)]].to_numpy()
    assert ((top > 0) & (top < 1)).all()
    # Ranked by engagement alone, the better half holds more of it than ranked by satisfaction alone.
    assert (top[:, 0] >= top[:, 10] - 0.02).all()


def test_ranked_shares_are_those_of_the_policy(rows: pd.DataFrame) -> None:
    data = SOURCE.data()
    choices = cell().choices
    runs, _ = train_rankers("MMoE", data, (0, 1), choices, learning_rate=1e-2, progress=False)
    predicted = probabilities(runs, data, data.test)
    found = tradeoff(predicted[..., 0], predicted[..., 1], data.test.labels.float(), data.test.user, [0.3])
    np.testing.assert_allclose(rows["top_engagement_3"], found.engagement[:, 0], atol=1e-6)
    np.testing.assert_allclose(rows["top_satisfaction_3"], found.satisfaction[:, 0], atol=1e-6)


def test_gates_are_means_over_test_rows(rows: pd.DataFrame) -> None:
    data = SOURCE.data()
    choices = cell().choices
    runs, _ = train_rankers("MMoE", data, (0, 1), choices, learning_rate=1e-2, progress=False)
    x, _ = data.features.rows(data.test, slice(None))
    weights = runs.gate_weights(x)  # (R, N, K, n)
    whole = kuairand.gate_use(runs, data, data.test, rows=1000)
    for k in (1, 2):
        means = weights[:, :, k - 1].mean(dim=1)
        shown = rows[[f"gate_{k}_{i}" for i in range(1, 5)]].to_numpy()
        np.testing.assert_allclose(shown, means, atol=6e-5)
        np.testing.assert_allclose(shown.sum(axis=1), 1, atol=3e-4)
        np.testing.assert_allclose(whole[f"gate_{k}_2"], means[:, 1], atol=1e-5)
    assert rows["gate_entropy_1"].between(0, 1).all()


def test_a_run_does_not_depend_on_the_others_of_its_cell(rows: pd.DataFrame) -> None:
    alone = kuairand.run(cell(seeds=(1,)), SOURCE, "cpu")
    assert alone.loc[0, "test_engagement_auc_3"] == pytest.approx(
        rows.loc[1, "test_engagement_auc_3"], abs=2e-4
    )


@pytest.mark.parametrize("optimiser", ["SGD", "Adam"])
def test_a_rate_that_is_far_too_high_is_recorded(optimiser: str) -> None:
    wild = replace(cell("Shared-Bottom", optimiser), learning_rate=1e30)
    found = kuairand.run(wild, SOURCE, "cpu")
    assert (found["diverged_step"] > 0).all()
    assert found["test_engagement_auc_3"].isna().all()
    assert list(found.columns) == list(kuairand.run(cell("Shared-Bottom"), SOURCE, "cpu").columns)


def test_networks_of_their_own_have_the_layers_of_shared_bottom() -> None:
    shape = (38, 15, 500)
    generator = torch.Generator().manual_seed(0)
    cost = {
        method: count_multiply_adds(build_ranker(method, *shape)(generator=generator)) for method in METHODS
    }
    assert cost["Single-Task"] == cost["L2-Constrained"]
    # Two networks compute what one shared bottom does twice; the towers exist twice in both.
    towers = 2 * (32 * 16 + 16)
    assert cost["Single-Task"] == 2 * (cost["Shared-Bottom"] - towers) + towers
    # 4 experts of 32 units in place of one layer, a gate of 4 a task on 32 numbers, 2 x 4 x 32 products to mix.
    assert cost["MMoE"] - cost["Shared-Bottom"] == 3 * 32 * 32 + 2 * 4 * 32 + 2 * 4 * 32
    assert cost["Cross-Stitch"] - cost["Single-Task"] == 4 * (64 + 32 + 32)


def test_cells_of_a_chunk_share_the_order_and_tuning_has_seeds_of_its_own() -> None:
    cells = reported_cells(SMALL, CHOSEN)
    assert {(c.model, c.setting) for c in cells[:12]} == {(m, o) for m in METHODS for o in RATES}
    assert {c.facts["order"] for c in cells[:12]} == {0}
    assert {c.facts["order"] for c in cells[12:]} == {1}
    assert {seed for c in cells for seed in c.seeds} == {0, 1, 2, 3}
    tuning = tuning_cells(SMALL)
    assert min(seed for c in tuning for seed in c.seeds) == TUNING_SEED
    trials = pd.Series([c.model for c in tuning]).value_counts()
    assert set(trials.drop("L2-Constrained")) == {sum(len(rates) for rates in RATES.values())}


def test_tuning_takes_the_best_mean_and_no_setting_that_diverged() -> None:
    rows = []
    for c in tuning_cells(SMALL):
        for seed in c.seeds:
            best = {"SGD": 2.0, "Adam": 3e-3}[str(c.facts["optimiser"])]
            auc = 0.7 + (c.learning_rate == best) * 0.01
            if c.learning_rate == max(RATES[str(c.facts["optimiser"])]):
                auc = 0.9 if seed % 2 else np.nan
            rows.append(
                {"model": c.model, "learning_rate": c.learning_rate, **c.facts, "seed": seed}
                | {"validation_engagement_auc": auc + 0.001 * (c.facts["alpha"] == 1e-3)}
            )
    chosen = chosen_settings(pd.DataFrame(rows))
    assert {key: value.learning_rate for key, value in chosen.items()} == {
        (method, optimiser): rate for method in METHODS for optimiser, rate in (("SGD", 2.0), ("Adam", 3e-3))
    }
    assert chosen["L2-Constrained", "SGD"].alpha == 1e-3
    with pytest.raises(ValueError, match="no setting of MMoE with Adam has an AUC"):
        chosen_settings(
            pd.DataFrame([row for row in rows if row["model"] != "MMoE" or row["optimiser"] == "SGD"])
        )


def test_gate_dropout_trains_other_weights_and_judges_without_noise() -> None:
    data = SOURCE.data()
    plain = Choices("Adam", 1, experts=4)
    train_ = partial(train_rankers, "MMoE", data, (0,), learning_rate=1e-2, progress=False)
    without, _ = train_(plain)
    dropped, _ = train_(replace(plain, gate_dropout=0.1))
    assert list(without.parameters) == list(dropped.parameters)
    assert not torch.equal(without.parameters["top.gates.weight"], dropped.parameters["top.gates.weight"])
    one, two = (probabilities(dropped, data, data.test) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_ranker("PLE", 1, 1, 5), "method is 'PLE', expected one of Single-Task"),
        (lambda: build_ranker("OMoE", 1, 1, 5, gate_dropout=0.1), "only MMoE has it"),
        (
            lambda: train_rankers("MMoE", SOURCE.data(), (0,), Choices("RMSprop", 1), learning_rate=1.0),
            "optimiser is 'RMSprop', expected one of SGD, Adam",
        ),
        (lambda: some_users(SOURCE.tables(), 10**6), "1,000,000 users asked for"),
        (lambda: off_policy.with_candidates(SOURCE.tables(), 1), "number of candidates is 1"),
        (
            lambda: off_policy.with_candidates(replace(SOURCE.tables(), random=None), 5),
            "there is no random log",
        ),
        (
            lambda: kuairand_references.run_reference(
                Cell("Gradient boosting", "moon", 0.1, (0,), NoChoices()), SOURCE
            ),
            "inputs are 'moon'",
        ),
    ],
)
def test_what_cannot_be_is_one_line(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_some_users_keep_all_of_their_impressions() -> None:
    tables = load_simulated(100)
    few = some_users(tables, 10)
    kept = few.log["user_id"].unique()
    assert len(kept) == 10
    assert len(few.log) == tables.log["user_id"].isin(kept).sum()
    assert few.random is not None
    assert set(few.random["user_id"]) <= set(kept)
    assert "10 random users" in few.source


def test_trees_find_what_the_user_did_before_useful() -> None:
    cells = kuairand_references.reference_cells()
    plain, past = (kuairand_references.run_reference(c, RankingSource(1000, simulated=True)) for c in cells)
    without, with_past = (float(rows["test_engagement_auc"].iloc[0]) for rows in (plain, past))
    assert 0.5 < without < with_past < 1
    assert (past["test_engagement_r2"] > 0).all()


def test_candidates_stand_behind_the_shown_one_and_the_estimate_is_of_it() -> None:
    tables = SOURCE.tables()
    together = off_policy.with_candidates(tables, 4)
    assert tables.random is not None
    assert together.random is not None
    shown = together.random.iloc[::4].reset_index(drop=True)
    pd.testing.assert_frame_equal(shown, tables.random.reset_index(drop=True), check_dtype=False)
    drawn = together.random["video_id"].to_numpy().reshape(-1, 4)[:, 1:]
    share = pd.Series(drawn.ravel()).value_counts(normalize=True)
    assert len(share) > 0.9 * len(tables.videos)

    found = off_policy.run_off_policy(cell("Shared-Bottom", seeds=(0,)), SOURCE, "cpu")
    assert (found["requests"] > 100).all()
    assert (found["low_engagement_0"] < found["value_engagement_0"]).all()
    assert (found["value_engagement_0"] < found["high_engagement_0"]).all()


def test_the_mix_of_the_two_scores_does_not_depend_on_how_high_one_of_them_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Likes are rarer than long views a hundredfold: their score enters relative to its mean."""
    monkeypatch.setattr(off_policy, "train_rankers", lambda *arguments, **options: (None, None))
    found = []
    for scale in (1.0, 2.0**-7):  # a power of two, with which nothing is rounded

        def made_up(ensemble: object, data: RankingData, part: Impressions, scale: float = scale) -> Tensor:
            scores = torch.rand(1, len(part), 2, generator=torch.Generator().manual_seed(0))
            return scores * torch.tensor([1.0, scale])

        monkeypatch.setattr(off_policy, "probabilities", made_up)
        found.append(off_policy.run_off_policy(cell("Shared-Bottom", seeds=(0,)), SOURCE, "cpu"))
    assert found[0]["value_engagement_0"].item() != found[0]["value_engagement_1"].item()
    pd.testing.assert_frame_equal(found[0], found[1])


def test_only_the_compared_methods_are_replayed_and_with_adam() -> None:
    cells = off_policy.off_policy_cells(SMALL, CHOSEN)
    assert [c.model for c in cells] == list(off_policy.COMPARED)
    assert {c.setting for c in cells} == {"Adam"}


def test_rows_go_to_a_file_with_their_origin(tmp_path: Path) -> None:
    origin = Origin.now("a test", "smoke", torch.device("cpu"), SOURCE.sums())
    small = cell("Shared-Bottom", "SGD", (0, 1))
    run = partial(kuairand.run, source=SOURCE, device="cpu")
    rows = run_cells([small], run, tmp_path / "kuairand.csv", origin, progress=False)
    assert small.facts.items() <= rows.iloc[0].to_dict().items()
    assert rows["data"].str.contains("simulated").all()
    assert len(run_cells([small], run, tmp_path / "kuairand.csv", origin, progress=False)) == 2


def test_a_window_without_a_single_like_is_an_error_and_no_score() -> None:
    labels = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="labels hold 0 ones and 3 zeros, expected some of both"):
        kuairand.judge(torch.full((1, 3, 2), 0.5), labels)


def test_the_state_of_the_study_is_told_without_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = ROOT / "data" / "results" / "kuairand_tuning.csv"
    (tmp_path / stored.name).write_bytes(stored.read_bytes())
    monkeypatch.delenv("MMOE_DATA", raising=False)
    monkeypatch.setattr("mmoe_lib.tasks.download.default_cache", lambda: tmp_path / "no cache")
    monkeypatch.setattr("mmoe_lib.tasks.download.fetch", None)
    assert main(["kuairand", "--preset", "paper", "--status", "--results", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "kuairand_tuning.csv: 112 of 112 runs" in told
    assert "kuairand.csv: 0 of" in told
    assert "off_policy" not in told  # there is no random log to replay
    names = [*(file.name for file in KUAIRAND_PURE.files), *KUAIRAND_PURE.optional]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setenv("MMOE_DATA", str(tmp_path))
    assert main(["kuairand", "--preset", "paper", "--status", "--results", str(tmp_path)]) == 0
    assert "kuairand_off_policy.csv: 0 of 30 runs" in capsys.readouterr().out
