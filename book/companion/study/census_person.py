"""A small MMoE on Census-Income that fits into a page, and an imaginary person whose inputs a reader can change.

`python -m companion.study.census_person` trains it on the real training file and writes
`data/results/census_person.json`: the model, what can be changed, and where both come from. The person is made of
typical values of the people in work: the median of a number, the most frequent category of the rest. No row of the
data is stored. A change sets what depends on it as well: another occupation brings the most frequent detailed code of
that occupation, another household role the most frequent tax status of that role.

The stored model has one input a changeable number, one a category that can be chosen, and a last one that is always 1
for all that stays as it is. A layer W x + b is linear in x, so the columns of what is set together may be added up:
for these people the small model computes what the large one does, and is itself an MMoE.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.checkout import ROOT
from companion.study.census import BATCH_SIZE, CensusSource, score, train_runs
from companion.study.origin import Origin
from mmoe_lib.files import write_whole
from mmoe_lib.models import MMoE, count_parameters
from mmoe_lib.tasks.census import CensusData
from mmoe_lib.tasks.census.columns import MONEY, NOMINAL
from mmoe_lib.tasks.census.encoding import INPUTS

EXPERTS, UNITS, TOWER_UNITS = 4, 8, 8
LEARNING_RATE, EPOCHS, SEED = 1e-3, 6, 0
"""Adam's default rate. At 0.003, tried first, income's gate read one expert alone whatever a reader changed; the AUC
was 0.0003 higher."""

FEWEST = 0.005
"""A category is offered if at least this share of the people in work has it."""

DIGITS = 4
"""Decimals of the stored weights."""

DOLLARS = (0, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 15_000, 25_000, 50_000, 99_999)
EMPLOYER_SIZES = (
    "no employer", "under 10 people", "10 to 24 people", "25 to 99 people", "100 to 499 people",
    "500 to 999 people", "1,000 people or more",
)  # fmt: skip


# The survey's short forms, in full.
WORDS = {
    "assmblrs": "assemblers", "inspctrs": "inspectors", "equip ": "equipment ", "Adm ": "Administrative ",
    "admin ": "administrative ", " marr ": " married ", " Rel ": " relative ", "RP": "reference person",
    "HH": "households", "U S": "US", "- B": ", b", "- N": ", n",
}  # fmt: skip


def in_full(category: str) -> str:
    """A category as a reader understands it."""
    for short, full in WORDS.items():
        category = category.replace(short, full)
    return category


@dataclass(frozen=True)
class Number:
    """A numeric input that can be changed.

    Attributes:
        column: Of the data.
        label: For the reader.
        values: From which one is chosen.
        texts: What each is called; empty for the number and `unit`.
        unit: Behind the number.
    """

    column: str
    label: str
    values: tuple[int, ...]
    texts: tuple[str, ...] = ()
    unit: str = ""

    def named(self) -> list[str]:
        """What each value is called."""
        plain = [f"{value:,} {self.unit[:-1] if value == 1 else self.unit}" for value in self.values]
        return list(self.texts) or plain


@dataclass(frozen=True)
class Choice:
    """A nominal input that can be changed, with those that follow it.

    Attributes:
        column: Of the data.
        label: For the reader.
        linked: Columns that take their most frequent value among the people in work who have the category.
    """

    column: str
    label: str
    linked: tuple[str, ...] = ()


CHANGEABLE: tuple[Number | Choice, ...] = (
    Number("age", "age", tuple(range(16, 91)), unit="years"),
    Choice("sex", "sex"),
    Choice("det_hh_fam_stat", "role in the household", ("det_hh_summ", "tax_filer_stat")),
    Choice("citizenship", "citizenship", ("country_self", "country_father", "country_mother")),
    Choice("class_worker", "class of worker"),
    Choice("major_occ_code", "occupation", ("det_occ_code",)),
    Choice("major_ind_code", "industry", ("det_ind_code",)),
    Number("num_emp", "size of the employer", tuple(range(7)), EMPLOYER_SIZES),
    Number("weeks_worked", "weeks worked in the year", tuple(range(53)), unit="weeks"),
    Number("capital_gains", "capital gains", DOLLARS, unit="dollars"),
    Number("stock_dividends", "dividends from stocks", DOLLARS, unit="dollars"),
)


def people_in_work(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with an occupation."""
    return table[table["major_occ_code"] != "Not in universe"]


def typical_person(people: pd.DataFrame) -> dict[str, int | str]:
    """Medians and most frequent categories of the inputs; what is linked follows what it is linked to."""
    person: dict[str, int | str] = {}
    for column in INPUTS:
        if column in NOMINAL:
            person[column] = _mode(people[column])
        else:
            person[column] = int(people[column].median())
    for change in CHANGEABLE:
        if isinstance(change, Choice):
            person.update(set_by(change, str(person[change.column]), people))
        else:
            nearest = min(change.values, key=lambda value: abs(value - int(person[change.column])))
            person[change.column] = nearest
    return person


def _mode(values: pd.Series[Any]) -> str:
    return str(values.mode().iloc[0])


def set_by(choice: Choice, category: str, people: pd.DataFrame) -> dict[str, int | str]:
    """All columns that a category sets: its own, and those linked to it."""
    have = people[people[choice.column] == category]
    return {choice.column: category, **{column: _mode(have[column]) for column in choice.linked}}


def offered(choice: Choice, people: pd.DataFrame) -> list[str]:
    """The categories that enough people in work have, in alphabetical order."""
    shares = people[choice.column].value_counts(normalize=True)
    return sorted(str(category) for category in shares.index[shares >= FEWEST])


