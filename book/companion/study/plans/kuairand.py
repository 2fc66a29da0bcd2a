"""The recommendation study: tuning, gate dropout, references, replayed rankings, and the reported runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from companion.study import kuairand, kuairand_references, off_policy
from companion.study.cells import Cell
from companion.study.kuairand import Choices, chosen_settings
from companion.study.plan import Part, Study
from companion.study.presets import Preset


def source_of(preset: Preset) -> kuairand.RankingSource:
    """The data of a preset."""
    return kuairand.RankingSource(preset.kuairand_users)


def _parts(preset: Preset, folder: Path) -> list[Part]:
    source = source_of(preset)
    run = partial(kuairand.run, source=source)
    tuning = Part(
        "kuairand_tuning.csv",
        lambda _: kuairand.tuning_cells(preset),
        partial(kuairand.run_tuning, source=source),
        columns=kuairand.TUNING_COLUMNS,
        data=source.sums,
    )

    def replayed(rows: pd.DataFrame) -> list[Cell[Choices]]:
        return off_policy.off_policy_cells(preset, chosen_settings(rows)) if source.has_random_log() else []

    return [
        tuning,
        Part(
            "kuairand_gates.csv",
            lambda rows: kuairand.gate_cells(preset, chosen_settings(rows)),
            run,
            columns=kuairand.COLUMNS,
            data=source.sums,
            after=tuning,
        ),
        Part(
            "kuairand_references.csv",
            lambda _: kuairand_references.reference_cells(),
            partial(kuairand_references.run_reference, source=source),
            columns=kuairand_references.COLUMNS,
            data=source.sums,
            after=tuning,
        ),
        Part(
            "kuairand_off_policy.csv",
            replayed,
            partial(off_policy.run_off_policy, source=source),
            columns=off_policy.COLUMNS,
            data=source.sums,
            after=tuning,
        ),
        Part(
            "kuairand.csv",
            lambda rows: kuairand.reported_cells(preset, chosen_settings(rows)),
            run,
            columns=kuairand.COLUMNS,
            data=source.sums,
            after=tuning,
        ),
    ]


KUAIRAND = Study("kuairand", _parts)
