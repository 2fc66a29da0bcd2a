"""What `compare` found: tables, a sentence, and a page that opens without a network."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mmoe_lib.files import versions, write_whole


@dataclass(frozen=True, eq=False, repr=False)
class Advice:
    """What a comparison says of one frame.

    Attributes:
        advice: One sentence. It never comes from one run, and begins with "Open" where the runs do not tell.
        table: A row a target and method: metric, mean of the runs in points (1/100), low and high (95 %, of this row
            alone), runs, died, the learning rate that validation chose, parameters, seconds, note.
        verdicts: A row a target and claim, whether the second method beats the first: difference (second minus first,
            points), low, high (all hold together with 95 %), word, verdict (supports, contradicts, open), runs_needed
            until it would not be open, smallest.
        gates: A row a target: the largest mean weight of an expert in MMoE, and the entropy of its gate as a share of
            an even one's; means over runs, and over the classes of a target.
        pairs: A row a pair: gate_distance, the mean total variation between two gates; gradient_cosine on shared
            weights after one pass; with an atlas, the share of its pairs of a lower cosine, and what MMoE gained on the
            ten nearest over separate networks, in points: mean, least, most.
        scores: What each run scored: target, method, run, value.
        notes: What the library warned of on the way.
        rows: Training, validation and test rows.
        level: Of confidence of one interval of the verdicts.
        seconds: Of all.
    """

    advice: str
    table: pd.DataFrame
    verdicts: pd.DataFrame
    gates: pd.DataFrame
    pairs: pd.DataFrame
    scores: pd.DataFrame
    notes: tuple[str, ...]
    rows: tuple[int, int, int]
    level: float
    seconds: float
    written_by: dict[str, str] = field(default_factory=versions)

    def __repr__(self) -> str:
        shown = (
            self.table[["target", "method", "metric", "mean", "low", "high", "died", "note"]],
            self.verdicts[["target", "claim", "difference", "low", "high", "verdict"]],
            self.pairs,
        )
        tables = [frame.to_string(index=False, float_format="{:.3f}".format, na_rep="") for frame in shown]
        return "\n\n".join([self.advice, *tables, f"{len(self.notes)} notes, {self.seconds:.0f} s"])

    def to_html(self, path: Path | str) -> None:
        """Write a page of its own, whole or not at all: tables and intervals, nothing loaded from elsewhere.

        Raises:
            OSError: If the file cannot be written; there is then none, or still the one that was there.
        """
        train, validation, test = self.rows
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes) or "<li>none</li>"
        made = ", ".join(f"{name} {version}" for name, version in self.written_by.items())
        page = _PAGE.format(
            advice=html.escape(self.advice),
            verdicts=_table(
                self.verdicts.drop(columns=["first", "second", "word"]).assign(
                    runs_needed=self.verdicts["runs_needed"].map("{:,.0f}".format)
                )
            ),
            figure=_figure(self.verdicts),
            table=_table(self.table),
            gates=_table(self.gates.reset_index()),
            pairs=_table(self.pairs),
            notes=notes,
            told=html.escape(
                f"{train:,} training, {validation:,} validation and {test:,} test rows; {self.seconds:.0f} s; {made}. "
                f"Each interval of a claim has {100 * self.level:.1f} %, so that all hold together with 95 %."
            ),
        )
        write_whole(Path(path), page.encode())


def _table(frame: pd.DataFrame) -> str:
    return frame.to_html(index=False, border=0, na_rep="", float_format="{:.3f}".format, escape=True)


def _figure(verdicts: pd.DataFrame) -> str:
    """A row a claim: its interval, against no difference and the band of what is too small to matter."""
    known = verdicts.dropna(subset=["low"])
    reach = max([1e-9, *known[["low", "high"]].abs().max(axis=1), *(2 * known["smallest"])])
    wide, left, step = 720, 330, 22

    def at(value: float) -> float:
        return left + (wide - left) * (0.5 + 0.48 * value / reach)

    lines = []
    for place, row in enumerate(known.itertuples(index=False)):
        y = step * place + step / 2
        small = at(float(row.smallest)) - at(0.0)  # type: ignore[arg-type]
        low, high, middle = (at(float(value)) for value in (row.low, row.high, row.difference))  # type: ignore[arg-type]
        lines.append(
            f'<rect x="{at(0.0) - small:.1f}" y="{y - step / 2}" width="{2 * small:.1f}" height="{step}" class="band"/>'
            f'<text x="0" y="{y + 4}">{html.escape(f"{row.target}: {row.claim}")}</text>'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/><circle cx="{middle:.1f}" cy="{y}" r="4"/>'
        )
    height = step * len(known)
    ends = f"{-reach:.2f}", "0", f"{reach:.2f}"
    marks = "".join(
        f'<text x="{at(value * reach):.1f}" y="{height + 16}" text-anchor="middle">{text}</text>'
        for value, text in zip((-0.9, 0, 0.9), ends, strict=True)
    )
    zero = f'<line x1="{at(0.0)}" x2="{at(0.0)}" y1="0" y2="{height}" class="zero"/>'
    return (
        f'<svg role="img" aria-label="differences with intervals" viewBox="0 0 {wide} {height + 22}">'
        f"{''.join(lines)}{zero}{marks}</svg>"
    )


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Will it help on my data?</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
.advice {{ font-size: 1.25rem; border-left: 4px solid #0a7; padding-left: 1rem; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 0.875rem; }}
th, td {{ padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid #8886; }}
svg {{ width: 100%; max-width: 45rem; font-size: 13px; }}
svg text {{ fill: currentColor; }} svg line {{ stroke: currentColor; stroke-width: 2; }}
svg circle {{ fill: #0a7; }} svg .zero {{ stroke-width: 1; }} svg .band {{ fill: #8884; }}
</style></head><body>
<h1>Will it help on my data?</h1>
<p class="advice">{advice}</p>
<h2>Claims</h2>
<p>Points of difference: right of 0 the claim holds; in the grey band a difference is too small to matter.</p>
<div>{figure}</div><div>{verdicts}</div>
<h2>Methods</h2>
<p>Points (1/100) of the metric on test rows that no setting was chosen by.</p>
<div>{table}</div>
<h2>What MMoE's gates do</h2>
<div>{gates}</div>
<h2>How the tasks get on</h2>
<div>{pairs}</div>
<h2>What was noticed</h2>
<ul>{notes}</ul>
<p><small>{told}</small></p>
</body></html>
"""
