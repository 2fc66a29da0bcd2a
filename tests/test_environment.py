"""Requirements stand in one place, both packages import little, and no import points back."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from _scripts import set_up as set_up_script
from _scripts.bounds import oldest
from _scripts.layout import ROOT
from packaging.requirements import Requirement

PACKAGES = {"mmoe_lib": ROOT / "mmoe_lib", "companion": ROOT / "book" / "companion"}

# A module may import those of its own line and of the lines above it. The library ends where the companion begins:
# no line above may name one below.
LAYERS = (
    # helpers that know nothing of the rest
    ("mmoe_lib.seeds", "mmoe_lib.progress", "mmoe_lib.files", "mmoe_lib.metrics", "mmoe_lib.compare"),
    ("mmoe_lib.counters",),
    ("mmoe_lib.tasks",),
    ("mmoe_lib.tasks.census", "mmoe_lib.tasks.kuairand"),
    ("mmoe_lib.models",),
    ("mmoe_lib.models.extensions",),
    ("mmoe_lib.export", "mmoe_lib.serving"),
    ("mmoe_lib.training",),
    ("mmoe_lib.frames",),
    (
        "companion.checkout",
        "companion.programs",
        "companion.census_changes",
        "companion.census_labels",
        "companion.census_targets",
        "companion.controls",
        "companion.extensions",
        "companion.pocket",
        "companion.synthetic_labels",
    ),
    ("companion.study",),
    ("companion.study.extensions",),
    ("companion.study.plans",),
    ("companion.study.__main__",),  # the command line knows every study
    ("companion.benchmarks",),
    ("companion.results",),
    ("companion.claims",),
    ("companion.figures",),
)
# Pairs that the order of lines would allow. Tasks know no model; what is read from stored rows knows nothing of how
# they were made.
FORBIDDEN = {
    ("mmoe_lib.models", "mmoe_lib.tasks"),
    ("mmoe_lib.models.extensions", "mmoe_lib.tasks"),
    *(
        (reader, maker)
        for reader in ("companion.results", "companion.claims", "companion.figures")
        for maker in (
            "companion.study",
            "companion.study.extensions",
            "companion.study.plans",
            "companion.benchmarks",
            "mmoe_lib.training",
        )
    ),
    ("companion.results", "mmoe_lib.models"),
}
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
    "ray",
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


def test_every_lower_bound_is_what_the_oldest_job_installs() -> None:
    """A bound that is declared and left out of the job's constraints would be a promise that nobody tries."""
    exact = dict(line.split("==") for line in oldest(pyproject()["project"]))
    for requirement in requirements().values():
        lower = [part.version for part in requirement.specifier if part.operator == ">="]
        assert lower == [exact[requirement.name]]
    steps = versions_workflow()["steps"]
    assert any("_scripts.bounds > oldest.txt" in step.get("run", "") for step in steps)
    assert any('.[test]"' in step.get("run", "") for step in steps)


def test_a_requirement_without_a_bound_or_with_two_is_refused() -> None:
    project = {"name": "own", "dependencies": ["torch>=2.4"], "optional-dependencies": {"all": ["own[a]"]}}
    assert oldest(project) == ["torch==2.4"]
    with pytest.raises(ValueError, match="'numpy' has no lower bound, expected name>=version"):
        oldest({**project, "dependencies": ["numpy"]})
    with pytest.raises(ValueError, match=r"torch has the bounds 2\.4 and 2\.5, expected one"):
        oldest({**project, "optional-dependencies": {"all": ["torch>=2.5"]}})


def versions_workflow() -> dict[str, Any]:
    path = ROOT / ".github" / "workflows" / "versions.yml"
    job: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["library"]
    return job


def test_the_oldest_python_runs_with_the_oldest_and_the_newest_packages() -> None:
    matrix = versions_workflow()["strategy"]["matrix"]
    python = pyproject()["project"]["requires-python"].removeprefix(">=")
    assert matrix["python"][0] == python
    assert {"oldest", "newest"} == set(matrix["bounds"])
    assert {system.split("-")[0] for system in matrix["system"]} == {"ubuntu", "macos", "windows"}
    assert all(left["bounds"] == "oldest" and left["python"] != python for left in matrix["exclude"])


def test_make_runs_the_tests_that_the_job_runs_with_the_oldest_and_the_newest_packages() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (listed,) = re.findall(r"^LIBRARY_TESTS = (.+)$", makefile, re.MULTILINE)
    (command,) = [step["run"] for step in versions_workflow()["steps"] if "pytest" in step.get("run", "")]
    assert command.split("--dist loadfile ")[1].split() == listed.split()
    assert all((ROOT / name).exists() for name in listed.split())


