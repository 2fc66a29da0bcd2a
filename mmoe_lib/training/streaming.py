"""Minibatches of a data set that memory does not hold, read from columns on disk while training goes on.

A column is read in blocks of neighbouring rows, because single rows from all over a file would need a read from
the disk each. Neighbours are alike (one user's rows lie together), so a batch is not drawn from one block but
from a pool of many, which lie together in memory in every epoch anew: blocks in random order, and the pool's
rows in random order. A log that fits into the pool as a whole is shuffled as `joined_epochs` does it.

Nothing is read ahead by a thread, which could not help: reading a pool of a million rows took 0.1 s, training a
small model on them 20 s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmoe_lib.seeds import seeded_generator
from mmoe_lib.tasks.kuairand.column_files import mapped
from mmoe_lib.training.batches import Given

BLOCK_ROWS = 1 << 16
BLOCKS_HELD = 16
"""Together a million rows: 45 MB of a log with 43 bytes a row."""


def streamed_epochs(
    columns: Mapping[str, Path],
    take: Callable[[Mapping[str, Tensor]], tuple[Given, Tensor]],
    batch_size: int,
    *,
    seed: int = 0,
    block_rows: int = BLOCK_ROWS,
    blocks_held: int = BLOCKS_HELD,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Given, Tensor]]:
    """Minibatches without end, as `joined_epochs`, of rows that lie in memory-mapped files.

    Every epoch visits each row once, in a new random order, but for the rows that do not fill its last batch.
    Memory does not grow with the number of rows N: it is that of the pool and of one block.

    Args:
        columns: The .npy file of each column, (N, ...).
        take: Gives inputs (B, d), or a pair of ids and numbers, and labels (B, K) of rows of the columns (B, ...).
        batch_size: Rows B of a minibatch, at most N.
        seed: Decides the order of the rows.
        block_rows: Neighbouring rows that are read together.
        blocks_held: Blocks of the pool from which batches are drawn.
        device: Where the pool lies; `take` is called with rows there.

    Yields:
        Inputs (B, d) and labels (B, K).

    Raises:
        ValueError: If there are no columns, they differ in length, one is damaged or of a type that torch does not
            know, B is not in 1..N, or a number of blocks or rows is below 1.
        FileNotFoundError: If a column's file is missing.
    """
    for name, value in (("block_rows", block_rows), ("blocks_held", blocks_held)):
        if value < 1:
            raise ValueError(f"{name} is {value}, expected 1 or more")
    num_rows = _common_length(columns)
    if not 1 <= batch_size <= num_rows:
        raise ValueError(f"batch_size is {batch_size}, expected 1 to {num_rows}, the number of rows")
    # Up to B - 1 rows wait in the pool for the next blocks.
    pool = _Pool(columns, min(block_rows * blocks_held, num_rows) + batch_size - 1, device)
    blocks = [slice(start, min(start + block_rows, num_rows)) for start in range(0, num_rows, block_rows)]
    generator = seeded_generator(seed, "order of the blocks and rows")
    return _streamed_epochs(pool, blocks, blocks_held, take, batch_size, generator)


def _streamed_epochs(
    pool: _Pool,
    blocks: list[slice],
    blocks_held: int,
    take: Callable[[Mapping[str, Tensor]], tuple[Given, Tensor]],
    batch_size: int,
    generator: torch.Generator,
) -> Iterator[tuple[Given, Tensor]]:
    fillings = -(-len(blocks) // blocks_held)
    while True:
        # Fillings of about one size: a last one of a single block would end each epoch with rows of few users.
        for filling in torch.randperm(len(blocks), generator=generator).tensor_split(fillings):
            for number in filling.tolist():
                pool.read(blocks[number])
            order = torch.randperm(pool.num_rows, generator=generator).to(pool.device)
            whole = pool.num_rows - pool.num_rows % batch_size
            for start in range(0, whole, batch_size):
                yield take(pool.rows(order[start : start + batch_size]))
            pool.keep(order[whole:])
        pool.keep(order[:0])


class _Pool:
    """Rows of all columns in memory, in tensors that are made once and filled again and again.

    Args:
        columns: The file of each.
        capacity: Rows that have room.
        device: Where.
    """

    def __init__(self, columns: Mapping[str, Path], capacity: int, device: torch.device | str) -> None:
        self.columns, self.device, self.num_rows = columns, device, 0
        self.tensors: dict[str, Tensor] = {}
        for name, path in columns.items():
            column = mapped(path)
            try:
                dtype = torch.from_numpy(np.empty(0, column.dtype)).dtype
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path} holds {column.dtype}, expected numbers of a type that torch knows"
                ) from error
            self.tensors[name] = torch.empty((capacity, *column.shape[1:]), dtype=dtype, device=device)

    def read(self, block: slice) -> None:
        """Add the rows of a block."""
        end = self.num_rows + block.stop - block.start
        for name, path in self.columns.items():
            # Opened for this block alone: pages count as this process's memory until the mapping is dropped. And a
            # file that was cut in the meantime is found here; touching a page behind its end would kill the process.
            rows = np.array(mapped(path)[block])
            self.tensors[name][self.num_rows : end].copy_(torch.from_numpy(rows))
        self.num_rows = end

    def rows(self, numbers: Tensor) -> dict[str, Tensor]:
        """Rows of all columns by their numbers (B,)."""
        return {name: tensor.index_select(0, numbers) for name, tensor in self.tensors.items()}

    def keep(self, numbers: Tensor) -> None:
        """Drop all rows but these."""
        for name, rows in self.rows(numbers).items():
            self.tensors[name][: len(rows)] = rows
        self.num_rows = len(numbers)


def _common_length(columns: Mapping[str, Path]) -> int:
    """The number of rows of all columns."""
    if not columns:
        raise ValueError("there are no columns, expected the file of at least one")
    lengths = {name: len(mapped(path)) for name, path in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise ValueError(f"the columns have different numbers of rows ({told}), expected one for all")
    return next(iter(lengths.values()))
