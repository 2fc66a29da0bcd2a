"""R independently initialised runs of one model, held as one set of stacked parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap

from mmoe_lib.models.embeddings import Inputs
from mmoe_lib.training import modules
from mmoe_lib.training.batches import check_finite, parts_of, rebuilt
from mmoe_lib.training.devices import checked_device, within_memory
from mmoe_lib.training.losses import Loss

State = dict[str, Tensor]


class Ensemble:
    """R runs of one model as one computation.

    The model is an ordinary module for one run. The ensemble stacks the parameters of R of them and
    lifts the module with `functional_call`, `grad` and `vmap`: run r is what training that module
    alone would give. A single run is an ensemble of one.

    Frozen parameters stay as they are, tied ones stay tied, `nn.Dropout` drops in training alone, from a stream of
    each run's own. What cannot be kept (`BatchNorm`, recurrent layers, other random draws) is refused by name.
    `predict`, `gate_weights` and `module` write to nothing that another thread reads.

    Args:
        build: Makes the model of one run; called as build(generator=...) with the generator of its initial weights.
            Layers that draw from torch's global generator instead are seeded by the run too.
        seeds: One a run.
        device: Where the parameters live: "cpu", "cuda" or "auto".
        dtype: Of the parameters: float32, float64 or bfloat16.

    Attributes:
        parameters: Stacked parameters by name, each (R, ...), frozen ones among them.
        buffers: Stacked likewise.
        trained: The names of the parameters that training moves: those that require a gradient.
        seeds: The seed of each run.

    Raises:
        ValueError: If there are no seeds, the builder or its module is not one that an ensemble can serve, or the
            device is not there.
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
        if dtype not in modules.DTYPES:
            raise ValueError(
                f"dtype is {dtype}, expected torch.float32, float64 or bfloat16: in float16 Adam divides by 0"
            )
        self.device, self.dtype, self.seeds = checked_device(device), dtype, tuple(seeds)
        runs = modules.built(build, self.seeds)
        # Weights are drawn on the CPU in float32, so a run starts alike on every device.
        tensors = [modules.tensors_of(module) for module in runs]
        self.parameters: State = {}
        self.buffers: State = {}
        with within_memory(len(runs)):
            for name, value in tensors[0].items():
                stacked = torch.stack([of_run[name].detach() for of_run in tensors])
                kind = dtype if value.is_floating_point() else value.dtype
                state = self.parameters if isinstance(value, nn.Parameter) else self.buffers
                state[name] = stacked.to(self.device, kind)
        self.trained = tuple(name for name, value in runs[0].named_parameters() if value.requires_grad)
        # Without numbers, so that only those of a run can ever answer; nothing writes to it.
        self._template = modules.with_tensors(
            runs[0],
            {name: value[0].to("meta") for name, value in {**self.parameters, **self.buffers}.items()},
        )
        self._idle: tuple[list[nn.Module], list[nn.Module]] = ([], [])  # to predict with, to train with
        # Made here because torch.compile gives up on the whole gradient where a module is made within it.
        self._objective = _Call(modules.for_training(self._template), _with_penalty)
        self._keyed = modules.dropout_names(self._objective.module)
        self.keys = modules.first_keys(self.seeds).to(self.device)

    def __len__(self) -> int:
        return len(self.seeds)

    def part(self, start: int, stop: int) -> Ensemble:
        """The runs from start to stop - 1 as an ensemble of the same memory: what moves one moves the other."""
        return self._with(lambda value: value[start:stop], self.seeds[start:stop])

    def keep(self, runs: Sequence[int]) -> Ensemble:
        """The runs of these numbers as an ensemble of their own, a copy: such as those that did not diverge."""
        rows = torch.tensor(runs, dtype=torch.long, device=self.device)
        return self._with(lambda value: value[rows], tuple(self.seeds[run] for run in runs))

    def _with(self, chosen: Callable[[Tensor], Tensor], seeds: tuple[int, ...]) -> Ensemble:
        other = copy.copy(self)
        other.seeds, other.keys = seeds, chosen(self.keys)
        other.parameters = {name: chosen(value) for name, value in self.parameters.items()}
        other.buffers = {name: chosen(value) for name, value in self.buffers.items()}
        return other

    def module(self, run: int) -> nn.Module:
        """Run r as an ordinary module, a copy with its present weights."""
        state = {**self.parameters, **self.buffers}
        return modules.with_tensors(
            self._template, {name: value[run].detach().clone() for name, value in state.items()}
        )

    def move_on(self) -> None:
        """Let dropout draw anew: the next step is another."""
        if self._keyed:
            modules.next_keys_(self.keys)

    @property
    def model_name(self) -> str:
        """The class of the model, for messages."""
        return type(self._template).__name__

    def copy_state(self) -> State:
        """A copy of all parameters, for `load_state`."""
        return {name: value.clone() for name, value in self.parameters.items()}

    def load_state(self, state: State, runs: Tensor | None = None) -> None:
        """Put back the parameters of all runs, or of those where the mask `runs` (R,) is true."""
        rows = slice(None) if runs is None else runs
        for name, value in self.parameters.items():
            value[rows] = state[name][rows]

    def check_ids(self, x: Inputs) -> None:
        """Raise ValueError where the model's own `check_ids(x)`, if it has one, finds ids that are not in its table.

        It is asked before runs are stacked: in a stack, an id beyond the table of one run is an id of the next.
        """
        check: Callable[[Inputs], None] | None = getattr(self._template, "check_ids", None)
        if check:
            check(x)

    def losses(self, loss: Loss, x: Inputs, y: Tensor) -> Tensor:
        """The losses of every run on a batch, (R, K), as a training step finds them; all that can be wrong is named.

        Args:
            loss: Outputs and labels (B, K) to one loss a task (K,).
            x: Inputs, as for `gradients`.
            y: Labels (R, B, K) or (B, K).

        Raises:
            ValueError: If outputs, labels and losses are not of such shapes, the loss cannot take them, the model
                changes its buffers, or its forward pass cannot be lifted.
        """
        before = {name: value.clone() for name, value in self.buffers.items()}
        buffers = {name: value.clone() for name, value in self.buffers.items()}
        told = _Told(loss)
        with (
            torch.no_grad(),
            modules.refused_in_a_line(self._template),
            self._borrowed(training=True) as module,
        ):
            objective = self._objective_of(told, _Call(module, _with_unchanged_buffers))
            lifted = vmap(objective, in_dims=(0, 0, 0, _own(x), _own(y)))
            _, losses = lifted(self.parameters, buffers, self.keys, x, y)
        for name, value in before.items():
            if not torch.equal(value, buffers[name]):
                raise ValueError(
                    f"{self.model_name}.{name} changes in the forward pass, expected buffers that stay as they are"
                )
        return losses

    def gradients(self, loss: Loss, x: Inputs, y: Tensor) -> tuple[State, Tensor]:
        """The gradient of each run's objective, and its losses.

        The objective is the sum of the task losses, plus what the model's own `penalty(x)` asks for if it has one.

        Args:
            loss: Outputs and labels (B, K) to one loss a task (K,).
            x: Inputs (R, B, d), one batch a run, or (B, d), shared by all; or a pair of such, ids and numbers.
            y: Labels (R, B, K) or (B, K).

        Returns:
            Gradients by parameter name, each (R, ...), and losses (R, K).
        """
        if torch.compiler.is_dynamo_compiling():
            return self._gradients(self._objective, loss, x, y)
        with modules.refused_in_a_line(self._template), self._borrowed(training=True) as module:
            return self._gradients(_Call(module, _with_penalty), loss, x, y)

    def _gradients(self, call: _Call, loss: Loss, x: Inputs, y: Tensor) -> tuple[State, Tensor]:
        objective = self._objective_of(loss, call)
        lifted = vmap(grad(objective, has_aux=True), in_dims=(0, 0, 0, _own(x), _own(y)))
        return lifted(*self._moved_and_kept(), self.keys, x, y)

    def task_gradients(self, loss: Loss, x: Inputs, y: Tensor) -> tuple[State, Tensor]:
        """The gradient of each task's loss by itself, for a balanced step.

        What the model's own `penalty(x)` asks for is shared out among the tasks, a K-th each, so that the sum over
        tasks is what `gradients` gives.

        Args:
            loss: Outputs and labels (B, K) to one loss a task (K,).
            x: Inputs, as for `gradients`.
            y: Labels (R, B, K) or (B, K).

        Returns:
            Gradients by parameter name, each (R, K, ...), and losses (R, K).
        """

        def of_one_run(
            parameters: State, buffers: State, key: Tensor, x: Inputs, y: Tensor
        ) -> tuple[State, Tensor]:
            def objectives(parameters: State) -> tuple[Tensor, Tensor]:
                outputs, penalty = functional_call(call, self._state(parameters, buffers, key), (x,))
                losses = loss(outputs, y)  # (K,)
                return losses + penalty / len(losses), losses

            _, pull, losses = vjp(objectives, parameters, has_aux=True)  # type: ignore[misc]
            rows = [
                pull(unit)[0] for unit in torch.eye(len(losses), dtype=losses.dtype, device=losses.device)
            ]
            return {name: torch.stack([row[name] for row in rows]) for name in parameters}, losses

        lifted = vmap(of_one_run, in_dims=(0, 0, 0, _own(x), _own(y)))
        with modules.refused_in_a_line(self._template), self._borrowed(training=True) as module:
            call = _Call(module, _with_penalty)
            return lifted(*self._moved_and_kept(), self.keys, x, y)

    def _objective_of(self, loss: Loss, call: _Call) -> Callable[..., tuple[Tensor, Tensor]]:
        def objective(
            parameters: State, buffers: State, key: Tensor, x: Inputs, y: Tensor
        ) -> tuple[Tensor, Tensor]:
            outputs, penalty = functional_call(call, self._state(parameters, buffers, key), (x,))  # (B, K)
            losses = loss(outputs, y)  # (K,)
            return losses.sum() + penalty, losses

        return objective

    def _moved_and_kept(self) -> tuple[State, State]:
        """What a gradient is taken by, and all else."""
        moved = {name: self.parameters[name] for name in self.trained}
        return moved, {**self.buffers, **{n: v for n, v in self.parameters.items() if n not in moved}}

    def _state(self, parameters: State, buffers: State, key: Tensor) -> State:
        return _prefixed(parameters, buffers, modules.dropout_keys(self._keyed, key) if self._keyed else {})

    @torch.no_grad()
    def predict(self, x: Inputs, *, rows: int = 8192) -> Tensor:
        """Outputs of every run, in evaluation mode.

        Args:
            x: Inputs (N, d), shared by all runs, or (R, N, d); or a pair of such, ids and numbers.
            rows: How many rows are computed at once, to bound memory.

        Returns:
            Outputs (R, N, K): real values or logits.

        Raises:
            ValueError: If an input is NaN or infinite, or of the wrong width, or an id is not in the model's table.
        """
        return self._map_rows(lambda module, batch: module(batch), x, rows)

    @torch.no_grad()
    def gate_weights(self, x: Inputs, *, rows: int = 8192) -> Tensor:
        """Gate weights of every run: inputs (N, d) or (R, N, d) to (R, N, K, n).

        Raises:
            TypeError: If the model has no gates.
        """
        if not hasattr(self._template, "gate_weights"):
            raise TypeError(f"{self.model_name} has no gates, expected a mixture such as MMoE")
        return self._map_rows(_gate_weights, x, rows)

    def _map_rows(self, function: Callable[[nn.Module, Inputs], Tensor], x: Inputs, rows: int) -> Tensor:
        for part in parts_of(x):
            check_finite("inputs", part)
        self.check_ids(x)
        with (
            within_memory(len(self)),
            modules.refused_in_a_line(self._template),
            self._borrowed() as module,
        ):
            call = _Call(module, function)

            def one_run(parameters: State, buffers: State, batch: Inputs) -> Tensor:
                return functional_call(call, _prefixed(parameters, buffers), (batch,))

            lifted = vmap(one_run, in_dims=(0, 0, _own(x)))
            pieces = zip(*(part.split(rows, dim=-2) for part in parts_of(x)), strict=True)
            return torch.cat(
                [lifted(self.parameters, self.buffers, rebuilt(x, piece)) for piece in pieces], dim=1
            )

    @contextmanager
    def _borrowed(self, *, training: bool = False) -> Iterator[nn.Module]:
        """A copy of the template for one call, since `functional_call` writes to the module that it calls."""
        idle = self._idle[training]
        try:
            module = idle.pop()  # lists, not a lock or a thread's own: they can be copied and pickled
        except IndexError:
            module = (modules.for_training if training else modules.for_prediction)(self._template)
        try:
            yield module
        finally:
            idle.append(module)


