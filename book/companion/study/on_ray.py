"""Cells on a cluster: each is a Ray task, and this process, the driver, alone writes rows.

A driver runs on a machine of the cluster; a node needs the same Python, packages, checkout and data files as the driver's
machine. The page "On many machines" says how to start one. Ray is imported only when a cluster is asked for.
"""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch

from companion.study.origin import Origin, commit
from companion.study.workers import ENVIRONMENT, Failed, Result, Task, attempted

ANSWERS_WITHIN = 10.0
"""Seconds after which a cluster that does not answer is given up."""

RETRIES = 3
"""How often a cell is tried again when the worker or the node that runs it is lost."""


@dataclass(frozen=True)
class OnRay:
    """A cluster to which this process is connected, as `ray_cluster` gives it.

    Attributes:
        gpus_per_cell: Of each cell, a fraction where several share one; 0 to train on CPUs.
    """

    gpus_per_cell: float = 0.0

    def prepared(self, origin: Origin, data: Callable[[], str]) -> Origin:
        """As `Executor.prepared`: asks every node for its code and data; names the GPU that cells train on.

        Raises:
            ValueError: If a node has other code, lacks the data, or has others.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask: Any = ray.remote(num_cpus=0, max_retries=0)(attempted)
        asked = [
            (
                node["NodeManagerAddress"],
                ask.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ).remote(_state_of, data),
            )
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU")
        ]
        if not asked:
            raise ValueError(
                "the cluster has no CPUs, expected one at least: add a node with `ray start --address`"
            )
        for node, answer in asked:
            state = _result(answer)
            if isinstance(state, Failed):
                raise ValueError(
                    f"node {node} cannot run this study ({state.reason}), expected it to have this checkout and the "
                    "data: put them there at the same place, or take it out of the cluster"
                )
            for what, its, ours in zip(("commit", "data"), state, (origin.commit, origin.data), strict=True):
                if its != ours:
                    raise ValueError(
                        f"node {node} has {what} {its}, expected {ours} as here: bring it to the same state"
                    )
        if not self.gpus_per_cell:
            return origin
        on_gpu: Any = ray.remote(num_gpus=self.gpus_per_cell)(attempted)
        name = _result(on_gpu.remote(_gpu, None))
        if isinstance(name, Failed):
            raise ValueError(
                f"the cluster's GPU cannot be used ({name.reason}), expected one that torch sees: see its node"
            )
        return replace(origin, device=name)

    def results(
        self, work: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | Failed]]:
        """As `Executor.results`; `work`, tasks and results must be such as can be pickled."""
        import ray

        run: Any = ray.remote(num_cpus=1, num_gpus=self.gpus_per_cell, max_retries=RETRIES)(attempted)
        shared = ray.put(work)
        left, running = iter(tasks), dict[Any, Task]()
        while True:
            # Enough to keep every slot busy, nodes that join counted, without a million tasks in the scheduler's hands.
            ahead = 10 + 2 * int(ray.cluster_resources().get("CPU", 1))
            while len(running) < ahead and (task := next(left, None)) is not None:
                running[run.remote(shared, task)] = task
            if not running:
                return
            (ended,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ended), _result(ended)


def _result(answer: Any) -> Any:
    """What a task gave, or that its process was lost each time."""
    import ray

    try:
        return ray.get(answer)
    except (
        ray.exceptions.RayTaskError
    ) as error:  # such as a module that is not there; what `work` raises is a result
        return Failed(" ".join(str(error).split())[-300:])
    except ray.exceptions.RayError as error:
        return Failed(
            f"it was lost with its worker or node each time ({type(error).__name__}), expected it to finish: see "
            "whether memory ran out there, and start again",
            died=True,
        )


def _gpu(_: None) -> str:
    """On a node: the name of the GPU that this task was given."""
    return torch.cuda.get_device_name()


def _state_of(data: Callable[[], str]) -> tuple[str, str]:
    """On a node: its commit, and the sums of its data."""
    return commit(), data()


@contextmanager
def ray_cluster(
    address: str | None = None, *, workers: int | None = None, gpus_per_cell: float = 0.0
) -> Iterator[OnRay]:
    """Connect to a running cluster, or start one on this machine that ends with the block.

    One that is started here listens on loopback alone, without a dashboard, and asks for a token that only this process
    and its children know.

    Args:
        address: Host and port of the head, or "auto" for the cluster that this machine is part of; None starts one.
        workers: CPUs of the one that is started; None for all.
        gpus_per_cell: As in `OnRay`.

    Raises:
        ValueError: If Ray is missing, the cluster does not answer, has another version, or has not the GPUs.
    """
    if find_spec("ray") is None:
        raise ValueError(
            "Ray is not installed, expected it for --executor ray: pip install 'mmoe_lib[scale]'"
        )
    started = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(RETRIES)}
    if address is None:
        started |= {
            "RAY_worker_niceness": "0",  # Ray's 15 would leave cells a tenth of what any other process gets
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for loopback; else it listens on all interfaces
        }
    before = {name: os.environ.get(name) for name in started}
    os.environ.update(started)
    try:
        if address is not None:
            _answers(address)
        _connect(address, workers)
        import ray

        try:
            _check_gpus(gpus_per_cell, ray.cluster_resources().get("GPU", 0.0))
            yield OnRay(gpus_per_cell)
        finally:
            ray.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _answers(address: str) -> None:
    """Ask in a process that can be stopped: Ray itself waits for a minute, and longer."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    command += [] if address == "auto" else ["--address", address]
    reason = f"no answer within {ANSWERS_WITHIN:g} seconds"
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWERS_WITHIN,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        pass
    else:
        if done.returncode == 0:
            return
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = " ".join(lines[-1].split())[:200] if lines else f"exit status {done.returncode}"
    raise ValueError(
        f"address is {address!r} ({reason}), expected that of a running cluster: start its head with `ray start --head`, "
        "and give this process the cluster's token"
    )


def _connect(address: str | None, workers: int | None) -> None:
    import ray

    wanted = {**ENVIRONMENT, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    own: dict[str, Any] = {} if address is not None else {
        "num_cpus": workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"
    }  # fmt: skip
    try:
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": {name: os.environ.get(name, value) for name, value in wanted.items()}},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
    except (RuntimeError, ConnectionError, ValueError) as error:
        what = " ".join(str(error).split())
        raise ValueError(
            f"the cluster at {address or 'this machine'} cannot be used: {what[:300]}; expected one with the versions of "
            "Ray and Python that run here, of which this machine is a node"
        ) from error


def _check_gpus(asked: float, there: float) -> None:
    if asked < 0 or (asked > 1 and asked != int(asked)):
        raise ValueError(f"GPUs per cell are {asked:g}, expected a fraction up to 1, or a whole number")
    if asked > there:
        raise ValueError(
            f"GPUs per cell are {asked:g} and the cluster has {there:g}, expected no more than it has: add nodes with "
            "GPUs, or leave --gpus-per-cell out"
        )
