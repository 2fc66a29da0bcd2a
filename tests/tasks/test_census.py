import gzip
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from generated_census import Generated, official_text, release_of

from companion.census_labels import label_correlation, label_rates
from mmoe_lib.tasks import census, download
from mmoe_lib.tasks.census import (
    GROUPS,
    CensusTables,
    encode,
    load,
)
from mmoe_lib.tasks.census import files as census_files
from mmoe_lib.tasks.census.columns import (
    COLUMNS,
    CONTINUOUS,
    EDUCATION,
    INCOME,
    MARITAL,
    MONEY,
    NOMINAL,
    Label,
    categories,
)
from mmoe_lib.tasks.census.encoding import INPUTS
from mmoe_lib.tasks.census.files import UCI_117
from mmoe_lib.tasks.download import DownloadError

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def tables() -> CensusTables:
    return load(simulated=True, train_rows=3000, test_rows=1001)


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


# --- loading generated files ---


def test_values_are_read_without_blanks_and_with_one_dtype(generated: Generated, tmp_path: Path) -> None:
    text = generated.texts["census-income.data"]
    assert b", Machine operators assmblrs & inspctrs ," in text
    loaded = load(generated.folder, cache=tmp_path, release=generated.release)
    for mine, theirs in ((generated.train, loaded.train), (generated.test, loaded.test)):
        assert tuple(theirs.columns) == COLUMNS
        for column in COLUMNS:
            same = mine[column].astype(str) == theirs[column].astype(str)
            assert same.all() or column == "instance_weight"
    for column in NOMINAL:
        assert loaded.train[column].dtype == loaded.test[column].dtype
        assert not any(value != value.strip() for value in loaded.train[column].cat.categories)
    np.testing.assert_allclose(loaded.train["instance_weight"], generated.train["instance_weight"], rtol=1e-3)
    assert not loaded.simulated
    assert loaded.source == "generated census, 600 + 401 rows, sums checked"
    assert loaded.sha256 == {file.name: file.sha256 for file in generated.release.files}


