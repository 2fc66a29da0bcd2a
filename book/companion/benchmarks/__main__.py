"""Command line: python -m companion.benchmarks serving --rounds 5."""

from __future__ import annotations

import argparse
import sys

from companion.benchmarks import extensions, gpu, ranking, serving, streaming, training
from companion.benchmarks.measure import add_arguments, run_benchmark

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        training.SYNTHETIC,
        training.CENSUS,
        extensions.BENCHMARK,
        ranking.BENCHMARK,
        serving.BENCHMARK,
        streaming.BENCHMARK,
        gpu.BENCHMARK,
    )
}
"""By the name that the command line knows."""


def main(arguments: list[str] | None = None) -> int:
    """Measure one of the benchmarks on this machine and print its table."""
    parser = argparse.ArgumentParser(prog="python -m companion.benchmarks", description=main.__doc__)
    names = parser.add_subparsers(dest="benchmark", required=True)
    for benchmark in BENCHMARKS.values():
        own = names.add_parser(benchmark.name, help=benchmark.question, description=benchmark.question)
        add_arguments(own, benchmark)
    options = parser.parse_args(arguments)
    return run_benchmark(BENCHMARKS[options.benchmark], options)


if __name__ == "__main__":
    sys.exit(main())
