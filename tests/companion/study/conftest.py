"""What tests of the command share."""

from dataclasses import replace

import pytest

from companion.study import synthetic
from companion.study.presets import PRESETS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke preset of the synthetic study with the fewest runs and steps."""
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
