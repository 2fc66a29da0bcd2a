"""Requirements stand in one place, the library imports little, and no import points back."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from _scripts import set_up as set_up_script
from _scripts.layout import ROOT
from packaging.requirements import Requirement

LIBRARY = ROOT / "mmoe_lib"

# A module may import those of its own line and of the lines above it.
LAYERS = (
    ("seeds", "progress", "files", "metrics", "policies", "presets"),  # helpers that know nothing of the book
    ("tasks",),
    ("models",),
    ("export",),
    ("training",),
    ("frames",),
    ("study",),
    ("benchmark", "streaming_benchmark", "serving_benchmark", "ranking_benchmark", "extension_benchmark"),
    ("results",),
    ("claims",),
    ("figures",),
)
# Tasks know no model: these pairs are forbidden although the order of lines would allow them.
FORBIDDEN = {("models", "tasks"), ("results", "models"), ("results", "training"), ("results", "study")}
HEAVY = (
    "matplotlib",
    "seaborn",
    "papermill",
    "sphinx",
    "jupyter_book",
    "sklearn",
    "optuna",
    "nbformat",
    "IPython",
)
SECONDS = 3.0


def pyproject() -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        tomllib = import_module("tomli")  # comes with pytest and mypy there
    with (ROOT / "pyproject.toml").open("rb") as file:
        content: dict[str, Any] = tomllib.load(file)
    return content


def requirements() -> dict[str, Requirement]:
    """Every requirement of the project and of its extras but the project itself."""
    project = pyproject()["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    parsed = [Requirement(line) for line in lines]
    return {line.name.lower(): line for line in parsed if line.name != project["name"]}


def exact_versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in pairs}


def test_conda_environment_takes_its_versions_from_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    project = pyproject()["project"]
    assert environment["channels"] == ["conda-forge"]
    python, pip, through_pip = environment["dependencies"]
    assert python == f"python {project['requires-python']}"
    assert pip == "pip"
    (editable,) = through_pip["pip"]
    assert editable.startswith("-e .[")
    assert set(editable.removeprefix("-e .[").rstrip("]").split(",")) == {"book", "test"}
    assert {"book", "test"} <= set(project["optional-dependencies"])


def test_library_asks_for_lower_bounds_only() -> None:
    for line in pyproject()["project"]["dependencies"]:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+>=[\d.]+", line), line


def test_exact_versions_satisfy_every_requirement() -> None:
    exact = exact_versions()
    for name, requirement in requirements().items():
        assert name.replace("_", "-") in exact, f"{name} is missing in constraints.txt"
        assert requirement.specifier.contains(exact[name.replace("_", "-")]), requirement


def test_torch_has_one_exact_version_without_a_local_label() -> None:
    assert exact_versions()["torch"] == "2.13.0"
    assert "+" not in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_extras_that_make_installs_hold_all_others() -> None:
    extras = pyproject()["project"]["optional-dependencies"]
    assert "mmoe_lib[book,study]" in extras[set_up_script.EXTRAS]
    assert "mmoe_lib[figures]" in extras["book"]


def test_library_imports_little_and_fast() -> None:
    """All of the library but the room that draws; torch alone takes seconds, so it is loaded before.

    Seconds of this process, not of the clock: other tests run at the same time.
    """
    names = [module.removesuffix(".__init__") for module, _ in modules() if room(module) != "figures"]
    code = f"""
import json, sys, time
import torch
start = time.process_time()
names = {names!r}
for name in names:
    __import__(name)
seconds = time.process_time() - start
print(json.dumps([names, [name for name in {HEAVY!r} if name in sys.modules], seconds]))
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, heavy, seconds = json.loads(done.stdout)
    assert len(imported) > 5
    assert heavy == []
    assert seconds < SECONDS


def room(module: str) -> str:
    """The room of the library that a module stands in: mmoe_lib.tasks.census is in tasks."""
    return module.split(".")[1]


def imports(file: Path) -> Iterator[str]:
    """Full names of what a file imports from the library."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write the full name instead of a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("mmoe_lib."))


def modules() -> list[tuple[str, Path]]:
    files = [file for file in LIBRARY.rglob("*.py") if file != LIBRARY / "__init__.py"]
    return [(".".join(file.relative_to(ROOT).with_suffix("").parts), file) for file in sorted(files)]


@pytest.mark.parametrize(
    ("module", "file"), modules(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_import_points_back(module: str, file: Path) -> None:
    height = {name: number for number, line in enumerate(LAYERS) for name in line}
    own = room(module)
    assert own in height, f"{own} has no place in the order of the library: give it one in LAYERS"
    for imported in imports(file):
        other = room(imported)
        assert height[other] <= height[own], f"{module} imports {imported}"
        assert (own, other) not in FORBIDDEN, f"{module} imports {imported}"


def test_library_knows_no_notebook() -> None:
    for _, file in modules():
        text = file.read_text(encoding="utf-8")
        assert not re.search(
            r"^\s*(?:from|import) (?:IPython|papermill|nbformat|_scripts)\b", text, re.MULTILINE
        ), file
