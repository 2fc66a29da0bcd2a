"""Read the runs of the pocket universe."""

from __future__ import annotations

import json
from typing import Any

from companion.checkout import DATA


def read_pocket() -> dict[str, Any]:
    """What `python -m companion.study.pocket` has written: origin, settings, and every run's losses over the steps.

    Raises:
        FileNotFoundError: If the repository's data/ is not there, or holds no such file.
    """
    path = DATA / "results" / "pocket.json"
    if not path.exists():
        raise FileNotFoundError(
            "there is no data/results/pocket.json, expected it in the repository: clone the whole of it"
        )
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def pocket_learned(document: dict[str, Any], below: float) -> dict[str, int]:
    """How many runs of each model have learned both labels: those whose last loss is below `below`."""
    return {
        name: sum(run[-1] < below for run in model["losses"]) for name, model in document["models"].items()
    }
