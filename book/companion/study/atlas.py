"""An atlas of task pairs: is what MMoE gains on real data related to how the tasks are related?

Pairs of Census-Income's 195 binary targets are drawn so that correlation, its sign and rarity are all covered, and on each
pair the same five small models are trained from the same seeds. Everything was fixed before a result was seen: one size,
one learning rate, one rule of stopping. The pairs come in an order in which any first part covers the strata evenly, so an
unfinished atlas is a smaller whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from companion.census_targets import Target, target_of, targets, telling_columns
from companion.study.cells import Cell, chunks
from companion.study.census import CensusSource
from companion.study.presets import Preset
from companion.study.scores import average_precision, log_loss
from companion.study.specifications import parameters
from mmoe_lib.metrics import auc, gate_use
from mmoe_lib.models import MMoE, OMoE, SharedBottom, SingleTask
from mmoe_lib.models.layers import ModelBuilder
from mmoe_lib.tasks.census import encode
from mmoe_lib.tasks.census.encoding import INPUTS, halves_of, some_rows
from mmoe_lib.training import DivergedError, Ensemble, TrainingSettings, binary_cross_entropy, fit
from mmoe_lib.training.batches import own_epochs

DESIGN = "strata-1"
"""Name of the way in which pairs are drawn; rows of another one are not gone on with."""
CORRELATIONS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.6, 0.9)
"""Edges of the strata of absolute label correlation; pairs above the last are one task twice."""
SHARES = (0.01, 0.03, 0.1, 0.5)
"""Edges of the strata of the rarer target's share, of the rarer class."""
MOST_USES = 5
"""Pairs in which one target may stand."""

EXPERTS, EXPERT_UNITS = 4, 8
TOWERS = (16,)
BATCH_SIZE = 512
RATE = 3e-3
PASSES = 15
PATIENCE = 2
"""Passes without a better mean of both tasks' validation AUC after which a run stops, with its best weights."""
VALIDATION_ROWS = 20_000
GRADIENT_ROWS = 8_192

MODELS = ("Single-Task", "Shared-Bottom", "Deeper Shared-Bottom", "OMoE", "MMoE")
"""All of one size: as many parameters as MMoE, to within a unit."""
NO_MODEL = "-"
MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "auc": auc,
    "precision": average_precision,
    "log_loss": log_loss,
}
"""Of a task, from logits (..., N) and labels (N,)."""


@dataclass(frozen=True)
class PairDesign:
    """How pairs are drawn; a column of their file.

    Attributes:
        design: Its name.
    """

    design: str = DESIGN


def pair_cells(preset: Preset) -> list[Cell[PairDesign]]:
    """One cell: the pairs of the atlas, each with its number as its seed."""
    return [Cell(NO_MODEL, "pairs", 0.0, tuple(range(preset.atlas_pairs)), PairDesign())]


PAIR_COLUMNS = ("target_1", "target_2", "label_correlation", "share_1", "share_2", "inputs_kept")


