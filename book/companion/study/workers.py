"""Processes that run cells side by side: one thread each, memory kept, gone when their parent is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Failed:
    """Takes the place of a result.

    Attributes:
        reason: What happened, in one line.
        died: Whether the process ended without a word.
    """

    reason: str
    died: bool = False

    @classmethod
    def by(cls, error: Exception) -> Failed:
        """What an error says; of one that nobody meant to show also its kind and its place in the code."""
        reason = shorten(str(error), 400, placeholder=" ...") or type(error).__name__
        if not isinstance(error, (ValueError, OSError, ArithmeticError, RuntimeError)):
            last = traceback.extract_tb(error.__traceback__)[-1:]
            place = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in last)
            reason = f"{type(error).__name__}: {reason}{place}"
        return cls(reason)


def attempted(work: Callable[[Task], Result], task: Task) -> Result | Failed:
    """The result, or what was raised."""
    try:
        return work(task)
    except Exception as error:  # whatever it is, the other tasks go on
        return Failed.by(error)


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


def side_by_side(
    work: Callable[[Task], Result], tasks: Sequence[Task], number: int
) -> Iterator[tuple[Task, Result | Failed]]:
    """Tasks with their results, as they come, from some processes.

    A task whose process dies is tried once more when all others have ended, alone: with the whole memory to itself.

    Args:
        work: Called with each task. It, the tasks and the results can be pickled.
        tasks: What is to be done.
        number: Of processes.
    """
    first, again = deque(tasks), deque[Task]()
    workers: list[_Worker] = []
    ended = False
    try:
        while True:
            busy = [worker for worker in workers if worker.tasks]
            while first and len(busy) < number:
                busy.append(_given(first.popleft(), work, workers))
            if not busy and again:
                busy.append(_given(again.popleft(), work, workers))
                busy[0].last_try = True
            if not busy:
                break
            for pipe in wait([worker.pipe for worker in busy]):
                worker = next(one for one in busy if one.pipe is pipe)
                task: Task = worker.tasks.pop()
                try:
                    found: Result | Failed = worker.pipe.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    worker.process.join()
                    if not worker.last_try:
                        again.append(task)
                        continue
                    found = Failed(DIED, died=True)
                yield task, found
        ended = True
    finally:
        for worker in workers:
            worker.end(kill=not ended)


DIED = (
    "its worker process died each time, expected it to finish: see whether memory ran out, use fewer workers, "
    "and start again"
)


class _Worker:
    """A process that does one task after another, and the parent's end of its pipe."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads and CUDA's state
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work))
        self.tasks: list[Any] = []  # one, or none
        self.last_try = False
        with fast_environment(), _interrupts_ignored():
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does

    def end(self, *, kill: bool) -> None:
        if not kill:
            with suppress(OSError):
                self.pipe.send(None)
            self.process.join(timeout=10)
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _given(task: Task, work: Callable[[Task], Result], workers: list[_Worker]) -> _Worker:
    """An idle worker, or a new one, that now has a task."""
    worker = next((one for one in workers if not one.tasks), None)
    if worker is None:
        worker = _Worker(work)
        workers.append(worker)
    worker.tasks.append(task)
    with suppress(OSError):  # it has died meanwhile, which is seen when its answer is asked for
        worker.pipe.send((task,))
    return worker


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal; those started inside leave the answer to their parent."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    """In a worker: do what comes through the pipe, until nothing more does."""
    parent = multiprocessing.parent_process()

    def watch() -> None:  # end with the parent, even if that was killed and could not say so
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    while (given := pipe.recv()) is not None:
        found = attempted(work, given[0])
        try:
            pipe.send(found)
        except Exception as error:  # a result that cannot be pickled
            pipe.send(Failed.by(error))
