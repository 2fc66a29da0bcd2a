"""Multi-gate Mixture-of-Experts, rerun: the library of the book."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """`mmoe_lib.compare_runs`, imported when it is asked for, so that the package itself stays light."""
    if name in ("compare_runs", "RunComparison"):
        return getattr(import_module("mmoe_lib.compare"), name)
    raise AttributeError(f"module 'mmoe_lib' has no attribute {name!r}")
