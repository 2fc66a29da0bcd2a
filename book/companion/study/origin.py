"""Where a row of results comes from."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from companion.checkout import ROOT

CODE = ("mmoe_lib", "book/companion")
"""What computes rows: a change here since the commit is told in them."""


@dataclass(frozen=True)
class Origin:
    """Stands in every row of a results file.

    Attributes:
        commit: The commit of the code, with "+" when files had been changed since; "none" outside git.
        command: What was typed.
        preset: The preset's name.
        device: "cpu", or the GPU's name.
        torch_version: of the library that trained.
        data: Sums (sha256, first 12 digits) of the data files, or "synthetic".
    """

    commit: str
    command: str
    preset: str
    device: str
    torch_version: str
    data: str

    @classmethod
    def now(cls, command: str, preset: str, device: torch.device, data: str) -> Origin:
        """The origin of rows computed by this process."""
        name = str(device)
        if device.type == "cuda" and torch.cuda.is_available():  # else a cluster's nodes have it
            name = torch.cuda.get_device_name(device)
        return cls(commit(), command, preset, name, torch.__version__, data)

    def columns(self) -> dict[str, str]:
        """The columns it adds to each row."""
        return asdict(self)


@cache
def processor() -> str:
    """The model of this machine's processor, without commas, as results are plain CSV."""
    name = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2] for line in lines if line.startswith("model name")), "")
    return " ".join(
        (name or platform.processor() or platform.machine()).replace(",", " ").replace('"', "").split()
    )


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit() -> str:
    """Of the code that runs here, as `Origin.commit`."""
    named = os.environ.get("MMOE_COMMIT")  # in a copy of the tree that has no history, on a cluster's node
    if named:
        return named
    try:
        # Results are written while a study runs; only a change of the code makes a commit inexact.
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
        return _git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"
