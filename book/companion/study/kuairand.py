"""The recommendation study of section 6.4 on KuaiRand-Pure: five multi-task methods and Single-Task, two optimisers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.study.cells import Cell, chunks
from companion.study.kuairand_simulated import load_simulated
from companion.study.policies import tradeoff
from companion.study.presets import Preset
from companion.study.rankers import EXPERTS, METHODS, TASKS, build_ranker
from companion.study.scores import auc_standard_error, r_squared
from mmoe_lib import metrics
from mmoe_lib.metrics import auc
from mmoe_lib.tasks.kuairand import Impressions, KuaiRandTables, RankingData, encode, load, some_users
from mmoe_lib.tasks.kuairand.columns import RANDOM_LOG
from mmoe_lib.tasks.kuairand.files import KUAIRAND_PURE
from mmoe_lib.training import (
    SGD,
    Adam,
    DivergedError,
    Ensemble,
    History,
    TrainingSettings,
    binary_cross_entropy,
    fit,
)
from mmoe_lib.training.batches import joined_epochs, with_noise
from mmoe_lib.training.loop import Evaluate
from mmoe_lib.training.optimisers import Optimiser

BATCH_SIZE = 1024
"""The paper's."""

OPTIMISERS: dict[str, Optimiser] = {"SGD": SGD(), "Adam": Adam()}
"""SGD is what section 6.4 states; Adam is what one would take today."""

RATES = {"SGD": (0.5, 1.0, 2.0, 4.0), "Adam": (3e-4, 1e-3, 3e-3, 1e-2)}
"""Learning rates that every method tries with each optimiser."""

ALPHAS = (1e-5, 1e-3)
"""Strengths of L2-Constrained's pull that are tried at each rate: the one method with a number of its own."""

TUNING_SEED = 10_000
"""Seeds from here on choose settings; the reported runs have seeds of their own."""

GATE_DROPOUT = 0.1
"""Share of gate weights dropped, as in Zhao et al. (RecSys 2019)."""

CHECKPOINTS = (1, 2, 3)
"""Thirds of training after which a run is judged: the paper's 2, 4 and 6 million steps."""

_WORTH_COMPILING = 2_000
"""Steps of single runs in a cell from which a compiled step pays on a CPU: it takes 10 s and then saves a third."""

WEIGHTS = tuple(step / 10 for step in range(11))
"""Of satisfaction in the mix by which impressions are ranked."""


@dataclass(frozen=True)
class RankingSource:
    """Where a study's data come from; small enough to be sent to a worker, which loads them once.

    Attributes:
        users: Take the impressions of so many random users; None for all. Of the stand-in: how many it has.
        simulated: Whether the stand-in is asked for.
    """

    users: int | None = None
    simulated: bool = False

    def tables(self) -> KuaiRandTables:
        """The tables, with the impressions of some users or of all."""
        return _tables(self)

    def data(self) -> RankingData:
        """The encoded impressions."""
        return _data(self)

    def has_random_log(self) -> bool:
        """Whether the log of random impressions lies on this machine; nothing is loaded or downloaded to tell."""
        return self.simulated or RANDOM_LOG in (KUAIRAND_PURE.find() or {})

    def sums(self) -> str:
        """The sums of the files, and what was taken of them, for a row's origin."""
        tables = self.tables()
        sums = "+".join(value[:12] for _, value in sorted(tables.sha256.items())) or "simulated"
        return f"{sums} {len(tables.log)} rows"


@lru_cache(maxsize=1)
def _tables(source: RankingSource) -> KuaiRandTables:
    if source.simulated:
        return load_simulated() if source.users is None else load_simulated(source.users)
    tables = load()
    if source.users is None:
        return tables
    return some_users(tables, source.users)


@lru_cache(maxsize=1)
def _data(source: RankingSource) -> RankingData:
    return encode(source.tables())


@dataclass(frozen=True)
class Choices:
    """How the runs of a cell are trained; these are columns of the results file.

    Attributes:
        optimiser: "SGD" or "Adam".
        epochs: Passes over the training rows.
        batch_size: Rows of a minibatch.
        alpha: L2-Constrained's strength, 0 for the others.
        experts: Of the mixtures, 0 for the others.
        gate_dropout: Share of gate weights dropped in training.
        order: Seed of the order in which the rows are visited; runs of one order can be compared in pairs.
    """

    optimiser: str
    epochs: int
    batch_size: int = BATCH_SIZE
    alpha: float = 0.0
    experts: int = 0
    gate_dropout: float = 0.0
    order: int = 0