def train_small(
    source: CensusSource, *, epochs: int = EPOCHS, progress: bool = True
) -> tuple[MMoE, dict[str, float]]:
    """Train the small model on the group "income": one run, one seed.

    Returns:
        The module, and its AUC of both tasks on the test half.
    """
    data = source.data("income")
    builder = partial(MMoE, num_experts=EXPERTS, expert_widths=(UNITS,), tower_widths=(TOWER_UNITS,))
    ensemble, _ = train_runs(
        builder, data, (SEED,), learning_rate=LEARNING_RATE, epochs=epochs, progress=progress
    )
    row = score(ensemble, data).iloc[0]
    aucs = [float(row[f"test_{task}_auc"]) for task in ("main", "auxiliary")]
    module = ensemble.module(0)
    assert isinstance(module, MMoE)
    return module, dict(zip(data.task_names, aucs, strict=True))


def small_model(module: MMoE, columns: Tensor) -> dict[str, Any]:
    """The weights over the page's inputs, rounded, by their names in `MMoE`.

    Args:
        module: Of d inputs.
        columns: (d', d), for each of the page's inputs what it puts into the d inputs: x = columns^T x'.
    """
    state = {name: value.detach().double() for name, value in module.state_dict().items()}
    for name in ("experts.first.weight", "gates.weight"):
        state[name] = state[name] @ columns.double().T  # (units, d) -> (units, d')
    return {name: np.round(value.numpy(), DIGITS).tolist() for name, value in state.items()}


def describe(module: MMoE, data: CensusData, train: pd.DataFrame) -> dict[str, Any]:
    """What the page needs: the person, the changes offered, and the model over them.

    Raises:
        ValueError: If a row of the data agrees with the person in every input.
    """
    people = people_in_work(train)
    person = typical_person(people)
    alike = np.logical_and.reduce([train[column] == value for column, value in person.items()])
    if alike.any():
        raise ValueError(
            f"{int(alike.sum())} rows are the typical person: leave out an input or add a change"
        )

    index = {name: place for place, name in enumerate(data.feature_names)}
    spans = {column: _span(column, train) for column in INPUTS if column not in NOMINAL}
    changes: list[dict[str, Any]] = []
    columns: list[Tensor] = []  # of the page's inputs
    rest = dict(person)

    def column_of(values: Mapping[str, int | str]) -> Tensor:
        row = torch.zeros(len(index))
        for name, value in values.items():
            if name in NOMINAL:
                row[index[f"{name}={value}"]] = 1.0
            else:
                row[index[name]] = scaled(int(value), *spans[name])
        return row

    for change in CHANGEABLE:
        start = person[change.column]
        described: dict[str, Any] = {"column": change.column, "label": change.label}
        if isinstance(change, Number):
            low, high, log = spans[change.column]
            listed = list(change.values)
            unit = torch.zeros(len(index))
            unit[index[change.column]] = 1.0
            columns.append(unit)
            described |= {
                "kind": "number",
                "values": listed,
                "texts": change.named(),
                "start": listed.index(int(start)),
                "low": low,
                "high": high,
                "log": log,
            }
            del rest[change.column]
        else:
            options = offered(change, people)
            set_columns = [set_by(change, option, people) for option in options]
            columns += [column_of(values) for values in set_columns]
            described |= {
                "kind": "choice",
                "options": options,
                "texts": [in_full(option) for option in options],
                "start": options.index(str(start)),
                "linked": {name: [str(values[name]) for values in set_columns] for name in change.linked},
            }
            for name in (change.column, *change.linked):
                del rest[name]
        changes.append(described)
    columns.append(column_of(rest))
    return {
        "tasks": list(data.task_names),
        "people": len(people),
        "changes": changes,
        "always": rest,
        "sizes": {"experts": EXPERTS, "units": UNITS, "tower_units": TOWER_UNITS, "inputs": len(columns)},
        "model": small_model(module, torch.stack(columns)),
    }


def _span(column: str, train: pd.DataFrame) -> tuple[float, float, bool]:
    """Smallest and largest value of the training table, and whether a logarithm is taken first."""
    values, log = train[column].to_numpy(np.float64), column in MONEY
    if log:
        values = np.log1p(values)
    return float(values.min()), float(values.max()), log


def scaled(value: float, low: float, high: float, log: bool) -> float:
    """A number as the model sees it, in [0, 1]."""
    if high <= low:
        return 0.0
    return float(np.clip(((np.log1p(value) if log else value) - low) / (high - low), 0.0, 1.0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the small model on all of the real training file and write the JSON file; about half a minute."""
    parser = argparse.ArgumentParser(prog="python -m companion.study.census_person", description=main.__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results", help="where it is written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        source = CensusSource()
        data = source.data("income")
        module, aucs = train_small(source)
        origin = Origin.now(parser.prog, "paper", torch.device("cpu"), source.sums())
        document = {
            "origin": asdict(origin),
            "training": {
                "rows": len(data.x_train),
                "batch_size": BATCH_SIZE,
                "epochs": EPOCHS,
                "learning_rate": LEARNING_RATE,
                "seed": SEED,
                "parameters": count_parameters(module),
            },
            "test_auc": {name: round(value, 4) for name, value in aucs.items()},
            **describe(module, data, source.tables().train),
        }
        path = options.results / "census_person.json"
        write_whole(path, as_text(document).encode())
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{path.name}: {len(path.read_bytes()):,} bytes, test AUC {document['test_auc']}")
    return 0


def as_text(document: Mapping[str, Any]) -> str:
    """JSON with a line a key, so that a change can be read."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in document.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
