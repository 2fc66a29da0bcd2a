"""The door of an ensemble: which modules many runs can be stacked of, and copies of one to call.

What a module is beyond its parameters is honoured or refused by name, in one line: frozen and tied weights, buffers,
training and evaluation mode, and dropout work; layers that write to themselves in every call do not.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmoe_lib.models.embeddings import Embeddings
from mmoe_lib.seeds import seed_word, seeded_generator

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
"""Of weights. In float16 Adam's 1e-8 is 0 and losses overflow at 65,504."""

_WORD = (1 << 32) - 1


def built(build: Callable[..., nn.Module], seeds: Sequence[int]) -> list[nn.Module]:
    """One module a seed, each checked.

    A module whose layers draw from torch's global generator is seeded too, and that generator left as it was.

    Raises:
        ValueError: If there are no seeds, a seed is no whole number of 0 or more, the builder does not take a
            generator or gives no module that an ensemble can serve, or the modules are not alike.
    """
    try:
        numbers = [operator.index(seed) for seed in seeds]
    except TypeError as error:
        raise ValueError(f"seeds are {seeds!r}, expected whole numbers, one a run: range(5)") from error
    if not numbers:
        raise ValueError("there are no seeds, expected one a run: give at least one")
    modules = [_one_built(build, seed) for seed in numbers]
    if len({id(module) for module in modules}) < len(modules):
        raise ValueError(
            f"the builder gives one {_name(modules[0])} for several runs, expected a new one at each call"
        )
    _check_module(modules[0])
    for module in modules[1:]:
        _check_alike(modules[0], module)
    return modules


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, also buffers that are not saved; one that has several names by its first."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def with_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a module with other parameters and buffers, by name; what was tied stays tied, what was frozen frozen."""
    instead: dict[int, Any] = {}
    for name, old in tensors_of(module).items():
        new = tensors[name].detach()
        instead[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
    return copy.deepcopy(module, instead)


def for_prediction(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode."""
    return _watched(copy.deepcopy(module).eval())


def for_training(module: nn.Module) -> nn.Module:
    """A copy in the mode it was built in, whose dropout draws what its buffer `key` says: see `dropout_keys`."""
    module = _watched(copy.deepcopy(module))
    parts = dict(module.named_modules(remove_duplicate=False))
    for name, part in parts.items():
        if isinstance(part, nn.Dropout) and name:
            parent, _, child = name.rpartition(".")
            setattr(parts[parent], child, _SeededDropout(part.p, part.training))
    return module


def dropout_names(module: nn.Module) -> list[str]:
    """The keys of a module from `for_training`, by name."""
    parts = module.named_modules()
    return [f"{name}.key" for name, part in parts if isinstance(part, _SeededDropout)]


def first_keys(seeds: Sequence[int]) -> Tensor:
    """Where each run's own stream of dropout begins, (R,) int64."""
    return torch.tensor([seed_word(seed, "dropout") & _WORD for seed in seeds])


def next_keys_(keys: Tensor) -> None:
    """Move the streams (R,) on by a step, in place."""
    keys.add_(0x9E3779B1).bitwise_and_(_WORD)


def dropout_keys(names: Sequence[str], key: Tensor) -> dict[str, Tensor]:
    """A key for each dropout layer of one run at one step, from the run's own."""
    return {name: _mixed(_mixed(key) ^ number) for number, name in enumerate(names, start=1)}


def _watched(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag | Embeddings):
            part.register_forward_pre_hook(_check_ids)
    return module


def _check_ids(part: nn.Module, given: tuple[Tensor, ...]) -> None:
    """Raise ValueError for an id without a row: in a stack, one beyond a run's table is a row of the next run's."""
    if torch.compiler.is_dynamo_compiling():
        return
    ids, rows = given[0], next(part.parameters()).shape[-2]
    while torch._C._functorch.is_functorch_wrapped_tensor(ids):
        ids = torch._C._functorch.get_unwrapped(ids)
    # A graph that is captured may not wait for a number.
    if ids.numel() and not (ids.is_cuda and torch.cuda.is_current_stream_capturing()):
        low, high = (int(bound) for bound in torch.aminmax(ids))
        if low < 0 or high >= rows:
            raise ValueError(
                f"ids of {type(part).__name__} go from {low} to {high}, expected 0 to {rows - 1}, the rows of its table"
            )


class _SeededDropout(nn.Module):
    """Dropout whose draws are a function of its key: a run drops the same whatever it is stacked or compiled with."""

    key: Tensor

    def __init__(self, p: float, training: bool) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("key", torch.zeros((), dtype=torch.int64))
        self.train(training)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.p):
            return x
        if self.p == 1:
            return x * 0
        places = torch.arange(x.numel(), device=x.device)
        kept = (_mixed(_mixed(places) ^ self.key) >= round(self.p * (_WORD + 1))).view(x.shape)
        self.key = _mixed(self.key + 1)  # a layer that is called twice draws twice
        return x * kept / (1 - self.p)


def _mixed(word: Tensor) -> Tensor:
    """A one-to-one hash of 32 bits held in int64, Thomas Mueller's: no product leaves 63 bits."""
    for _ in range(2):
        word = ((word >> 16) ^ word) * 0x45D9F3B & _WORD
    return (word >> 16) ^ word


@contextmanager
def refused_in_a_line(module: nn.Module) -> Iterator[None]:
    """Turns what vmap says of a forward pass that it cannot lift into one line.

    Raises:
        ValueError: Instead of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        told = str(error)
        # torch has no class of error for it
        if not any(word in told for word in ("vmap", "atching rule", "torch.func", "functorch", "storage")):
            raise
        raise ValueError(
            f"{_name(module)} cannot be run for all runs at once, expected a forward pass without branches on "
            f"numbers, .item(), layers that have no batching rule, or random draws other than nn.Dropout's "
            f"({told.strip().splitlines()[0]})"
        ) from error


def _one_built(build: Callable[..., nn.Module], seed: int) -> nn.Module:
    generator = seeded_generator(seed, "initialisation")
    try:
        signature = inspect.signature(build)
        by_name = any(p.name == "generator" or p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        if by_name or len(signature.parameters) != 1:
            signature.bind(generator=generator)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the builder {getattr(build, '__name__', repr(build))} cannot be called ({_first_line(error)}), expected "
            "build(generator=...), a function that gives a module: functools.partial fixes its other arguments"
        ) from error
    before = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed_word(seed, "layers of torch") >> 1)
    try:
        module = build(generator=generator) if by_name else build(generator)
    finally:
        torch.random.set_rng_state(before)
    if not isinstance(module, nn.Module):
        raise ValueError(f"the builder gives {type(module).__name__}, expected an nn.Module for one run")
    return module


def _check_module(module: nn.Module) -> None:
    name = _name(module)
    for part_name, part in module.named_modules():
        where, reason = f"{name}.{part_name}" if part_name else name, _refused(part, part_name)
        if reason:
            raise ValueError(f"{where} is {type(part).__name__}, {reason}")
        for attribute, value in vars(part).items():
            values = value.values() if isinstance(value, dict) else value
            loose = value if isinstance(value, Tensor) else None
            if isinstance(value, dict | list | tuple) and not attribute.startswith("_"):
                loose = next((one for one in values if isinstance(one, Tensor)), None)
            if isinstance(loose, Tensor):
                raise ValueError(
                    f"{where}.{attribute} holds a tensor that is neither parameter nor buffer, expected one of "
                    "them: register_buffer keeps each run's own"
                )
    for part_name, value in tensors_of(module).items():
        if nn.parameter.is_lazy(value):
            raise ValueError(f"{name}.{part_name} has no shape yet, expected layers of given sizes")
        if value.is_complex():
            raise ValueError(f"{name}.{part_name} is {value.dtype}, expected real numbers")
    try:
        with_tensors(module, tensors_of(module))
    except Exception as error:  # whatever an attribute says that cannot be copied
        raise ValueError(
            f"{name} cannot be copied, expected a module that copy.deepcopy takes ({_first_line(error)})"
        ) from error


def _refused(part: nn.Module, name: str) -> str | None:
    """Why a layer is not taken."""
    if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
        return "which changes its statistics in every call: expected nn.LayerNorm, or another that keeps none"
    if isinstance(part, nn.RNNBase):
        return "which vmap cannot lift: expected layers that are no recurrent ones, or nn.GRUCell in a loop"
    odd_dropout = isinstance(part, nn.modules.dropout._DropoutNd) and (
        type(part) is not nn.Dropout or not name
    )
    if odd_dropout or isinstance(part, nn.RReLU):
        return "which draws from torch's global generator: expected nn.Dropout within the model"
    if isinstance(part, nn.MultiheadAttention) and part.dropout:
        return "which draws from torch's global generator: expected dropout=0, and nn.Dropout behind it"
    return None


def _check_alike(first: nn.Module, other: nn.Module) -> None:
    """Raise ValueError where two runs differ in more than the numbers of their tensors."""
    one, two = dict(first.named_modules()), dict(other.named_modules())
    shapes = [
        {name: (value.shape, value.dtype, value.requires_grad) for name, value in tensors_of(module).items()}
        for module in (first, other)
    ]
    # By name, for a parametrised layer is of a class of its own.
    kinds = [{name: type(part).__qualname__ for name, part in parts.items()} for parts in (one, two)]
    compared: dict[str, list[Any]] = {"layers": kinds, "parameters and buffers": shapes}
    for what, (mine, others) in compared.items():
        differing = [
            name or _name(first) for name in {**mine, **others} if mine.get(name) != others.get(name)
        ]
        if differing:
            raise ValueError(
                f"runs differ in their {what} ({', '.join(differing[:3])}), expected modules that differ in their "
                "numbers only: build the same for every seed"
            )
    for name, part in one.items():
        for attribute, value in vars(part).items():
            if isinstance(value, bool | int | float | str) and vars(two[name]).get(attribute) != value:
                raise ValueError(
                    f"runs differ in {f'{name}.' if name else ''}{attribute}, expected that of all runs alike: "
                    "register_buffer keeps each run's own"
                )


def _name(module: nn.Module) -> str:
    return type(module).__name__


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
