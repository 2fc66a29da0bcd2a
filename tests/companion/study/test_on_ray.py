"""Cells on a cluster of real processes: the rows of one machine, whatever is killed, and what is refused in a line.

A head and two nodes of one CPU each, on loopback; Ray finds out in seconds, not in a quarter of a minute, that a node died.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_workers import ORIGIN, Steps

from companion.study import Cell, run_cells
from companion.study import on_ray as module
from companion.study.__main__ import main
from companion.study.cells import CellsFailedError, read_rows
from companion.study.executors import Local
from companion.study.on_ray import OnRay, ray_cluster
from companion.study.origin import Origin, commit
from companion.study.plan import synthetic_data

# Found, not imported: Ray takes its settings from the environment as it is imported.
pytestmark = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'mmoe_lib[scale]'"
)

CELLS = [Cell(f"model {i}", "p = 1", 1e-3, (0, 1), Steps(10)) for i in range(8)]
HERE = str(Path(__file__).parent)


def noted(folder: Path, seconds: float, cell: Cell[Any]) -> pd.DataFrame:
    """Rows that depend on the cell alone; says before which process and which raylet compute them."""
    with (folder / "noted").open("a") as file:
        file.write(f"{cell.model},{os.getpid()},{os.getppid()}\n")
    time.sleep(seconds)
    if cell.model == "raises":
        raise ValueError("no such model")
    return pd.DataFrame(
        {"seed": cell.seeds, "loss_1": [int(cell.model[-1]) + seed / 8 for seed in cell.seeds]}
    )


def started(folder: Path) -> list[tuple[str, int, int]]:
    path = folder / "noted"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(model, int(pid), int(raylet)) for model, pid, raylet in (line.split(",") for line in lines)]


def same_rows(one: pd.DataFrame, two: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", HERE, prepend=os.pathsep)  # of these cells; the companion's is there
        patch.setenv("RAY_worker_niceness", "0")  # else other tests leave workers nothing of the processor
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # loopback
        from ray.cluster_utils import Cluster

        soon = {
            "health_check_initial_delay_ms": 1000,
            "health_check_period_ms": 500,
            "health_check_failure_threshold": 4,
        }
        node = {"include_dashboard": False, "node_ip_address": "127.0.0.1"}
        cluster = Cluster(
            initialize_head=True, head_node_args={**node, "num_cpus": 0, "_system_config": soon}
        )
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def executor(cluster: Any) -> Iterator[OnRay]:
    with ray_cluster(cluster.address) as executor:
        yield executor


def test_it_listens_on_loopback_alone(cluster: Any) -> None:
    done = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True)
    rays = [line.split()[3] for line in done.stdout.splitlines() if "raylet" in line or "gcs_server" in line]
    assert len(rays) >= 3
    assert all("127.0.0.1" in address for address in rays), rays


def test_a_node_is_asked_for_its_code_and_data(executor: OnRay, tmp_path: Path) -> None:
    origin = Origin(commit(), "test", "smoke", "cpu", "2", "synthetic")
    assert executor.prepared(origin, synthetic_data) == origin
    with pytest.raises(
        ValueError, match=r"node 127\.0\.0\.1 has commit \w+\+?, expected abc as here"
    ) as caught:
        executor.prepared(ORIGIN, synthetic_data)
    assert "\n" not in str(caught.value)
    missing = partial((tmp_path / "census.csv").read_text)
    with pytest.raises(
        ValueError, match=r"node 127\.0\.0\.1 cannot run this study \(.*No such file.*census"
    ) as caught:
        executor.prepared(origin, missing)
    assert "\n" not in str(caught.value)


def test_a_cell_that_raises_loses_only_itself(executor: OnRay, tmp_path: Path) -> None:
    cells = [Cell("raises", "p = 1", 1e-3, (0,), Steps(10)), *CELLS[:2]]
    with pytest.raises(CellsFailedError, match=r"raises, p = 1, .* failed: no such model"):
        run_cells(
            cells,
            partial(noted, tmp_path, 0.0),
            tmp_path / "x.csv",
            ORIGIN,
            executor=executor,
            progress=False,
        )
    assert [model for model, _, _ in started(tmp_path)].count("raises") == 1  # an answer, not a loss
    assert len(read_rows(tmp_path / "x.csv")) == 4


def test_a_driver_that_is_killed_goes_on_where_it_was(executor: OnRay, cluster: Any, tmp_path: Path) -> None:
    code = (
        "import sys; from functools import partial; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_on_ray import CELLS, ORIGIN, noted, ray_cluster, run_cells\n"
        "folder = Path(sys.argv[2])\n"
        "with ray_cluster(sys.argv[3]) as executor:\n"
        "    run_cells(CELLS, partial(noted, folder, 0.5), folder / 'x.csv', ORIGIN, executor=executor, progress=False)\n"
    )
    command = [sys.executable, "-c", code, HERE, str(tmp_path), cluster.address]
    path, deadline = tmp_path / "x.csv", time.monotonic() + 60
    process = subprocess.Popen(command)
    while len(read_rows(path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    kept = len(read_rows(path))
    assert 4 <= kept < 2 * len(CELLS)
    resumed = run_cells(CELLS, partial(noted, tmp_path, 0.0), path, ORIGIN, executor=executor, progress=False)
    again = [model for model, _, _ in started(tmp_path)]
    assert [again.count(cell.model) for cell in CELLS[: kept // 2]] == [1] * (kept // 2)
    whole = run_cells(CELLS, partial(noted, tmp_path, 0.0), tmp_path / "y.csv", ORIGIN, progress=False)
    same_rows(resumed, whole)


def test_a_killed_worker_and_a_killed_node_change_no_row(
    executor: OnRay, cluster: Any, tmp_path: Path
) -> None:
    """The last: a node is gone afterwards."""
    (doomed,) = max(cluster.worker_nodes, key=lambda node: node.node_id).all_processes["raylet"]
    killed: list[str] = []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(killed) < 2:
            for model, worker, raylet in started(tmp_path)[len(killed) :]:
                if not killed:  # the first cell's worker
                    os.kill(worker, signal.SIGKILL)
                    killed.append(model)
                elif raylet == doomed.process.pid and model not in killed:
                    os.kill(raylet, signal.SIGKILL)
                    os.kill(worker, signal.SIGKILL)
                    killed.append(model)
                    break
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    rows = run_cells(
        CELLS, partial(noted, tmp_path, 1.0), tmp_path / "ray.csv", ORIGIN, executor=executor, progress=False
    )
    thread.join()
    assert len(killed) == 2
    tries = [model for model, _, _ in started(tmp_path)]
    assert all(tries.count(model) >= 2 for model in killed)
    assert not rows.duplicated(["model", "seed"]).any()
    (tmp_path / "local").mkdir()
    local = partial(noted, tmp_path / "local", 0.0)
    same_rows(
        rows, run_cells(CELLS, local, tmp_path / "local.csv", ORIGIN, executor=Local(2), progress=False)
    )


def test_what_cannot_be_had_is_one_line(
    executor: OnRay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["synthetic", "--preset", "smoke", "--results", str(tmp_path)]
    assert main([*command, "--address", "127.0.0.1:1"]) == 1
    assert main([*command, "--executor", "ray", "--address", "127.0.0.1:1", "--workers", "2"]) == 1
    assert main([*command, "--executor", "ray", "--cell", "MMoE"]) == 1
    assert main([*command, "--executor", "ray", "--device", "cuda"]) == 1
    monkeypatch.setattr(module, "ANSWERS_WITHIN", 1.5)
    assert main([*command, "--executor", "ray", "--address", "127.0.0.1:1"]) == 1
    monkeypatch.setattr(module, "find_spec", {}.get)
    assert main([*command, "--executor", "ray"]) == 1
    lines = capsys.readouterr().err.splitlines()
    expected = [
        "expected --executor ray",
        "--workers is asked for",
        "--cell is asked for",
        "0 GPUs per cell",
        "no answer within",
        "not installed",
    ]
    for line, part in zip(lines, expected, strict=True):
        assert part in line
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"GPUs per cell are 0\.5 and the cluster has 0"):
        module._check_gpus(0.5, 0.0)
    with pytest.raises(ValueError, match=r"GPUs per cell are 1\.5, expected a fraction"):
        module._check_gpus(1.5, 4.0)


def test_another_version_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(**_: object) -> None:
        raise RuntimeError(
            "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.12.1"
        )

    monkeypatch.setattr("ray.init", refuses)
    with pytest.raises(ValueError, match=r"Ray: 2\.59\.0 .*expected one with the versions") as caught:
        module._connect("127.0.0.1:6379", None)
    assert "\n" not in str(caught.value)