def run_pairs(
    cell: Cell[PairDesign], source: CensusSource, device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """A row a pair: its two targets, their correlation and shares in the training file, how many columns are inputs.

    Raises:
        ValueError: If there are fewer pairs than asked for.
    """
    train = source.tables().train
    drawn = draw_pairs(train, len(cell.seeds))
    rows = []
    for number, (first, second, correlation) in zip(cell.seeds, drawn, strict=True):
        hidden = {*telling_columns(first, train), *telling_columns(second, train)}
        shares = [round(float(target.answers(train).mean()), 5) for target in (first, second)]
        rows.append(
            {
                "seed": number,
                "target_1": first.name,
                "target_2": second.name,
                "label_correlation": round(correlation, 5),
                "share_1": shares[0],
                "share_2": shares[1],
                "inputs_kept": len([column for column in INPUTS if column not in hidden]),
            }
        )
    return pd.DataFrame(rows)


def draw_pairs(train: pd.DataFrame, count: int) -> list[tuple[Target, Target, float]]:
    """So many pairs of targets with their Pearson correlation, a stratum after the other.

    A stratum is an interval of absolute correlation, a sign, and an interval of the rarer target's share. From each in
    turn a random pair is taken, none of a target that has been taken `MOST_USES` times, and none of one column.

    Raises:
        ValueError: If the table does not hold so many.
    """
    found = targets(train)
    answers = np.stack([target.answers(train) for target in found], axis=1).astype(np.float32)
    correlations: NDArray[np.float64] = np.asarray(np.corrcoef(answers, rowvar=False))
    shares: NDArray[np.float64] = np.asarray(answers.mean(axis=0, dtype=np.float64))
    rarity = np.minimum(shares, 1 - shares)
    strata: dict[tuple[int, bool, int], list[tuple[int, int]]] = {}
    for one, other in combinations(range(len(found)), 2):
        correlation = float(correlations[one, other])
        if found[one].column == found[other].column or abs(correlation) >= CORRELATIONS[-1]:
            continue
        place = int(np.searchsorted(CORRELATIONS, abs(correlation), side="right"))
        rare = int(np.searchsorted(SHARES, min(rarity[one], rarity[other]), side="right"))
        strata.setdefault((place, correlation > 0, rare), []).append((one, other))
    generator = np.random.default_rng(0)
    queues = [list(generator.permutation(np.array(strata[key]))) for key in sorted(strata)]
    uses = np.zeros(len(found), dtype=int)
    drawn: list[tuple[Target, Target, float]] = []
    while len(drawn) < count and any(queues):
        for number in generator.permutation(len(queues)):
            while queues[number]:
                one, other = queues[number].pop()
                if max(uses[one], uses[other]) < MOST_USES:
                    uses[[one, other]] += 1
                    drawn.append((found[one], found[other], float(correlations[one, other])))
                    break
    if len(drawn) < count:
        raise ValueError(
            f"{len(drawn)} pairs can be drawn of {len(train):,} rows, expected {count}: take more rows"
        )
    return drawn[:count]


@dataclass(frozen=True)
class PairChoices:
    """One pair; these are columns of the results file.

    Attributes:
        pair: Its number.
        target_1: Name of the first task.
        target_2: Of the second.
    """

    pair: int
    target_1: str
    target_2: str


def atlas_cells(preset: Preset, pairs: pd.DataFrame) -> list[Cell[PairChoices]]:
    """All models on one pair after the other."""
    facts = pairs.sort_values("seed")
    named = zip(facts["seed"], facts["target_1"], facts["target_2"], strict=True)
    return [
        Cell(model, f"pair {number}", RATE, seeds, PairChoices(int(number), str(first), str(second)))
        for number, first, second in named
        for model in MODELS
        for seeds in chunks(preset.atlas_runs, preset.atlas_runs)
    ]


EXTREMES = 4
"""Pairs at each end of MMoE's lead over Shared-Bottom that are looked at again."""


def again_cells(preset: Preset, rows: pd.DataFrame) -> list[Cell[PairChoices]]:
    """The pairs at both ends once more, from twice as many seeds of their own: what an extreme is worth on a second look."""
    means = rows.assign(auc=(rows["test_auc_1"] + rows["test_auc_2"]) / 2).pivot_table("auc", "pair", "model")
    order = (means["MMoE"] - means["Shared-Bottom"]).sort_values(kind="stable").index
    names = rows.drop_duplicates("pair").set_index("pair")
    return [
        Cell(
            model,
            f"pair {number} again",
            RATE,
            tuple(1_000 + seed for seed in range(2 * preset.atlas_runs)),
            PairChoices(int(number), names.loc[number, "target_1"], names.loc[number, "target_2"]),
        )
        for number in dict.fromkeys([*order[:EXTREMES], *order[::-1][:EXTREMES]])
        for model in ("Single-Task", "Shared-Bottom", "MMoE")
    ]


@dataclass(frozen=True)
class PairData:
    """What the models of a pair are trained and judged on; inputs are float32.

    Attributes:
        x_train: Inputs (N, d).
        y_train: Labels (N, 2).
        x_validation: Of one half of the test table.
        y_validation: Its labels.
        x_test: Of the other half.
        y_test: Its labels.
        columns: The census columns that the inputs are made of.
    """

    x_train: Tensor
    y_train: Tensor
    x_validation: Tensor
    y_validation: Tensor
    x_test: Tensor
    y_test: Tensor
    columns: tuple[str, ...]


def pair_data(source: CensusSource, first: Target, second: Target, rows: int | None = None) -> PairData:
    """The pair's inputs, without all columns that would give one of the two targets away, and its labels.

    Args:
        source: Of the tables.
        first: One task.
        second: The other.
        rows: So many random rows of the training table; None for all.

    Raises:
        ValueError: If a target has one class in training, validation or test, no input is left, or there are fewer rows.
    """
    tables = source.tables()
    train = some_rows(tables.train, rows, np.random.default_rng(0))
    validation, test = (tables.test.iloc[half] for half in halves_of(len(tables.test), 0))
    hidden = {*telling_columns(first, tables.train), *telling_columns(second, tables.train)}
    x_train, x_validation, x_test, names = _inputs(source, rows)
    kept = [place for place, name in enumerate(names) if name not in hidden]
    if not kept:
        raise ValueError(f"'{first.name}' and '{second.name}' leave no input: take targets of other columns")
    y_train, y_validation, y_test = (
        _labels(table, (first, second), part)
        for table, part in ((train, "training"), (validation, "validation"), (test, "test"))
    )
    columns = tuple(dict.fromkeys(names[place] for place in kept))
    return PairData(
        x_train[:, kept], y_train, x_validation[:, kept], y_validation, x_test[:, kept], y_test, columns
    )


@lru_cache(maxsize=1)
def _inputs(source: CensusSource, rows: int | None) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...]]:
    """All inputs of training, validation and test, and of each the column that it is made of."""
    tables = source.tables()
    train = some_rows(tables.train, rows, np.random.default_rng(0))
    # Of a group's encoding only the inputs are used; they are the same for every group.
    encoded = encode(replace(tables, train=train), "income")
    names = tuple(name.split("=")[0] for name in encoded.feature_names)
    return encoded.x_train, encoded.x_validation, encoded.x_test, names


