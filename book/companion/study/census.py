"""The census study of section 6.3: each method at its tuned setting, hundreds of random initialisations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from companion.census_changes import CHOICES, TUCKER, alphas_of, choices_of, traps_of, tucker_of
from companion.study.cells import Cell, chunks
from companion.study.census_variants import AS_IN_THE_STUDY, encode_variant
from companion.study.presets import Preset
from companion.study.search_space import METHODS, build, read_settings, settings_text
from mmoe_lib import metrics
from mmoe_lib.metrics import auc
from mmoe_lib.models import TuckerLayer
from mmoe_lib.models.layers import ModelBuilder
from mmoe_lib.tasks.census import GROUPS, CensusData, CensusTables, load
from mmoe_lib.training import DivergedError, Ensemble, History, TrainingSettings, binary_cross_entropy, fit
from mmoe_lib.training import epochs as minibatches
from mmoe_lib.training.batches import with_noise
from mmoe_lib.training.loop import Evaluate

BATCH_SIZE = 1024
"""Ours: the paper states none for this data set."""

GATED = ("OMoE", "MMoE")
MOST_EXPERTS = 8


@dataclass(frozen=True)
class CensusSource:
    """Where a study's data come from; small enough to be sent to a worker, which loads them once.

    Attributes:
        train_rows: As in `mmoe_lib.tasks.census.load`.
        test_rows: The same for test.
        simulated: Whether the stand-in is asked for.
    """

    train_rows: int | None = None
    test_rows: int | None = None
    simulated: bool = False

    def tables(self) -> CensusTables:
        """The two tables."""
        return _tables(self)

    def data(self, group: str, variant: str = AS_IN_THE_STUDY) -> CensusData:
        """The group of tasks, encoded in one of the ways of `census_variants`."""
        return _data(self, group, variant)

    def sums(self) -> str:
        """The sums of the files, and what was taken of them, for a row's origin."""
        sums = "+".join(value[:12] for _, value in sorted(self.tables().sha256.items()))
        if self.simulated:
            sums += " simulated"
        if self.train_rows is not None or self.test_rows is not None:
            sums += f" {self.train_rows or 'all'}+{self.test_rows or 'all'} rows"
        return sums


@lru_cache(maxsize=1)
def _tables(source: CensusSource) -> CensusTables:
    return load(simulated=source.simulated, train_rows=source.train_rows, test_rows=source.test_rows)


@lru_cache(maxsize=1)
def _data(source: CensusSource, group: str, variant: str) -> CensusData:
    return encode_variant(source.tables(), group, variant)


@dataclass(frozen=True)
class Chosen:
    """A method's setting for a group of tasks.

    Attributes:
        method: Its name.
        group: Of tasks.
        learning_rate: Adam's.
        epochs: Passes over the training rows.
        settings: The method's own, as `search_space.settings_text` writes them.
    """

    method: str
    group: str
    learning_rate: float
    epochs: int
    settings: str

    def builder(self) -> ModelBuilder:
        """The builder of one run."""
        return build(self.method, read_settings(self.settings))


@dataclass(frozen=True)
class Choices:
    """How the runs of a cell are trained; these are columns of the results file.

    Attributes:
        group: Of tasks.
        epochs: Passes over the training rows.
        settings: The method's own.
        batch_size: Rows of a minibatch.
        depth: Hidden layers of the bottom, or of each expert.
        variant: How the tables are encoded, a name of `census_variants`.
        order: Seed of the order in which the rows are visited.
        start: What the random factors of Tensor-Factorization are multiplied with at the start.
    """

    group: str
    epochs: int
    settings: str
    batch_size: int = BATCH_SIZE
    depth: int = 1
    variant: str = AS_IN_THE_STUDY
    order: int = 0
    start: float = 1.0


