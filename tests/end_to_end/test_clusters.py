# SPDX-License-Identifier: Apache-2.0
"""A Dask cluster that is there already: the run uses its workers and leaves it as it was."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client, Worker

from insitu.staging import silence
from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import environment, outside, program, told, total
from tests.waiting import wait_until

pytestmark = pytest.mark.leaks_per_module

DASK = str(Path(sys.executable).with_name("dask"))


@contextmanager
def dask(*arguments: str, cwd: Path) -> Iterator[None]:
    """A command of Dask's, until the block ends."""
    process = subprocess.Popen(
        [DASK, *arguments], cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60.0)


@contextmanager
def cluster(folder: Path, host: str, workers: int) -> Iterator[Path]:
    """A scheduler with its workers at an address of this machine; yield its scheduler file."""
    file = folder / "scheduler.json"
    with ExitStack() as stack:
        scheduler = ("scheduler", "--host", host, "--no-dashboard", "--port", "0", "--scheduler-file", str(file))
        stack.enter_context(dask(*scheduler, cwd=folder))
        wait_until(file.exists, 60.0, "the scheduler file")
        worker = ("worker", "--host", host, "--no-dashboard", "--nworkers", str(workers), "--nthreads", "1")
        stack.enter_context(dask(*worker, "--scheduler-file", str(file), cwd=folder))
        yield file


@pytest.fixture(scope="module")
def scheduler_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A scheduler with two workers."""
    with cluster(tmp_path_factory.mktemp("dask"), "127.0.0.1", workers=2) as file:
        yield file


def address_in(file: Path) -> str:
    return str(json.loads(file.read_text())["address"])


def plugins_of(address: str) -> int:
    """How many plugins of ours the workers have."""
    with Client(address, timeout=10, set_as_default=False) as client:
        names = client.run(lambda dask_worker: [str(name) for name in dask_worker.plugins])
    return sum(name.startswith("insitu") for worker in names.values() for name in worker)


def test_its_workers_fold_and_are_left_as_they_were(start: Start, scheduler_file: Path) -> None:
    address = address_in(scheduler_file)
    running = start(
        *program("steady", "--steps", 30),
        ranks=2,
        nodes=2,
        staging={"cluster": address},
        operators={"sum": total(), "large": total(window=10)},
    )
    left = running.wait()
    assert left.status == 0, left.stderr
    np.testing.assert_array_equal(left.results("sum")["total"][0], 30 * np.arange(16) + sum(range(30)))
    assert len(left.report["staging"]) == 2
    assert plugins_of(address) == 0


def test_a_run_that_is_terminated_ends_as_by_ctrl_c_and_leaves_it_as_it_was(start: Start, scheduler_file: Path) -> None:
    """SIGTERM, as of batch systems and service managers, of which the controller alone hears."""
    running = start(
        *program("steady", "--steps", 1_000_000, "--pause", 0.01), ranks=2, staging={"cluster": str(scheduler_file)}
    )
    for rank in range(2):
        running.until(f"begun-{rank}")
    os.kill(running.process.pid, signal.SIGTERM)
    left = running.wait()
    assert left.status == 1
    assert "Stopping the simulation; press Ctrl-C again to end it at once." in left.stderr
    assert "Traceback" not in left.stdout + left.stderr
    report = left.report
    assert (report["status"], report["exit_status"], report["reasons"]) == ("interrupted", 1, [])
    steps = report["steps"]["delivered"]
    assert [each["steps"] for each in told(running.folder, 2)] == [steps] * 2
    assert report["steps"]["dropped"] == 0
    np.testing.assert_array_equal(left.results("sum")["total"][0], steps * np.arange(16) + sum(range(steps)))
    assert plugins_of(address_in(scheduler_file)) == 0


def test_a_controller_that_is_killed_leaves_its_workers_to_others_after_a_while(
    start: Start, scheduler_file: Path
) -> None:
    """The nodes end, threads, doors and what they hold, and the next run finds the workers as they were."""
    with Client(address_in(scheduler_file), timeout=10, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        before = client.run(kept)
        client.run(abandon_after, 6.0)  # three pings
        try:
            running = start(
                *program("steady", "--steps", 200, "--pause", 0.01, "--cells", 10_000),
                ranks=2,
                nodes=2,
                staging={"cluster": str(scheduler_file)},
                variables={"*": {"policy": "block", "max_wait": 0.5}},
                operators={"large": total(window=10)},
            )
            wait_until(lambda: running.windows("large") > 0, 60.0, "a first window")
            assert all(each["threads"] > 0 and each["doors"] > 1 for each in client.run(kept).values())
            os.kill(running.process.pid, signal.SIGKILL)
            running.process.wait()
            wait_until(lambda: client.run(kept) == before, 60.0, "the nodes' end")
            wait_until(lambda: plugins_of(address_in(scheduler_file)) == 0, 60.0, "the plugins' end")
            assert client.run_on_scheduler(known) == ([], 1)
        finally:
            client.run(abandon_after, 600.0)
        for rank in range(2):
            wait_until((running.folder / f"rank-{rank}.json").exists, 60.0, "the ranks' end")
        running = start(*program("steady", "--steps", 30), ranks=2, nodes=2, staging={"cluster": str(scheduler_file)})
        left = running.wait()
        assert left.status == 0, left.stderr
        np.testing.assert_array_equal(left.results("sum")["total"][0], 30 * np.arange(16) + sum(range(30)))


def abandon_after(seconds: float) -> None:
    """Have nodes that a worker starts from now on give up a controller that is silent for so long."""
    silence.ABANDONED_S = seconds


def kept(dask_worker: Worker) -> dict[str, int]:
    """What of our nodes is in a worker: their threads, the doors of all that listens, the states that they hold."""
    connections = psutil.Process().net_connections("tcp")
    return {
        "threads": sum(thread.name.startswith("insitu") for thread in threading.enumerate()),
        "doors": sum(each.status == psutil.CONN_LISTEN for each in connections),
        "states": sum(str(key).startswith("insitu") for key in dask_worker.data),
    }


def known(dask_scheduler: Any) -> tuple[list[str], int]:
    """What the scheduler keeps for our nodes, and its clients but its own."""
    held = [str(key) for key in dask_scheduler.tasks if str(key).startswith("insitu")]
    return held, sum(not client.startswith("fire-and-forget") for client in dask_scheduler.clients)


@pytest.mark.skipif(not outside(), reason="this machine has no interface but loopback")
def test_beyond_loopback_links_are_encrypted_and_what_dask_leaves_open_is_said(start: Start, tmp_path: Path) -> None:
    (address, *_) = outside().values()
    with cluster(tmp_path, address, workers=2) as file:
        running = start(*program("steady", "--steps", 30), ranks=2, nodes=2, staging={"cluster": str(file)})
        left = running.wait()
    assert left.status == 0, left.stderr
    np.testing.assert_array_equal(left.results("sum")["total"][0], 30 * np.arange(16) + sum(range(30)))
    assert left.report["network"] == {"encrypted": True, "refused_clients": 0}
    (event,) = left.events("dask-in-the-clear")
    assert f"The Dask cluster at tcp://{address}:" in event["text"]
    assert event["text"] in left.stderr.replace("\n", " ")
