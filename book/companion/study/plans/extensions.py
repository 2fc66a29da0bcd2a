"""The studies of chapter 6: extensions on both kinds of tasks, layers, many tasks, unequal tasks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from companion.study.extensions import census, gates, gradients, rare_labels, units
from companion.study.plan import Part, Study
from companion.study.plans.census import source_of as census_source_of
from companion.study.plans.kuairand import source_of as kuairand_source_of
from companion.study.presets import Preset


def _parts(preset: Preset, folder: Path) -> list[Part]:
    sources = rare_labels.Sources(census_source_of(preset), kuairand_source_of(preset))
    tuning = Part(
        "extensions_gates_tuning.csv", lambda _: gates.tuning_cells(preset), gates.run, columns=gates.COLUMNS
    )
    run_census = partial(census.run, source=sources.census)
    census_tuning = Part(
        "extensions_census_tuning.csv",
        lambda _: census.tuning_cells(preset),
        run_census,
        columns=census.COLUMNS,
        data=sources.census.sums,
    )
    return [
        tuning,
        Part(
            "extensions_gates.csv",
            lambda rows: gates.reported_cells(preset, gates.chosen_rates(rows)),
            gates.run,
            columns=gates.COLUMNS,
            after=tuning,
        ),
        Part(
            "extensions_units.csv",
            lambda rows: units.reported_cells(preset, gates.chosen_rates(rows)),
            units.run,
            columns=units.COLUMNS,
            after=tuning,
        ),
        census_tuning,
        Part(
            "extensions_census.csv",
            lambda rows: census.reported_cells(preset, census.chosen_rates(rows)),
            run_census,
            columns=census.COLUMNS,
            data=sources.census.sums,
            after=census_tuning,
        ),
        Part("extensions_layers.csv", lambda _: gates.layer_cells(preset), gates.run, columns=gates.COLUMNS),
        Part("extensions_tasks.csv", lambda _: gates.task_cells(preset), gates.run, columns=gates.COLUMNS),
        *(part for data_set in rare_labels.RARE_TASK for part in _rare_parts(preset, data_set, sources)),
    ]


def _rare_parts(preset: Preset, data_set: str, sources: rare_labels.Sources) -> list[Part]:
    """Of unequal tasks: rates, then weights at the chosen rates in the same file, then all that is reported."""
    run, columns = partial(rare_labels.run, sources=sources), rare_labels.COLUMNS
    data = partial(sources.sums, data_set)
    name = f"rare_labels_{data_set}"
    rates = Part(
        f"{name}_tuning.csv",
        lambda _: rare_labels.tuning_cells(preset, data_set),
        run,
        columns=columns,
        data=data,
    )
    weights = Part(
        f"{name}_tuning.csv",
        lambda rows: rare_labels.weight_cells(
            preset, data_set, rare_labels.chosen(rows, data_set, "learning_rate")
        ),
        run,
        columns=columns,
        data=data,
        after=rates,
    )
    return [
        rates,
        weights,
        Part(
            f"{name}.csv",
            lambda rows: rare_labels.reported_cells(
                preset,
                data_set,
                rare_labels.chosen(rows, data_set, "learning_rate"),
                rare_labels.chosen(rows, data_set, "weight"),
            ),
            run,
            columns=columns,
            data=data,
            after=weights,
        ),
        Part(
            f"{name}_weights.csv",
            lambda rows: rare_labels.large_weight_cells(
                preset, data_set, rare_labels.chosen(rows, data_set, "learning_rate")
            ),
            run,
            columns=columns,
            data=data,
            after=weights,
        ),
        Part(
            f"{name}_gradients.csv",
            lambda rows: gradients.watched_cells(
                preset, data_set, rare_labels.chosen(rows, data_set, "learning_rate")
            ),
            partial(gradients.run, sources=sources),
            columns=gradients.COLUMNS,
            data=data,
            after=weights,
        ),
    ]


EXTENSIONS = Study("extensions", _parts)
