"""Tuning of the census methods as in section 6.3: Gaussian-process search on validation AUC, and a few fixed trials.

Each pair of a method and a group of tasks is one optuna study. Its trials are drawn one after another, each from
a sampler that is seeded with the trial's number, so the table depends neither on the number of workers nor on how
often the study was stopped. The studies of all pairs lie in one storage file, which workers share.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from companion.checkout import ROOT
from companion.study.cells import Cell, append_rows, read_rows
from companion.study.census import CensusSource, Chosen, train_runs
from companion.study.origin import Origin
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
from companion.study.workers import Workers
from mmoe_lib.metrics import auc
from mmoe_lib.progress import progress_bar
from mmoe_lib.tasks.census import GROUPS, CensusData
from mmoe_lib.training import DivergedError, Ensemble

if TYPE_CHECKING:
    import optuna

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
    return beside / "tuning" / f"census-{preset.name}.journal"


def tune_all(
    preset: Preset,
    source: CensusSource,
    path: Path,
    storage: Path,
    origin: Origin,
    *,
    device: str = "cpu",
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Tune every pair whose trials are not all in the file; its rows are added when its last trial has ended.

    Args:
        preset: Gives the numbers of trials, runs a trial and epochs.
        source: Of the data.
        path: The CSV file of trials.
        storage: optuna's journal file, from which a study that was stopped goes on.
        origin: Goes into every row.
        device: Where to train.
        workers: Processes; each tunes one pair at a time.
        progress: Show a progress bar.

    Returns:
        All rows of the file.

    Raises:
        ValueError: If the storage holds trials of another study.
        WorkerDiedError: If a worker process died.
    """
    waiting = waiting_pairs(read_rows(path), preset)
    if waiting:
        storage.parent.mkdir(parents=True, exist_ok=True)
        work = partial(tune, preset=preset, source=source, storage=storage, device=device)
        side_by_side = workers > 1 and len(waiting) > 1
        results: Iterator[tuple[Pair, pd.DataFrame]] = (
            iter(Workers(work, workers).results(waiting))
            if side_by_side
            else ((pair, work(pair, progress=progress)) for pair in waiting)
        )
        with progress_bar(total=len(waiting), label=path.stem, unit="method", show=progress) as bar:
            for pair, found in results:
                found = found[~found["seed"].isin(_there(read_rows(path), pair, preset))]
                seconds = found.pop("seconds")
                _append(path, found.assign(**origin.columns(), seconds=seconds))
                bar.update(1)
    return read_rows(path)


def waiting_pairs(rows: pd.DataFrame, preset: Preset) -> list[Pair]:
    """The pairs of which a trial is missing."""
    if rows.empty:
        return list(PAIRS)
    counts = rows[rows["preset"] == preset.name].groupby(["model", "setting"]).size()
    return [pair for pair in PAIRS if counts.get((pair.method, pair.group), 0) < trials_of(preset)]


def trials_of(preset: Preset) -> int:
    """How many settings of each method are tried: those of the search, and those at fixed rates."""
    return preset.census_trials + len(FIXED_RATES)


def _there(rows: pd.DataFrame, pair: Pair, preset: Preset) -> list[int]:
    """The numbers of a pair's trials that the file holds; their rows keep the origin they have."""
    if rows.empty:
        return []
    same = (rows["model"] == pair.method) & (rows["setting"] == pair.group) & (rows["preset"] == preset.name)
    return rows.loc[same, "seed"].tolist()


def _append(path: Path, new: pd.DataFrame) -> None:
    """Add the rows of a pair, in the order of the pairs whichever ended first."""
    rows = pd.concat([read_rows(path), new])
    keys: dict[Pair, list[Cell]] = {pair: [] for pair in PAIRS}
    for row in rows.to_dict("records"):
        cell = Cell(row["model"], row["setting"], row["learning_rate"], (row["seed"],))
        keys[Pair(cell.model, cell.setting)].append(cell)
    append_rows(path, new, [cell for cells in keys.values() for cell in cells])


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

    Returns:
        One row a trial: model, setting (the group), learning_rate, seed (the trial's number), settings, state
        ("complete", "pruned" or "diverged"), validation_auc, epochs (after which it was reached), auc_1, auc_2, ...
        (the main task's validation AUC after each epoch, mean of the trial's runs), seconds.

    Raises:
        ValueError: If the storage is none, or holds trials of another study.
    """
    data = source.data(pair.group)
    study = _open(pair, preset, source, storage)
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():  # a study that was killed left it half-done
            study.tell(trial.number, state=_states().FAIL)
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


def _one_trial(
    study: optuna.Study, number: int, pair: Pair, preset: Preset, data: CensusData, device: str
) -> None:
    import optuna

    start = time.perf_counter()
    study.sampler = _sampler(number)
    searches = number < preset.census_trials
    if not searches:
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
    for name, value in {
        "state": state,
        "settings": settings_text(settings),
        "learning_rate": rate,
        "aucs": aucs,
        "seconds": round(time.perf_counter() - start, 2),
    }.items():
        trial.set_user_attr(name, value)
    if state == "diverged":
        study.tell(trial, state=_states().FAIL)
    else:
        # A trial that was stopped early counts with the best it reached: the Gaussian process would learn nothing
        # from optuna's own state for it.
        study.tell(trial, max(aucs))


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
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(storage))),
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
    if not study.user_attrs:
        for name, value in expected.items():
            study.set_user_attr(name, value)
    for name, value in expected.items():
        if study.user_attrs.get(name) != value:
            raise ValueError(
                f"{storage.name} holds trials of another study: its {name} differ for {pair.method}, {pair.group}; "
                "move it away to start tuning anew"
            )
    return study


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


def best_settings(trials: pd.DataFrame) -> dict[tuple[str, str], Chosen]:
    """For each method and group the setting with the highest validation AUC of the main task.

    A trial that was pruned or that diverged is never the best.

    Args:
        trials: Rows of `data/results/census_tuning.csv`, of one preset.

    Raises:
        ValueError: If a pair has no trial that was trained to its end.
    """
    chosen: dict[tuple[str, str], Chosen] = {}
    for model, group in dict.fromkeys(zip(trials["model"], trials["setting"], strict=True)):
        rows = trials[(trials["model"] == model) & (trials["setting"] == group)]
        ended = rows[rows["state"] == "complete"]
        if ended.empty:
            raise ValueError(
                f"{model}, {group}: no trial was trained to its end, expected one: allow lower learning rates"
            )
        best = ended.loc[ended["validation_auc"].idxmax()]
        chosen[model, group] = Chosen(
            model, group, float(best["learning_rate"]), int(best["epochs"]), str(best["settings"])
        )
    return chosen
