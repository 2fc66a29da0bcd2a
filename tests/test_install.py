"""The library by itself: the wheel that `pip install .` makes, without the repository and the book's tools."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from _scripts.layout import ROOT

BOOK_TOOLS = (
    "matplotlib",
    "seaborn",
    "sklearn",
    "optuna",
    "jupyter_book",
    "sphinx",
    "papermill",
    "nbformat",
    "nbclient",
    "IPython",
    "ipykernel",
    "plotly",
    "torchjd",
    "pytest",
)

TEN_LINES = """
import numpy as np, pandas as pd
from mmoe_lib.frames import FitSettings, MultiTaskModel
x = np.random.default_rng(0).normal(size=(600, 2))
frame = pd.DataFrame(x, columns=["a", "b"]).assign(sum=x.sum(axis=1), more=x[:, 0] > x[:, 1])
model = MultiTaskModel.fit(frame[:500], ["sum", "more"], settings=FitSettings(learning_rate=0.01), progress=False)
scores = model.evaluate(frame[500:])["value"]
model.save("model.pt")
assert MultiTaskModel.load("model.pt").predict(frame).equals(model.predict(frame))
model.export("model.pt2")
assert (scores > 0.95).all(), scores
"""

# The folder of the installed library is in PYTHONPATH. An editable install of the repository is found by a path or by a
# finder of setuptools, the companion by a path: neither may help here.
ALONE = """
import sys
from importlib.machinery import PathFinder
library, repository, tools = sys.argv[1], sys.argv[2], sys.argv[3].split()

class WithoutTools:
    # finds what is installed, as if the tools were not
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in tools else PathFinder.find_spec(name, path, target)

sys.path[:] = [path for path in sys.path if path not in ("", repository, repository + "/book")]
others = [finder for finder in sys.meta_path if finder is not PathFinder and "editable" not in repr(finder).lower()]
sys.meta_path[:] = [*others, WithoutTools()]
sys.path_importer_cache.clear()
import mmoe_lib
assert mmoe_lib.__file__.startswith(library), mmoe_lib.__file__
"""

EVERY_EXAMPLE = """
import doctest, importlib, pkgutil, re
from pathlib import Path

readme, page = sys.argv[4:6]
done = doctest.testfile(readme, module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
assert (done.failed, done.attempted) == (0, 10), done
(code,) = re.findall(r"```python\\n(.+?)```", Path(page).read_text(encoding="utf-8"), re.DOTALL)
exec(compile(code, page, "exec"), {})
failed = attempted = 0
for found in pkgutil.walk_packages(mmoe_lib.__path__, "mmoe_lib."):
    try:
        module = importlib.import_module(found.name)
    except ImportError as error:
        assert (found.name, "pip install" in str(error)) == ("mmoe_lib.frames.estimator", True), error
        continue
    done = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    failed, attempted = failed + done.failed, attempted + done.attempted
print(failed, attempted)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder is left in the repository; without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("mmoe_lib", "book/companion", "tests"):  # two of them are not to be taken
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
    ]
    done = subprocess.run(
        [*command, "--wheel-dir", folder, source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = wheel.parent / "source"
    wanted = {str(file.relative_to(source)) for file in (source / "mmoe_lib").rglob("*") if file.is_file()}
    assert names == wanted


@pytest.fixture(scope="module")
def library(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        str(folder),
    ]
    done = subprocess.run([*command, wheel], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def run_alone(code: str, library: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a folder, with the installed library and without the checkout, the companion and the book's tools."""
    without = " ".join((*BOOK_TOOLS, "companion", "_scripts"))
    environment = {**os.environ, "PYTHONPATH": str(library), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, "-c", ALONE + code, str(library), str(ROOT), without, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_library_trains_on_a_frame_without_the_repository_and_the_book_s_tools(
    library: Path, tmp_path: Path
) -> None:
    done = run_alone(TEN_LINES, library, tmp_path)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"model.pt", "model.pt2", "model.schema.json"}
    for name in ("sklearn", "companion"):  # which this environment has
        refused = run_alone(f"import {name}", library, tmp_path)
        assert f"No module named '{name}'" in refused.stderr


def test_the_readmes_lines_and_every_example_run_on_the_installed_library(
    library: Path, tmp_path: Path
) -> None:
    done = run_alone(
        EVERY_EXAMPLE, library, tmp_path, str(ROOT / "README.md"), str(ROOT / "book" / "library.md")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    failed, attempted = (int(number) for number in done.stdout.splitlines()[-1].split())
    assert (failed, attempted > 0) == (0, True), done.stdout
