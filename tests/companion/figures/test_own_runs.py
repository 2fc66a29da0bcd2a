"""The page that judges a reader's own runs computes what the library does."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_lab import node

from companion.figures.interactive import fragment as fragments
from mmoe_lib.compare import compare_runs

HERE = Path(fragments.__file__).parent


def run(code: str) -> Any:
    """What an expression gives back that may use the page's statistics and its reader of pasted text."""
    page = (HERE / "own_runs.js").read_text(encoding="utf-8")
    source = (
        "const KINDS = {}; const start = () => {};\n"
        f"{(HERE / 'run_statistics.js').read_text(encoding='utf-8')}\n{page}\n"
        "const whole = (key, value) => (value === Infinity ? 'inf' : Number.isNaN(value) ? 'nan' : value);\n"
        f"console.log(JSON.stringify((() => {{ {code} }})(), whole));"
    )
    done = subprocess.run([node(), "-"], input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def cases() -> list[tuple[dict[str, list[float | None]], float, dict[str, Any]]]:
    rng = np.random.default_rng(0)
    found: list[tuple[dict[str, list[float | None]], float, dict[str, Any]]] = []
    for number in range(30):
        methods, runs = int(rng.integers(2, 5)), int(rng.integers(3, 40))
        results: dict[str, list[float | None]] = {
            f"m{place}": rng.normal(0.3 * place, 1 + place, runs).round(4).tolist()
            for place in range(methods)
        }
        if number % 3 == 0:
            results["m0"][0] = None
            results["m1"][1] = 50.0
        options = {"paired": number % 2 == 0, "dead": 0.3 if number % 5 == 0 else None}
        found.append((results, float(rng.choice([0.02, 0.5, 2])), options))
    found.append(({"a": [1.0, 1.0], "b": [1.0, 1.0]}, 0.1, {"paired": False, "dead": None}))
    return found


def test_numbers_are_the_librarys() -> None:
    given = cases()
    found = run(
        f"return {json.dumps([[list(results.items()), smallest, options] for results, smallest, options in given])}"
        ".map(([results, ...rest]) => compareRuns(results.map(([name, values]) => "
        "[name, values.map((value) => (value === null ? NaN : value))]), ...rest));"
    )
    decided = set()
    for (results, smallest, options), page in zip(given, found, strict=True):
        library = compare_runs(results, smallest, **options)
        assert page["level"] == pytest.approx(library.level, rel=1e-12)
        for ours, theirs in [(library.methods, page["methods"]), (library.pairs, page["pairs"])]:
            assert len(ours) == len(theirs)
            for row, other in zip(ours.to_dict("records"), theirs, strict=True):
                assert set(row) == set(other)
                for name, value in row.items():
                    if isinstance(value, tuple):
                        assert list(value) == other[name]
                    elif isinstance(value, float):
                        assert float(other[name]) == pytest.approx(value, rel=1e-6, abs=1e-12, nan_ok=True), (
                            name
                        )
                    else:
                        assert other[name] == value, name
        decided |= set(library.pairs["word"])
    assert len(decided) >= 3  # the cases reach more than one branch


def test_pasted_text_is_read_as_it_comes() -> None:
    read = run(
        "return ['a: 1, 2 3\\nb b: 4;5', 'a\\tb\\n1\\t3\\n2\\t4\\n\\t5\\n', 'a,b\\n1,2\\n,3\\n4,5', '', 'a: 1 x'].map(readRuns);"
    )
    assert read[0] == [["a", [1, 2, 3]], ["b b", [4, 5]]]
    assert read[1] == [["a", [1, 2]], ["b", [3, 4, 5]]]
    assert [[name, [float(value) for value in values]] for name, values in read[2]][1] == ["b", [2, 3, 5]]
    assert math.isnan(float(read[2][0][1][1]))
    assert read[3] == []
    assert math.isnan(float(read[4][0][1][1]))
