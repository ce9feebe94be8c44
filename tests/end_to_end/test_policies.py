# SPDX-License-Identifier: Apache-2.0
"""An analysis that is much too slow, under each policy: what one rank drops all drop, and nobody waits needlessly."""

import re
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
#: Beside that a node keeps copies for who looks.
RETAIN_BYTES = 2 * STEP_BYTES


def run(
    start: Start,
    policy: str,
    transport: str,
    steps: int = STEPS,
    within: tuple[str, ...] = (),
    slowly: dict[str, Any] | None = None,
    pause_s: float = 0.002,
    **keys: Any,
) -> tuple[Left, list[dict[str, Any]]]:
    """Let two ranks publish, as fast as they are let unless `pause_s` says otherwise, with a fold that takes a hundred
    times as long as a put, or is given by `slowly`.

    Whatever the policy, nobody takes more memory than it may.
    """
    running = start(
        *within,
        *program("heavy", "--steps", steps, "--kib", STEP_BYTES // 1024, "--pause", pause_s)[bool(within) :],
        ranks=2,
        operators=slow(0.05) | (slowly or {}) | {"other": total(over="space")},
        staging={"memory": f"{NODE_BYTES} B", "retain": f"{RETAIN_BYTES} B", "transport": transport},
        variables={"*": {"policy": policy, "buffer": f"{BUFFER_BYTES} B", "max_wait": 20, **keys}},
    )
    grown_bytes = most_memory(running)
    left = running.wait()
    assert left.status == 0, left.stderr
    ranks = told(running.folder, 2)
    # With `spill` the step on its way to the disk, too.
    assert max(rank["grown_bytes"] for rank in ranks) < 1.2 * BUFFER_BYTES
    assert grown_bytes < 1.2 * (NODE_BYTES + RETAIN_BYTES)
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


def test_every_so_many_steps_one_is_waited_for_and_a_fold_that_has_time_gets_more(start: Start) -> None:
    """All while it is fast; a part while it takes longer than a step; then those, and what fits beside them."""
    steps, every, pause_s, fold_s, room = 240, 40, 0.03, 0.25, 6
    slower = {"pauses_s": [0.0, 0.6 * pause_s, fold_s / 2], "since": [0, 60, 120]}  # there are two blocks in a step
    operator = total(over=["step", "space"]) | {"use": "tests.end_to_end.folds:Slower"} | slower
    keys = {"every": every, "buffer": f"{room * STEP_BYTES} B"}
    left, ranks = run(start, "every", "shm", steps, slowly={"slow": operator}, pause_s=pause_s, **keys)
    each = left.results("each")["step"].values
    assert set(range(0, steps, every)) <= set(each.tolist())
    # All but what finds the buffer full: on a machine that has nothing else to do that is none while the fold is fast.
    assert left.report["steps"]["dropped_because"].keys() == {
        f"no room in its buffer of {room * STEP_BYTES} bytes (policy: every)"
    }
    # Not at once after the start, or after a change: there is room for some in the buffer.
    most, part, few = (np.mean(np.isin(range(*some), each)) for some in ((20, 60), (80, 120), (140, steps)))
    assert few <= (room + 2) / every  # each that is waited for, and those that find room beside it
    assert part > 1.2 * few
    assert most > max(0.5, 2 * few)
    assert max(rank["longest_s"] for rank in ranks) < (room + 1) * fold_s + 1.0  # while the buffer is folded


def test_with_a_disk_nothing_is_dropped_and_nobody_waits(start: Start) -> None:
    left, ranks = run(start, "spill", "tcp", steps=30)
    check_spilled(left, 30)
    assert max(rank["longest_s"] for rank in ranks) < 1.0  # all that is waited for is the disk
    assert {event["source"] for event in left.events("spill")} <= {"rank 0", "rank 1", "rank 2"}


@pytest.mark.stress
def test_what_has_waited_in_vain_goes_to_the_disk_and_nothing_is_dropped(start: Start) -> None:
    """The fold stands still for longer than ranks wait, and goes on while they do."""
    slower = {"use": "tests.end_to_end.folds:Slower", "pauses_s": [0.25, 0.0], "since": [0, 6]}
    operator, max_wait_s = total(over=["step", "space"]) | slower, 0.4
    keys = {"max_wait": max_wait_s, "then": "spill"}
    left, ranks = run(start, "block", "tcp", 40, slowly={"slow": operator}, pause_s=0.1, **keys)
    check_spilled(left, 40)
    assert max_wait_s < max(rank["longest_s"] for rank in ranks) < max_wait_s + 1.0


def check_spilled(left: Left, steps: int) -> None:
    assert left.results("each")["step"].values.tolist() == list(range(steps))
    np.testing.assert_array_equal(left.results("each")["total"], 2 * STEP_BYTES / 8 * np.arange(steps))
    report = left.report
    assert report["steps"]["dropped"] == 0
    assert report["ranks"]["spilled_bytes"] == report["ranks"]["spilled_steps"] * STEP_BYTES > 0
    assert 0 < report["ranks"]["most_on_disk_bytes"] <= steps * STEP_BYTES


@pytest.mark.stress
def test_where_it_is_to_abort_the_simulation_ends_after_the_wait_and_what_was_folded_is_kept(start: Start) -> None:
    max_wait_s = 0.2
    running = start(
        *program("heavy", "--steps", STEPS, "--kib", 64),
        ranks=2,
        operators=slow(0.15),
        staging={"memory": "4 MiB", "transport": "shm"},
        variables={"*": {"policy": "block", "buffer": "256 KiB", "max_wait": max_wait_s, "then": "abort"}},
        impatient=True,
    )
    left = running.wait()
    ranks, steps = told(running.folder, 2), left.report["steps"]
    assert left.status == 1
    why = f"no room in its buffer of {256 * 1024} bytes after {max_wait_s} s"
    assert re.search(rf"RunError: Rank \d at step \d: {re.escape(why)} \(then: abort\)\.", left.stderr)
    assert "the simulation ended with status 1" in left.report["reasons"]
    assert max_wait_s <= max(rank["longest_s"] for rank in ranks) < max_wait_s + 1.0
    assert steps["dropped_because"].get(why, 0) > 0, steps
    each = left.results("each")
    assert len(each["step"]) == steps["delivered"] == 4
    np.testing.assert_array_equal(each["total"], 2 * 2**13 * each["step"])


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
