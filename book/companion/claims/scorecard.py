"""The twelve claims of the paper and their verdicts, from the stored runs: one function, one row per claim.

Nothing is written down twice: statistics, counts, data and commands come from the rows of `data/results/`, so that a
changed result changes the verdict on every page that shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from companion.claims.census import claim_9
from companion.claims.claim import VERDICTS, Claim, ratio_text
from companion.claims.recommendation import claim_10, claim_11, claim_12
from companion.claims.synthetic import claim_8, synthetic_claims
from companion.results import (
    balanced,
    histogram_runs,
    paper_losses,
    read_paper,
    read_results,
    show_interval,
)


@dataclass(frozen=True)
class _Shown:
    """How a claim is shown: its short name, where its rows and its figure are, and the unit of its headline."""

    title: str
    results: str
    chapter: str
    figure: str
    unit: str
    digits: int


# fmt: off
_SHOWN = {
    1: _Shown("Shared-Bottom's loss falls as tasks are more related",
        "synthetic", "01_baseline.ipynb", "fig-shared-bottom-200", "", 3),
    2: _Shown("So does every model's",
        "synthetic", "03c_calibrated.ipynb", "fig-mean-loss", "", 3),
    3: _Shown("MMoE's gap between correlations is the smallest",
        "synthetic", "03c_calibrated.ipynb", "fig-mean-loss", "", 3),
    4: _Shown("Both mixtures beat Shared-Bottom",
        "synthetic", "03c_calibrated.ipynb", "fig-mean-loss", "", 3),
    5: _Shown("Shared-Bottom's runs spread the most",
        "synthetic", "03c_calibrated.ipynb", "fig-histograms", "", 2),
    6: _Shown("OMoE is as robust as MMoE at 1, less at 0.5",
        "synthetic", "03c_calibrated.ipynb", "fig-histograms", "", 2),
    7: _Shown("The best runs of all models are comparable",
        "synthetic", "03c_calibrated.ipynb", "fig-histograms", "", 3),
    8: _Shown("Weight cosine stands in for label correlation",
        "synthetic_labels", "01_baseline.ipynb", "fig-correlation", "", 3),
    9: _Shown("Census: MMoE is best, Shared-Bottom among the worst",
        "census", "04_census.ipynb", "fig-census-income", "AUC points", 2),
    10: _Shown("Recommendation: MMoE is best",
        "kuairand", "05_recommendation.ipynb", "fig-checkpoints", "AUC points", 2),
    11: _Shown("The rare task's gate concentrates",
        "kuairand", "05_recommendation.ipynb", "fig-gates", "", 3),
    12: _Shown("MMoE is as cheap to serve as Shared-Bottom",
        "benchmark_serving", "05b_serving.ipynb", "fig-serving", "", 2),
}
# fmt: on

RESULTS = tuple(dict.fromkeys(shown.results for shown in _SHOWN.values()))
"""The files of `data/results/` behind the scorecard."""


@dataclass(frozen=True)
class ClaimRow:
    """A claim as the scorecard shows it.

    Attributes:
        claim: With its comparisons, runs and verdict.
        title: In a few words.
        results: The file of `data/results/` that it was computed from, without its ending.
        data: "synthetic", "real", "simulated", or "measured" for what was timed.
        commands: What was typed to make the rows, from the rows.
        chapter: The notebook that treats it.
        figure: The name of the figure there that shows it.
        unit: Of the headline; empty where it is a loss, a ratio or a share, as its words say.
        digits: With which the headline is shown.
    """

    claim: Claim
    title: str
    results: str
    data: str
    commands: tuple[str, ...]
    chapter: str
    figure: str
    unit: str
    digits: int

    @property
    def compared(self) -> str:
        """What the headline compares, with its unit where the words do not say it."""
        return self.claim.headline_comparison.what + (f" ({self.unit})" if self.unit else "")

    @property
    def statistic(self) -> str:
        """Our estimate of the headline with its interval."""
        shown = self.claim.headline_comparison
        return show_interval(shown.estimate, shown.low, shown.high, digits=self.digits)

    @property
    def paper(self) -> str:
        """The paper's number for the headline; empty where it prints and draws none."""
        number = self.claim.headline_comparison.paper
        return "" if pd.isna(number) else f"{number:.{self.digits}f}"

    @property
    def of_paper(self) -> str:
        """Our headline effect over the paper's; empty where the claim is that there is none."""
        return ratio_text(self.claim.headline_comparison.of_paper)

    @property
    def matters(self) -> str:
        """From where on the headline matters, with what must be said beside it."""
        shown = self.claim.headline_comparison
        note = f" ({shown.note})" if shown.note else ""
        return shown.rule.shown(self.digits) + note

    @property
    def runs(self) -> str:
        """How many runs of each setting, by what a run is here, and how many of all died."""
        name = {"synthetic_labels": "trials per cosine", "benchmark_serving": "rounds"}
        died = f", died {self.claim.died_text}" if self.claim.died else ""
        return f"{self.claim.runs} {name.get(self.results, 'runs per setting')}{died}"

    @property
    def link(self) -> str:
        """Where its figure is; outside the built pages the part behind # is ignored."""
        return f"{self.chapter}#{self.figure}"


