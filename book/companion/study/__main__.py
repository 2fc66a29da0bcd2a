"""Command line: python -m companion.study synthetic --preset laptop --workers 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from companion.checkout import ROOT
from companion.study import (
    census,
    kuairand,
    kuairand_references,
    label_correlation,
    off_policy,
    references,
    synthetic,
    tuning,
    universes,
)
from companion.study.cells import Cell, Stacks, read_rows, run_cells, waiting_cells
from companion.study.extensions import census as extension_census
from companion.study.extensions import gates, gradients, rare_labels, units
from companion.study.origin import Origin
from companion.study.presets import PRESETS, Preset, preset
from companion.study.workers import WorkerDiedError
from mmoe_lib.training.devices import DeviceMemoryError, checked_device


def main(arguments: list[str] | None = None) -> int:
    """Run a study; rows go to data/results/, and what is there already is not run again."""
    parser = argparse.ArgumentParser(prog="python -m companion.study", description=main.__doc__)
    parser.add_argument("study", choices=["synthetic", "universes", "census", "kuairand", "extensions"])
    parser.add_argument(
        "--preset", default="laptop", help=f"how much: {', '.join(PRESETS)} (default: laptop)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default)")
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that train side by side (default: one a core, on a GPU 1)",
    )
    parser.add_argument(
        "--chunk", type=int, help="runs trained at once (default: the preset's, on a GPU as many as fill it)"
    )
    parser.add_argument(
        "--results", type=Path, default=ROOT / "data" / "results", help="folder of the CSV files"
    )
    look = parser.add_mutually_exclusive_group()
    look.add_argument("--list", action="store_true", help="print the cells and stop")
    look.add_argument("--status", action="store_true", help="print how many runs are there and stop")
    options = parser.parse_args(arguments)
    # Kernels are compiled in the process: workers of torch's own take longer to start than to compile these few.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    try:
        chosen, device = preset(options.preset), checked_device(options.device)
        if options.chunk is not None and options.chunk < 1:
            raise ValueError(
                f"chunk is {options.chunk}, expected 1 or more: the runs that are trained at once"
            )
        if device.type == "cuda":  # one chunk of all runs: a GPU is idle with twenty of them
            chosen = replace(chosen, census_chunk=chosen.census_seeds, kuairand_chunk=chosen.kuairand_seeds)
        if options.chunk is not None:
            most = options.chunk
            chosen = replace(
                chosen,
                synthetic_chunk=min(most, chosen.synthetic_chunk),
                census_chunk=most,
                kuairand_chunk=most,
            )
        if options.list or options.status:
            _look(options.study, chosen, options.results, every_cell=options.list)
        elif options.study == "census":
            _census(chosen, device, options.results, _number_of_workers(options.workers, device))
        elif options.study == "extensions":
            _extensions(chosen, device, options.results, _number_of_workers(options.workers, device))
        elif options.study == "kuairand":
            _kuairand(chosen, device, options.results, _number_of_workers(options.workers, device))
        else:
            workers = _number_of_workers(options.workers, device)
            most = options.chunk or MOST_RUNS
            _synthetic(options.study, chosen, device, options.results, workers, most)
    except (ValueError, OSError, ArithmeticError, WorkerDiedError, DeviceMemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _number_of_workers(asked: int | None, device: torch.device) -> int:
    if asked is not None and asked < 1:
        raise ValueError(f"workers is {asked}, expected 1 or more")
    return asked or (1 if device.type == "cuda" else os.cpu_count() or 1)


MOST_RUNS = 2_000
"""Runs of a stack on a GPU: twice as many as fill an H100."""

Run = Callable[..., pd.DataFrame]
"""Called as run(cell, device=device)."""


def _synthetic_parts(chosen: Preset, folder: Path) -> Iterator[tuple[Path, list[Cell], Run]]:
    """The files of the study, each with its cells; the next part is asked for when the last one has its rows."""
    tuning = folder / "synthetic_tuning.csv"
    cells = synthetic.tuning_cells(chosen)
    yield tuning, cells, synthetic.run
    rows = read_rows(tuning)
    if waiting_cells(cells, rows, chosen.name):
        return
    rates = synthetic.chosen_rates(rows[rows["preset"] == chosen.name])
    yield folder / "synthetic.csv", synthetic.reported_cells(chosen, rates), synthetic.run
    yield folder / "synthetic_parts.csv", synthetic.part_cells(chosen, rates), synthetic.run_parts
    yield (
        folder / "synthetic_labels.csv",
        label_correlation.label_cells(chosen),
        label_correlation.run_labels,
    )
    yield folder / "synthetic_choices.csv", synthetic.choice_cells(chosen, rates), synthetic.run
    yield folder / "synthetic_slide.csv", synthetic.slide_cells(chosen), synthetic.run


def _universe_parts(chosen: Preset, folder: Path) -> Iterator[tuple[Path, list[Cell], Run]]:
    for constants in universes.NEAREST:
        path = folder / f"universes_{constants.replace('-', '_')}.csv"
        yield path, universes.nearest_cells(chosen, constants), universes.run


def _census_parts(
    chosen: Preset, folder: Path, source: census.CensusSource
) -> Iterator[tuple[Path, list[Cell], Run]]:
    """The files of the study that follow tuning, the longest last; none before tuning has ended."""
    trials = read_rows(folder / "census_tuning.csv")
    if tuning.waiting_pairs(trials, chosen):
        return
    best = tuning.best_settings(trials[trials["preset"] == chosen.name])
    run = partial(census.run, source=source)
    yield folder / "census_choices.csv", census.choice_cells(chosen, best), partial(run, gates=False)
    yield folder / "census_tucker.csv", census.tucker_cells(chosen, best), partial(run, gates=False)
    yield (
        folder / "census_references.csv",
        references.reference_cells(),
        partial(references.run_reference, source=source),
    )
    yield folder / "census.csv", census.reported_cells(chosen, best), run


def _kuairand_parts(
    chosen: Preset, folder: Path, source: kuairand.RankingSource
) -> Iterator[tuple[Path, list[Cell], Run]]:
    """The files of the study, each with its cells; the next part is asked for when the last one has its rows."""
    path = folder / "kuairand_tuning.csv"
    cells = kuairand.tuning_cells(chosen)
    yield path, cells, partial(kuairand.run_tuning, source=source)
    rows = read_rows(path)
    if waiting_cells(cells, rows, chosen.name):
        return
    best = kuairand.chosen_settings(rows[rows["preset"] == chosen.name])
    run = partial(kuairand.run, source=source)
    yield folder / "kuairand_gates.csv", kuairand.gate_cells(chosen, best), run
    yield (
        folder / "kuairand_references.csv",
        kuairand_references.reference_cells(),
        partial(kuairand_references.run_reference, source=source),
    )
    if source.tables().random is not None:
        yield (
            folder / "kuairand_off_policy.csv",
            off_policy.off_policy_cells(chosen, best),
            partial(off_policy.run_off_policy, source=source),
        )
    yield folder / "kuairand.csv", kuairand.reported_cells(chosen, best), run


def _extension_parts(
    chosen: Preset, folder: Path, sources: rare_labels.Sources
) -> Iterator[tuple[Path, list[Cell], Run, str]]:
    """The files of the study, each with its cells and what it is run on; as above, a part may wait for an earlier one."""
    synthetic_tuning, census_tuning = (
        folder / f"extensions_{name}_tuning.csv" for name in ("gates", "census")
    )
    yield synthetic_tuning, gates.tuning_cells(chosen), gates.run, "synthetic"
    rows = read_rows(synthetic_tuning)
    if not waiting_cells(gates.tuning_cells(chosen), rows, chosen.name):
        rates = gates.chosen_rates(rows[rows["preset"] == chosen.name])
        yield folder / "extensions_gates.csv", gates.reported_cells(chosen, rates), gates.run, "synthetic"
        yield folder / "extensions_units.csv", units.reported_cells(chosen, rates), units.run, "synthetic"
    run_census = partial(extension_census.run, source=sources.census)
    yield census_tuning, extension_census.tuning_cells(chosen), run_census, "census"
    rows = read_rows(census_tuning)
    if not waiting_cells(extension_census.tuning_cells(chosen), rows, chosen.name):
        rates = extension_census.chosen_rates(rows[rows["preset"] == chosen.name])
        cells = extension_census.reported_cells(chosen, rates)
        yield folder / "extensions_census.csv", cells, run_census, "census"
    yield folder / "extensions_layers.csv", gates.layer_cells(chosen), gates.run, "synthetic"
    yield folder / "extensions_tasks.csv", gates.task_cells(chosen), gates.run, "synthetic"
    run_rare = partial(rare_labels.run, sources=sources)
    for data_set in rare_labels.RARE_TASK:
        path = folder / f"rare_labels_{data_set}_tuning.csv"
        cells = rare_labels.tuning_cells(chosen, data_set)
        yield path, cells, run_rare, data_set
        rows = read_rows(path)
        if waiting_cells(cells, rows, chosen.name):
            continue
        by_share = rare_labels.chosen(rows[rows["preset"] == chosen.name], data_set, "learning_rate")
        cells = rare_labels.weight_cells(chosen, data_set, by_share)
        yield path, cells, run_rare, data_set
        rows = read_rows(path)
        if waiting_cells(cells, rows, chosen.name):
            continue
        weights = rare_labels.chosen(rows[rows["preset"] == chosen.name], data_set, "weight")
        cells = rare_labels.reported_cells(chosen, data_set, by_share, weights)
        yield folder / f"rare_labels_{data_set}.csv", cells, run_rare, data_set
        cells = rare_labels.large_weight_cells(chosen, data_set, by_share)
        yield folder / f"rare_labels_{data_set}_weights.csv", cells, run_rare, data_set
        cells = gradients.watched_cells(chosen, data_set, by_share)
        path, run_watched = (
            folder / f"rare_labels_{data_set}_gradients.csv",
            partial(gradients.run, sources=sources),
        )
        yield path, cells, run_watched, data_set


def _look(study: str, chosen: Preset, folder: Path, *, every_cell: bool) -> None:
    if study == "census":
        trials = read_rows(folder / "census_tuning.csv")
        waiting_pairs = tuning.waiting_pairs(trials, chosen)
        done = len(tuning.PAIRS) - len(waiting_pairs)
        print(f"census_tuning.csv: {done} of {len(tuning.PAIRS)} methods tuned, preset {chosen.name}")
        parts = list(_census_parts(chosen, folder, _census_source(chosen)))
    elif study == "kuairand":
        parts = list(_kuairand_parts(chosen, folder, kuairand.RankingSource(chosen.kuairand_users)))
    elif study == "extensions":
        parts = [part[:3] for part in _extension_parts(chosen, folder, _sources(chosen))]
    elif study == "universes":
        parts = list(_universe_parts(chosen, folder))
    else:
        parts = list(_synthetic_parts(chosen, folder))
    for path, cells, _ in parts:
        waiting = waiting_cells(cells, read_rows(path), chosen.name)
        runs, left = (sum(len(cell.seeds) for cell in some) for some in (cells, waiting))
        print(f"{path.name}: {runs - left} of {runs} runs, preset {chosen.name}")
        for cell in cells if every_cell else ():
            seeds = f"seeds {cell.seeds[0]} to {cell.seeds[-1]}"
            state = "waits" if cell in waiting else "done"
            print(f"  {state:5}  {cell.model}, {cell.setting}, learning rate {cell.learning_rate:g}, {seeds}")
    if len(parts) <= 1 and study != "universes":
        print("the other files are listed when tuning has chosen the settings")


_STACKED: dict[Run, Callable[..., list[pd.DataFrame]]] = {
    synthetic.run: synthetic.run_stack,
    synthetic.run_parts: synthetic.run_parts_of_stack,
    universes.run: universes.run_stack,
}
"""What runs several cells of a part together."""


def _synthetic(
    study: str, chosen: Preset, device: torch.device, folder: Path, workers: int, most_runs: int
) -> None:
    command = f"python -m companion.study {study} --preset {chosen.name}"
    origin = Origin.now(command, chosen.name, device, "synthetic")
    # One thread here as in the workers: the order of sums, and so the table, must not depend on their number.
    torch.set_num_threads(1)
    parts = _universe_parts(chosen, folder) if study == "universes" else _synthetic_parts(chosen, folder)
    for path, cells, run in parts:
        together = _STACKED.get(run) if device.type == "cuda" else None
        stacks = together and Stacks(synthetic.alike, partial(together, device=device), most_runs)
        rows = run_cells(cells, partial(run, device=device), path, origin, workers=workers, stacks=stacks)
        print(f"{path.name}: {len(rows)} runs")


def _census_source(chosen: Preset) -> census.CensusSource:
    return census.CensusSource(chosen.census_train_rows, chosen.census_test_rows)


def _census(chosen: Preset, device: torch.device, folder: Path, workers: int) -> None:
    source = _census_source(chosen)
    command = f"python -m companion.study census --preset {chosen.name}"
    origin = Origin.now(command, chosen.name, device, source.sums())
    torch.set_num_threads(1)
    path, storage = folder / "census_tuning.csv", tuning.storage_of(chosen, folder)
    trials = tuning.tune_all(chosen, source, path, storage, origin, device=str(device), workers=workers)
    print(f"{path.name}: {len(trials)} trials")
    for path, cells, run in _census_parts(chosen, folder, source):
        here = run if path.stem == "census_references" else partial(run, device=device)
        rows = run_cells(cells, here, path, origin, workers=workers)
        print(f"{path.name}: {len(rows)} runs")


def _kuairand(chosen: Preset, device: torch.device, folder: Path, workers: int) -> None:
    source = kuairand.RankingSource(chosen.kuairand_users)
    command = f"python -m companion.study kuairand --preset {chosen.name}"
    origin = Origin.now(command, chosen.name, device, source.sums())
    torch.set_num_threads(1)
    for path, cells, run in _kuairand_parts(chosen, folder, source):
        here = run if path.stem == "kuairand_references" else partial(run, device=device)
        rows = run_cells(cells, here, path, origin, workers=workers)
        print(f"{path.name}: {len(rows)} runs")


def _sources(chosen: Preset) -> rare_labels.Sources:
    return rare_labels.Sources(_census_source(chosen), kuairand.RankingSource(chosen.kuairand_users))


def _extensions(chosen: Preset, device: torch.device, folder: Path, workers: int) -> None:
    sources = _sources(chosen)
    command = f"python -m companion.study extensions --preset {chosen.name}"
    torch.set_num_threads(1)
    for path, cells, run, data_set in _extension_parts(chosen, folder, sources):
        data = "synthetic" if data_set == "synthetic" else sources.sums(data_set)
        origin = Origin.now(command, chosen.name, device, data)
        rows = run_cells(cells, partial(run, device=device), path, origin, workers=workers)
        print(f"{path.name}: {len(rows)} runs")


if __name__ == "__main__":
    sys.exit(main())
