"""Ids are whole numbers: every id reads its own row, whatever the weights' number type, or is refused in one line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mmoe_lib.models import MMoE, Ranker, SingleTask
from mmoe_lib.models.extensions import GateDropoutMMoE
from mmoe_lib.training import Ensemble, TrainingSettings, epochs, squared_error, train
from mmoe_lib.training.batches import own_epochs, with_noise
from mmoe_lib.training.door import inspected

S, F, V = 2, 3, 6
TOP = partial(MMoE, num_experts=2, expert_widths=(4,))
BUILD = partial(Ranker, S, F, V, 2, TOP)
OWN = partial(Ranker, S, F, V, 2, partial(SingleTask, bottom_widths=(4,)), own_embeddings=True)


def _data(rows: int = 24) -> tuple[tuple[Tensor, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(V, (rows, S), generator=generator)
    numbers = torch.randn(rows, F, generator=generator)
    return (ids, numbers), numbers[:, :2] + ids


PAIR, Y = _data()
FLAT = torch.cat(PAIR, dim=1)


def _train(ensemble: Ensemble, batches: Any, steps: int = 6, **settings: Any) -> Ensemble:
    train(ensemble, batches, squared_error, TrainingSettings(steps, **settings), progress=False)
    return ensemble


def _reads(vocabulary: int, dtype: torch.dtype, ids: Tensor) -> bool:
    ranker: Any = Ensemble(
        lambda g: Ranker(1, 0, vocabulary, 1, TOP, embedding_width=1, generator=g), [0], dtype=dtype
    ).module(0)
    return torch.equal(ranker.embeddings.table[0, ids.long(), 0], ranker.below(ids[:, None])[:, 0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_every_id_reads_its_own_row(dtype: torch.dtype) -> None:
    assert _reads(4_001, dtype, torch.arange(4_001))
    assert _reads(300, dtype, torch.arange(300, dtype=torch.int16))
    last = torch.arange(2**24, 2**24 + 16)
    if dtype != torch.float64:
        assert _reads(2**24 + 16, dtype, last)
    counted = {torch.bfloat16: 2**8, torch.float32: 2**24}.get(dtype)
    if counted:
        with pytest.raises(ValueError, match=r"which counts to .*, expected a pair") as caught:
            _reads(counted + 1, dtype, torch.zeros(1, dtype=dtype))
        assert "\n" not in str(caught.value)
        assert _reads(counted, dtype, torch.tensor([0, counted - 1]).to(dtype))


@pytest.mark.parametrize("build", [BUILD, OWN])
def test_a_pair_says_what_one_tensor_does(build: Any) -> None:
    ensemble = Ensemble(build, (1, 2))
    assert torch.equal(ensemble.predict(PAIR), ensemble.predict(FLAT))
    torch.testing.assert_close(ensemble.predict(PAIR, rows=7), ensemble.predict(FLAT))
    module = ensemble.module(1)
    assert torch.equal(module(PAIR), module(FLAT))
    own = tuple(torch.stack([part, part.flip(0)]) for part in PAIR)
    expected = torch.stack([ensemble.predict(FLAT)[0], ensemble.predict(FLAT.flip(0))[1]])
    torch.testing.assert_close(ensemble.predict(own), expected)  # type: ignore[arg-type]
    for given, y in ((PAIR, Y), (own, torch.stack([Y, Y.flip(0)]))):
        flat = torch.cat(given, dim=-1)
        gradients, losses = ensemble.gradients(squared_error, given, y)  # type: ignore[arg-type]
        expected_gradients, expected_losses = ensemble.gradients(squared_error, flat, y)
        assert torch.equal(losses, expected_losses)
        assert all(torch.equal(gradients[name], value) for name, value in expected_gradients.items())
    if build is BUILD:
        assert torch.equal(ensemble.gate_weights(PAIR), ensemble.gate_weights(FLAT))


def _loader() -> DataLoader[Any]:
    def collated(rows: list[Any]) -> list[Any]:
        ids, numbers, labels = map(torch.stack, zip(*rows, strict=True))
        return [[ids, numbers], labels]

    return DataLoader(TensorDataset(*PAIR, Y), batch_size=8, collate_fn=collated)


def _trained(batches: Any, **settings: Any) -> Tensor:
    return _train(Ensemble(BUILD, (1, 2)), batches, **settings).predict(FLAT)


def test_training_on_pairs_is_training_on_one_tensor() -> None:
    torch.testing.assert_close(_trained(epochs(PAIR, Y, 8)), _trained(epochs(FLAT, Y, 8)))
    rows = torch.arange(24).expand(2, -1)

    def take(at: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        return (PAIR[0][at], PAIR[1][at]), Y[at]

    flats = own_epochs(lambda at: (FLAT[at], Y[at]), rows, 8, seeds=(1, 2))
    torch.testing.assert_close(_trained(own_epochs(take, rows, 8, seeds=(1, 2))), _trained(flats))
    in_order = list(zip(FLAT.split(8), Y.split(8), strict=True))
    torch.testing.assert_close(_trained(_loader()), _trained(in_order))


@pytest.mark.filterwarnings("ignore:compile is True but there is no C")
def test_a_compiled_step_takes_pairs() -> None:
    compiled = _trained(epochs(PAIR, Y, 8), compile=True)
    torch.testing.assert_close(compiled, _trained(epochs(FLAT, Y, 8)))


def test_gate_dropout_takes_its_draws_beside_the_numbers() -> None:
    build = partial(Ranker, S, F, V, 2, partial(GateDropoutMMoE, num_experts=2, expert_widths=(4,)))
    pairs, flats = with_noise(epochs(PAIR, Y, 8), 4), with_noise(epochs(FLAT, Y, 8), 4)
    for (pair, _), (flat, _) in islice(zip(pairs, flats, strict=False), 3):
        assert torch.equal(torch.cat(pair, dim=1), flat)
    one = _train(Ensemble(build, (1, 2)), with_noise(epochs(PAIR, Y, 8), 4))
    other = _train(Ensemble(build, (1, 2)), with_noise(epochs(FLAT, Y, 8), 4))
    torch.testing.assert_close(one.predict(PAIR), other.predict(PAIR))


def _wrong() -> Iterator[tuple[str, Tensor, str]]:
    for name, wrong, told in (("beyond", V, f"to {V}, expected 0 to 5"), ("negative", -1, "from -1 to")):
        ids = PAIR[0].clone()
        ids[3, 1] = wrong
        yield name, ids, told


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("name", "ids", "told"), list(_wrong()))
def test_ids_that_have_no_row_are_refused_for_shared_and_own_inputs(
    name: str, ids: Tensor, told: str, shared: bool
) -> None:
    """Stacked, an id beyond the table of run 0 would be one of run 1's."""
    ensemble = Ensemble(BUILD, (1, 2))
    before = ensemble.predict(PAIR)
    numbers, y, good = PAIR[1], Y, PAIR
    if not shared:
        ids, numbers, y = (value.expand(2, -1, -1) for value in (ids, numbers, Y))
        good = (PAIR[0].expand(2, -1, -1), numbers)
    for x in ((ids, numbers), torch.cat([ids, numbers], dim=-1)):
        for action in (
            lambda x=x: ensemble.predict(x),
            lambda x=x: ensemble.gate_weights(x),
            lambda x=x: _train(ensemble, [(x, y)]),
        ):
            with pytest.raises(ValueError, match=told) as caught:
                action()
            assert "\n" not in str(caught.value)
        if shared:
            with pytest.raises(ValueError, match=told):
                ensemble.module(0)(x)
    assert torch.equal(ensemble.predict(PAIR), before)
    # Not only in the first minibatch, and before a compiled step, which looks at nothing.
    later = inspected([(good, y), ((ids, numbers), y)], ensemble, squared_error, 2)
    next(later)
    with pytest.raises(ValueError, match=told):
        next(later)


