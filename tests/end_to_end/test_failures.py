# SPDX-License-Identifier: Apache-2.0
"""The simulation fails: its status and last words are shown, what was folded is kept, and nothing is left running."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import INSITU, SLACK_S, environment, program, told_by, total, write

ENDLESS = ("steady", "--steps", 1_000_000, "--pause", 0.005)


@pytest.mark.parametrize(("how", "status"), [("raise", 1), ("kill", -9)])
def test_a_rank_that_fails_ends_the_run_and_keeps_what_was_folded(start: Start, how: str, status: int) -> None:
    """The status is that of the rank that failed first: those that go on after an exception are ended by force."""
    deaf = ["--deaf"] if how == "raise" else []
    command = program(*ENDLESS, *deaf, "--fail", how, "--fail-rank", 1, "--fail-at", 50)
    operators = {"ten": total(window=10), "all": total(), "here": total(window=10, where="rank")}
    if how == "raise":
        faulty = {"use": "tests.end_to_end.folds:Faulty", "method": "update", "at": 15}
        operators["late"] = total(over=["step", "space"], window=10) | faulty
    left = start(*command, ranks=3, operators=operators, impatient=how == "raise").wait()
    assert left.status == 1, left.stderr
    assert f"about to {how}" in left.stderr
    report = left.report
    assert (report["status"], report["exit_status"]) == ("failed", 1)
    assert f"the simulation ended with status {status}" in report["reasons"]
    if how == "kill":
        assert "rank 1 is gone" in report["reasons"]
        others = [told_by(left.directory.parents[1], rank) for rank in (0, 2)]
        assert max(one["longest_s"] for one in others) < SLACK_S  # nothing of what they put waits for the dead
        put = {one["steps"] for one in others}
        assert len(put) == 1
        # All that they put is counted; a rank that started before them may have put more, and have said so.
        assert max(put) <= report["steps"]["produced"] <= max(*put, 50)
        assert report["steps"]["dropped_because"].keys() == {"rank 1 had ended before"}
    else:
        why = "operator 'late': in window 1: ZeroDivisionError: nothing to divide by in update"
        assert why in report["reasons"]
        late = left.results("late")  # what was whole before an operator fails is kept, too
        assert late["total"].values.tolist() == [10 * sum(range(24)) + 24 * 45]
        assert late["complete"].all()
    steps = report["steps"]["delivered"]
    assert steps == 50 or (how != "raise" and 0 < steps <= 50)  # a process that is gone takes along what it had
    ten, all_of_it = left.results("ten"), left.results("all")
    np.testing.assert_array_equal(ten["complete"][: steps // 10], np.ones(steps // 10, bool))
    np.testing.assert_array_equal(all_of_it["total"][0], steps * np.arange(24) + sum(range(steps)))
    assert not all_of_it["complete"].any()
    # What a rank folds itself is lost with it, as far as it had not left: of all windows only whole ones are there.
    here = left.results("here")
    whole = int(here["complete"].sum())
    assert whole == 5 or (how != "raise" and whole <= steps // 10)
    np.testing.assert_array_equal(here["total"][:whole], ten["total"][:whole])
    assert not here["steps"][whole:].any()


@pytest.fixture
def _mpich_leaves_memory() -> Iterator[None]:
    """Remove what MPICH leaves of a job that was ended by force."""
    before = set(Path("/dev/shm").glob("mpich_shm_*"))
    yield
    for path in set(Path("/dev/shm").glob("mpich_shm_*")) - before:
        path.unlink(missing_ok=True)


@pytest.mark.usefixtures("_mpich_leaves_memory")
def test_mpiexec_that_fails_leaves_no_rank_behind(start: Start) -> None:
    pytest.importorskip("mpi4py")
    command = program(*ENDLESS, "--mpi", "--fail", "kill", "--fail-rank", 1, "--fail-at", 50)
    left = start(*command, ranks=2, simulation={"launcher": "mpiexec"}).wait()
    assert left.status == 1, left.stderr
    assert "about to kill" in left.stderr
    assert 0 < left.report["steps"]["delivered"] <= 50


def test_a_program_that_ends_at_once_and_never_took_part(start: Start) -> None:
    """With what it left in the background, which holds its output open."""
    command = "sleep 300 & echo out; echo the licence server is down >&2; exit 3"
    left = start("sh", "-c", command, impatient=True).wait()
    assert left.status == 1
    assert left.stdout.splitlines().count("out") == 1
    assert "the licence server is down" in left.stderr
    assert "no rank ever took part: does the program make an insitu.Client()" in left.stderr
    assert "the simulation ended with status 3" in left.report["reasons"]
    assert left.report["steps"]["produced"] == 0


def test_nobody_reading_its_output_does_not_stop_the_simulation(tmp_path: Path) -> None:
    """As in ``insitu run CONFIG | head``, which ends after the first lines and leaves a broken pipe."""
    config = {
        "run": "talk",
        "simulation": {"command": program("steady", "--steps", 300, "--talk"), "ranks": 1},
        "operators": {"sum": total()},
    }
    command = f"{' '.join(INSITU)} run {write(tmp_path, config)} 2>&1 | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.count("\n") == 1
    report = json.loads((tmp_path / "runs" / "talk" / "report.json").read_text())
    assert report["status"] == "done"
    assert report["steps"]["delivered"] == 300
