"""The synthetic study: figures 2 to 5, and what the paper leaves open."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from companion.study import label_correlation, synthetic, universes
from companion.study.plan import Part, Stacked, Study
from companion.study.presets import Preset


def _parts(preset: Preset, folder: Path) -> list[Part]:
    run, together = synthetic.run, Stacked(synthetic.alike, synthetic.run_stack)
    tuning = Part("synthetic_tuning.csv", lambda _: synthetic.tuning_cells(preset), run, together)
    return [
        tuning,
        Part(
            "synthetic.csv",
            lambda rows: synthetic.reported_cells(preset, synthetic.chosen_rates(rows)),
            run,
            together,
            after=tuning,
        ),
        Part(
            "synthetic_parts.csv",
            lambda rows: synthetic.part_cells(preset, synthetic.chosen_rates(rows)),
            synthetic.run_parts,
            Stacked(synthetic.alike, synthetic.run_parts_of_stack),
            after=tuning,
        ),
        Part(
            "synthetic_labels.csv",
            lambda _: label_correlation.label_cells(preset),
            label_correlation.run_labels,
            after=tuning,
        ),
        Part(
            "synthetic_choices.csv",
            lambda rows: synthetic.choice_cells(preset, synthetic.chosen_rates(rows)),
            run,
            together,
            after=tuning,
        ),
        Part("synthetic_slide.csv", lambda _: synthetic.slide_cells(preset), run, together, after=tuning),
        Part(
            "synthetic_controls.csv",
            lambda _: universes.calibrated_control_cells(preset),
            universes.run_short,
            Stacked(synthetic.alike, universes.run_short_stack),
            after=tuning,
        ),
        Part(
            "synthetic_noise.csv",
            lambda _: universes.noise_cells(preset, "calibrated", preset.synthetic_batch_size),
            partial(universes.run_short, label=universes.noisy_label),
            Stacked(synthetic.alike, partial(universes.run_short_stack, label=universes.noisy_label)),
            after=tuning,
        ),
    ]


SYNTHETIC = Study("synthetic", _parts)
