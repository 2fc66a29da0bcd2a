"""Read the small model and the imaginary person of the census chapter."""

from __future__ import annotations

from typing import Any

from companion.results.reading import read_document


def read_census_person() -> dict[str, Any]:
    """What `python -m companion.study.census_person` has written: origin, person, changes, and the model over them.

    Raises:
        FileNotFoundError: If the repository's data/ is not there, or holds no such file.
    """
    return read_document("census_person")
