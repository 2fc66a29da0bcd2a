"""The door of an ensemble and of training: what is honoured, what is refused by name in one line, and threads."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from mmoe_lib.export import export_model
from mmoe_lib.models import MMoE
from mmoe_lib.seeds import seeded_generator
from mmoe_lib.training import (
    SGD,
    Adam,
    DivergedError,
    Ensemble,
    TrainingSettings,
    binary_cross_entropy,
    cosine,
    epochs,
    fit,
    squared_error,
    train,
)

D, K = 3, 2
BUILD = partial(MMoE, D, K, 2, (4,))


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = _randn(40, D)
Y = X[:, :K] + 1


def _train(
    ensemble: Ensemble, steps: int = 4, batches: Any = None, loss: Any = squared_error, **settings: Any
) -> Any:
    given = epochs(X, Y, 8) if batches is None else batches
    return train(ensemble, given, loss, TrainingSettings(steps, **settings), progress=False)


def _refused(action: Callable[[], object], *words: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind) as caught:
        action()
    for word in (*words, "expected"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


# --- nothing shared is written during a call -------------------------------------------------------


class Unhurried(MMoE):
    """Waits in the middle of a call, so that other threads come in between."""

    pause = 0.0

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(Unhurried.pause)
        return super().forward(x)

    def gate_weights(self, x: Tensor) -> Tensor:
        time.sleep(Unhurried.pause)
        return super().gate_weights(x)


def test_calls_of_many_threads_equal_the_lone_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ensemble = Ensemble(partial(Unhurried, D, K, 2, (4,)), range(3))
    calls: list[Callable[[], Any]] = [
        lambda: ensemble.predict(X[:5]),
        lambda: ensemble.gate_weights(X[:5]),
        lambda: ensemble.module(1)(X[:5]).detach(),
        lambda: export_model(ensemble.module(2), D).module()(X[:5]),
        lambda: ensemble.gradients(squared_error, X[:5], Y[:5])[1],
        lambda: ensemble.losses(squared_error, X[:5], Y[:5]),
    ]
    alone = [call() for call in calls]
    monkeypatch.setattr(Unhurried, "pause", 0.01)
    wrong: list[str] = []

    def client(number: int) -> None:
        for turn in range(3):
            place = 3 if number == turn == 0 else (0, 1, 2, 4, 5)[(number + turn) % 5]
            try:
                if not torch.equal(calls[place](), alone[place]):
                    wrong.append(f"call {place}")
            except Exception as error:
                wrong.append(f"call {place}: {error}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    monkeypatch.setattr(Unhurried, "pause", 0.0)
    for other in (copy.deepcopy(ensemble), pickle.loads(pickle.dumps(ensemble))):
        assert torch.equal(other.predict(X[:5]), alone[0])
        _train(other)  # a copy of its own
        assert torch.equal(ensemble.predict(X[:5]), alone[0])
        assert not torch.equal(other.predict(X[:5]), alone[0])
    export_model(ensemble.module(0), D, tmp_path / "one.pt2")


def test_a_call_that_fails_leaves_the_ensemble_as_it_was() -> None:
    ensemble = Ensemble(BUILD, range(2))
    before = ensemble.predict(X)
    for _ in range(2):
        with pytest.raises(ValueError, match="input has shape"):
            ensemble.predict(X[:, :2])
    assert torch.equal(ensemble.predict(X), before)
    torch.testing.assert_close(ensemble.module(1)(X), before[1])


# --- what a module is beyond its parameters --------------------------------------------------------


class Net(nn.Module):
    """A small network that a test changes in one property."""

    def __init__(self, change: Callable[[Net], object] | None = None) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(D, 4), nn.Linear(4, K)
        self.between: nn.Module = nn.Identity()
        if change:
            change(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(torch.relu(self.body(x))))


def _of(change: Callable[[Net], object] | None = None) -> Callable[..., nn.Module]:
    return lambda generator: Net(change)


def _put(layer: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    return _of(lambda net: setattr(net, "between", layer()))


@pytest.mark.parametrize("optimiser", ["Adam", "SGD"])
def test_frozen_weights_stay_and_the_others_train_as_alone(optimiser: str) -> None:
    ensemble = Ensemble(_of(lambda net: net.body.requires_grad_(False)), range(2), dtype=torch.float64)
    assert ensemble.trained == ("head.weight", "head.bias")
    alone = ensemble.module(1)
    assert [p.requires_grad for p in alone.parameters()] == [False, False, True, True]
    frozen = ensemble.parameters["body.weight"].clone()
    own = torch.optim.SGD if optimiser == "SGD" else torch.optim.Adam
    by_hand = own([p for p in alone.parameters() if p.requires_grad], lr=0.01)
    for x, y in islice(epochs(X.double(), Y.double(), 8), 6):
        by_hand.zero_grad()
        squared_error(alone(x), y).sum().backward()
        by_hand.step()
    more = {"optimiser": SGD()} if optimiser == "SGD" else {}
    _train(ensemble, 6, epochs(X.double(), Y.double(), 8), learning_rate=0.01, **more)
    assert torch.equal(ensemble.parameters["body.weight"], frozen)
    torch.testing.assert_close(ensemble.predict(X.double())[1], alone(X.double()).detach())


class Tied(nn.Module):
    """Reads with a matrix and writes with the same."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))[:, :K]


