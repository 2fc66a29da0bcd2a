"""Will it help on my data? Boosted trees, separate networks, Shared-Bottom and MMoE on a user's own frame, and advice."""

from __future__ import annotations

import importlib.util
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mmoe_lib.compare import LARGER, OPEN, SMALLER, compare_runs, half_width
from mmoe_lib.frames.columns import Floats, check_columns, frame_of, names_of, real
from mmoe_lib.frames.encoder import Embedding, FrameEncoder
from mmoe_lib.frames.model import (
    MODELS,
    FitSettings,
    MultiTaskModel,
    checked_names,
    embeddings_of,
    split_rows,
)
from mmoe_lib.frames.report import Advice
from mmoe_lib.frames.targets import MixedLoss, Target, labels_of, weights_of
from mmoe_lib.frames.trees import TREE_RATES, fit_trees
from mmoe_lib.metrics import gate_use
from mmoe_lib.models import count_parameters
from mmoe_lib.progress import progress_bar
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import DivergedError
from mmoe_lib.training.balancing import gramian, own_parameters
from mmoe_lib.training.batches import parts_of, rebuilt

TREES, SEPARATE, SHARED = "boosted trees", "a network a task", "Shared-Bottom"
DEEPER, MIXTURE = "Shared-Bottom, two layers", "MMoE"

CLAIMS: dict[str, tuple[str, str]] = {
    "a shared bottom helps": (SEPARATE, SHARED),
    "MMoE helps": (SEPARATE, MIXTURE),
    "its gates help": (DEEPER, MIXTURE),
    "MMoE beats boosted trees": (TREES, MIXTURE),
}
"""What is asked of each target: whether the second method beats the first."""

SMALLEST = 0.1
"""Points of AUC, R2 or accuracy from which on a difference matters, where the caller names none: the book's own."""

RATES = (0.001, 0.003, 0.01)
"""Learning rates of Adam that each network is tried with."""

_GRADIENT_ROWS, _SECOND, _NEAREST = 8192, 32, 10

SETTINGS = FitSettings(epochs=30, batch_size=256, patience=3, runs=6)
"""How each network is trained where the caller says nothing."""


