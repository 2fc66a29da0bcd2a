"""The census study: tuning, what the paper leaves open, references, and the reported runs, the longest last."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from companion.study import census, references, specifications, tuning
from companion.study.plan import Part, Study
from companion.study.presets import Preset


def source_of(preset: Preset) -> census.CensusSource:
    """The data of a preset."""
    return census.CensusSource(preset.census_train_rows, preset.census_test_rows)


def _parts(preset: Preset, folder: Path) -> list[Part]:
    source = source_of(preset)
    storage = tuning.storage_of(preset, folder)
    run = partial(census.run, source=source)
    without_gates = partial(run, gates=False)
    search = Part(
        "census_tuning.csv",
        lambda _: tuning.tuning_cells(preset),
        partial(tuning.run, preset=preset, source=source, storage=storage),
        data=source.sums,
        unit="trials",
        columns=tuning.columns_of(preset),
    )
    return [
        search,
        Part(
            "census_choices.csv",
            lambda rows: census.choice_cells(preset, tuning.best_settings(rows)),
            without_gates,
            columns=census.COLUMNS_WITHOUT_GATES,
            data=source.sums,
            after=search,
        ),
        Part(
            "census_tucker.csv",
            lambda rows: census.tucker_cells(preset, tuning.best_settings(rows)),
            without_gates,
            columns=census.COLUMNS_WITHOUT_GATES,
            data=source.sums,
            after=search,
        ),
        Part(
            "census_references.csv",
            lambda _: references.reference_cells(),
            partial(references.run_reference, source=source),
            columns=references.COLUMNS,
            data=source.sums,
            after=search,
        ),
        Part(
            "census_specifications.csv",
            lambda _: specifications.cells(preset),
            partial(specifications.run, source=source),
            columns=specifications.COLUMNS,
            data=source.sums,
        ),
        Part(
            "census.csv",
            lambda rows: census.reported_cells(preset, tuning.best_settings(rows)),
            run,
            columns=census.COLUMNS,
            data=source.sums,
            after=search,
        ),
    ]


CENSUS = Study("census", _parts)
