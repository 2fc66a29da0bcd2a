"""What do the extensions of chapter 6 cost? python -m companion.benchmarks extensions measures it here.

Models of one size, 8 experts of 16 units, on inputs as wide as those of Census-Income; all take turns in one process
with one thread, and ratios compare a model with MMoE in the same round. Balancers are measured on MMoE's training
step in the same way.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.benchmarks.measure import Benchmark, Settings, Work, interleaved, measure_apart
from companion.benchmarks.random_people import CENSUS_INPUTS, random_people
from companion.extensions import EXTENSIONS, noise_columns
from companion.study.extensions.rare_labels import BALANCERS, PLAIN, REMEDIES
from mmoe_lib.models import count_multiply_adds, count_parameters
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import Adam, Ensemble, binary_cross_entropy
from mmoe_lib.training.step import BalancedStep, Step

REFERENCE = "MMoE"
BATCH_SIZE, RUNS, TASKS = 1024, 4, 2
"""Of the training steps: minibatches and runs at once."""
SERVED_ROWS = 1000
"""Of a request."""


def _batch(columns: int = 0) -> tuple[Tensor, Tensor]:
    generator = seeded_generator(0, "benchmark")
    x, y = random_people(BATCH_SIZE, generator)
    return torch.cat([x, torch.rand(BATCH_SIZE, columns, generator=generator)], dim=1), y


def training_work(name: str, remedy: str, device: torch.device | str) -> Work:
    """A training step of `RUNS` runs of a model with a remedy of `rare_labels`, as plain calls.

    Remedies that only change the loss cost what the plain sum does, so they are measured as that.
    """
    build = EXTENSIONS[name].build
    ensemble = Ensemble(partial(build, CENSUS_INPUTS, TASKS), range(RUNS), device=device)
    rates = torch.full((RUNS,), 1e-3, device=ensemble.device)
    balancer = REMEDIES[remedy]
    step = (
        Step(ensemble, binary_cross_entropy, rates, Adam())
        if balancer is None or isinstance(balancer, str)
        else BalancedStep(ensemble, binary_cross_entropy, rates, Adam(), balancer)
    )
    x, y = (part.to(ensemble.device) for part in _batch(noise_columns(name, TASKS)))
    numbers = count(1)

    def work() -> int:
        step(x, y, next(numbers))
        return RUNS * BATCH_SIZE

    return work


def serving_work(name: str, device: torch.device | str) -> Work:
    """One call answers a request of `SERVED_ROWS` rows."""
    build = EXTENSIONS[name].build
    model = build(CENSUS_INPUTS, TASKS, generator=seeded_generator(0, "initialisation")).to(device).eval()
    x = _batch()[0][:SERVED_ROWS].to(device)

    @torch.inference_mode()
    def work() -> int:
        outputs = model(x)
        if outputs.is_cuda:
            torch.cuda.synchronize()
        return SERVED_ROWS

    return work


def measure(settings: Settings) -> pd.DataFrame:
    """Measure all models, and MMoE's step with every balancer, in this process.

    Returns:
        One row a model, and one a balancer, whose model is MMoE: model; remedy; parameters and multiply_adds of an
        example; train_ms, a step of one run of several, and serve_ms, a request (NaN for balancers), medians of the
        rounds; train_ratio and serve_ratio to MMoE's of the same round, medians, with _low and _high, the lowest and
        the highest.
    """
    works: dict[tuple[str, str, str], Work] = {}
    for name in EXTENSIONS:
        works[name, PLAIN, "train"] = training_work(name, PLAIN, settings.device)
        works[name, PLAIN, "serve"] = serving_work(name, settings.device)
    for remedy in BALANCERS:
        works[REFERENCE, remedy, "train"] = training_work(REFERENCE, remedy, settings.device)
    measured = interleaved(
        works, settings.rounds, settings.seconds, settings.device, progress=settings.progress
    )
    table = {key: np.array([middle for _, middle, _ in rounds]) for key, rounds in measured.items()}
    rows = []
    for name, remedy in dict.fromkeys((name, remedy) for name, remedy, _ in works):
        model = EXTENSIONS[name].build(CENSUS_INPUTS, TASKS, generator=seeded_generator(0, "initialisation"))
        row: dict[str, Any] = {
            "model": name,
            "remedy": remedy,
            "parameters": count_parameters(model),
            "multiply_adds": count_multiply_adds(model),
        }
        for kind, share in (("train", RUNS), ("serve", 1)):
            times = table.get((name, remedy, kind), np.full(settings.rounds, np.nan))
            ratios = times / table[REFERENCE, PLAIN, kind]
            row[f"{kind}_ms"] = np.median(times) / share
            row[f"{kind}_ratio"] = np.median(ratios)
            row[f"{kind}_ratio_low"], row[f"{kind}_ratio_high"] = ratios.min(), ratios.max()
        rows.append(row)
    return pd.DataFrame(rows)


def show(rows: pd.DataFrame) -> str:
    """The rows of `measure` as a table of text."""
    shown = rows[["model", "remedy", "parameters", "multiply_adds"]].astype(object)
    for kind in ("train", "serve"):
        shown[f"{kind}_ms"] = [f"{value:.3f}" for value in rows[f"{kind}_ms"]]
        shown[f"{kind}_ratio"] = [
            f"{middle:.2f} ({low:.2f} to {high:.2f})"
            for middle, low, high in rows[
                [f"{kind}_ratio", f"{kind}_ratio_low", f"{kind}_ratio_high"]
            ].to_numpy()
        ]
    return shown.to_string(index=False)


BENCHMARK = Benchmark(
    "extensions",
    "What do the extensions cost to train and to serve, relative to MMoE?",
    lambda settings, options: measure_apart(measure, settings),
    show,
    rounds=9,
    seconds=0.3,
)
