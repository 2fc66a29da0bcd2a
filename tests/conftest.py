"""What tests share: the devices (the CPU always, a GPU where there is one), a browser, and a tiny study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import torch
from chromium import find_chromium, give_up

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


@pytest.fixture
def headless() -> Iterator[None]:
    """Pictures are drawn without a window, and closed behind the test."""
    import matplotlib.pyplot as plt

    backend = plt.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    if find_spec("playwright") is None:
        give_up("playwright is not installed: run `make environment`")
    path = find_chromium()
    if path is None:
        give_up("there is no Chromium to open the pages in: run `sudo apt install chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


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
        control_runs=1,
        control_steps=10,
        noise_runs=1,
        noise_steps=10,
    )
    monkeypatch.setitem(PRESETS, "smoke", tiny)
    monkeypatch.setattr(synthetic, "TEST_ROWS", 500)
