"""What a computed file was made from, as one sum: the same sum means that it need not be made again."""

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path


def fingerprint(root: Path, parts: Iterable[Path], values: Mapping[str, str]) -> str:
    """The sha256 of named values, of the installed packages, and of every file under some paths.

    Args:
        root: files are named relative to it.
        parts: files and folders; one that does not exist counts as empty.
        values: such as the parameters of a notebook.
    """
    digest = hashlib.sha256()
    for name, value in sorted(values.items()):
        digest.update(f"{name}={value}\n".encode())
    for package in _packages():
        digest.update(f"{package}\n".encode())
    for file in sorted({file for part in parts for file in files_under(part)}):
        digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def files_under(part: Path) -> list[Path]:
    """A file itself, or all files of a folder but compiled and hidden ones."""
    if part.is_file():
        return [part]
    return [
        file
        for file in part.rglob("*")
        if file.is_file()
        and not any(name == "__pycache__" or name.startswith(".") for name in file.relative_to(part).parts)
    ]


def _packages() -> list[str]:
    return sorted({f"{package.metadata['Name']}=={package.version}" for package in distributions()})
