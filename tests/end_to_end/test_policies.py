# SPDX-License-Identifier: Apache-2.0
"""An analysis that is much too slow, under each policy: what one rank drops all drop, and nobody waits needlessly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import Left, on_small_disk, program, told, total
from tests.end_to_end.test_back_pressure import MIB, most_memory, slow

STEPS = 120
#: Of each rank; a buffer holds eight.
STEP_BYTES = 2 * MIB
BUFFER_BYTES = 8 * STEP_BYTES
NODE_BYTES = 2 * BUFFER_BYTES


def run(
    start: Start, policy: str, transport: str, steps: int = STEPS, within: tuple[str, ...] = (), **keys: Any
) -> tuple[Left, list[dict[str, Any]]]:
    """Let two ranks publish as fast as they are let, with a fold that takes a hundred times as long as a put.

    Whatever the policy, nobody takes more memory than it may.
    """
    running = start(
        *within,
        *program("heavy", "--steps", steps, "--kib", STEP_BYTES // 1024, "--pause", 0.002)[bool(within) :],
        ranks=2,
        operators=slow(0.05) | {"other": total(over="space")},
        staging={"memory": f"{NODE_BYTES} B", "transport": transport},
        variables={"*": {"policy": policy, "buffer": f"{BUFFER_BYTES} B", "max_wait": 20, **keys}},
    )
    grown_bytes = most_memory(running)
    left = running.wait()
    assert left.status == 0, left.stderr
    ranks = told(running.folder, 2)
    # Beside its buffer a rank has the array that it puts, and with `spill` the step on its way to the disk.
    assert max(rank["grown_bytes"] for rank in ranks) < 1.2 * BUFFER_BYTES + 2 * STEP_BYTES
    assert grown_bytes < 1.2 * NODE_BYTES
    return left, ranks


@pytest.mark.parametrize(("policy", "transport"), [("drop_newest", "tcp"), ("drop_oldest", "shm"), ("latest", "tcp")])
def test_whole_steps_are_dropped_and_nobody_waits(start: Start, policy: str, transport: str) -> None:
    left, ranks = run(start, policy, transport)
    steps, each = left.report["steps"], left.results("each")
    assert steps["produced"] == STEPS
    assert steps["delivered"] + steps["dropped"] == STEPS
    assert steps["delivered"] >= 3, steps  # ranks that drop different steps would leave none whole
    assert sum(steps["dropped_because"].values()) == steps["dropped"]
    assert max(rank["longest_s"] for rank in ranks) < 0.5  # a fold takes 0.05 s, and the buffer is full all the time
    assert len(each["step"]) == steps["delivered"]
    np.testing.assert_array_equal(each["total"], 2 * STEP_BYTES / 8 * each["step"])  # of all ranks, or not there
    if policy == "latest":
        assert each["step"].values[-1] == STEPS - 1  # it arrives whatever was dropped before
    if policy == "drop_newest":
        assert each["step"].values[:4].tolist() == [0, 1, 2, 3]


def test_every_so_many_steps_one_is_waited_for(start: Start) -> None:
    left, _ = run(start, "every", "shm", steps=100, every=20)
    each = left.results("each")
    assert set(range(0, 100, 20)) <= set(each["step"].values.tolist())
    assert 0 < left.report["steps"]["dropped"] <= 95


def test_with_a_disk_nothing_is_dropped_and_nobody_waits(start: Start) -> None:
    left, ranks = run(start, "spill", "tcp", steps=40)
    assert left.results("each")["step"].values.tolist() == list(range(40))
    np.testing.assert_array_equal(left.results("each")["total"], 2 * STEP_BYTES / 8 * np.arange(40))
    report = left.report
    assert report["steps"]["dropped"] == 0
    assert report["ranks"]["spilled_bytes"] == report["ranks"]["spilled_steps"] * STEP_BYTES > 0
    assert 0 < report["ranks"]["most_on_disk_bytes"] <= 40 * STEP_BYTES
    assert max(rank["longest_s"] for rank in ranks) < 1.0  # all that is waited for is the disk
    assert {event["source"] for event in left.events("spill")} <= {"rank 0", "rank 1", "rank 2"}


def test_a_full_disk_makes_steps_wait_and_then_drops_them_for_all_ranks(start: Start, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    full, why = on_small_disk(disk, 8)
    left, ranks = run(start, "spill", "tcp", 40, tuple(full), max_wait=0.3, spill_directory=str(disk))
    steps, each = left.report["steps"], left.results("each")
    assert steps["delivered"] + steps["dropped"] == steps["produced"] == 40
    assert 0 < steps["dropped"] < 40
    assert any(f"takes no more ({why})" in because for because in steps["dropped_because"]), steps
    assert left.events("spill-full")
    np.testing.assert_array_equal(each["total"], 2 * STEP_BYTES / 8 * each["step"])
    assert max(rank["longest_s"] for rank in ranks) < 0.3 + 1.0  # the second is for a machine that is busy
