"""Fixtures of the census tests, in both packages: generated files, and the real ones where they can be had."""

from pathlib import Path

import pytest
from generated_census import Generated

from mmoe_lib.tasks.census import CensusTables, load
from mmoe_lib.tasks.census.files import UCI_117


@pytest.fixture
def generated(tmp_path: Path) -> Generated:
    folder = tmp_path / "by hand"
    folder.mkdir()
    return Generated(folder)


@pytest.fixture(scope="session")
def real_files() -> dict[str, Path]:
    """The official files by MMOE_DATA or the cache; nothing is downloaded."""
    found = UCI_117.find()
    if found is None:
        pytest.skip("the real Census-Income files are not here: set MMOE_DATA to the folder that holds them")
    return found


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def real(real_files: dict[str, Path], real_cache: Path) -> CensusTables:
    """The real tables, parsed and checked."""
    return load(real_files["census-income.data"].parent, cache=real_cache)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which MMOE_DATA is not set."""
    monkeypatch.delenv("MMOE_DATA", raising=False)