@dataclass(frozen=True)
class _Data:
    """What every method gets."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    blocks: list[NDArray[np.intp]]
    targets: tuple[Target, ...]
    encoder: FrameEncoder
    settings: FitSettings
    given: Mapping[str, Any]  # inputs, weights and embeddings, as `fit` takes them
    classes: Sequence[str]

    @property
    def weights(self) -> str | None:
        name: str | None = self.given["weights"]
        return name


def compare(
    frame: pd.DataFrame,
    targets: Sequence[str],
    inputs: Sequence[str] | None = None,
    *,
    smallest: float | Mapping[str, float] = SMALLEST,
    weights: str | None = None,
    classes: Sequence[str] = (),
    embeddings: Sequence[str] | Mapping[str, Embedding | int | None] = (),
    test: float | pd.DataFrame = 0.25,
    validation: float | pd.DataFrame = 0.15,
    rates: Sequence[float] = RATES,
    settings: FitSettings = SETTINGS,
    atlas: pd.DataFrame | Path | str | None = None,
    progress: bool = True,
) -> Advice:
    """Train trees, a network a task, Shared-Bottom and MMoE on a frame, and say which of them is worth it.

    MMoE has eight experts of 16 units. Shared-Bottom with one layer, with a second one of 32 units, and the separate
    networks together have about as many parameters, so that neither size nor depth is taken for what gates do. Each
    network is trained with every learning rate and all seeds, each seed with initial weights and an order of the rows
    of its own; the rate with the lowest validation loss is kept. Boosted trees, scikit-learn's, are chosen likewise.

    The test rows are looked at once. They are cut into as many blocks as there are runs, of like shares of labels, and
    run r of every method is judged on block r. So the spread over runs holds that of seeds, of orders and of test rows,
    and a difference is one of pairs; that other training rows might have been drawn is not in it. Rows are taken for
    independent: where they come in groups or in time, give `test` and `validation` as frames.

    A claim *supports* where its interval lies above 0 and the difference reaches `smallest`, *contradicts* where the
    difference is the other way round or the interval lies within `smallest`, else it is *open*; also where leaving out
    a single run gives another word. All intervals of claims hold together with 95 % (Bonferroni).

    >>> import numpy as np, pandas as pd
    >>> from mmoe_lib.frames import FitSettings, compare
    >>> rng = np.random.default_rng(0)
    >>> frame = pd.DataFrame(rng.normal(size=(600, 3)), columns=list("abc"))
    >>> frame["click"] = frame["a"] + rng.normal(size=600) > 0
    >>> frame["like"] = frame["b"] + rng.normal(size=600) > 0
    >>> few = FitSettings(epochs=2, runs=2)
    >>> found = compare(frame, ["click", "like"], rates=[0.01], settings=few, progress=False)
    >>> found.advice[:5]
    'Open:'
    >>> found.to_html("advice.html")

    Args:
        frame: Its rows.
        targets: Names of the columns to predict, two or more; their kinds and missing labels as for
            `MultiTaskModel.fit`.
        inputs: Names of the columns to read; None for all that are neither targets nor weights.
        smallest: The smallest difference that matters, in points (1/100) of AUC of a binary target, of R2 of a real
            one, of accuracy of classes; or one by a target's name, 0.1 for those not named.
        weights: Name of a column that says how much each row counts, in training, validation and test.
        classes: Names of targets of numbers that are to be classes.
        embeddings: Names of the inputs that are ids, or how each is embedded. Trees read an id as one of up to 255
            categories, else as its place among the ids, and no lists.
        test: Share of the rows that judges, drawn at random, or a frame of such rows.
        validation: Share of the other rows that decides settings, or a frame of such rows.
        rates: Learning rates that each network is tried with.
        settings: How long each network is trained, how many runs of each, and the first seed; its learning rate and
            `own_orders` are not looked at.
        atlas: The book's `data/results/atlas.csv`, as a frame or its path: 106 pairs of binary tasks of one data set,
            to say where the pairs of these targets would lie.
        progress: Show a progress bar.

    Raises:
        ValueError: What `MultiTaskModel.fit` refuses; one target alone, fewer than two runs, a balancer or task weights,
            too few test rows of a label for a block each, or an atlas without its columns.
        ImportError: If scipy is not installed.
    """
    start = time.perf_counter()
    if importlib.util.find_spec("scipy") is None:
        raise ImportError("compare needs scipy for its intervals: run `pip install scipy`")
    if not isinstance(settings, FitSettings) or settings.runs < 2:
        told = (
            f"runs is {settings.runs}" if isinstance(settings, FitSettings) else f"{type(settings).__name__}"
        )
        raise ValueError(
            f"settings: {told}, expected FitSettings(runs=...) of 2 or more: one seed advises nothing"
        )
    if settings.balancer or settings.task_weights:
        raise ValueError(
            "settings have a balancer or task weights, expected neither: a network a task has nothing to balance"
        )
    rates = [real("a learning rate", rate) for rate in rates]
    if not rates:
        raise ValueError("rates is empty, expected at least one learning rate such as 0.003")
    frame = frame_of(frame)
    names, inputs = checked_names(frame, targets, inputs, weights)
    if len(names) < 2:
        raise ValueError(
            f"targets are {names[0]!r} alone, expected two or more: one task has nobody to share with"
        )
    margins = smallest if isinstance(smallest, Mapping) else dict.fromkeys(names, smallest)
    strange = [name for name in margins if name not in names]
    if strange:
        raise ValueError(f"smallest names {strange[0]!r}, expected some of the targets {', '.join(names)}")
    margins = {name: real(f"smallest of {name!r}", margins.get(name, SMALLEST)) for name in names}
    places = None if atlas is None else _atlas(atlas)
    given = {"inputs": inputs, "weights": weights, "embeddings": embeddings}
    notes: list[str] = []
    with _told(notes):
        data = _data(
            frame, names, inputs, test, validation, replace(settings, own_orders=True), given, classes
        )
    trees = importlib.util.find_spec("sklearn") is not None
    if not trees:
        notes.append("boosted trees were not tried: run `pip install scikit-learn`")
    networks = {SEPARATE: [[name] for name in names], SHARED: [names], DEEPER: [names], MIXTURE: [names]}
    fits = len(rates) * sum(map(len, networks.values())) + trees * len(TREE_RATES) * len(names)
    rows: list[dict[str, Any]] = []
    kept: dict[str, MultiTaskModel] = {}
    with progress_bar(total=fits, label="compare", unit="fit", show=progress) as bar:
        for name in names if trees else []:
            bar.set_postfix_str(f"{TREES}: {name}")
            with _told(notes):
                rows += _of_trees(data, name, bar)
        for method, parts in networks.items():
            for part in parts:
                bar.set_postfix_str(": ".join([method, *part] if method == SEPARATE else [method]))
                found, model = _of_networks(data, method, part, rates, bar, notes)
                rows += found
                if model is not None:
                    kept[method] = model
    scores = pd.DataFrame(rows)
    level = 1 - 0.05 / (len(names) * (len(CLAIMS) - (not trees)))
    verdicts = _verdicts(scores, names, margins, level, trees)
    gates, pairs = _inside(data, kept, places)
    return Advice(
        advice=sentence(verdicts, scores),
        table=_table(scores, trees, rates),
        verdicts=verdicts,
        gates=gates,
        pairs=pairs,
        scores=scores[["target", "method", "run", "value"]],
        notes=tuple(dict.fromkeys(notes)),
        rows=(len(data.train), len(data.validation), len(data.test)),
        level=level,
        seconds=time.perf_counter() - start,
    )


def _data(
    frame: pd.DataFrame,
    names: Sequence[str],
    inputs: Sequence[str],
    test: float | pd.DataFrame,
    validation: float | pd.DataFrame,
    settings: FitSettings,
    given: Mapping[str, Any],
    classes: Sequence[str],
) -> _Data:
    rest, test_rows = split_rows(frame, test, settings.seed, "test")
    train, validation_rows = split_rows(rest, validation, settings.seed)
    if test_rows is None or validation_rows is None:
        missing = "test" if test_rows is None else "validation"
        raise ValueError(
            f"{missing} is None, expected a share of the rows, or a frame: nothing judges itself"
        )
    weights = given["weights"]
    for part in (train, validation_rows, test_rows):
        check_columns(part, [*names, *inputs])
        weights_of(part, weights)
    if weights is not None:  # what counts nothing is no row to judge by
        test_rows = test_rows[test_rows[weights] > 0]
    classes = names_of("classes", classes)
    targets = tuple(Target.fit(train, name, classes=name in classes) for name in names)
    for target in targets:
        if np.isnan(target.values(validation_rows)).all():
            raise ValueError(
                f"target {target.name!r} has no label in the {len(validation_rows)} validation rows, expected some: "
                "give more rows"
            )
    encoder = FrameEncoder.fit(train, inputs, embeddings_of(given["embeddings"]))
    blocks = _blocks(targets, test_rows, settings)
    return _Data(train, validation_rows, test_rows, blocks, targets, encoder, settings, given, classes)


def _blocks(targets: Sequence[Target], test: pd.DataFrame, settings: FitSettings) -> list[NDArray[np.intp]]:
    """Numbers of the test rows of each run, drawn so that all blocks hold like shares of every label.

    Raises:
        ValueError: If a block cannot judge a target.
    """
    labels = labels_of(targets, test).numpy()
    keys, rarest = [], []
    for target, column in zip(targets, labels.T, strict=True):
        known = ~np.isnan(column)
        real_valued = not (target.binary or target.classes)
        keys.append(known.astype(float) if real_valued else np.where(known, column, -1.0))
        rarest.append(np.unique(keys[-1], return_counts=True)[1].min())
    order = torch.randperm(
        len(test), generator=seeded_generator(settings.seed, "blocks of test rows")
    ).numpy()
    # lexsort looks at its last key first: the target with the rarest label is spread most evenly
    ranked = [keys[place][order] for place in np.argsort(rarest)[::-1]]
    order = order[np.lexsort(ranked)]
    blocks = [np.sort(order[run :: settings.runs]) for run in range(settings.runs)]
    for target, column in zip(targets, labels.T, strict=True):
        for block in blocks:
            own = column[block]
            if len(np.unique(own[~np.isnan(own)])) < (1 if target.classes else 2):
                there, counts = np.unique(column[~np.isnan(column)], return_counts=True)
                held = f"{counts.min()} of its rarest value" if len(there) > 1 else "one value or none"
                raise ValueError(
                    f"target {target.name!r} has {held} in the {len(test)} test rows, expected each value in each of "
                    f"{settings.runs} blocks: give more test rows, or fewer runs"
                )
    return blocks


@contextmanager
def _told(notes: list[str]) -> Iterator[None]:
    """Keep the library's warnings as notes instead of printing them once a fit."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notes += [str(one.message) for one in caught if issubclass(one.category, UserWarning)]


