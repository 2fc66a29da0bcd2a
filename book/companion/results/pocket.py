"""Read the runs of the pocket universe."""

from __future__ import annotations

from typing import Any

from companion.results.reading import read_document


def read_pocket() -> dict[str, Any]:
    """What `python -m companion.study.pocket` has written: origin, settings, and every run's losses over the steps.

    Raises:
        FileNotFoundError: If the repository's data/ is not there, or holds no such file.
    """
    return read_document("pocket")


def pocket_learned(document: dict[str, Any], below: float) -> dict[str, int]:
    """How many runs of each model have learned both labels: those whose last loss is below `below`."""
    return {
        name: sum(run[-1] < below for run in model["losses"]) for name, model in document["models"].items()
    }
