"""A figure that a reader can move, as one piece of HTML that needs nothing else: data, style and script.

It is a `<figure>` with the data as JSON and a script, which builds the controls and draws; until the script has
run, and where scripts are stripped, as on GitHub, only the caption is left, which names the picture that shows the
same. So every such figure has a picture, an ordinary output of matplotlib in the cell before it: GitHub and a reader
without scripts see the picture, Colab and Jupyter both. In the book the script puts the figure into the picture's
place, under its number and caption.

Nothing is fetched, so it works from `file://` and in Colab's output frame. The text depends on the stored numbers alone:
it is the same bytes on every machine.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from companion.figures.style import COLOURS

HERE = Path(__file__).parent

MODELS = (
    "Single-Task",
    "Shared-Bottom",
    "L2-Constrained",
    "Cross-Stitch",
    "Tensor-Factorization",
    "OMoE",
    "MMoE",
)
"""The models that have a colour here."""

# Okabe and Ito's colours, the pale ones darker on white and the dark ones lighter on black, so that all stand out.
ON_WHITE = COLOURS | {
    "L2-Constrained": "#A87000",
    "Cross-Stitch": "#2B87BD",
    "Tensor-Factorization": "#B45C8C",
}
ON_BLACK = COLOURS | {"Single-Task": "#B8B8B8", "OMoE": "#3D9BD9", "Cross-Stitch": "#9AD4F5"}

Control = Mapping[str, Any]
"""One of the four kinds that `frame.js` knows: range, choice, check, checks."""


@dataclass(frozen=True)
class Interactive:
    """What a notebook shows as HTML.

    Attributes:
        name: The figure's `data-figure`.
        html: The fragment.
    """

    name: str
    html: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        """What is left where HTML is not shown."""
        return f"<interactive figure {self.name}>"


def fragment(
    name: str,
    scripts: Sequence[str],
    data: Mapping[str, Any],
    controls: Sequence[Control],
    caption: str,
    *,
    elsewhere: str,
    picture: str | None = None,
    styles: Sequence[str] = (),
) -> Interactive:
    """Put the pieces together.

    Args:
        name: The figure's `data-figure`, which its script starts.
        scripts: Files of this folder, after `frame.js`.
        data: What the script draws.
        controls: What the reader can move, in order.
        caption: How it is used and what it shows.
        elsewhere: The caption where no script runs.
        picture: The name of the numbered figure whose place it takes in the book.
        styles: Style sheets of this folder, after `frame.css`.
    """
    content = json.dumps(
        {**data, "controls": controls, "caption": caption}, ensure_ascii=False, separators=(",", ":")
    )
    place = f' data-picture="{html.escape(picture)}"' if picture else ""
    code = "\n".join(_texts(("frame.js", *scripts)))
    lines = [
        f'<figure class="mmoe-interactive" data-figure="{html.escape(name)}"{place}>',
        f"<style>\n{_style()}{''.join(_texts(styles))}</style>",
        f"<figcaption>{html.escape(elsewhere)}</figcaption>",
        # "<" would end the script if "/script>" came after it.
        f'<script type="application/json">{content.replace("<", chr(92) + "u003c")}</script>',
        f'<script>\n(() => {{\n"use strict";\n{code}}})();\n</script>',
        "</figure>",
    ]
    return Interactive(name, "\n".join(lines))


def colour_name(model: str) -> str:
    """The model's custom property in the style sheet, without its dashes: "Shared-Bottom" gives "shared-bottom"."""
    return model.lower()


def _texts(names: Iterable[str]) -> list[str]:
    return [(HERE / name).read_text(encoding="utf-8") for name in names]


def _style() -> str:
    colours = "".join(
        f"  --{colour_name(model)}: light-dark({ON_WHITE[model]}, {ON_BLACK[model]});\n" for model in MODELS
    )
    return (HERE / "frame.css").read_text(encoding="utf-8") + f"\n.mmoe-interactive {{\n{colours}}}\n"
