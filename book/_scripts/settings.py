"""What a build runs: preset, device and which data, from the environment."""

import importlib
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass

from _scripts.layout import BookError

DATA_CHOICES = ("auto", "real", "simulated")
# Parameters of chapters that name a real set, and the module that says whether it can be had.
DATA_SETS = {"census_data": "mmoe_lib.tasks.census", "kuairand_data": "mmoe_lib.tasks.kuairand"}
MINUTES_A_CELL = {"smoke": 10, "laptop": 60}  # other presets may take days


@dataclass(frozen=True)
class Settings:
    """What the chapters are given.

    Attributes:
        preset: name of the table of counts in `companion.study.presets`.
        device: where torch computes: "cpu", "cuda", or "auto", by which each cell takes the faster one.
        census_data: "real" or "simulated".
        kuairand_data: the same.
    """

    preset: str = "smoke"
    device: str = "auto"
    census_data: str = "simulated"
    kuairand_data: str = "simulated"

    def parameters(self) -> dict[str, str]:
        """Values by the names of the chapters' parameters."""
        return asdict(self)

    @property
    def may_take_gpu(self) -> bool:
        """Whether chapters may train on a GPU; with "auto" none is worth it for the smoke preset."""
        if self.device == "auto":
            return self.preset != "smoke" and _torch_sees_cuda()
        return self.device != "cpu"

    @property
    def seconds_a_cell(self) -> int | None:
        """How long a cell may run, None for any time."""
        minutes = MINUTES_A_CELL.get(self.preset)
        return None if minutes is None else 60 * minutes


def read_settings(
    environment: Mapping[str, str],
    *,
    has_cuda: Callable[[], bool] | None = None,
    has_data: Callable[[str], bool] | None = None,
    asked: Collection[str] = tuple(DATA_SETS),
) -> Settings:
    """Settings from PRESET, DEVICE, CENSUS_DATA and KUAIRAND_DATA; an empty or missing one takes its default.

    Args:
        environment: usually `os.environ`.
        has_cuda: whether torch sees a GPU; asks torch when None.
        has_data: whether the real files of a set of `DATA_SETS` can be had; asks the library when None.
        asked: the sets that chapters use; the files of others are not looked for.

    Raises:
        BookError: a value that is not known, or that cannot be had here.
    """
    preset = _preset(environment.get("PRESET") or "smoke")
    device = _device(environment.get("DEVICE") or "auto", has_cuda or _torch_sees_cuda)
    data = {
        name: _data(name, environment.get(name.upper()) or "auto", has_data or data_available, name in asked)
        for name in DATA_SETS
    }
    return Settings(preset, device, **data)


def data_available(name: str) -> bool:
    """Whether the real files of a set are here or could be downloaded; says on the console why not.

    Raises:
        BookError: MMOE_DATA names no folder, or one that holds some of the files only.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = bool(importlib.import_module(DATA_SETS[name]).available(progress=False))
        except OSError as error:
            raise BookError(str(error)) from error
    for warning in caught:
        print(f"{name.replace('_', ' ')}: {warning.message}")
    return found


def _preset(name: str) -> str:
    from companion.study.presets import PRESETS

    if name not in PRESETS:
        raise BookError(f"PRESET={name} is unknown: expected one of {', '.join(PRESETS)}")
    return name


def _device(name: str, has_cuda: Callable[[], bool]) -> str:
    if name in ("auto", "cpu"):
        return name
    if re.fullmatch(r"cuda(:\d+)?", name):
        if has_cuda():
            return name
        raise BookError(f"DEVICE={name}, but torch sees no CUDA device: use DEVICE=cpu or DEVICE=auto")
    raise BookError(f"DEVICE={name} is unknown: expected auto, cpu, cuda or cuda:NUMBER")


def _torch_sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _data(name: str, choice: str, available: Callable[[str], bool], asked: bool) -> str:
    variable = name.upper()
    if choice not in DATA_CHOICES:
        raise BookError(f"{variable}={choice} is unknown: expected one of {', '.join(DATA_CHOICES)}")
    if choice == "simulated" or not asked:
        return "simulated"
    if available(name):
        return "real"
    if choice == "real":
        raise BookError(
            f"{variable}=real, but the files can neither be found nor downloaded: "
            f"point MMOE_DATA at a folder that holds them (see data/README.md) or use {variable}=simulated"
        )
    return "simulated"
