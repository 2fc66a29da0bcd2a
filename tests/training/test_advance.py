"""Many steps at once: what a graph replays is what plain steps do, and whatever cannot be captured goes on plainly.

A stand-in takes the place of the CUDA graph on a CPU. It fails, as a capture does in which something is compiled,
when the step meets a shape, layout or number type that it has not met before; see also the tests marked `gpu`.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from mmoe_lib.models import MMoE, SharedBottom, paper_model
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks import synthetic
from mmoe_lib.training import (
    SGD,
    Adam,
    Ensemble,
    TrainingSettings,
    binary_cross_entropy,
    epochs,
    squared_error,
    train,
)
from mmoe_lib.training import advance as module
from mmoe_lib.training.advance import Graphed, advance_of
from mmoe_lib.training.balancing import UncertaintyWeighting
from mmoe_lib.training.optimisers import Optimiser
from mmoe_lib.training.step import BalancedStep, Step

RUNS = 3


def _ensemble(device: str = "cpu", name: str = "MMoE", dtype: torch.dtype = torch.float64) -> Ensemble:
    build = paper_model(name)
    return Ensemble(partial(build, 100, 2), range(RUNS), device=device, dtype=dtype)


def _step(ensemble: Ensemble, optimiser: Optimiser | None = None) -> Step:
    rates = torch.full((RUNS,), 1e-3, dtype=ensemble.dtype, device=ensemble.device)
    return Step(ensemble, squared_error, rates, optimiser or Adam())


def _drawn(device: str = "cpu", dtype: torch.dtype = torch.float64) -> synthetic.DrawnStream:
    weights = torch.stack(
        [synthetic.task_weights(0.5, seeded_generator(seed, "directions")) for seed in range(RUNS)]
    )
    return synthetic.DrawnStream(weights.to(device=device, dtype=dtype), range(RUNS), 8)


class StandIn:
    """A graph that is a function, run again at each replay; watches what the step is called with."""

    def __init__(self, step: Step, *, fails: bool = False) -> None:
        self.step, self.fails, self.captured, self.capturing = step, fails, 0, False
        self.seen: set[object] = set()

    def watch(self, graphed: Graphed) -> Graphed:
        """Look at what the lanes' steps are called with."""
        self.graphed = graphed
        for lane in graphed.lanes:
            lane.step.update = partial(self._watched, lane.step.update)  # type: ignore[method-assign]
        return graphed

    def _watched(self, update: Callable[..., Tensor], *given: Tensor) -> Tensor:
        layouts = tuple((tuple(value.shape), value.stride(), value.dtype) for value in given)
        if self.capturing and layouts not in self.seen:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.seen.add(layouts)
        return update(*given)

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """As a capture, leaves everything as it was."""
        if self.fails:
            raise RuntimeError(
                "CUDA error: operation not permitted when stream is capturing\nand a page more"
            )
        state = [
            *self.step.ensemble.parameters.values(),
            *(t for kept in self.step.kept.values() for t in kept),
        ]
        before = copy.deepcopy(state)
        counted = [(lane.time.clone(), lane.number.clone()) for lane in self.graphed.lanes]
        self.capturing = True
        try:
            function()
        finally:
            self.capturing = False
            for value, old in zip(state, before, strict=True):
                value.copy_(old)
            for lane, (time, number) in zip(self.graphed.lanes, counted, strict=True):
                lane.time.copy_(time)
                lane.number.copy_(number)
        self.captured += 1
        return function


def _graphed(
    ensemble: Ensemble,
    batches: Iterator[tuple[Tensor, Tensor]],
    *,
    fails: bool = False,
    optimiser: Optimiser | None = None,
    lanes: int = 2,
) -> tuple[Graphed, StandIn]:
    step = _step(ensemble, optimiser)
    stand_in = StandIn(step, fails=fails)
    graphed = Graphed(step, batches, options=None, capture=stand_in, lanes=lanes)
    return stand_in.watch(graphed), stand_in


