"""The atlas' pictures show every pair, the mean of all and where a new one lies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from generated_atlas import pairs, runs

from companion.figures.atlas import effect_map, forest
from companion.results import atlas

pytestmark = pytest.mark.usefixtures("headless")


@pytest.fixture(scope="module")
def effects() -> pd.DataFrame:
    return atlas.pair_effects(runs(pairs()), "MMoE")


def test_every_pair_stands_in_the_forest_in_order(effects: pd.DataFrame) -> None:
    found = atlas.meta_analysis(effects["effect"], effects["error"])
    figure = forest({"MMoE": (effects, found)}, "a finding", 0.1)
    dots = [np.asarray(line.get_xdata(), dtype=float) for line in figure.axes[0].get_lines()]
    shown = next(values for values in dots if len(values) == len(effects))
    np.testing.assert_allclose(shown, np.sort(effects["effect"]))
    assert figure.get_suptitle() == "a finding"


def test_every_pair_lies_on_the_map_at_its_correlation(effects: pd.DataFrame) -> None:
    facts = pairs()
    figure = effect_map({"MMoE": effects}, atlas.pair_features(runs(facts), facts), "a finding")
    places = np.asarray(figure.axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(np.sort(places[:, 0]), np.sort(facts["label_correlation"]))
    assert (places[:, 1] <= 50).all()
