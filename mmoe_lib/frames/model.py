"""One of the library's models on a pandas frame: fit, predict, look at the gates, save, load, export."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import vmap

from mmoe_lib import serving
from mmoe_lib.export import export_model, export_onnx
from mmoe_lib.files import versions, write_whole
from mmoe_lib.frames.columns import check_columns, frame_of, names_of, real, warn, whole
from mmoe_lib.frames.encoder import Embedding, FrameEncoder
from mmoe_lib.frames.network import EmbeddedModel, MeanOfRuns, rest_untrained_ids
from mmoe_lib.frames.saved import damaged_error, read_model, write_model
from mmoe_lib.frames.targets import MixedLoss, OwnUnits, Target, labels_of, weights_of
from mmoe_lib.frames.watch import watch
from mmoe_lib.models import PAPER_SIZES, CrossStitch, L2Constrained, TensorFactorization
from mmoe_lib.models.embeddings import Inputs
from mmoe_lib.models.extensions import (
    CGC,
    PLE,
    AttentionMMoE,
    DSelectKMMoE,
    TopKMMoE,
    TransformerMMoE,
)
from mmoe_lib.models.layers import ModelBuilder
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import Adam, Ensemble, History, TrainingSettings, epochs, fit
from mmoe_lib.training.balancing import SURGEONS, Balancer, GradientSurgery, GradNorm, UncertaintyWeighting
from mmoe_lib.training.batches import own_epochs, parts_of, rebuilt
from mmoe_lib.training.devices import checked_device, faster_device

_NETWORKS: dict[str, Any] = {"bottom_widths": (113,), "tower_widths": (8,)}
_EXPERTS: dict[str, Any] = {"expert_widths": (16,), "tower_widths": (8,)}
_MIXTURE: dict[str, Any] = {**_EXPERTS, "num_experts": 8}
_LAYERED: dict[str, Any] = {**_EXPERTS, "shared_experts": 4, "task_experts": 2}

MODELS: dict[str, partial[Any]] = {
    **{name: PAPER_SIZES[name] for name in ("MMoE", "OMoE", "Shared-Bottom", "Single-Task")},
    "Cross-Stitch": partial(CrossStitch, **_NETWORKS),
    "L2-Constrained": partial(L2Constrained, **_NETWORKS, alpha=1e-3),
    "Tensor-Factorization": partial(TensorFactorization, **_NETWORKS),
    "Attention gates": partial(AttentionMMoE, **_MIXTURE),
    "Transformer over experts": partial(TransformerMMoE, **_MIXTURE),
    "Top-2 gates": partial(TopKMMoE, **_MIXTURE, k=2),
    "DSelect-2": partial(DSelectKMMoE, **_MIXTURE, k=2, entropy=0.01),
    "CGC": partial(CGC, **_LAYERED),
    "PLE": partial(PLE, **_LAYERED, levels=2),
}
"""Models by name, with the sizes of section 5.1, those of layers with eight experts for two tasks; the ranks of Tensor-Factorization have to be given."""

BALANCERS: dict[str, Balancer] = {
    "uncertainty": UncertaintyWeighting(),
    "GradNorm": GradNorm(),
    **{name: GradientSurgery(name) for name in SURGEONS},
}
"""Balancers of the tasks' gradients by name; those of `SURGEONS` need torchjd."""


