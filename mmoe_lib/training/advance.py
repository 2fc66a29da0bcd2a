"""Many steps, one after another: as plain calls, compiled, or replayed from a CUDA graph."""

from __future__ import annotations

import gc
import shutil
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmoe_lib.models.embeddings import Inputs
from mmoe_lib.training.batches import Drawn, parts_of, rebuilt
from mmoe_lib.training.step import BalancedStep, Step

Batches = Iterator[tuple[Any, Tensor]]

Advance = Callable[[int, int], tuple[Tensor, Tensor]]
"""The number of the first step and how many are taken, to their losses (steps, R, K) and their batches' sums (steps,)."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function does on the device without doing it, and gives a function that does it."""

_WARM_UP = 3  # steps before a graph is captured: compilation and lazy allocations must be over
# Then Python takes a hundredth of the time, and a note every 30 steps still finds whole graphs.
_STEPS_A_GRAPH = 20

LANES = 2
"""Groups of runs that go side by side: 1.7 million steps a second of 1,000 runs x 64 on an H100, 1.4 with one or four,
in a call in which other processes still compiled."""

_CPU_OPTIONS: dict[str, Any] = {"cpp_wrapper": True}
"""The calls of the kernels are compiled too: Python between them takes as long as small models."""
_GPU_OPTIONS: dict[str, Any] = {"coordinate_descent_tuning": True}
"""A product with a single column is no matrix product, and each kernel's blocks are tried."""
_TUNED_OPTIONS: dict[str, Any] = {"coordinate_descent_tuning": True, "max_autotune": True}
"""Small matrix products of hundreds of runs are far from what the libraries' own choice is made for."""

Function = TypeVar("Function", bound=Callable[..., Any])


def advance_of(step: Step, batches: Batches, *, compile: bool, tune: bool = False) -> Advance:
    """What takes the steps fastest here: on a GPU a captured graph, with `compile` compiled code.

    Whatever cannot be done here ends in one warning and plain steps.

    Args:
        step: A balanced step is always taken plainly.
        batches: Where they come from; those that are `Drawn` are drawn inside the graph.
        compile: It takes some seconds on a CPU and half a minute on a GPU.
        tune: On a GPU also measure which kernels are the fastest, a minute more.
    """
    if isinstance(step, BalancedStep):
        return _Plain(step, batches)
    if step.ensemble.device.type == "cuda":
        options = (_TUNED_OPTIONS if tune else _GPU_OPTIONS) if compile else None
        return Graphed(step, batches, options=options, capture=_cuda_graph)
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
    """A function compiled for itself alone.

    torch counts what it compiles by a function's code, and after eight of one code goes on plainly without a word.
    Each caller is therefore given a copy of the code as its own.
    """
    given: Any = function
    own = types.FunctionType(
        given.__code__.replace(), given.__globals__, given.__name__, given.__defaults__, given.__closure__
    )
    return torch.compile(own, dynamic=False, options=options)  # type: ignore[return-value]


