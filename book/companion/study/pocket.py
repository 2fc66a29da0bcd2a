"""The pocket universe trained by the library: what chapter 3's lab shows where no script runs, and its confirmation.

`python -m companion.study.pocket` trains the four models and writes `data/results/pocket.json`: the losses of every run
over the steps. The universe was chosen on other runs, by another program (`companion.pocket`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from companion import pocket
from companion.checkout import ROOT
from companion.study.census_person import as_text
from companion.study.origin import Origin
from companion.study.plan import check_writable
from mmoe_lib.files import write_whole
from mmoe_lib.models import count_parameters
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.synthetic import stream
from mmoe_lib.training import Ensemble, TrainingSettings, squared_error, train

RUNS = 32
LOOKS = 30
"""How often the losses of a training are stored."""
TEST_ROWS = 1_024


def run_model(
    name: str, seeds: Sequence[int], steps: int, looks: int = LOOKS
) -> tuple[list[list[float]], int]:
    """Train all runs of one model.

    Args:
        name: Of `companion.pocket.POCKET_MODELS`.
        seeds: One a run: of its task, its rows and its first weights.
        steps: Minibatches.
        looks: How often the losses are measured, at equal distances.

    Returns:
        For each run its losses on rows it has not seen, mean of both tasks, before training and at each look; and the
        number of a model's parameters.
    """
    build = partial(pocket.POCKET_MODELS[name], pocket.POCKET.num_inputs, 2)
    ensemble = Ensemble(build, seeds)
    p, constants = pocket.CORRELATION, pocket.POCKET
    x, y = next(stream(p, seeds, TEST_ROWS, constants, purpose="test"))
    seen: list[list[float]] = []

    def look(ensemble: Ensemble) -> dict[str, torch.Tensor]:
        losses = (ensemble.predict(x) - y).square().mean(dim=(1, 2))  # (R,)
        seen.append(losses.tolist())
        return {"loss": losses}

    look(ensemble)
    settings = TrainingSettings(
        steps, pocket.LEARNING_RATE, note_every=steps // looks, evaluate_every=steps // looks
    )
    train(
        ensemble,
        stream(p, seeds, pocket.ROWS, constants),
        squared_error,
        settings,
        look,
        progress=False,
    )
    by_run = [[round(loss, 4) for loss in run] for run in zip(*seen, strict=True)]
    return by_run, count_parameters(build(generator=seeded_generator(0, "initialisation")))


def pocket_document(runs: int = RUNS, steps: int = pocket.STEPS, looks: int = LOOKS) -> dict[str, Any]:
    """What is stored, but for its origin: settings, steps of the looks, and each model's parameters and losses."""
    models = {}
    for name in pocket.POCKET_MODELS:
        losses, parameters = run_model(name, range(runs), steps, looks)
        models[name] = {"parameters": parameters, "losses": losses}
    return {
        "training": {
            "p": pocket.CORRELATION,
            "learning_rate": pocket.LEARNING_RATE,
            "batch_size": pocket.ROWS,
            "runs": runs,
            "test_rows": TEST_ROWS,
        },
        "steps": [look * (steps // looks) for look in range(looks + 1)],
        "models": models,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the four models in the pocket universe and write the JSON file; about a minute."""
    parser = argparse.ArgumentParser(prog="python -m companion.study.pocket", description=main.__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results", help="where it is written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = options.results / "pocket.json"
    try:
        check_writable(options.results)
        origin = Origin.now(parser.prog, "paper", torch.device("cpu"), "synthetic")
        document = {"origin": asdict(origin), **pocket_document()}
        write_whole(path, as_text(document).encode())
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    below = pocket.learned_below()
    for name, model in document["models"].items():
        learned = sum(run[-1] < below for run in model["losses"])
        print(f"{name}: {learned} of {document['training']['runs']} runs learned both labels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
