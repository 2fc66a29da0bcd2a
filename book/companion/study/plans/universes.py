"""The universes that come nearest to the paper's figures, and the survey of many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from companion.study import synthetic, universes
from companion.study.cells import Cell
from companion.study.plan import Part, Stacked, Study
from companion.study.presets import Preset

LONG_POINTS = 5 * universes.SURVEY_POINTS
"""Of the curves of the long runs, as far apart in steps as the survey's."""
CPU_RUNS = 24
"""Both correlations of a model in a universe together, which takes a fifth less time than one after the other."""


def _nearest_parts(preset: Preset, folder: Path) -> list[Part]:
    def nearest(constants: str) -> Callable[[pd.DataFrame], list[Cell[synthetic.Choices]]]:
        return lambda _: universes.nearest_cells(preset, constants)

    whole = Stacked(synthetic.alike, universes.run_stack)
    short = Stacked(synthetic.alike, universes.run_short_stack)
    first, *others = (
        Part(f"universes_{name.replace('-', '_')}.csv", nearest(name), universes.run, whole)
        for name in universes.NEAREST
    )
    return [
        first,
        Part("universes_controls.csv", lambda _: universes.control_cells(preset), universes.run_short, short),
        Part(
            "universes_noise.csv",
            lambda _: universes.noise_cells(preset, universes.NEAREST[0], universes.BATCH_SIZE),
            partial(universes.run_short, label=universes.noisy_label),
            Stacked(synthetic.alike, partial(universes.run_short_stack, label=universes.noisy_label)),
        ),
        Part("universes_varied.csv", lambda _: universes.varied_cells(preset), universes.run, whole),
        *others,
    ]


def _survey_parts(preset: Preset, folder: Path) -> list[Part]:
    labels = Part(
        "universes.csv", lambda _: universes.label_cells(preset), universes.run_labels, unit="universes"
    )
    label = partial(universes.universe_label, file=folder / labels.file)

    def part(file: str, cells: Callable[..., list[Cell[universes.UniverseChoices]]], points: int) -> Part:
        return Part(
            file,
            lambda rows: cells(preset, rows),
            partial(universes.run_short, label=label, points=points),
            Stacked(
                partial(synthetic.alike, label=label),
                partial(universes.run_short_stack, label=label, points=points),
                cpu_runs=CPU_RUNS,
            ),
            after=labels,
        )

    return [
        labels,
        part("universes_survey.csv", universes.survey_cells, universes.SURVEY_POINTS),
        part("universes_long.csv", universes.long_cells, LONG_POINTS),
    ]


NEAREST = Study("nearest", _nearest_parts)
UNIVERSES = Study("universes", _survey_parts)
