# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of a part of the run: the simulation goes on to its end, within its bounds, and what is lost is counted."""

import os
import re
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest

import insitu
from tests.cli.calls import insitu as insitu_command
from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import SLACK_S, Left, Running, program, told, total
from tests.waiting import wait_until

STEPS, MAX_WAIT_S = 300, 0.5
#: More steps than there is time for.
ENDLESS = 10**6


def start_small(
    start: Start, transport: str, *options: object, impatient: bool = False, steps: int = STEPS, **operators: Any
) -> Running:
    """Two ranks whose buffers are full soon after nobody empties them."""
    running = start(
        *program("steady", "--steps", steps, "--pause", 0.01, *options),
        ranks=2,
        nodes=2,
        operators={"ten": total(window=10), **operators},
        staging={"transport": transport},
        variables={"*": {"policy": "block", "buffer": "4 KiB", "max_wait": MAX_WAIT_S}},
        impatient=impatient,
    )
    for rank in range(2):
        running.until(f"begun-{rank}")
    return running


@pytest.mark.stress
def test_a_staging_node_that_is_killed_takes_along_only_some_steps(start: Start) -> None:
    """The other one takes its part from a step on, and results are whole again.

    They stay so when a new node takes it, since Dask starts a worker in the place of one that was killed, when that
    node leaves, and when one more comes. `test_replay.py` kills one that maps the ranks' memory.
    """
    running = start_small(
        start, "tcp", impatient=True, steps=ENDLESS,
        mean={"use": "moments", "of": "u", "over": "step", "window": 10},
        cov={"use": "covariance", "of": "u", "over": "step", "window": 30, "every": 10},
    )  # fmt: skip
    wait_until(lambda: running.windows("ten") > 0, what="a first window")
    running.descendants("spawn_main")[1].kill()
    wait_until(lambda: len(running.events("replanned")) == 2, 60.0, "a node in its place")
    taken, replaced = (event["sequence"] for event in running.events("replanned"))
    with insitu.steer(running.directory) as run:
        later = replaced + 60
        wait_until(lambda: running.windows("ten") > later // 10, 60.0, "windows of the new node")
        run.scale(1)
        wait_until(lambda: running.events("node-left"), 60.0, "the new node to leave")
        later = 10 * running.windows("ten") + 60
        wait_until(lambda: running.windows("ten") > later // 10, 60.0, "windows without it")
        scaled = insitu_command("scale", running.directory, 2)
        assert (scaled.exit_code, scaled.stdout.split(";")[0]) == (0, "2 staging nodes wanted")
        wait_until(lambda: len(running.events("replanned")) == 4, 60.0, "one more node")
        later = running.events("replanned")[-1]["sequence"] + 60
        wait_until(lambda: running.windows("ten") > later // 10, 60.0, "windows of both")
        run.stop()
    left = running.wait()
    assert left.status == 1
    ranks = told(running.folder, 2)
    produced = ranks[0]["steps"]
    assert ranks[1]["steps"] == produced
    assert max(rank["longest_s"] for rank in ranks) < MAX_WAIT_S + SLACK_S  # beside a node that starts
    report = left.report
    assert any(reason.startswith("staging node") and reason.endswith("is gone") for reason in report["reasons"])
    steps = report["steps"]
    assert steps["produced"] == produced
    assert steps["delivered"] > 0
    assert steps["dropped_because"]["a staging node is gone"] > 0
    assert sum(steps["dropped_because"].values()) == steps["dropped"]
    assert max(rank["close_s"] for rank in ranks) < SLACK_S  # nobody waits for it at the end
    ten = left.results("ten")
    whole = ten["total"].values[ten["complete"].values]
    expected = [10 * np.arange(16) + sum(range(10 * k, 10 * k + 10)) for k in ten["window"].values[ten["complete"]]]
    np.testing.assert_array_equal(whole, expected)
    assert len(whole) > 0
    assert steps["dropped"] < taken < replaced
    assert_exact(left, taken, "ten", "mean", "cov")


def assert_exact(left: Left, taken: int, *operators: str) -> None:
    """All complete windows have the results of their definition, and some of them began after `taken`.

    Not all of those are complete on a busy machine: steps are dropped for want of room, too.
    """
    for operator in operators:
        results = left.results(operator)
        later = 0
        for row in np.flatnonzero(results["complete"]):
            later += int(results["window"][row]) > taken // 10
            begin = 10 * int(results["window"][row])
            for name, expected in EXPECTED[operator](np.arange(begin, begin + 10)).items():
                np.testing.assert_allclose(results[name].values[row], expected, rtol=1e-12)
        assert later > 3


#: What an operator yields of ten steps, for sixteen cells; `cov` of thirty that begin with these.
EXPECTED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "ten": lambda steps: {"total": steps.sum() + 10 * np.arange(16)},
    "mean": lambda steps: {"mean": steps.mean() + np.arange(16), "variance": steps.var(ddof=1)},
    "cov": lambda steps: {"covariance": np.arange(30).var(ddof=1)},
}


def test_a_controller_that_is_killed_leaves_the_simulation_to_its_end(start: Start) -> None:
    """Also of one that prints: more than a pipe would hold that nobody reads."""
    running = start_small(start, "shm", "--talk", 1000)
    parts = running.descendants("steady.py")
    workers = running.descendants("spawn_main")
    assert (len(parts), len(workers)) == (2, 2)
    wait_until(lambda: running.windows("ten") > 0, what="a first window")
    os.kill(running.process.pid, signal.SIGKILL)
    for rank in range(2):
        wait_until(lambda rank=rank: (running.folder / f"rank-{rank}.json").exists(), 60.0, "the ranks' end")
    psutil.wait_procs([*parts, *workers], timeout=60.0)
    running.process.wait()
    ranks = told(running.folder, 2)
    assert [rank["steps"] for rank in ranks] == [STEPS, STEPS]
    for rank in range(2):
        printed = (running.directory / "output" / f"rank-{rank}.out").read_text().splitlines()
        assert [line.rstrip(".") for line in printed] == [f"step {n} of rank {rank} " for n in range(STEPS)]
        account_adds_up((running.directory / "output" / f"rank-{rank}.err").read_text(), 10 * running.windows("ten"))
    assert max(rank["longest_s"] for rank in ranks) < MAX_WAIT_S + SLACK_S
    assert max(rank["close_s"] for rank in ranks) < 5.0 + SLACK_S  # what was said last has 5 s to leave


def account_adds_up(said: str, stored: int) -> None:
    """A rank tells what became of its steps where no report will: with two nodes nothing is decided any more."""
    (line,) = (line for line in said.splitlines() if "ends without a controller" in line)
    found = re.search(r"(\d+) steps: (\d+) folded, (\d+) dropped \((.*)\), (\d+) sent, of which nothing", line)
    assert found is not None, line
    steps, folded, dropped, because, unheard = found.groups()
    assert int(steps) == STEPS == int(folded) + int(dropped) + int(unheard)
    reasons = dict(reason.rsplit(": ", 1) for reason in because.split(", "))
    assert sum(map(int, reasons.values())) == int(dropped)
    assert int(folded) >= stored > 0
    assert int(reasons["no room in its buffer of 4096 bytes after 0.5 s"]) > 0
    assert int(unheard) > 0  # what filled the buffer
