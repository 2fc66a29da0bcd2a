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
        synthetic_slide_runs: Runs a correlation where p goes from 0 to 1 in small steps.
        synthetic_slide_steps: Minibatches of each of them.
        nearest_runs: Runs a model and correlation in the universes nearest to the paper's figures.
        nearest_steps: Minibatches of each of them.
        control_runs: Runs of every control of the mixture, and of separate networks.
        control_steps: Minibatches of each of them in the calibrated universe.
        noise_runs: Runs of each setting with noisier labels.
        noise_steps: Minibatches of each of them.
        varied_runs: Runs of each setting where one choice of the nearest universe is changed.
        universes: Labels that meet figure 2, each with choices of its own.
        other_universes: Labels that do not, a third each of three kinds.
        universe_runs: Runs a model and correlation in each of them.
        universe_steps: Minibatches of each of them.
        long_universes: Universes in which runs are trained on.
        long_steps: Minibatches of each of those.
        census_trials: Settings of a method that are tried on a group of tasks in tuning.
        census_tuning_runs: Runs of each, trained together.
        census_tuning_epochs: Passes over the training rows at most.
        census_seeds: Runs a method on Census-Income.
        census_chunk: Runs trained as one computation in a process of the study; on a GPU all are.
        census_choice_runs: Runs a setting where choices and traps are measured.
        specifications: Draws of all that is open on Census-Income, on both groups of tasks.
        specification_runs: Runs of a model under each.
        atlas_pairs: Pairs of tasks of the atlas.
        atlas_runs: Runs of a model on each.
        atlas_rows: Random rows of the training file for them; None for all.
        census_train_rows: Random rows of the training file; None for all 199,523.
        census_test_rows: Random rows of the test file, before it is halved; None for all 99,762.
        census_epochs: Passes over the training rows in the chapter.
        kuairand_users: Random users whose impressions are taken, and users of the stand-in; None for all 27,285.
        kuairand_epochs: Passes over the training rows; it is judged after one, two and three thirds.
        kuairand_seeds: Runs a method and optimiser on KuaiRand.
        kuairand_chunk: Runs trained as one computation in a process of the study; on a GPU all are.
        kuairand_tuning_runs: Runs that choose among the learning rates, reported nowhere.
        kuairand_gate_runs: Runs with gate dropout.
        extension_runs: Runs a model of chapter 6 on the synthetic tasks.
        extension_census_runs: Runs a model of chapter 6 on Census-Income.
        extension_steps: Minibatches of each on the synthetic tasks.
        extension_tuning_runs: Runs on the synthetic tasks that choose among learning rates, reported nowhere; on
            Census-Income as many as in its tuning.
        extension_small_runs: Runs a model and setting where correlations or numbers of tasks are varied.
        extension_unit_runs: Runs a balancer where one synthetic task is measured in another unit.
        rare_draws: Draws of the positives that are kept, a run each.
        rare_tuning_runs: Runs that choose among rates and weights, reported nowhere.
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
    synthetic_slide_runs: int
    synthetic_slide_steps: int
    nearest_runs: int
    nearest_steps: int
    control_runs: int
    control_steps: int
    noise_runs: int
    noise_steps: int
    varied_runs: int
    universes: int
    other_universes: int
    universe_runs: int
    universe_steps: int
    long_universes: int
    long_steps: int
    census_trials: int
    census_tuning_runs: int
    census_tuning_epochs: int
    census_seeds: int
    census_chunk: int
    census_choice_runs: int
    specifications: int
    specification_runs: int
    atlas_pairs: int
    atlas_runs: int
    atlas_rows: int | None
    census_train_rows: int | None
    census_test_rows: int | None
    census_epochs: int
    kuairand_users: int | None
    kuairand_epochs: int
    kuairand_seeds: int
    kuairand_chunk: int
    kuairand_tuning_runs: int
    kuairand_gate_runs: int
    extension_runs: int
    extension_census_runs: int
    extension_steps: int
    extension_tuning_runs: int
    extension_small_runs: int
    extension_unit_runs: int
    rare_draws: int
    rare_tuning_runs: int
    correlation_repeats: int


# fmt: off
_COUNTS: dict[str, tuple[int | None, int | None, int | None]] = {
    # count                    smoke    laptop    paper
    "label_correlation_trials": (10,    100,      100),
    "synthetic_runs":           (8,     24,       200),
    "synthetic_steps":          (1_500, 15_000,   60_000),
    "synthetic_batch_size":     (32,    32,       32),
    "synthetic_chunk":          (4,     12,       20),
    "synthetic_tuning_runs":    (4,     4,        8),
    "synthetic_tuning_steps":   (1_500, 15_000,   60_000),
    "synthetic_choice_runs":    (4,     4,        12),
    "synthetic_choice_steps":   (500,   5_000,    30_000),
    "synthetic_slide_runs":     (4,     4,        12),
    "synthetic_slide_steps":    (500,   5_000,    30_000),
    "nearest_runs":             (2,     12,       200),
    "nearest_steps":            (200,   15_000,   117_000),
    "control_runs":             (2,     12,       200),
    "control_steps":            (100,   15_000,   60_000),
    "noise_runs":               (2,     8,        40),
    "noise_steps":              (100,   5_000,    30_000),
    "varied_runs":              (2,     4,        40),
    "universes":                (2,     12,       120),
    "other_universes":          (3,     3,        30),
    "universe_runs":            (2,     6,        12),
    "universe_steps":           (200,   10_000,   30_000),
    "long_universes":           (1,     1,        20),
    "long_steps":               (400,   30_000,   150_000),
    "census_trials":            (4,     12,       60),
    "census_tuning_runs":       (2,     2,        2),
    "census_tuning_epochs":     (3,     6,        6),
    "census_seeds":             (4,     8,        400),
    "census_chunk":             (4,     8,        10),
    "census_choice_runs":       (2,     4,        8),
    "specifications":           (2,     8,        48),
    "specification_runs":       (2,     4,        10),
    "atlas_pairs":              (4,     12,       160),
    "atlas_runs":               (2,     4,        8),
    "atlas_rows":               (4_000, 20_000,   50_000),
    "census_train_rows":        (20_000, None,    None),
    "census_test_rows":         (10_000, None,    None),
    "census_epochs":            (10,    4,        6),
    "kuairand_users":           (1_000, None,     None),
    "kuairand_epochs":          (3,     3,        3),
    "kuairand_seeds":           (4,     4,        40),
    "kuairand_chunk":           (4,     4,        10),
    "kuairand_tuning_runs":     (2,     2,        2),
    "kuairand_gate_runs":       (4,     4,        20),
    "extension_runs":           (4,     8,        20),
    "extension_census_runs":    (4,     4,        20),
    "extension_steps":          (500,   5_000,    30_000),
    "extension_tuning_runs":    (2,     2,        4),
    "extension_small_runs":     (2,     4,        12),
    "extension_unit_runs":      (2,     4,        10),
    "rare_draws":               (4,     4,        8),
    "rare_tuning_runs":         (2,     2,        2),
    "correlation_repeats":      (50,    200,      1_000),
}
# fmt: on

PRESETS = {
    name: Preset(name, **{count: values[column] for count, values in _COUNTS.items()})  # type: ignore[arg-type]
    for column, name in enumerate(("smoke", "laptop", "paper"))
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}, expected one of {', '.join(PRESETS)}: choose one of these")
    return PRESETS[name]