@dataclass(frozen=True)
class FitSettings:
    """How long and how fast to train.

    Attributes:
        epochs: Passes over the training rows, at most.
        batch_size: Rows of a minibatch; fewer training rows are one batch.
        learning_rate: Of Adam.
        patience: Epochs in which the validation loss does not fall before a run stops; None never stops early.
        runs: Models with initial weights of their own, trained as one computation; predictions are their means.
        seed: Of the first run, the next ones count up from it; also of the validation rows and the order of rows.
        device: "cpu", "cuda", or "auto", which takes a GPU where it is likely to be faster (`faster_device`).
        compile: Compile the training step: worth its half minute where training takes many.
        weight_decay: Of AdamW: each weight shrinks by the learning rate times this at each step; 0 for none.
        balancer: A name of `BALANCERS`, which decides how much each task's gradient counts; None takes their sum.
        task_weights: What the loss of a target is multiplied with, by the target's name; 1 for those not named.
        own_orders: Let each run visit the rows in the order that its own seed gives, as it would alone, so that runs
            tell how much the order matters too; else all share one order, which is faster.

    Raises:
        ValueError: If a number is out of range, or there is no such balancer.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 3e-3
    patience: int | None = 10
    runs: int = 1
    seed: int = 0
    device: str = "cpu"
    compile: bool = False
    weight_decay: float = 0.0
    balancer: str | None = None
    task_weights: Mapping[str, float] | None = None
    own_orders: bool = False

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1), ("runs", 1), ("seed", 0)):
            if getattr(self, name) is not None or name != "patience":
                object.__setattr__(self, name, whole(name, getattr(self, name), least))
        object.__setattr__(self, "learning_rate", real("learning_rate", self.learning_rate))
        object.__setattr__(self, "weight_decay", real("weight_decay", self.weight_decay, positive=False))
        if str(self.device) == "meta":
            raise ValueError("device is 'meta', which holds no numbers, expected 'cpu', 'cuda' or 'auto'")
        for name in ("compile", "own_orders"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected True or False")
        if self.balancer is not None and self.balancer not in BALANCERS:
            raise ValueError(
                f"balancer is {self.balancer!r}, expected one of {', '.join(BALANCERS)}, or None"
            )
        if self.task_weights is not None:
            if not isinstance(self.task_weights, Mapping):
                raise ValueError(
                    f"task_weights are {self.task_weights!r}, expected numbers by a target's name"
                )
            for name, weight in self.task_weights.items():
                real(f"the task weight of {name!r}", weight, positive=False)


@dataclass(frozen=True, eq=False)
class MultiTaskModel:
    """A trained model with all that turns a frame into its predictions. Made by `fit` or `load`.

    >>> import numpy as np, pandas as pd
    >>> from mmoe_lib.frames import FitSettings, MultiTaskModel
    >>> rng = np.random.default_rng(0)
    >>> frame = pd.DataFrame({"age": rng.normal(40, 10, 1500), "city": rng.choice(["Bern", "Oslo"], 1500)})
    >>> frame["spent"] = 2 * frame["age"] + 30 * (frame["city"] == "Oslo") + rng.normal(0, 8, 1500)  # real
    >>> frame["bought"] = frame["spent"] + rng.normal(0, 15, 1500) > 95  # binary
    >>> model = MultiTaskModel.fit(frame[:1000], ["spent", "bought"], settings=FitSettings(learning_rate=0.01))
    >>> model.evaluate(frame[1000:]).round(1)
           metric  value
    target
    spent      R2    0.9
    bought    AUC    0.9
    >>> model.save("shop.pt")
    >>> MultiTaskModel.load("shop.pt").predict(frame[1000:]).shape
    (500, 2)

    Attributes:
        encoder: How the input columns are encoded.
        targets: What is predicted, K of them.
        ensemble: The trained runs.
        model: The model's name in `MODELS`, or None where it is the caller's own builder.
        sizes: Its sizes, those not given included.
        history: The course of training, the validation loss of each epoch as the metric "loss"; None after `load`.
    """

    encoder: FrameEncoder
    targets: tuple[Target, ...]
    ensemble: Ensemble
    model: str | None
    sizes: Mapping[str, Any]
    history: History | None = field(default=None, repr=False)

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        targets: Sequence[str],
        inputs: Sequence[str] | None = None,
        *,
        model: str | ModelBuilder = "MMoE",
        sizes: Mapping[str, Any] | None = None,
        weights: str | None = None,
        classes: Sequence[str] = (),
        embeddings: Sequence[str] | Mapping[str, Embedding | int | None] = (),
        validation: float | pd.DataFrame | None = 0.2,
        settings: FitSettings | None = None,
        progress: bool = True,
    ) -> MultiTaskModel:
        """Train on the rows of a frame.

        A target that holds 0 and 1 (or booleans) and nothing else is binary and trained with cross-entropy; one of
        text or categories, or named in `classes`, has an output a class, each with a gate and a tower of its own, and
        is trained with the cross-entropy of their softmax; any other is real, scaled to mean 0 and variance 1 over the
        training rows, and trained with squared error. A missing value is a missing label: its row counts for the other
        targets. The loss of a run is the sum over targets. Each run keeps the weights of the epoch with the lowest
        validation loss. A run that diverges beside others is left out, with a warning.

        Args:
            frame: Its rows.
            targets: Names of the K columns to predict.
            inputs: Names of the columns to read; None for all that are neither targets nor weights.
            model: A name of `MODELS`, or a builder called as build(num_inputs, num_outputs, generator=..., **sizes).
            sizes: What the model is to have instead of its default sizes, such as {"num_experts": 4}.
            weights: Name of a column that says how much each row counts, in training and in the validation loss; only
                their ratios matter.
            classes: Names of targets of numbers that are to be classes.
            embeddings: Names of the inputs that are ids, to be embedded; or how each is, by name: an `Embedding`, or
                the width of its vectors.
            validation: The share of rows, drawn at random, that is held out from training for early stopping, or a
                frame of such rows, or None: then all epochs are run and the last weights are kept.
            settings: How long and how fast; None for the defaults.
            progress: Show a progress bar.

        Raises:
            ValueError: If a column is missing, a target constant, without labels or neither numbers nor text, an input
                neither numbers, text nor lists, a name twice among inputs and targets, weights negative, a model or
                its sizes unknown, or validation no share.
            DivergedError: If a loss becomes NaN or infinite, of the only run or of all.
        """
        settings, frame = FitSettings() if settings is None else settings, frame_of(frame)
        if not isinstance(settings, FitSettings):
            raise ValueError(f"settings are {type(settings).__name__}, expected FitSettings(...) or None")
        targets, inputs = checked_names(frame, targets, inputs, weights)
        classes = _named_among("classes", names_of("classes", classes), targets)
        task_weights = settings.task_weights or {}
        _named_among("task_weights", list(task_weights), targets)
        weights_of(frame, weights)  # of all rows, before some are held out
        rows, held_out = split_rows(frame, validation, settings.seed)
        encoder = FrameEncoder.fit(rows, inputs, embeddings_of(embeddings))
        fitted = tuple(Target.fit(rows, name, classes=name in classes) for name in targets)
        chosen, builder, sizes = _chosen(model, sizes or {})
        seeds = range(settings.seed, settings.seed + settings.runs)
        batch_size = min(settings.batch_size, len(rows))
        steps = len(rows) // batch_size  # of an epoch
        device = faster_device(
            settings.device, runs=settings.runs, batch_size=batch_size, steps=settings.epochs * steps
        )
        build = _builder(builder, sizes, encoder, fitted)
        counted = weights_of(rows, weights)
        unit = 1.0 if counted is None else float(counted.mean())

        def on_device(frame: pd.DataFrame) -> tuple[Inputs, Tensor]:
            x, counts = encoder.encode(frame), weights_of(frame, weights)
            y = labels_of(fitted, frame, None if counts is None else counts / unit)
            return rebuilt(x, [part.to(device) for part in parts_of(x)]), y.to(device)

        loss = MixedLoss(
            fitted,
            device,
            weights=weights is not None,
            tasks=[float(task_weights.get(name, 1.0)) for name in targets] if task_weights else None,
        )
        training = TrainingSettings(
            steps=settings.epochs * steps,
            learning_rate=settings.learning_rate,
            optimiser=Adam(weight_decay=settings.weight_decay),
            note_every=steps,
            evaluate_every=0 if held_out is None else steps,
            monitor=None if held_out is None else "loss",
            higher_is_better=False,
            patience=None if held_out is None else settings.patience,
            compile=settings.compile,
            balancer=None if settings.balancer is None else BALANCERS[settings.balancer],
            on_divergence="raise" if settings.runs == 1 else "record",
        )
        x, y = on_device(rows)
        others = None if held_out is None else on_device(held_out)
        if others is not None:
            _check_labels(fitted, others[1])
        ensemble, history = fit(
            build,
            seeds,
            partial(_batches, x, y, batch_size, seeds, own_orders=settings.own_orders),
            loss,
            training,
            None if others is None else partial(_validation_loss, loss, *others),
            device=device,
            progress=progress,
            label="fit",
        )
        ensemble = _survivors(ensemble, history)
        if not isinstance(x, Tensor):
            rest_untrained_ids(ensemble, encoder.ids, x[0])
        watch(ensemble, fitted, loss, y, *(others or (x, y)), "training" if others is None else "held-out")
        return cls(encoder, fitted, ensemble, chosen, sizes, history)

    def predict(self, frame: pd.DataFrame, *, spread: bool = False) -> pd.DataFrame:
        """Probabilities of binary targets and of classes, values of real ones; of several runs their mean.

        Args:
            frame: Holds the input columns, in any order; other columns are not looked at. One row may also be given as
                a dict or Series, rows as a list of dicts.
            spread: Give mean and standard deviation over the runs, as columns (target, "mean") and (target, "spread").

        Returns:
            As many rows, with the frame's index, a column a target, or one a class, called "target=class".

        Raises:
            ValueError: If an input column is missing, or holds text or infinity where training had numbers, or a
                spread is asked for of one run.
        """
        frame = frame_of(frame)
        if spread and len(self.ensemble) < 2:
            raise ValueError(
                "spread is True for a single run, expected several: fit with FitSettings(runs=5)"
            )
        outputs = self.ensemble.predict(self._encoded(frame)).cpu()  # (R, N, O)
        each = OwnUnits(self.targets, torch.float64)(outputs)
        names = [name for target in self.targets for name in target.names]
        mean = pd.DataFrame(each.mean(dim=0).numpy(), frame.index, names)  # (N, O)
        if not spread:
            return mean
        deviation = pd.DataFrame(each.std(dim=0).numpy(), frame.index, names)
        both = pd.concat({"mean": mean, "spread": deviation}, axis=1).swaplevel(axis=1)
        return both[pd.MultiIndex.from_product([names, ["mean", "spread"]], names=["target", None])]

    def evaluate(self, frame: pd.DataFrame, *, weights: str | None = None) -> pd.DataFrame:
        """How well `predict` does on rows that hold the targets too.

        AUC of binary targets, R2 of real ones, accuracy and log loss of classes.

        Args:
            frame: Holds the input and target columns; rows without a target's label do not count for it.
            weights: Name of a column that says how much each row counts; None for 1 each.

        Returns:
            A row a metric, with columns metric and value, called by its target. NaN, with a warning, where a target has
            one value only, or no label.

        Raises:
            ValueError: If an input or target column is missing or not as in training.
        """
        frame = frame_of(frame)
        predicted, counted = self.predict(frame), weights_of(frame, weights)
        scores = {
            target.name: target.scores(predicted[list(target.names)].to_numpy(), frame, counted)
            for target in self.targets
        }
        names = pd.Index([name for name, found in scores.items() for _ in found], name="target")
        return pd.DataFrame([one for found in scores.values() for one in found], names, ["metric", "value"])

    def _encoded(self, frame: pd.DataFrame) -> Inputs:
        x = self.encoder.encode(frame)
        return rebuilt(x, [part.to(self.ensemble.device) for part in parts_of(x)])

    def gate_weights(self, frame: pd.DataFrame, run: int = 0) -> pd.DataFrame:
        """How much of each expert each target reads, a row of the frame at a time.

        Experts of different runs have nothing to do with each other, so the weights are those of one run.

        Args:
            frame: As for `predict`.
            run: Which of the runs, from 0.

        Returns:
            As many rows, with columns (target, expert), experts counted from 1; those of a target sum to 1.

        Raises:
            TypeError: If the model has no gates.
            ValueError: If there is no such run, or the frame is not as `predict` wants it.
        """
        frame = frame_of(frame)
        if whole("run", run, 0) >= len(self.ensemble):
            raise ValueError(
                f"run is {run}, expected 0 to {len(self.ensemble) - 1}: there are {len(self.ensemble)}"
            )
        weights = self.ensemble.gate_weights(self._encoded(frame))[run].cpu()
        columns = pd.MultiIndex.from_product(
            [[name for target in self.targets for name in target.names], range(1, weights.shape[-1] + 1)],
            names=["target", "expert"],
        )
        return pd.DataFrame(weights.flatten(1).numpy(), frame.index, columns)

    def save(self, path: Path | str) -> None:
        """Write the model, whole or not at all, as tensors and plain values that torch loads with weights_only.

        Raises:
            ValueError: If the sizes hold anything that JSON does not know.
            OSError: If the file cannot be written; there is then none, or still the one that was there.
        """
        try:
            sizes = json.loads(json.dumps(dict(self.sizes)))
        except TypeError as error:
            raise ValueError(
                f"sizes are {dict(self.sizes)}, expected numbers, text and lists of them to save ({error})"
            ) from error
        state = {**self.ensemble.parameters, **self.ensemble.buffers}
        content = {
            "model": self.model,
            "sizes": sizes,
            "seeds": list(self.ensemble.seeds),
            "encoder": self.encoder.to_plain(),
            "targets": [asdict(target) | {"classes": list(target.classes)} for target in self.targets],
            "state": {name: value.detach().cpu() for name, value in state.items()},
        }
        write_model(Path(path), content)

    @classmethod
    def load(
        cls, path: Path | str, *, builder: ModelBuilder | None = None, device: torch.device | str = "cpu"
    ) -> MultiTaskModel:
        """A model that `save` wrote; it predicts the same numbers.

        Nothing in the file is run: it is read with torch.load(weights_only=True), which knows tensors and plain values.

        Args:
            path: The file.
            builder: The one that `fit` was called with, where the model was not chosen by name.
            device: Where it is to predict.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, no saved model or of another version of the format, the builder is not the one
                that it was fitted with, or the device is not there.
        """
        path, device = Path(path), checked_device(device)
        content = read_model(path)
        name, targets, encoder = content["model"], content["targets"], content["encoder"]
        if (name is None) != (builder is not None):
            fitted, wanted = ("a builder", "that builder") if name is None else (repr(name), "none")
            raise ValueError(
                f"{path.name} was fitted with {fitted}, expected {wanted} as the argument builder"
            )
        _, build, sizes = _chosen(str(name) if builder is None else builder, content["sizes"])
        ensemble = Ensemble(_builder(build, sizes, encoder, targets), content["seeds"], device=device)
        own, state = {**ensemble.parameters, **ensemble.buffers}, content["state"]
        needed = {key: tuple(value.shape) for key, value in own.items()}
        given = {key: tuple(value.shape) for key, value in state.items()}
        if needed != given:
            key = next(key for key in {**needed, **given} if needed.get(key) != given.get(key))
            told = f"{key} has shape {given.get(key)} in the file and {needed.get(key)} in the model"
            if builder is not None:
                raise ValueError(
                    f"the builder makes another model than the one in {path.name}, expected that of fit ({told})"
                )
            raise damaged_error(path, ValueError(told))
        for key, value in own.items():
            value.copy_(state[key])
        return cls(encoder, targets, ensemble, name, sizes)

    def export(self, path: Path | str, *, form: str = "pt2", opset: int | None = None) -> None:
        """Write all that a program without this library needs to predict from raw rows, as files or as a folder.

        `schema.json` holds the columns with their means, scales, categories and ids, the targets' names, kinds, units
        and classes, and the versions that wrote it; `serve.py` turns raw rows into predictions with numpy and torch, or
        onnxruntime. The network itself maps what `encoder.encode` gives to what `predict` gives, in float32.

        Args:
            path: A folder, made if it is not there; or a file that ends in ".pt2" or ".onnx", beside which the schema
                is written, as "shop.schema.json" beside "shop.pt2".
            form: Of the network in a folder, "pt2" or "onnx".
            opset: Version of ONNX's operators; None leaves it to torch.

        Raises:
            ValueError: If the file's name ends otherwise, or a weight is no finite number.
            ImportError: If ONNX is asked for and its packages are not installed.
            OSError: If a file cannot be written; there is then none, or still the one that was there.
        """
        path = Path(path)
        single = bool(path.suffix) and not path.is_dir()
        network = path if single else path / f"model.{form}"
        writers: dict[str, Callable[..., object]] = {
            ".pt2": export_model,
            ".onnx": partial(export_onnx, opset=opset),
        }
        if network.suffix not in writers:
            raise ValueError(
                f"the file is {network.name}, expected a name that ends in {' or '.join(writers)}, or a folder"
            )
        schema = {
            "format": serving.FORMAT,
            "versions": versions(),
            "model": network.name,
            "columns": self.encoder.to_plain(),
            "features": list(self.encoder.feature_names),
            "targets": [
                asdict(target) | {"names": target.names, "predicted as": target.kind}
                for target in self.targets
            ],
        }
        if not single:
            path.mkdir(parents=True, exist_ok=True)
        num_ids = sum(column.length for column in self.encoder.ids)
        module = MeanOfRuns(self.ensemble, self.targets)
        writers[network.suffix](module, len(self.encoder.feature_names), network, num_ids=num_ids)
        beside = network.with_suffix(".schema.json") if single else path / "schema.json"
        write_whole(beside, json.dumps(schema, indent=1).encode())
        if not single:
            write_whole(path / "serve.py", Path(serving.__file__).read_bytes())


def _batches(
    x: Inputs,
    y: Tensor,
    batch_size: int,
    seeds: Sequence[int],
    device: torch.device,
    *,
    own_orders: bool,
) -> Iterator[tuple[Any, Tensor]]:
    """Minibatches (B, d) that all runs share, or (R, B, d) with an order of each run's own."""
    if not own_orders:
        return epochs(x, y, batch_size, seed=seeds[0])

    def take(rows: Tensor) -> tuple[Any, Tensor]:
        return rebuilt(x, [part[rows] for part in parts_of(x)]), y[rows]

    every = torch.arange(len(y)).expand(len(seeds), -1)  # (R, N)
    return own_epochs(take, every, batch_size, seeds=seeds, device=device)


def _validation_loss(loss: MixedLoss, x: Inputs, y: Tensor, ensemble: Ensemble) -> dict[str, Tensor]:
    """The sum of the task losses of each run, (R,), over the held-out rows."""
    return {"loss": vmap(loss, in_dims=(0, None))(ensemble.predict(x), y).sum(dim=1)}


def _check_labels(targets: Sequence[Target], y: Tensor) -> None:
    """Warn of targets without a label among the held-out rows (N, ...); raise ValueError if none has one."""
    labelled = ~y[:, : len(targets)].isnan().all(dim=0)
    without = [
        repr(target.name) for target, there in zip(targets, labelled.tolist(), strict=True) if not there
    ]
    if len(without) == len(targets):
        raise ValueError(
            f"the {len(y)} validation rows hold no label of any target, expected some: give others, or validation=None"
        )
    if without:
        warn(
            f"the {len(y)} validation rows hold no label of {', '.join(without)}: early stopping does not see it"
        )


def _survivors(ensemble: Ensemble, history: History) -> Ensemble:
    """The runs that did not diverge; a warning names the others."""
    diverged = [run for run, step in enumerate(history.diverged_step.tolist()) if step]
    if not diverged:
        return ensemble
    seeds = ", ".join(str(ensemble.seeds[run]) for run in diverged)
    warn(
        f"{len(diverged)} of {len(ensemble)} runs diverged and are left out (seeds {seeds}): lower learning_rate"
    )
    return ensemble.keep([run for run in range(len(ensemble)) if run not in diverged])


def checked_names(
    frame: pd.DataFrame, targets: Sequence[str], inputs: Sequence[str] | None, weights: str | None
) -> tuple[list[str], list[str]]:
    """The names of targets and inputs; raises ValueError unless all are text, in the frame, and given once."""
    targets = names_of("targets", targets)
    if not targets:
        raise ValueError("targets is empty, expected the name of at least one column to predict")
    if weights is not None and not isinstance(weights, str):
        raise ValueError(f"weights is {type(weights).__name__}, expected the name of a column")
    beside = {*targets, weights}
    inputs = names_of(
        "inputs", [name for name in frame.columns if name not in beside] if inputs is None else inputs
    )
    names = [*targets, *inputs, *([] if weights is None else [weights])]
    for name in names:
        if names.count(name) > 1 and name in frame.columns:
            raise ValueError(
                f"column {name!r} is named twice, expected once, as a target, an input or the weights"
            )
    check_columns(frame, names)
    return targets, inputs


def _named_among(what: str, names: list[str], targets: list[str]) -> list[str]:
    strange = [name for name in names if name not in targets]
    if strange:
        raise ValueError(f"{what} name {strange[0]!r}, expected some of the targets {', '.join(targets)}")
    return names


def embeddings_of(given: Sequence[str] | Mapping[str, Embedding | int | None]) -> dict[str, Embedding]:
    """How each named column is embedded."""
    if not isinstance(given, Mapping):
        return {name: Embedding() for name in names_of("embeddings", given)}
    return {
        name: how if isinstance(how, Embedding) else Embedding(how)
        for name, how in zip(names_of("embeddings", given), given.values(), strict=True)
    }


