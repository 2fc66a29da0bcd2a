"""One update of every run: as plain calls, compiled into one, or replayed as a CUDA graph."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from mmoe_lib.training.balancing import Balancer, Weigh, gramian, own_parameters
from mmoe_lib.training.ensemble import Ensemble
from mmoe_lib.training.losses import Loss
from mmoe_lib.training.optimisers import Optimiser

TakeStep = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Inputs, labels and the number of the step, to the losses before the step (R, K) and the batch's sum."""

_WARM_UP = 3  # plain steps before a CUDA graph is captured: compilation and lazy allocations must be over


class Step:
    """Loss, gradient and update of every run, in place.

    Args:
        ensemble: The runs.
        loss: Outputs and labels (B, K) to one loss a task (K,).
        learning_rates: One a run, (R,).
        optimiser: Adam or SGD.
    """

    def __init__(self, ensemble: Ensemble, loss: Loss, learning_rates: Tensor, optimiser: Optimiser) -> None:
        self.ensemble, self.loss, self.optimiser = ensemble, loss, optimiser
        self.learning_rates = learning_rates
        self.kept = {
            name: tuple(torch.zeros_like(value) for _ in range(optimiser.buffers))
            for name, value in ensemble.parameters.items()
        }

    def __call__(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Move every run by one step; returns its losses before it, (R, K), and the sum of inputs and labels.

        The sum is not finite where an input or label is not: a cheap look at every number of the batch.
        """
        return self.update(x, y, *self.scales(step))

    def scales(self, step: int) -> tuple[Tensor, Tensor]:
        """What the update of step t multiplies with: a rate a run (R,), and the correction of the squares."""
        first, second = self.optimiser.corrections(step)
        return self.learning_rates * first, self.learning_rates.new_tensor(second)

    def update(self, x: Tensor, y: Tensor, rates: Tensor, correction: Tensor) -> tuple[Tensor, Tensor]:
        """The step itself, without Python numbers that change: this is what is compiled."""
        gradients, losses = self.ensemble.gradients(self.loss, x, y)
        for name, parameter in self.ensemble.parameters.items():
            self.optimiser.update(parameter, gradients[name], self.kept[name], rates, correction)
        return losses.detach(), x.sum() + y.sum()


class BalancedStep(Step):
    """A step in which a balancer decides how much each task's gradient counts, in place.

    Args:
        ensemble: The runs.
        loss: Outputs and labels (B, K) to one loss a task (K,).
        learning_rates: One a run, (R,).
        optimiser: Adam or SGD.
        balancer: Turns losses and gradients into weights.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        loss: Loss,
        learning_rates: Tensor,
        optimiser: Optimiser,
        balancer: Balancer,
    ) -> None:
        super().__init__(ensemble, loss, learning_rates, optimiser)
        self.balancer, self.own = balancer, own_parameters(ensemble.module(0))
        self.weigh: Weigh | None = None

    def update(self, x: Tensor, y: Tensor, rates: Tensor, correction: Tensor) -> tuple[Tensor, Tensor]:
        """The step itself."""
        gradients, losses = self.ensemble.task_gradients(self.loss, x, y)  # (R, K, ...), (R, K)
        if self.weigh is None:
            self.weigh = self.balancer.start(*losses.shape)
        weights = self.weigh(losses.detach(), gramian(gradients, self.own))  # (R, K)
        for name, parameter in self.ensemble.parameters.items():
            rows = gradients[name]
            if not (self.balancer.shared_only and name in self.own):
                rows = rows * weights.view(*weights.shape, *[1] * (rows.dim() - 2))
            # g = sum_k lambda_k g_k
            self.optimiser.update(parameter, rows.sum(dim=1), self.kept[name], rates, correction)
        return losses.detach(), x.sum() + y.sum()


def fast_step(step: Step) -> TakeStep:
    """The same step compiled, on a GPU captured as a CUDA graph; where that cannot be done, a warning and `step`.

    A test shows that it trains as the plain step does.
    """
    on_cpu = step.ensemble.device.type == "cpu"
    if on_cpu and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        warnings.warn(
            "compile is True but there is no C++ compiler, expected g++ or clang++: training without",
            stacklevel=3,
        )
        return step
    # On the CPU the calls of the kernels are compiled too: Python between them takes as long as small models.
    options: dict[str, str | int | bool | Callable[..., object]] = {"cpp_wrapper": True} if on_cpu else {}
    plain = step.update
    step.update = torch.compile(plain, dynamic=False, options=options)  # type: ignore[method-assign]
    return _CompiledOrPlain(step, plain) if on_cpu else _Graphed(step)


class _CompiledOrPlain:
    """The compiled step, unless its first call shows that this machine cannot compile it (no Python.h, say)."""

    def __init__(self, step: Step, plain: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self.step, self.plain, self.compiled = step, plain, False

    def __call__(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if not self.compiled:
            from torch._dynamo.exc import TorchDynamoException  # takes a second to load, so only here

            self.compiled = True
            try:
                return self.step(x, y, step)
            except TorchDynamoException as error:  # nothing has run yet, so the step can be taken plainly
                reason = str(error).strip().splitlines()[0]
                warnings.warn(
                    f"compile is True but compiling failed, expected a C++ compiler that works: training without ({reason})",
                    stacklevel=3,
                )
                self.step.update = self.plain  # type: ignore[method-assign]
        return self.step(x, y, step)


class _Graphed:
    """Replays the step's kernels from a CUDA graph: one launch instead of hundreds."""

    def __init__(self, step: Step) -> None:
        self.step, self.graph = step, torch.cuda.CUDAGraph()
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, Tensor] | None = None
        self.calls = 0

    def __call__(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        given = (x, y, *self.step.scales(step))
        self.calls += 1
        if self.calls <= _WARM_UP:
            return self.step.update(*given)
        if self.outputs is None:
            self.inputs = tuple(value.clone() for value in given)
            torch.cuda.synchronize()
            # Capturing records the kernels without running them, so no step is taken here.
            with torch.cuda.graph(self.graph):
                self.outputs = self.step.update(*self.inputs)
        for kept, value in zip(self.inputs, given, strict=True):
            kept.copy_(value)
        self.graph.replay()
        losses, total = self.outputs
        return losses.clone(), total.clone()