def test_tied_weights_stay_tied_and_train_as_alone() -> None:
    ensemble = Ensemble(Tied, range(2), dtype=torch.float64)
    alone: Any = ensemble.module(1)
    assert alone.second.weight is alone.first.weight
    by_hand = torch.optim.SGD(alone.parameters(), lr=0.1)
    for x, y in islice(epochs(X.double(), Y.double(), 8), 6):
        by_hand.zero_grad()
        squared_error(alone(x), y).sum().backward()
        by_hand.step()
    _train(ensemble, 6, epochs(X.double(), Y.double(), 8), learning_rate=0.1, optimiser=SGD())
    torch.testing.assert_close(ensemble.parameters["first.weight"][1], alone.first.weight.detach())
    torch.testing.assert_close(ensemble.predict(X.double())[1], alone(X.double()).detach())


def test_buffers_that_are_not_saved_are_each_runs_own() -> None:
    class Scaled(nn.Linear):
        scale: Tensor

        def __init__(self, generator: torch.Generator) -> None:
            super().__init__(D, K)
            self.register_buffer("scale", torch.rand((), generator=generator), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.scale

    ensemble = Ensemble(Scaled, range(2))
    assert ensemble.buffers["scale"].unique().numel() == 2
    for run in range(2):
        module = ensemble.module(run)
        assert "scale" not in module.state_dict()
        torch.testing.assert_close(module(X), ensemble.predict(X)[run])
    _train(ensemble)


def test_what_a_builder_gives_is_left_as_it_was() -> None:
    given: list[nn.Module] = []

    def build(generator: torch.Generator) -> nn.Module:
        given.append(Net())
        return given[-1]

    ensemble = Ensemble(build, range(2), dtype=torch.float64)
    before = copy.deepcopy(given[0].state_dict())
    _train(ensemble, 4, epochs(X.double(), Y.double(), 8))
    for name, value in given[0].state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])
    assert all(p.requires_grad for p in given[0].parameters())


def test_layers_that_draw_from_torchs_own_generator_are_seeded_by_the_run() -> None:
    state = torch.random.get_rng_state()
    one = Ensemble(_of(), (3, 4))
    torch.randn(5)
    torch.random.set_rng_state(state)
    torch.randn(7)
    moved = torch.random.get_rng_state()
    other = Ensemble(_of(), (4,))
    assert torch.equal(torch.random.get_rng_state(), moved)
    for name, value in one.parameters.items():
        assert torch.equal(value[1], other.parameters[name][0])
        assert not torch.equal(value[0], value[1])


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_normalisation_by_weights_works() -> None:
    ensemble = Ensemble(_of(lambda net: parametrizations.weight_norm(net.body)), range(2))
    before = ensemble.predict(X)
    torch.testing.assert_close(ensemble.module(1)(X), before[1])
    _train(ensemble)
    assert not torch.equal(ensemble.predict(X), before)