def train_rankers(
    method: str,
    data: RankingData,
    seeds: Sequence[int],
    choices: Choices,
    *,
    learning_rate: float | Sequence[float],
    device: torch.device | str = "cpu",
    evaluate: Evaluate | None = None,
    compile: bool = False,
    on_divergence: str = "raise",
    progress: bool = True,
    label: str = "training",
) -> tuple[Ensemble, History]:
    """Train all seeds of one method together; they end with the weights of the last step.

    The runs differ in their initialisation; they share the order of the rows. Everything lies in the device's
    memory, and a minibatch is put together there.

    Args:
        method: One of `METHODS`.
        data: The encoded impressions.
        seeds: One a run.
        choices: How to train.
        learning_rate: One for all runs or one a run.
        device: Where to train.
        evaluate: Metrics of the runs, computed after each third of the steps.
        compile: Compile the training step.
        on_divergence: "raise", or "record" to let the other runs go on.
        progress: Show a progress bar.
        label: What the bar says.

    Raises:
        DivergedError: If a run's loss is no longer finite; with "record" only if every run's is.
        ValueError: If there is no such method or optimiser, or there are fewer rows than in a batch.
    """
    if choices.optimiser not in OPTIMISERS:
        raise ValueError(f"optimiser is {choices.optimiser!r}, expected one of {', '.join(OPTIMISERS)}")
    build = build_ranker(
        method,
        data.num_sparse,
        data.num_dense,
        data.features.vocabulary,
        alpha=choices.alpha,
        experts=choices.experts or EXPERTS,
        gate_dropout=choices.gate_dropout,
    )
    third = max(1, choices.epochs * (len(data.train) // choices.batch_size) // len(CHECKPOINTS))
    settings = TrainingSettings(
        steps=third * len(CHECKPOINTS),
        learning_rate=learning_rate,
        optimiser=OPTIMISERS[choices.optimiser],
        evaluate_every=third if evaluate else 0,
        compile=compile,
        on_divergence=on_divergence,
    )
    return fit(
        build,
        seeds,
        partial(minibatches, data, choices),
        binary_cross_entropy,
        settings,
        evaluate,
        device=device,
        progress=progress,
        label=label,
    )


def minibatches(
    data: RankingData, choices: Choices, device: torch.device | str = "cpu"
) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
    """Minibatches of the training impressions without end, with the noise of gate dropout where it is asked for."""
    features, impressions = data.features.to(device), data.train.to(device)
    batches = joined_epochs(
        lambda rows: features.pairs(impressions, rows),
        len(impressions),
        choices.batch_size,
        seed=choices.order,
        device=device,
    )
    if choices.gate_dropout:
        return with_noise(batches, TASKS * (choices.experts or EXPERTS), seed=choices.order)
    return batches


def probabilities(ensemble: Ensemble, data: RankingData, part: Impressions, *, rows: int = 1 << 16) -> Tensor:
    """What each run predicts for every impression of a part, (R, N, K) on the CPU; NaN in a run that diverged."""
    features, part = data.features.to(ensemble.device), part.to(ensemble.device)
    pieces = []
    for start in range(0, len(part), rows):
        x, _ = features.pairs(part, slice(start, start + rows))
        pieces.append(torch.sigmoid(ensemble.predict(x)).cpu())
    return torch.cat(pieces, dim=1)


def of_finite_runs(metric: Callable[[Tensor, Tensor], Tensor], predicted: Tensor, labels: Tensor) -> Tensor:
    """A metric of predictions (R, N) and labels (N,) for each run, (R,); NaN in a run that diverged."""
    values = torch.full((len(predicted),), torch.nan, dtype=torch.float64)
    finite = torch.isfinite(predicted).all(dim=1)
    if bool(finite.any()):
        values[finite] = metric(predicted[finite], labels)
    return values


def judge(predicted: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Engagement AUC and R2 and satisfaction AUC of each run, from probabilities (R, N, 2) and labels (N, 2)."""
    engagement, satisfaction = labels.unbind(dim=1)
    return {
        "engagement_auc": of_finite_runs(auc, predicted[..., 0], engagement),
        "engagement_r2": of_finite_runs(r_squared, predicted[..., 0], engagement),
        "satisfaction_auc": of_finite_runs(auc, predicted[..., 1], satisfaction),
    }


def gate_use(
    ensemble: Ensemble, data: RankingData, part: Impressions, *, rows: int = 1 << 14
) -> dict[str, Tensor]:
    """What the gates do on a part, one number a run: gate_k_i, gate_distance and gate_entropy_k as in the census study."""
    features, part = data.features.to(ensemble.device), part.to(ensemble.device)
    means, distance, entropy = torch.zeros(3), torch.zeros(1), torch.zeros(2)
    for start in range(0, len(part), rows):
        x, _ = features.pairs(part, slice(start, start + rows))
        weights = ensemble.gate_weights(x).cpu()  # (R, B, K, n)
        share = weights.shape[1] / len(part)
        if start == 0:
            runs, _, tasks, experts = weights.shape
            means, distance = torch.zeros(runs, tasks, experts), torch.zeros(runs)
            entropy = torch.zeros(runs, tasks)
        use = metrics.gate_use(weights)
        means += share * use.means
        distance += share * use.distance
        # H(g) / log n
        entropy += share * use.entropy / np.log(experts)
    columns = {
        f"gate_{k + 1}_{i + 1}": means[:, k, i] for k in range(means.shape[1]) for i in range(means.shape[2])
    }
    columns["gate_distance"] = distance
    return columns | {f"gate_entropy_{k + 1}": entropy[:, k] for k in range(entropy.shape[1])}


_GATE_COLUMNS = (
    *(f"gate_{k}_{i}" for k in (1, 2) for i in range(1, EXPERTS + 1)),
    "gate_distance",
    "gate_entropy_1",
    "gate_entropy_2",
)
_MEASURES = ("engagement_auc", "engagement_r2", "satisfaction_auc")
_SCORES = tuple(f"test_{measure}_{third}" for measure in _MEASURES for third in CHECKPOINTS)
_LAST = (
    "validation_engagement_auc",
    "validation_satisfaction_auc",
    "engagement_auc_se",
    "satisfaction_auc_se",
)
_TOP = tuple(
    f"top_{name}_{index}" for name in ("engagement", "satisfaction") for index in range(len(WEIGHTS))
)


COLUMNS = (*_SCORES, *_LAST, *_TOP, *_GATE_COLUMNS, "diverged_step", "train_rows")
"""What `run` gives beside the seed."""
TUNING_COLUMNS = ("validation_engagement_auc", "validation_satisfaction_auc", "diverged_step")
"""What `run_tuning` gives beside the seed."""


def run(cell: Cell[Choices], source: RankingSource, device: torch.device | str) -> pd.DataFrame:
    """Train the seeds of a cell and judge them: one row a run with the columns of `data/results/kuairand.csv`.

    Raises:
        ValueError: If the cell names no method or optimiser.
    """
    choices, data = cell.choices, source.data()
    labels = data.test.labels.float()

    def evaluate(ensemble: Ensemble) -> dict[str, Tensor]:
        return judge(probabilities(ensemble, data, data.test), labels)

    names = (*_SCORES, *_LAST, *_TOP, *_GATE_COLUMNS)
    rows = pd.DataFrame({"seed": cell.seeds} | dict.fromkeys(names, np.nan))
    try:
        ensemble, history = _train(cell, choices, data, device, evaluate)
    except DivergedError as error:  # every run did
        return rows.assign(
            diverged_step=error.step, train_rows=len(data.train), compiled=_is_compiled(cell, data)
        )
    for measure in _MEASURES:
        for third, values in zip(CHECKPOINTS, history.metrics[measure], strict=True):
            rows[f"test_{measure}_{third}"] = values.numpy()
    last = _validation(ensemble, data)
    predicted = probabilities(ensemble, data, data.test)  # (R, N, 2)
    for task, name in enumerate(("engagement", "satisfaction")):
        last[f"{name}_auc_se"] = of_finite_runs(auc_standard_error, predicted[..., task], labels[:, task])
    for name, values in last.items():
        rows[name] = values.numpy()
    finite = torch.isfinite(predicted).flatten(1).all(dim=1)
    ranked = tradeoff(predicted[finite, :, 0], predicted[finite, :, 1], labels, data.test.user, WEIGHTS)
    rows.loc[finite.numpy(), list(_TOP)] = torch.cat([ranked.engagement, ranked.satisfaction], dim=1).numpy()
    rows = rows.round(6)
    if cell.model in ("OMoE", "MMoE"):
        for name, values in gate_use(ensemble, data, data.test).items():
            rows[name] = np.round(values.double().numpy(), 4)
    return rows.assign(
        diverged_step=history.diverged_step.tolist(),
        train_rows=len(data.train),
        compiled=_is_compiled(cell, data),
    )


def run_tuning(cell: Cell[Choices], source: RankingSource, device: torch.device | str) -> pd.DataFrame:
    """Train the seeds of a cell and judge them on validation alone, one row a run."""
    choices, data = cell.choices, source.data()
    rows = pd.DataFrame({"seed": cell.seeds})
    try:
        ensemble, history = _train(cell, choices, data, device, None)
    except DivergedError as error:
        nothing = {"validation_engagement_auc": np.nan, "validation_satisfaction_auc": np.nan}
        return rows.assign(**nothing, diverged_step=error.step, compiled=_is_compiled(cell, data))
    found = {name: np.round(values.numpy(), 6) for name, values in _validation(ensemble, data).items()}
    return rows.assign(
        **found, diverged_step=history.diverged_step.tolist(), compiled=_is_compiled(cell, data)
    )


def _is_compiled(cell: Cell[Choices], data: RankingData) -> bool:
    choices = cell.choices
    run_steps = choices.epochs * (len(data.train) // choices.batch_size) * len(cell.seeds)
    return run_steps >= _WORTH_COMPILING


def _train(
    cell: Cell[Choices],
    choices: Choices,
    data: RankingData,
    device: torch.device | str,
    evaluate: Evaluate | None,
) -> tuple[Ensemble, History]:
    return train_rankers(
        cell.model,
        data,
        cell.seeds,
        choices,
        learning_rate=cell.learning_rate,
        device=device,
        evaluate=evaluate,
        compile=_is_compiled(cell, data),
        on_divergence="record",
        progress=False,
    )


def _validation(ensemble: Ensemble, data: RankingData) -> dict[str, Tensor]:
    judged = judge(probabilities(ensemble, data, data.validation), data.validation.labels.float())
    return {f"validation_{name}": judged[name] for name in ("engagement_auc", "satisfaction_auc")}


def _choices(
    method: str, optimiser: str, epochs: int, *, order: int, alpha: float = 0.0, gate_dropout: float = 0.0
) -> Choices:
    experts = EXPERTS if method in ("OMoE", "MMoE") else 0
    return Choices(optimiser, epochs, alpha=alpha, experts=experts, gate_dropout=gate_dropout, order=order)


def tuning_cells(preset: Preset) -> list[Cell[Choices]]:
    """Every method at every learning rate of both optimisers, L2-Constrained at two strengths of each."""
    seeds = tuple(range(TUNING_SEED, TUNING_SEED + preset.kuairand_tuning_runs))
    cells = []
    for optimiser, rates in RATES.items():
        for method in METHODS:
            for alpha in ALPHAS if method == "L2-Constrained" else (0.0,):
                setting = f"{optimiser}: alpha = {alpha:g}" if alpha else optimiser
                choices = _choices(method, optimiser, preset.kuairand_epochs, order=0, alpha=alpha)
                cells += [Cell(method, setting, rate, seeds, choices) for rate in rates]
    return cells


@dataclass(frozen=True)
class Chosen:
    """A method's setting with an optimiser: learning rate, and alpha where it has one."""

    method: str
    optimiser: str
    learning_rate: float
    alpha: float


def chosen_settings(rows: pd.DataFrame) -> dict[tuple[str, str], Chosen]:
    """By method and optimiser, the setting with the best mean engagement AUC on validation; none that diverged.

    Args:
        rows: Rows of one preset of `data/results/kuairand_tuning.csv`.

    Raises:
        ValueError: If all settings of a method diverged, or there are no rows of it.
    """
    chosen = {}
    for optimiser in RATES:
        for method in METHODS:
            tried = rows[(rows["model"] == method) & (rows["optimiser"] == optimiser)]
            means = (
                tried.groupby(["learning_rate", "alpha"])["validation_engagement_auc"]
                .agg(lambda values: values.mean(skipna=False))
                .dropna()
            )
            if means.empty:
                raise ValueError(
                    f"no setting of {method} with {optimiser} has an AUC, expected one: run the tuning, or add rates"
                )
            rate, alpha = cast(tuple[float, float], means.idxmax())
            chosen[method, optimiser] = Chosen(method, optimiser, float(rate), float(alpha))
    return chosen


def reported_cells(preset: Preset, chosen: dict[tuple[str, str], Chosen]) -> list[Cell[Choices]]:
    """The runs of table 3: all methods' first runs with both optimisers come before the next runs.

    Chunk c of every method visits the rows in the same order, so runs of one seed are compared in pairs.
    """
    cells = []
    for order, seeds in enumerate(chunks(preset.kuairand_seeds, preset.kuairand_chunk)):
        for optimiser in RATES:
            for method in METHODS:
                best = chosen[method, optimiser]
                choices = _choices(method, optimiser, preset.kuairand_epochs, order=order, alpha=best.alpha)
                cells.append(Cell(method, optimiser, best.learning_rate, seeds, choices))
    return cells


def gate_cells(preset: Preset, chosen: dict[tuple[str, str], Chosen]) -> list[Cell[Choices]]:
    """MMoE with gate dropout at the rates of MMoE without; its runs are paired with those of `reported_cells`."""
    cells = []
    for order, seeds in enumerate(chunks(preset.kuairand_gate_runs, preset.kuairand_chunk)):
        for optimiser in RATES:
            best = chosen["MMoE", optimiser]
            choices = _choices(
                "MMoE", optimiser, preset.kuairand_epochs, order=order, gate_dropout=GATE_DROPOUT
            )
            setting = f"{optimiser}: gate dropout {GATE_DROPOUT:g}"
            cells.append(Cell("MMoE", setting, best.learning_rate, seeds, choices))
    return cells