def test_ids_that_have_no_row_read_the_unknown_one_where_it_is_named() -> None:
    ensemble = Ensemble(partial(BUILD, unknown=2), (1, 2))
    ids, known = PAIR[0].clone(), PAIR[0].clone()
    ids[3, 1], ids[4, 0] = V + 5, -1
    known[3, 1] = known[4, 0] = 2
    assert torch.equal(ensemble.predict((ids, PAIR[1])), ensemble.predict((known, PAIR[1])))
    own = (torch.stack([ids, known]), PAIR[1].expand(2, -1, -1))
    torch.testing.assert_close(ensemble.predict(own), ensemble.predict((known, PAIR[1])))
    one = _train(Ensemble(partial(BUILD, unknown=2), (1, 2)), epochs((ids, PAIR[1]), Y, 8))
    other = _train(Ensemble(partial(BUILD, unknown=2), (1, 2)), epochs((known, PAIR[1]), Y, 8))
    assert torch.equal(one.predict(PAIR), other.predict(PAIR))
    for row in (-1, V):
        with pytest.raises(ValueError, match=f"unknown is {row}, expected a row of the table"):
            BUILD(unknown=row)


@pytest.mark.parametrize(
    ("x", "told"),
    [
        ((PAIR[0].float(), PAIR[1]), "ids are torch.float32, expected whole numbers"),
        ((PAIR[0] > 2, PAIR[1]), "ids are torch.bool, expected whole numbers"),
        ((PAIR[0][:, :1], PAIR[1]), r"ids have shape \(24, 1\).*expected"),
        ((PAIR[0], PAIR[1].double()), "input is torch.float64, expected torch.float32"),
        ((PAIR[0], PAIR[1][:, :2]), "input has shape .*expected"),
        (FLAT + 0.5, "an id is .*5, expected whole numbers"),
    ],
)
def test_inputs_of_another_kind_are_refused(x: Any, told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told) as caught:
        Ensemble(BUILD, (1, 2)).predict(x)
    assert "\n" not in str(caught.value)


class OwnTable(nn.Module):
    """A table of one's own, whose ids are columns of numbers."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.table = nn.Embedding(V, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x[:, 0].long())


@pytest.mark.parametrize("shared", [True, False])
def test_ids_of_a_table_of_ones_own_are_looked_at_too(shared: bool) -> None:
    ensemble = Ensemble(OwnTable, (1, 2))
    x = FLAT.clone()
    x[3, 0] = V
    x = x if shared else torch.stack([x, FLAT])
    for action in (lambda: ensemble.predict(x), lambda: _train(ensemble, [(x, Y)])):
        with pytest.raises(ValueError, match=r"ids of Embedding go from 0 to 6, expected 0 to 5"):
            action()
    torch.testing.assert_close(ensemble.module(1)(FLAT), ensemble.predict(FLAT)[1])
    assert not ensemble.module(1).get_submodule("table")._forward_pre_hooks