@pytest.mark.parametrize("layer", [partial(nn.LayerNorm, 4), partial(nn.GroupNorm, 2, 4), nn.PReLU])
def test_layers_that_keep_no_statistics_work(layer: Callable[[], nn.Module]) -> None:
    ensemble = Ensemble(_put(layer), range(2))
    torch.testing.assert_close(ensemble.module(1)(X), ensemble.predict(X)[1])
    _train(ensemble)


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (partial(nn.BatchNorm1d, 4), "BatchNorm1d"),
        (partial(nn.SyncBatchNorm, 4), "SyncBatchNorm"),
        (partial(nn.GRU, 4, 4), "GRU"),
        (partial(nn.LSTM, 4, 4), "LSTM"),
        (partial(nn.AlphaDropout, 0.1), "AlphaDropout"),
        (partial(nn.Dropout1d, 0.1), "Dropout1d"),
        (nn.RReLU, "RReLU"),
        (partial(nn.MultiheadAttention, 4, 1, dropout=0.1), "MultiheadAttention"),
        (partial(nn.LazyLinear, 4), "between.weight"),
    ],
)
def test_layers_that_cannot_be_kept_are_refused_by_name(layer: Callable[[], nn.Module], word: str) -> None:
    _refused(lambda: Ensemble(_put(layer), range(2)), word, "between")


def _differing() -> Callable[..., nn.Module]:
    numbers = iter(range(9))
    return _of(lambda net: setattr(net, "number", next(numbers)))


def _growing() -> Callable[..., nn.Module]:
    widths = iter(range(4, 9))
    return lambda generator: nn.Linear(D, next(widths))


class Locked(Net):
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: _of(lambda net: setattr(net, "mask", torch.ones(4))), ("Net.mask", "register_buffer")),
        (lambda: _of(lambda net: setattr(net, "masks", [torch.ones(4)])), ("Net.masks", "register_buffer")),
        (lambda: _of(lambda net: net.to(torch.complex64)), ("complex64",)),
        (_differing, ("number",)),
        (_growing, ("weight",)),
        (lambda: Locked, ("Locked", "deepcopy")),
        (lambda: lambda generator, shared=Net(): shared, ("Net", "several runs")),  # noqa: B008
        (lambda: lambda generator: "model", ("str",)),
        (lambda: MMoE, ("num_inputs", "build(generator=...)")),
        (lambda: lambda: Net(), ("build(generator=...)",)),
        (lambda: "MMoE", ("MMoE",)),
    ],
)
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_builders_that_give_no_stack_are_refused(build: Callable[[], Any], words: tuple[str, ...]) -> None:
    _refused(lambda: Ensemble(build(), range(2)), *words)


@pytest.mark.parametrize("seeds", [(), (0.5,), "ab", (-1,), (None,)])
def test_seeds_are_whole_numbers(seeds: Any) -> None:
    _refused(lambda: Ensemble(BUILD, seeds), "seed")


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.complex64])
def test_number_types_that_do_not_train_are_refused(dtype: torch.dtype) -> None:
    _refused(lambda: Ensemble(BUILD, [0], dtype=dtype), str(dtype))


def test_a_builder_may_take_its_generator_by_place() -> None:
    by_place = Ensemble(lambda g: MMoE(D, K, 2, (4,), generator=g), [5])
    assert torch.equal(by_place.predict(X), Ensemble(BUILD, [5]).predict(X))


class Branching(Net):
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if bool(x.sum() > 0) else -x)


class Drawing(Net):
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn_like(x))


class Reading(Net):
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float(x.max())


