"""What a build runs: preset, device and census data, from the environment."""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from _scripts.layout import BookError

CENSUS_CHOICES = ("auto", "real", "simulated")
MINUTES_A_CELL = {"smoke": 10, "laptop": 60}  # other presets may take days


@dataclass(frozen=True)
class Settings:
    """What the chapters are given.

    Attributes:
        preset: name of the table of counts in `mmoe_lib.presets`.
        device: where torch computes, such as "cpu" or "cuda".
        census_data: "real" or "simulated".
    """

    preset: str = "smoke"
    device: str = "cpu"
    census_data: str = "simulated"

    def parameters(self) -> dict[str, str]:
        """Values by the names of the chapters' parameters."""
        return {"preset": self.preset, "device": self.device, "census_data": self.census_data}

    @property
    def seconds_a_cell(self) -> int | None:
        """How long a cell may run, None for any time."""
        minutes = MINUTES_A_CELL.get(self.preset)
        return None if minutes is None else 60 * minutes


def read_settings(
    environment: Mapping[str, str],
    *,
    has_cuda: Callable[[], bool] | None = None,
    has_census: Callable[[], bool] | None = None,
    asks_census: bool = True,
) -> Settings:
    """Settings from PRESET, DEVICE and CENSUS_DATA; an empty or missing one takes its default.

    Args:
        environment: usually `os.environ`.
        has_cuda: whether torch sees a GPU; asks torch when None.
        has_census: whether the real census files can be had; asks the library when None.
        asks_census: whether any chapter uses census data; without one the files are not looked for.

    Raises:
        BookError: a value that is not known, or that cannot be had here.
    """
    preset = _preset(environment.get("PRESET") or "smoke")
    device = _device(environment.get("DEVICE") or "auto", has_cuda or _torch_sees_cuda)
    census = _census(environment.get("CENSUS_DATA") or "auto", has_census or census_available, asks_census)
    return Settings(preset, device, census)


def census_available() -> bool:
    """Whether the real Census-Income files are here or could be downloaded; says on the console why not.

    Raises:
        BookError: MMOE_DATA names no folder, or one that holds half of the files.
    """
    from mmoe_lib.tasks.census import available

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = available(progress=False)
        except OSError as error:
            raise BookError(str(error)) from error
    for warning in caught:
        print(f"census data: {warning.message}")
    return found


def _preset(name: str) -> str:
    from mmoe_lib.presets import PRESETS

    if name not in PRESETS:
        raise BookError(f"PRESET={name} is unknown: expected one of {', '.join(PRESETS)}")
    return name


def _device(name: str, has_cuda: Callable[[], bool]) -> str:
    if name == "auto":
        return "cuda" if has_cuda() else "cpu"
    if name == "cpu":
        return name
    if re.fullmatch(r"cuda(:\d+)?", name):
        if has_cuda():
            return name
        raise BookError(f"DEVICE={name}, but torch sees no CUDA device: use DEVICE=cpu or DEVICE=auto")
    raise BookError(f"DEVICE={name} is unknown: expected auto, cpu, cuda or cuda:NUMBER")


def _torch_sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _census(choice: str, available: Callable[[], bool], asked: bool) -> str:
    if choice not in CENSUS_CHOICES:
        raise BookError(f"CENSUS_DATA={choice} is unknown: expected one of {', '.join(CENSUS_CHOICES)}")
    if choice == "simulated" or not asked:
        return "simulated"
    if available():
        return "real"
    if choice == "real":
        raise BookError(
            "CENSUS_DATA=real, but the files can neither be found nor downloaded: "
            "point MMOE_DATA at a folder that holds them (see data/README.md) or use CENSUS_DATA=simulated"
        )
    return "simulated"
