"""What decides how much each task's gradient counts, where a plain sum would let one task press down another.

A plain step moves every parameter by the gradient of the sum of the task losses. With a balancer the gradient of each
task is computed by itself, and the balancer turns losses and gradients into one weight a task, anew for every run and
step. It sees the gradients only through their Gramian, the K x K matrix of their inner products over the parameters
that tasks share: norms, angles and conflicts are all in it.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

Weigh = Callable[[Tensor, Tensor], Tensor]
"""Losses (R, K) and Gramians (R, K, K) of one step to weights (R, K); may remember the steps before."""

OWN = frozenset({"towers", "gates"})
"""Parts of a model whose parameters belong to one task each, where it does not say so itself."""


class Balancer(Protocol):
    """What a balanced training step needs to know of a method.

    Attributes:
        shared_only: Whether the weights are for the shared parameters alone; towers and gates then follow the plain
            gradient of their own task. Otherwise the weights are of the losses.
    """

    @property
    def shared_only(self) -> bool:
        """See above."""
        ...

    def start(self, num_runs: int, num_tasks: int) -> Weigh:
        """A function that has seen no step yet."""
        ...


def own_parameters(module: nn.Module) -> frozenset[str]:
    """Names of the parameters that belong to one task each, as only its loss moves them; all others are shared.

    They are what the model, or the part of it that has such a method, calls its `own_parameters()`; without one they
    are the towers, and the gates of a mixture.
    """
    for prefix, part in module.named_modules():
        told: Callable[[], set[str]] | None = getattr(part, "own_parameters", None)
        if told:
            return frozenset(f"{prefix}.{name}".removeprefix(".") for name in told())
    names = (name for name, _ in module.named_parameters())
    return frozenset(name for name in names if not OWN.isdisjoint(name.split(".")))


def gramian(gradients: dict[str, Tensor], own: Set[str]) -> Tensor:
    """Inner products of the tasks' gradients over all shared parameters: (R, K, ...) by name to (R, K, K).

    Args:
        gradients: Of every task.
        own: Names of those that are left out, from `own_parameters`.

    Raises:
        ValueError: If no parameter is shared.
    """
    flat = [value.flatten(2) for name, value in gradients.items() if name not in own]  # each (R, K, P)
    if not flat:
        raise ValueError("no parameter is shared by the tasks, expected some: there is nothing to balance")
    # G = J J',  J the (K, P) matrix of the tasks' gradients
    products = [part @ part.transpose(1, 2) for part in flat]
    return torch.stack(products).sum(dim=0)


@dataclass(frozen=True)
class UncertaintyWeighting:
    """Task weights learned as noise levels (Kendall et al., CVPR 2018).

    Each run minimises sum_k exp(-s_k) L_k + s_k / 2 over the model and over s_k = log sigma_k^2, from s_k = 0. At a
    loss that no longer changes, exp(-s_k) = 1 / (2 L_k): a task counts by the inverse of its loss.

    Attributes:
        learning_rate: Of plain gradient descent on s.
    """

    shared_only: ClassVar[bool] = False

    learning_rate: float = 0.01

    def start(self, num_runs: int, num_tasks: int) -> Weigh:
        """Weights exp(-s), with s as it was before the step."""
        kept: list[Tensor] = []

        def weigh(losses: Tensor, gramians: Tensor) -> Tensor:
            s = kept.pop() if kept else torch.zeros_like(losses)
            weights = torch.exp(-s)  # (R, K)
            # d/ds_k (exp(-s_k) L_k + s_k / 2) = 1/2 - exp(-s_k) L_k
            kept.append(s - self.learning_rate * (0.5 - weights * losses))
            return weights

        return weigh


@dataclass(frozen=True)
class GradNorm:
    """Task weights under which all tasks train at a like pace (Chen et al., ICML 2018), algorithm 1.

    Attributes:
        alpha: How strongly a task that trains slowly is helped; 0 makes all gradients equally long.
        learning_rate: Of plain gradient descent on the weights.
    """

    shared_only: ClassVar[bool] = False

    alpha: float = 1.5
    learning_rate: float = 0.01

    def start(self, num_runs: int, num_tasks: int) -> Weigh:
        """Weights that sum to K, as they were before the step."""
        kept: dict[str, Tensor] = {}

        def weigh(losses: Tensor, gramians: Tensor) -> Tensor:
            weights = kept.setdefault("weights", torch.ones_like(losses))  # (R, K)
            first = kept.setdefault("first", losses.clamp_min(1e-12))
            norms = torch.diagonal(gramians, dim1=1, dim2=2).clamp_min(0).sqrt()  # ||g_k||, (R, K)
            # r_k = (L_k / L_k(0)) / mean_j (L_j / L_j(0))
            pace = losses / first
            pace = pace / pace.mean(dim=1, keepdim=True).clamp_min(1e-12)
            # G_k = w_k ||g_k||;  goal: mean_j G_j times r_k^alpha, a constant to the gradient
            goal = (weights * norms).mean(dim=1, keepdim=True) * pace**self.alpha
            # d/dw_k sum_j |G_j - goal_j| = sign(G_k - goal_k) ||g_k||, measured in the mean norm
            scale = norms.mean(dim=1, keepdim=True).clamp_min(1e-12)
            moved = weights - self.learning_rate * torch.sign(weights * norms - goal) * norms / scale
            moved = moved.clamp_min(1e-3)
            # sum_k w_k = K
            kept["weights"] = num_tasks * moved / moved.sum(dim=1, keepdim=True)
            return weights

        return weigh


SURGEONS = ("PCGrad", "CAGrad", "Nash-MTL", "UPGrad")
"""Methods of torchjd that are offered here."""


@dataclass(frozen=True)
class GradientSurgery:
    """One of torchjd's methods for gradients that point against each other, each run by itself.

    The weights that torchjd finds are scaled to sum to K where they do not all vanish, so that a method's steps are as
    long as those of the plain sum, which is weight 1 a task, and not of another learning rate.

    Source: https://torchjd.org; PCGrad: Yu et al. (2020), CAGrad: Liu et al. (2021), Nash-MTL: Navon et al. (2022),
    UPGrad: Quinton and Rey (2024).

    Attributes:
        method: One of `SURGEONS`.
        conflict: CAGrad's c, the radius in which it looks for a better direction.
        every: Steps after which Nash-MTL solves its bargaining problem again.

    Raises:
        ValueError: If there is no such method.
    """

    shared_only: ClassVar[bool] = True

    method: str
    conflict: float = 0.4
    every: int = 1

    def __post_init__(self) -> None:
        if self.method not in SURGEONS:
            raise ValueError(
                f"method is {self.method!r}, expected one of {', '.join(SURGEONS)}: choose one of these"
            )

    def start(self, num_runs: int, num_tasks: int) -> Weigh:
        """Weights by torchjd.

        Raises:
            ModuleNotFoundError: If torchjd is not installed.
        """
        if importlib.util.find_spec("torchjd") is None:
            raise ModuleNotFoundError(
                f"{self.method} needs torchjd, expected it to be installed: pip install 'mmoe_lib[study]'"
            )
        solvers = [self._solver(num_tasks) for _ in range(num_runs)]  # Nash-MTL remembers its last solution
        equal = torch.ones(num_tasks)

        def weigh(losses: Tensor, gramians: Tensor) -> Tensor:
            # The same weights for a G and for c G; a gradient of 1e-4 would otherwise meet a solver's tolerance.
            size = torch.diagonal(gramians, dim1=1, dim2=2).mean(dim=1).clamp_min(1e-30)  # (R,)
            scaled = (gramians / size[:, None, None]).double().cpu()
            found = []
            for solver, matrix in zip(solvers, scaled, strict=True):
                weights = solver(matrix) if bool(torch.isfinite(matrix).all()) else equal
                total = float(weights.sum())
                usable = math.isfinite(total) and total > 1e-6
                found.append(num_tasks * weights / total if usable else torch.zeros(num_tasks))
            return torch.stack([weights.to(losses) for weights in found])

        return weigh

    def _solver(self, num_tasks: int) -> Callable[[Tensor], Tensor]:
        from torchjd import aggregation

        if self.method == "Nash-MTL":
            # It takes the Jacobian, of which only J J' enters: any square root of the Gramian is one.
            nash: Any = aggregation.NashMTL(num_tasks, max_norm=0.0, update_weights_every=self.every)
            return lambda matrix: nash.weighting(_square_root(matrix))
        if self.method == "UPGrad":
            upgrad: Any = aggregation.UPGradWeighting()
            return lambda matrix: upgrad(matrix)
        if self.method == "CAGrad":
            cagrad: Any = aggregation.CAGradWeighting(self.conflict)
            return lambda matrix: cagrad(matrix)
        pcgrad: Any = aggregation.PCGradWeighting()

        def in_random_order(matrix: Tensor) -> Tensor:
            # torchjd draws PCGrad's order of tasks from the global generator, which is left as it was.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                weights: Tensor = pcgrad(matrix)
            return weights

        return in_random_order


def _square_root(matrix: Tensor) -> Tensor:
    """A matrix J (K, K) with J J' = G."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt()
