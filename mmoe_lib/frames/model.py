"""One of the library's models on a pandas frame: fit, predict, look at the gates, save, load, export."""

from __future__ import annotations

import inspect
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import vmap

from mmoe_lib.export import export_model, export_onnx
from mmoe_lib.files import write_whole
from mmoe_lib.frames.encoder import FrameEncoder, check_columns
from mmoe_lib.frames.targets import MixedLoss, OwnUnits, Target, complete_numbers, labels_of
from mmoe_lib.models import PAPER_SIZES, CrossStitch, L2Constrained, TensorFactorization
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
from mmoe_lib.training import Ensemble, History, TrainingSettings, epochs, fit
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

_FORMAT = "mmoe_lib frame model, version 1"


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

    Raises:
        ValueError: If a number is out of range.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 3e-3
    patience: int | None = 10
    runs: int = 1
    seed: int = 0
    device: str = "cpu"
    compile: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (
            ("epochs", self.epochs, 1),
            ("batch_size", self.batch_size, 1),
            ("patience", 1 if self.patience is None else self.patience, 1),
            ("runs", self.runs, 1),
            ("seed", self.seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}, expected {least} or more")


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
        validation: float | pd.DataFrame | None = 0.2,
        settings: FitSettings | None = None,
        progress: bool = True,
    ) -> MultiTaskModel:
        """Train on the rows of a frame.

        A target that holds 0 and 1 (or booleans) and nothing else is binary and trained with cross-entropy; any other
        is real, scaled to mean 0 and variance 1 over the training rows, and trained with squared error. The loss of a
        run is the sum over targets. Each run keeps the weights of the epoch with the lowest validation loss.

        Args:
            frame: Its rows.
            targets: Names of the K columns to predict.
            inputs: Names of the columns to read; None for all that are no targets.
            model: A name of `MODELS`, or a builder called as build(num_inputs, num_tasks, generator=..., **sizes).
            sizes: What the model is to have instead of its default sizes, such as {"num_experts": 4}.
            validation: The share of rows, drawn at random, that is held out from training for early stopping, or a
                frame of such rows, or None: then all epochs are run and the last weights are kept.
            settings: How long and how fast; None for the defaults.
            progress: Show a progress bar.

        Raises:
            ValueError: If a column is missing, a target incomplete, constant or not numbers, an input neither numbers
                nor text, a name twice among inputs and targets, a model or its sizes unknown, or validation no share.
            DivergedError: If a loss becomes NaN or infinite.
        """
        settings = settings or FitSettings()
        inputs = _checked_names(frame, targets, inputs)
        for name in targets:
            complete_numbers(frame, name)  # counts what is missing in all rows, before some are held out
        rows, held_out = _split(frame, validation, settings.seed)
        encoder = FrameEncoder.fit(rows, inputs)
        fitted = tuple(Target.fit(rows, name) for name in targets)
        chosen, builder, sizes = _chosen(model, sizes or {})
        seeds = range(settings.seed, settings.seed + settings.runs)
        batch_size = min(settings.batch_size, len(rows))
        steps = len(rows) // batch_size  # of an epoch
        device = faster_device(
            settings.device, runs=settings.runs, batch_size=batch_size, steps=settings.epochs * steps
        )
        build = _builder(builder, sizes, encoder, fitted)

        def on_device(frame: pd.DataFrame) -> tuple[Tensor, Tensor]:
            return encoder.encode(frame).to(device), labels_of(fitted, frame).to(device)

        loss = MixedLoss(fitted, device)
        training = TrainingSettings(
            steps=settings.epochs * steps,
            learning_rate=settings.learning_rate,
            note_every=steps,
            evaluate_every=0 if held_out is None else steps,
            monitor=None if held_out is None else "loss",
            higher_is_better=False,
            patience=None if held_out is None else settings.patience,
            compile=settings.compile,
        )
        evaluate = None if held_out is None else partial(_validation_loss, loss, *on_device(held_out))
        ensemble, history = fit(
            build,
            seeds,
            lambda device: epochs(*on_device(rows), batch_size, seed=settings.seed),
            loss,
            training,
            evaluate,
            device=device,
            progress=progress,
            label="fit",
        )
        return cls(encoder, fitted, ensemble, chosen, sizes, history)

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Probabilities of binary targets and values of real ones, a column a target; of several runs their mean.

        Args:
            frame: Holds the input columns, in any order; other columns are not looked at.

        Returns:
            As many rows, with the frame's index.

        Raises:
            ValueError: If an input column is missing, or holds text or infinity where training had numbers.
        """
        x = self.encoder.encode(frame).to(self.ensemble.device)  # (N, d)
        outputs = self.ensemble.predict(x).cpu()  # (R, N, K)
        predicted = OwnUnits(self.targets, torch.float64)(outputs).mean(dim=0)  # (N, K)
        return pd.DataFrame(predicted.numpy(), frame.index, [target.name for target in self.targets])

    def evaluate(self, frame: pd.DataFrame) -> pd.DataFrame:
        """How well `predict` does on rows that hold the targets too: AUC of binary targets, R2 of real ones.

        Returns:
            A row a target, with columns metric and value.

        Raises:
            ValueError: If an input or target column is missing or not as in training, or a target has one value only.
        """
        predicted = self.predict(frame)
        scores = [target.score(predicted[target.name].to_numpy(), frame) for target in self.targets]
        names = pd.Index([target.name for target in self.targets], name="target")
        return pd.DataFrame(scores, names, ["metric", "value"])

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
        if not 0 <= run < len(self.ensemble):
            raise ValueError(
                f"run is {run}, expected 0 to {len(self.ensemble) - 1}: there are {len(self.ensemble)}"
            )
        weights = self.ensemble.gate_weights(self.encoder.encode(frame).to(self.ensemble.device))[run].cpu()
        columns = pd.MultiIndex.from_product(
            [[target.name for target in self.targets], range(1, weights.shape[-1] + 1)],
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
        buffer = io.BytesIO()
        content = {
            "format": _FORMAT,
            "model": self.model,
            "sizes": sizes,
            "seeds": list(self.ensemble.seeds),
            "encoder": self.encoder.to_plain(),
            "targets": [asdict(target) for target in self.targets],
            "state": {name: value.detach().cpu() for name, value in state.items()},
        }
        torch.save(content, buffer)
        write_whole(Path(path), buffer.getvalue())

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
            ValueError: If it is damaged or no saved model, the builder is not the one that it was fitted with, or the
                device is not there.
        """
        device = checked_device(device)
        content = _read(Path(path))
        name = content.get("model")
        if (name is None) != (builder is not None):
            fitted, wanted = ("a builder", "that builder") if name is None else (repr(name), "none")
            raise ValueError(
                f"{Path(path).name} was fitted with {fitted}, expected {wanted} as the argument builder"
            )
        try:
            encoder = FrameEncoder.from_plain(content["encoder"])
            targets = tuple(Target(**fields) for fields in content["targets"])
            _, build, sizes = _chosen(str(name) if builder is None else builder, content["sizes"])
            ensemble = Ensemble(_builder(build, sizes, encoder, targets), content["seeds"], device=device)
            for key, value in {**ensemble.parameters, **ensemble.buffers}.items():
                saved = content["state"].pop(key)
                if saved.shape != value.shape:
                    raise ValueError(f"{key} has shape {tuple(saved.shape)}, expected {tuple(value.shape)}")
                value.copy_(saved)
            if content["state"]:
                raise ValueError(f"it holds {', '.join(content['state'])}, which the model has not")
        except Exception as error:  # whatever a file that was changed by hand leads to
            raise ValueError(_damaged(Path(path), error)) from error
        return cls(encoder, targets, ensemble, name, sizes)

    def export(self, path: Path | str) -> None:
        """Write the network as a file that predicts without this library: ".pt2" or ".onnx".

        It maps what `encoder.encode` gives, (N, d) with the columns `encoder.feature_names`, to what `predict` gives,
        (N, K), in float32.

        Raises:
            ValueError: If the file's name ends otherwise.
            ImportError: If ".onnx" is asked for and its packages are not installed.
            OSError: If the file cannot be written; there is then none, or still the one that was there.
        """
        path = Path(path)
        writers: dict[str, Callable[[nn.Module, int, Path], object]] = {
            ".pt2": export_model,
            ".onnx": export_onnx,
        }
        if path.suffix not in writers:
            raise ValueError(f"the file is {path.name}, expected a name that ends in {' or '.join(writers)}")
        module = _MeanOfRuns(self.ensemble, self.targets)
        writers[path.suffix](module, len(self.encoder.feature_names), path)


class _MeanOfRuns(nn.Module):
    """Encoded rows (B, d) to predictions (B, K): each run's in their own unit, then their mean."""

    def __init__(self, ensemble: Ensemble, targets: Sequence[Target]) -> None:
        super().__init__()
        self.runs = nn.ModuleList(ensemble.module(run) for run in range(len(ensemble)))
        self.own_units = OwnUnits(targets, ensemble.dtype).to(ensemble.device)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.own_units(run(x)) for run in self.runs]).mean(dim=0)


def _validation_loss(loss: MixedLoss, x: Tensor, y: Tensor, ensemble: Ensemble) -> dict[str, Tensor]:
    """The sum of the task losses of each run, (R,), over the held-out rows."""
    return {"loss": vmap(loss, in_dims=(0, None))(ensemble.predict(x), y).sum(dim=1)}


def _checked_names(frame: pd.DataFrame, targets: Sequence[str], inputs: Sequence[str] | None) -> list[str]:
    """The names of the inputs; raises ValueError unless all names are text, in the frame, and given once."""
    for what, names in (("targets", targets), ("inputs", inputs)):
        if isinstance(names, str):
            raise ValueError(f"{what} is {names!r}, expected a list of names such as [{names!r}]")
    if not targets:
        raise ValueError("targets is empty, expected the name of at least one column to predict")
    inputs = [name for name in frame.columns if name not in targets] if inputs is None else list(inputs)
    names = [*targets, *inputs]
    for name in names:
        if not isinstance(name, str):
            raise ValueError(
                f"column {name!r} has no text as its name, expected text: frame.columns.astype(str)"
            )
        if names.count(name) > 1 and name in frame.columns:
            raise ValueError(f"column {name!r} is named twice, expected once, as a target or as an input")
    check_columns(frame, names)
    return inputs


