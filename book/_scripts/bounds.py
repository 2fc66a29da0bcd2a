"""The declared lower bounds as exact versions, so that a job can install them: `python -m _scripts.bounds > oldest.txt`.

Runs before the project is installed, with the standard library alone; Python 3.10 needs `tomli` beside it.
"""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BOUND = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[\w,-]+\])?>=([\d.]+)(?:,<[\d.]+)?")


def oldest(project: dict[str, Any]) -> list[str]:
    """Turn each requirement `name>=version` of the project and its extras into `name==version`.

    Args:
        project: the table `project` of pyproject.toml.

    Returns:
        Lines of a constraints file, sorted, each name once.

    Raises:
        ValueError: a requirement without a lower bound, or one name with two bounds.
    """
    bounds: dict[str, str] = {}
    extras = project.get("optional-dependencies", {}).values()
    for line in (*project["dependencies"], *(line for extra in extras for line in extra)):
        if line.startswith(f"{project['name']}["):
            continue  # an extra that takes in others
        found = BOUND.fullmatch(line)
        if found is None:
            raise ValueError(
                f"the requirement {line!r} has no lower bound, expected name>=version: write one into pyproject.toml"
            )
        name, version = found.groups()
        if bounds.setdefault(name, version) != version:
            raise ValueError(
                f"{name} has the bounds {bounds[name]} and {version}, expected one: change pyproject.toml"
            )
    return sorted(f"{name}=={version}" for name, version in bounds.items())


if __name__ == "__main__":
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    with (ROOT / "pyproject.toml").open("rb") as file:
        sys.stdout.write("\n".join(oldest(toml.load(file)["project"])) + "\n")
