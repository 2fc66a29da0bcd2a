"""Where the checkout lies whose numbers this package reads and writes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds `book/`, `data/` and `mmoe_lib/`."""

DATA = ROOT / "data"
"""The paper's numbers in `paper/`, ours in `results/`."""
