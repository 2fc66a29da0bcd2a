"""The README's code runs as it is printed."""

import re
from pathlib import Path

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
