"""The library's docstrings for Sphinx: prose in which single backticks mark code and nothing else is markup.

Loaded by `_config.yml` as an extension.
"""

import re

from sphinx.application import Sphinx

PROSE_SECTIONS = ("Returns:", "Yields:")

# Code between backticks or of a doctest, which stays as it is, or a character that Sphinx would take for markup.
CODE_OR_MARKUP = re.compile(r"(`[^`]+`|^ *>>> (?:.|\n(?! *\n))*)|([*|\\]|_(?!\w))", re.MULTILINE)

# `num_tasks: K.` describes an argument; Sphinx would count the letter as the first item of a list.
LETTER = re.compile(r"^( *\w+: )(?=\w\.)", re.MULTILINE)

# numpy's `NDArray[X]`, as autodoc writes it out.
ARRAY = re.compile(r"ndarray\[(?:tuple\[[^\]]*\]|Any), dtype\[(\w+)\]\]")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the two handlers, the first before napoleon's own."""
    app.connect("autodoc-process-docstring", _mark_prose, priority=100)
    app.connect("autodoc-process-signature", _shorten_arrays)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def as_prose(what: str, lines: list[str]) -> list[str]:
    """A docstring in which a sign is no markup and a sentence no type.

    Types stand in the signatures. Napoleon would still read the words before a colon as one, in a section
    `Returns:` and at the start of what describes a value; a colon before them says that there is none.

    Args:
        what: "function", "data", "property" and so on, as autodoc calls it.
        lines: The docstring.
    """
    text = "\n".join(lines)
    text = CODE_OR_MARKUP.sub(lambda found: found[1] or "\\" + found[2], text)
    marked = LETTER.sub(r"\1\\", text).split("\n")
    starts = [0] if what in ("attribute", "data", "property") else []
    starts += [number + 1 for number, line in enumerate(marked) if line.strip() in PROSE_SECTIONS]
    for number in starts:
        if number < len(marked) and ":" in marked[number]:
            sentence = marked[number].lstrip()
            marked[number] = marked[number].removesuffix(sentence) + ": " + sentence
    return marked


def short_arrays(signature: str) -> str:
    """A signature with `NDArray[float64]` for what numpy makes of it."""
    return ARRAY.sub(r"NDArray[\1]", signature)


def _mark_prose(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = as_prose(what, lines)


def _shorten_arrays(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    return signature and short_arrays(signature), returns and short_arrays(returns)
