"""For Sphinx: a figure of a notebook can be linked as a heading can, `[text](03c_calibrated.ipynb#fig-mean-loss)`.

MyST resolves the part behind # to headings alone. On GitHub and Colab the same link opens the notebook.
"""

from typing import Any

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx


def add_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Enter the figures of a page, by name, where MyST looks for the headings of a page."""
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for figure in doctree.findall(nodes.figure):
        caption = next((part.astext() for part in figure.findall(nodes.caption)), "")
        for name, anchor in zip(figure["names"], figure["ids"], strict=False):
            slugs.setdefault(name, (0, anchor, caption))


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.connect("doctree-read", add_figures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
