"""Everything that trains or answers, on the CPU and, where there is one, on a GPU; models go from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from companion.extensions import EXTENSIONS, noise_columns
from companion.study.presets import PRESETS
from mmoe_lib.frames import FitSettings, MultiTaskModel
from mmoe_lib.models import (
    CrossStitch,
    L2Constrained,
    MMoE,
    Ranker,
    TensorFactorization,
)
from mmoe_lib.models.extensions import CGC
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import Ensemble, TrainingSettings, binary_cross_entropy, epochs, train
from mmoe_lib.training.balancing import Balancer, GradientSurgery, GradNorm, UncertaintyWeighting
from mmoe_lib.training.batches import with_noise
from mmoe_lib.training.devices import DeviceMemoryError, faster_device

# No model may fall back to plain steps unnoticed.
pytestmark = pytest.mark.filterwarnings("error:.*training step failed:UserWarning")

INPUTS = 6
MODELS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    **{
        name: (partial(extension.build, INPUTS, 2), noise_columns(name, 2))
        for name, extension in EXTENSIONS.items()
    },
    "L2-Constrained": (partial(L2Constrained, INPUTS, 2, (5,), alpha=0.1), 0),
    "Cross-Stitch": (partial(CrossStitch, INPUTS, 2, (5,)), 0),
    "Tensor-Factorization": (partial(TensorFactorization, INPUTS, 2, (5,), ranks=(3, 3, 2)), 0),
}
"""Builders, and the input columns of noise that gate dropout reads."""


def _data(device: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = seeded_generator(0, "test")
    x = torch.randn(96, INPUTS, generator=generator, dtype=torch.float64)
    y = (x[:, :2] + torch.randn(96, 2, generator=generator, dtype=torch.float64) > 0).double()
    return x.to(device, dtype), y.to(device, dtype)


def _trained(name: str, device: str, dtype: torch.dtype, balancer: Balancer | None = None) -> Ensemble:
    build, noise = MODELS[name]
    ensemble = Ensemble(build, range(2), device=device, dtype=dtype)
    x, y = _data("cpu", dtype)
    drawn = epochs(x, y, 32)
    # Noise is drawn on the CPU, so that both devices see the same.
    given = ((a.to(device), b.to(device)) for a, b in (with_noise(drawn, noise) if noise else drawn))
    settings = TrainingSettings(12, 1e-2, note_every=4, balancer=balancer)
    train(ensemble, given, binary_cross_entropy, settings, progress=False)
    return ensemble


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_and_answers_alike_on_both_devices(
    name: str, dtype: torch.dtype, device: str
) -> None:
    ensemble, reference = _trained(name, device, dtype), _trained(name, "cpu", dtype)
    x = _data("cpu", dtype)[0]
    answers = ensemble.predict(x.to(device))
    assert answers.device.type == device
    assert answers.dtype == dtype
    close = 1e-9 if dtype == torch.float64 else 2e-3
    torch.testing.assert_close(answers.cpu(), reference.predict(x), rtol=close, atol=close)
    torch.testing.assert_close(ensemble.module(1)(x.to(device)).detach(), answers[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "balancer",
    [UncertaintyWeighting(), GradNorm(), GradientSurgery("PCGrad"), GradientSurgery("UPGrad")],
    ids=lambda balancer: getattr(balancer, "method", type(balancer).__name__),
)
def test_balancers_decide_alike_on_both_devices(balancer: Balancer, device: str) -> None:
    pytest.importorskip("torchjd") if isinstance(balancer, GradientSurgery) else None
    found = _trained("MMoE", device, torch.float64, balancer)
    expected = _trained("MMoE", "cpu", torch.float64, balancer)
    for name, value in expected.parameters.items():
        torch.testing.assert_close(found.parameters[name].cpu(), value, rtol=1e-6, atol=1e-8)


def test_a_ranker_trains_on_ids(device: str) -> None:
    mixture = partial(CGC, shared_experts=2, task_experts=1, expert_widths=(4,))
    x = torch.cat(
        [torch.arange(64.0).view(-1, 2) % 8, torch.randn(32, 3, generator=seeded_generator(0, "test"))], 1
    )
    y = (x[:, 2:4] > 0).float()

    def answers(where: str) -> Tensor:
        ensemble = Ensemble(partial(Ranker, 2, 3, 8, 2, mixture), range(2), device=where)
        batches = epochs(x.to(where), y.to(where), 16)
        train(ensemble, batches, binary_cross_entropy, TrainingSettings(8, 1e-2), progress=False)
        return ensemble.predict(x.to(where)).cpu()

    torch.testing.assert_close(answers(device), answers("cpu"), rtol=1e-3, atol=1e-4)


def _frame(rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(40, 10, rows), "city": rng.choice(["Bern", "Oslo"], rows)})
    frame["spent"] = 2 * frame["age"] + 30 * (frame["city"] == "Oslo") + rng.normal(0, 8, rows)
    frame["bought"] = frame["spent"] + rng.normal(0, 15, rows) > 95
    return frame


def test_a_frame_is_fitted_judged_saved_and_loaded(device: str, tmp_path: Path) -> None:
    frame = _frame()
    settings = FitSettings(learning_rate=0.01, epochs=20, runs=2, device=device)
    model = MultiTaskModel.fit(frame[:300], ["spent", "bought"], settings=settings, progress=False)
    assert bool((model.evaluate(frame[300:])["value"] > 0.7).all())
    predicted = model.predict(frame[300:])
    model.save(tmp_path / "shop.pt")
    for where in {device, "cpu"}:  # also a model of the GPU on a machine without one
        again = MultiTaskModel.load(tmp_path / "shop.pt", device=where)
        pd.testing.assert_frame_equal(again.predict(frame[300:]), predicted, rtol=1e-4, atol=1e-4)
    gates = model.gate_weights(frame[300:])
    assert np.isfinite(np.asarray(gates, dtype=float)).all()


def test_a_model_of_the_cpu_answers_on_the_gpu(gpu: str, tmp_path: Path) -> None:
    frame = _frame()
    settings = FitSettings(learning_rate=0.01, epochs=5)
    model = MultiTaskModel.fit(frame[:300], ["spent", "bought"], settings=settings, progress=False)
    model.save(tmp_path / "shop.pt")
    again = MultiTaskModel.load(tmp_path / "shop.pt", device=gpu)
    pd.testing.assert_frame_equal(
        again.predict(frame[300:]), model.predict(frame[300:]), rtol=1e-4, atol=1e-4
    )


def test_memory_that_is_full_ends_in_one_line_that_names_a_smaller_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmany more lines")

    ensemble = Ensemble(partial(MMoE, INPUTS, 2, 2, (4,)), range(10))
    monkeypatch.setattr(Ensemble, "gradients", full)
    with pytest.raises(
        DeviceMemoryError, match=r"10 runs at once .* train them in chunks of 5 or less"
    ) as caught:
        train(ensemble, epochs(*_data("cpu"), 32), binary_cross_entropy, TrainingSettings(3), progress=False)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_full_says_so(gpu: str) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**22) / total)
    try:
        with pytest.raises(DeviceMemoryError, match="expected fewer: train them in chunks of 100 or less"):
            Ensemble(partial(MMoE, 100, 2, 8, (16,)), range(200), device=gpu)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


# --- which device "auto" is ----------------------------------------------------------------------------


def test_auto_takes_a_gpu_only_where_there_is_much_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def chosen(runs: int, batch_size: int, steps: int) -> str:
        return faster_device("auto", runs=runs, batch_size=batch_size, steps=steps).type

    assert chosen(200, 32, 60_000) == "cuda"  # a cell of the paper preset
    assert chosen(200, 64, 10_000) == "cuda"
    assert chosen(1, 32, 1_000_000) == "cpu"  # a single run is slower on a GPU, however long
    assert chosen(1, 4096, 60_000) == "cuda"  # unless its batches are large
    smoke = PRESETS["smoke"]
    assert chosen(smoke.synthetic_runs, smoke.synthetic_batch_size, smoke.synthetic_steps) == "cpu"
    assert chosen(smoke.extension_runs, smoke.synthetic_batch_size, smoke.extension_steps) == "cpu"
    # the estimates cross where they are equal: rows / 600,000 = 15 + steps x 1.5 ms
    assert chosen(100, 32, 3_905) == "cpu"
    assert chosen(100, 32, 3_920) == "cuda"


def test_without_a_gpu_auto_is_the_cpu_and_a_name_is_taken_at_its_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert faster_device("auto", runs=200, batch_size=64, steps=10**6).type == "cpu"
    assert faster_device("cpu", runs=200, batch_size=64, steps=10**6).type == "cpu"
    with pytest.raises(ValueError, match="device is 'cuda:99', expected one that this machine has"):
        faster_device("cuda:99", runs=1, batch_size=1, steps=1)