def _sizes(data: _Data, method: str, outputs: int) -> dict[str, Any]:
    """Widths with which a network has about as many parameters as MMoE; the separate ones together."""
    if method == MIXTURE:
        return {}
    inputs = len(data.encoder.feature_names) + sum(column.width for column in data.encoder.ids)
    everything = sum(target.outputs for target in data.targets)
    wanted = count_parameters(MODELS[MIXTURE](inputs, everything)) * outputs / everything

    def widths(first: int) -> tuple[int, ...]:
        return (first, _SECOND) if method == DEEPER else (first,)

    one, two = (
        count_parameters(MODELS[SHARED](inputs, outputs, bottom_widths=widths(first))) for first in (1, 2)
    )
    return {"bottom_widths": widths(max(1, 1 + round((wanted - one) / (two - one))))}  # a straight line


def _of_networks(
    data: _Data, method: str, names: list[str], rates: Sequence[float], bar: Any, notes: list[str]
) -> tuple[list[dict[str, Any]], MultiTaskModel | None]:
    """What each run of a method scores on its block, with the rate of the lowest validation loss."""
    own = [target for target in data.targets if target.name in names]
    start, best, chosen, told = time.perf_counter(), (math.inf, math.inf), None, []
    rate_of_best = math.nan
    for rate in rates:
        said: list[str] = []
        with _told(said):
            try:
                model = MultiTaskModel.fit(
                    data.train,
                    names,
                    model=MIXTURE if method == MIXTURE else SHARED,
                    sizes=_sizes(data, method, sum(target.outputs for target in own)),
                    classes=[name for name in data.classes if name in names],
                    validation=data.validation,
                    settings=replace(data.settings, learning_rate=rate),
                    progress=False,
                    **data.given,
                )
            except DivergedError:
                bar.update()
                continue
        bar.update()
        losses = torch.stack(model.history.metrics["loss"]).nan_to_num(torch.inf).amin(dim=0)  # type: ignore[union-attr]
        alive = [seed - data.settings.seed for seed in model.ensemble.seeds]
        value = (data.settings.runs - len(alive), float(losses[alive].mean()))
        if value < best:
            best, chosen, told, rate_of_best = value, model, said, rate
    notes += [f"{method}: {message}" for message in told]
    scores = np.full((len(names), data.settings.runs), np.nan)
    if chosen is not None:
        for place, seed in enumerate(chosen.ensemble.seeds):
            run = seed - data.settings.seed
            alone = replace(chosen, ensemble=chosen.ensemble.part(place, place + 1))
            with _told(notes):
                found = alone.evaluate(data.test.iloc[data.blocks[run]], weights=data.weights)
            scores[:, run] = [100 * found.loc[[name], "value"].iloc[0] for name in names]
    size = 0 if chosen is None else count_parameters(chosen.ensemble.module(0))
    seconds = time.perf_counter() - start
    facts = {"method": method, "rate": rate_of_best, "parameters": size, "seconds": seconds / len(names)}
    return _rows(own, scores, facts), chosen


