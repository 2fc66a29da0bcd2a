from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from generated_census import Generated

from companion.census_labels import label_correlation
from companion.study.census_variants import AS_IN_THE_STUDY, VARIANTS, encode_variant, misaligned_columns
from mmoe_lib.tasks.census import GROUPS, CensusData, CensusTables, encode, load
from mmoe_lib.tasks.census.columns import COLUMNS, CONTINUOUS, EDUCATION, MARITAL, MONEY, Group, categories
from mmoe_lib.tasks.census.encoding import INPUTS

ONLY_INCOME = ("education kept", "education and weight kept")
ONLY_EDUCATION = ("bachelor's or higher", "some college or higher")
SUITABLE = [
    (group, variant)
    for variant in VARIANTS
    for group in GROUPS
    if not (group == "education" and variant in ONLY_INCOME)
    and not (group == "income" and variant in ONLY_EDUCATION)
]
NOMINAL_INPUTS = [column for column in INPUTS if column not in CONTINUOUS]
BUT_WEIGHT = [column for column in COLUMNS if column != "instance_weight"]


@pytest.fixture(scope="module")
def tables() -> CensusTables:
    """A stand-in whose test table shares 40 rows with train, the weight aside."""
    drawn = load(simulated=True, train_rows=3000, test_rows=1001)
    test = drawn.test.copy()
    test.iloc[:40] = drawn.train.iloc[100:140]
    test["instance_weight"] = drawn.test["instance_weight"]
    return replace(drawn, test=test)


def inputs(data: CensusData) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return data.x_train, data.x_validation, data.x_test


def answers(data: CensusData) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return data.y_train, data.y_validation, data.y_test