def test_exact_versions_satisfy_every_requirement() -> None:
    exact = exact_versions()
    for name, requirement in requirements().items():
        assert name.replace("_", "-") in exact, f"{name} is missing in constraints.txt"
        assert requirement.specifier.contains(exact[name.replace("_", "-")]), requirement


def test_torch_has_one_exact_version_without_a_local_label() -> None:
    assert exact_versions()["torch"] == "2.13.0"
    assert "+" not in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_a_test_that_hangs_fails_by_its_name(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    assert 0 < float(pytestconfig.getini("timeout")) <= 900
    (tmp_path / "test_slow.py").write_text("import time\n\ndef test_waits():\n    time.sleep(50)\n")
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-o", "timeout=1", "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == 1, done.stdout
    assert re.search(r"FAILED \S*test_slow.py::test_waits", done.stdout), done.stdout
    assert "Timeout (>1.0s)" in done.stdout


def test_extras_that_make_installs_hold_all_others() -> None:
    extras = pyproject()["project"]["optional-dependencies"]
    assert "mmoe_lib[book,study]" in extras[set_up_script.EXTRAS]


def test_library_and_companion_import_little_and_fast() -> None:
    """All but the room that draws and what is in scikit-learn's shape; torch takes seconds, so it is loaded before.

    Seconds of this process, not of the clock: other tests run at the same time.
    """
    left_out = ("companion.figures", "mmoe_lib.frames.estimator")
    names = [module for module, _ in modules() if not module.startswith(left_out)]
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


def test_everything_is_imported_where_unix_modules_are_missing() -> None:
    """As on Windows, which has neither fcntl nor resource."""
    names = [module for module, _ in modules()]
    code = (
        f"import sys; sys.modules.update(fcntl=None, resource=None); [__import__(name) for name in {names!r}]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def modules() -> list[tuple[str, Path]]:
    """Every module of both packages by its full name; a package's own file has the package's name."""
    found = []
    for folder in PACKAGES.values():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder.parent).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), file))
    return found


MODULES = dict(modules())


def room(module: str) -> str:
    """The room that a module stands in, the longest of `LAYERS` that begins its name; "" for a package's own file."""
    rooms = [name for line in LAYERS for name in line if f"{module}.".startswith(f"{name}.")]
    return max(rooms, key=len, default="")


def imports(file: Path) -> Iterator[str]:
    """The modules of both packages that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write the full name instead of a relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in full]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


@pytest.mark.parametrize(
    ("module", "file"), modules(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_import_points_back(module: str, file: Path) -> None:
    height = {name: number for number, line in enumerate(LAYERS) for name in line}
    own = room(module)
    assert own or module in PACKAGES, f"{module} has no place in the order of rooms: give it one in LAYERS"
    for imported in imports(file):
        assert imported in MODULES, f"{module} imports {imported}, which is not there"
        other = room(imported)
        assert own, f"{module} is to be light, so it imports none of its rooms ({imported})"
        assert height[other] <= height[own], f"{module} imports {imported}"
        assert (own, other) not in FORBIDDEN, f"{module} imports {imported}"


def test_the_library_does_not_know_the_companion() -> None:
    """Nor does it name it in code that is put together later: no path of the book, no program of it."""
    for module, file in modules():
        if module.split(".")[0] == "mmoe_lib":
            assert not [name for name in imports(file) if name.split(".")[0] == "companion"], module
            assert "import companion" not in file.read_text(encoding="utf-8"), module


def test_modules_and_rooms_import_each_other_in_no_circle() -> None:
    graph = {module: set(imports(file)) - {module} for module, file in modules()}
    # A package's own file is imported with each of its modules and only repeats their names.
    assert circle(graph) == [], "these modules import each other"
    rooms: dict[str, set[str]] = {}
    for module, imported in graph.items():
        rooms.setdefault(room(module), set()).update(room(name) for name in imported)
    assert circle({name: others - {name} for name, others in rooms.items()}) == [], "these rooms do"


def circle(graph: Mapping[str, Set[str]]) -> list[str]:
    """The names of one circle, or none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_neither_package_knows_a_notebook() -> None:
    for _, file in modules():
        text = file.read_text(encoding="utf-8")
        assert not re.search(
            r"^\s*(?:from|import) (?:IPython|papermill|nbformat|_scripts)\b", text, re.MULTILINE
        ), file


def test_the_companion_is_found_from_the_checkout_without_an_environment_variable(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for program in ("companion.study", "companion.benchmarks"):
        done = subprocess.run(
            [sys.executable, "-m", program, "--help"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"usage: python -m {program}" in done.stdout