def _rows(targets: Sequence[Target], scores: Floats, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "target": target.name,
            "metric": "AUC" if target.binary else "accuracy" if target.classes else "R2",
            "run": run,
            "value": value,
            **facts,
        }
        for target, own in zip(targets, scores.tolist(), strict=True)
        for run, value in enumerate(own)
    ]


def _of_trees(data: _Data, name: str, bar: Any) -> list[dict[str, Any]]:
    """As `_of_networks`, of one target; the number of trees is chosen by the validation loss too."""
    (target,) = (target for target in data.targets if target.name == name)
    start, best, chosen, rate_of_best = time.perf_counter(), math.inf, [], math.nan
    for rate in TREE_RATES:
        runs = [
            fit_trees(
                data.encoder,
                target,
                data.train,
                data.validation,
                data.weights,
                rate=rate,
                seed=data.settings.seed + run,
            )
            for run in range(data.settings.runs)
        ]
        bar.update()
        loss = float(np.mean([own for _, own in runs]))
        if loss < best:
            best, chosen, rate_of_best = loss, [predict for predict, _ in runs], rate
    scores = []
    for predict, block in zip(chosen, data.blocks, strict=True):
        judged = data.test.iloc[block]
        found = target.scores(predict(judged), judged, weights_of(judged, data.weights))
        scores.append(100 * found[0][1])
    facts = {"method": TREES, "rate": rate_of_best, "parameters": 0, "seconds": time.perf_counter() - start}
    return _rows([target], np.array([scores]), facts)


