"""The atlas: pairs of tasks, every model on each, and the extremes once more."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from companion.study import atlas
from companion.study.census import CensusSource
from companion.study.plan import Part, Study
from companion.study.presets import Preset


def source_of(preset: Preset) -> CensusSource:
    """The data: the whole files; of the training rows the runs take some."""
    return CensusSource()


def _parts(preset: Preset, folder: Path) -> list[Part]:
    source = source_of(preset)
    run = partial(atlas.run, source=source, rows=preset.atlas_rows)
    pairs = Part(
        "atlas_pairs.csv",
        lambda _: atlas.pair_cells(preset),
        partial(atlas.run_pairs, source=source),
        columns=atlas.PAIR_COLUMNS,
        data=source.sums,
        unit="pairs",
    )
    runs = Part(
        "atlas.csv",
        lambda rows: atlas.atlas_cells(preset, rows),
        run,
        columns=atlas.COLUMNS,
        data=source.sums,
        after=pairs,
    )
    again = Part(
        "atlas_again.csv",
        lambda rows: atlas.again_cells(preset, rows),
        run,
        columns=atlas.COLUMNS,
        data=source.sums,
        after=runs,
    )
    return [pairs, runs, again]


ATLAS = Study("atlas", _parts)
