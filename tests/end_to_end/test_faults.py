# SPDX-License-Identifier: Apache-2.0
"""Parts of a run that hang for a while: every put keeps its bound, what is lost is counted, and the rest goes on."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np

from tests.end_to_end.conftest import Start
from tests.end_to_end.proxy import Proxy
from tests.end_to_end.runs import LIMIT_S, SLACK_S, Left, Running, environment, program, told, total
from tests.end_to_end.test_external import contact_of
from tests.waiting import wait_until

MAX_WAIT_S = 0.5
#: How long a part stands still: longer than any wait of the ranks.
STOPPED_S = 20.0


def goes_on(running: Running) -> None:
    """Wait until more windows are stored than there are now."""
    before = running.windows("ten")
    wait_until(lambda: running.windows("ten") > before or running.process.poll() is not None, LIMIT_S, "another window")
    assert running.process.poll() is None, running.stderr


def check(left: Left, ranks: int, max_wait_s: float) -> None:
    """Every put kept its bound, every step is accounted for, and whole windows are right."""
    said = told(left.directory.parents[1], ranks)
    steps = left.report["steps"]
    assert max(rank["longest_s"] for rank in said) < max_wait_s + SLACK_S
    assert {rank["steps"] for rank in said} == {steps["produced"]}
    assert steps["delivered"] + steps["dropped"] == steps["produced"]
    assert sum(steps["dropped_because"].values()) == steps["dropped"]
    ten = left.results("ten")
    whole = ten["window"].values[ten["complete"].values]
    assert len(whole) > 0
    expected = [10 * np.arange(8 * ranks) + sum(range(10 * k, 10 * k + 10)) for k in whole]
    np.testing.assert_array_equal(ten["total"].values[ten["complete"].values], expected)


def test_a_staging_node_and_a_controller_that_stand_still_for_20_s_and_go_on(start: Start) -> None:
    """SIGSTOP, each in a run of its own, of two nodes: these need the controller's word for each step.

    The ranks print more meanwhile than a pipe would hold that nobody reads, and it is shown afterwards.
    """
    runs = [
        start(
            *program("steady", "--steps", 100_000, "--pause", 0.01, "--talk", 1000),
            ranks=2,
            nodes=2,
            operators={"ten": total(window=10)},
            variables={"*": {"policy": "block", "buffer": "4 KiB", "max_wait": MAX_WAIT_S}},
        )
        for _ in range(2)
    ]
    for running in runs:
        goes_on(running)
    processes = [runs[0].descendants("spawn_main")[0].pid, runs[1].process.pid]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        threading.Event().wait(STOPPED_S)
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    for running in runs:
        goes_on(running)
        running.interrupt()
        left = running.wait()
        assert left.report["status"] == "interrupted"
        assert left.report["reasons"] == []
        assert left.report["steps"]["dropped"] > 100  # of the two thousand that were put meanwhile
        check(left, 2, MAX_WAIT_S)
        lines = [line.rstrip(".") for line in left.stdout.splitlines()]
        for rank in range(2):
            said = [line for line in lines if line.endswith(f"of rank {rank} ")]
            assert said == [f"step {n} of rank {rank} " for n in range(left.report["steps"]["produced"])]


def test_a_network_that_hangs_and_heals_loses_nothing_and_one_that_does_not_costs_one_wait(start: Start) -> None:
    max_wait_s, steps = 3.0, 1200
    with Proxy() as proxy:
        running = start(
            *program("through", proxy.port, "--steps", steps, "--pause", 0.004),
            operators={"ten": total(window=10)},
            staging={"transport": "tcp"},
            variables={"*": {"policy": "block", "buffer": "4 KiB", "max_wait": max_wait_s}},
            impatient=True,
        )
        proxy.reach(running.until("node-address").read_text())
        goes_on(running)
        proxy.held = True
        threading.Event().wait(max_wait_s / 3)
        proxy.held = False
        goes_on(running)
        whole = running.windows("ten")
        proxy.cut()
        goes_on(running)
        proxy.held = True
        left = running.wait()
    assert left.status == 0, left.stderr
    check(left, 1, max_wait_s)
    assert left.report["steps"]["delivered"] >= 10 * whole  # all of them, while it healed
    assert left.report["steps"]["dropped"] > 0
    assert left.results("ten")["complete"].values[:whole].all()
    assert told(running.folder, 1)[0]["close_s"] < SLACK_S


def test_three_hundred_ranks_on_one_staging_node(start: Start) -> None:
    """Thirty to a process; each with sockets and shared memory of its own."""
    size, several, steps = 300, 30, 12
    running = start(
        simulation={"command": [], "launcher": "external"},
        operators={"ten": total(window=steps), "each": total(over="space")},
        variables={"*": {"buffer": "64 KiB"}},
    )
    contact = contact_of(running)
    command = [sys.executable, *program("crowd")[1:]]
    begin = time.monotonic()
    processes = [
        subprocess.Popen(
            [*command, str(first), str(several), str(size), str(steps)],
            cwd=running.folder,
            env=environment() | {"INSITU_CONTACT": str(contact)},
        )
        for first in range(0, size, several)
    ]
    try:
        assert [process.wait(LIMIT_S) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert time.monotonic() - begin < LIMIT_S
    left = running.wait()
    assert left.status == 0, left.stderr
    assert left.report["ranks"]["number"] == size
    assert max(rank["longest_s"] for rank in told(running.folder, size)) < SLACK_S  # nobody has to wait
    assert left.report["steps"]["delivered"] == steps
    cells = np.repeat(np.arange(size), 4)
    np.testing.assert_array_equal(left.results("ten")["total"][0], steps * cells + sum(range(steps)))
    np.testing.assert_array_equal(left.results("each")["total"], [(cells + n).sum() for n in range(steps)])