@pytest.mark.parametrize("optimiser", [Adam(weight_decay=0.1), SGD()])
@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("counts", [(2, 1, 1, 43, 5, 20), (100,)])
def test_graphs_of_many_steps_train_as_plain_steps_do(
    counts: tuple[int, ...], lanes: int, optimiser: Optimiser
) -> None:
    plain, graphed = _ensemble(), _ensemble()
    by_hand = _step(plain, optimiser)
    advance, stand_in = _graphed(graphed, _drawn(), optimiser=optimiser, lanes=lanes)
    assert len(advance.lanes) == lanes
    batches, first = _drawn(), 1
    for count in counts:
        losses, sums = advance(first, count)
        expected = torch.stack(
            [by_hand(*batch, step)[0] for step, batch in zip(range(first, first + count), batches)]  # noqa: B905
        )
        batches.position = first + count - 1  # zip took one more
        torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)
        assert sums.shape == (count,)
        first += count
    for name, value in graphed.parameters.items():
        torch.testing.assert_close(value, plain.parameters[name], rtol=1e-10, atol=1e-14)
    assert stand_in.captured == len(advance.graphs)
    assert 20 in advance.graphs


def _layouts() -> Iterator[tuple[Tensor, Tensor]]:
    """The same numbers as views of a block, dense, transposed: as `stream` and others give them."""
    for number, (x, y) in enumerate(synthetic.stream(0.5, range(RUNS), 8, dtype=torch.float64)):
        kind = number % 3
        if kind == 0:
            yield x, y
        elif kind == 1:
            yield x.contiguous(), y.contiguous()
        else:
            yield x.transpose(1, 2).contiguous().transpose(1, 2), y


def test_whatever_layout_a_batch_comes_in_the_capture_meets_none_that_is_new() -> None:
    plain, graphed = _ensemble(), _ensemble()
    advance, stand_in = _graphed(graphed, _layouts())
    losses, sums = advance(1, 12)
    by_hand, batches = (
        _step(plain),
        list(islice(synthetic.stream(0.5, range(RUNS), 8, dtype=torch.float64), 12)),
    )
    expected = torch.stack([by_hand(x, y, step)[0] for step, (x, y) in enumerate(batches, start=1)])
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(sums, torch.stack([x.sum() for x, _ in batches]))
    assert stand_in.captured == 1
    assert len(stand_in.seen) == 1  # its own dense buffers, from the first step on


def test_the_stand_in_notices_a_layout_that_the_warm_up_did_not_meet() -> None:
    """What killed every training on a GPU: the warm-up saw views of a block, the capture dense copies."""
    ensemble = _ensemble()
    advance, stand_in = _graphed(ensemble, _drawn())
    advance(1, 3)
    stand_in.seen = {"something else"}
    with pytest.warns(UserWarning, match="capturing the training step failed"):
        advance(4, 2)


def test_a_batch_of_another_shape_is_a_plain_step() -> None:
    x = torch.randn(40, 100, dtype=torch.float64, generator=seeded_generator(0, "test"))
    batches = [(x[:8], x[:8, :2])] * 5 + [(x[8:13], x[8:13, :2])] + [(x[20:28], x[20:28, :2])] * 3
    plain, graphed = _ensemble(), _ensemble()
    advance, stand_in = _graphed(graphed, iter(batches))
    losses, _ = advance(1, len(batches))
    by_hand = _step(plain)
    expected = torch.stack([by_hand(*batch, step)[0] for step, batch in enumerate(batches, start=1)])
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)
    assert stand_in.captured == 1


