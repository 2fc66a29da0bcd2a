"""What an ensemble takes in: any module that ordinary training would train alike, or a line that says why not."""

import copy
import itertools
import pickle
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mmoe_lib.export import export_model
from mmoe_lib.models import MMoE
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
from mmoe_lib.training.losses import class_balanced, focal, weighted


class SlowMMoE(MMoE):
    """The pause makes calls of several threads overlap."""

    pause = 0.0

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(SlowMMoE.pause)
        return super().forward(x)

    def gate_weights(self, x: Tensor) -> Tensor:
        time.sleep(SlowMMoE.pause)
        return super().gate_weights(x)


class Counting(nn.Module):
    """Keeps the number of its passes in a buffer, in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("passes", torch.zeros(()), persistent=False)

    passes: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.layer(x)


class Rebinding(Counting):
    def forward(self, x: Tensor) -> Tensor:
        self.passes = self.passes + 1
        return self.layer(x)


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 3).requires_grad_(False), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(torch.relu(self.first(x))))


class Unsaved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.layer(x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x.unflatten(-1, (2, 2)))[0][:, -1])


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if float(y.detach().sum()) > 0 else 2 * y


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.slope = nn.Linear(4, 2), nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * self.layer(x)


class OwnDropout(nn.Module):
    """Draws without a layer that could be known by its type."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y * (torch.rand_like(y) > 0.5) if self.training else y


def with_layer(layer: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), layer(), nn.Tanh(), nn.Linear(6, 2))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "frozen": Frozen,
    "tied": Tied,
    "unsaved buffer": Unsaved,
    "counting": Counting,
    "rebinding": Rebinding,
    "recurrent": Recurrent,
    "branch": Branch,
    "scalar": Scalar,
    "batch norm": partial(with_layer, partial(nn.BatchNorm1d, 6)),
    "layer norm": partial(with_layer, partial(nn.LayerNorm, 6)),
}
RANDOM: dict[str, Callable[[], nn.Module]] = {
    "dropout": partial(with_layer, nn.Dropout),
    "alpha dropout": partial(with_layer, partial(nn.AlphaDropout, 0.3)),
    "rrelu": partial(with_layer, nn.RReLU),
    "own dropout": OwnDropout,
}
SGD_STEPS = TrainingSettings(steps=20, learning_rate=0.05, optimiser=SGD())