def test_the_fast_form_gives_the_same_tables_without_parsing(
    generated: Generated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(generated.folder, cache=tmp_path, release=generated.release)
    assert [file.suffix for file in (tmp_path / "census-income").iterdir()] == [".npz"]
    monkeypatch.setattr(census_files, "parse", None)
    second = load(generated.folder, cache=tmp_path, release=generated.release)
    pd.testing.assert_frame_equal(first.train, second.train)
    pd.testing.assert_frame_equal(first.test, second.test)
    assert (first.sha256, first.source) == (second.sha256, second.source)


def test_the_fast_form_is_not_used_for_other_files(generated: Generated, tmp_path: Path) -> None:
    load(generated.folder, cache=tmp_path, release=generated.release)
    old = generated.release
    generated.train = generated.train.iloc[::-1].reset_index(drop=True)
    generated.write()
    with pytest.raises(ValueError, match="wrong sum"):
        load(generated.folder, cache=tmp_path, release=old)
    turned = load(generated.folder, cache=tmp_path, release=generated.release)
    assert turned.train["age"].tolist() == generated.train["age"].tolist()
    with pytest.raises(ValueError, match="wrong sum"):  # the same files, when others were expected
        load(generated.folder, cache=tmp_path, release=old)


def test_a_broken_fast_form_is_made_anew(generated: Generated, tmp_path: Path) -> None:
    first = load(generated.folder, cache=tmp_path, release=generated.release)
    (fast,) = (tmp_path / "census-income").iterdir()
    whole = fast.read_bytes()
    fast.write_bytes(whole[:1000])
    again = load(generated.folder, cache=tmp_path, release=generated.release)
    pd.testing.assert_frame_equal(first.train, again.train)
    assert fast.read_bytes() == whole


@pytest.mark.parametrize("layout", ["gz", "plain", "folder census-income"])
def test_files_are_found_plain_or_gz_and_in_a_folder_of_their_own(
    generated: Generated, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layout == "plain":
        for file in list(generated.folder.iterdir()):
            file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
            file.unlink()
    given = generated.folder
    if layout == "folder census-income":
        given = tmp_path / "data"
        given.mkdir()
        generated.folder.rename(given / "census-income")
    monkeypatch.setenv("MMOE_DATA", str(given))
    by_variable = load(cache=tmp_path / "cache", release=generated.release)
    monkeypatch.delenv("MMOE_DATA")
    by_path = load(given, cache=tmp_path / "cache", release=generated.release)
    pd.testing.assert_frame_equal(by_variable.train, by_path.train)


def test_the_order_is_path_then_variable_then_cache(
    generated: Generated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(name: str) -> Path:
        copy = tmp_path / name
        (copy / "census-income").mkdir(parents=True)
        for file in generated.folder.iterdir():
            (copy / "census-income" / file.name).write_bytes(file.read_bytes())
        return copy

    given, variable, cache = folder("given"), folder("variable"), folder("cache")
    monkeypatch.setenv("MMOE_DATA", str(variable))
    release = generated.release
    assert given in release.find_or_download(given, cache=cache)["census-income.data"].parents
    assert variable in release.find_or_download(cache=cache)["census-income.data"].parents
    (tmp_path / "no census in here").mkdir()
    monkeypatch.setenv("MMOE_DATA", str(tmp_path / "no census in here"))
    assert cache in release.find_or_download(cache=cache)["census-income.data"].parents
    monkeypatch.delenv("MMOE_DATA")
    assert cache in release.find_or_download(cache=cache)["census-income.data"].parents


def test_missing_files_are_downloaded_into_the_cache(generated: Generated, tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(generated.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split()[0]
        source = {name: f"http://127.0.0.1:{port}/{name}.gz" for name in generated.texts}
        release = replace(generated.release, sources=(source,))
        assert release.available(cache=tmp_path / "cache", progress=False)
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()
    offline = load(cache=tmp_path / "cache", release=release)
    assert len(offline.train) == 600


# --- what bad input gets ---


def test_a_cut_gz_is_told(generated: Generated, tmp_path: Path) -> None:
    file = generated.folder / "census-income.data.gz"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"census-income\.data\.gz is cut short or damaged") as caught:
        load(generated.folder, cache=tmp_path, release=generated.release)
    assert "get census-income.data.gz anew" in one_line(caught.value)
    assert not (tmp_path / "census-income").exists()


def test_missing_rows_are_told(generated: Generated, tmp_path: Path) -> None:
    cut = b"".join(generated.texts["census-income.test"].splitlines(keepends=True)[:300])
    (generated.folder / "census-income.test.gz").write_bytes(gzip.compress(cut))
    with pytest.raises(ValueError, match="cut short, it has 300 rows, expected 401") as caught:
        load(generated.folder, cache=tmp_path, release=generated.release)
    one_line(caught.value)


def test_another_sum_is_told(generated: Generated, tmp_path: Path) -> None:
    changed = generated.texts["census-income.test"].replace(b"Female", b"Male", 1)
    (generated.folder / "census-income.test.gz").write_bytes(gzip.compress(changed))
    with pytest.raises(ValueError, match="wrong sum: sha256 of the text") as caught:
        load(generated.folder, cache=tmp_path, release=generated.release)
    assert generated.release.files[1].sha256 in one_line(caught.value)


def test_the_adult_set_is_recognised(generated: Generated, tmp_path: Path) -> None:
    adult = b"39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, "
    adult = (adult + b"2174, 0, 40, United-States, <=50K\n") * 48_842
    (generated.folder / "census-income.data.gz").write_bytes(gzip.compress(adult, 1))
    with pytest.raises(ValueError, match=r"15 columns: it is the Adult set \(48,842 rows\)") as caught:
        load(generated.folder, cache=tmp_path, release=generated.release)
    assert "expected Census-Income (KDD) with 42 columns" in one_line(caught.value)


def test_a_folder_with_only_the_adult_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "adult.data").write_text("")
    with pytest.raises(FileNotFoundError, match=r"adult\.data there is the Adult set"):
        load(tmp_path)


def test_another_number_of_columns_is_told(generated: Generated, tmp_path: Path) -> None:
    text = official_text(generated.train.drop(columns="year"))
    (generated.folder / "census-income.data.gz").write_bytes(gzip.compress(text))
    with pytest.raises(ValueError, match="has 41 columns, expected 42"):
        load(generated.folder, cache=tmp_path, release=generated.release)


def test_missing_folders_and_files_are_told(
    generated: Generated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"path is .*nowhere, which is not a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no census-income\.data\(\.gz\) in .*MMOE_DATA$") as caught:
        load(tmp_path)
    one_line(caught.value)
    (generated.folder / "census-income.test.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"holds a part of the files, census-income\.test\(\.gz\) missing"
    ):
        load(generated.folder)
    monkeypatch.setenv("MMOE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"MMOE_DATA is .*nowhere, which is not a folder"):
        UCI_117.available()


def test_an_unwritable_cache_warns_when_the_files_are_at_hand(generated: Generated, tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    with pytest.warns(RuntimeWarning, match="cannot write to the cache folder"):
        loaded = load(generated.folder, cache=blocked, release=generated.release)
    assert len(loaded.train) == 600


def test_an_unwritable_cache_is_an_error_when_files_must_be_downloaded(
    generated: Generated, tmp_path: Path
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    with pytest.raises(OSError, match="cannot write to the cache folder") as caught:
        load(cache=blocked, release=generated.release)
    assert "MMOE_DATA" in one_line(caught.value)


def test_without_files_and_network_the_error_says_what_to_do(generated: Generated, tmp_path: Path) -> None:
    nowhere = {name: f"http://127.0.0.1:9/{name}.gz" for name in generated.texts}
    release = release_of(generated.texts, (nowhere,))
    start = time.monotonic()
    with pytest.raises(
        DownloadError, match=r"census-income\.data could not be fetched; tried http"
    ) as caught:
        load(cache=tmp_path / "cache", release=release)
    assert "path= or in the environment variable MMOE_DATA" in one_line(caught.value)
    with pytest.warns(RuntimeWarning, match="could not be fetched"):
        assert not release.available(cache=tmp_path / "cache")
    assert time.monotonic() - start < 5


def test_unknown_groups_and_too_many_rows_are_told(
    tables: CensusTables, generated: Generated, tmp_path: Path
) -> None:
    for call in (encode, label_correlation):
        with pytest.raises(ValueError, match=r"unknown group 'age', expected one of 'income', 'education'"):
            call(tables, "age")
    with pytest.raises(ValueError, match="3,001 rows asked for, expected 1 to 3,000"):
        label_correlation(tables, "income", rows=3001)
    with pytest.raises(ValueError, match="601 rows asked for, expected 1 to 600"):
        load(generated.folder, train_rows=601, cache=tmp_path, release=generated.release)
    with pytest.raises(ValueError, match=r"the same for all 2 rows"):
        label_correlation(replace(tables, train=tables.train.iloc[[0, 0]]), "income")


# --- subsets of rows ---


def test_a_subset_is_random_by_seed_and_said_in_the_source(generated: Generated, tmp_path: Path) -> None:
    def some(seed: int) -> CensusTables:
        folder, release = generated.folder, generated.release
        return load(folder, seed=seed, train_rows=50, test_rows=30, cache=tmp_path, release=release)

    first, again, other = some(1), some(1), some(2)
    pd.testing.assert_frame_equal(first.train, again.train)
    assert not first.train.equals(other.train)
    assert not first.train.equals(generated.train.head(50))
    assert first.source == (
        "generated census, 600 + 401 rows, sums checked; of these 50 + 30 drawn with seed 1"
    )


# --- the traps of other re-implementations ---


def decoded(row: torch.Tensor, names: tuple[str, ...]) -> set[str]:
    return {name for name, value in zip(names, row.tolist(), strict=True) if "=" in name and value == 1}


def test_every_one_hot_input_means_the_same_in_all_three_parts(generated: Generated, tmp_path: Path) -> None:
    """keras-mmoe: 208 of 499 columns were misaligned because a category was missing in test."""
    generated.train["race"] = generated.train["race"].replace("Black", "White")
    generated.test = generated.test[generated.test["sex"] == "Male"].reset_index(drop=True)
    generated.write()
    loaded = load(generated.folder, cache=tmp_path, release=generated.release)
    data = encode(loaded, "income", split_seed=5)
    order = np.random.default_rng(5).permutation(len(loaded.test))
    half = len(order) // 2
    parts = (
        (data.x_train, loaded.train),
        (data.x_validation, loaded.test.iloc[order[:half]]),
        (data.x_test, loaded.test.iloc[order[half:]]),
    )
    nominal = [column for column in INPUTS if column not in CONTINUOUS]
    assert len(nominal) == 31
    for x, table in parts:
        assert x.shape == (len(table), 517)
        for row, (_, person) in zip(x[:40], table.iterrows(), strict=False):
            assert decoded(row, data.feature_names) == {f"{column}={person[column]}" for column in nominal}


def test_the_width_and_names_do_not_depend_on_the_rows(tables: CensusTables) -> None:
    few = replace(tables, train=tables.train.head(5), test=tables.test.head(4))
    assert encode(few, "income").feature_names == encode(tables, "education").feature_names
    names = encode(tables, "income").feature_names
    assert len(names) == len(set(names)) == 517
    assert encode(few, "income").x_train.shape == (5, 517)


def test_a_category_of_its_own_order_or_unlisted_is_encoded_by_name(
    generated: Generated, tmp_path: Path
) -> None:
    countries = generated.test["country_self"].astype(str).tolist()
    generated.test["country_self"] = pd.Categorical(["Atlantis", *countries[1:]])
    generated.write()
    loaded = load(generated.folder, cache=tmp_path, release=generated.release)
    shuffled = loaded.test.copy()
    shuffled["race"] = shuffled["race"].cat.reorder_categories(categories()["race"][::-1])
    data = encode(loaded, "income")
    turned = encode(replace(loaded, test=shuffled), "income")
    torch.testing.assert_close(data.x_test, turned.x_test, rtol=0, atol=0)
    unknown = data.feature_names.index("country_self=(unknown)")
    assert data.x_train[:, unknown].sum() == 0
    assert data.x_validation[:, unknown].sum() + data.x_test[:, unknown].sum() == 1


def test_education_marriage_income_and_weight_are_never_inputs(tables: CensusTables) -> None:
    """Left among the inputs they give the published income AUCs of 0.945 and more."""
    for group in GROUPS:
        data = encode(tables, group)
        columns = {name.split("=")[0] for name in data.feature_names}
        assert columns == set(INPUTS)
        assert len(columns) == 38
        assert not columns & {"education", "marital_stat", "instance_weight", "income_50k"}
        changed = tables.train.copy()
        for column in ("education", "marital_stat", "income_50k"):
            changed[column] = changed[column].cat.set_categories(changed[column].cat.categories[::-1])
            changed[column] = changed[column].to_numpy()[::-1]
            changed[column] = changed[column].astype(tables.train[column].dtype)
        changed["instance_weight"] *= 7
        same = encode(replace(tables, train=changed), group)
        torch.testing.assert_close(data.x_train, same.x_train, rtol=0, atol=0)
        assert not torch.equal(data.y_train, same.y_train)


def test_labels_are_true_for_the_right_people(tables: CensusTables) -> None:
    """Mtlearn's auxiliary label was all zero, because the value in the file starts with a blank."""
    train = tables.train
    married = (train["marital_stat"] != "Never married").to_numpy()
    rich = (train["income_50k"] == "50000+.").to_numpy()
    income, education = encode(tables, "income"), encode(tables, "education")
    assert income.task_names == ("income > 50K", "never married")
    assert education.task_names == ("education at least associate degree", "never married")
    np.testing.assert_array_equal(income.y_train[:, 0].numpy(), rich)
    np.testing.assert_array_equal(income.y_train[:, 1].numpy(), ~married)
    np.testing.assert_array_equal(education.y_train[:, 1].numpy(), ~married)
    assert 0 < rich.mean() < 0.1


def test_associate_degrees_count_as_college(tables: CensusTables) -> None:
    """Morningsky leaves them out; with some college or with bachelor's only, the correlation is another."""
    label = encode(tables, "education").y_train[:, 0].numpy()
    yes = set(tables.train["education"][label == 1])
    assert yes == {
        "Associates degree-academic program",
        "Associates degree-occup /vocational",
        "Bachelors degree(BA AB BS)",
        "Masters degree(MA MS MEng MEd MSW MBA)",
        "Prof school degree (MD DDS DVM LLB JD)",
        "Doctorate degree(PhD EdD)",
    }
    assert not yes & set(tables.train["education"][label == 0])


@pytest.mark.parametrize("misspelt", [" 50000+.", "50000+"])
def test_a_label_value_that_never_occurs_is_an_error(tables: CensusTables, misspelt: str) -> None:
    """MMoEEx: a label string without its leading blank never matches."""
    wrong = replace(GROUPS["income"], main=Label("income", "income_50k", frozenset({misspelt})))
    with pytest.raises(ValueError, match="which income_50k never holds"):
        encode(tables, wrong)


def test_numbers_are_scaled_by_the_training_table_alone(tables: CensusTables) -> None:
    """MMoEEx fits its scaler again on test."""
    test = tables.test.copy()
    test["age"] = 45  # of a training range of 0 to 90
    test.loc[0, "weeks_worked"] = 400
    data = encode(replace(tables, test=test), "income")
    age, weeks = data.feature_names.index("age"), data.feature_names.index("weeks_worked")
    assert (tables.train["age"].min(), tables.train["age"].max()) == (0, 90)
    assert (data.x_test[:, age] == 0.5).all()
    assert max(data.x_validation[:, weeks].max(), data.x_test[:, weeks].max()) == 1.0
    for x in (data.x_train, data.x_validation, data.x_test):
        assert x.dtype == torch.float32
        assert x.min() == 0.0
        assert x.max() == 1.0
    torch.testing.assert_close(data.x_train, encode(tables, "income").x_train, rtol=0, atol=0)


def test_money_is_on_a_log_scale(tables: CensusTables) -> None:
    data = encode(tables, "income")
    for column in MONEY:
        dollars = tables.train[column].to_numpy(np.float64)
        expected = np.log1p(dollars) / np.log1p(dollars.max())
        np.testing.assert_allclose(data.x_train[:, data.feature_names.index(column)], expected, rtol=1e-6)


def test_a_number_that_never_varies_becomes_zero(tables: CensusTables) -> None:
    train = tables.train.assign(capital_losses=np.int32(5))
    data = encode(replace(tables, train=train), "income")
    assert (data.x_train[:, data.feature_names.index("capital_losses")] == 0).all()
    assert torch.isfinite(data.x_test).all()


def test_validation_and_test_are_random_halves_by_seed(tables: CensusTables) -> None:
    """Morningsky takes the first half of the file."""
    numbered = replace(
        tables, test=tables.test.assign(age=np.arange(1001) % 90, num_emp=np.arange(1001) // 90)
    )
    numbered = replace(numbered, train=numbered.train.assign(num_emp=np.arange(3000) % 12))

    def rows(split_seed: int) -> tuple[list[int], list[int]]:
        data = encode(numbered, "income", split_seed=split_seed)
        age, number = data.feature_names.index("age"), data.feature_names.index("num_emp")
        validation, test = (
            (x[:, age] * 90 + (x[:, number] * 11).round() * 90).round().int().tolist()
            for x in (data.x_validation, data.x_test)
        )
        return validation, test

    validation, test = rows(0)
    assert (len(validation), len(test)) == (500, 501)
    assert sorted(validation + test) == list(range(1001))
    assert 400 < np.mean(validation) < 600
    assert rows(0) == (validation, test)
    assert set(rows(1)[0]) != set(validation)


def test_labels_stay_with_their_rows_in_both_halves(tables: CensusTables) -> None:
    marked = tables.test.assign(age=np.where(tables.test["income_50k"] == "50000+.", 90, 0))
    data = encode(replace(tables, test=marked), "income")
    age = data.feature_names.index("age")
    torch.testing.assert_close(data.x_validation[:, age], data.y_validation[:, 0])
    torch.testing.assert_close(data.x_test[:, age], data.y_test[:, 0])


def test_too_few_rows_to_split_are_told(tables: CensusTables) -> None:
    with pytest.raises(ValueError, match="1 test rows are too few"):
        encode(replace(tables, test=tables.test.head(1)), "income")


def test_the_import_pulls_in_no_network() -> None:
    code = "import sys, mmoe_lib.tasks.census; print({'pooch', 'requests'}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- the real files ---


def test_the_real_files_have_the_known_counts_and_rates(real: CensusTables) -> None:
    assert real.source == ("Census-Income (KDD), UCI data set 117, 199,523 + 99,762 rows, sums checked")
    assert int((real.train["income_50k"] == "50000+.").sum()) == 12_382
    assert int((real.test["income_50k"] == "50000+.").sum()) == 6_186
    rates = label_rates(real)
    expected = {
        INCOME.name: (0.06206, 0.06201),
        EDUCATION.name: (0.1964, 0.1950),
        MARITAL.name: (0.4335, 0.4325),
    }
    for label, both in expected.items():
        np.testing.assert_allclose(rates.loc[label], both, atol=5e-5)
    assert (real.train["det_hh_fam_stat"].nunique(), real.test["det_hh_fam_stat"].nunique()) == (38, 37)
    features = [column for column in COLUMNS if column not in ("instance_weight", "income_50k")]
    assert int(real.train.duplicated(features).sum()) == 46_716
    assert (real.train.loc[real.train["year"] == "95", "mig_chg_msa"] == "?").all()


def test_the_real_labels_correlate_as_in_the_paper(real: CensusTables) -> None:
    for group, train, test in (("income", 0.1782, 0.1787), ("education", 0.2400, 0.2376)):
        assert label_correlation(real, group) == pytest.approx(train, abs=5e-5)
        assert label_correlation(real, group, part="test") == pytest.approx(test, abs=5e-5)
        sample = label_correlation(real, group, rows=10_000)
        assert sample == label_correlation(real, group, rows=10_000)
        assert sample == pytest.approx(GROUPS[group].paper_correlation, abs=0.024)


def test_every_real_value_is_listed(real: CensusTables) -> None:
    data = encode(real, "income")
    assert data.x_train.shape == (199_523, 517)
    assert (data.x_validation.shape, data.x_test.shape) == ((49_881, 517), (49_881, 517))
    unknown = [index for index, name in enumerate(data.feature_names) if name.endswith("(unknown)")]
    assert len(unknown) == 31
    for x in (data.x_train, data.x_validation, data.x_test):
        assert x[:, unknown].sum() == 0
        assert (x[:5000, len(CONTINUOUS) :].sum(dim=1) == 31).all()


@pytest.mark.usefixtures("real")  # leaves the fast form in the cache
def test_the_second_load_is_quick_and_with_the_encoding_small(
    real_files: dict[str, Path], real_cache: Path
) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from mmoe_lib.tasks import census\n"
        "start = time.process_time()\n"  # what a busy machine does not change
        "tables = census.load(sys.argv[1], cache=sys.argv[2])\n"
        "seconds = time.process_time() - start\n"
        "census.encode(tables, 'income')\n"
        # not ru_maxrss, which a process inherits from the one that started it
        "peak = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]\n"
        "print(seconds, peak)\n"
    )
    arguments = [sys.executable, "-c", code, str(real_files["census-income.data"].parent), str(real_cache)]
    printed = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    seconds, kilobytes = (float(number) for number in printed.split())
    assert seconds < 2
    assert kilobytes < 2e6


def test_the_default_cache_is_the_checkouts() -> None:
    checkout = Path(census.__file__).resolve().parents[3]
    assert download.default_cache() == checkout / "data" / "cache"