class Saving(Net):
    """Forgets what it needs for the gradient and computes it again, which grad cannot follow."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)


def test_a_gradient_that_cannot_be_lifted_is_refused_by_name() -> None:
    ensemble = Ensemble(Saving, range(2))
    if not torch.__version__.startswith("2.4."):  # which cannot lift the forward pass either
        assert ensemble.predict(X).shape == (2, 40, K)
    _refused(lambda: _train(ensemble), "Saving")


@pytest.mark.parametrize("build", [Branching, Drawing, Reading])
def test_forward_passes_that_cannot_be_lifted_are_refused_by_name(build: Callable[..., nn.Module]) -> None:
    ensemble = Ensemble(build, range(2))
    own = X.expand(2, -1, -1)
    _refused(lambda: ensemble.predict(own), build.__name__)
    _refused(lambda: _train(ensemble, batches=[(own, Y)]), build.__name__)


class Counting(Net):
    def __init__(self, generator: torch.Generator, within: bool) -> None:
        super().__init__()
        self.calls: Tensor
        self.within = within
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.within:
            self.calls += 1
        else:
            self.calls = self.calls + 1
        return super().forward(x)


@pytest.mark.parametrize("within", [True, False])
def test_buffers_that_change_are_refused_by_name(within: bool) -> None:
    ensemble = Ensemble(partial(Counting, within=within), range(2))
    _refused(lambda: _train(ensemble), "Counting.calls")
    assert ensemble.buffers["calls"].tolist() == [0, 0]


def test_a_model_that_is_frozen_as_a_whole_predicts_and_does_not_train() -> None:
    ensemble = Ensemble(_of(lambda net: net.requires_grad_(False)), range(2))
    assert ensemble.predict(X).shape == (2, 40, K)
    _refused(lambda: _train(ensemble), "Net", "frozen")


# --- dropout ---------------------------------------------------------------------------------------


class Plain(nn.Module):
    """The input, dropped; one weight a run, which is 1."""

    def __init__(self, generator: torch.Generator | None = None, p: float = 0.3, twice: bool = False) -> None:
        super().__init__()
        self.weight, self.dropout, self.twice = nn.Parameter(torch.ones(())), nn.Dropout(p), twice

    def forward(self, x: Tensor) -> Tensor:
        dropped = self.dropout(x) * self.weight
        return torch.cat([dropped, self.dropout(x)], dim=1) if self.twice else dropped


def _dropped(ensemble: Ensemble, steps: int = 1, width: int = 500, **settings: Any) -> Tensor:
    """What each run's output is at each step, (steps, R, width): told by a loss that is the output itself."""

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.sum(dim=0)

    labels = torch.zeros(1, 2 * width if _twice(ensemble) else width)
    batches = [(torch.ones(1, width), labels)]
    more = {"learning_rate": 1e-30, "note_every": 1, "optimiser": SGD(), **settings}
    return torch.stack(_train(ensemble, steps, batches, loss, **more).losses)


def _twice(ensemble: Ensemble) -> bool:
    return bool(getattr(ensemble.module(0), "twice", False))


def test_dropout_drops_its_share_scales_the_rest_and_is_off_in_prediction() -> None:
    ensemble = Ensemble(Plain, range(4))
    found = _dropped(ensemble, steps=10)  # 20,000 draws
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 1 / 0.7]))
    assert abs(float((found == 0).double().mean()) - 0.3) < 4 * (0.21 / found.numel()) ** 0.5
    assert torch.equal(ensemble.predict(torch.ones(3, 5)), torch.ones(4, 3, 5))
    assert type(ensemble.module(0).get_submodule("dropout")) is nn.Dropout
    assert set(ensemble.module(0).state_dict()) == {"weight"}


def test_each_run_step_and_call_draws_anew_and_a_run_as_it_does_alone() -> None:
    together = _dropped(Ensemble(Plain, (5, 6)), steps=6)
    alone = _dropped(Ensemble(Plain, (6,)), steps=6)
    assert torch.equal(together[:, 1:], alone)
    twice = _dropped(Ensemble(partial(Plain, twice=True), (6,)), steps=6).unflatten(2, (2, 500))
    assert torch.equal(twice[:, :, 0], alone)
    columns = (
        torch.cat([together.flatten(0, 1), twice[:, 0, 1]]) == 0
    )  # (18, 500): runs, steps and second calls
    correlated = torch.corrcoef(columns.double()).fill_diagonal_(0)
    assert float(correlated.abs().max()) < 5 / 500**0.5


def test_training_that_goes_on_does_not_repeat_its_draws() -> None:
    ensemble = Ensemble(Plain, (5,))
    first, second = _dropped(ensemble, 3), _dropped(ensemble, 3)
    assert torch.equal(torch.cat([first, second]), _dropped(Ensemble(Plain, (5,)), 6))


@pytest.mark.filterwarnings("ignore:compile is True but there is no C")
def test_a_compiled_step_drops_what_the_plain_one_does() -> None:
    plain, compiled = (_dropped(Ensemble(Plain, (5, 6)), 3, compile=on) for on in (False, True))
    assert torch.equal(plain == 0, compiled == 0)
    assert not torch.equal(plain[0], plain[1])


def test_a_dropout_that_the_builder_switched_off_stays_off() -> None:
    def build(generator: torch.Generator) -> nn.Module:
        module = Plain()
        module.dropout.eval()
        return module

    assert torch.equal(_dropped(Ensemble(build, (5,))), torch.ones(1, 1, 500))


# --- minibatches -----------------------------------------------------------------------------------


def _loader(rows: int = 40) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(X[:rows], Y[:rows]), batch_size=8)


def test_what_begins_anew_trains_on_and_what_ends_says_when() -> None:
    ensemble, other = Ensemble(BUILD, range(2)), Ensemble(BUILD, range(2))
    _train(ensemble, 12, _loader())

    def by_hand() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from zip(X.split(8), Y.split(8), strict=True)

    _train(other, 12, by_hand())
    assert torch.equal(ensemble.predict(X), other.predict(X))
    _refused(lambda: _train(ensemble, 12, iter(_loader())), "5 of 12")
    _refused(lambda: _train(ensemble, 12, zip(X.split(8), Y.split(8), strict=True)), "5 of 12")
    _refused(lambda: _train(ensemble, 12, []), "empty")
    _refused(lambda: _train(ensemble, 12, iter([])), "0 of 12")


def test_an_iterator_is_taken_from_as_often_as_there_are_steps() -> None:
    batches = zip(X.split(8), Y.split(8), strict=True)
    _train(Ensemble(BUILD, range(2)), 3, batches)
    assert len(list(batches)) == 2


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (X, ("Tensor", "pair")),
        ((X, Y, Y), ("tuple of 3", "pair")),
        ((X.numpy(), Y), ("ndarray", "tensors")),
        ((X, Y[:, 0]), ("labels", "(40,)")),
        ((X[0], Y), ("inputs", "(3,)")),
        ((X.expand(3, -1, -1), Y), ("(3, 40, 3)", "(2, B, ...)")),
        ((X[:7], Y), ("7 rows", "40 of labels")),
        ((X[:0], Y[:0]), ("0 rows", "at least one")),
        ((X, Y[:, :1]), ("(40, 1)", "(40, 2)")),
        ((X, Y.repeat(1, 2)), ("(40, 4)", "(40, 2)")),
        ((X.to("meta"), Y), ("inputs", "meta")),
    ],
)
def test_minibatches_that_are_none_are_refused(batch: Any, words: tuple[str, ...]) -> None:
    ensemble = Ensemble(BUILD, range(2))
    before = ensemble.predict(X)
    _refused(lambda: _train(ensemble, batches=[batch]), *words)
    assert torch.equal(ensemble.predict(X), before)


def test_batches_that_cannot_be_iterated_over_are_refused() -> None:
    _refused(lambda: _train(Ensemble(BUILD, range(2)), batches=5), "batches", "int")


# --- losses and labels -----------------------------------------------------------------------------


