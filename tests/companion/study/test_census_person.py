"""The small model over the page's inputs is the large one over the encoded table."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from companion.figures.interactive import person_inputs, person_model
from companion.study import census_person
from companion.study.census import CensusSource
from companion.study.census_person import CHANGEABLE, Choice, Number
from mmoe_lib.models import MMoE
from mmoe_lib.tasks.census import CensusTables, encode
from mmoe_lib.tasks.census.columns import NEVER_INPUTS
from mmoe_lib.tasks.census.encoding import INPUTS

SOURCE = CensusSource(train_rows=6_000, test_rows=2_000, simulated=True)


@pytest.fixture(scope="module")
def module() -> MMoE:
    torch.set_num_threads(1)
    module, aucs = census_person.train_small(SOURCE, epochs=2, progress=False)
    assert set(aucs) == {"income > 50K", "never married"}
    return module


@pytest.fixture(scope="module")
def train() -> pd.DataFrame:
    return SOURCE.tables().train


def rows_of(document: dict[str, object], people: list[list[int]], like: pd.DataFrame) -> pd.DataFrame:
    """The people as rows of the table, put together from what the document says of them."""
    rows = []
    for chosen in people:
        row = dict(document["always"])  # type: ignore[call-overload]
        for change, place in zip(document["changes"], chosen, strict=True):  # type: ignore[call-overload]
            if change["kind"] == "number":
                row[change["column"]] = change["values"][place]
            else:
                row[change["column"]] = change["options"][place]
                row.update({name: values[place] for name, values in change["linked"].items()})
        rows.append(row)
    table = like.iloc[[0] * len(rows)].reset_index(drop=True).copy()
    for column in INPUTS:
        values = [row[column] for row in rows]
        table[column] = pd.Series(values).astype(like[column].dtype)
    return table


def test_the_small_model_computes_what_the_large_one_does(module: MMoE, train: pd.DataFrame) -> None:
    data = SOURCE.data("income")
    document = json.loads(census_person.as_text(census_person.describe(module, data, train)))
    generator = np.random.default_rng(0)
    sizes = [len(change["texts"]) for change in document["changes"]]
    start = [change["start"] for change in document["changes"]]
    people = [start, *(generator.integers(0, sizes).tolist() for _ in range(99))]
    table = rows_of(document, people, train)
    tables = CensusTables(train, table, simulated=True, source="", sha256={})
    encoded = encode(tables, "income")
    x = torch.cat([encoded.x_validation, encoded.x_test])  # the same people, in another order

    small = person_model(document)
    own = torch.stack([person_inputs(document, chosen) for chosen in people])
    with torch.no_grad():
        wide = torch.cat([torch.sigmoid(module(x)), module.gate_weights(x).flatten(1)], dim=1)
        narrow = torch.cat([torch.sigmoid(small(own)), small.gate_weights(own).flatten(1)], dim=1)
    # Every row of one is a row of the other.
    apart = (wide.unsqueeze(1) - narrow).abs().amax(dim=-1)  # (people, people)
    assert apart.shape == (100, 100)
    assert float(apart.amin(dim=0).max()) < 1e-3
    assert float(apart.amin(dim=1).max()) < 1e-3
    assert float(apart.max()) > 0.05


def test_the_person_is_typical_and_nobody(module: MMoE, train: pd.DataFrame) -> None:
    people = census_person.people_in_work(train)
    person = census_person.typical_person(people)
    assert set(person) == set(INPUTS)
    assert not set(person) & set(NEVER_INPUTS)
    assert person["age"] == int(people["age"].median())
    assert person["sex"] == people["sex"].mode().iloc[0]
    of_occupation = people[people["major_occ_code"] == person["major_occ_code"]]
    assert person["det_occ_code"] == of_occupation["det_occ_code"].mode().iloc[0]

    one = train.iloc[[0]].copy()
    for column, value in person.items():
        one[column] = pd.Series([value], index=one.index).astype(train[column].dtype)
    with pytest.raises(ValueError, match="1 rows are the typical person"):
        census_person.describe(module, SOURCE.data("income"), pd.concat([train, one], ignore_index=True))


def test_what_can_be_changed_are_inputs_and_each_only_once() -> None:
    columns = [change.column for change in CHANGEABLE]
    columns += [name for change in CHANGEABLE if isinstance(change, Choice) for name in change.linked]
    assert len(set(columns)) == len(columns)
    assert set(columns) <= set(INPUTS)
    for change in CHANGEABLE:
        if isinstance(change, Number):
            assert len(change.named()) == len(change.values)
    assert Number("age", "age", (1, 2), unit="years").named() == ["1 year", "2 years"]


def test_categories_are_written_in_full() -> None:
    assert census_person.in_full("Child 18+ ever marr RP of subfamily") == (
        "Child 18+ ever married reference person of subfamily"
    )
    assert census_person.in_full("Native- Born in the United States") == "Native, born in the United States"


def test_nothing_is_written_when_the_data_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMOE_DATA", str(tmp_path / "nowhere"))
    # Of five rows: no test that ran before has left these tables in the cache.
    monkeypatch.setattr("companion.study.census_person.CensusSource", lambda: CensusSource(train_rows=5))
    assert census_person.main(["--results", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []
