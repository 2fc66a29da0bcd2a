import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.util import hash_pandas_object

from companion.census_labels import label_correlation, label_rates
from companion.study.census_counts import count
from mmoe_lib.tasks.census import CensusTables, load
from mmoe_lib.tasks.census import simulated as census_simulated
from mmoe_lib.tasks.census.columns import COLUMNS, CONTINUOUS, COUNTS, MONEY, NOMINAL, categories

# Of the official files; the two rates agree between train and test to 0.0014.
RATES = {"income > 50K": 0.06206, "education at least associate degree": 0.1964, "never married": 0.4335}
CORRELATIONS = {"income": 0.1782, "education": 0.2400}


@pytest.fixture(scope="module")
def stand_in() -> CensusTables:
    return load(simulated=True)


def test_it_has_the_real_size_and_columns(stand_in: CensusTables) -> None:
    assert stand_in.simulated
    assert stand_in.source.startswith("simulated stand-in for Census-Income (KDD)")
    assert (len(stand_in.train), len(stand_in.test)) == (199_523, 99_762)
    for table in (stand_in.train, stand_in.test):
        assert tuple(table.columns) == COLUMNS
        assert not table.isna().any().any()
        for column in NOMINAL:
            assert tuple(table[column].cat.categories) == categories()[column]


def test_the_label_rates_are_the_real_ones_within_sampling_error(stand_in: CensusTables) -> None:
    rates = label_rates(stand_in)
    assert set(rates.index) == set(RATES)
    for part, rows in (("train", 199_523), ("test", 99_762)):
        for name, rate in rates[part].items():
            expected = RATES[str(name)]
            assert rate == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / rows))


@pytest.mark.parametrize("group", ["income", "education"])
def test_the_label_correlations_are_the_real_ones_within_sampling_error(
    stand_in: CensusTables, group: str
) -> None:
    # The standard deviation over 10,000 rows is 0.006 and 0.008, so 0.0013 and 0.0018 over the training rows.
    assert label_correlation(stand_in, group) == pytest.approx(CORRELATIONS[group], abs=0.006)
    assert label_correlation(stand_in, group, part="test") == pytest.approx(CORRELATIONS[group], abs=0.009)


def test_each_column_follows_its_counts_in_every_label_cell(stand_in: CensusTables) -> None:
    stored = count(stand_in.train)
    counts = pd.read_csv(COUNTS, dtype={"value": str}, keep_default_na=False)
    pd.testing.assert_frame_equal(stored[["column", "value"]], counts[["column", "value"]])
    cells = list(census_simulated.CELLS)
    drawn, expected = stored[cells].to_numpy(), counts[cells].to_numpy()
    assert (drawn[expected == 0] == 0).all()
    # Both the size of a cell and the share inside it vary by chance, about as a Poisson number does.
    strayed = np.abs(drawn - expected) / np.sqrt(np.maximum(expected, 1))
    assert strayed.max() < 8
    assert np.sqrt(np.mean(strayed[expected > 0] ** 2)) < 1.2


def test_money_keeps_its_zeros_and_numbers_their_ranges(stand_in: CensusTables) -> None:
    for column in CONTINUOUS:
        assert stand_in.train[column].min() == 0
        assert stand_in.train[column].max() <= census_simulated.LARGEST[column]
        assert stand_in.train[column].dtype == np.int32
    assert [round(float((stand_in.train[c] == 0).mean()), 2) for c in MONEY] == [0.94, 0.96, 0.98, 0.89]


def test_the_same_seed_gives_the_same_table_on_every_machine() -> None:
    first, second = (load(simulated=True, seed=3, train_rows=500, test_rows=300) for _ in range(2))
    pd.testing.assert_frame_equal(first.train, second.train)
    pd.testing.assert_frame_equal(first.test, second.test)
    other = load(simulated=True, seed=4, train_rows=500, test_rows=300)
    assert not first.train.equals(other.train)
    halves = load(simulated=True, train_rows=100, test_rows=100)
    assert not halves.train.equals(halves.test)
    # Written down once: a different number here means that every stored output of the book changes.
    digest = hashlib.sha256()
    for column in COLUMNS:
        values = first.train[column]
        numbers = values.cat.codes if column in NOMINAL else (values.astype(np.float64) * 100).round()
        digest.update(numbers.to_numpy().astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "fd7707d4e34ca7a7"


def test_the_number_of_test_rows_does_not_change_the_training_table() -> None:
    small, large = (load(simulated=True, train_rows=100, test_rows=rows) for rows in (10, 50))
    pd.testing.assert_frame_equal(small.train, large.train)


@pytest.mark.parametrize("rows", [0, -5])
def test_no_rows_is_an_error(rows: int) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        load(simulated=True, train_rows=rows)


@pytest.mark.usefixtures("alone")
def test_the_stand_in_touches_no_real_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMOE_DATA", str(tmp_path / "missing"))
    assert load(simulated=True, train_rows=10, test_rows=10, cache=tmp_path / "cache").simulated
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ValueError, match="give one of the two"):
        load(tmp_path, simulated=True)


def test_the_counts_are_small_and_hold_every_category() -> None:
    assert COUNTS.stat().st_size < 100_000
    assert set(categories()) == set(NOMINAL)
    sizes = {column: len(values) for column, values in categories().items()}
    assert sum(sizes.values()) == 505
    assert (sizes["education"], sizes["det_hh_fam_stat"], sizes["hisp_origin"]) == (17, 38, 10)
    assert "NA" in categories()["hisp_origin"]
    counts = pd.read_csv(COUNTS)
    assert (counts.groupby("column")[list(census_simulated.CELLS)].sum().sum(axis=1) == 199_523).all()


def test_counting_the_real_file_again_gives_the_stored_counts(real: CensusTables, tmp_path: Path) -> None:
    again = tmp_path / "again.csv"
    count(real.train).to_csv(again, index=False, lineterminator="\n")
    assert again.read_text() == COUNTS.read_text()


def test_no_row_of_the_real_file_is_stored(real: CensusTables, stand_in: CensusTables) -> None:
    """Drawn rows repeat a real one only where chance can: children, whose columns hardly vary."""
    features = [column for column in COLUMNS if column != "instance_weight"]
    people = hash_pandas_object(real.train[features], index=False)
    adults = stand_in.train.loc[stand_in.train["age"] >= 30, features]
    assert not hash_pandas_object(adults, index=False).isin(people).any()
