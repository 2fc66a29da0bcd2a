"""Files that are written whole or not at all, and the versions that are written into them."""

from __future__ import annotations

import os
import platform
import secrets
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one atomic step: beside the old one, then renamed over it.

    A new file has the mode that the user's umask gives it, an old one keeps its own; a link still points where it did.

    Raises:
        OSError: If it cannot be written; there is then no file, or still the one that was there.
    """
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    mode = path.stat().st_mode & 0o7777 if path.exists() else None
    # Opened as any new file is, so that the umask holds; private first where the old one may be.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            beside.chmod(mode)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def versions() -> dict[str, str]:
    """The versions of this library, torch and Python, for files that say what wrote them."""
    found = {"python": platform.python_version()}
    for package in ("mmoe_lib", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # used from a folder on the path
            found[package] = "unknown"
    return found
