"""What the README shows of the results, made from `data/results/`: the picture and the table of claims.

`make outputs` renews both; `python -m _scripts.summary` does so alone.
"""

import hashlib
import io
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

from _scripts.layout import Book, BookError
from companion.claims import ClaimRow, Comparison, scorecard
from companion.figures.summary import gain_dots, gain_finding

RESULTS_START = "<!-- results: written by `make outputs` from data/results/ -->"
RESULTS_END = "<!-- end of results -->"
SUM = re.compile(r"data/results, sum ([0-9a-f]{64})")

# What is drawn: by the claim's number and what it compares, the panel and the name there.
LOSS, AUC = "Shared-Bottom's loss minus MMoE's", "MMoE's AUC minus Shared-Bottom's (points)"
DRAWN = {
    (4, "p = 0.5: Shared-Bottom's loss minus MMoE's"): (LOSS, "synthetic,\np = 0.5"),
    (4, "p = 0.9: Shared-Bottom's loss minus MMoE's"): (LOSS, "synthetic,\np = 0.9"),
    (4, "p = 1: Shared-Bottom's loss minus MMoE's"): (LOSS, "synthetic,\np = 1"),
    (9, "income: MMoE minus Shared-Bottom"): (AUC, "Census,\nincome"),
    (9, "education: MMoE minus Shared-Bottom"): (AUC, "Census,\neducation"),
    (10, "SGD, AUC after 3/3: MMoE minus Shared-Bottom"): (AUC, "KuaiRand,\nSGD"),
    (10, "Adam, AUC after 3/3: MMoE minus Shared-Bottom"): (AUC, "KuaiRand,\nAdam"),
}


def picture_file(book: Book) -> Path:
    """The picture at the top of the README."""
    return book.source / "_static" / "summary.svg"


def picture_panels(rows: Sequence[ClaimRow]) -> dict[str, dict[str, Comparison]]:
    """What the picture shows: by panel and setting, the comparison of MMoE with Shared-Bottom.

    Raises:
        BookError: a claim no longer makes one of the comparisons.
    """
    found = {
        (row.claim.number, comparison.what): comparison
        for row in rows
        for comparison in row.claim.comparisons
    }
    panels: dict[str, dict[str, Comparison]] = {}
    for key, (panel, name) in DRAWN.items():
        if key not in found:
            raise BookError(
                f"claim {key[0]} does not compare {key[1]!r}: name another one in _scripts/summary.py"
            )
        panels.setdefault(panel, {})[name] = found[key]
    return panels


def panels_sum(panels: Mapping[str, Mapping[str, Comparison]]) -> str:
    """One sum of all that the picture shows, in the precision in which it can be seen."""
    lines = [
        f"{panel}|{name}|{c.estimate:.4f}|{c.low:.4f}|{c.high:.4f}|{c.paper:.4f}|{c.word}|{c.rule}"
        for panel, rows in panels.items()
        for name, c in rows.items()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def picture_sum(book: Book) -> str:
    """The sum that the stored picture was drawn from; empty where there is none."""
    file = picture_file(book)
    found = SUM.search(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found[1] if found else ""


def draw_picture(rows: Sequence[ClaimRow]) -> str:
    """The picture as SVG, the same text for the same rows."""
    panels = picture_panels(rows)
    of_panels = {name: list(panels[panel].values()) for name, panel in (("synthetic", LOSS), ("real", AUC))}
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "summary", "backend": "svg"}):
        figure = gain_dots(panels, gain_finding(of_panels))
        metadata = {"Date": None, "Creator": None, "Source": f"data/results, sum {panels_sum(panels)}"}
        figure.savefig(buffer, format="svg", metadata=metadata)
    return re.sub(r"[ \t]+$", "", buffer.getvalue(), flags=re.MULTILINE)


def results_block(rows: Sequence[ClaimRow]) -> str:
    """The README's table of claims, with the markers around it."""
    lines = [
        "| The paper's claim | Verdict | For, against, open | What gives the word | Ours | Paper | Ours/paper | Matters from |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.claim.number}. [{row.title}](book/{row.chapter}) | **{row.claim.verdict}** | {row.claim.counts} "
        f"| {row.compared} | {row.statistic} | {row.paper} | {row.of_paper} | {row.matters} |"
        for row in rows
    ]
    return "\n".join([RESULTS_START, *lines, RESULTS_END])


def with_results(readme: str, rows: Sequence[ClaimRow]) -> str:
    """The README with its table of claims renewed.

    Raises:
        BookError: the markers are missing.
    """
    before, start, rest = readme.partition(RESULTS_START)
    _, end, after = rest.partition(RESULTS_END)
    if not start or not end:
        raise BookError(f"README.md: the lines {RESULTS_START!r} and {RESULTS_END!r} are missing")
    return before + results_block(rows) + after


def renew(book: Book) -> None:
    """Bring the README's table and picture up to date; a picture of the same numbers stays as it is."""
    rows = scorecard()
    readme = book.root / "README.md"
    text = readme.read_text(encoding="utf-8")
    renewed = with_results(text, rows)
    if renewed != text:
        readme.write_text(renewed, encoding="utf-8")
        print("README.md: results changed", flush=True)
    if picture_sum(book) != panels_sum(picture_panels(rows)):
        picture_file(book).write_text(draw_picture(rows), encoding="utf-8")
        print(f"{picture_file(book).name}: drawn", flush=True)


if __name__ == "__main__":
    try:
        renew(Book())
    except BookError as failure:
        sys.exit("\n".join(f"error: {line}" for line in failure.lines()))
