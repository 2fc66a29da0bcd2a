"""Read the small model and the imaginary person of the census chapter."""

from __future__ import annotations

import json
from typing import Any

from companion.checkout import DATA


def read_census_person() -> dict[str, Any]:
    """What `python -m companion.study.census_person` has written: origin, person, changes, and the model over them.

    Raises:
        FileNotFoundError: If the repository's data/ is not there, or holds no such file.
    """
    path = DATA / "results" / "census_person.json"
    if not path.exists():
        raise FileNotFoundError(
            "there is no data/results/census_person.json, expected it in the repository: clone the whole of it"
        )
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
