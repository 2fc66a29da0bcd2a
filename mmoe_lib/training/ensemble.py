"""R independently initialised runs of one model, held as one set of stacked parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vjp, vmap

from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training.batches import check_finite
from mmoe_lib.training.devices import checked_device, within_memory
from mmoe_lib.training.losses import Loss

State = dict[str, Tensor]


class Ensemble:
    """R runs of one model as one computation.

    The model is an ordinary module for one run. The ensemble stacks the parameters of R of them and
    lifts the module with `functional_call`, `grad` and `vmap`: run r is what training that module
    alone would give. A single run is an ensemble of one.

    Args:
        build: Makes the model of one run; called as build(generator=...) with the generator of its initial weights.
        seeds: One a run.
        device: Where the parameters live: "cpu", "cuda" or "auto".
        dtype: Of the parameters.

    Attributes:
        parameters: Stacked parameters by name, each (R, ...).
        seeds: The seed of each run.

    Raises:
        ValueError: If there are no seeds, or the device is not there.
        DeviceMemoryError: If the runs do not fit into a GPU's memory.
    """

    def __init__(
        self,
        build: Callable[..., nn.Module],
        seeds: Sequence[int],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not seeds:
            raise ValueError("there are no seeds, expected one a run: give at least one")
        self.device, self.dtype, self.seeds = checked_device(device), dtype, tuple(seeds)
        modules = [build(generator=seeded_generator(seed, "initialisation")) for seed in seeds]
        # Weights are drawn on the CPU in float32, so a run starts alike on every device.
        stacked, buffers = stack_module_state([module.to(dtype) for module in modules])
        with within_memory(len(seeds)):
            self.parameters: State = {
                name: value.detach().to(self.device, copy=True) for name, value in stacked.items()
            }
            self.buffers: State = {name: value.to(self.device) for name, value in buffers.items()}
        self._module = modules[0].to(self.device).requires_grad_(False)
        # Made here because torch.compile gives up on the whole gradient where a module is made within it.
        self._objective = _Call(self._module, _with_penalty)

    def __len__(self) -> int:
        return len(self.seeds)

    def part(self, start: int, stop: int) -> Ensemble:
        """The runs from start to stop - 1 as an ensemble of the same memory: what moves one moves the other."""
        part = copy.copy(self)
        part.seeds = self.seeds[start:stop]
        part.parameters = {name: value[start:stop] for name, value in self.parameters.items()}
        part.buffers = {name: value[start:stop] for name, value in self.buffers.items()}
        return part

    def module(self, run: int) -> nn.Module:
        """Run r as an ordinary module, a copy with its present weights."""
        module = copy.deepcopy(self._module).requires_grad_(True)
        state = {**self.parameters, **self.buffers}
        module.load_state_dict({name: value[run].detach().clone() for name, value in state.items()})
        return module

    def copy_state(self) -> State:
        """A copy of all parameters, for `load_state`."""
        return {name: value.clone() for name, value in self.parameters.items()}

    def load_state(self, state: State, runs: Tensor | None = None) -> None:
        """Put back the parameters of all runs, or of those where the mask `runs` (R,) is true."""
        rows = slice(None) if runs is None else runs
        for name, value in self.parameters.items():
            value[rows] = state[name][rows]

    def gradients(self, loss: Loss, x: Tensor, y: Tensor) -> tuple[State, Tensor]:
        """The gradient of each run's objective, and its losses.

        The objective is the sum of the task losses, plus what the model's own `penalty(x)` asks for if it has one.

        Args:
            loss: Outputs and labels (B, K) to one loss a task (K,).
            x: Inputs (R, B, d), one batch a run, or (B, d), shared by all.
            y: Labels (R, B, K) or (B, K).

        Returns:
            Gradients by parameter name, each (R, ...), and losses (R, K).
        """

        def objective(parameters: State, buffers: State, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            state = _prefixed(parameters, buffers)
            outputs, penalty = functional_call(self._objective, state, (x,))  # (B, K)
            losses = loss(outputs, y)  # (K,)
            return losses.sum() + penalty, losses

        own = (0 if x.dim() == 3 else None, 0 if y.dim() == 3 else None)
        lifted = vmap(grad(objective, has_aux=True), in_dims=(0, 0, *own))
        return lifted(self.parameters, self.buffers, x, y)

    def task_gradients(self, loss: Loss, x: Tensor, y: Tensor) -> tuple[State, Tensor]:
        """The gradient of each task's loss by itself, for a balanced step.

        What the model's own `penalty(x)` asks for is shared out among the tasks, a K-th each, so that the sum over
        tasks is what `gradients` gives.

        Args:
            loss: Outputs and labels (B, K) to one loss a task (K,).
            x: Inputs (R, B, d), one batch a run, or (B, d), shared by all.
            y: Labels (R, B, K) or (B, K).

        Returns:
            Gradients by parameter name, each (R, K, ...), and losses (R, K).
        """

        def of_one_run(parameters: State, buffers: State, x: Tensor, y: Tensor) -> tuple[State, Tensor]:
            def objectives(parameters: State) -> tuple[Tensor, Tensor]:
                outputs, penalty = functional_call(self._objective, _prefixed(parameters, buffers), (x,))
                losses = loss(outputs, y)  # (K,)
                return losses + penalty / len(losses), losses

            _, pull, losses = vjp(objectives, parameters, has_aux=True)  # type: ignore[misc]
            rows = [
                pull(unit)[0] for unit in torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
            ]
            return {name: torch.stack([row[name] for row in rows]) for name in parameters}, losses

        own = (0 if x.dim() == 3 else None, 0 if y.dim() == 3 else None)
        return vmap(of_one_run, in_dims=(0, 0, *own))(self.parameters, self.buffers, x, y)

    @torch.no_grad()
    def predict(self, x: Tensor, *, rows: int = 8192) -> Tensor:
        """Outputs of every run.

        Args:
            x: Inputs (N, d), shared by all runs, or (R, N, d).
            rows: How many rows are computed at once, to bound memory.

        Returns:
            Outputs (R, N, K): real values or logits.

        Raises:
            ValueError: If an input is NaN or infinite, or of the wrong width.
        """
        return self._map_rows(lambda module, batch: module(batch), x, rows)

    @torch.no_grad()
    def gate_weights(self, x: Tensor, *, rows: int = 8192) -> Tensor:
        """Gate weights of every run: inputs (N, d) or (R, N, d) to (R, N, K, n).

        Raises:
            TypeError: If the model has no gates.
        """
        if not hasattr(self._module, "gate_weights"):
            raise TypeError(f"{type(self._module).__name__} has no gates, expected a mixture such as MMoE")
        return self._map_rows(_gate_weights, x, rows)

    def _map_rows(self, function: Callable[[nn.Module, Tensor], Tensor], x: Tensor, rows: int) -> Tensor:
        check_finite("inputs", x)

        def one_run(parameters: State, buffers: State, batch: Tensor) -> Tensor:
            return functional_call(_Call(self._module, function), _prefixed(parameters, buffers), (batch,))

        lifted = vmap(one_run, in_dims=(0, 0, 0 if x.dim() == 3 else None))
        with within_memory(len(self)):
            parts = [lifted(self.parameters, self.buffers, part) for part in x.split(rows, dim=-2)]
            return torch.cat(parts, dim=1)


def _gate_weights(module: nn.Module, x: Tensor) -> Tensor:
    weights: Tensor = module.gate_weights(x)  # type: ignore[operator]
    return weights


def _with_penalty(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | float]:
    penalty: Callable[[Tensor], Tensor] | None = getattr(module, "penalty", None)
    return module(x), penalty(x) if penalty else 0.0


class _Call(nn.Module):
    """Lets `functional_call`, which calls a module's forward, call another of its methods."""

    def __init__(self, module: nn.Module, function: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.module, x)


def _prefixed(*states: State) -> State:
    return {f"module.{name}": value for state in states for name, value in state.items()}
