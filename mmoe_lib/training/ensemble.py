"""R independently initialised runs of one model, held as one set of stacked parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap

from mmoe_lib.training.batches import check_finite
from mmoe_lib.training.devices import checked_device, within_memory
from mmoe_lib.training.door import (
    OWN_PASS,
    State,
    built,
    checked_seeds,
    random_stream,
    stacked,
    tensors_of,
    with_tensors,
)
from mmoe_lib.training.losses import Loss


class Ensemble:
    """R runs of one model as one computation.

    The model is an ordinary module for one run. The ensemble stacks the parameters of R of them and
    lifts the module with `functional_call`, `grad` and `vmap`: run r is what training that module
    alone would give. A single run is an ensemble of one.

    What vmap cannot lift runs as well, only one run after another: layers that draw random numbers (each run has a
    stream of its own, from its seed), keep statistics, or are recurrent, and branches that depend on the data.
    Training leaves a module in the mode in which it was built; `predict` and `module` have it in evaluation mode.

    No call but a training step writes anything that another call reads, so that threads may share an ensemble.

    Args:
        build: Makes the model of one run; called as build(generator=...) with the generator of its initial weights,
            or with it as the one argument, if that has another name.
        seeds: One a run.
        device: Where the parameters live: "cpu", "cuda" or "auto".
        dtype: Of the parameters.

    Attributes:
        parameters: Stacked parameters by name, each (R, ...), that training moves.
        buffers: Stacked buffers, and weights with requires_grad=False, which stay as they are.
        seeds: The seed of each run.
        one_by_one: Whether the runs are computed one after another.

    Raises:
        TypeError: If `build` takes no generator or makes no module, or the seeds are no integers.
        ValueError: If there are no seeds, the device is not there, or the modules cannot be copied and stacked.
        DeviceMemoryError: If the runs do not fit into a GPU's memory.
    """

    def __init__(
        self,
        build: Callable[..., nn.Module],
        seeds: Iterable[int],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device, self.dtype, self.seeds = checked_device(device), dtype, checked_seeds(seeds)
        # Weights are drawn on the CPU in float32, so a run starts alike on every device.
        modules = [built(build, seed).to(dtype) for seed in self.seeds]
        trained, kept = stacked(modules)
        with within_memory(len(self.seeds)):
            self.parameters: State = {name: value.to(self.device) for name, value in trained.items()}
            self.buffers: State = {name: value.to(self.device) for name, value in kept.items()}
        # Never called and never written: each call puts the runs' tensors into a copy of its own. Its weights hold
        # no numbers, so that none of them can answer.
        own = {name: value.detach().to("meta") for name, value in tensors_of(modules[0]).items()}
        self._template = with_tensors(modules[0], own)
        self._frozen = kept.keys() & dict(self._template.named_parameters()).keys()
        self.one_by_one = any(isinstance(part, OWN_PASS) for part in self._template.modules())
        self._passes = 0  # that were trained one by one: the place in each run's random stream

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
        """Run r as an ordinary module in evaluation mode, a copy with its present weights."""
        return copy.deepcopy(self._module_of(run)).eval()

    def _module_of(self, run: int, *, writes: bool = False) -> nn.Module:
        """Run r around the ensemble's own memory; unless it writes, around copies of the buffers."""
        tensors = {name: value[run] for name, value in {**self.parameters, **self.buffers}.items()}
        if not writes:
            tensors |= {name: tensors[name].clone() for name in self.buffers.keys() - self._frozen}
        return with_tensors(self._template, tensors)

    def state(self) -> State:
        """What training may move: the parameters, and the buffers that are no frozen weights."""
        moving = {name: value for name, value in self.buffers.items() if name not in self._frozen}
        return {**self.parameters, **moving}

    def copy_state(self) -> State:
        """A copy of `state`, for `load_state`."""
        return {name: value.clone() for name, value in self.state().items()}

    def load_state(self, state: State, runs: Tensor | None = None) -> None:
        """Put back the state of all runs, or of those where the mask `runs` (R,) is true."""
        rows = slice(None) if runs is None else runs
        for name, value in self.state().items():
            value[rows] = state[name][rows]

    def objective(self) -> nn.Module:
        """What `gradients` calls: a module of the caller's own, into which a call puts the runs' tensors."""
        return _Call(with_tensors(self._template, tensors_of(self._template)), _with_penalty)

    def gradients(
        self, loss: Loss, x: Tensor, y: Tensor, objective: nn.Module | None = None
    ) -> tuple[State, Tensor]:
        """The gradient of each run's objective, and its losses.

        The objective is the sum of the task losses, plus what the model's own `penalty(x)` asks for if it has one.

        Args:
            loss: Outputs and labels (B, K) to one loss a task (K,).
            x: Inputs (R, B, d), one batch a run, or (B, d), shared by all.
            y: Labels (R, B, K) or (B, K).
            objective: From `objective()`, for a caller that calls often; torch.compile gives up on the whole gradient
                where a module is made within it.

        Returns:
            Gradients by parameter name, each (R, ...), and losses (R, K).
        """
        if self.one_by_one:
            rows, losses = self._gradients_one_by_one(loss, x, y, lambda losses, rest: [losses.sum() + rest])
            return {name: value[:, 0] for name, value in rows.items()}, losses
        called = objective or self.objective()

        def of_one_run(parameters: State, buffers: State, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            outputs, penalty = functional_call(called, _prefixed(parameters, buffers), (x,))  # (B, K)
            losses = loss(outputs, y)  # (K,)
            return losses.sum() + penalty, losses

        own = (0 if x.dim() == 3 else None, 0 if y.dim() == 3 else None)
        lifted = vmap(grad(of_one_run, has_aux=True), in_dims=(0, 0, *own))
        return lifted(self.parameters, self.buffers, x, y)

    def task_gradients(
        self, loss: Loss, x: Tensor, y: Tensor, objective: nn.Module | None = None
    ) -> tuple[State, Tensor]:
        """The gradient of each task's loss by itself, for a balanced step.

        What the model's own `penalty(x)` asks for is shared out among the tasks, a K-th each, so that the sum over
        tasks is what `gradients` gives.

        Called as `gradients`; returns gradients by parameter name, each (R, K, ...), and losses (R, K).
        """
        if self.one_by_one:
            return self._gradients_one_by_one(
                loss, x, y, lambda losses, rest: list((losses + rest / len(losses)).unbind())
            )
        called = objective or self.objective()

        def of_one_run(parameters: State, buffers: State, x: Tensor, y: Tensor) -> tuple[State, Tensor]:
            def objectives(parameters: State) -> tuple[Tensor, Tensor]:
                outputs, penalty = functional_call(called, _prefixed(parameters, buffers), (x,))
                losses = loss(outputs, y)  # (K,)
                return losses + penalty / len(losses), losses

            _, pull, losses = vjp(objectives, parameters, has_aux=True)  # type: ignore[misc]
            rows = [
                pull(unit)[0] for unit in torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
            ]
            return {name: torch.stack([row[name] for row in rows]) for name in parameters}, losses

        own = (0 if x.dim() == 3 else None, 0 if y.dim() == 3 else None)
        return vmap(of_one_run, in_dims=(0, 0, *own))(self.parameters, self.buffers, x, y)

    def _gradients_one_by_one(
        self,
        loss: Loss,
        x: Tensor,
        y: Tensor,
        objectives: Callable[[Tensor, Tensor | float], list[Tensor]],
    ) -> tuple[State, Tensor]:
        """The gradients of J objectives, each (R, J, ...), by torch's ordinary autograd, and losses (R, K)."""
        found, all_losses = [], []
        self._passes += 1
        for run, seed in enumerate(self.seeds):
            module = self._module_of(run, writes=True)
            weights = [dict(module.named_parameters())[name] for name in self.parameters]
            with random_stream(seed, f"training pass {self._passes}", self.device), torch.enable_grad():
                outputs, penalty = _with_penalty(module, x[run] if x.dim() == 3 else x)
                losses = loss(outputs, y[run] if y.dim() == 3 else y)  # (K,)
                rows = [
                    torch.autograd.grad(
                        one, weights, retain_graph=True, allow_unused=True, materialize_grads=True
                    )
                    for one in objectives(losses, penalty)
                ]
            found.append([torch.stack(gradients) for gradients in zip(*rows, strict=True)])
            all_losses.append(losses.detach())
            for (
                name,
                value,
            ) in module.named_buffers():  # also those that the module put others in the place of
                self.buffers[name][run].copy_(value.detach())
        stacks = (torch.stack(gradients) for gradients in zip(*found, strict=True))
        return dict(zip(self.parameters, stacks, strict=True)), torch.stack(all_losses)

    def settle(self, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
        """Find out with a batch, as for `gradients`, whether the runs go together; gives run 0's outputs (B, K)."""
        own, labels = x[0] if x.dim() == 3 else x, y[0] if y.dim() == 3 else y
        module = self._module_of(0)
        with torch.no_grad(), random_stream(self.seeds[0], "trial", self.device):
            state = partial(torch.cuda.get_rng_state, self.device) if x.is_cuda else torch.get_rng_state
            before = state()
            outputs = _with_penalty(module, own)[0]
            drew = not torch.equal(before, state())
        wrote = any(not torch.equal(value, self.buffers[name][0]) for name, value in module.named_buffers())
        self.one_by_one = self.one_by_one or drew or wrote
        if not self.one_by_one and outputs.shape == labels.shape:
            try:
                self.part(0, 1).gradients(loss, own, labels)
            except RuntimeError:  # of vmap; an error of the model's own is met again without it
                self.one_by_one = True
        return outputs

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
        if not hasattr(self._template, "gate_weights"):
            raise TypeError(f"{type(self._template).__name__} has no gates, expected a mixture such as MMoE")
        return self._map_rows(_gate_weights, x, rows)

    def _map_rows(self, function: Callable[[nn.Module, Tensor], Tensor], x: Tensor, rows: int) -> Tensor:
        check_finite("inputs", x)
        parts = x.split(rows, dim=-2)
        with within_memory(len(self)):
            if not self.one_by_one:
                with suppress(RuntimeError):  # of vmap; an error of the model's own is met again without it
                    return torch.cat(self._together(function, parts), dim=1)
            found = []
            for run in range(len(self)):
                module = self._module_of(run).eval()
                found.append([function(module, part[run] if part.dim() == 3 else part) for part in parts])
            return torch.stack([torch.cat(outputs) for outputs in found])

    def _together(
        self, function: Callable[[nn.Module, Tensor], Tensor], parts: tuple[Tensor, ...]
    ) -> list[Tensor]:
        called = _Call(
            with_tensors(self._template, tensors_of(self._template)).eval(), function
        )  # of this call alone

        def one_run(parameters: State, buffers: State, batch: Tensor) -> Tensor:
            return functional_call(called, _prefixed(parameters, buffers), (batch,))

        lifted = vmap(one_run, in_dims=(0, 0, 0 if parts[0].dim() == 3 else None))
        copies = {name: value.clone() for name, value in self.buffers.items() if name not in self._frozen}
        buffers = {**self.buffers, **copies}
        return [lifted(self.parameters, buffers, part) for part in parts]


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
