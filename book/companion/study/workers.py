"""Processes that run cells side by side: one thread each, memory kept, gone when their parent is gone."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

ENVIRONMENT = {
    # One process a core with one thread each: two such processes do 1.8 to 2 times the work of one, two threads less.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc otherwise gives the large tensors of every step back to the system and asks for them again: a fifth
    # of the time of a step with batches of 256.
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


class WorkerDiedError(RuntimeError):
    """A worker process ended without a word, usually because memory ran out or it was killed."""


class fast_environment:
    """What a process must find in its environment when it starts, in order to train fast on a CPU.

    Sets the variables, unless the user has set them, for the processes started inside of it.
    """

    def __enter__(self) -> None:
        self.before = dict(os.environ)
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)

    def __exit__(self, *exception: object) -> None:
        for name in ENVIRONMENT:
            if name not in self.before:
                del os.environ[name]


def _start() -> None:
    """Runs first in a worker: end with the parent, even if that was killed and could not say so."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Workers(Generic[Task, Result]):
    """Runs a function on many tasks in `number` processes.

    Args:
        function: Can be pickled, as every task and result.
        number: Of processes.
    """

    def __init__(self, function: Callable[[Task], Result], number: int) -> None:
        self.function, self.number = function, number

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Tasks with their results, as they come.

        Raises:
            WorkerDiedError: If a process died; whatever a task raised is raised as it is.
        """
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads and CUDA's state
        with (
            fast_environment(),
            ProcessPoolExecutor(min(self.number, len(tasks)), context, initializer=_start) as pool,
        ):
            futures: dict[Future[Result], Task] = {pool.submit(self.function, task): task for task in tasks}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BrokenProcessPool as error:
                raise WorkerDiedError(
                    "a worker process died, expected it to finish its cell: see whether memory ran out, use fewer "
                    "workers, and start again; finished cells are kept"
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
