"""Tuning of the census methods as in section 6.3: Gaussian-process search on validation AUC, and a few fixed trials.

Each pair of a method and a group of tasks is one optuna study. Its trials are drawn one after another, each from
a sampler that is seeded with the trial's number, so the table depends neither on the number of workers nor on how
often the study was stopped. Each has a journal of its own, which one process at a time goes on with.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor

from companion.checkout import ROOT
from companion.study.cells import Cell, NoChoices
from companion.study.census import CensusSource, Chosen, train_runs
from companion.study.presets import Preset
from companion.study.search_space import (
    LEARNING_RATE,
    METHODS,
    SEARCH_SPACE,
    Range,
    build,
    largest,
    search_space_table,
    settings_text,
)
from mmoe_lib.metrics import auc
from mmoe_lib.progress import progress_bar
from mmoe_lib.tasks.census import GROUPS, CensusData
from mmoe_lib.training import DivergedError, Ensemble

if TYPE_CHECKING:
    import optuna
    from optuna.storages.journal import JournalFileBackend

TUNING_SEED = 10_000
"""Seeds from here on choose settings; the reported runs have seeds of their own."""

RANDOM_TRIALS = 10
"""Trials drawn at random before the Gaussian process has enough to learn from."""

FIXED_RATES = (1e-3, 2e-3, 4e-3, 8e-3)
"""Learning rates that every method also tries at the largest size of its search space, as its last trials.

