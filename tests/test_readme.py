"""The README's code runs as it is printed."""

import re
from pathlib import Path

import pandas as pd
import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_example_trains_and_gives_what_its_comments_say() -> None:
    (code,) = re.findall(r"```python\n(.+?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    logits, gates = names["logits"], names["gates"]
    assert isinstance(logits, torch.Tensor)
    assert isinstance(gates, torch.Tensor)
    assert logits.shape == (1000, 2)
    assert gates.shape == (1000, 2, 4)


def test_the_speeds_are_those_of_the_stored_benchmark() -> None:
    rows = pd.read_csv(README.parent / "data" / "results" / "benchmark.csv")
    rows = rows[(rows["model"] == "MMoE") & (rows["inputs"] != "fresh") | (rows["kind"] == "plain loop")]
    lines = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:5]]
        for line in README.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and line.count("|") == 5
    }

    def shown(kind: str, column: str, text: str, **where: int) -> list[str]:
        chosen = rows[
            (rows["kind"] == kind)
            & (rows["model"] == "MMoE")
            & (rows["runs"] != 1 if kind != "plain loop" else True)
        ]
        for name, value in where.items():
            chosen = chosen[chosen[name] == value]
        return [text.format(value) for value in chosen.sort_values("batch")[column]]

    for name, kind, column, text, where in (
        ("plain loop, one thread", "plain loop", "per_second", "{:,.0f}", {"threads": 1}),
        ("plain loop, two threads", "plain loop", "per_second", "{:,.0f}", {"threads": 2}),
        ("many runs at once, one process", "ensemble", "per_second", "{:,.0f}", {"processes": 1}),
        ("… against the plain loop of one thread", "ensemble", "ratio", "{:.1f} x", {"processes": 1}),
        (
            "… share of torch's own matrix product (96 GFLOP/s)",
            "ensemble",
            "peak_share",
            "{:.2f}",
            {"processes": 1},
        ),
        ("many runs at once, two processes", "ensemble", "per_second", "{:,.0f}", {"processes": 2}),
        ("… against the plain loop of two threads", "ensemble", "user_ratio", "{:.1f} x", {"processes": 2}),
    ):
        assert lines[name] == shown(kind, column, text, **where), name
