"""The benchmarks of the recommendation study: like is compared with like, and they run."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from companion.benchmarks import ranking as ranking_benchmark
from companion.benchmarks import serving as serving_benchmark
from companion.benchmarks.__main__ import main
from companion.benchmarks.measure import Settings, interleaved
from companion.benchmarks.random_log import kuairand_tables, random_log, requests
from companion.benchmarks.ranking import (
    PLAIN,
    PlainRanker,
    ensemble_work,
    feature_slices,
    plain_batches,
    plain_inputs,
    plain_work,
)
from companion.study.kuairand_simulated import load_simulated
from companion.study.rankers import METHODS, build_ranker
from mmoe_lib.models import count_multiply_adds, count_parameters
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.kuairand import encode
from mmoe_lib.tasks.kuairand.features import FeatureTables, Impressions

ORIGIN = {"commit", "command", "preset", "device", "torch_version", "data"}


def shape_of(features: FeatureTables) -> tuple[int, int, int]:
    return len(features.sparse_names), len(features.dense_names), features.vocabulary


def simulated() -> tuple[FeatureTables, Impressions]:
    data = encode(load_simulated(300))
    return data.features, data.train


def random() -> tuple[FeatureTables, Impressions]:
    features = kuairand_tables()
    return features, random_log(features, 5_000)


def test_the_random_tables_have_the_shape_of_the_study() -> None:
    assert shape_of(kuairand_tables()) == (38, 15, 40_311)


@pytest.mark.parametrize("tables", [simulated, random])
def test_slices_hold_the_ids_of_their_feature_and_all_of_the_vocabulary(
    tables: Callable[[], tuple[FeatureTables, Impressions]],
) -> None:
    features, log = tables()
    slices = feature_slices(features)
    places = sorted(slices.values())
    assert places[0][0] == 0
    assert [start + size for start, size in places] == [
        *(start for start, _ in places[1:]),
        features.vocabulary,
    ]
    x, _ = features.rows(log, slice(0, len(log)))
    ids = plain_inputs(x, features.sparse_names, slices)[:, : len(features.sparse_names)]
    for name, column in zip(features.sparse_names, ids.T, strict=True):
        assert column.min() >= 0
        assert column.max() < slices[name.removeprefix("previous_")][1]


@pytest.mark.parametrize("tables", [simulated, random])
def test_the_plain_loops_model_is_the_same_function(
    tables: Callable[[], tuple[FeatureTables, Impressions]],
) -> None:
    features, log = tables()
    slices, names = feature_slices(features), features.sparse_names
    ours: Any = build_ranker("MMoE", *shape_of(features))(generator=seeded_generator(0, "initialisation"))
    plain: Any = PlainRanker(names, slices, len(features.dense_names))
    assert count_parameters(plain) == count_parameters(ours)
    with torch.no_grad():
        ours.embeddings.table.mul_(10)  # ids count for as much as the numbers
        for parameter in ours.parameters():  # and predictions differ from row to row
            parameter.mul_(2)
        for name, (start, size) in slices.items():
            plain.embeddings[name].weight.copy_(ours.embeddings.table[0, start : start + size])
        for source, target in zip(ours.lower.layers, plain.bottom[::2], strict=True):
            target.load_state_dict(source.state_dict())
        top, units = ours.top, 32
        for i, expert in enumerate(plain.experts):
            expert[0].weight.copy_(top.experts.first.weight[units * i : units * (i + 1)])
            expert[0].bias.copy_(top.experts.first.bias[units * i : units * (i + 1)])
        for k, (gate, tower) in enumerate(zip(plain.gates, plain.towers, strict=True)):
            gate.weight.copy_(top.gates.weight[4 * k : 4 * k + 4])
            source = top.towers.towers[k]
            tower[0].load_state_dict(source.hidden.layers[0].state_dict())
            tower[2].load_state_dict(source.output.state_dict())
    x, _ = features.rows(log, slice(0, 2_000))
    expected = ours(x)
    torch.testing.assert_close(plain(plain_inputs(x, names, slices)), expected, atol=1e-5, rtol=1e-5)
    assert (expected.std(dim=0) > 1e-2).all()


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_batches_visit_every_row_once_in_a_random_order(kind: str) -> None:
    rows = 3 * 1024
    x = torch.arange(rows).float().unsqueeze(1)
    seen = [batch for batch, _ in islice(plain_batches(kind, x, -x), 6)]
    labels = next(plain_batches(kind, x, -x))
    assert [len(batch) for batch in seen] == [1024] * 6
    for epoch in (torch.cat(seen[:3]), torch.cat(seen[3:])):
        assert not torch.equal(epoch, x)
        assert torch.equal(epoch.sort(dim=0).values, x)
    assert torch.equal(labels[0], -labels[1])


def test_both_kinds_of_training_learn() -> None:
    """A step of each returns the rows it took, and moves every weight that a batch can reach."""
    features, log = random()
    slices = feature_slices(features)
    x, y = features.rows(log, slice(0, len(log)))
    plain = PlainRanker(features.sparse_names, slices, len(features.dense_names))
    before = {name: value.clone() for name, value in plain.named_parameters()}
    work = plain_work(PLAIN[1], plain, plain_inputs(x, features.sparse_names, slices), y)
    assert work() == 1024
    assert all(not torch.equal(value, before[name]) for name, value in plain.named_parameters())
    assert ensemble_work("ensemble, eager", features, log, 3, "cpu")() == 3 * 1024


def test_each_round_lets_every_work_run_in_an_order_drawn_anew() -> None:
    calls: list[str] = []

    def work_of(name: str) -> Callable[[], int]:
        def work() -> int:
            if calls[-1:] != [name]:
                calls.append(name)
            return 1

        return work

    works = {name: work_of(name) for name in "abcdef"}
    measured = interleaved(works, rounds=8, seconds=0.001, progress=False)
    assert {name: len(rounds) for name, rounds in measured.items()} == dict.fromkeys("abcdef", 8)
    assert all(half <= most and speed > 0 for rounds in measured.values() for speed, half, most in rounds)
    # Two neighbours of one name, at the seam of two rounds, were noted once.
    assert 6 + 8 * 6 - 8 <= len(calls) <= 6 + 8 * 6
    after_warm_up = "".join(calls[6:])
    assert "abcdef" * 2 not in after_warm_up
    assert len({after_warm_up[at : at + 6] for at in range(0, 36, 6)}) > 1


def test_a_request_is_one_user_with_many_candidates() -> None:
    features = kuairand_tables()
    first, second = requests(features, rows=200, number=2)
    users = features.num_user_sparse
    for x in (first, second):
        assert x.shape == (200, 53)
        of_user = [*range(users), 35, 36, 37]  # his features, his previous video and its outcome
        assert (x[:, of_user] == x[0, of_user]).all()
        assert len(x[:, users].unique()) > 150  # the candidates
        assert x[:, :38].max() < features.vocabulary
    assert first[0, 0] != second[0, 0]


@pytest.fixture(scope="module", autouse=True)
def _few_compilations() -> Iterator[None]:
    """Of the models that are served only the first is compiled: each takes seconds."""
    compiled: list[object] = []

    def first_alone(model: Any, **options: Any) -> Any:
        compiled.append(model)
        return real(model, **options) if len(compiled) == 1 else model

    real = torch.compile
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "compile", first_alone)
        yield


@pytest.fixture(scope="module")
def served() -> pd.DataFrame:
    return serving_benchmark.measure(Settings(rounds=2, seconds=0.002, progress=False))


def test_serving_has_a_row_a_method_with_its_counts(served: pd.DataFrame) -> None:
    assert served["model"].tolist() == list(METHODS)
    for row in served.itertuples():
        model = build_ranker(str(row.model), 38, 15, 40_311)(generator=seeded_generator(0, "initialisation"))
        assert row.parameters == count_parameters(model)
        assert row.multiply_adds == count_multiply_adds(model)
        tables = 1 if row.model in ("Shared-Bottom", "OMoE", "MMoE") else 2
        assert row.embedding_parameters == tables * 40_311 * 4
    # 167 inputs, layers of 64, 32 and 32, two towers of 16 and 1
    shared = served.set_index("model").loc["Shared-Bottom"]
    assert shared["multiply_adds"] == 167 * 64 + 64 * 32 + 32 * 32 + 2 * (32 * 16 + 16)


def test_serving_is_really_measured(served: pd.DataFrame) -> None:
    """What holds on any machine, however busy: no time is asserted, only that there is one."""
    table = served.set_index("model")
    for rows in (1, 1000):
        assert (table[f"p50_ms_{rows}"] > 0).all()
        assert (table[f"p50_ms_{rows}"] <= table[f"p99_ms_{rows}"]).all()
        assert (table[f"exported_p50_ms_{rows}"] > 0).all()
    assert (table["rows_per_second"] > 0).all()
    text = serving_benchmark.show(served)
    assert "nan" not in text
    assert all(method in text for method in METHODS)


def test_serving_ratios_compare_with_shared_bottom_in_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is 1, 10 and 2 times as slow in three rounds: only ratios within a round tell the methods apart."""
    slow, own = np.array([1.0, 10.0, 2.0]), {name: place + 1.0 for place, name in enumerate(METHODS)}
    wobble = {name: np.array([1.0, 1.0, 1.0]) for name in METHODS} | {"MMoE": np.array([1.0, 2.0, 1.5])}

    def told(works: dict[tuple[str, str, int], Callable[[], int]], *_: object, **__: object) -> object:
        found = {}
        for (name, kind, rows), work in works.items():
            assert work() == rows
            half = own[name] * wobble[name] * slow * rows * (0.5 if kind == "compiled" else 1.0)
            found[name, kind, rows] = [(rows / ms, ms, 3 * ms) for ms in half.tolist()]
        return found

    monkeypatch.setattr(serving_benchmark, "interleaved", told)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    table = serving_benchmark.measure(Settings(rounds=3, seconds=0.1, progress=False)).set_index("model")
    reference, mmoe = own["Shared-Bottom"], own["MMoE"]
    for rows in (1, 1000):
        for part in ("", "compiled_"):
            names = [f"{part}ratio_{rows}_low", f"{part}ratio_{rows}", f"{part}ratio_{rows}_high"]
            ends = [table[name]["MMoE"] for name in names]
            assert ends == pytest.approx([mmoe / reference * w for w in (1.0, 1.5, 2.0)])
            assert [table[name]["Shared-Bottom"] for name in names] == [1, 1, 1]
        assert table[f"p50_ms_{rows}"]["Shared-Bottom"] == pytest.approx(
            2.0 * reference * rows
        )  # the median round
        assert table[f"p99_ms_{rows}"]["Shared-Bottom"] == pytest.approx(6.0 * reference * rows)
        assert table[f"compiled_p50_ms_{rows}"]["Shared-Bottom"] == pytest.approx(1.0 * reference * rows)
        assert table[f"exported_p50_ms_{rows}"]["Shared-Bottom"] == pytest.approx(2.0 * reference * rows)
    assert table["throughput_ratio"]["MMoE"] == pytest.approx(reference / mmoe / 1.5)