def built(make: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    return lambda generator: make()


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    return x, torch.stack([x[:, 0] * x[:, 1], x[:, 2]], dim=1)


def trained(make: Callable[[], nn.Module], seeds: list[int], **settings: Any) -> Ensemble:
    ensemble = Ensemble(built(make), seeds)
    x, y = data()
    chosen = TrainingSettings(**{**vars(SGD_STEPS), **settings})
    train(ensemble, epochs(x, y, 10), squared_error, chosen, progress=False)
    return ensemble


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_a_run_is_what_ordinary_training_of_its_module_gives(make: Callable[[], nn.Module]) -> None:
    x, y = data()
    start = Ensemble(built(make), [3, 4])
    alone = [start.module(run).train() for run in (0, 1)]
    for module in alone:
        moving = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimiser = torch.optim.SGD(moving, lr=0.05)
        batches = epochs(x, y, 10)
        for _ in range(20):
            inputs, labels = next(batches)
            optimiser.zero_grad()
            squared_error(module(inputs), labels).sum().backward()
            optimiser.step()
    ensemble = trained(make, [3, 4])
    predicted = ensemble.predict(x)
    for run, module in enumerate(alone):
        state = dict(ensemble.module(run).named_buffers()) | dict(ensemble.module(run).named_parameters())
        for name, value in {**dict(module.named_buffers()), **dict(module.named_parameters())}.items():
            torch.testing.assert_close(state[name], value)
        torch.testing.assert_close(predicted[run], module.eval()(x).detach())
        torch.testing.assert_close(ensemble.module(run)(x), predicted[run])


def test_frozen_weights_stay_and_tied_ones_stay_tied() -> None:
    before = dict(Ensemble(built(Frozen), [0]).module(0).named_parameters())
    ensemble = trained(Frozen, [0], optimiser=Adam())
    after = dict(ensemble.module(0).named_parameters())
    assert torch.equal(before["body.weight"], after["body.weight"])
    assert not after["body.weight"].requires_grad
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert ensemble.parameters.keys() == {"head.weight", "head.bias"}
    tied = trained(Tied, [0]).module(0)
    assert tied.get_parameter("first.weight") is tied.get_parameter("second.weight")


@pytest.mark.parametrize("make", RANDOM.values(), ids=RANDOM)
def test_each_run_has_a_random_stream_of_its_own(make: Callable[[], nn.Module]) -> None:
    x, _ = data()
    state = torch.get_rng_state()
    both, alone = trained(make, [1, 2]), trained(make, [2])
    assert torch.equal(torch.get_rng_state(), state), "the caller's stream is as it was"
    assert torch.equal(both.predict(x)[1], alone.predict(x)[0])
    assert torch.equal(both.predict(x), both.predict(x)), "evaluation draws nothing"
    one, other = Ensemble(built(make), [1, 1]), Ensemble(built(make), [1])
    other.seeds = (5,)  # the same weights, another stream
    gradients = []
    for runs in (one, other):
        runs.settle(squared_error, *data())
        gradients.append(
            torch.cat([value.flatten(1) for value in runs.gradients(squared_error, *data())[0].values()], 1)
        )
    assert torch.equal(gradients[0][0], gradients[0][1]), "one seed, one stream"
    assert not torch.equal(gradients[0][0], gradients[1][0])


def test_a_row_of_a_model_with_batch_norm_does_not_depend_on_its_neighbours() -> None:
    x, _ = data()
    ensemble = trained(MODULES["batch norm"], [0, 1])
    torch.testing.assert_close(ensemble.predict(x)[:, :2], ensemble.predict(x[:2]))
    assert torch.equal(ensemble.buffers["1.num_batches_tracked"], torch.tensor([20, 20]))


def test_the_best_state_holds_the_statistics_of_its_step() -> None:
    x, y = data()
    ensemble = Ensemble(built(MODULES["batch norm"]), [0])
    seen: list[Tensor] = []

    def evaluate(ensemble: Ensemble) -> dict[str, Tensor]:
        seen.append(ensemble.predict(x))
        return {"first": torch.tensor([-float(len(seen))])}

    settings = TrainingSettings(steps=20, evaluate_every=5, monitor="first")
    train(ensemble, epochs(x, y, 10), squared_error, settings, evaluate, progress=False)
    assert torch.equal(ensemble.predict(x), seen[0])


def in_threads(call: Callable[[], Any], number: int = 8) -> list[Any]:
    answers: list[Any] = [None] * number

    def ask(place: int) -> None:
        time.sleep(0.002 * place)
        answers[place] = call()

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize(
    "make", [None, MODULES["counting"], MODULES["batch norm"]], ids=["MMoE", "counting", "norm"]
)
def test_calls_from_eight_threads_answer_as_a_lone_call(
    make: Callable[[], nn.Module] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = data()
    build = partial(SlowMMoE, 4, 2, 3, (5,)) if make is None else built(make)
    ensemble = Ensemble(build, [0, 1])
    train(ensemble, epochs(x, y, 10), squared_error, SGD_STEPS, progress=False)
    calls: list[Callable[[], Tensor]] = [lambda: ensemble.predict(x), lambda: ensemble.module(1)(x)]
    calls.append(lambda: export_model(ensemble.module(0), 4).module()(x))
    calls.append(lambda: ensemble.gradients(squared_error, x, y)[1])
    if make is None:
        calls.append(lambda: ensemble.gate_weights(x))
    else:
        calls.pop()  # a pass in training writes what it keeps
    alone = [call().detach() for call in calls]
    kept = {name: value.clone() for name, value in ensemble.buffers.items()}
    monkeypatch.setattr(SlowMMoE, "pause", 0.02)
    numbers = iter(range(8 * len(calls)))
    answers = in_threads(lambda: [call().detach() for call in (calls[next(numbers) % 2 :] + calls)])
    monkeypatch.setattr(SlowMMoE, "pause", 0.0)
    for answer in answers:
        for given, right in zip(answer[-len(calls) :], alone, strict=True):
            assert torch.equal(given, right)
    assert all(torch.equal(value, kept[name]) for name, value in ensemble.buffers.items())
    for other in (copy.deepcopy(ensemble), pickle.loads(pickle.dumps(ensemble))):
        assert torch.equal(other.predict(x), alone[0])
        assert torch.equal(export_model(other.module(0), 4).module()(x), alone[2])


def test_no_weights_of_the_template_can_answer() -> None:
    ensemble = Ensemble(partial(MMoE, 4, 2, 3, (5,)), [0])
    modules = [value for value in vars(ensemble).values() if isinstance(value, nn.Module)]
    assert modules
    for module in (*modules, ensemble.objective()):
        assert all(value.is_meta for value in (*module.parameters(), *module.buffers()))


def same_module() -> Callable[..., nn.Module]:
    module = Frozen()
    return lambda generator: module


class Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.lock = nn.Linear(4, 2), threading.Lock()


@pytest.mark.parametrize(
    ("build", "seeds", "error", "words"),
    [
        (MMoE(4, 2, 3, (5,)), [0], TypeError, "build is a MMoE, expected a function"),
        ("MMoE", [0], TypeError, "build is a str, expected a function"),
        (lambda: Frozen(), [0], TypeError, r"build takes \(\), expected"),
        (lambda generator: torch.zeros(2), [0], TypeError, "build returned a Tensor, expected"),
        (lambda generator: nn.LazyLinear(2), [0], ValueError, "without a size"),
        (same_module(), [0, 1], ValueError, "one module for two seeds"),
        (
            lambda generator: nn.Linear(4, int(torch.randint(2, 99, ()))),
            [0, 1, 2],
            ValueError,
            "different sizes",
        ),
        (built(Keeps), [0], ValueError, "Keeps cannot be copied, expected"),
        (built(Frozen), 3, TypeError, "seeds is 3, expected a list"),
        (built(Frozen), [0.5], TypeError, r"seeds is \[0.5\], expected a list"),
        (built(Frozen), torch.arange(0), ValueError, "there are no seeds"),
    ],
)
def test_what_is_no_model_is_refused_in_a_line(
    build: Any, seeds: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as told:
        Ensemble(build, seeds)
    assert "\n" not in str(told.value)


def test_builders_and_seeds_of_other_kinds() -> None:
    named = Ensemble(lambda generator: MMoE(4, 2, 3, (5,), generator=generator), torch.arange(2))
    unnamed = Ensemble(lambda g: MMoE(4, 2, 3, (5,), generator=g), range(2))
    assert named.seeds == unnamed.seeds == (0, 1)
    assert torch.equal(named.predict(data()[0]), unnamed.predict(data()[0]))
    assert torch.equal(
        Ensemble(built(Frozen), [7]).buffers["body.weight"],
        Ensemble(built(Frozen), [7]).buffers["body.weight"],
    )


PAIRS = [(data()[0][start : start + 10], data()[1][start : start + 10]) for start in range(0, 50, 10)]


def train_on(batches: Any, *, loss: Any = squared_error, steps: int = 12, **settings: Any) -> Ensemble:
    ensemble = Ensemble(partial(MMoE, 4, 2, 3, (5,)), [0, 1])
    chosen = TrainingSettings(steps=steps, **settings)
    train(ensemble, batches, loss, chosen, progress=False)
    return ensemble


@pytest.mark.parametrize("make", [list, tuple, lambda pairs: DataLoader(pairs, batch_size=None)])
def test_batches_that_end_are_begun_again(make: Callable[[Any], Any]) -> None:
    again, endless = train_on(make(PAIRS)), train_on(itertools.cycle(PAIRS))
    assert torch.equal(again.predict(data()[0]), endless.predict(data()[0]))


def test_a_data_loader_whose_last_batch_is_smaller() -> None:
    loader = DataLoader(TensorDataset(*data()), batch_size=30)
    assert bool(torch.isfinite(train_on(loader).predict(data()[0])).all())


X, Y = data()
NAN = torch.where(torch.arange(100)[:, None] == 3, torch.nan, Y)


@pytest.mark.parametrize(
    ("batches", "loss", "error", "words"),
    [
        (iter(PAIRS), squared_error, ValueError, "the batches ended after 5 of 12 steps"),
        ([], squared_error, ValueError, "the batches ended after 0 of 12 steps"),
        (5, squared_error, TypeError, "batches is a int, expected"),
        ([(X,)], squared_error, TypeError, r"batches yield \(Tensor\), expected pairs"),
        ([(X.numpy(), Y.numpy())], squared_error, TypeError, r"batches yield \(ndarray, ndarray\)"),
        ([(X[:0], Y[:0])], squared_error, ValueError, r"inputs \(0, 4\) and labels \(0, 2\), expected"),
        (
            [(X[None].expand(3, -1, -1), Y)],
            squared_error,
            ValueError,
            r"expected \(B, d\) and \(B, K\), or \(2, B",
        ),
        ([(X, Y[:, 0])], squared_error, ValueError, r"labels \(100,\), expected"),
        (
            [(X, Y[:, :1])],
            squared_error,
            ValueError,
            r"labels of a run have shape \(100, 1\), expected \(100, 2\)",
        ),
        (
            [(X, Y[:50])],
            squared_error,
            ValueError,
            r"labels of a run have shape \(50, 2\), expected \(100, 2\)",
        ),
        ([(X, Y)], nn.MSELoss(), ValueError, r"the loss gives \(\), expected \(2,\)"),
        ([(X, NAN)], squared_error, ValueError, r"labels hold nan at \[3, 0\], expected"),
        ([(X, Y)], binary_cross_entropy, ValueError, r"labels hold .* at \[0, [01]\], expected 0 to 1"),
        ([(X, -(Y > 0).float())], focal(), ValueError, r"labels hold -1 at .*, expected 0 to 1"),
        (
            [(X, 2 * (Y > 0).float())],
            class_balanced([1, 2]),
            ValueError,
            r"labels hold 2 at .*, expected 0 to 1",
        ),
        ([(X, Y)], weighted(binary_cross_entropy, [1, 2]), ValueError, "expected 0 to 1"),
    ],
)
def test_a_first_batch_that_does_not_fit_is_told_in_a_line(
    batches: Any, loss: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as told:
        train_on(batches, loss=loss)
    assert "\n" not in str(told.value)


def test_soft_labels_and_weighted_squared_errors_are_taken() -> None:
    train_on([(X, torch.rand_like(Y))], loss=binary_cross_entropy)
    train_on([(X, Y)], loss=weighted(squared_error, [1, 2]))


@pytest.mark.parametrize("optimiser", ["Adam", Adam, torch.optim.Adam, None])
def test_an_optimiser_of_another_kind_is_told(optimiser: Any) -> None:
    with pytest.raises(TypeError, match=r"optimiser is .*, expected one of this library such as Adam\(\)"):
        TrainingSettings(steps=1, optimiser=optimiser)
