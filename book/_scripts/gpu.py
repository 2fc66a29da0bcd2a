"""`make gpu`: all that wants a GPU, in the minutes that one has it: tests, the benchmark, studies, chapters.

Runs with the Python whose torch sees the GPU, which need not be `.venv`'s, and downloads nothing. Begun again it goes
on: parts that ended well at this commit are left out, and a study skips the rows that are there.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from _scripts.layout import ROOT

CHAPTERS = ("01_baseline", "03_synthetic", "06_extensions")
NEEDED = ("torch", "numpy", "pandas", "scipy", "tqdm")
COLUMNS = ("part", "outcome", "seconds", "last_line", "device", "torch_version", "commit")
EXECUTED = ROOT / "_build" / "gpu"
LEAST_SECONDS = 30.0
"""With less time left no part is begun."""


@dataclass(frozen=True)
class Part:
    """One of the things that `make gpu` runs.

    Attributes:
        name: Stands in the report.
        command: Arguments of the Python.
        needs: Modules that it imports beside those of the library.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()


def parts(folder: Path, minutes: float) -> list[Part]:
    """All parts, the most wanted first.

    Args:
        folder: Where the rows go, `data/results` or another.
        minutes: That the benchmark may take.
    """
    rows = folder / "gpu"
    study = ("-m", "companion.study")
    to = ("--device", "cuda", "--results", str(rows))
    return [
        Part(
            "tests marked gpu",
            ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"),
            ("pytest",),
        ),
        Part(
            "benchmark",
            (
                "-m",
                "companion.benchmarks",
                "gpu",
                "--minutes",
                f"{minutes:g}",
                "--csv",
                str(folder / "benchmark_gpu.csv"),
            ),
        ),
        *(
            Part(
                f"{name}, paper",
                (*study, name, "--preset", "paper", "--device", "cuda", "--results", str(folder)),
            )
            for name in ("nearest", "universes")
        ),
        Part("synthetic, paper", (*study, "synthetic", "--preset", "paper", *to)),
        *[
            Part(
                f"chapter {name}, laptop",
                (
                    *("-m", "papermill", "--no-progress-bar", "-k", "python3", "--cwd", "book"),
                    *("-p", "preset", "laptop", "-p", "device", "cuda"),
                    *(f"book/{name}.ipynb", str(EXECUTED / f"{name}.ipynb")),
                ),
                ("papermill", "ipykernel", "matplotlib", "seaborn"),
            )
            for name in CHAPTERS
        ],
    ]


Run = Callable[[Sequence[str], float], tuple[str, str]]
"""Arguments of the Python and seconds at most, to "done", "failed" or "time over", and the last line that was said."""


def run_python(command: Sequence[str], seconds: float) -> tuple[str, str]:
    """Run this Python with these arguments from the checkout's root."""
    # Wheels that were carried along and nothing else: the packages lie in the checkout.
    paths = [str(ROOT), str(ROOT / "book"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "time over", f"stopped after {seconds:.0f} s"
    print(done.stdout, flush=True)
    lines = done.stdout.strip().splitlines()
    return "done" if done.returncode == 0 else "failed", lines[-1] if lines else ""


def missing(modules: Sequence[str]) -> list[str]:
    """Those that cannot be imported here."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def run_parts(
    wanted: Sequence[Part], report: Path, where: Mapping[str, str], seconds: float, run: Run = run_python
) -> bool:
    """Run the parts that have not ended well at this commit, in turn, until the time is over.

    Args:
        wanted: The parts.
        report: A CSV file with a row for each part, written anew when one has ended.
        where: device, torch_version and commit, columns of every row.
        seconds: For all of them.
        run: Runs one.

    Returns:
        Whether all have ended well.
    """
    start, rows = time.monotonic(), read_report(report)
    for part in wanted:
        before = rows.get(part.name, {})
        if before.get("outcome") == "done" and all(before[name] == value for name, value in where.items()):
            print(f"{part.name}: done before", flush=True)
            continue
        began, left = time.monotonic(), seconds - (time.monotonic() - start)
        lacks = missing(part.needs)
        if lacks:
            outcome, line = "not run", f"needs {' '.join(lacks)}: pip install {' '.join(lacks)}"
        elif left < LEAST_SECONDS:
            outcome, line = "not run", "no time was left: run `make gpu` again"
        else:
            print(f"{part.name} ...", flush=True)
            outcome, line = run(part.command, left)
        took = f"{time.monotonic() - began:.0f}"
        said = " ".join(line.split()).replace(",", ";").replace('"', "'")[-200:]
        rows[part.name] = {"part": part.name, "outcome": outcome, "seconds": took, "last_line": said, **where}
        write_report(report, rows)
        print(f"{part.name}: {outcome}, {took} s. {line}", flush=True)
    return all(rows[part.name]["outcome"] == "done" for part in wanted)


def read_report(path: Path) -> dict[str, dict[str, str]]:
    """The rows by part; none where there is no report."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["part"]: row for row in csv.DictReader(file)}


def write_report(path: Path, rows: Mapping[str, Mapping[str, str]]) -> None:
    """Write the report anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what wants a GPU; the report is data/results/gpu_report.csv."""
    parser = argparse.ArgumentParser(prog="python -m _scripts.gpu", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="for everything (default 30)")
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results", help="where the rows go")
    options = parser.parse_args(arguments)
    if options.minutes <= 0:
        return _fail(f"minutes is {options.minutes:g}, expected more than 0")
    lacks = missing(NEEDED)
    if lacks:
        return _fail(
            f"{sys.executable} lacks {', '.join(lacks)}: pip install {' '.join(lacks)}, or make gpu PYTHON=..."
        )
    import torch

    if not torch.cuda.is_available():
        return _fail(
            f"torch {torch.__version__} of {sys.executable} sees no GPU, expected one: make gpu PYTHON=/path/to/python"
        )
    sys.path[:0] = [str(ROOT), str(ROOT / "book")]
    from companion.study.origin import Origin

    origin = Origin.now("make gpu", "-", torch.device("cuda"), "synthetic")
    where = {"device": origin.device, "torch_version": origin.torch_version, "commit": origin.commit}
    print(f"{where['device']}, torch {where['torch_version']}, {options.minutes:g} minutes", flush=True)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    wanted = parts(options.results, options.minutes / 3)
    whole = run_parts(wanted, options.results / "gpu_report.csv", where, 60 * options.minutes)
    return 0 if whole else 1


def _fail(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
