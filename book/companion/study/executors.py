"""Who runs the cells of a study: one small protocol, and this machine behind it; a cluster is in `on_ray`.

A study hands over what is to be done and takes what comes back, in whatever order; it knows nothing of processes. What
fails is a value among the others, so that it costs nothing but itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from companion.study.origin import Origin
from companion.study.workers import Failed, Result, Task, attempted, side_by_side

__all__ = ["LOCAL", "Executor", "Failed", "Local"]


class Executor(Protocol):
    """Runs a function on many tasks."""

    def results(
        self, work: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | Failed]]:
        """Each task once, with its result or with what became of it, as they end."""
        ...

    def prepared(self, origin: Origin, data: Callable[[], str]) -> Origin:
        """The origin with the device that tasks compute on, once they are known to find this code and these data."""
        ...


@dataclass(frozen=True)
class Local:
    """This machine: one task after another in this process, or side by side in processes of their own.

    Attributes:
        workers: Processes; 1 runs everything in this one.
    """

    workers: int = 1

    def results(
        self, work: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | Failed]]:
        """As `Executor.results`; with several workers `work`, tasks and results must be such as can be pickled."""
        if self.workers > 1 and len(tasks) > 1:
            yield from side_by_side(work, tasks, self.workers)
            return
        for task in tasks:
            yield task, attempted(work, task)

    def prepared(self, origin: Origin, data: Callable[[], str]) -> Origin:
        """The same: it is this machine's."""
        return origin


LOCAL = Local()