@pytest.mark.parametrize("fed", [True, False])
def test_a_capture_that_fails_ends_in_one_warning_and_plain_steps(fed: bool) -> None:
    plain, graphed = _ensemble(), _ensemble()
    batches = _layouts() if fed else _drawn()
    advance, _ = _graphed(graphed, batches, fails=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses, _ = advance(1, 10)
        more, _ = advance(11, 25)
    assert [str(warning.message) for warning in caught] == [
        "capturing the training step failed, expected it to work on this GPU: training without "
        "(CUDA error: operation not permitted when stream is capturing)"
    ]
    by_hand = _step(plain)
    again = islice(_layouts() if fed else _drawn(), 35)
    expected = torch.stack([by_hand(*batch, step)[0] for step, batch in enumerate(again, start=1)])
    torch.testing.assert_close(torch.cat([losses, more]), expected, rtol=1e-12, atol=0)


def _failed() -> Exception:
    """What torch raises where a backend cannot compile; a newer one is told the frame too."""
    from torch._dynamo.exc import BackendCompilerFailed

    kind: Any = BackendCompilerFailed
    error: Exception = kind(
        lambda: None, RuntimeError("no ptxas"), *[[]] * (len(signature(kind).parameters) - 2)
    )
    return error


def test_a_compilation_that_fails_ends_in_one_warning_and_steps_that_are_captured_plainly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> Callable[[object], object]:
        def fails(_: object) -> object:
            raise _failed()

        return fails

    monkeypatch.setattr(module, "_compiled", broken)
    step = _step(_ensemble())
    stand_in = StandIn(step)
    advance = Graphed(step, _drawn(), options={}, capture=stand_in)
    stand_in.graphed = advance
    with pytest.warns(UserWarning, match="compiling the training step failed, expected it to work") as caught:
        losses, _ = advance(1, 30)
    assert len(caught) == 1
    assert losses.shape == (30, RUNS, 2)
    assert stand_in.captured == 2


def test_where_only_a_later_lane_fails_to_compile_no_lane_takes_a_step_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def second_fails(function: Callable[[object], object], _: object) -> Callable[[object], object]:
        calls: list[object] = []

        def compiled(lane: object) -> object:
            calls.append(lane)
            if len(calls) == 2:
                raise _failed()
            return function(lane)

        return compiled

    monkeypatch.setattr(module, "_compiled", second_fails)
    plain, graphed = _ensemble(), _ensemble()
    stand_in = StandIn(_step(graphed))
    advance = stand_in.graphed = Graphed(stand_in.step, _drawn(), options={}, capture=stand_in, lanes=3)
    with pytest.warns(UserWarning, match="compiling the training step failed"):
        losses, _ = advance(1, 2)
    by_hand = _step(plain)
    expected = torch.stack(
        [by_hand(*batch, step)[0] for step, batch in enumerate(islice(_drawn(), 2), start=1)]
    )
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)


def test_a_drawn_stream_goes_on_where_the_graphs_left_it() -> None:
    drawn = _drawn()
    advance, _ = _graphed(_ensemble(), drawn)
    advance(1, 31)
    assert drawn.position == 31
    other = _drawn()
    expected = list(islice(other, 32))[-1]
    for found, wanted in zip(next(drawn), expected, strict=True):
        assert torch.equal(found, wanted)


def test_a_balanced_step_is_never_captured() -> None:
    """Its balancer remembers earlier steps in Python, which a graph would not see."""
    ensemble = _ensemble()
    rates = torch.full((RUNS,), 1e-3, dtype=torch.float64)
    step = BalancedStep(ensemble, squared_error, rates, Adam(), UncertaintyWeighting())
    ensemble.device = torch.device("cuda")  # as far as the choice is concerned
    assert not isinstance(advance_of(step, _drawn(), compile=False), Graphed)