def _gate_weights(module: nn.Module, x: Inputs) -> Tensor:
    weights: Tensor = module.gate_weights(x)  # type: ignore[operator]
    return weights


def _with_penalty(module: nn.Module, x: Inputs) -> tuple[Tensor, Tensor | float]:
    penalty: Callable[[Inputs], Tensor] | None = getattr(module, "penalty", None)
    return module(x), penalty(x) if penalty else 0.0


def _with_unchanged_buffers(module: nn.Module, x: Inputs) -> tuple[Tensor, Tensor | float]:
    """As `_with_penalty`; raises ValueError if a buffer is another one afterwards."""
    keys = modules.dropout_names(module)
    before = dict(module.named_buffers())
    found = _with_penalty(module, x)
    for name, value in module.named_buffers():
        if name not in keys and value is not before.get(name):
            raise ValueError(
                f"{type(module).__name__}.{name} changes in the forward pass, expected buffers that stay as they are"
            )
    return found


class _Told:
    """A loss that says in one line what it was given wrongly.

    A loss whose tasks have other numbers of outputs and labels than one each says so as `num_tasks` and `num_labels`.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        name = name_of(self.loss)
        if not isinstance(outputs, Tensor) or outputs.dim() != 2:
            given = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(
                f"the model gives {given} for a batch, expected a tensor (B, K): one output a task"
            )
        tasks, width = (getattr(self.loss, name, outputs.shape[1]) for name in ("num_tasks", "num_labels"))
        if labels.shape != (len(outputs), width):
            raise ValueError(
                f"labels have shape {tuple(labels.shape)} and outputs {tuple(outputs.shape)}, expected (B, K) of both: "
                "one label a row and task"
            )
        try:
            losses = self.loss(outputs, labels)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"{name} cannot take outputs {tuple(outputs.shape)} with labels of {labels.dtype}, expected a loss of "
                f"these ({reason[0]})"
            ) from error
        given = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        if given != (tasks,):
            raise ValueError(f"{name} gives {given}, expected ({tasks},): the mean of each task by itself")
        return losses


def name_of(loss: Loss) -> str:
    """What a loss is called, for messages."""
    function = getattr(loss, "func", loss)
    return str(getattr(function, "__qualname__", type(loss).__name__)).replace(".<locals>", "")


class _Call(nn.Module):
    """Lets `functional_call`, which calls a module's forward, call another of its methods."""

    def __init__(self, module: nn.Module, function: Callable[[nn.Module, Inputs], Any]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, x: Inputs) -> Any:
        return self.function(self.module, x)


def _own(x: Inputs) -> Any:
    """The dimension of runs: of inputs or labels of each run's own the first, of shared ones none."""
    own = [0 if part.dim() == 3 else None for part in parts_of(x)]
    return own[0] if isinstance(x, Tensor) else tuple(own)


def _prefixed(*states: State) -> State:
    return {f"module.{name}": value for state in states for name, value in state.items()}