def test_ratios_are_medians_over_rounds() -> None:
    speeds = {
        (PLAIN[0], 1): [1.0, 2.0, 4.0],
        (PLAIN[1], 1): [2.0, 2.0, 2.0],
        ("ensemble", 10): [6.0, 8.0, 8.0],
    }
    rows = ranking_benchmark._rows({key: [(v, 1.0, 2.0) for v in values] for key, values in speeds.items()})
    ensemble = rows[2]
    assert (ensemble["ratio_low"], ensemble["ratio"], ensemble["ratio_high"]) == (2.0, 4.0, 6.0)
    assert ensemble["ratio_sliced"] == 4.0
    assert ensemble["rows_per_second"] == 8.0
    assert [row["ratio"] for row in rows[:1]] == [1.0]


def test_training_is_measured_for_plain_loops_and_ensembles(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[tuple[str, int], list[tuple[float, float, float]]] = {}

    def noted(*arguments: object, **options: object) -> object:
        seen.update(interleaved(*arguments, **options))  # type: ignore[arg-type]
        return seen

    monkeypatch.setattr(ranking_benchmark, "interleaved", noted)
    rows = ranking_benchmark.measure(
        Settings(rounds=1, seconds=0.01, progress=False), num_rows=3_000, runs=(2,)
    )
    assert list(zip(rows["kind"], rows["runs"], strict=True)) == [
        (PLAIN[0], 1),
        (PLAIN[1], 1),
        ("ensemble, eager", 2),
        ("ensemble", 2),
    ]
    speeds = rows["rows_per_second"].to_numpy()
    np.testing.assert_allclose(rows["ratio"], speeds / speeds[0])
    for row in rows.itertuples():
        ((speed, half, _),) = seen[str(row.kind), int(str(row.runs))]
        assert (row.rows_per_second, row.step_ms) == (speed, half)
    assert "nan" not in ranking_benchmark.show(rows)


@pytest.mark.parametrize("name", ["serving", "ranking", "extensions"])
def test_bad_arguments_end_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--rounds", "0"]) == 1
    assert main([name, "--seconds", "0"]) == 1
    assert main([name, "--device", "cuda:99"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "rounds is 0" in errors[0]
    assert "seconds is 0" in errors[1]
    assert "device is 'cuda:99'" in errors[2]


def test_the_command_writes_its_rows_with_their_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "serving.csv"
    assert main(["serving", "--rounds", "1", "--seconds", "0.002", "--csv", str(path)]) == 0
    rows = pd.read_csv(path)
    assert rows["model"].tolist() == list(METHODS)
    assert set(rows.columns) >= ORIGIN
    assert (rows["command"] == "python -m companion.benchmarks serving").all()
    assert "Shared-Bottom" in capsys.readouterr().out