class _Plain:
    """Step by step, as Python has it."""

    def __init__(self, step: Step, batches: Batches) -> None:
        self.step, self.batches = step, batches

    def __call__(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        taken = [self.take(*next(self.batches), number) for number in range(first, first + count)]
        return torch.stack([losses for losses, _ in taken]), torch.stack([total for _, total in taken])

    def take(self, x: Inputs, y: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """One step."""
        return self.step(x, y, number)


class _Compiled(_Plain):
    """The compiled step, unless its first call shows that this machine cannot compile it (no Python.h, say)."""

    def __init__(self, step: Step, batches: Batches) -> None:
        super().__init__(step, batches)
        self.update: Callable[..., tuple[Tensor, Tensor]] = partial(
            _compiled(type(step).checked_update, _CPU_OPTIONS), step
        )
        self.has_run = False

    def take(self, x: Inputs, y: Tensor, number: int) -> tuple[Tensor, Tensor]:
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


class _Lane:
    """Some of the runs, with buffers or counters of their own: a chain of steps that waits for no other."""

    def __init__(self, step: Step, drawn: Drawn | None) -> None:
        self.step, self.drawn = step, drawn
        device = step.ensemble.device
        self.time = torch.zeros((), dtype=torch.float64, device=device)
        self.number = torch.zeros((), dtype=torch.int64, device=device)
        self.buffers: tuple[Inputs, Tensor] | None = None

    def one_step(self) -> tuple[Tensor, Tensor]:
        """One step on what the buffers hold or the counters say: this is compiled and captured."""
        scales = self.step.scales(self.time)
        self.time.add_(1)
        if self.drawn is None:
            assert self.buffers is not None
            return self.step.checked_update(*self.buffers, *scales)
        x, y = self.drawn.draw(self.number)
        self.number.add_(1)
        losses = self.step.update(x, y, *scales)
        return losses, torch.zeros_like(self.time)  # what is drawn here is finite

    def filled(self, x: Inputs, y: Tensor) -> bool:
        """Whether the batch now lies in the buffers; the first one makes them."""
        given = (*parts_of(x), y)
        if self.buffers is None:
            device = self.step.ensemble.device
            made = [torch.empty(value.shape, dtype=value.dtype, device=device) for value in given]
            self.buffers = (rebuilt(x, made[:-1]), made[-1])
        pairs = list(zip((*parts_of(self.buffers[0]), self.buffers[1]), given, strict=True))
        if any(buffer.shape != value.shape or buffer.dtype != value.dtype for buffer, value in pairs):
            return False
        for buffer, value in pairs:
            buffer.copy_(value)
        return True


class Graphed:
    """Replays the kernels of many steps from a graph: one launch instead of thousands.

    A graph reads and writes the memory that it was captured with. It counts its steps and its batches there, and it
    either draws its batches itself or finds them in buffers of its own, which every batch is copied into from the
    first step on: what is captured has run before with just these buffers, so that nothing is compiled within.

    The kernels of one step follow each other and leave most of the card idle. Runs do not wait for each other, so
    where they draw their batches they go in lanes, side by side.

    Args:
        step: The step.
        batches: Where they come from.
        options: With which the step is compiled before it is captured; None captures it as it is.
        capture: Makes the graph; a test puts another in its place.
        lanes: At most, where batches are drawn; as many as share the runs evenly.
    """

    def __init__(
        self,
        step: Step,
        batches: Batches,
        *,
        options: dict[str, Any] | None,
        capture: Capture,
        lanes: int = LANES,
    ) -> None:
        self.step, self.batches, self.capture = step, batches, capture
        self.drawn = batches if isinstance(batches, Drawn) else None
        self.plain = _Plain(step, batches)
        runs = len(step.ensemble)
        size = _runs_a_lane(runs, 1 if self.drawn is None else lanes)
        self.lanes = [
            _Lane(step.part(start, start + size), self.drawn and self.drawn.part(start, start + size))
            for start in range(0, runs, size)
        ]
        # Lanes are alike, so that what is compiled for the first serves them all.
        self.take = _Lane.one_step if options is None else _compiled(_Lane.one_step, options)
        self.compiles = options is not None
        self.warmed_up, self.works = 0, True
        # What one step of a lane gives: the shapes of a graph's results.
        self.found: tuple[Tensor, Tensor] | None = None
        self.graphs: dict[int, tuple[Callable[[], None], list[tuple[Tensor, Tensor]]]] = {}

    def __call__(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Take the steps first, first + 1, ..."""
        self._count_from(first)
        parts, done = [], 0
        while done < count:
            found = self._some(first + done, count - done)
            parts.append(found)
            done += len(found[0])
        losses, sums = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(sums)

    def _count_from(self, first: int) -> None:
        for lane in self.lanes:
            lane.time.fill_(first)
            if self.drawn is not None:
                lane.number.fill_(self.drawn.position)

    def _some(self, first: int, most: int) -> tuple[Tensor, Tensor]:
        """One step or more, as many as go at once."""
        if not self.works:
            return self.plain(first, most)
        if self.drawn is None:
            (lane,), most = self.lanes, 1
            x, y = next(self.batches)
            if not lane.filled(x, y):  # a batch of another shape than the first
                lane.time.add_(1)
                return _of_one_step([self.plain.take(x, y, first)])
        if self.warmed_up < _WARM_UP:
            return self._warm_up(first)
        steps = _STEPS_A_GRAPH if most >= _STEPS_A_GRAPH else 1
        if steps not in self.graphs and not self._captured(steps):
            if self.drawn is None:
                return _of_one_step([self.plain.take(x, y, first)])
            return self.plain(first, most)
        replay, results = self.graphs[steps]
        replay()
        if self.drawn is not None:
            self.drawn.position += steps
        return torch.cat([losses for losses, _ in results], dim=1), results[0][1].clone()

    def _warm_up(self, first: int) -> tuple[Tensor, Tensor]:
        found = [self._taken(lane) for lane in self.lanes]
        self.warmed_up += 1
        if self.drawn is not None:
            self.drawn.position += 1
        self.found = found[0]
        return _of_one_step(found)

    def _taken(self, lane: _Lane) -> tuple[Tensor, Tensor]:
        """One step of a lane, before there is a graph."""
        from torch._dynamo.exc import TorchDynamoException  # takes a second to load, so only here

        try:
            return self.take(lane)
        except TorchDynamoException as error:
            # The first call compiles before anything has run, so the step can still be taken, and captured, plainly.
            if self.warmed_up or not self.compiles:
                raise
            self._warn("compiling", error)
            self.take, self.compiles = _Lane.one_step, False
            return self.take(lane)

    def _captured(self, steps: int) -> bool:
        """Whether there is now a graph of so many steps."""
        assert self.found is not None
        like, total = self.found
        results = [
            (like.new_empty(steps, *like.shape), total.new_empty(steps, *total.shape)) for _ in self.lanes
        ]

        def work() -> None:
            with _side_by_side(self.step.ensemble.device, len(self.lanes)) as streams:
                for lane, stream, (losses, sums) in zip(self.lanes, streams, results, strict=True):
                    with stream:
                        taken = [self.take(lane) for _ in range(steps)]
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
        self.graphs[steps] = (replay, results)
        return True

    def _warn(self, what: str, error: Exception) -> None:
        warnings.warn(
            f"{what} the training step failed, expected it to work on this GPU: training without ({_first_line(error)})",
            stacklevel=6,
        )


def _runs_a_lane(runs: int, most: int) -> int:
    """Lanes are of one size, since another size would be compiled anew."""
    lanes = max(number for number in range(1, most + 1) if runs % number == 0)
    return runs // lanes


@contextmanager
def _side_by_side(device: torch.device, number: int) -> Iterator[list[AbstractContextManager[Any]]]:
    """Streams of their own for so many lanes, from here to the end of the block."""
    if device.type == "cpu" or number == 1:
        yield [nullcontext()] * number
        return
    here, streams = torch.cuda.current_stream(), [torch.cuda.Stream() for _ in range(number)]
    for stream in streams:
        stream.wait_stream(here)
    yield [torch.cuda.stream(stream) for stream in streams]
    for stream in streams:
        here.wait_stream(stream)


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


def _of_one_step(found: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Losses (1, R, K) and the sum (1,) from those of each lane."""
    return torch.cat([losses for losses, _ in found]).unsqueeze(0), found[0][1].reshape(1).clone()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