def test_losses_that_give_no_number_a_task_are_refused_by_name() -> None:
    ensemble = Ensemble(BUILD, range(2))

    def of_all(outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs - labels).square().mean()

    def of_rows(outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs - labels).square()

    def of_python(outputs: Tensor, labels: Tensor) -> float:
        return 0.0

    def of_classes(outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels.long(), reduction="none")

    for loss in (of_all, of_rows, of_python, of_classes):
        _refused(lambda loss=loss: _train(ensemble, loss=loss), loss.__name__)  # type: ignore[misc]
    _refused(lambda: _train(ensemble, loss="mse"), "loss", "str")
    _refused(lambda: _train(Ensemble(lambda g: nn.Linear(D, 1), [0])), "(8, 2)", "(8, 1)")
    _refused(lambda: _train(Ensemble(lambda g: nn.Flatten(0), [0])), "frozen")


@pytest.mark.parametrize("wrong", [-1.0, 2.0, 1.5])
@pytest.mark.parametrize("at", [0, 3])
def test_labels_outside_of_what_a_loss_takes_are_refused(wrong: float, at: int) -> None:
    y = (Y > 1).float()
    y[8 * at, 1] = wrong
    batches = zip(X.split(8), y.split(8), strict=True)
    ensemble = Ensemble(BUILD, range(2))
    _refused(lambda: _train(ensemble, 5, batches, binary_cross_entropy), "binary_cross_entropy", "0 to 1")
    _train(Ensemble(BUILD, range(2)), 5, zip(X.split(8), y.split(8), strict=True), squared_error)


def test_a_loss_may_say_itself_which_labels_it_takes() -> None:
    class Ranked:
        label_range = (1.0, 5.0)

        def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
            return squared_error(outputs, labels)

    y = torch.full_like(Y, 3)
    _train(Ensemble(BUILD, range(2)), batches=epochs(X, y, 8), loss=Ranked())
    y[:] = 0
    _refused(lambda: _train(Ensemble(BUILD, range(2)), batches=epochs(X, y, 8), loss=Ranked()), "Ranked")


def _masked(outputs: Tensor, labels: Tensor) -> Tensor:
    known = ~labels.isnan()
    return torch.where(known, (outputs - labels.nan_to_num()).square(), 0).sum(0) / known.sum(0).clamp(min=1)


def test_labels_that_are_missing_reach_a_loss_that_leaves_them_out() -> None:
    y = Y.clone()
    y[::2, 1] = torch.nan
    ensemble = Ensemble(BUILD, range(2))
    history = _train(ensemble, 10, epochs(X, y, 8), _masked)
    assert bool(torch.stack(history.losses).isfinite().all())
    assert bool(ensemble.predict(X).isfinite().all())


def absolute_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """A loss that leaves no label out."""
    return (outputs - labels).abs().mean(dim=0)


def test_a_loss_that_does_not_leave_them_out_is_named() -> None:
    y, later = Y.clone(), Y.clone()
    y[0, 1] = later[30, 1] = torch.nan
    batches = list(zip(X.split(8), y.split(8), strict=True))
    _refused(
        lambda: _train(Ensemble(BUILD, range(2)), 5, batches, absolute_error),
        "labels hold NaN",
        "absolute_error",
    )
    batches = list(zip(X.split(8), later.split(8), strict=True))
    with pytest.raises(
        DivergedError, match=r"at step 4.*labels of this step are NaN.*absolute_error"
    ) as caught:
        _train(Ensemble(BUILD, range(2)), 5, batches, absolute_error)
    assert "learning rate" not in str(caught.value)
    assert "\n" not in str(caught.value)


# --- settings, metrics, divergence -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"learning_rate": None}, "learning_rate is None"),
        ({"learning_rate": (1e-3, "a")}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"optimiser": "Adam"}, "optimiser is 'Adam'"),
        ({"optimiser": SGD}, "optimiser is <class"),
        ({"balancer": "GradNorm"}, "balancer is 'GradNorm'"),
        ({"note_every": 2.5}, "note_every is 2.5"),
        ({"note_every": "5"}, "note_every is '5'"),
    ],
)
def test_settings_of_another_kind_are_refused(settings: dict[str, Any], word: str) -> None:
    _refused(lambda: _train(Ensemble(BUILD, range(2)), **settings), word)


