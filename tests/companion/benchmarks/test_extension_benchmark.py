"""What the extensions cost: every model and balancer is measured beside MMoE, and ratios are of one round."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from companion.benchmarks import extensions as extension_benchmark
from companion.benchmarks.extensions import BATCH_SIZE, RUNS, SERVED_ROWS, measure, show
from companion.benchmarks.measure import Settings
from companion.benchmarks.random_people import CENSUS_INPUTS
from companion.extensions import EXTENSIONS
from companion.study.extensions.rare_labels import BALANCERS
from mmoe_lib.models import count_multiply_adds, count_parameters

SLOW = np.array([1.0, 10.0, 2.0])
"""How slow the machine is in each of three rounds."""


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Every work runs once; the times are made up, so that no busy machine can change them."""

    def told(works: dict[tuple[str, str, str], Callable[[], int]], *_: object, **__: object) -> object:
        found = {}
        for name, remedy, kind in works:
            assert works[name, remedy, kind]() == (RUNS * BATCH_SIZE if kind == "train" else SERVED_ROWS)
            own = 8.0 if kind == "train" else 1.0
            own *= {"OMoE": 0.5, "PLE": 2.0}.get(name, 1.0) * (3.0 if remedy == "CAGrad" else 1.0)
            wobble = np.array([1.0, 1.0, 1.5]) if name == "PLE" else np.ones(3)
            found[name, remedy, kind] = [(1.0, ms, ms) for ms in (own * wobble * SLOW).tolist()]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extension_benchmark, "interleaved", told)
        return measure(Settings(rounds=3, seconds=0.1, progress=False))


def test_every_model_and_every_balancer_has_a_row_with_its_counts(rows: pd.DataFrame) -> None:
    told = list(zip(rows["model"], rows["remedy"], strict=True))
    assert told == [(name, "plain sum") for name in EXTENSIONS] + [("MMoE", remedy) for remedy in BALANCERS]
    assert set(BALANCERS) == {"uncertainty weighting", "GradNorm", "PCGrad", "CAGrad", "Nash-MTL", "UPGrad"}
    for row in rows.itertuples():
        model = EXTENSIONS[str(row.model)].build(CENSUS_INPUTS, 2)
        assert (row.parameters, row.multiply_adds) == (count_parameters(model), count_multiply_adds(model))


def test_ratios_are_to_mmoe_in_the_same_round(rows: pd.DataFrame) -> None:
    table = rows.set_index(["model", "remedy"])
    for kind in ("train", "serve"):
        names = [f"{kind}_ratio_low", f"{kind}_ratio", f"{kind}_ratio_high"]
        found = {
            model: [table[name][model, "plain sum"] for name in names] for model in ("MMoE", "OMoE", "PLE")
        }
        assert found == {"MMoE": [1, 1, 1], "OMoE": [0.5, 0.5, 0.5], "PLE": [2, 2, 3]}
    assert table["train_ratio"]["MMoE", "CAGrad"] == 3
    assert table["train_ms"]["MMoE", "plain sum"] == 8.0 * 2 / RUNS  # of the median round, a run
    assert table["serve_ms"]["MMoE", "plain sum"] == 2.0
    assert table["serve_ms"][[("MMoE", remedy) for remedy in BALANCERS]].isna().all()
    text = show(rows)
    assert all(name in text for name in (*EXTENSIONS, *BALANCERS))
