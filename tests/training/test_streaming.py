"""Streamed batches are those of the log in memory in another order, and memory does not grow with the log."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from companion.benchmarks.random_log import random_impressions, random_tables
from mmoe_lib.tasks.kuairand.store import ImpressionStore, write
from mmoe_lib.training.batches import joined_epochs
from mmoe_lib.training.streaming import streamed_epochs

ROWS, BATCH, BLOCK = 1000, 64, 100
WHOLE = ROWS // BATCH  # batches an epoch: 15, so that 40 rows are left over


@pytest.fixture
def columns(tmp_path: Path) -> dict[str, Path]:
    """A column with the number of each row, and one of two numbers a row that follow from it."""
    numbers = np.arange(ROWS, dtype=np.int32)
    written = {"number": numbers, "pair": np.stack([numbers * 2.0, -numbers], axis=1).astype(np.float32)}
    for name, array in written.items():
        np.save(tmp_path / f"{name}.npy", array)
    return {name: tmp_path / f"{name}.npy" for name in written}


def _take(rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    return rows["number"], rows["pair"]


def _epochs(
    columns: Mapping[str, Path], number: int, *, seed: int = 0, batch: int = BATCH, held: int = 3
) -> list[Tensor]:
    """The row numbers of the first epochs in the order in which they came."""
    batches = streamed_epochs(columns, _take, batch, seed=seed, block_rows=BLOCK, blocks_held=held)
    whole = ROWS // batch
    return [torch.cat([x for x, _ in islice(batches, whole)]) for _ in range(number)]


@pytest.mark.parametrize("held", [1, 3, 4, 100])
@pytest.mark.parametrize("batch", [1, 64, 250, 301, 1000])
def test_every_row_comes_once_an_epoch(columns: Mapping[str, Path], held: int, batch: int) -> None:
    """Up to those that do not fill a last batch; a batch may be larger than all blocks held."""
    for numbers in _epochs(columns, 3, batch=batch, held=held):
        assert len(numbers) == ROWS // batch * batch
        assert len(numbers.unique()) == len(numbers)
        assert numbers.min() >= 0
        assert numbers.max() < ROWS


def test_rows_left_out_are_others_in_every_epoch(columns: Mapping[str, Path]) -> None:
    left_out = [set(range(ROWS)) - set(numbers.tolist()) for numbers in _epochs(columns, 5)]
    assert all(len(rows) == ROWS - WHOLE * BATCH for rows in left_out)
    assert len(set.union(*left_out)) > 2 * (ROWS - WHOLE * BATCH)


def test_columns_stay_together_and_batches_are_of_one_size(columns: Mapping[str, Path]) -> None:
    batches = streamed_epochs(columns, _take, BATCH, block_rows=BLOCK, blocks_held=3)
    for x, y in islice(batches, 3 * WHOLE):
        assert (x.shape, y.shape) == ((BATCH,), (BATCH, 2))
        assert (x.dtype, y.dtype) == (torch.int32, torch.float32)
        torch.testing.assert_close(y, torch.stack([x * 2.0, -x.float()], dim=1), rtol=0, atol=0)


def test_order_follows_from_the_seed_and_is_new_in_every_epoch(columns: Mapping[str, Path]) -> None:
    first, second = _epochs(columns, 2)
    again, _ = _epochs(columns, 2)
    (other,) = _epochs(columns, 1, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_batch_holds_rows_from_all_over_the_pool(columns: Mapping[str, Path]) -> None:
    """Of each block held, and in no order; with all blocks in the pool a batch is a sample of the log."""
    for numbers in _epochs(columns, 2, held=3):
        for start in range(0, 2 * BATCH, BATCH):
            batch = numbers[start : start + BATCH]
            assert len((batch // BLOCK).unique()) == 3
            assert 0.3 < (batch.diff() > 0).float().mean() < 0.7
    (numbers,) = _epochs(columns, 1, held=10)
    assert len((numbers[:BATCH] // BLOCK).unique()) == 10


def test_blocks_are_held_with_others_in_every_epoch(columns: Mapping[str, Path]) -> None:
    first = [frozenset((numbers[:BATCH] // BLOCK).tolist()) for numbers in _epochs(columns, 5)]
    assert len(set(first)) > 2


def test_pools_are_of_about_one_size(columns: Mapping[str, Path]) -> None:
    """11 blocks with 10 held: not 10 and then a single one, whose rows would fill whole batches."""
    batches = streamed_epochs(columns, _take, BATCH, block_rows=91, blocks_held=10)
    numbers = [x for x, _ in islice(batches, WHOLE)]
    assert max(int((x // 91).bincount().max()) for x in numbers) < BATCH / 2


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImpressionStore:
    features = random_tables(50, 40)
    return write(
        tmp_path_factory.mktemp("streaming") / "store", random_impressions(features, 5_000), features
    )


def test_an_epoch_holds_the_rows_that_joined_epochs_gives(store: ImpressionStore) -> None:
    part = store.impressions()
    size, number = 500, 10  # no row is left out

    def rows(batches: Iterator[tuple[Tensor, Tensor]]) -> list[list[float]]:
        return sorted(torch.cat([torch.cat(pair, dim=1) for pair in islice(batches, number)]).tolist())

    streamed = rows(streamed_epochs(store.columns, store.take, size, block_rows=700, blocks_held=2))
    joined = rows(joined_epochs(lambda index: store.features.rows(part, index), len(part), size))
    assert streamed == joined
    assert len({tuple(row) for row in joined}) > 4_900  # rows are told apart


_TRAIN = """
import json, sys
from functools import partial
from itertools import count, islice
import torch
from mmoe_lib.models import Ranker, SharedBottom
from companion.benchmarks.streaming import peak_memory
from mmoe_lib.tasks.kuairand.store import open_store
from mmoe_lib.training import Adam, Ensemble, binary_cross_entropy
from mmoe_lib.training.step import Step
from mmoe_lib.training.streaming import streamed_epochs