@pytest.mark.filterwarnings("ignore:compile is True but there is no C")
def test_ten_models_in_one_process_are_all_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch goes on plainly, without a word, when one function's code has been compiled for eight.

    It counts when it traces, so the traces alone are made here: generating code for ten takes most of a minute.
    """
    from torch._dynamo.utils import counters

    counters.clear()
    true_compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda given, **_: true_compile(given, backend="eager"))
    x = torch.randn(64, 3, generator=seeded_generator(0, "test"))
    for width in range(1, 11):
        ensemble = Ensemble(partial(SharedBottom, 3, 1, (width,)), range(2))
        settings = TrainingSettings(2, compile=True)
        train(ensemble, epochs(x, x[:, :1], 8), squared_error, settings, progress=False)
    assert counters["stats"]["unique_graphs"] == 10


@pytest.mark.filterwarnings("ignore:compile is True but there is no C")
def test_what_is_compiled_for_one_lane_serves_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    true_compile = torch.compile

    def traced(function: Callable[..., object], **_: object) -> object:
        return true_compile(function, backend="eager", dynamic=False)

    monkeypatch.setattr(torch, "compile", traced)
    ensemble = Ensemble(partial(paper_model("MMoE"), 100, 2), range(6), dtype=torch.float64)
    rates = torch.full((6,), 1e-3, dtype=torch.float64)
    weights = _drawn().weights[:1].expand(6, -1, -1)
    stand_in = StandIn(Step(ensemble, squared_error, rates, Adam()))
    drawn = synthetic.DrawnStream(weights, range(6), 8)
    advance = stand_in.graphed = Graphed(stand_in.step, drawn, options={}, capture=stand_in, lanes=2)
    losses, _ = advance(1, 25)
    assert len(advance.lanes) == 2
    assert losses.shape == (25, 6, 2)
    assert counters["stats"]["unique_graphs"] == 1


# --- on a GPU ---------------------------------------------------------------------------------------


def _trained(
    device: str, *, drawn: bool, compile: bool, name: str = "MMoE", dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Losses of 70 steps on the same numbers, which are drawn on the CPU where they are not `drawn`."""
    ensemble = _ensemble(device, name, dtype)
    batches = (
        _drawn(device, dtype)
        if drawn
        else ((x.to(device), y.to(device)) for x, y in synthetic.stream(0.5, range(RUNS), 8, dtype=dtype))
    )
    settings = TrainingSettings(70, note_every=1, compile=compile)
    return train(ensemble, batches, squared_error, settings, progress=False).losses


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("drawn", [False, True])
def test_a_gpu_trains_as_the_cpu_does(gpu: str, drawn: bool, compile: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # no step may fall back
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
        found = torch.stack(_trained(gpu, drawn=drawn, compile=compile))
    expected = torch.stack(_trained("cpu", drawn=drawn, compile=False))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["Shared-Bottom", "OMoE", "Single-Task"])
def test_every_model_of_section_5_trains_in_graphs(gpu: str, name: str) -> None:
    found = torch.stack(_trained(gpu, drawn=True, compile=False, name=name, dtype=torch.float32))
    expected = torch.stack(_trained("cpu", drawn=True, compile=False, name=name, dtype=torch.float32))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_model_that_cannot_be_captured_trains_all_the_same(gpu: str) -> None:
    class Waits(MMoE):
        def forward(self, x: Tensor) -> Tensor:
            torch.cuda.synchronize()  # allowed in a plain step, not while a graph is captured
            return super().forward(x)

    def losses(kind: type[MMoE]) -> Tensor:
        ensemble = Ensemble(partial(kind, 100, 2, 4, (8,)), range(RUNS), device=gpu, dtype=torch.float64)
        settings = TrainingSettings(30, note_every=1)
        return torch.stack(train(ensemble, _drawn(gpu), squared_error, settings, progress=False).losses)

    with pytest.warns(UserWarning, match="capturing the training step failed"):
        found = losses(Waits)
    torch.testing.assert_close(found, losses(MMoE), rtol=1e-10, atol=0)


def test_rows_that_all_runs_share_train_in_graphs(gpu: str) -> None:
    x = torch.randn(256, 100, dtype=torch.float64, generator=seeded_generator(0, "test"))
    y = (x[:, :2] > 0).double()

    def losses(device: str) -> Tensor:
        settings = TrainingSettings(50, note_every=1)
        batches = epochs(x.to(device), y.to(device), 48)
        return torch.stack(
            train(_ensemble(device), batches, binary_cross_entropy, settings, progress=False).losses
        )

    torch.testing.assert_close(losses(gpu), losses("cpu"), rtol=1e-9, atol=0)
