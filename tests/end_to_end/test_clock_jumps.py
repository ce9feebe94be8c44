# SPDX-License-Identifier: Apache-2.0
"""A wall clock that jumps an hour forth and back four times a second: nobody waits longer for it, nothing is missing.

It jumps for all processes of the run, Dask's included, in whatever asks the C library for the time: Python, ZeroMQ, and
all that libraries compile. Nothing is replaced inside of Python, and the machine's own clock is left alone.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import LIMIT_S, PROGRAMS, SLACK_S, program, told, total

HOUR_S = 3600.0


@pytest.fixture
def jumping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the clock of all processes jump that are started by the test."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler makes the library by which the clock jumps: install gcc or clang")
    library = tmp_path / "jumping.so"
    source = PROGRAMS / "jumping.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return library


@pytest.mark.stress
def test_every_wait_keeps_its_bound_and_results_are_right(
    start: Start, jumping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps wait for folds that take longer than they do, and by Dask's clock its workers are silent for an hour."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "370 ms")
    steps, max_wait_s, fold_s = 240, 20.0, 0.01
    running = start(
        *program("steady", "--steps", steps),
        ranks=2,
        nodes=2,
        operators={
            "ten": total(window=10),
            "slow": total(over=["step", "space"]) | {"use": "tests.end_to_end.folds:Slow", "pause_s": fold_s},
            "mean": {"use": "moments", "of": "u", "over": "step", "window": 60},
        },
        staging={"transport": "shm"},
        variables={"*": {"policy": "block", "buffer": "4 KiB", "max_wait": max_wait_s}},
    )
    running.until("begun-0")
    parts = [running.process, *running.descendants("steady.py"), *running.descendants("spawn_main")]
    assert len(parts) == 5
    for part in parts:
        assert jumping.name in Path(f"/proc/{part.pid}/maps").read_text()
    left = running.wait()
    assert left.status == 0, left.stderr
    assert left.report["steps"] == left.report["steps"] | {"produced": steps, "delivered": steps, "dropped": 0}
    ranks = told(running.folder, 2)
    assert min(rank["wall_s"] for rank in ranks) > HOUR_S - 60.0
    assert max(rank["longest_s"] for rank in ranks) < SLACK_S
    assert max(rank["close_s"] for rank in ranks) < SLACK_S
    report = left.report
    assert 0.2 < report["ranks"]["waited_for_staging_s"] + report["ranks"]["waited_for_network_s"] < LIMIT_S
    assert 0 < report["duration_s"] < LIMIT_S
    expected = [10 * np.arange(16) + sum(range(n, n + 10)) for n in range(0, steps, 10)]
    np.testing.assert_array_equal(left.results("ten")["total"], expected)
    assert left.results("ten")["complete"].all()
    np.testing.assert_allclose(left.results("mean")["mean"][:, 0], np.arange(29.5, steps, 60.0), rtol=1e-12)
    since_s = [event["since_start_s"] for event in left.events()]
    assert since_s == sorted(since_s)