A check on the search: sixty trials of two runs could miss what is plainly there, and the method would be blamed for it.
"""

PATIENCE = 2
"""Epochs without a better validation AUC after which a trial stops, the same for every method."""


@dataclass(frozen=True)
class Pair:
    """A method on a group of tasks."""

    method: str
    group: str


PAIRS = tuple(Pair(method, group) for group in GROUPS for method in METHODS)


def storage_of(preset: Preset, results: Path) -> Path:
    """Where the trials of a preset are kept while a study is under way: data/cache for data/results, else beside."""
    beside = results.parent / "cache" if results == ROOT / "data" / "results" else results
    return beside / "tuning" / f"census-{preset.name}"


def tuning_cells(preset: Preset) -> list[Cell[NoChoices]]:
    """A search for every pair; its seeds are the numbers of its trials."""
    trials = tuple(range(trials_of(preset)))
    return [Cell(pair.method, pair.group, 0.0, trials, NoChoices(), search=True) for pair in PAIRS]


def run(
    cell: Cell[NoChoices],
    preset: Preset,
    source: CensusSource,
    storage: Path,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """The rows of one search, as `tune` gives them.

    Args:
        cell: One of `tuning_cells`.
        preset: Gives the numbers of trials, runs a trial and epochs.
        source: Of the data.
        storage: Folder of the journals.
        device: Where to train.
    """
    journal = storage / f"{cell.model} {cell.setting}.journal"
    return tune(Pair(cell.model, cell.setting), preset, source, journal, str(device))


def trials_of(preset: Preset) -> int:
    """How many settings of each method are tried: those of the search, and those at fixed rates."""
    return preset.census_trials + len(FIXED_RATES)


def tune(
    pair: Pair,
    preset: Preset,
    source: CensusSource,
    storage: Path,
    device: str = "cpu",
    *,
    progress: bool = False,
) -> pd.DataFrame:
    """Bring the trials of one pair to the preset's number.

    Of several processes that tune one pair, one works and the others wait for its trials.

    Args:
        pair: Of method and group.
        preset: Gives the numbers of trials, runs a trial and epochs.
        source: Of the data.
        storage: The pair's journal, from which a search that was stopped goes on.
        device: Where to train.
        progress: Show a progress bar.

    Returns:
        One row a trial: model, setting (the group), learning_rate, seed (the trial's number), settings, state
        ("complete", "pruned" or "diverged"), validation_auc, epochs (after which it was reached), auc_1, auc_2, ...
        (the main task's validation AUC after each epoch, mean of the trial's runs), seconds.

    Raises:
        ValueError: If the storage is none, or holds trials of another study.
        OSError: If it cannot be written; what it holds is kept.
    """
    storage.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(storage.with_name(f".{storage.name}.lock")):
        return _tuned(pair, preset, source, storage, device, progress=progress)


def _tuned(
    pair: Pair, preset: Preset, source: CensusSource, storage: Path, device: str, *, progress: bool
) -> pd.DataFrame:
    mend_journal(storage)
    data = source.data(pair.group)
    study = _open(pair, preset, source, storage)
    for trial in study.get_trials(deepcopy=False):
        # A study that was killed left one half-done, or did all but tell; one that waits is taken up as it is.
        if not trial.state.is_finished() and trial.state != _states().WAITING:
            _tell(study, trial.number, trial.user_attrs)
    done = len(_ended(study))
    with progress_bar(
        total=trials_of(preset), label=f"{pair.method}, {pair.group}", unit="trial", show=progress
    ) as bar:
        bar.update(done)
        for number in range(done, trials_of(preset)):
            _one_trial(study, number, pair, preset, data, device)
            bar.update(1)
    return pd.DataFrame(
        [_row(pair, number, trial, preset) for number, trial in enumerate(_ended(study)[: trials_of(preset)])]
    )


def mend_journal(storage: Path) -> None:
    """Take away a last line that is not whole: a disk was full, or the machine stopped, as it was written.

    What it told is then told anew; with the line in place, the next would be written behind it and neither read.
    """
    if not storage.exists():
        return
    lines = storage.read_bytes()
    whole = lines.rfind(b"\n") + 1
    if whole < len(lines):
        os.truncate(storage, whole)


def _one_trial(
    study: optuna.Study, number: int, pair: Pair, preset: Preset, data: CensusData, device: str
) -> None:
    import optuna

    start = time.perf_counter()
    study.sampler = _sampler(number)
    searches = number < preset.census_trials
    if not searches and not study.get_trials(deepcopy=False, states=(_states().WAITING,)):
        study.enqueue_trial(
            {"learning_rate": FIXED_RATES[number - preset.census_trials]} | largest(pair.method)
        )
    trial = study.ask()
    rate = _suggest(trial, LEARNING_RATE)
    settings = {tuned.name: _suggest(trial, tuned) for tuned in SEARCH_SPACE[pair.method]}
    aucs: list[float] = []

    def evaluate(ensemble: Ensemble) -> dict[str, Tensor]:
        mean = validation_auc(ensemble, data).mean()
        aucs.append(round(float(mean), 6))
        trial.report(aucs[-1], len(aucs))
        if searches and trial.should_prune():
            raise optuna.TrialPruned
        return {"mean AUC": mean.expand(len(ensemble))}  # one for all: the runs of a trial stop together

    state = "complete"
    try:
        train_runs(
            build(pair.method, settings),
            data,
            range(TUNING_SEED, TUNING_SEED + preset.census_tuning_runs),
            learning_rate=rate,
            epochs=preset.census_tuning_epochs,
            device=device,
            evaluate=evaluate,
            monitor="mean AUC",
            patience=PATIENCE,
            progress=False,
        )
    except optuna.TrialPruned:
        state = "pruned"
    except DivergedError:
        state = "diverged"
    noted = {
        "settings": settings_text(settings),
        "learning_rate": rate,
        "aucs": aucs,
        "seconds": round(time.perf_counter() - start, 2),
        "state": state,  # the last: it says that the others are there
    }
    for name, value in noted.items():
        trial.set_user_attr(name, value)
    _tell(study, trial.number, noted)


def _tell(study: optuna.Study, number: int, noted: Mapping[str, Any]) -> None:
    """Tell the study how a trial ended, by what was noted of it."""
    if noted.get("state", "diverged") == "diverged":
        study.tell(number, state=_states().FAIL)
    else:
        # A trial that was stopped early counts with the best it reached: the Gaussian process would learn nothing
        # from optuna's own state for it.
        study.tell(number, max(noted["aucs"]))


def validation_auc(ensemble: Ensemble, data: CensusData) -> Tensor:
    """The main task's AUC on the validation half, one a run."""
    logits = ensemble.predict(data.x_validation.to(ensemble.device))
    if not bool(torch.isfinite(logits).all()):
        raise DivergedError("an output", 0, ensemble.seeds[0], 0, 0)
    return auc(logits[..., 0], data.y_validation[:, 0].to(ensemble.device))


def _suggest(trial: optuna.Trial, tuned: Range) -> int | float:
    if isinstance(tuned.low, int) and isinstance(tuned.high, int):
        return trial.suggest_int(tuned.name, tuned.low, tuned.high, log=tuned.log)
    # Three digits, so that what stands in the file is what was trained.
    return float(f"{trial.suggest_float(tuned.name, tuned.low, tuned.high, log=tuned.log):.3g}")


def _sampler(number: int) -> optuna.samplers.BaseSampler:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=number, n_startup_trials=RANDOM_TRIALS)


