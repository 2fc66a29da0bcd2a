"""The door of training: minibatches, labels and losses, looked at before they are trained on and refused in one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from mmoe_lib.models.embeddings import Inputs
from mmoe_lib.training.batches import Drawn, parts_of
from mmoe_lib.training.ensemble import Ensemble, name_of
from mmoe_lib.training.losses import Loss


class Inspected:
    """Minibatches without end, each looked at.

    Args:
        batches: An iterator, or what begins anew whenever it is iterated over, such as a DataLoader.
        ensemble: What is trained on them.
        loss: Outputs and labels (B, K) to one loss a task (K,); its `label_range`, if it has one, says which labels
            it takes.
        steps: How many are needed, for the message when they end.

    Raises:
        ValueError: At the next minibatch, if it is not one that the ensemble and the loss can take, or there is none.
    """

    def __init__(
        self, batches: Iterable[tuple[Inputs, Tensor]], ensemble: Ensemble, loss: Loss, steps: int
    ) -> None:
        self.ensemble, self.loss, self.steps, self.taken = ensemble, loss, steps, 0
        self.label_range: tuple[float, float] | None = getattr(loss, "label_range", None)
        self.flags: list[tuple[Tensor, Tensor]] = []
        self.minibatches = self._without_end(batches)

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        """Itself."""
        return self

    def __next__(self) -> tuple[Inputs, Tensor]:
        """The next minibatch."""
        x, y = self._checked(next(self.minibatches))
        self.taken += 1
        # Looked at later, since a look waits for a GPU.
        nan = y.isnan().any()
        self.flags.append((nan, nan if self.label_range is None else self._outside(y).any()))
        if self.taken == 1:
            self.first_look(x, y)
        return x, y

    def first_look(self, x: Inputs, y: Tensor) -> None:
        """Try the loss on a minibatch.

        Raises:
            ValueError: If outputs, labels and loss do not fit together.
        """
        if self.label_range is not None and bool(self._outside(y).any()):
            raise ValueError(self._told_outside(f"such as {float(y[self._outside(y)][0]):g}"))
        try:
            losses = self.ensemble.losses(self.loss, x, y)
        except TypeError:  # of a number type: the model says so in its own words at the step itself
            return
        finite = all(bool(torch.isfinite(part).all()) for part in parts_of(x))
        if finite and bool(y.isnan().any()) and bool(losses.isnan().any()):
            raise ValueError(
                f"labels hold NaN, for which {name_of(self.loss)} is NaN, expected a loss that leaves them out, or "
                "labels without: drop these rows"
            )

    def look(self) -> Tensor | None:
        """Whether labels held NaN, of each minibatch since the look before, (steps,); None if that is not known.

        Raises:
            ValueError: If the loss does not take some of the labels.
        """
        if not self.flags:
            return None
        nan, outside = (torch.stack(flags) for flags in zip(*self.flags, strict=True))
        self.flags = []
        if self.label_range is not None and bool(outside.any()):
            number = self.taken - len(nan) + int(outside.int().argmax()) + 1
            raise ValueError(self._told_outside(f"in minibatch {number}"))
        return nan

    def _outside(self, y: Tensor) -> Tensor:
        assert self.label_range is not None
        low, high = self.label_range
        return (y < low) | (y > high)

    def _told_outside(self, told: str) -> str:
        assert self.label_range is not None
        low, high = self.label_range
        return (
            f"labels lie outside of {low:g} to {high:g}, {told}, expected what {name_of(self.loss)} takes: NaN, not "
            "another number, stands for a label that is missing"
        )

    def _without_end(self, batches: Iterable[tuple[Inputs, Tensor]]) -> Iterator[tuple[Inputs, Tensor]]:
        try:
            source = iter(batches)
        except TypeError as error:
            raise ValueError(
                f"batches are {type(batches).__name__}, expected minibatches to iterate over: pairs (x, y)"
            ) from error
        before = -1
        while True:
            yield from source
            if source is batches:
                raise ValueError(
                    f"the batches ended after {self.taken} of {self.steps} steps, expected one a step: give what "
                    "begins anew, such as a DataLoader or mmoe_lib.training.epochs"
                )
            if self.taken in (0, before):
                raise ValueError("the batches are empty, expected at least one minibatch to begin with")
            before, source = self.taken, iter(batches)

    def _checked(self, batch: Any) -> tuple[Inputs, Tensor]:
        runs, device = len(self.ensemble), self.ensemble.device
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise ValueError(f"a minibatch is {_told(batch)}, expected a pair (x, y) of inputs and labels")
        x, y = batch
        if isinstance(x, list):  # what a DataLoader makes of pairs
            x = tuple(x)
        parts = parts_of(x) if isinstance(x, Tensor | tuple) else ()
        if not (parts and all(isinstance(part, Tensor) for part in (*parts, y))):
            raise ValueError(
                f"a minibatch holds {_told(x)} and {_told(y)}, expected tensors: inputs (B, d) and labels (B, K)"
            )
        named = [*(("inputs", part) for part in parts), ("labels", y)]
        for what, value in named:
            if value.dim() not in (2, 3) or (value.dim() == 3 and len(value) != runs):
                raise ValueError(
                    f"{what} of a minibatch have shape {tuple(value.shape)}, expected (B, ...) or, for each run its "
                    f"own, ({runs}, B, ...): two or three dimensions"
                )
            if value.device.type != device.type:
                raise ValueError(
                    f"{what} of a minibatch lie on {value.device}, expected {device} like the ensemble: .to(device)"
                )
        for part in parts:
            if part.shape[-2] != y.shape[-2] or not len(y):
                raise ValueError(
                    f"a minibatch has {part.shape[-2]} rows of inputs and {y.shape[-2]} of labels, expected as many, "
                    "at least one"
                )
        self.ensemble.check_ids(x)
        return x, y


def inspected(
    batches: Iterable[tuple[Inputs, Tensor]], ensemble: Ensemble, loss: Loss, steps: int
) -> Inspected | Drawn:
    """The minibatches, looked at; those that a GPU draws itself at the first one alone.

    Raises:
        ValueError: If there is nothing to train, or the loss is no function.
    """
    if not ensemble.trained:
        raise ValueError(
            f"all of {ensemble.model_name} is frozen, expected parameters to train: requires_grad_(True)"
        )
    if not callable(loss):
        raise ValueError(f"the loss is {_told(loss)}, expected a function of outputs and labels (B, K)")
    if isinstance(batches, Drawn):
        x, y = batches.draw(torch.tensor(batches.position, device=ensemble.device))
        Inspected([(x, y)], ensemble, loss, steps).first_look(x, y)
        return batches
    return Inspected(batches, ensemble, loss, steps)


def _told(value: object) -> str:
    return (
        f"{type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__
    )
