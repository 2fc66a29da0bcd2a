"""Many steps, one after another: as plain calls, compiled, or replayed from a CUDA graph."""

from __future__ import annotations

import gc
import shutil
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmoe_lib.training.batches import Drawn
from mmoe_lib.training.step import BalancedStep, Step

Batches = Iterator[tuple[Tensor, Tensor]]

Advance = Callable[[int, int], tuple[Tensor, Tensor]]
"""The number of the first step and how many are taken, to their losses (steps, R, K) and their batches' sums (steps,)."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function does on the device without doing it, and gives a function that does it."""

_WARM_UP = 3  # steps before a graph is captured: compilation and lazy allocations must be over
_STEPS_A_GRAPH = 20  # then Python takes a hundredth of the time, and a note every 30 steps still finds whole graphs

_CPU_OPTIONS: dict[str, Any] = {"cpp_wrapper": True}
"""The calls of the kernels are compiled too: Python between them takes as long as small models."""
_GPU_OPTIONS: dict[str, Any] = {"max_autotune": True, "coordinate_descent_tuning": True}
"""Small matrix products of hundreds of runs are far from what the libraries' own choice is made for: 1.3 times the speed."""

Function = TypeVar("Compiled", bound=Callable[..., Any])


def advance_of(step: Step, batches: Batches, *, compile: bool) -> Advance:
    """What takes the steps fastest here: on a GPU a captured graph, with `compile` compiled code.

    Whatever cannot be done here ends in one warning and plain steps.

    Args:
        step: A balanced step is always taken plainly.
        batches: Where they come from; those that are `Drawn` are drawn inside the graph.
        compile: It takes some seconds on a CPU and half a minute on a GPU.
    """
    if isinstance(step, BalancedStep):
        return _Plain(step, batches)
    if step.ensemble.device.type == "cuda":
        return Graphed(step, batches, compile=compile, capture=_cuda_graph)
    return _Compiled(step, batches) if compile and _has_compiler() else _Plain(step, batches)


def _has_compiler() -> bool:
    if any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        return True
    warnings.warn(
        "compile is True but there is no C++ compiler, expected g++ or clang++: training without",
        stacklevel=5,
    )
    return False


def _compiled(function: Function, options: dict[str, Any]) -> Function:
    """A bound method compiled for itself alone.

    torch counts what it compiles by a function's code, and after eight of one code goes on plainly without a word.
    Each step is therefore given a copy of the code as its own.
    """
    method: Any = function
    plain = method.__func__
    own = types.FunctionType(
        plain.__code__.replace(), plain.__globals__, plain.__name__, plain.__defaults__, plain.__closure__
    )
    return torch.compile(types.MethodType(own, method.__self__), dynamic=False, options=options)  # type: ignore[return-value, call-overload]