def _labels(table: pd.DataFrame, pair: tuple[Target, Target], part: str) -> Tensor:
    labels = np.stack([target.answers(table) for target in pair], axis=1)
    for target, column in zip(pair, labels.T, strict=True):
        if column.all() or not column.any():
            raise ValueError(
                f"'{target.name}' has one class in the {part} rows: take more rows, or another target"
            )
    return torch.from_numpy(labels.astype(np.float32))


def builder(model: str, num_inputs: int, num_tasks: int) -> ModelBuilder:
    """The builder of one run; every model has as many parameters as MMoE, to within a unit.

    Raises:
        ValueError: If there is no such model.
    """
    mixture: ModelBuilder = partial(
        MMoE, num_experts=EXPERTS, expert_widths=(EXPERT_UNITS,), tower_widths=TOWERS
    )
    of_units: Mapping[str, Callable[[int], ModelBuilder]] = {
        "Single-Task": lambda units: partial(SingleTask, bottom_widths=(units,), tower_widths=TOWERS),
        "Shared-Bottom": lambda units: partial(SharedBottom, bottom_widths=(units,), tower_widths=TOWERS),
        "Deeper Shared-Bottom": lambda units: partial(
            SharedBottom, bottom_widths=(units, 16), tower_widths=TOWERS
        ),
        "OMoE": lambda units: partial(OMoE, num_experts=EXPERTS, expert_widths=(units,), tower_widths=TOWERS),
        "MMoE": lambda units: mixture,
    }
    if model not in of_units:
        raise ValueError(f"model is {model!r}, expected one of {', '.join(MODELS)}")
    asked = parameters(mixture, num_inputs, num_tasks)
    units = min(
        range(2, 64), key=lambda units: abs(parameters(of_units[model](units), num_inputs, num_tasks) - asked)
    )
    return of_units[model](units)


COLUMNS = (
    "validation_auc_1",
    "validation_auc_2",
    *(f"test_{measure}_{task}" for task in (1, 2) for measure in MEASURES),
    "gate_distance",
    "gradient_cosine",
    "gradient_norm_1",
    "gradient_norm_2",
    "best_pass",
    "diverged_step",
    "train_rows",
    "parameters",
)
"""What `run` gives beside the seed."""