def _open(pair: Pair, preset: Preset, source: CensusSource, storage: Path) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(_journal(storage)),
            study_name=f"{pair.method}, {pair.group}",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=RANDOM_TRIALS, n_warmup_steps=2),
        )
    except (ValueError, KeyError, TypeError) as error:  # whatever its parser meets
        raise ValueError(
            f"{storage.name} is no optuna journal, expected one or no file: move it away to start tuning anew"
        ) from error
    expected = {
        "search space": search_space_table().loc[pair.method].to_csv(),
        "runs": preset.census_tuning_runs,
        "epochs": preset.census_tuning_epochs,
        "data": source.sums(),
    }
    for name, value in expected.items():
        if name not in study.user_attrs and not study.get_trials(deepcopy=False):
            study.set_user_attr(name, value)
    for name, value in expected.items():
        if study.user_attrs.get(name) != value:
            raise ValueError(
                f"{storage.name} holds trials of another study: its {name} differ for {pair.method}, {pair.group}; "
                "move it away to start tuning anew"
            )
    return study


def _journal(storage: Path) -> JournalFileBackend:
    """The journal of a file; one that cannot be written says so and is left whole."""
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            try:
                super().append_logs(logs)
            except OSError as error:
                mend_journal(storage)
                raise OSError(
                    f"{storage.name} cannot be written ({error.strerror or error}), expected room for it: the trials "
                    "that it holds are kept, make room and start again"
                ) from error

    return Journal(str(storage))


def _states() -> type[optuna.trial.TrialState]:
    import optuna

    return optuna.trial.TrialState


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that ended by themselves, in their order; one that was killed is not among them."""
    return [trial for trial in study.get_trials(deepcopy=False) if "state" in trial.user_attrs]


def _row(pair: Pair, number: int, trial: optuna.trial.FrozenTrial, preset: Preset) -> dict[str, object]:
    noted = trial.user_attrs
    aucs: list[float] = noted["aucs"]
    trained = noted["state"] != "diverged"
    row: dict[str, object] = {
        "model": pair.method,
        "setting": pair.group,
        "learning_rate": noted["learning_rate"],
        "seed": number,
        "settings": noted["settings"],
        "state": noted["state"],
        "validation_auc": max(aucs) if trained else float("nan"),
        "epochs": aucs.index(max(aucs)) + 1 if trained else 0,
    }
    for epoch in range(preset.census_tuning_epochs):
        row[f"auc_{epoch + 1}"] = aucs[epoch] if epoch < len(aucs) else float("nan")
    return {**row, "seconds": noted["seconds"]}


def columns_of(preset: Preset) -> tuple[str, ...]:
    """What `run` gives beside the trial's number."""
    aucs = (f"auc_{epoch + 1}" for epoch in range(preset.census_tuning_epochs))
    return ("settings", "state", "validation_auc", "epochs", *aucs)


def best_settings(trials: pd.DataFrame) -> dict[tuple[str, str], Chosen]:
    """For each method and group the setting with the highest validation AUC of the main task.

    A trial that was pruned or that diverged is never the best.

    Args:
        trials: Rows of `data/results/census_tuning.csv`, of one preset.

    Raises:
        ValueError: If a pair has no trial that was trained to its end, or its best settings are no model.
    """
    chosen: dict[tuple[str, str], Chosen] = {}
    for model, group in dict.fromkeys(zip(trials["model"], trials["setting"], strict=True)):
        rows = trials[(trials["model"] == model) & (trials["setting"] == group)]
        ended = rows[(rows["state"] == "complete") & rows["validation_auc"].notna()]
        if ended.empty:
            raise ValueError(
                f"{model}, {group}: no trial was trained to its end, expected one: allow lower learning rates"
            )
        best = ended.loc[ended["validation_auc"].idxmax()]
        setting = Chosen(
            model, group, float(best["learning_rate"]), int(best["epochs"]), str(best["settings"])
        )
        setting.builder()  # refuses a damaged row before anything is trained with it
        chosen[model, group] = setting
    return chosen
