"""Where the tests that look at pages find a browser, and what they do where there is none."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def find_chromium() -> str | None:
    """The path of a Chromium; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def give_up(reason: str) -> NoReturn:
    """Skip on a machine without a browser; a check of the repository must not pass without one."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI is set")
    pytest.skip(reason)