torch.set_num_threads(1)
store = open_store(sys.argv[1])
batch, steps = 4096, int(sys.argv[2])
batches = streamed_epochs(store.columns, store.take, batch, block_rows=1 << 12, blocks_held=4)
tables = store.features
sizes = len(tables.sparse_names), len(tables.dense_names), tables.vocabulary, 2
ensemble = Ensemble(partial(Ranker, *sizes, partial(SharedBottom, bottom_widths=(4,))), [0])
step = Step(ensemble, binary_cross_entropy, torch.tensor([1e-3]), Adam())
for number in range(1, 5):
    first, _ = step(*next(batches), number)
before = peak_memory()
for number, (x, y) in zip(range(5, steps + 1), batches):
    losses, _ = step(x, y, number)
print(json.dumps([before, peak_memory(), first.tolist(), losses.tolist()]))
"""


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """A whole epoch of a log of 2,000,000 rows, which is 86 MB, in a process of its own."""
    features, peaks = random_tables(2_000, 500), {}
    for times in (1, 100):
        rows = 20_000 * times
        folder = write(tmp_path / str(rows), random_impressions(features, rows), features).folder
        steps = max(rows // 4096, 20)
        done = subprocess.run(
            [sys.executable, "-c", _TRAIN, str(folder), str(steps)],
            capture_output=True,
            text=True,
            check=True,
        )
        before, peaks[times], first, last = json.loads(done.stdout)
        assert np.isfinite(last).all()
        if times == 100:
            assert np.sum(last) < np.sum(first)
        assert peaks[times] - before < 20e6
    assert peaks[100] - peaks[1] < 20e6


def test_a_file_that_is_damaged_while_it_is_read_is_one_line(columns: Mapping[str, Path]) -> None:
    """Touching a page behind the end of a mapped file would kill the process."""
    batches = streamed_epochs(columns, _take, BATCH, block_rows=BLOCK, blocks_held=1)
    next(batches)
    path = columns["pair"]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"pair\.npy is cut short or damaged"):
        list(islice(batches, WHOLE))


def test_bad_columns_are_one_line(columns: dict[str, Path], tmp_path: Path) -> None:
    def told(columns: Mapping[str, Path], error: type[Exception]) -> str:
        with pytest.raises(error) as raised:
            streamed_epochs(columns, _take, BATCH)
        message = str(raised.value)
        assert "\n" not in message
        return message

    assert "there are no columns" in told({}, ValueError)
    missing = columns | {"number": tmp_path / "nowhere.npy"}
    assert "nowhere.npy is missing" in told(missing, FileNotFoundError)
    np.save(tmp_path / "shorter.npy", np.arange(999))
    shorter = columns | {"shorter": tmp_path / "shorter.npy"}
    assert "(number 1,000, pair 1,000, shorter 999)" in told(shorter, ValueError)
    np.save(tmp_path / "words.npy", np.array(["word"] * ROWS))
    assert "words.npy holds <U4" in told(columns | {"words": tmp_path / "words.npy"}, ValueError)
    np.savez(tmp_path / "many.npz", one=np.arange(ROWS))
    assert "many.npz" in told(columns | {"many": tmp_path / "many.npz"}, ValueError)
    columns["pair"].write_bytes(columns["pair"].read_bytes()[:-4])
    assert "pair.npy is cut short or damaged" in told(columns, ValueError)


@pytest.mark.parametrize("number", [0, ROWS + 1])
def test_bad_numbers_are_one_line(columns: Mapping[str, Path], number: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size is {number}, expected 1 to {ROWS}"):
        streamed_epochs(columns, _take, number)


def test_blocks_below_one_are_one_line(columns: Mapping[str, Path]) -> None:
    with pytest.raises(ValueError, match="block_rows is 0, expected 1 or more"):
        streamed_epochs(columns, _take, BATCH, block_rows=0)
    with pytest.raises(ValueError, match="blocks_held is -1, expected 1 or more"):
        streamed_epochs(columns, _take, BATCH, blocks_held=-1)
