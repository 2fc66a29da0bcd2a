"""The page's judge of a reader's own runs: paste numbers, see intervals, a word about size and what a rerun would show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from companion.figures.interactive.fragment import Interactive, fragment
from companion.figures.style import COLOURS, WIDTH, finish, theme


def own_runs(
    example: Mapping[str, Sequence[float]], smallest: float, picture: str | None = None
) -> Interactive:
    """The interactive figure, with an example in its field.

    Args:
        example: One number a run of each method.
        smallest: The difference that matters, at the start.
        picture: The name of the figure that `own_runs_picture` is in the book.
    """
    lines = [f"{name}: {', '.join(f'{value:g}' for value in values)}" for name, values in example.items()]
    controls: list[dict[str, Any]] = [
        {
            "kind": "area",
            "name": "runs",
            "label": "results: a line a method, or columns with names above",
            "rows": 5,
            "start": "\n".join(lines),
        },
        {
            "kind": "number",
            "name": "smallest",
            "label": "smallest difference that matters to you",
            "min": 0,
            "step": 0.001,
            "start": smallest,
        },
        {
            "kind": "number",
            "name": "dead",
            "label": "a run that learned nothing has (may be empty)",
            "step": 0.5,
            "start": None,
        },
        {
            "kind": "check",
            "name": "paired",
            "label": "run r of all methods has the same seed",
            "start": False,
        },
    ]
    names = list(example)
    pairs = len(names) * (len(names) - 1) // 2
    widest = max(names, key=len)
    longest = [
        f"{widest} minus {widest}: -0.0000 [-0.0000, -0.0000]: no difference of 0.0000 or more. One run decides that: "
        "leave it out and the word is another. As many new runs show the other order with a chance of 00.0 %. "
        "About 1000 runs of each decide, 1000 more, if means and spreads stay."
    ] * pairs
    longest += [f"{widest}: 10 of 10 runs died (00.0 % to 00.0 %) and are not in its mean."] * len(names)
    longest.append(
        "Intervals of 00.0 % each so that all 10 together hold with 95 %; runs not paired by seed. "
        "Runs within 0.0000 of -00.0 count as died."
    )
    caption = (
        "Put the results of your own runs into the field: nothing leaves this page. A dot a run, a line the mean; "
        "rings are runs that died or lie far from the others. A difference is called larger or smaller when its "
        "interval excludes 0 and it reaches the smallest that matters, no difference when the whole interval lies "
        "below that, else open."
    )
    elsewhere = (
        "In the HTML book and on Colab a reader can paste results here; the picture above shows the example."
    )
    return fragment(
        "own-runs",
        ("run_statistics.js", "own_runs.js"),
        {"longest": longest},
        controls,
        caption,
        elsewhere=elsewhere,
        picture=picture,
        styles=("own_runs.css",),
    )


def own_runs_picture(example: Mapping[str, Sequence[float]], finding: str) -> Figure:
    """Every run as a dot and the means, as the interactive figure draws them.

    Args:
        example: One number a run of each method.
        finding: The title.
    """
    with theme():
        figure, axis = plt.subplots(figsize=(WIDTH, 0.7 * len(example) + 0.9))
        for row, (name, values) in enumerate(example.items()):
            heights = row + np.linspace(-0.25, 0.25, len(values))
            axis.plot(values, heights, "o", ms=4, alpha=0.7, color=COLOURS.get(name, "#0550AE"))
            axis.plot([np.mean(values)] * 2, [row - 0.38, row + 0.38], color="#333333", lw=2)
        axis.set(yticks=range(len(example)), yticklabels=list(example), xlabel="result of a run")
        axis.invert_yaxis()
        return finish(figure, finding)