def run(
    cell: Cell[PairChoices],
    source: CensusSource,
    rows: int | None = None,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """The rows of one cell: a model's runs on one pair.

    Columns: test_auc_k, test_precision_k (average precision) and test_log_loss_k of both tasks; validation_auc_k;
    gate_distance (MMoE); of Shared-Bottom after the first pass gradient_cosine, between the two tasks' gradients on the
    shared weights, and gradient_norm_k; best_pass, whose weights are kept; parameters; diverged_step, 0 if it did not.
    """
    first, second = target_of(cell.choices.target_1), target_of(cell.choices.target_2)
    data = _pair(source, first, second, rows)
    num_inputs = data.x_train.shape[1]
    build = builder(cell.model, num_inputs, 2)
    a_pass = len(data.x_train) // BATCH_SIZE
    settings = TrainingSettings(
        steps=PASSES * a_pass,
        learning_rate=RATE,
        evaluate_every=a_pass,
        monitor="auc",
        patience=PATIENCE,
        on_divergence="record",
    )
    judge = _Judge(data, gradients=cell.model == "Shared-Bottom")
    same = {"train_rows": len(data.x_train), "parameters": parameters(build, num_inputs, 2)}
    try:
        ensemble, history = fit(
            partial(build, num_inputs, 2),
            cell.seeds,
            partial(_batches, data, cell.seeds),
            binary_cross_entropy,
            settings,
            judge,
            device=device,
            progress=False,
        )
    except DivergedError as error:  # every run did
        nothing = pd.DataFrame(float("nan"), range(len(cell.seeds)), COLUMNS)
        return nothing.assign(seed=cell.seeds, diverged_step=error.step, best_pass=0, **same)
    found = scores(ensemble, data)
    distance = torch.full((len(ensemble),), torch.nan)
    if cell.model == "MMoE":
        distance = gate_use(ensemble.gate_weights(data.x_test.to(ensemble.device)).cpu()).distance
    return found.assign(
        gate_distance=distance.numpy().round(4),
        **judge.gradients_of(len(ensemble)),
        best_pass=(history.best_step // a_pass).tolist(),
        diverged_step=history.diverged_step.tolist(),
        **same,
    )


def scores(ensemble: Ensemble, data: PairData) -> pd.DataFrame:
    """One row a run: seed, and the measures of both tasks; NaN for a run that diverged."""
    columns: dict[str, Sequence[float]] = {"seed": ensemble.seeds}
    for part, x, y in (
        ("validation", data.x_validation, data.y_validation),
        ("test", data.x_test, data.y_test),
    ):
        logits = ensemble.predict(x.to(ensemble.device)).cpu()
        finite = torch.isfinite(logits).flatten(1).all(dim=1)  # (R,)
        for task in (0, 1):
            for name, measure in MEASURES.items() if part == "test" else [("auc", auc)]:
                values = torch.full((len(ensemble),), torch.nan, dtype=torch.float64)
                values[finite] = measure(logits[finite, :, task], y[:, task])
                columns[f"{part}_{name}_{task + 1}"] = [round(float(value), 6) for value in values]
    return pd.DataFrame(columns)


class _Judge:
    """Called after every pass: the mean validation AUC, and the first time the tasks' gradients if asked for."""

    def __init__(self, data: PairData, *, gradients: bool) -> None:
        self.data, self.wanted = data, gradients
        self.seen: list[tuple[float, float, float]] = []

    def __call__(self, ensemble: Ensemble) -> dict[str, Tensor]:
        if self.wanted and not self.seen:
            self.seen = [task_gradients(ensemble.module(run), self.data) for run in range(len(ensemble))]
        x, y = self.data.x_validation[:VALIDATION_ROWS], self.data.y_validation[:VALIDATION_ROWS]
        logits = ensemble.predict(x.to(ensemble.device)).cpu()
        finite = torch.isfinite(logits).flatten(1).all(dim=1)  # (R,)
        values = torch.full((len(ensemble),), torch.nan, dtype=torch.float64)
        values[finite] = sum(auc(logits[finite, :, task], y[:, task]) for task in (0, 1)) / 2
        return {"auc": values}

    def gradients_of(self, runs: int) -> dict[str, list[float]]:
        names = ("gradient_cosine", "gradient_norm_1", "gradient_norm_2")
        rows = self.seen or [(float("nan"),) * 3] * runs
        return {name: [round(row[place], 6) for row in rows] for place, name in enumerate(names)}


def task_gradients(module: nn.Module, data: PairData) -> tuple[float, float, float]:
    """The cosine between two tasks' gradients on the weights that both use, and the two norms.

    Of the mean loss of the first `GRADIENT_ROWS` training rows; shared are the weights outside of the towers.
    """
    module = module.cpu()
    shared = [weight for name, weight in module.named_parameters() if not name.startswith("towers")]
    logits = module(data.x_train[:GRADIENT_ROWS])
    losses = binary_cross_entropy(logits, data.y_train[:GRADIENT_ROWS])
    first, second = (
        torch.cat([part.flatten() for part in torch.autograd.grad(loss, shared, retain_graph=True)])
        for loss in losses
    )
    norms = float(first.norm()), float(second.norm())
    cosine = float(first @ second) / (norms[0] * norms[1]) if min(norms) > 0 else float("nan")
    return cosine, *norms


@lru_cache(maxsize=1)
def _pair(source: CensusSource, first: Target, second: Target, rows: int | None) -> PairData:
    return pair_data(source, first, second, rows)


def _batches(data: PairData, seeds: Sequence[int], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = data.x_train.to(device), data.y_train.to(device)
    every = torch.arange(len(x)).expand(len(seeds), -1)  # (R, N)
    return own_epochs(lambda rows: (x[rows], y[rows]), every, BATCH_SIZE, seeds=seeds, device=device)
