# SPDX-License-Identifier: Apache-2.0
"""Parts of a run that never come, or are gone while all others go on: each wait has a bound, and what is lost a reason.

`test_external.py` has ranks whose controller was never started, `test_killed.py` and `test_failures.py` parts that are
killed in a run that ends for it.
"""

import os
import signal
import time
from contextlib import ExitStack

import numpy as np
import psutil
import pytest

from tests.end_to_end import hasty
from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import LIMIT_S, SLACK_S, Left, program, told, told_by, total
from tests.end_to_end.test_external import contact_of, rank
from tests.waiting import wait_until

MAX_WAIT_S = 0.5


def test_staging_nodes_that_never_start_end_the_run_before_the_simulation(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that hang while they are loaded, and others whose operator hangs while it is prepared."""
    late = {"late": total() | {"use": "tests.end_to_end.folds:Late"}}
    begin, runs = time.monotonic(), [start(*program("steady"), hasty=True, operators=late)]
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", '["tests.end_to_end.programs.hanging"]')
    runs.append(start(*program("steady"), hasty=True))
    why = (
        f"The Dask workers did not start their staging nodes within {hasty.WARM_S:g} s. See whether their processes",
        f"Cannot start 1 Dask workers on this machine: they did not come up within {hasty.START_S:g} s. See whether",
    )
    for running, reason in zip(runs, why, strict=True):
        left = running.wait()
        assert left.status == 1
        assert reason in left.stderr
        assert "Traceback" not in left.stdout + left.stderr
        assert not left.directory.exists()
        assert not list(running.folder.glob("begun-*"))
    assert hasty.START_S <= time.monotonic() - begin < hasty.START_S + 4 * SLACK_S


def check_windows(left: Left, cells: int) -> int:
    """Windows of ten steps that are complete are right; return how many there are."""
    ten = left.results("ten")
    whole = ten["window"].values[ten["complete"].values]
    expected = [10 * np.arange(cells) + sum(range(10 * k, 10 * k + 10)) for k in whole]
    np.testing.assert_array_equal(ten["total"].values[ten["complete"].values], np.reshape(expected, (-1, cells)))
    return len(whole)


@pytest.mark.stress
def test_a_rank_that_is_killed_in_mid_step_while_the_others_go_on_takes_along_later_steps(start: Start) -> None:
    """Ranks that were started by hand are nobody's to stop: they put to their end, and what can be whole no more is
    dropped at once and counted.
    """
    steps, at = 300, 50
    running = start(
        simulation={"command": [], "launcher": "external"},
        operators={"ten": total(window=10), "each": total(over="space")},
        variables={"*": {"buffer": "4 KiB", "max_wait": MAX_WAIT_S}},
    )
    contact, options = contact_of(running), ("--steps", steps, "--pause", 0.01)
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(rank(contact, number, 3, running.folder, *options, *more))
            for number, more in enumerate([(), ("--fail", "kill", "--fail-rank", 1, "--fail-at", at), ()])
        ]
        assert [process.wait(LIMIT_S) for process in ranks] == [0, -signal.SIGKILL, 0]
    left = running.wait()
    assert left.status == 1
    assert left.report["reasons"] == ["rank 1 is gone"]
    others = [told_by(running.folder, number) for number in (0, 2)]
    assert max(one["longest_s"] for one in others) < MAX_WAIT_S + SLACK_S
    assert max(one["close_s"] for one in others) < MAX_WAIT_S + SLACK_S
    counts = left.report["steps"]
    assert [one["steps"] for one in others] == [counts["produced"]] * 2 == [steps] * 2
    assert 0 < counts["delivered"] <= at
    assert counts["dropped_because"]["rank 1 had ended before"] > 100
    full = "no room in its buffer of 4096 bytes after 0.5 s"  # until the controller takes the rank for dead
    assert counts["dropped_because"].keys() <= {full, "rank 1 had ended before"}
    assert counts["dropped"] == steps - counts["delivered"]
    assert check_windows(left, 24) == counts["delivered"] // 10
    each = left.results("each")
    assert each["step"].values.tolist() == list(range(counts["delivered"]))
    np.testing.assert_array_equal(each["total"], sum(range(24)) + 24 * each["step"])


@pytest.mark.stress
def test_a_run_of_the_same_name_begins_while_ranks_of_one_whose_controller_was_killed_go_on(start: Start) -> None:
    """They end within their bound; what they still say reaches nobody of the new run, whose results are right."""
    steps = 60
    variables = {"*": {"buffer": "4 KiB", "max_wait": MAX_WAIT_S}}
    keys = {"operators": {"ten": total(window=10)}, "variables": variables, "run": "same"}
    endless = program("steady", "--steps", 10**6, "--pause", 0.02, "--until", "new/rank-0.json")
    old = start(*endless, ranks=2, nodes=2, **keys)
    wait_until(lambda: old.windows("ten") > 0, LIMIT_S, "a first window")
    ranks, workers = old.descendants("steady.py"), old.descendants("spawn_main")
    os.kill(old.process.pid, signal.SIGKILL)
    old.process.wait()
    elsewhere = old.folder / "new"
    elsewhere.mkdir()
    again = {"directory": str(elsewhere)}
    new = start(*program("steady", "--steps", steps), arguments=("--force",), simulation=again, **keys)
    left = new.wait()
    assert left.status == 0, left.stderr
    assert left.report["steps"] == left.report["steps"] | {"produced": steps, "dropped": 0}
    assert check_windows(left, 8) == steps // 10
    assert left.events("rank-refused") == left.events("protocol") == []
    psutil.wait_procs([*ranks, *workers], timeout=LIMIT_S)
    said = told(old.folder, 2)
    assert min(one["steps"] for one in said) > steps
    assert max(one["longest_s"] for one in said) < MAX_WAIT_S + SLACK_S
    assert max(one["close_s"] for one in said) < 5.0 + SLACK_S  # what was said last has 5 s to leave
