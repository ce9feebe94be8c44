# SPDX-License-Identifier: Apache-2.0
"""An analysis that is much too slow: puts wait or steps are dropped, within their bounds, and memory stays bounded."""

from typing import Any

import numpy as np
import psutil

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import Running, program, told, total
from tests.waiting import wait_until

MIB = 2**20


def slow(pause_s: float) -> dict[str, Any]:
    """One operator that takes its time, and one that says which steps came."""
    return {
        "slow": total(over=["step", "space"]) | {"use": "tests.end_to_end.folds:Slow", "pause_s": pause_s},
        "each": total(over="space"),
    }


def buffering(buffer: str, **keys: Any) -> dict[str, Any]:
    return {"*": {"policy": "block", "buffer": buffer, **keys}}


def most_memory(running: Running) -> int:
    """Wait for the end of a run; return how much memory its Dask worker grew by from when it was first seen."""
    first: dict[int, int] = {}
    most, workers = [0], list[psutil.Process]()

    def ended() -> bool:
        if running.process.poll() is not None:
            return True
        if not workers and (running.folder / "begun").exists():
            workers.extend(running.descendants("spawn_main"))
        for process in workers:
            try:
                resident = process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            most[0] = max(most[0], resident - first.setdefault(process.pid, resident))
        return False

    wait_until(ended, 60.0, "the end of the run")
    assert first, "no Dask worker was seen"
    return most[0]


def test_put_waits_as_long_as_it_may_then_whole_steps_are_dropped_and_memory_stays_bounded(start: Start) -> None:
    """The fold takes at first a hundred times as long as a put, and then longer than ranks wait.

    Through shared memory, which is never encoded.
    """
    steps, later, max_wait_s = 100, 70, 1.2  # two cores are busy with other tests, and may stand still for a while
    slower = {"use": "tests.end_to_end.folds:Slower", "pauses_s": [0.01, max_wait_s], "since": [0, later]}
    running = start(
        *program("heavy", "--steps", steps, "--kib", 2048),
        ranks=2,
        operators={"slower": total(over=["step", "space"]) | slower, "each": total(over="space")},
        staging={"memory": "16 MiB", "retain": "4 MiB", "transport": "shm"},
        variables=buffering("8 MiB", max_wait=max_wait_s) | {"u": {"codec": "zstd"}},
    )
    grown_bytes = most_memory(running)
    left = running.wait()
    ranks = told(running.folder, 2)
    assert left.status == 0, left.stderr
    assert max(rank["longest_s"] for rank in ranks) < max_wait_s + 1.0  # the second is for a machine that is busy
    report = left.report
    assert report["ranks"]["waited_for_staging_s"] > 2 * 0.02 * (later - 8)  # of both; a buffer holds four
    assert report["ranks"]["longest_wait_s"] > max_wait_s
    assert report["staging"][0]["peak_bytes"] <= 16 * MIB
    assert grown_bytes < 1.2 * (16 + 4) * MIB  # of 400 that went through it
    assert max(rank["grown_bytes"] for rank in ranks) < 1.2 * 8 * MIB
    assert left.events("no-ipc") == []
    counts, each = report["steps"], left.results("each")
    assert [rank["steps"] for rank in ranks] == [counts["produced"]] * 2 == [steps] * 2
    assert counts["delivered"] + counts["dropped"] == steps
    assert sum(counts["dropped_because"].values()) == counts["dropped"]
    reasons = [
        f"no room in its buffer of {8 * MIB} bytes after {max_wait_s} s",
        "it had not left its rank's buffer when the rank ended",
    ]
    assert all(why.startswith(tuple(reasons)) for why in counts["dropped_because"]), counts
    assert each["step"].values[:later].tolist() == list(range(later))  # nothing was lost where it waited long enough
    assert later < counts["delivered"] == len(each["step"]) < steps
    np.testing.assert_array_equal(each["total"], 2**19 * each["step"])  # of both ranks, or not there
    assert report["variables"]["u"]["sent_bytes"] >= counts["delivered"] * 2 * 2 * MIB
    assert left.results("slower")["steps"].item() == counts["delivered"]


def test_a_step_that_can_never_be_taken_is_told_of_at_once(start: Start) -> None:
    running = start(
        *program("heavy", "--steps", 5, "--kib", 5120),
        ranks=2,
        staging={"memory": "16 MiB", "transport": "tcp"},
        variables=buffering("16 MiB", then="drop"),
    )
    left = running.wait()
    assert left.status == 1
    steps = left.report["steps"]
    assert steps["delivered"] == 0
    assert steps["dropped"] == 5
    [why] = steps["dropped_because"]
    assert "its 5242880 bytes exceed the credit of 4194304 bytes at staging node 0; raise staging.memory" in why