def split_rows(
    frame: pd.DataFrame, validation: float | pd.DataFrame | None, seed: int, what: str = "validation"
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The rows that are left, and those held out: a share drawn at random, or a frame, or none.

    Raises:
        ValueError: If it is no share that leaves rows for both, or a frame without rows.
    """
    if validation is None:
        return frame, None
    if not isinstance(validation, bool | int | float | str):
        held_out_rows = frame_of(validation)
        if not len(held_out_rows):
            raise ValueError(f"{what} is a frame of 0 rows, expected some, or a share, or None")
        return frame, held_out_rows
    share = validation if isinstance(validation, float) else 0.0
    held_out = round(share * len(frame)) if 0 < share < 1 else 0
    if not 0 < held_out < len(frame):
        raise ValueError(
            f"{what} is {validation!r} of {len(frame)} rows, expected a share between 0 and 1 that leaves rows for "
            "both, or a frame, or None"
        )
    order = torch.randperm(len(frame), generator=seeded_generator(seed, f"{what} rows")).numpy()
    return frame.iloc[order[held_out:]], frame.iloc[order[:held_out]]


def _chosen(
    model: str | ModelBuilder, sizes: Mapping[str, Any]
) -> tuple[str | None, ModelBuilder, dict[str, Any]]:
    """The model's name, if it has one, its builder, and all of its sizes."""
    if not isinstance(sizes, Mapping):
        raise ValueError(f"sizes are {type(sizes).__name__}, expected a dict such as {{'num_experts': 4}}")
    if not isinstance(model, str) and callable(model):
        return None, model, dict(sizes)
    if model not in MODELS:
        raise ValueError(f"model is {model!r}, expected one of {', '.join(MODELS)}, or a builder")
    return model, MODELS[model], {**MODELS[model].keywords, **sizes}


def _builder(
    builder: ModelBuilder, sizes: Mapping[str, Any], encoder: FrameEncoder, targets: Sequence[Target]
) -> Callable[..., nn.Module]:
    """What makes one run.

    Raises:
        ValueError: If the builder does not take these sizes, or its model does not give one output a target or class.
    """
    num_numbers, num_outputs = len(encoder.feature_names), sum(target.outputs for target in targets)
    try:
        inspect.signature(builder).bind(num_numbers, num_outputs, generator=None, **sizes)
    except TypeError as error:
        raise ValueError(
            f"sizes are {dict(sizes)}, expected what {_name_of(builder)} takes ({error}): correct them"
        ) from error
    numbers, top = torch.zeros(1, num_numbers), partial(builder, **sizes)
    x: Inputs = numbers
    build: partial[Any] = partial(top, num_numbers, num_outputs)
    if encoder.ids:
        x = torch.ones(1, sum(column.length for column in encoder.ids), dtype=torch.int64), numbers
        build = partial(EmbeddedModel, num_numbers, num_outputs, columns=encoder.ids, top=top)
    try:
        with torch.no_grad():
            given = tuple(build(generator=seeded_generator(0, "trial")).eval()(x).shape)
    except TypeError as error:
        if builder not in MODELS.values():
            raise  # the caller's own
        raise ValueError(
            f"sizes are {dict(sizes)}, expected whole numbers, and lists of them for widths ({error})"
        ) from error
    if given != (1, num_outputs):
        raise ValueError(
            f"the model gives outputs {given} for one row, expected {(1, num_outputs)}: one a target, or a class"
        )
    return build


def _name_of(builder: ModelBuilder) -> str:
    function = builder.func if isinstance(builder, partial) else builder
    return getattr(function, "__name__", repr(function))
