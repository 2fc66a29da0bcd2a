"""How much is run: the one table of counts. A preset changes counts, never the method."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Counts of everything that a chapter or a study runs.

    Attributes:
        name: "smoke" (seconds; stored outputs and tests), "laptop" (minutes) or "paper" (the paper's counts).
        label_correlation_trials: Trials a point of figure 2 (the paper: 100, of 10,000 examples each).
        synthetic_runs: Runs a setting of the synthetic study (the paper: 200).
        synthetic_steps: Minibatches of each.
        synthetic_batch_size: Rows of each minibatch.
        synthetic_chunk: Runs trained as one computation in a process of the study; on a GPU all are.
        synthetic_tuning_runs: Runs, reported nowhere, that choose among the learning rates.
        synthetic_tuning_steps: Minibatches of each of them.
        synthetic_choice_runs: Runs a setting where the unpublished choices are varied.
        synthetic_choice_steps: Minibatches of each of them.
        census_trials: Settings of a method that are tried on a group of tasks in tuning.
        census_tuning_runs: Runs of each, trained together.
        census_tuning_epochs: Passes over the training rows at most.
        census_seeds: Runs a method on Census-Income.
        census_chunk: Runs trained as one computation in a process of the study; on a GPU all are.
        census_choice_runs: Runs a setting where choices and traps are measured.
        census_train_rows: Random rows of the training file; None for all 199,523.
        census_test_rows: Random rows of the test file, before it is halved; None for all 99,762.
        census_epochs: Passes over the training rows in the chapter.
        correlation_repeats: Samples of 10,000 rows in which the census label correlation is measured.
    """

    name: str
    label_correlation_trials: int
    synthetic_runs: int
    synthetic_steps: int
    synthetic_batch_size: int
    synthetic_chunk: int
    synthetic_tuning_runs: int
    synthetic_tuning_steps: int
    synthetic_choice_runs: int
    synthetic_choice_steps: int
    census_trials: int
    census_tuning_runs: int
    census_tuning_epochs: int
    census_seeds: int
    census_chunk: int
    census_choice_runs: int
    census_train_rows: int | None
    census_test_rows: int | None
    census_epochs: int
    correlation_repeats: int


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("smoke", 10, 8, 1_500, 32, 4, 4, 1_500, 4, 500, 4, 2, 3, 4, 4, 2, 20_000, 10_000, 10, 50),
        Preset("laptop", 100, 24, 15_000, 32, 12, 4, 15_000, 4, 5_000, 12, 2, 6, 8, 8, 4, None, None, 4, 200),
        Preset(
            "paper",
            100,
            200,
            60_000,
            32,
            20,
            8,
            60_000,
            12,
            30_000,
            60,
            2,
            6,
            400,
            20,
            8,
            None,
            None,
            20,
            1_000,
        ),
    )
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}, expected one of {', '.join(PRESETS)}: choose one of these")
    return PRESETS[name]
