# SPDX-License-Identifier: Apache-2.0
"""Start a demo the way people do: as a command, alone or under mpiexec."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 60

Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run ``demos/NAME.py`` in a fresh folder with nobody listening; with `ranks` under mpiexec."""

    def start(demo: str, *arguments: object, ranks: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "demos" / f"{demo}.py"), *map(str, arguments)]
        if ranks:
            pytest.importorskip("mpi4py")
            mpiexec = Path(sys.executable).with_name("mpiexec")
            command = [str(mpiexec), "-n", str(ranks), *command]
        quiet = {name: value for name, value in os.environ.items() if not name.startswith("INSITU_")}
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=quiet | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    return start
