"""The page's calculator counts what the library counts."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path

from test_lab import node

from companion.figures.interactive import fragment
from companion.figures.interactive.costs import LABELS, LEVELS, START, models
from mmoe_lib.models import count_multiply_adds, count_parameters

HERE = Path(fragment.__file__).parent
SIZES = list(itertools.product((1, 2, 5), (16, 40), (2, 3), (8, 12), (8, 16)))
NAMES = ("tasks", "inputs", "experts", "units", "tower")


def test_multiply_adds_and_parameters_are_the_librarys() -> None:
    given = [dict(zip(NAMES, sizes, strict=True)) for sizes in SIZES]
    page = (HERE / "costs.js").read_text(encoding="utf-8")
    code = f"const start = () => {{}};\n{page}\nconsole.log(JSON.stringify({json.dumps(given)}.map(layerCosts)));"
    done = subprocess.run([node(), "-"], input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for sizes, counted in zip(given, json.loads(done.stdout), strict=True):
        built = models(**sizes)
        assert {name: row["adds"] for name, row in counted.items()} == {
            name: count_multiply_adds(model) for name, model in built.items()
        }
        assert {name: row["parameters"] for name, row in counted.items()} == {
            name: count_parameters(model) for name, model in built.items()
        }


def test_the_start_is_among_the_levels() -> None:
    assert set(START) == set(LEVELS) == set(LABELS)
    for name, start in START.items():
        assert start in LEVELS[name]
