"""The benchmark: what it counts, that it compares like with like, and that it runs."""

import math
from itertools import count

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from companion.benchmarks import training as benchmark
from companion.benchmarks.__main__ import main
from companion.benchmarks.measure import work_for
from companion.benchmarks.random_people import CENSUS_INPUTS
from companion.benchmarks.training import Contender, PlainMMoE, measure, show, training_flops
from companion.study.search_space import METHODS, SEARCH_SPACE, settings_text
from mmoe_lib.models import MMoE, count_parameters, paper_model


@pytest.mark.parametrize("model", ["Shared-Bottom", "OMoE", "MMoE"])
def test_operations_of_a_training_step_agree_with_torchs_counter(model: str) -> None:
    """Torch counts matrix products alone, so mixing the experts (2 x 128 multiply-adds) is added."""
    module, batch = paper_model(model)(100, 2), 16
    with FlopCounterMode(display=False) as counter:
        module(torch.randn(batch, 100)).square().mean().backward()
    mixed = {"Shared-Bottom": 0, "OMoE": 128, "MMoE": 256}[model]
    assert (
        training_flops(Contender("ensemble", model, batch))
        == counter.get_total_flops() + 3 * 2 * batch * mixed
    )


@pytest.mark.parametrize("method", METHODS)
def test_census_flops_are_those_that_torch_counts(method: str) -> None:
    settings = {tuned.name: tuned.high for tuned in SEARCH_SPACE[method]}
    contender = Contender("ensemble", method, 64, settings=settings_text(settings))
    module, x = contender.build(), torch.randn(64, CENSUS_INPUTS)
    with FlopCounterMode(display=False) as counter:
        module(x).sum().backward()
    mixed = 0
    if method in ("OMoE", "MMoE"):  # a product and a sum, which torch does not count
        mixed = int(3 * 2 * 64 * settings["experts"] * settings["units"] * (2 if method == "MMoE" else 1))
    # Torch also counts S x_3 U3, which a batch needs once: less than a hundredth.
    assert training_flops(contender) == pytest.approx(counter.get_total_flops() + mixed, rel=0.01)


def test_the_plain_loops_model_is_the_same_function() -> None:
    plain, ours = PlainMMoE(), MMoE(100, 2, 8, (16,), (8,))
    assert count_parameters(plain) == count_parameters(ours)
    with torch.no_grad():
        for i, expert in enumerate(plain.experts):
            expert[0].weight.copy_(ours.experts.first.weight[16 * i : 16 * i + 16])  # type: ignore[index]
            expert[0].bias.copy_(ours.experts.first.bias[16 * i : 16 * i + 16])  # type: ignore[index]
        for k, (gate, tower) in enumerate(zip(plain.gates, plain.towers, strict=True)):
            gate.weight.copy_(ours.gates.weight[8 * k : 8 * k + 8])  # type: ignore[operator]
            target = ours.towers.towers[k]
            tower[0].load_state_dict(target.hidden.layers[0].state_dict())  # type: ignore[index, union-attr]
            tower[2].load_state_dict(target.output.state_dict())  # type: ignore[index, union-attr]
    x = torch.randn(50, 100)
    torch.testing.assert_close(plain(x), ours(x))


def test_ratios_and_shares_compare_with_the_right_rows() -> None:
    def row(kind: str, batch: int, threads: int, processes: int, per_second: float) -> dict[str, object]:
        return {
            "kind": kind,
            "model": "-" if kind == "matmul peak" else "MMoE",
            "batch": batch,
            "threads": threads,
            "processes": processes,
            "per_second": per_second,
        }

    rows = benchmark._with_ratios(
        [
            row("matmul peak", 0, 1, 1, 100e9),
            row("plain loop", 32, 1, 1, 500.0),
            row("plain loop", 32, 2, 1, 400.0),
            row("ensemble", 32, 1, 2, 20_000.0),
            row("inference", 32, 1, 1, 9.0),
        ]
    )
    ensemble = rows[3]
    assert (ensemble["ratio"], ensemble["user_ratio"]) == (40.0, 50.0)
    assert ensemble["gflops"] == pytest.approx(
        10_000 * training_flops(Contender("ensemble", "MMoE", 32)) / 1e9
    )  # of one process
    assert ensemble["peak_share"] == pytest.approx(ensemble["gflops"] / 100)
    assert rows[0]["gflops"] == 100.0
    assert math.isnan(rows[4]["ratio"])


def test_work_is_counted_over_the_time_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own: calls of 1, 2, 3 and 4 s, 8 rows each, until 10 s are over."""
    now, calls = [0.0], count(1)
    monkeypatch.setattr("companion.benchmarks.measure.time.perf_counter", lambda: now[0])

    def work() -> int:
        now[0] += next(calls)
        return 8

    speed, half, most = work_for(work, 9.5, "cpu")
    assert speed == pytest.approx(4 * 8 / 10)
    assert half == pytest.approx(2500)
    assert most == pytest.approx(3970)  # between the third and the fourth, at 0.99 of the way


def test_it_measures_every_kind_interleaved() -> None:
    chosen = [
        Contender("matmul peak"),
        Contender("plain loop", "MMoE", 8),
        Contender("ensemble, eager", "MMoE", 8, runs=3, processes=2),
        Contender("inference", "MMoE", 1),
    ]
    rows = measure(chosen, rounds=2, seconds=0.05, progress=False)
    assert rows["kind"].tolist() == [contender.kind for contender in chosen]
    assert (rows["per_second"] > 0).all()
    assert (rows["lowest"] <= rows["per_second"]).all()
    assert (rows["per_second"] <= rows["highest"]).all()
    assert (rows["p50_ms"] <= rows["p99_ms"]).all()
    assert rows["memory_mb"].between(50, 4_000).all()
    assert isinstance(rows, pd.DataFrame)
    text = show(rows)
    assert "share of peak" in text
    assert "nan" not in text


def test_every_model_and_batch_that_is_compared_has_its_plain_loop() -> None:
    chosen = list(benchmark.contenders())
    plain = {(c.model, c.batch, c.threads) for c in chosen if c.kind == "plain loop"}
    for contender in chosen:
        if contender.kind == "ensemble":
            assert (contender.model, contender.batch, 1) in plain
    assert {("MMoE", batch, 2) for batch in (32, 128, 256)} <= plain
    assert {c.processes for c in chosen if c.kind == "ensemble"} == {1, 2}


def test_bad_arguments_end_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["training", "--rounds", "0"]) == 1
    assert main(["census", "--device", "cuda:99"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "rounds is 0" in errors[0]
    assert "device is 'cuda:99'" in errors[1]
