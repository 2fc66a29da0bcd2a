"""Command line: python -m companion.study synthetic --preset laptop --workers 2."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from companion.checkout import ROOT
from companion.study.cells import CellsFailedError, Shard
from companion.study.executors import Executor, Local
from companion.study.merging import merge
from companion.study.on_ray import ray_cluster
from companion.study.plan import MOST_RUNS, Plan, run_again, run_study, show_state
from companion.study.plans import STUDIES
from companion.study.presets import PRESETS, Preset, preset
from mmoe_lib.training.devices import DeviceMemoryError, checked_device


def main(arguments: list[str] | None = None) -> int:
    """Run a study; rows go to data/results/, and what is there already is not run again."""
    options = _parser().parse_args(arguments)
    # Kernels are compiled in the process: workers of torch's own take longer to start than to compile these few.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("stopped: the rows of all cells that ended are kept, the same command goes on", file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError, DeviceMemoryError, CellsFailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m companion.study", description=main.__doc__)
    parser.add_argument(
        "study",
        choices=[*STUDIES, "merge"],
        help="a study, or merge: add the rows of some folders to those of --results",
    )
    parser.add_argument("folders", type=Path, nargs="*", help="what is merged")
    parser.add_argument(
        "--preset", default="laptop", help=f"how much: {', '.join(PRESETS)} (default: laptop)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, or auto (default): a GPU where there is one, but the CPU for the smoke preset",
    )
    parser.add_argument(
        "--executor",
        choices=["local", "ray"],
        default="local",
        help="who runs cells: this machine's processes (default), or Ray",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="with --executor ray: the head of a running cluster that this machine is part of, or auto "
        "(default: one is started here for the time of the study)",
    )
    parser.add_argument(
        "--gpus-per-cell",
        type=float,
        default=0.0,
        metavar="N",
        help="with --executor ray: GPUs that a cell trains on, or a fraction of one (default: 0, on CPUs)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that train side by side (default: one a core, on a GPU 1)",
    )
    parser.add_argument(
        "--chunk", type=int, help="runs trained at once (default: the preset's, on a GPU as many as fill it)"
    )
    parser.add_argument(
        "--results", type=Path, help="folder of the CSV files (default: data/results of the checkout)"
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="run the I-th of N parts of what waits; start all from the same rows"
    )
    parser.add_argument("--compare", action="store_true", help="with --cell: print both rows, write nothing")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--cell", metavar="KEY", help="run one cell again, by its line of --list")
    one.add_argument("--list", action="store_true", help="print the cells and stop")
    one.add_argument("--status", action="store_true", help="print how many runs are there and stop")
    return parser


def _run(options: argparse.Namespace) -> int:
    folder = options.results or _default_folder()
    if options.study == "merge":
        if not options.folders:
            raise ValueError(
                "merge has no folders, expected some behind it: those whose rows are to be added"
            )
        for name, rows in merge(STUDIES, options.folders, folder).items():
            print(f"{name}: {rows} rows")
        print(f"rows are in {folder.resolve()}")
        return 0
    if options.folders:
        raise ValueError(
            f"{options.folders[0]} follows {options.study}, expected nothing: only merge has folders"
        )
    if options.compare and options.cell is None:
        raise ValueError("--compare is asked for without --cell, expected both: name the cell to compare")
    device = _device(options)
    if device.type == "meta":
        raise ValueError("device is 'meta', expected cpu, cuda or auto: nothing is computed there")
    plan = Plan(STUDIES[options.study], _sized(preset(options.preset), device, options.chunk), folder)
    if options.list or options.status:
        show_state(plan, every_cell=options.list)
        return 0
    workers = _number_of_workers(options.workers, device)
    shard = Shard.read(options.shard) if options.shard else None
    if options.cell is not None:
        run_again(plan, options.cell, device, compare=options.compare)
        return 0
    with ExitStack() as stack:
        executor: Executor = Local(workers)
        if options.executor == "ray":
            asked = ray_cluster(options.address, workers=workers, gpus_per_cell=options.gpus_per_cell)
            executor = stack.enter_context(asked)
        print(f"rows go to {folder.resolve()}")
        done = run_study(plan, device, executor=executor, most_runs=options.chunk or MOST_RUNS, shard=shard)
    return 0 if done else 1


def _device(options: argparse.Namespace) -> torch.device:
    """Where cells train; on a cluster a GPU that this machine need not have."""
    if options.executor == "ray":
        if options.cell is not None:
            raise ValueError(
                "--cell is asked for with --executor ray, expected one: a single cell is run again here"
            )
        if options.address is not None and options.workers is not None:
            raise ValueError(
                "--workers is asked for with --address, expected one: a cluster has its own CPUs"
            )
        if options.device not in ("auto", "cuda" if options.gpus_per_cell else "cpu"):
            raise ValueError(
                f"device is {options.device!r} with {options.gpus_per_cell:g} GPUs per cell, expected that to fit: on "
                "a cluster --gpus-per-cell says where cells train"
            )
        return torch.device("cuda" if options.gpus_per_cell else "cpu")
    if options.address is not None or options.gpus_per_cell:
        raise ValueError("--address or --gpus-per-cell is asked for, expected --executor ray with it")
    # A GPU's start alone takes as long as a part of the smoke preset on a CPU.
    return checked_device("cpu" if (options.device, options.preset) == ("auto", "smoke") else options.device)


def _default_folder() -> Path:
    """The checkout's own; an installed copy has none to write into."""
    if not (ROOT / "pyproject.toml").is_file():
        raise ValueError(
            f"{ROOT} is no checkout of the book, so there is no folder for results, expected one: name it with "
            "--results"
        )
    return ROOT / "data" / "results"


def _sized(chosen: Preset, device: torch.device, chunk: int | None) -> Preset:
    """The preset with as many runs at once as the device takes, or as were asked for."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected 1 or more: the runs that are trained at once")
    if device.type == "cuda":  # one chunk of all runs: a GPU is idle with twenty of them
        chosen = replace(chosen, census_chunk=chosen.census_seeds, kuairand_chunk=chosen.kuairand_seeds)
    if chunk is None:
        return chosen
    return replace(
        chosen,
        synthetic_chunk=min(chunk, chosen.synthetic_chunk),
        census_chunk=chunk,
        kuairand_chunk=chunk,
    )


def _number_of_workers(asked: int | None, device: torch.device) -> int:
    if asked is not None and asked < 1:
        raise ValueError(f"workers is {asked}, expected 1 or more")
    return asked or (1 if device.type == "cuda" else os.cpu_count() or 1)


if __name__ == "__main__":
    sys.exit(main())