def _evaluated(values: list[float], **settings: Any) -> Any:
    return train(
        Ensemble(BUILD, range(2)),
        epochs(X, Y, 8),
        squared_error,
        TrainingSettings(4, evaluate_every=2, monitor="score", **settings),
        lambda ensemble: {"score": torch.tensor(values)},
        progress=False,
    )


def test_a_metric_of_no_rows_is_named() -> None:
    _refused(lambda: _evaluated([0.5, torch.nan]), "'score' of run 1 is NaN", "step 2", "rows")
    _refused(lambda: _evaluated([0.5]), "'score' has shape (1,)")
    assert _evaluated([0.5, torch.inf]).best_step.tolist() == [2, 2]


def test_one_run_that_diverges_loses_only_itself_and_the_rest_can_be_kept() -> None:
    rates = (1e-3, 1e30, 1e-3)
    ensemble, calm = Ensemble(BUILD, range(3)), Ensemble(BUILD, range(3))
    history = _train(ensemble, 9, learning_rate=rates, note_every=3, on_divergence="record")
    _train(calm, 9)
    left = [run for run, step in enumerate(history.diverged_step.tolist()) if step == 0]
    assert left == [0, 2]
    kept = ensemble.keep(left)
    assert kept.seeds == (0, 2)
    assert bool(kept.predict(X).isfinite().all())
    torch.testing.assert_close(kept.predict(X), calm.predict(X)[[0, 2]])
    _train(kept)  # memory of its own
    torch.testing.assert_close(ensemble.predict(X)[[0, 2]], calm.predict(X)[[0, 2]])


def test_who_catches_a_divergence_has_the_state_that_is_kept() -> None:
    def poisoned(device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        for step, (x, y) in enumerate(epochs(X, Y, 8), start=1):
            yield (x * torch.nan if step == 6 else x), y

    settings = TrainingSettings(9, note_every=2)
    with pytest.raises(DivergedError, match=r"an input.*the state after step 4 is kept") as caught:
        fit(BUILD, range(2), poisoned, squared_error, settings, progress=False)
    assert caught.value.ensemble is not None
    expected = Ensemble(BUILD, range(2))
    _train(expected, 4)
    assert torch.equal(caught.value.ensemble.predict(X), expected.predict(X))
    with pytest.raises(DivergedError, match="no run is left"):
        _train(Ensemble(BUILD, range(2)), 9, learning_rate=1e30, note_every=3, on_divergence="record")


def test_seeds_of_a_stack_stay_apart() -> None:
    generator = seeded_generator(7, "initialisation")
    expected = BUILD(generator=generator)(X)
    torch.testing.assert_close(Ensemble(BUILD, (3, 7)).predict(X)[1], expected.detach())


@pytest.mark.parametrize("optimiser", [Adam(weight_decay=0.1), SGD()])
def test_two_trainings_one_after_the_other_are_one(optimiser: Any) -> None:
    settings = {"optimiser": optimiser, "schedule": cosine(9, warm_up=2), "resumable": True}
    whole, halves = Ensemble(BUILD, range(2)), Ensemble(BUILD, range(2))
    _train(whole, 9, **settings)
    batches = epochs(X, Y, 8)
    first = _train(halves, 4, batches, **settings)
    train(halves, batches, squared_error, TrainingSettings(5, **settings), after=first, progress=False)
    assert torch.equal(halves.predict(X), whole.predict(X))
    _refused(lambda: _after(halves, _train(Ensemble(BUILD, range(2)))), "resumable")
    _refused(lambda: _after(Ensemble(BUILD, range(3)), _train(whole, resumable=True)), "these runs")


def _after(ensemble: Ensemble, history: Any) -> None:
    train(ensemble, epochs(X, Y, 8), squared_error, TrainingSettings(2), after=history, progress=False)