def _note(lived: int, runs: int, rate: float, rates: Sequence[float]) -> str:
    """What to know of a row: runs that died, a rate beside which a better one may lie."""
    if not lived:
        return "no run ended well"
    edge = len(rates) > 1 and rate in (min(rates), max(rates))
    told = [f"{runs - lived} of {runs} runs died"] * (lived < runs) + ["rate at the edge"] * edge
    return ", ".join(told)


def _table(scores: pd.DataFrame, trees: bool, rates: Sequence[float]) -> pd.DataFrame:
    """A row a target and method: the mean of the runs and its own 95 % interval."""
    rows = []
    for (target, method), own in scores.groupby(["target", "method"], sort=False):
        values = own["value"].dropna().to_numpy()
        mean = float(values.mean()) if len(values) else math.nan
        several = len(values) > 1
        half = half_width([float(values.var(ddof=1))], [len(values)], 0.95) if several else math.nan
        first = own.iloc[0]
        rows.append(
            {
                "target": target,
                "method": method,
                "metric": first["metric"],
                "mean": mean,
                "low": mean - half,
                "high": mean + half,
                "runs": len(values),
                "died": len(own) - len(values),
                "rate": first["rate"],
                "parameters": int(first["parameters"]),
                "seconds": float(first["seconds"]),
                "note": _note(len(values), len(own), first["rate"], TREE_RATES if method == TREES else rates),
            }
        )
    if not trees:
        rows += [
            {
                "target": target,
                "method": TREES,
                "runs": 0,
                "died": 0,
                "parameters": 0,
                "note": "needs scikit-learn",
            }
            for target in scores["target"].unique()
        ]
    table = pd.DataFrame(rows)
    order = {name: place for place, name in enumerate(dict.fromkeys(scores["target"]))}
    return table.sort_values("target", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def _verdicts(
    scores: pd.DataFrame, names: Sequence[str], margins: Mapping[str, float], level: float, trees: bool
) -> pd.DataFrame:
    rows = []
    for name in names:
        own = scores[scores["target"] == name].pivot_table("value", "run", "method", dropna=False)
        for claim, (first, second) in CLAIMS.items():
            if first == TREES and not trees:
                continue
            row: dict[str, Any] = {"target": name, "claim": claim, "first": first, "second": second}
            if own[[first, second]].notna().all(axis=1).sum() < 2:  # too few lived: nothing is known
                row |= {"difference": math.nan, "low": math.nan, "high": math.nan, "word": OPEN}
                row |= {"verdict": "open", "runs_needed": math.inf}
            else:
                both = {method: own[method].to_numpy() for method in (first, second)}
                pair = compare_runs(both, margins[name], paired=True, level=level).pairs.iloc[0]
                word = OPEN if pair["one_run_decides"] else str(pair["word"])
                row |= {key: float(pair[key]) for key in ("difference", "low", "high")}
                row |= {"word": word, "verdict": {LARGER: "supports", OPEN: "open"}.get(word, "contradicts")}
                row |= {"runs_needed": float(pair["runs_needed"])}
            rows.append(row | {"smallest": margins[name]})
    return pd.DataFrame(rows)


def sentence(verdicts: pd.DataFrame, scores: pd.DataFrame) -> str:
    """What to do, in one sentence that begins with "Open" where the verdicts do not tell.

    Args:
        verdicts: Of `Advice`.
        scores: Of `Advice`, from which the number of runs is taken.
    """

    def where(claim: str, *words: str) -> list[str]:
        rows = verdicts[(verdicts["claim"] == claim) & verdicts["word"].isin(words)]
        return [str(name) for name in rows["target"]]

    every = list(dict.fromkeys(verdicts["target"]))
    gain, loss = where("MMoE helps", LARGER), where("MMoE helps", SMALLER)
    shared_gain, shared_loss = where("a shared bottom helps", LARGER), where("a shared bottom helps", SMALLER)
    gates, gates_open = where("its gates help", LARGER), where("its gates help", OPEN)
    behind_trees = where("MMoE beats boosted trees", SMALLER)
    undecided = verdicts[
        verdicts["claim"].isin(["MMoE helps", "a shared bottom helps"]) & (verdicts["word"] == OPEN)
    ]
    if behind_trees == every:
        return f"Take boosted trees: on {_and(every)} they lead MMoE by more than matters."
    trees = f"; on {_and(behind_trees)} boosted trees lead it" if behind_trees else ""
    if gain and loss:
        return (
            f"Weigh it: MMoE leads a network a task on {_and(gain)} and trails it on {_and(loss)}, so that the worth of "
            f"each task decides{trees}."
        )
    if gain and gates:
        return (
            f"Take MMoE: it leads a network a task on {_and(gain)}, and on {_and(gates)} a Shared-Bottom of as many "
            f"parameters and two layers{trees}."
        )
    if gain:
        gates_told = (
            "whether its gates do more than a second shared layer is open"
            if gates_open
            else ("its gates add nothing that matters to a second shared layer, which is simpler")
        )
        return f"Share the network: MMoE leads a network a task on {_and(gain)}; {gates_told}{trees}."
    if shared_gain and not shared_loss:
        return f"Share a bottom: it leads a network a task on {_and(shared_gain)}, and MMoE is not shown to{trees}."
    if len(undecided):
        needed = undecided["runs_needed"].max()
        runs = int(scores["run"].max()) + 1
        more = (
            f"about {needed / runs:.0f} times as many runs and test rows would decide"
            if runs * 2 <= needed < math.inf
            else "more runs and test rows may decide"
        )
        return (
            f"Open: whether sharing helps on {_and(list(dict.fromkeys(undecided['target'])))} is not told by these rows; "
            f"{more}, and until then a network a task is the plain choice{trees}."
        )
    return (
        f"Keep a network a task: neither a shared bottom nor MMoE gains what matters on {_and(every)}, unless one "
        f"network is cheaper to serve{trees}."
    )


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _inside(
    data: _Data, kept: Mapping[str, MultiTaskModel], atlas: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What MMoE's gates do on the test rows, and how pairs of targets get on, means over the runs."""
    names = [target.name for target in data.targets]
    couples = list(combinations(range(len(names)), 2))
    pairs = pd.DataFrame(list(combinations(names, 2)), columns=["target_1", "target_2"])
    gates = pd.DataFrame(index=pd.Index(names, name="target"), columns=["largest", "entropy"], dtype=float)
    if MIXTURE in kept:
        with _told([]):
            x = kept[MIXTURE].encoder.encode(data.test)
        outputs = kept[MIXTURE].ensemble.gate_weights(x).cpu()  # (R, N, O, n)
        own = outputs.split([target.outputs for target in data.targets], dim=2)
        weights = torch.stack([part.mean(dim=2) for part in own], dim=2)  # (R, N, K, n)
        use = gate_use(weights)
        gates["largest"] = use.means.amax(dim=-1).mean(dim=0).numpy()
        gates["entropy"] = (use.entropy / math.log(weights.shape[-1])).mean(dim=0).numpy()
        pairs["gate_distance"] = [
            float(gate_use(weights[:, :, couple]).distance.mean()) for couple in couples
        ]
    if SHARED in kept:
        cosines = _cosines(data, kept[SHARED])
        pairs["gradient_cosine"] = [float(cosines[couple]) for couple in couples]
        if atlas is not None:
            pairs = pairs.join(pairs["gradient_cosine"].apply(partial(_in_atlas, atlas=atlas)))
    return gates, pairs


def _cosines(data: _Data, shared: MultiTaskModel) -> Floats:
    """The cosine of each two targets' gradients on what they share, (K, K), mean over runs.

    Of Shared-Bottom after one pass, on the loss of the first 8,192 training rows: as the atlas has it.
    """
    names = [target.name for target in data.targets]
    settings = replace(data.settings, epochs=1, learning_rate=RATES[0])
    with _told([]):
        model = MultiTaskModel.fit(
            data.train,
            names,
            model=SHARED,
            sizes=shared.sizes,
            classes=data.classes,
            validation=None,
            settings=settings,
            progress=False,
            **data.given,
        )
        rows = data.train.iloc[:_GRADIENT_ROWS]
        x = model.encoder.encode(rows)
        y = labels_of(model.targets, rows, weights_of(rows, data.weights))
    device = model.ensemble.device
    loss = MixedLoss(model.targets, device, weights=data.weights is not None)
    x = rebuilt(x, [part.to(device) for part in parts_of(x)])
    gradients, _ = model.ensemble.task_gradients(loss, x, y.to(device))
    products = gramian(gradients, own_parameters(model.ensemble.module(0))).double().cpu()  # (R, K, K)
    norms = products.diagonal(dim1=1, dim2=2).sqrt()
    return (products / (norms[:, :, None] * norms[:, None, :])).mean(dim=0).numpy()


def _atlas(given: pd.DataFrame | Path | str) -> pd.DataFrame:
    """Of each pair of the atlas: cosine, and gain of MMoE over separate networks in points of the mean AUC."""
    rows = given if isinstance(given, pd.DataFrame) else pd.read_csv(given)
    needed = ["pair", "model", "test_auc_1", "test_auc_2", "gradient_cosine"]
    missing = [name for name in needed if name not in rows]
    if missing:
        raise ValueError(
            f"the atlas has no column {missing[0]!r}, expected the book's data/results/atlas.csv"
        )
    means = rows[needed].assign(auc=50 * (rows["test_auc_1"] + rows["test_auc_2"]))
    table = means.pivot_table(index="pair", columns="model", values=["auc", "gradient_cosine"])
    gain = table["auc"]["MMoE"] - table["auc"]["Single-Task"]
    found = pd.DataFrame({"cosine": table["gradient_cosine"]["Shared-Bottom"], "gain": gain}).dropna()
    if len(found) < _NEAREST:
        raise ValueError(
            f"the atlas has {len(found)} whole pairs, expected {_NEAREST} or more: give all of its rows"
        )
    return found


def _in_atlas(cosine: float, atlas: pd.DataFrame) -> pd.Series[Any]:
    """The share of the atlas's pairs with a lower cosine, and MMoE's gain on the ten nearest: mean, least, most."""
    nearest = atlas.loc[(atlas["cosine"] - cosine).abs().nsmallest(_NEAREST).index, "gain"]
    values = [float((atlas["cosine"] < cosine).mean()), nearest.mean(), nearest.min(), nearest.max()]
    if math.isnan(cosine):
        values = [math.nan] * 4
    return pd.Series(values, ["atlas_below", "atlas_gain", "atlas_least", "atlas_most"])
