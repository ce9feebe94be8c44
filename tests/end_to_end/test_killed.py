# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of a part of the run: the simulation goes on to its end, within its bounds, and what is lost is counted."""

import os
import signal

import numpy as np
import psutil
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import Running, program, told, total
from tests.waiting import wait_until

STEPS, MAX_WAIT_S = 400, 0.5
#: What a busy machine may add to any wait.
SLACK_S = 1.5


def start_small(start: Start, transport: str, impatient: bool = False) -> Running:
    """Two ranks whose buffers are full soon after nobody empties them."""
    running = start(
        *program("steady", "--steps", STEPS, "--pause", 0.005),
        ranks=2,
        nodes=2,
        operators={"ten": total(window=10)},
        staging={"transport": transport},
        variables={"*": {"policy": "block", "buffer": "4 KiB", "max_wait": MAX_WAIT_S}},
        impatient=impatient,
    )
    for rank in range(2):
        running.until(f"begun-{rank}")
    return running


@pytest.mark.stress
def test_a_staging_node_that_is_killed_takes_along_only_some_steps(start: Start) -> None:
    """The other one takes its part from a step on, and its results are whole again."""
    running = start_small(start, "tcp", impatient=True)
    results = running.directory / "results.zarr" / "ten" / "total" / "c"
    wait_until(lambda: results.exists(), what="a first window")
    running.descendants("spawn_main")[1].kill()
    left = running.wait()
    assert left.status == 1
    ranks = told(running.folder, 2)
    assert [rank["steps"] for rank in ranks] == [STEPS, STEPS]
    assert max(rank["longest_s"] for rank in ranks) < MAX_WAIT_S + SLACK_S
    report = left.report
    assert any(reason.startswith("staging node") and reason.endswith("is gone") for reason in report["reasons"])
    steps = report["steps"]
    assert steps["produced"] == STEPS
    assert steps["delivered"] > 0
    assert steps["dropped_because"]["a staging node is gone"] > 0
    assert sum(steps["dropped_because"].values()) == steps["dropped"]
    assert max(rank["close_s"] for rank in ranks) < SLACK_S  # nobody waits for it at the end
    ten = left.results("ten")
    whole = ten["total"].values[ten["complete"].values]
    expected = [10 * np.arange(16) + sum(range(10 * k, 10 * k + 10)) for k in ten["window"].values[ten["complete"]]]
    np.testing.assert_array_equal(whole, expected)
    assert len(whole) > 0
    [taken] = left.events("replanned")
    assert ten["complete"].values[-(-taken["sequence"] // 10) :].all()
    assert steps["dropped"] < taken["sequence"] < STEPS - 20


def test_a_controller_that_is_killed_leaves_the_simulation_to_its_end(start: Start) -> None:
    running = start_small(start, "shm")
    parts = running.descendants("steady.py")
    workers = running.descendants("spawn_main")
    assert (len(parts), len(workers)) == (2, 2)
    os.kill(running.process.pid, signal.SIGKILL)
    for rank in range(2):
        wait_until(lambda rank=rank: (running.folder / f"rank-{rank}.json").exists(), 60.0, "the ranks' end")
    psutil.wait_procs([*parts, *workers], timeout=10.0)
    running.process.wait()
    ranks = told(running.folder, 2)
    assert [rank["steps"] for rank in ranks] == [STEPS, STEPS]
    assert max(rank["longest_s"] for rank in ranks) < MAX_WAIT_S + SLACK_S
    assert max(rank["close_s"] for rank in ranks) < 5.0 + SLACK_S  # what was said last has 5 s to leave
