"""Command line: python -m mmoe_lib.study census --preset laptop."""

from __future__ import annotations

import argparse
import sys
from functools import lru_cache
from pathlib import Path

import pandas as pd

from mmoe_lib.presets import PRESETS, preset
from mmoe_lib.study import census
from mmoe_lib.study.cells import Cell, run_cells
from mmoe_lib.study.origin import ROOT, Origin
from mmoe_lib.tasks.census import CensusData, encode, load
from mmoe_lib.training.ensemble import checked_device


def main(arguments: list[str] | None = None) -> int:
    """Run a study; rows go to data/results/, and what is there already is not run again."""
    parser = argparse.ArgumentParser(prog="python -m mmoe_lib.study", description=main.__doc__)
    parser.add_argument("study", choices=["census"])
    parser.add_argument(
        "--preset", default="laptop", help=f"how much: {', '.join(PRESETS)} (default: laptop)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default)")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "data" / "results", help="folder of the CSV files"
    )
    options = parser.parse_args(arguments)
    try:
        _census(options.preset, options.device, options.results)
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _census(preset_name: str, device_name: str, folder: Path) -> None:
    chosen, device = preset(preset_name), checked_device(device_name)
    tables = load(train_rows=chosen.census_train_rows, test_rows=chosen.census_test_rows)

    @lru_cache(maxsize=1)
    def data_of(group: str) -> CensusData:
        return encode(tables, group)

    def run(cell: Cell) -> pd.DataFrame:
        return census.run(cell, data_of(cell.setting), chosen, device)

    sums = "+".join(value[:12] for _, value in sorted(tables.sha256.items()))
    command = f"python -m mmoe_lib.study census --preset {chosen.name}"
    origin = Origin.now(command, chosen.name, device, sums)
    path = folder / "census_first.csv"
    rows = run_cells(census.cells(chosen), run, path, origin)
    print(f"{path.name}: {len(rows)} runs")


if __name__ == "__main__":
    sys.exit(main())
