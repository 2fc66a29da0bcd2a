"""What a training leaves behind: losses, metrics, the best step of each run, or where it diverged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

if TYPE_CHECKING:
    from mmoe_lib.training.ensemble import Ensemble


class DivergedError(ArithmeticError):
    """A loss or an input became NaN or infinite; the ensemble holds its last good state.

    Attributes:
        run: The first run it happened to.
        seed: That run's seed.
        step: The step (from 1) at which it happened.
        good_step: The step after which the state that is kept was taken; None if none is kept, as when divergence is
            recorded and no run is left.
        ensemble: The runs, with the state that is kept.
    """

    def __init__(
        self,
        what: str,
        run: int,
        seed: int,
        step: int,
        good_step: int | None,
        hint: str = "lower the learning rate or scale the data",
        ensemble: Ensemble | None = None,
    ) -> None:
        kept = "no run is left" if good_step is None else f"the state after step {good_step} is kept"
        super().__init__(
            f"{what} of run {run} (seed {seed}) is NaN or infinite at step {step}, expected finite numbers: "
            f"{hint}; {kept}"
        )
        self.run, self.seed, self.step, self.good_step, self.ensemble = run, seed, step, good_step, ensemble


@dataclass
class History:
    """The course of R runs with K tasks.

    Attributes:
        seeds: One a run.
        loss_steps: The steps at which a training loss was noted.
        losses: For each, the mean training loss since the one before, (R, K).
        evaluation_steps: The steps at which the metrics were evaluated.
        metrics: By name, one (R,) tensor an evaluation.
        best_step: The step whose weights each run keeps, (R,); 0 where nothing was monitored.
        stopped_step: The step at which each run stopped improving for good, (R,); the last step if never.
        diverged_step: The first step at which each run's loss was not finite, (R,); 0 if never.
        optimiser_state: With `TrainingSettings.resumable`, what the optimiser keeps of each parameter; else None.
        optimiser_steps: How many steps it has taken, in earlier trainings too.
    """

    seeds: tuple[int, ...]
    loss_steps: list[int] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    evaluation_steps: list[int] = field(default_factory=list)
    metrics: dict[str, list[Tensor]] = field(default_factory=dict)
    best_step: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    stopped_step: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    diverged_step: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    optimiser_state: dict[str, tuple[Tensor, ...]] | None = field(default=None, repr=False)
    optimiser_steps: int = 0

    def loss_frame(self) -> pd.DataFrame:
        """One row a step, run and task: columns step, seed, task, loss."""
        rows = [
            (step, seed, task, float(value))
            for step, losses in zip(self.loss_steps, self.losses, strict=True)
            for seed, row in zip(self.seeds, losses, strict=True)
            for task, value in enumerate(row)
        ]
        return pd.DataFrame(rows, columns=["step", "seed", "task", "loss"])
