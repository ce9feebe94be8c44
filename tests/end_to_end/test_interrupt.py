# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, at every moment of a run: all ranks end after the same step, what was folded is kept, nothing is left."""

import stat
from pathlib import Path
from typing import Any

import numpy as np

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import Left, Running, program, told, total
from tests.waiting import wait_until

ENDLESS = program("steady", "--steps", 1_000_000, "--pause", 0.01)
#: Shorter than all that would be waited for if Ctrl-C did nothing: 300 s, as these runs are patient.
AT_ONCE_S = 60.0


def ctrl_c(running: Running) -> None:
    """As in a terminal: the signal reaches all processes of the controller's group."""
    running.interrupt()


def interrupted(running: Running, limit_s: float = 60.0) -> Left:
    """Wait for the end of a run that was interrupted."""
    left = running.wait(limit_s)
    assert left.status == 1, left.stderr
    assert "Traceback" not in left.stdout + left.stderr
    assert not (left.directory / "contact.json").exists()
    return left


def streaming(start: Start, *options: str, **keys: Any) -> Running:
    """A run with a window's results already stored."""
    running = start(*ENDLESS, *options, operators={"all": total(), "ten": total(window=10)}, **keys)
    wait_until(lambda: running.windows("ten") > 0 or running.process.poll() is not None, 60.0, "a first window")
    return running


def check_what_was_kept(left: Left, cells: int) -> int:
    """All steps that were folded are in the results, and said to be not all there are; return how many."""
    steps = int(left.report["steps"]["delivered"])
    every, ten = left.results("all"), left.results("ten")
    np.testing.assert_array_equal(every["total"][0], steps * np.arange(cells) + sum(range(steps)))
    assert not every["complete"].any()
    full = [10 * np.arange(cells) + sum(range(10 * k, 10 * k + 10)) for k in range(steps // 10)]
    np.testing.assert_array_equal(ten["total"][: len(full)], full)
    np.testing.assert_array_equal(ten["complete"], np.arange(len(ten["complete"])) < len(full))
    return steps


def test_all_ranks_end_after_the_same_step_and_what_was_folded_is_kept(start: Start) -> None:
    """`test_clusters.py` ends a run by SIGTERM."""
    running = streaming(start, ranks=3, nodes=2)
    ctrl_c(running)
    left = interrupted(running)
    assert "Stopping the simulation; press Ctrl-C again to end it at once." in left.stderr
    assert f"interrupted: {left.directory.relative_to(running.folder)}" in left.stderr
    report = left.report
    assert (report["status"], report["exit_status"], report["reasons"]) == ("interrupted", 1, [])
    steps = check_what_was_kept(left, cells=24)
    assert [each["steps"] for each in told(running.folder, 3)] == [steps] * 3
    assert report["steps"]["dropped"] == 0


def test_a_second_ctrl_c_ends_at_once_what_does_not_want_to_stop_and_more_of_them_are_no_fault(start: Start) -> None:
    running = streaming(start, "--deaf", ranks=2, nodes=2, patient=True)
    ctrl_c(running)
    wait_until(lambda: "press Ctrl-C again" in running.stderr, what="the first to be heard")

    def ended() -> bool:
        if running.process.poll() is None:
            ctrl_c(running)
        return running.process.poll() is not None

    wait_until(ended, AT_ONCE_S, "the end")
    left = interrupted(running)
    assert left.report["status"] == "interrupted"
    assert check_what_was_kept(left, cells=16) > 0


def test_ctrl_c_before_the_simulation_is_started_leaves_nothing(start: Start) -> None:
    running = start(*ENDLESS, ranks=2, operators={"late": total() | {"use": "tests.end_to_end.folds:Late"}})
    begun = "Starting the staging nodes"
    wait_until(lambda: begun in running.stderr or running.process.poll() is not None, 60.0, begun)
    ctrl_c(running)
    left = running.wait(AT_ONCE_S)
    assert left.status == 1
    assert "Interrupted before the simulation was started." in left.stderr
    assert "Traceback" not in left.stdout + left.stderr
    assert not left.directory.exists()
    assert not list(running.folder.glob("begun-*"))


def test_ctrl_c_before_any_rank_takes_part_ends_at_once(start: Start) -> None:
    running = start("sh", "-c", "touch begun; exec sleep 300", ranks=2, patient=True)
    running.until("begun")
    ctrl_c(running)
    left = interrupted(running, AT_ONCE_S)
    assert left.report["status"] == "interrupted"
    assert "no rank ever took part" not in left.stderr
    assert left.report["steps"]["produced"] == 0


def test_a_simulation_that_cannot_be_executed_leaves_no_directory(start: Start, tmp_path: Path) -> None:
    """It is seen only when all else has been started."""
    solver = tmp_path / "solver"
    solver.write_bytes(b"\x00 no program")
    solver.chmod(stat.S_IRWXU)
    left = start(str(solver)).wait()
    assert left.status == 2
    assert "cannot be started (Exec format error)" in left.stderr
    assert not left.directory.exists()
