"""The door of an ensemble: what may come in is looked at once, and what may not is told in a line."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mmoe_lib.seeds import seed_word, seeded_generator

State = dict[str, Tensor]

OWN_PASS = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.RNNBase,
    nn.RReLU,
    nn.MultiheadAttention,
)
"""Layers that draw random numbers, write what they keep, or that vmap does not know."""


def checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Seeds of any kind of sequence as Python's integers; raises TypeError or ValueError where they are none."""
    try:
        checked = tuple(map(operator.index, seeds))
    except TypeError as error:
        raise TypeError(f"seeds is {seeds!r}, expected a list of whole numbers such as [0, 1]") from error
    if not checked:
        raise ValueError("there are no seeds, expected one a run: give at least one")
    return checked


def built(build: Callable[..., nn.Module], seed: int) -> nn.Module:
    """The module of one run; layers that draw from torch's global generator find that seeded as well.

    Raises:
        TypeError: If `build` cannot be called with a generator, or what it returns is no module.
    """
    expected = "expected a function that makes a module, called as build(generator=...)"
    if isinstance(build, nn.Module) or not callable(build):
        raise TypeError(f"build is a {type(build).__name__}, {expected}")
    signature, generator = inspect.signature(build), seeded_generator(seed, "initialisation")
    ways: list[tuple[tuple[torch.Generator, ...], dict[str, torch.Generator]]]
    ways = [((), {"generator": generator}), ((generator,), {})]  # or as the one argument of another name
    for positional, named in ways:
        with suppress(TypeError):
            signature.bind(*positional, **named)
            break
    else:
        raise TypeError(f"build takes {signature}, {expected}")
    with random_stream(seed, "layers of torch"):
        module = build(*positional, **named)
    if not isinstance(module, nn.Module):
        raise TypeError(f"build returned a {type(module).__name__}, {expected}")
    return module


def stacked(modules: Sequence[nn.Module]) -> tuple[State, State]:
    """The tensors of alike modules by name, (R, ...): those that are trained, and frozen weights and buffers.

    Raises:
        ValueError: If two runs share one module, are of different sizes, or a layer has no size yet.
    """
    if len({id(module) for module in modules}) < len(modules):
        raise ValueError("build returned one module for two seeds, expected a new one at each call")
    states = [tensors_of(module) for module in modules]
    if any(map(is_lazy, states[0].values())):
        raise ValueError("build made a layer without a size, expected one: give lazy layers their widths")
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(other != shapes[0] for other in shapes):
        raise ValueError("build made models of different sizes, expected one size for all seeds")
    trained: State = {}
    kept: State = {}
    for name, value in states[0].items():
        stack = torch.stack([state[name].detach() for state in states])
        (trained if value.requires_grad else kept)[name] = stack
    return trained, kept


def tensors_of(module: nn.Module) -> State:
    """Parameters and buffers by name; what stands under two names stands here under its first."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def with_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a module around other tensors; what is tied stays tied.

    Raises:
        ValueError: If it holds what cannot be copied.
    """
    replaced: dict[int, object] = {}
    for name, own in tensors_of(module).items():
        is_weight = isinstance(own, nn.Parameter)
        replaced[id(own)] = nn.Parameter(tensors[name], own.requires_grad) if is_weight else tensors[name]
    try:
        return copy.deepcopy(module, replaced)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{type(module).__name__} cannot be copied, expected what copy.deepcopy takes: keep generators, locks and "
            f"hooks out of it ({str(error).splitlines()[0]})"
        ) from error


@contextmanager
def random_stream(seed: int, purpose: str, device: torch.device | None = None) -> Iterator[None]:
    """The generators of torch, seeded for one purpose of one run, and afterwards as they were."""
    with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(seed_word(seed, purpose) >> 1)
        yield