def train_runs(
    builder: ModelBuilder,
    data: CensusData,
    seeds: Sequence[int],
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int = BATCH_SIZE,
    order: int = 0,
    device: torch.device | str = "cpu",
    evaluate: Evaluate | None = None,
    monitor: str | None = None,
    patience: int | None = None,
    noise: int = 0,
    on_divergence: str = "raise",
    progress: bool = True,
    label: str = "training",
) -> tuple[Ensemble, History]:
    """Train all seeds of one model together; by default they end with the weights of the last epoch.

    The runs differ in their initialisation; they share the data and the order of its rows, so that one matrix
    product serves all.

    Args:
        builder: Of one run.
        data: The encoded group of tasks.
        seeds: One a run.
        learning_rate: Adam's.
        epochs: Passes over the training rows.
        batch_size: Rows of a minibatch.
        order: Seed of the order of the rows.
        device: Where to train.
        evaluate: Metrics of the runs, computed after every epoch.
        monitor: The metric by which a run keeps its best epoch; None keeps the last.
        patience: Epochs without a better one after which a run stops; None never stops early.
        noise: Columns of random numbers that the inputs carry, for gate dropout.
        on_divergence: "raise", or "record" to let the other runs go on.
        progress: Show a progress bar.
        label: What the bar says.

    Raises:
        DivergedError: If a run's loss is no longer finite; with "record" only if every run's is.
        ValueError: If there are fewer rows than in a batch, or no epoch.
    """
    num_inputs, num_tasks = data.x_train.shape[1], data.y_train.shape[1]
    # On a CPU a step of this size is its matrix products; compiling saves a tenth of it and takes longer.
    steps_per_epoch = len(data.x_train) // batch_size
    settings = TrainingSettings(
        steps=epochs * steps_per_epoch,
        learning_rate=learning_rate,
        evaluate_every=steps_per_epoch if evaluate else 0,
        monitor=monitor,
        patience=patience,
        on_divergence=on_divergence,
    )

    def batches(device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = data.x_train.to(device), data.y_train.to(device)
        shared = minibatches(x, y, batch_size, seed=order)
        return with_noise(shared, noise, seed=order) if noise else shared

    return fit(
        partial(builder, num_inputs, num_tasks),
        seeds,
        batches,
        binary_cross_entropy,
        settings,
        evaluate,
        device=device,
        progress=progress,
        label=label,
    )


def score(ensemble: Ensemble, data: CensusData) -> pd.DataFrame:
    """One row a run: seed, and the AUC of both tasks on the validation and the test half; NaN for a diverged run."""
    columns: dict[str, Sequence[float]] = {"seed": ensemble.seeds}
    parts = {"validation": (data.x_validation, data.y_validation), "test": (data.x_test, data.y_test)}
    for part, (x, y) in parts.items():
        logits = ensemble.predict(x.to(ensemble.device)).cpu()
        finite = torch.isfinite(logits).flatten(1).all(dim=1)  # (R,)
        for task, name in enumerate(("main", "auxiliary")):
            values = torch.full((len(ensemble),), torch.nan, dtype=torch.float64)
            values[finite] = auc(logits[finite, :, task], y[:, task])
            columns[f"{part}_{name}_auc"] = values.tolist()
    return pd.DataFrame(columns)


def gate_use(ensemble: Ensemble, data: CensusData) -> pd.DataFrame:
    """What the gates do on the test half, one row a run.

    Columns: gate_k_i, the mean weight of expert i for task k, NaN beyond the model's experts; gate_distance, how
    differently the tasks mix, the mean total variation between their gates; gate_entropy_k, the mean entropy of
    task k's gate over that of a uniform one, 0 for a gate that always picks one expert.
    """
    weights = ensemble.gate_weights(data.x_test.to(ensemble.device)).cpu()  # (R, N, K, n)
    experts = weights.shape[-1]
    use = metrics.gate_use(weights)
    columns: dict[str, Tensor] = {}
    for k in range(use.means.shape[1]):
        for i in range(MOST_EXPERTS):
            columns[f"gate_{k + 1}_{i + 1}"] = (
                use.means[:, k, i] if i < experts else torch.full((len(ensemble),), torch.nan)
            )
    columns["gate_distance"] = use.distance
    for k in range(use.means.shape[1]):
        # H(g) / log n
        columns[f"gate_entropy_{k + 1}"] = use.entropy[:, k] / torch.log(torch.tensor(float(experts)))
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


SCORES = tuple(f"{part}_{task}_auc" for part in ("validation", "test") for task in ("main", "auxiliary"))
"""The columns of `score`."""
_GATE_COLUMNS = (
    *(f"gate_{k}_{i + 1}" for k in (1, 2) for i in range(MOST_EXPERTS)),
    "gate_distance",
    "gate_entropy_1",
    "gate_entropy_2",
)
_ENDS = ("diverged_step", "train_rows")
COLUMNS = (*SCORES, *_GATE_COLUMNS, *_ENDS)
COLUMNS_WITHOUT_GATES = (*SCORES, *_ENDS)
"""What `run` gives beside the seed."""


def run(
    cell: Cell[Choices], source: CensusSource, device: torch.device | str = "cpu", *, gates: bool = True
) -> pd.DataFrame:
    """The rows of one cell: `score` of every run, and `gate_use` (NaN for a model without gates) if asked for.

    The column diverged_step is 0, or the step at which a run's loss was no longer finite; its scores are NaN.
    """
    choices = cell.choices
    data = source.data(choices.group, choices.variant)
    try:
        ensemble, history = train_runs(
            builder(cell.model, choices),
            data,
            cell.seeds,
            learning_rate=cell.learning_rate,
            epochs=choices.epochs,
            batch_size=choices.batch_size,
            order=choices.order,
            device=device,
            on_divergence="record",
            progress=False,
        )
    except DivergedError as error:  # every run did
        names = [*SCORES, *(_GATE_COLUMNS if gates else ())]
        nothing = pd.DataFrame(float("nan"), range(len(cell.seeds)), names)
        return pd.concat([pd.DataFrame({"seed": cell.seeds}), nothing], axis=1).assign(
            diverged_step=error.step, train_rows=len(data.x_train)
        )
    rows = score(ensemble, data).round(6)
    if gates:
        use = (
            gate_use(ensemble, data).round(4)
            if cell.model in GATED
            else pd.DataFrame(float("nan"), rows.index, _GATE_COLUMNS)
        )
        rows = pd.concat([rows, use], axis=1)
    return rows.assign(diverged_step=history.diverged_step.tolist(), train_rows=len(data.x_train))


def builder(method: str, choices: Choices) -> ModelBuilder:
    """The builder of one run trained with these choices."""
    plain = build(method, read_settings(choices.settings), choices.depth)
    if choices.start == 1.0:
        return plain

    def scaled(num_inputs: int, num_tasks: int, *, generator: torch.Generator | None = None) -> nn.Module:
        model = plain(num_inputs, num_tasks, generator=generator)
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, TuckerLayer):
                    for factor in (layer.core, layer.inputs, layer.outputs, layer.tasks):
                        factor.mul_(choices.start)
        return model

    return scaled


