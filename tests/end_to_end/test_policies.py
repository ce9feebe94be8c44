# SPDX-License-Identifier: Apache-2.0
"""An analysis that is much too slow, under each policy: what one rank drops all drop, and nobody waits needlessly."""

from typing import Any

import numpy as np
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import Left, program, told, total
from tests.end_to_end.test_back_pressure import slow

STEPS = 200


def run(start: Start, policy: str, transport: str, **keys: Any) -> tuple[Left, list[dict[str, Any]]]:
    """Let three ranks that do nothing else publish as fast as they are let, through buffers of about eight steps."""
    running = start(
        *program("heavy", "--steps", STEPS, "--kib", 256, "--pause", 0.002),
        ranks=3,
        operators=slow(0.05) | {"other": total(over="space")},
        staging={"memory": "16 MiB", "transport": transport},
        variables={"*": {"policy": policy, "buffer": "2 MiB", "max_wait": 20, **keys}},
    )
    left = running.wait()
    assert left.status == 0, left.stderr
    return left, told(running.folder, 3)


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
    np.testing.assert_array_equal(each["total"], 3 * 2**15 * each["step"])  # of all ranks, or not there
    if policy == "latest":
        assert each["step"].values[-1] == STEPS - 1  # it arrives whatever was dropped before
    if policy == "drop_newest":
        assert each["step"].values[:4].tolist() == [0, 1, 2, 3]


def test_every_so_many_steps_one_is_waited_for(start: Start) -> None:
    left, _ = run(start, "every", "shm", every=20)
    each = left.results("each")
    assert set(range(0, STEPS, 20)) <= set(each["step"].values.tolist())
    assert 0 < left.report["steps"]["dropped"] < STEPS - STEPS // 20
