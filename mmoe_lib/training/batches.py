"""Minibatches of a data set that fits in memory, shared by all runs of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from mmoe_lib.models.embeddings import Inputs
from mmoe_lib.seeds import seeded_generator

Given = TypeVar("Given", Tensor, tuple[Tensor, Tensor])
"""Inputs of either kind."""

Take = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Row numbers (B,) to inputs (B, d) and labels (B, K)."""


@runtime_checkable
class Drawn(Protocol):
    """Minibatches without end that are a function of their number, so that a captured GPU graph can draw them.

    Attributes:
        position: The number of the minibatch that comes next.
    """

    position: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Itself."""
        ...

    def __next__(self) -> tuple[Tensor, Tensor]:
        """The minibatch at `position`, which moves on by one."""
        ...

    def draw(self, number: Tensor) -> tuple[Tensor, Tensor]:
        """Minibatch `number`, a 0-dim int64 tensor on the batches' device, by tensor operations alone."""
        ...

    def part(self, start: int, stop: int) -> Drawn:
        """The minibatches of the runs from start to stop - 1."""
        ...


def parts_of(x: Inputs) -> tuple[Tensor, ...]:
    """The tensors that inputs consist of."""
    return (x,) if isinstance(x, Tensor) else tuple(x)


def rebuilt(like: Inputs, parts: Sequence[Tensor]) -> Any:
    """Inputs of the kind of others from their parts."""
    return parts[0] if isinstance(like, Tensor) else (parts[0], parts[1])


def check_finite(name: str, values: Tensor) -> None:
    """Raise ValueError naming the first entry of a (N, ...) tensor that is NaN or infinite."""
    if bool(torch.isfinite(values.sum())):  # then all are, and no copy of them was needed to see it
        return
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        place = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{name} hold {float(values[tuple(place)])} at {place}, expected finite numbers: clean the data first"
        )


def epochs(x: Given, y: Tensor, batch_size: int, *, seed: int = 0) -> Iterator[tuple[Given, Tensor]]:
    """Minibatches without end; every epoch visits the rows in a new random order.

    Rows that do not fill a last batch are left out of that epoch, so that all batches are of one size.
    All runs of an ensemble see the same batches: then one matrix product serves every run.

    Args:
        x: Inputs (N, d), or a pair of them.
        y: Labels (N, K); NaN where a label is missing, for a loss that leaves it out.
        batch_size: Rows B of a minibatch, at most N.
        seed: Decides the order of the rows.

    Yields:
        Inputs (B, d) and labels (B, K).

    Raises:
        ValueError: If x holds NaN or infinity or y infinity, lengths differ, or B is not in 1..N.
    """
    for part in parts_of(x):
        if len(part) != len(y):
            raise ValueError(
                f"{len(part)} rows of inputs and {len(y)} of labels, expected as many: pair them up"
            )
        check_finite("inputs", part)
    check_finite("labels", y.nan_to_num(0.0, torch.inf, -torch.inf))
    if not 1 <= batch_size <= len(y):
        raise ValueError(f"batch_size is {batch_size}, expected 1 to {len(y)}, the number of rows")

    def take(rows: Tensor) -> tuple[Given, Tensor]:
        return rebuilt(x, [part[rows] for part in parts_of(x)]), y[rows]

    return joined_epochs(take, len(y), batch_size, seed=seed, device=y.device)


def joined_epochs(
    take: Callable[[Tensor], tuple[Given, Tensor]],
    num_rows: int,
    batch_size: int,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Given, Tensor]]:
    """Minibatches without end, as `epochs`, of rows that are put together only when they are needed.

    Args:
        take: Gives inputs (B, d) and labels (B, K) of the rows whose numbers (B,) it is called with.
        num_rows: N.
        batch_size: Rows B of a minibatch, at most N.
        seed: Decides the order of the rows.
        device: Where the row numbers are to lie.

    Yields:
        Inputs (B, d) and labels (B, K).

    Raises:
        ValueError: If B is not in 1..N.
    """
    if not 1 <= batch_size <= num_rows:
        raise ValueError(f"batch_size is {batch_size}, expected 1 to {num_rows}, the number of rows")
    return _joined_epochs(take, num_rows, batch_size, seeded_generator(seed, "order of the rows"), device)


def _joined_epochs(
    take: Callable[[Tensor], tuple[Given, Tensor]],
    num_rows: int,
    batch_size: int,
    generator: torch.Generator,
    device: torch.device | str,
) -> Iterator[tuple[Given, Tensor]]:
    while True:
        order = torch.randperm(num_rows, generator=generator).to(device)
        for start in range(0, num_rows - batch_size + 1, batch_size):
            yield take(order[start : start + batch_size])


def own_epochs(
    take: Callable[[Tensor], tuple[Given, Tensor]],
    rows: Tensor,
    batch_size: int,
    *,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Given, Tensor]]:
    """Minibatches without end in which every run sees rows of its own, in an order of its own.

    Args:
        take: As for `joined_epochs`.
        rows: Row numbers of each run, (R, N).
        batch_size: Rows B of a minibatch, at most N.
        seeds: One a run, of its order; run r sees what `joined_epochs` with this seed would take of its rows.
        device: Where the row numbers are to lie.

    Yields:
        Inputs (R, B, d) and labels (R, B, K).

    Raises:
        ValueError: If B is not in 1..N, or there is not one seed a run.
    """
    runs, num_rows = rows.shape
    if not 1 <= batch_size <= num_rows:
        raise ValueError(f"batch_size is {batch_size}, expected 1 to {num_rows}, the number of rows")
    if len(seeds) != runs:
        raise ValueError(f"there are {len(seeds)} seeds and rows of {runs} runs, expected one a run")
    return _own_epochs(take, rows.to(device), batch_size, tuple(seeds))


def _own_epochs(
    take: Callable[[Tensor], tuple[Given, Tensor]], rows: Tensor, batch_size: int, seeds: tuple[int, ...]
) -> Iterator[tuple[Given, Tensor]]:
    generators = [seeded_generator(seed, "order of the rows") for seed in seeds]
    runs, num_rows = rows.shape
    while True:
        order = torch.stack([torch.randperm(num_rows, generator=generator) for generator in generators])
        ordered = rows.gather(1, order.to(rows.device))  # (R, N)
        for start in range(0, num_rows - batch_size + 1, batch_size):
            x, y = take(ordered[:, start : start + batch_size].flatten())
            own = [part.unflatten(0, (runs, batch_size)) for part in parts_of(x)]
            yield rebuilt(x, own), y.unflatten(0, (runs, batch_size))


def with_noise(
    batches: Iterator[tuple[Given, Tensor]], columns: int, *, seed: int = 0
) -> Iterator[tuple[Given, Tensor]]:
    """The same minibatches with further input columns of uniform draws from [0, 1), for `GateDropoutMMoE`.

    Runs that share a minibatch share its draws too.

    Args:
        batches: Inputs (B, d), or pairs whose numbers get the columns, and labels.
        columns: How many are added.
        seed: Of the draws.
    """
    generator: torch.Generator | None = None
    for x, y in batches:
        generator = generator or seeded_generator(seed, "gate dropout", y.device)
        yield _with_draws(x, columns, generator), y


def _with_draws(x: Given, columns: int, generator: torch.Generator) -> Given:
    *ids, numbers = parts_of(x)
    noise = torch.rand(
        *numbers.shape[:-1], columns, generator=generator, device=numbers.device, dtype=numbers.dtype
    )
    return rebuilt(x, [*ids, torch.cat([numbers, noise], dim=-1)])
