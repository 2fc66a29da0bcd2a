"""Diagrams can be read where a page is narrow, name what they show, and agree with the library."""

import inspect
import itertools
import re
from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
import torch
from _scripts.layout import Book
from _scripts.notebooks import read_notebook
from matplotlib.figure import Figure
from matplotlib.text import Text

from companion.figures import diagrams
from mmoe_lib.models.extensions import TopKMMoE

NAMES = [
    name
    for name, made in inspect.getmembers(diagrams, inspect.isfunction)
    if made.__module__ == diagrams.__name__ and not name.startswith("_") and name != "sketch"
]
NARROW, READABLE = 326, 9  # pixels: the column of a phone that is 390 wide, less the card of the dark theme
CROP = 0.12
"""Inches that Jupyter's crop adds around a figure."""
SUBSCRIPT = 0.7
"""Of its letter's size, in matplotlib's mathematics."""


@pytest.fixture(scope="module")
def drawn() -> Iterator[dict[str, Figure]]:
    backend = plt.get_backend()
    plt.switch_backend("agg")
    yield {name: getattr(diagrams, name)() for name in NAMES}
    plt.close("all")
    plt.switch_backend(backend)


def words(figure: Figure) -> list[Text]:
    return [one for one in figure.findobj(Text) if one.get_text().strip()]


def test_each_diagram_is_told_in_words() -> None:
    assert set(diagrams.ALTS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_type_is_large_enough_for_a_phone_and_nothing_lies_on_anything(
    drawn: dict[str, Figure], name: str
) -> None:
    figure = drawn[name]
    figure.draw_without_rendering()
    for one in words(figure):
        small = SUBSCRIPT if re.search(r"[_^]", one.get_text()) else 1
        assert (
            small * float(one.get_fontsize()) * NARROW / (72 * (figure.get_figwidth() + CROP)) >= READABLE
        ), one.get_text()
    places = [(one.get_text(), one.get_window_extent()) for one in words(figure)]
    for (first, place), (second, other) in itertools.combinations(places, 2):
        assert not place.overlaps(other), (first, second)
    for text, place in places:
        assert place.x0 >= 0, text
        assert place.x1 <= figure.bbox.x1, text


def test_the_gate_that_keeps_two_says_what_the_library_says(drawn: dict[str, Figure]) -> None:
    model = TopKMMoE(1, 1, 4, (2,), k=2)
    with torch.no_grad():
        model.gates.weight.copy_(torch.tensor([[2.0], [1.0], [0.0], [-1.0]]))
    weights = model.gate_weights(torch.ones(1, 1))[0, 0].tolist()
    texts = [one.get_text() for one in words(drawn["top_k_gate"])]
    for weight in weights:
        assert f"{weight:.2g}" in texts


def test_chapters_tell_a_diagram_in_the_librarys_words() -> None:
    shown = set()
    for path in Book().notebooks():
        for cell in read_notebook(path).cells:
            found = (
                re.match(r"figures\.diagrams\.(\w+)\(\)", cell.source) if cell.cell_type == "code" else None
            )
            if found:
                shown.add(found[1])
                assert cell.metadata["mystnb"]["image"]["alt"] == diagrams.ALTS[found[1]], path.name
    assert shown == set(NAMES), "each diagram stands in a chapter"