Settings = Mapping[tuple[str, str], Chosen]
"""By method and group."""


def reported_cells(preset: Preset, chosen: Settings) -> list[Cell[Choices]]:
    """The runs of tables 1 and 2: all methods' first runs come before the next runs.

    So a study cut short has as many runs of each.
    """
    return [
        _cell(method, group, chosen[method, group], seeds)
        for seeds in chunks(preset.census_seeds, preset.census_chunk)
        for group in GROUPS
        for method in METHODS
    ]


def _cell(
    method: str, setting: str, chosen: Chosen, seeds: Sequence[int], **changed: str | float
) -> Cell[Choices]:
    learning_rate = float(changed.pop("learning_rate", chosen.learning_rate))
    choices = replace(Choices(chosen.group, chosen.epochs, chosen.settings), **changed)  # type: ignore[arg-type]
    return Cell(method, setting, learning_rate, tuple(seeds), choices)


COMPARED = ("Shared-Bottom", "MMoE")
"""The methods with which choices and traps are measured."""


def choice_cells(preset: Preset, chosen: Settings) -> list[Cell[Choices]]:
    """Choices and traps, each with the first runs of the study."""
    seeds = range(preset.census_choice_runs)
    cells = []
    for group in GROUPS:
        # Traps are measured on both groups, what the paper leaves open on the first.
        for change in choices_of(group):
            for method in COMPARED:
                setting = chosen[method, group]
                values = dict(CHOICES[change.name])
                if "epochs" in values:
                    values["epochs"] = setting.epochs * int(values["epochs"])
                if "units" in values:
                    settings = read_settings(setting.settings)
                    settings["units"] *= int(values.pop("units"))
                    values["settings"] = settings_text(settings)
                cells.append(_cell(method, change.setting, setting, seeds, **values))
        for change in traps_of(group):
            for method in COMPARED:
                cells.append(_cell(method, change.setting, chosen[method, group], seeds, variant=change.name))
        pulled = chosen["L2-Constrained", group]
        for change in alphas_of(group):
            text = settings_text(read_settings(pulled.settings) | {"alpha": change.alpha})
            cells.append(_cell(pulled.method, change.setting, pulled, seeds, settings=text))
    return cells


def tucker_cells(preset: Preset, chosen: Settings) -> list[Cell[Choices]]:
    """Tensor-Factorization with each of `TUCKER`'s changes."""
    method, seeds = "Tensor-Factorization", range(max(2, preset.census_choice_runs // 2))
    cells = []
    for group in GROUPS:
        best = chosen[method, group]
        for change in tucker_of(group):
            values: dict[str, Any] = dict(TUCKER[change.name])
            if "ranks" in values:
                values["settings"] = settings_text(read_settings(best.settings) | values.pop("ranks"))
            cells.append(_cell(method, change.setting, best, seeds, **values))
    return cells
