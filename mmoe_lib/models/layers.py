"""The three parts every model of the paper is made of: layers, experts and towers.

All draw their initial weights from a generator that the caller passes in, with PyTorch's own rule
for linear layers: U(-1/sqrt(n), 1/sqrt(n)) for n inputs. The paper names no initialiser.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

ModelBuilder = Callable[..., nn.Module]
"""Called as build(num_inputs, num_tasks, generator=...)."""


def check_widths(**widths: int | Sequence[int]) -> None:
    """Raise ValueError unless every named width (or each of a list of widths) is 1 or more."""
    for name, width in widths.items():
        for value in [width] if isinstance(width, int) else width:
            if value < 1:
                raise ValueError(f"{name} is {width}, expected 1 or more everywhere: a layer needs units")


def check_inputs(x: Tensor, num_inputs: int, weight: Tensor) -> None:
    """Raise unless x is a (B, num_inputs) tensor of the model's own number type."""
    if x.dim() != 2 or x.shape[1] != num_inputs:
        raise ValueError(
            f"input has shape {tuple(x.shape)}, expected (batch, {num_inputs}): give one row of {num_inputs} "
            "numbers an example"
        )
    if x.dtype != weight.dtype:
        raise TypeError(f"input is {x.dtype}, expected {weight.dtype} like the weights: convert one of them")


def inputs_of_tasks(x: Tensor, num_inputs: int, num_tasks: int, weight: Tensor) -> tuple[Tensor, ...]:
    """The (B, d) input of each task's network: x (B, d) itself for all, or x (B, K, d) taken apart.

    Raises:
        ValueError: If x is neither.
        TypeError: If x is not of the weights' number type.
    """
    if x.dim() == 3 and x.shape[1] != num_tasks:
        raise ValueError(
            f"input has shape {tuple(x.shape)}, expected (batch, {num_inputs}) or (batch, {num_tasks}, {num_inputs}): "
            "give one row for all tasks, or one for each"
        )
    own = x.unbind(dim=1) if x.dim() == 3 else (x,) * num_tasks
    check_inputs(own[0], num_inputs, weight)
    return own


def linear(
    num_inputs: int, num_outputs: int, generator: torch.Generator | None, *, bias: bool = True
) -> nn.Linear:
    """An nn.Linear with PyTorch's own initialisation, drawn from `generator`."""
    layer = nn.utils.skip_init(nn.Linear, num_inputs, num_outputs, bias=bias)
    bound = 1 / math.sqrt(num_inputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


class FullyConnected(nn.Module):
    """Linear layers, each followed by ReLU: the bottom f of Shared-Bottom.

    Args:
        num_inputs: Width of the input.
        widths: Units of each layer; none gives the identity.
        generator: Draws the initial weights.
    """

    def __init__(
        self, num_inputs: int, widths: Sequence[int], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        check_widths(num_inputs=num_inputs, widths=widths)
        sizes = [num_inputs, *widths]
        self.num_outputs = sizes[-1]
        self.layers = nn.ModuleList(
            linear(inputs, outputs, generator) for inputs, outputs in itertools.pairwise(sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., num_inputs) to (..., num_outputs)."""
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


class Tower(nn.Module):
    """A task's own network h_k: hidden layers with ReLU, then one linear output.

    Args:
        num_inputs: Width of what the tower reads.
        widths: Units of its hidden layers; none gives a linear tower.
        generator: Draws the initial weights.
    """

    def __init__(
        self, num_inputs: int, widths: Sequence[int], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.hidden = FullyConnected(num_inputs, widths, generator)
        self.output = linear(self.hidden.num_outputs, 1, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_inputs) to (B,): a real value, or the logit of a binary label."""
        return self.output(self.hidden(x)).squeeze(-1)  # (B, 1) -> (B,), also for a batch of one row


class Experts(nn.Module):
    """The n experts f_1 .. f_n, computed together.

    Every expert reads the same input, so their first layers are one matrix, d x (n h). From the
    second layer on each expert reads only its own units: n matrices, side by side in one tensor.
    `tests/models` shows that this equals n separate `FullyConnected` networks.

    Args:
        num_inputs: Width d of the input.
        num_experts: n.
        widths: Units of each layer of an expert.
        generator: Draws the initial weights; every expert gets numbers of its own.
    """

    def __init__(
        self,
        num_inputs: int,
        num_experts: int,
        widths: Sequence[int],
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_widths(num_inputs=num_inputs, num_experts=num_experts, expert_widths=widths)
        if not widths:
            raise ValueError("expert_widths is empty, expected at least one layer: an expert needs units")
        self.num_experts, self.num_outputs = num_experts, widths[-1]
        self.first = linear(num_inputs, num_experts * widths[0], generator)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(widths):
            bound = 1 / math.sqrt(inputs)
            weight, bias = torch.empty(num_experts, inputs, outputs), torch.empty(num_experts, 1, outputs)
            self.weights.append(nn.init.uniform_(weight, -bound, bound, generator=generator))
            self.biases.append(nn.init.uniform_(bias, -bound, bound, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, d) to (B, n, h), expert i's output in [:, i]."""
        hidden = torch.relu(self.first(x))  # (B, n h1)
        hidden = torch.unflatten(hidden, -1, (self.num_experts, -1))  # (B, n, h1)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = torch.relu(hidden.transpose(0, 1) @ weight + bias).transpose(0, 1)  # (B, n, h_l)
        return hidden


class Towers(nn.Module):
    """One tower a task.

    Args:
        num_tasks: K.
        num_inputs: Width of what each tower reads.
        widths: Hidden units of each tower.
        generator: Draws the initial weights.
    """

    def __init__(
        self, num_tasks: int, num_inputs: int, widths: Sequence[int], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        check_widths(num_tasks=num_tasks, tower_widths=widths)
        self.towers = nn.ModuleList(Tower(num_inputs, widths, generator) for _ in range(num_tasks))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map K inputs of shape (B, h), one a task, to (B, K)."""
        return torch.stack([tower(x) for tower, x in zip(self.towers, inputs, strict=True)], dim=-1)