def scorecard(folder: Path | None = None, *, preset: str = "paper") -> tuple[ClaimRow, ...]:
    """The claims 1 to 12 with their verdicts, from stored runs.

    Of studies that are under way, the runs are taken that every method has.

    Args:
        folder: Of the CSV files; None for the repository's `data/results/`.
        preset: Whose rows are taken; benchmarks have none.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file lacks a setting, or has no rows of the preset.
    """
    rows = {name: _read(folder, name, None if name.startswith("benchmark") else preset) for name in RESULTS}
    printed = histogram_runs(read_paper("figure5_final_loss_histogram"))
    ranking = balanced(rows["kuairand"])
    claims = [
        *synthetic_claims(rows["synthetic"], paper_losses(), printed),
        _claim_8(rows["synthetic_labels"]),
        claim_9(balanced(rows["census"])),
        claim_10(ranking),
        claim_11(ranking),
        claim_12(rows["benchmark_serving"]),
    ]
    return tuple(_row(claim, rows[_SHOWN[claim.number].results]) for claim in claims)


def _read(folder: Path | None, name: str, preset: str | None) -> pd.DataFrame:
    # An absolute path takes the place of the repository's folder.
    return read_results(name if folder is None else str(folder.resolve() / name), preset)


def _claim_8(rows: pd.DataFrame) -> Claim:
    samples = {
        float(str(cosine)): group.sort_values("seed")["label_correlation"].tolist()
        for cosine, group in rows.groupby("weight_cosine")
    }
    figure = read_paper("figure2_label_correlation")
    return claim_8(samples, dict(zip(figure["weight_cosine"], figure["label_correlation_mean"], strict=True)))


def _row(claim: Claim, rows: pd.DataFrame) -> ClaimRow:
    shown = _SHOWN[claim.number]
    return ClaimRow(
        claim=claim,
        title=shown.title,
        results=shown.results,
        data=_data(shown.results, rows),
        commands=tuple(dict.fromkeys(rows["command"])),
        chapter=shown.chapter,
        figure=shown.figure,
        unit=shown.unit,
        digits=shown.digits,
    )


def _data(results: str, rows: pd.DataFrame) -> str:
    """What kind of data rows are about, by their own column; sums of files are real data."""
    if results.startswith("benchmark"):
        return "measured"
    origins = set(rows["data"].astype(str))
    if any("simulated" in origin for origin in origins):
        return "simulated"
    return "synthetic" if origins == {"synthetic"} else "real"


def verdict_counts(rows: Sequence[ClaimRow]) -> dict[str, int]:
    """How many claims have each verdict, in the order of `VERDICTS`."""
    return {verdict: sum(row.claim.verdict == verdict for row in rows) for verdict in VERDICTS}


def scorecard_markdown(rows: Sequence[ClaimRow]) -> str:
    """The whole scorecard as a table: claim, verdict with counts, headline, paper's, from where it matters, runs, figure."""
    return _table(
        ("Claim", "Verdict", "Headline", "Ours", "Paper", "Ours/paper", "Matters from", "Runs", "Figure"),
        [
            (
                f"**{row.claim.number}.** {row.claim.statement}",
                f"**{_capital(row.claim.verdict)}**; {row.claim.counts}",
                row.compared,
                row.statistic,
                row.paper,
                row.of_paper,
                row.matters,
                f"{row.runs}, {row.data}",
                _linked(row),
            )
            for row in rows
        ],
    )


def commands_markdown(rows: Sequence[ClaimRow]) -> str:
    """The command behind each claim as a table; claims from the same file and command share a row."""
    claims: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for command in row.commands:
            claims.setdefault((command, row.results), []).append(str(row.claim.number))
    return _table(
        ("Claims", "Rows in", "Made by"),
        [
            (", ".join(numbers), f"`data/results/{results}.csv`", f"`{command}`")
            for (command, results), numbers in claims.items()
        ],
    )


def short_scorecard_markdown(rows: Sequence[ClaimRow]) -> str:
    """The scorecard for the opening page: claim, verdict with counts, headline, paper's, figure."""
    return _table(
        ("Claim", "Verdict", "Headline", "Ours", "Paper", "Figure"),
        [
            (
                f"**{row.claim.number}.** {row.title}",
                f"**{_capital(row.claim.verdict)}**; {row.claim.counts}",
                row.compared,
                row.statistic,
                row.paper,
                _linked(row),
            )
            for row in rows
        ],
    )


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _linked(row: ClaimRow) -> str:
    return f"[chapter {int(row.chapter[:2])}]({row.link})"
