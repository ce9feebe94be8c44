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


def test_put_waits_and_memory_stays_bounded(start: Start) -> None:
    """Through shared memory, which is never encoded."""
    running = start(
        *program("heavy", "--steps", 150, "--kib", 2048),
        operators=slow(0.01),
        staging={"memory": "16 MiB", "transport": "shm"},
        variables=buffering("16 MiB") | {"u": {"codec": "zstd"}},
    )
    grown_bytes = most_memory(running)
    left = running.wait()
    assert left.status == 0, left.stderr
    assert left.report["steps"]["delivered"] == 150
    assert left.report["variables"]["u"]["sent_bytes"] == 150 * 2 * MIB
    assert left.events("no-ipc") == []
    assert left.report["staging"][0]["peak_bytes"] <= 16 * MIB
    assert left.report["ranks"]["waited_for_staging_s"] > 0.3
    assert grown_bytes < 1.2 * 16 * MIB  # of 300 that went through it
    assert told(running.folder, 1)[0]["grown_bytes"] < 1.2 * 16 * MIB + 4 * MIB  # and the step that it puts
    np.testing.assert_array_equal(left.results("each")["total"], 2**18 * np.arange(150))


def test_a_short_wait_drops_whole_steps_for_all_ranks(start: Start) -> None:
    running = start(
        *program("heavy", "--steps", 40, "--kib", 1024),
        ranks=2,
        operators=slow(0.1),
        staging={"memory": "16 MiB", "transport": "tcp"},
        variables=buffering("2 MiB", max_wait=0.2),
    )
    left = running.wait()
    ranks = told(running.folder, 2)
    assert [rank["steps"] for rank in ranks] == [40, 40]
    assert max(rank["longest_s"] for rank in ranks) < 0.2 + 1.0  # the second is for a machine that is busy
    steps = left.report["steps"]
    assert steps["produced"] == 40
    assert 0 < steps["dropped"] < 40
    assert steps["delivered"] + steps["dropped"] == 40
    assert sum(steps["dropped_because"].values()) == steps["dropped"]
    reasons = [
        "no room in its buffer of 2097152 bytes after 0.2 s",
        "it had not left its rank's buffer when the rank ended",
    ]
    assert all(why.startswith(tuple(reasons)) for why in steps["dropped_because"]), steps
    each = left.results("each")
    assert len(each["step"]) == steps["delivered"]
    np.testing.assert_array_equal(each["total"], 2**18 * each["step"])  # of both ranks, or not there
    assert left.results("slow")["steps"].item() == steps["delivered"]


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
