"""What tests share: where those of devices run (on the CPU always, on a GPU where there is one), and a tiny study."""

from dataclasses import replace

import pytest
import torch

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device in turn."""
    name: str = request.param
    return name


@pytest.fixture(params=[pytest.param("cuda", marks=GPU)])
def gpu(request: pytest.FixtureRequest) -> str:
    """The GPU alone."""
    name: str = request.param
    return name


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke preset of the synthetic study with the fewest runs and steps."""
    from companion.study import synthetic  # tests of the library do without it
    from companion.study.presets import PRESETS

    tiny = replace(
        PRESETS["smoke"],
        synthetic_runs=2,
        synthetic_steps=10,
        synthetic_chunk=1,
        synthetic_tuning_runs=1,
        synthetic_tuning_steps=10,
        synthetic_choice_runs=1,
        synthetic_choice_steps=10,
        synthetic_slide_runs=1,
        synthetic_slide_steps=10,
        synthetic_batch_size=4,
    )
    monkeypatch.setitem(PRESETS, "smoke", tiny)
    monkeypatch.setattr(synthetic, "TEST_ROWS", 500)
