"""The library by itself: the wheel that `pip install .` makes, without the repository and the book's tools."""

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

# An editable install of the repository is found by a path or by a finder of setuptools: neither may help here.
ALONE = """
import sys
from importlib.machinery import PathFinder
wheel, repository, tools = sys.argv[1], sys.argv[2], sys.argv[3].split()

class WithoutTools:
    # finds what is installed, as if the tools were not
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in tools else PathFinder.find_spec(name, path, target)

outside = [path for path in sys.path if path not in ("", repository, repository + "/book")]
sys.path[:] = [wheel, *outside]
others = [finder for finder in sys.meta_path if finder is not PathFinder and "editable" not in repr(finder).lower()]
sys.meta_path[:] = [*others, WithoutTools()]
sys.path_importer_cache.clear()
import mmoe_lib
assert mmoe_lib.__file__.startswith(wheel), mmoe_lib.__file__
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder is left in the repository; without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "mmoe_lib", source / "mmoe_lib", ignore=shutil.ignore_patterns("__pycache__"))
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


def test_the_wheel_trains_on_a_frame_without_the_repository_and_the_book_s_tools(
    wheel: Path, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(library)
    code = ALONE + TEN_LINES
    command = [sys.executable, "-c", code, str(library), str(ROOT), " ".join(BOOK_TOOLS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"library", "model.pt", "model.pt2"}
    refused = subprocess.run(
        [*command[:2], ALONE + "import sklearn", *command[3:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'sklearn'" in refused.stderr  # which this environment has
