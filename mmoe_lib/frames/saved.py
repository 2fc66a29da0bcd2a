"""The files of `MultiTaskModel.save`: tensors and plain values, read without running anything that is in them."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmoe_lib.files import versions, write_whole
from mmoe_lib.frames.encoder import FrameEncoder
from mmoe_lib.frames.targets import Target

FORMAT = "mmoe_lib frame model"
VERSION = 2
"""Of the format: raised whenever an older library could not read what is written, or would read it wrongly."""


def write_model(path: Path, content: Mapping[str, Any]) -> None:
    """Write what a model consists of, with its format and the versions that write it, whole or not at all.

    Raises:
        ValueError: If a weight is NaN, infinite or complex.
        OSError: If the file cannot be written; there is then none, or still the one that was there.
    """
    _check_weights(content["state"])
    buffer = io.BytesIO()
    torch.save({"format": f"{FORMAT}, version {VERSION}", "versions": versions(), **content}, buffer)
    write_whole(path, buffer.getvalue())


def read_model(path: Path) -> dict[str, Any]:
    """What `write_model` wrote, with its encoder and targets made.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, damaged, of another version of the format, or holds weights that are NaN,
            infinite or complex.
    """
    raw = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            damaged = archive.testzip()  # torch does not look at the sums
        if damaged is not None:
            raise ValueError(f"the sum of {damaged} is wrong")
        content = torch.load(io.BytesIO(raw), weights_only=True, map_location="cpu")
        written = str(content.get("format")) if isinstance(content, dict) else type(content).__name__
    except Exception as error:  # zipfile and torch raise whatever their readers do
        raise damaged_error(path, error) from error
    if written != f"{FORMAT}, version {VERSION}":
        if written.startswith(f"{FORMAT}, version"):
            by = content.get("versions", {}).get("mmoe_lib", "another version")
            raise ValueError(
                f"{path.name} was written by mmoe_lib {by} as {written.removeprefix(FORMAT + ', ')} of the format, "
                f"expected version {VERSION}: load it with that library, or fit and save again"
            )
        raise damaged_error(path, ValueError(f"its format is {written!r}"))
    try:
        content["encoder"] = FrameEncoder.from_plain(content["encoder"])
        content["targets"] = tuple(
            Target(**{**given, "classes": tuple(given["classes"])}) for given in content["targets"]
        )
        runs = len(content["seeds"])
        for name, value in content["state"].items():
            if len(value) != runs:
                raise ValueError(f"{name} is of {len(value)} runs, and there are {runs} seeds")
        content = {**content, "sizes": dict(content["sizes"]), "model": content["model"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # changed by hand
        raise damaged_error(path, error) from error
    _check_weights(content["state"], f"{path.name} ")
    return content


def damaged_error(path: Path, error: Exception) -> ValueError:
    """What is raised for a file that cannot be read, with the reason in one line."""
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):
        reason = "it holds more than tensors and plain values"
    return ValueError(
        f"{path.name} is no saved model, expected a file of MultiTaskModel.save: save it again ({reason})"
    )


def _check_weights(state: Mapping[str, Tensor], where: str = "the model ") -> None:
    for name, value in state.items():
        if value.is_complex() or not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"{where}holds {'complex' if value.is_complex() else 'NaN or infinite'} numbers in {name}, expected "
                "finite real weights: train it again"
            )
