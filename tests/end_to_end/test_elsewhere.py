# SPDX-License-Identifier: Apache-2.0
"""A run where there is nothing that only Linux has: no /dev/shm, no names of sockets in the kernel."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.end_to_end.runs import INSITU, PROGRAMS, ROOT, Running, environment, program, total
from tests.waiting import wait_until


def test_a_run_needs_nothing_that_only_linux_has(tmp_path: Path) -> None:
    """Blocks still go through memory that is shared: it lies in files, in a folder that all processes find."""
    path = os.pathsep.join([str(PROGRAMS / "elsewhere"), str(ROOT)])
    config = {
        "run": "elsewhere",
        "simulation": {"command": program("steady", "--steps", 30, "--talk"), "ranks": 2},
        "operators": {"sum": total()},
        "variables": {"*": {"buffer": "1 MiB"}},
        "staging": {"transport": "shm"},
    }
    look = [sys.executable, "-c", "import os; print(hasattr(os, 'waitid'))"]
    assert subprocess.check_output(look, env=environment() | {"PYTHONPATH": path}, text=True) == "False\n"
    before = segments()
    left = Running(tmp_path, config, command=("env", f"PYTHONPATH={path}", *INSITU)).wait()
    assert left.status == 0, left.stderr
    np.testing.assert_array_equal(left.results("sum")["total"][0], 30 * np.arange(16) + sum(range(30)))
    assert left.stdout.splitlines().count("step 29 of rank 1 ") == 1
    wait_until(lambda: segments() <= before, what="the last file to go, or another run's")


def segments() -> set[Path]:
    return set(Path("/tmp").glob("insitu-[0-9]*-*"))
