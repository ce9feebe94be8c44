# SPDX-License-Identifier: Apache-2.0
"""Start a demo the way people do: as a command, alone, under mpiexec, or by its configuration."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 180.0

Start = Callable[..., subprocess.CompletedProcess[str]]


def beside_python(name: str) -> str:
    """A command of the environment that these tests run in."""
    return str(Path(sys.executable).with_name(name))


def finished(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("INSITU_")}
    return subprocess.run(
        command,
        cwd=folder,
        env=quiet | {"OMP_NUM_THREADS": "1"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run ``demos/NAME.py`` in a fresh folder with nobody listening; with `ranks` under mpiexec."""

    def start(demo: str, *arguments: object, ranks: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "demos" / f"{demo}.py"), *map(str, arguments)]
        if ranks:
            pytest.importorskip("mpi4py")
            command = [beside_python("mpiexec"), "-n", str(ranks), *command]
        return finished(command, tmp_path, **environment)

    return start


@pytest.fixture
def insitu_run(tmp_path: Path) -> Start:
    """Run ``configs/NAME.yaml`` with other values for some keys; return the process. Its runs go to a fresh folder."""

    def insitu_run(name: str, overrides: dict[str, object]) -> subprocess.CompletedProcess[str]:
        settings = {"directory": tmp_path / "runs", "dashboard": "null", **overrides}
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        command = [beside_python("insitu"), "run", str(ROOT / "configs" / f"{name}.yaml"), *sets]
        return finished(command, ROOT)

    return insitu_run
