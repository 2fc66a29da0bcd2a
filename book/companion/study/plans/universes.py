"""The universes: draws of what the paper leaves open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from companion.study import synthetic, universes
from companion.study.cells import Cell
from companion.study.plan import Part, Stacked, Study
from companion.study.presets import Preset


def _parts(preset: Preset, folder: Path) -> list[Part]:
    def cells(constants: str) -> Callable[[pd.DataFrame], list[Cell[synthetic.Choices]]]:
        return lambda _: universes.nearest_cells(preset, constants)

    together = Stacked(synthetic.alike, universes.run_stack)
    return [
        Part(f"universes_{name.replace('-', '_')}.csv", cells(name), universes.run, together)
        for name in universes.NEAREST
    ]


UNIVERSES = Study("universes", _parts)