class _Plain:
    """Step by step, as Python has it."""

    def __init__(self, step: Step, batches: Batches) -> None:
        self.step, self.batches = step, batches

    def __call__(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        taken = [self.take(*next(self.batches), number) for number in range(first, first + count)]
        return torch.stack([losses for losses, _ in taken]), torch.stack([total for _, total in taken])

    def take(self, x: Tensor, y: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """One step."""
        return self.step(x, y, number)


class _Compiled(_Plain):
    """The compiled step, unless its first call shows that this machine cannot compile it (no Python.h, say)."""

    def __init__(self, step: Step, batches: Batches) -> None:
        super().__init__(step, batches)
        self.update = _compiled(step.checked_update, _CPU_OPTIONS)
        self.has_run = False

    def take(self, x: Tensor, y: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """One step."""
        given = (x, y, *self.step.scales(number))
        if self.has_run:
            return self.update(*given)
        from torch._dynamo.exc import TorchDynamoException  # takes a second to load, so only here

        self.has_run = True
        try:
            return self.update(*given)
        except TorchDynamoException as error:  # nothing has run yet, so the step can be taken plainly
            warnings.warn(
                "compile is True but compiling failed, expected a C++ compiler that works: training without "
                f"({_first_line(error)})",
                stacklevel=5,
            )
            self.update = self.step.checked_update
        return self.update(*given)


class Graphed:
    """Replays the kernels of many steps from a graph: one launch instead of thousands.

    A graph reads and writes the memory that it was captured with. It counts its steps and its batches there, and it
    either draws its batches itself or finds them in buffers of its own, which every batch is copied into from the
    first step on: what is captured has run before with just these buffers, so that nothing is compiled within.

    Args:
        step: The step.
        batches: Where they come from.
        compile: Whether the step is compiled before it is captured.
        capture: Makes the graph; a test puts another in its place.
    """

    def __init__(self, step: Step, batches: Batches, *, compile: bool, capture: Capture) -> None:
        self.step, self.batches, self.capture, self.compile = step, batches, capture, compile
        self.drawn = batches if isinstance(batches, Drawn) else None
        device = step.ensemble.device
        self.time = torch.zeros((), dtype=torch.float64, device=device)
        self.number = torch.zeros((), dtype=torch.int64, device=device)
        self.buffers: tuple[Tensor, Tensor] | None = None
        self.take = _compiled(self.one_step, _GPU_OPTIONS) if compile else self.one_step
        self.plain = _Plain(step, batches)
        self.warmed_up, self.works = 0, True
        self.found: tuple[Tensor, ...] = ()  # what one step gives: the shapes of a graph's results
        self.graphs: dict[int, tuple[Callable[[], None], Tensor, Tensor]] = {}

    def __call__(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Take the steps first, first + 1, ..."""
        if self.drawn is not None:
            self.number.fill_(self.drawn.position)
        self.time.fill_(first)
        parts, done = [], 0
        while done < count:
            found = self._some(first + done, count - done)
            parts.append(found)
            done += len(found[0])
        losses, sums = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(sums)

    def one_step(self) -> tuple[Tensor, Tensor]:
        """One step on what the buffers hold or the counters say: this is compiled and captured."""
        rates, correction = self.step.scales(self.time)
        self.time.add_(1)
        if self.drawn is None:
            assert self.buffers is not None
            return self.step.checked_update(*self.buffers, rates, correction)
        x, y = self.drawn.draw(self.number)
        self.number.add_(1)
        losses = self.step.update(x, y, rates, correction)
        return losses, torch.zeros_like(self.time)  # what is drawn here is finite

    def _some(self, first: int, most: int) -> tuple[Tensor, Tensor]:
        """One step or more, as many as go at once."""
        if not self.works:
            return self.plain(first, most)
        if self.drawn is None:
            x, y = next(self.batches)
            if not self._filled(x, y):  # a batch of another shape than the first
                self.time.add_(1)
                return _one(self.plain.take(x, y, first))
            most = 1
        if self.warmed_up < _WARM_UP:
            return self._warm_up(first)
        steps = _STEPS_A_GRAPH if most >= _STEPS_A_GRAPH else 1
        if steps not in self.graphs and not self._captured(steps):
            if self.drawn is not None:
                return self.plain(first, most)
            assert self.buffers is not None
            return _one(self.plain.take(*self.buffers, first))
        replay, losses, sums = self.graphs[steps]
        replay()
        if self.drawn is not None:
            self.drawn.position += steps
        return losses.clone(), sums.clone()

    def _filled(self, x: Tensor, y: Tensor) -> bool:
        if self.buffers is None:
            device = self.step.ensemble.device
            self.buffers = (
                torch.empty(x.shape, dtype=x.dtype, device=device),
                torch.empty(y.shape, dtype=y.dtype, device=device),
            )
        for buffer, value in zip(self.buffers, (x, y), strict=True):
            if buffer.shape != value.shape or buffer.dtype != value.dtype:
                return False
        for buffer, value in zip(self.buffers, (x, y), strict=True):
            buffer.copy_(value)
        return True

    def _warm_up(self, first: int) -> tuple[Tensor, Tensor]:
        from torch._dynamo.exc import TorchDynamoException  # takes a second to load, so only here

        try:
            found = self.take()
        except TorchDynamoException as error:
            # The first call compiles before anything has run, so the step can still be taken, and captured, plainly.
            if self.warmed_up or not self.compile:
                raise
            self._warn("compiling", error)
            self.take, self.compile = self.one_step, False
            found = self.take()
        self.warmed_up += 1
        if self.drawn is not None:
            self.drawn.position += 1
        self.found = _one(found)
        return self.found

    def _captured(self, steps: int) -> bool:
        """Whether there is now a graph of so many steps."""
        losses, sums = (like.new_empty(steps, *like.shape[1:]) for like in self.found)

        def work() -> None:
            taken = [self.take() for _ in range(steps)]
            torch.stack([some for some, _ in taken], out=losses)
            torch.stack([total for _, total in taken], out=sums)

        try:
            replay = self.capture(work)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._warn("capturing", error)
            self.works = False
            return False
        self.graphs[steps] = (replay, losses, sums)
        return True

    def _warn(self, what: str, error: Exception) -> None:
        warnings.warn(
            f"{what} the training step failed, expected it to work on this GPU: training without ({_first_line(error)})",
            stacklevel=6,
        )


def _cuda_graph(function: Callable[[], None]) -> Callable[[], None]:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    torch.cuda.synchronize()
    # Whatever is collected while a capture is under way, an earlier graph above all, makes it fail.
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        with torch.cuda.graph(graph):
            function()
    except RuntimeError:
        torch.cuda.set_stream(stream)  # a capture that fails leaves its own stream behind
        raise
    finally:
        if collects:
            gc.enable()
    return graph.replay


def _one(found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    losses, total = found
    return losses.unsqueeze(0).clone(), total.reshape(1).clone()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