def _split(
    frame: pd.DataFrame, validation: float | pd.DataFrame | None, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Training rows and validation rows."""
    if validation is None or isinstance(validation, pd.DataFrame):
        return frame, validation
    held_out = round(validation * len(frame)) if 0 < validation < 1 else 0
    if not 0 < held_out < len(frame):
        raise ValueError(
            f"validation is {validation} of {len(frame)} rows, expected a share between 0 and 1 that leaves rows for "
            "both, or a frame, or None"
        )
    order = torch.randperm(len(frame), generator=seeded_generator(seed, "validation rows")).numpy()
    return frame.iloc[order[held_out:]], frame.iloc[order[:held_out]]


def _chosen(
    model: str | ModelBuilder, sizes: Mapping[str, Any]
) -> tuple[str | None, ModelBuilder, dict[str, Any]]:
    """The model's name, if it has one, its builder, and all of its sizes."""
    if not isinstance(model, str):
        return None, model, dict(sizes)
    if model not in MODELS:
        raise ValueError(f"model is {model!r}, expected one of {', '.join(MODELS)}, or a builder")
    return model, MODELS[model], {**MODELS[model].keywords, **sizes}


def _builder(
    builder: ModelBuilder, sizes: Mapping[str, Any], encoder: FrameEncoder, targets: Sequence[Target]
) -> Callable[..., nn.Module]:
    """What makes one run.

    Raises:
        ValueError: If the builder does not take these sizes, or its model does not give one output a target.
    """
    num_inputs, num_tasks = len(encoder.feature_names), len(targets)
    try:
        inspect.signature(builder).bind(num_inputs, num_tasks, generator=None, **sizes)
    except TypeError as error:
        raise ValueError(
            f"sizes are {dict(sizes)}, expected what {_name_of(builder)} takes ({error}): correct them"
        ) from error
    build = partial(builder, num_inputs, num_tasks, **sizes)
    with torch.no_grad():
        given = tuple(build(generator=seeded_generator(0, "trial"))(torch.zeros(1, num_inputs)).shape)
    if given != (1, num_tasks):
        raise ValueError(
            f"the model gives outputs {given} for one row, expected {(1, num_tasks)}: one a target"
        )
    return build


def _name_of(builder: ModelBuilder) -> str:
    function = builder.func if isinstance(builder, partial) else builder
    return getattr(function, "__name__", repr(function))


def _read(path: Path) -> dict[str, Any]:
    """The content of a saved file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no such file, or damaged.
    """
    raw = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            damaged = archive.testzip()  # torch does not look at the sums
        if damaged is not None:
            raise ValueError(f"the sum of {damaged} is wrong")
        content = torch.load(io.BytesIO(raw), weights_only=True, map_location="cpu")
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT!r}")
    except Exception as error:  # zipfile and torch raise whatever their readers do
        raise ValueError(_damaged(path, error)) from error
    return content


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    return f"{path.name} is no saved model, expected a file of MultiTaskModel.save: save it again ({reason})"
