"""Programs that rows were made with: a stored row keeps the command it was made with, also when the program has moved."""

from __future__ import annotations

import shlex

MOVED = {
    "mmoe_lib.study": ("companion.study",),
    "mmoe_lib.study.census_person": ("companion.study.census_person",),
    "mmoe_lib.benchmark": ("companion.benchmarks", "training"),
    "mmoe_lib.benchmark census": ("companion.benchmarks", "census"),
    "mmoe_lib.extension_benchmark": ("companion.benchmarks", "extensions"),
    "mmoe_lib.ranking_benchmark": ("companion.benchmarks", "ranking"),
    "mmoe_lib.serving_benchmark": ("companion.benchmarks", "serving"),
    "mmoe_lib.streaming_benchmark": ("companion.benchmarks", "streaming"),
    "mmoe_lib.gpu_benchmark": ("companion.benchmarks", "gpu"),
}
"""Earlier names, with a first argument where it decided, and what to type now: a module and its first arguments."""


def program(command: str) -> tuple[str, list[str]]:
    """The module that runs a stored command today, and its arguments.

    Args:
        command: Such as "python -m mmoe_lib.study census --preset paper".

    Raises:
        ValueError: If it is not of this form.
    """
    match shlex.split(command):
        case ["python", "-m", module, *arguments]:
            pass
        case _:
            raise ValueError(f"the command is {command!r}, expected `python -m` and a module")
    with_first = f"{module} {arguments[0]}" if arguments else module
    if with_first in MOVED:
        module, arguments = with_first, arguments[1:]
    name, *first = MOVED.get(module, (module,))
    return name, [*first, *arguments]