def parts(tables: CensusTables, split_seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Train, validation and test, as `encode` is known to take them."""
    order = np.random.default_rng(split_seed).permutation(len(tables.test))
    half = len(order) // 2
    return tables.train, tables.test.iloc[order[:half]], tables.test.iloc[order[half:]]


def of_rows(tables: CensusTables, rows: int) -> CensusTables:
    return replace(tables, train=tables.train.head(rows), test=tables.test.head(rows))


def equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


# --- what all variants share ---


@pytest.mark.parametrize(("group", "variant"), SUITABLE)
def test_a_variant_is_whole_and_says_its_name(tables: CensusTables, group: str, variant: str) -> None:
    before = replace(tables, train=tables.train.copy(), test=tables.test.copy())
    data = encode_variant(tables, group, variant, split_seed=3)
    study = encode(tables, group, split_seed=3)
    assert data.simulated
    assert data.source == (
        study.source if variant == AS_IN_THE_STUDY else f"{study.source}; variant: {variant}"
    )
    assert data.task_names == (data.group.main.name, data.group.auxiliary.name)
    assert (data.group == study.group) == (variant not in ONLY_EDUCATION)
    assert len(set(data.feature_names)) == len(data.feature_names)
    for x, y in zip(inputs(data), answers(data), strict=True):
        assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
        assert x.shape == (len(y), len(data.feature_names))
        assert torch.isfinite(x).all()
        assert x.is_contiguous()
    if variant not in (*ONLY_EDUCATION, "duplicates of training rows left out"):
        assert all(equal(mine, theirs) for mine, theirs in zip(answers(data), answers(study), strict=True))
    pd.testing.assert_frame_equal(tables.train, before.train)
    pd.testing.assert_frame_equal(tables.test, before.test)


@pytest.mark.parametrize("group", GROUPS)
def test_as_in_the_study_is_what_encode_gives(tables: CensusTables, group: str) -> None:
    data, study = (
        encode_variant(tables, group, AS_IN_THE_STUDY, split_seed=7),
        encode(tables, group, split_seed=7),
    )
    for mine, theirs in zip((*inputs(data), *answers(data)), (*inputs(study), *answers(study)), strict=True):
        assert equal(mine, theirs)
    assert data.feature_names == study.feature_names


@pytest.mark.parametrize(
    ("variant", "width"),
    [
        ("education kept", 535),
        ("weight kept", 518),
        ("education and weight kept", 536),
        ("numbers unscaled", 517),
        ("money on a plain scale", 517),
        ("numbers standardised", 517),
        ("duplicates of training rows left out", 517),
    ],
)
def test_the_width_does_not_depend_on_the_rows(tables: CensusTables, variant: str, width: int) -> None:
    whole = encode_variant(tables, "income", variant)
    few = encode_variant(of_rows(tables, 60), "income", variant)
    assert whole.feature_names == few.feature_names
    assert len(whole.feature_names) == width
    assert whole.feature_names[:517] == encode(tables, "income").feature_names


def test_the_split_follows_its_seed(tables: CensusTables) -> None:
    for seed in (0, 1):
        data = encode_variant(tables, "income", "numbers unscaled", split_seed=seed)
        for x, table in zip(inputs(data), parts(tables, seed), strict=True):
            np.testing.assert_array_equal(x[:, 0].numpy(), table["age"])


def test_every_variant_has_a_sentence() -> None:
    assert len(VARIANTS) == 11
    assert next(iter(VARIANTS)) == AS_IN_THE_STUDY
    for sentence in VARIANTS.values():
        assert sentence.endswith(".")
        assert "\n" not in sentence


# --- errors ---


def test_an_unknown_variant_is_told_with_those_there_are(tables: CensusTables) -> None:
    with pytest.raises(ValueError, match="unknown variant 'weights kept', expected one of 'as in") as caught:
        encode_variant(tables, "income", "weights kept")
    assert all(repr(variant) in str(caught.value) for variant in VARIANTS)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="unknown group 'age', expected one of 'income', 'education'"):
        encode_variant(tables, "age", "weight kept")


@pytest.mark.parametrize("variant", ONLY_INCOME)
def test_education_is_no_input_where_it_is_a_label(tables: CensusTables, variant: str) -> None:
    turned = Group("turned", MARITAL, EDUCATION, 0.2373)
    for group, name in (("education", "education"), (turned, "turned")):
        with pytest.raises(
            ValueError, match=f"'{variant}' would give group '{name}' its own label"
        ) as caught:
            encode_variant(tables, group, variant)
        assert str(caught.value).endswith("as an input: take group 'income'")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", ONLY_EDUCATION)
def test_another_education_label_needs_one(tables: CensusTables, variant: str) -> None:
    with pytest.raises(ValueError, match=r"is another education label, .* take group 'education'$") as caught:
        encode_variant(tables, "income", variant)
    assert "group 'income' is not about education" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_half_of_duplicates_only_is_told(tables: CensusTables) -> None:
    copied = replace(tables, test=tables.train.head(20))
    with pytest.raises(ValueError, match="all 10 validation rows occur in training") as caught:
        encode_variant(copied, "income", "duplicates of training rows left out")
    assert "\n" not in str(caught.value)


# --- columns kept ---


def test_education_kept_gives_the_education_label_away(tables: CensusTables) -> None:
    data = encode_variant(tables, "income", "education kept")
    added = data.feature_names[517:]
    assert added == tuple(f"education={value}" for value in (*categories()["education"], "(unknown)"))
    positive = [
        index for index, name in enumerate(data.feature_names) if name.split("=")[-1] in EDUCATION.positive
    ]
    assert len(positive) == 6
    for x, theirs, y in zip(
        inputs(data), inputs(encode(tables, "income")), answers(encode(tables, "education")), strict=True
    ):
        assert equal(x[:, :517], theirs)
        assert (x[:, 517:].sum(dim=1) == 1).all()
        assert equal(x[:, positive].sum(dim=1), y[:, 0])


def test_education_is_encoded_by_name_and_what_is_unlisted_is_unknown(tables: CensusTables) -> None:
    shuffled = tables.test.copy()
    values = shuffled["education"].astype(str).tolist()
    names = ["Kindergarten", *categories()["education"][::-1]]
    shuffled["education"] = pd.Categorical(["Kindergarten", *values[1:]], categories=names)
    data = encode_variant(tables, "income", "education kept")
    turned = encode_variant(replace(tables, test=shuffled), "income", "education kept")
    both = torch.cat([turned.x_validation, turned.x_test])
    unknown = both[:, -1] == 1
    assert int(unknown.sum()) == 1
    assert (both[unknown][:, 517:-1] == 0).all()
    assert equal(both[~unknown], torch.cat([data.x_validation, data.x_test])[~unknown])


def test_the_weight_is_scaled_by_the_training_range(tables: CensusTables) -> None:
    low, high = (float(edge) for edge in tables.train["instance_weight"].agg(["min", "max"]))
    test = tables.test.copy()
    test.loc[0, "instance_weight"] = 2 * high
    changed = replace(tables, test=test)
    data = encode_variant(changed, "education", "weight kept")
    assert data.feature_names[517:] == ("instance_weight",)
    for x, table in zip(inputs(data), parts(changed), strict=True):
        expected = ((table["instance_weight"].to_numpy(np.float64) - low) / (high - low)).clip(0, 1)
        np.testing.assert_allclose(x[:, -1].numpy(), expected, atol=1e-6)
    assert (float(data.x_train[:, -1].min()), float(data.x_train[:, -1].max())) == (0, 1)
    assert max(data.x_validation[:, -1].max(), data.x_test[:, -1].max()) == 1


def test_both_kept_are_the_two_side_by_side(tables: CensusTables) -> None:
    both, education, weight = (
        encode_variant(tables, "income", variant)
        for variant in ("education and weight kept", "education kept", "weight kept")
    )
    assert both.feature_names == (*education.feature_names, "instance_weight")
    for x, first, second in zip(inputs(both), inputs(education), inputs(weight), strict=True):
        assert equal(x, torch.cat([first, second[:, -1:]], dim=1))


# --- numbers ---


def test_unscaled_numbers_are_those_of_the_file(tables: CensusTables) -> None:
    test = tables.test.copy()
    test.loc[0, "capital_gains"] = 123_456  # beyond the training range, and not clipped to it
    changed = replace(tables, test=test)
    data = encode_variant(changed, "income", "numbers unscaled")
    for x, theirs, table in zip(inputs(data), inputs(encode(changed, "income")), parts(changed), strict=True):
        np.testing.assert_array_equal(x[:, :7].numpy(), table[list(CONTINUOUS)].to_numpy())
        assert equal(x[:, 7:], theirs[:, 7:])
    assert data.x_train[:, 0].max() == 90


def test_money_on_a_plain_scale_has_no_logarithm(tables: CensusTables) -> None:
    data, study = encode_variant(tables, "income", "money on a plain scale"), encode(tables, "income")
    for x, theirs, table in zip(inputs(data), inputs(study), parts(tables), strict=True):
        for index, column in enumerate(CONTINUOUS):
            if column in MONEY:
                dollars, most = table[column].to_numpy(np.float64), float(tables.train[column].max())
                np.testing.assert_allclose(x[:, index].numpy(), (dollars / most).clip(0, 1), rtol=1e-6)
            else:
                assert equal(x[:, index], theirs[:, index])
        assert equal(x[:, 7:], theirs[:, 7:])


def test_standardised_numbers_have_mean_0_and_deviation_1_in_training(tables: CensusTables) -> None:
    data = encode_variant(tables, "income", "numbers standardised")
    numbers = data.x_train[:, :7].double()
    np.testing.assert_allclose(numbers.mean(dim=0), 0, atol=1e-6)
    np.testing.assert_allclose(numbers.std(dim=0, correction=0), 1, atol=1e-6)
    dividends = CONTINUOUS.index("stock_dividends")
    of_train = np.log1p(tables.train["stock_dividends"].to_numpy(np.float64))
    for x, theirs, table in zip(inputs(data), inputs(encode(tables, "income")), parts(tables), strict=True):
        logs = np.log1p(table["stock_dividends"].to_numpy(np.float64))
        np.testing.assert_allclose(
            x[:, dividends].numpy(), (logs - of_train.mean()) / of_train.std(), rtol=1e-5
        )
        assert equal(x[:, 7:], theirs[:, 7:])


@pytest.mark.parametrize("variant", ["money on a plain scale", "numbers standardised"])
def test_a_number_that_never_varies_becomes_zero(tables: CensusTables, variant: str) -> None:
    train = tables.train.assign(capital_losses=np.int32(5))
    data = encode_variant(replace(tables, train=train), "income", variant)
    assert (data.x_train[:, CONTINUOUS.index("capital_losses")] == 0).all()
    assert torch.isfinite(data.x_test).all()


# --- columns misaligned ---


def dummies_apart(tables: CensusTables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What keras-mmoe does, with pandas itself."""
    train, test = (
        pd.get_dummies(table[NOMINAL_INPUTS].astype(str), prefix_sep="=")
        for table in (tables.train, tables.test)
    )
    for mine, other in ((test, list(train.columns)), (train, list(test.columns))):
        for column in other:
            if column not in mine:
                mine[column] = False
    return train, test


def check_against_pandas(tables: CensusTables, data: CensusData) -> None:
    train, test = dummies_apart(tables)
    assert data.feature_names == (*CONTINUOUS, *train.columns)
    assert misaligned_columns(tables) == int((train.columns != test.columns).sum())
    shown = parts(replace(tables, train=train, test=test))
    for x, one_hot in zip(inputs(data), shown, strict=True):
        assert np.array_equal(x[:, 7:].numpy(), one_hot.to_numpy())


def test_columns_misaligned_is_get_dummies_on_each_table(generated: Generated, tmp_path: Path) -> None:
    loaded = load(generated.folder, cache=tmp_path, release=generated.release)
    # Both tables are small enough to lack values that the other one has.
    data = encode_variant(loaded, "income", "columns misaligned")
    check_against_pandas(loaded, data)
    assert misaligned_columns(loaded) > 100
    numbers = encode(loaded, "income")
    for x, theirs in zip(inputs(data), inputs(numbers), strict=True):
        assert equal(x[:, :7], theirs[:, :7])


def test_one_missing_value_shifts_what_follows(tables: CensusTables) -> None:
    # One and the same person in all columns but the sex, and test has men alone.
    others = [column for column in NOMINAL_INPUTS if column != "sex"]
    train = tables.train.copy()
    for column in others:
        train[column] = train[column].take([0] * len(train)).array
    test = train[train["sex"] == "Male"].reset_index(drop=True)
    changed = replace(tables, train=train, test=test)
    data = encode_variant(changed, "income", "columns misaligned")
    female, male = data.feature_names.index("sex=Female"), data.feature_names.index("sex=Male")
    assert (female, len(data.feature_names)) == (male - 1, 7 + 31 + 1)
    assert misaligned_columns(changed) == len(data.feature_names) - female
    for x in (data.x_validation, data.x_test):
        assert (x[:, female] == 1).all()  # every man stands where the women were
        assert (x[:, male:-1] == 1).all()  # and what followed is one place too early
        assert (x[:, -1] == 0).all()


def test_nothing_is_misaligned_where_nothing_is_missing(tables: CensusTables) -> None:
    same = replace(tables, test=tables.train)
    assert misaligned_columns(same) == 0
    data, study = encode_variant(same, "income", "columns misaligned"), encode(same, "income")
    occurring = [study.feature_names.index(name) for name in data.feature_names]
    assert occurring == sorted(occurring)
    for x, theirs in zip(inputs(data), inputs(study), strict=True):
        assert equal(x, theirs[:, occurring])
    never = sorted(set(range(517)) - set(occurring))
    assert study.x_train[:, never].sum() == 0


# --- the education label ---


def test_the_other_education_labels_are_true_for_the_right_people(tables: CensusTables) -> None:
    study = encode(tables, "education")
    schooled = tables.train["education"]
    associate = schooled.str.startswith("Associates").to_numpy()
    some = (schooled == "Some college but no degree").to_numpy()
    college = study.y_train[:, 0].numpy() == 1
    for variant, expected, name in (
        ("bachelor's or higher", college & ~associate, "education at least bachelor's degree"),
        ("some college or higher", college | some, "education at least some college"),
    ):
        data = encode_variant(tables, "education", variant)
        np.testing.assert_array_equal(data.y_train[:, 0].numpy() == 1, expected)
        assert data.task_names == (name, "never married")
        assert (data.group.name, data.group.auxiliary) == ("education", MARITAL)
        for mine, theirs in zip(inputs(data), inputs(study), strict=True):
            assert equal(mine, theirs)
        for mine, theirs in zip(answers(data), answers(study), strict=True):
            assert equal(mine[:, 1], theirs[:, 1])
            assert not equal(mine[:, 0], theirs[:, 0])


# --- duplicates ---


def occurs_in(train: pd.DataFrame, some: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """By a merge on the 41 columns."""
    left, right = some[BUT_WEIGHT].astype(str), train[BUT_WEIGHT].astype(str).drop_duplicates()
    merged = left.merge(right, on=BUT_WEIGHT, how="left", indicator=True)
    assert len(merged) == len(some)
    return (merged["_merge"] == "both").to_numpy()


def test_duplicates_of_training_rows_are_left_out_and_nothing_else(tables: CensusTables) -> None:
    data = encode_variant(tables, "income", "duplicates of training rows left out", split_seed=2)
    study = encode(tables, "income", split_seed=2)
    assert equal(data.x_train, study.x_train)
    assert equal(data.y_train, study.y_train)
    removed = 0
    for part, table in zip((1, 2), parts(tables, 2)[1:], strict=True):
        new = torch.from_numpy(~occurs_in(tables.train, table))
        removed += int((~new).sum())
        assert (~new[np.flatnonzero(table.index.isin(range(40)))]).all()  # those put there by the fixture
        assert equal(inputs(data)[part], inputs(study)[part][new])
        assert equal(answers(data)[part], answers(study)[part][new])
    assert removed >= 40
    assert len(data.y_validation) + len(data.y_test) == 1001 - removed


def test_a_row_that_differs_in_one_column_is_no_duplicate(tables: CensusTables) -> None:
    def left(column: str) -> int:
        test = tables.train.head(20).copy()
        test.loc[test.index[10:], column] = tables.train[column].max() + 1
        copied = replace(tables, train=tables.train.head(20), test=test)
        data = encode_variant(copied, "income", "duplicates of training rows left out")
        return len(data.y_validation) + len(data.y_test)

    assert left("num_emp") == 10
    with pytest.raises(ValueError, match="occur in training"):
        left("instance_weight")


# --- the real files ---


def test_the_real_columns_are_misaligned_as_in_keras_mmoe(real: CensusTables) -> None:
    """208 of 499 there, 216 of 486 here, for one value that the test file lacks.

    Ahead of it: keras-mmoe has the weight, education (17 values) and three codes as numbers (own_or_self,
    vet_benefits, year) more. Behind it: here these three codes are one-hot, 3 + 3 + 2 columns more.
    """
    missing = "det_hh_fam_stat=Grandchild <18 ever marr not in subfamily"
    data = encode_variant(real, "income", "columns misaligned")
    assert len(data.feature_names) == 486 == 499 - 1 - 17 - 3 + 8
    assert misaligned_columns(real) == 216 == 208 + 8
    place = data.feature_names.index(missing)
    assert place == 486 - 216
    check_against_pandas(real, data)

    study = encode(real, "income")
    known = [index for index, name in enumerate(study.feature_names) if "(unknown)" not in name]
    assert equal(data.x_train, study.x_train[:, known])
    for mine, theirs in zip(inputs(data)[1:], inputs(study)[1:], strict=True):
        assert equal(mine[:, :place], theirs[:, known[:place]])
        assert equal(mine[:, place:-1], theirs[:, known[place + 1 :]])
        assert mine[:, -1].sum() == 0


def test_a_quarter_of_the_real_test_rows_occur_in_training(real: CensusTables) -> None:
    study = encode(real, "income")
    data = encode_variant(real, "income", "duplicates of training rows left out")
    assert equal(data.x_train, study.x_train)
    assert (len(study.y_validation) - len(data.y_validation), len(study.y_test) - len(data.y_test)) == (
        13_420,
        13_334,
    )
    for part, table in zip((1, 2), parts(real)[1:], strict=True):
        new = torch.from_numpy(~occurs_in(real.train, table.head(2000)))
        kept = int(new.sum())
        assert 1300 < kept < 1600
        assert equal(inputs(data)[part][:kept], inputs(study)[part][:2000][new])
        assert equal(answers(data)[part][:kept], answers(study)[part][:2000][new])
    # They are easy: seven in ten are children, and hardly any has the larger income.
    assert study.y_validation[:, 0].mean() == pytest.approx(0.062, abs=2e-3)
    assert data.y_validation[:, 0].mean() == pytest.approx(0.0846, abs=2e-3)


def test_the_real_numbers_on_other_scales(real: CensusTables) -> None:
    unscaled = encode_variant(real, "income", "numbers unscaled")
    for x, table in zip(inputs(unscaled), parts(real), strict=True):
        np.testing.assert_array_equal(x[:, :7].numpy(), table[list(CONTINUOUS)].to_numpy())
    assert unscaled.x_train.max() == 99_999
    del unscaled
    numbers = encode_variant(real, "income", "numbers standardised").x_train[:, :7].double()
    np.testing.assert_allclose(numbers.mean(dim=0), 0, atol=1e-6)
    np.testing.assert_allclose(numbers.std(dim=0, correction=0), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "rate", "correlation"),
    [
        (AS_IN_THE_STUDY, 0.1964, 0.2400),
        ("bachelor's or higher", 0.1477, 0.198),
        ("some college or higher", 0.3358, 0.288),
    ],
)
def test_the_real_education_labels_have_their_rates_and_correlations(
    real: CensusTables, variant: str, rate: float, correlation: float
) -> None:
    data = encode_variant(real, "education", variant)
    main, auxiliary = data.y_train.double().unbind(dim=1)
    assert float(main.mean()) == pytest.approx(rate, abs=5e-5)
    measured = abs(np.corrcoef(main.numpy(), auxiliary.numpy())[0, 1])
    assert measured == pytest.approx(correlation, abs=5e-4)
    assert label_correlation(real, data.group) == pytest.approx(measured, abs=1e-9)
