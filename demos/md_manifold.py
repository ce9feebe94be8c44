# SPDX-License-Identifier: Apache-2.0
"""Alanine dipeptide, the hydrogen atom of molecular conformations, in OpenMM, streams itself while it moves.

    insitu run configs/md_manifold.yaml                       run it with a diffusion map (a minute or two)
    python demos/md_manifold_summary.py runs/md_manifold      see whether the map has found the known basins

The 22 atoms of ACE-ALA-NME in implicit water (Amber14, OBC), so hot that they cross most barriers within a nanosecond;
peptide bonds are held in trans, as they are at 300 K. OpenMM is the one of ``pip install openmm``, as it is, on its
CPU platform. Published are the positions of all but the hydrogen atoms; the same,
laid over the first ones, for operators that do not superpose; and the two angles that chemists look at, for comparison
only: the map never sees them.
"""

import argparse
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import openmm
from openmm import app, unit

import insitu

Positions = npt.NDArray[np.float64]

#: Ideal lengths and angles, all in trans; angstrom.
DIPEPTIDE = """\
ATOM      1 HH31 ACE A   1       2.000   1.000  -0.000
ATOM      2 CH3  ACE A   1       2.000   2.090   0.000
ATOM      3 HH32 ACE A   1       1.486   2.454   0.890
ATOM      4 HH33 ACE A   1       1.486   2.454  -0.890
ATOM      5 C    ACE A   1       3.427   2.641  -0.000
ATOM      6 O    ACE A   1       4.391   1.877  -0.000
ATOM      7 N    ALA A   2       3.555   3.970  -0.000
ATOM      8 H    ALA A   2       2.733   4.556  -0.000
ATOM      9 CA   ALA A   2       4.853   4.614  -0.000
ATOM     10 HA   ALA A   2       5.408   4.316   0.890
ATOM     11 CB   ALA A   2       5.661   4.221  -1.232
ATOM     12 HB1  ALA A   2       5.123   4.521  -2.131
ATOM     13 HB2  ALA A   2       6.630   4.719  -1.206
ATOM     14 HB3  ALA A   2       5.809   3.141  -1.241
ATOM     15 C    ALA A   2       4.713   6.129   0.000
ATOM     16 O    ALA A   2       3.601   6.653   0.000
ATOM     17 N    NME A   3       5.846   6.835   0.000
ATOM     18 H    NME A   3       6.737   6.359  -0.000
ATOM     19 CH3  NME A   3       5.846   8.284   0.000
ATOM     20 HH31 NME A   3       4.819   8.648   0.000
ATOM     21 HH32 NME A   3       6.360   8.648   0.890
ATOM     22 HH33 NME A   3       6.360   8.648  -0.890
END
"""
#: The atoms that are not hydrogen, and those of the dihedral angles: C-N-CA-C and N-CA-C-N.
HEAVY = (1, 4, 5, 6, 8, 10, 14, 15, 16, 18)
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)
#: Those of the peptide bonds, and what it costs to turn them half around, in kJ/mol.
OMEGAS, HOLD = ((1, 4, 6, 8), (8, 14, 16, 18)), 100

#: Hydrogens that are heavier than real ones move slower, and allow a timestep of 4 fs; basins stay the same.
TIMESTEP_PS = 0.004
HYDROGEN_AMU = 3.0


def main() -> None:
    options = parse_options()
    context = molecule(options.temperature, options.seed)
    first = None
    with insitu.Client() as sim:
        for n in range(0, options.steps, options.every):
            context.getIntegrator().step(options.every)
            positions = positions_of(context)
            heavy = positions[list(HEAVY)]
            first = heavy if first is None else first
            whole: dict[str, Any] = {"start": (0, 0), "shape": heavy.shape, "dims": ("atom", "axis"), "units": "nm"}
            with sim.step(n + options.every, time=(n + options.every) * TIMESTEP_PS) as step:
                step.put("position", heavy, **whole)
                step.put("aligned", superposed(heavy, first), **whole)
                step.put("phi", np.array(dihedral(positions, PHI)), dims=(), units="degree")
                step.put("psi", np.array(dihedral(positions, PSI)), dims=(), units="degree")
            if sim.stopping:
                break


def molecule(temperature: float, seed: int) -> Any:
    """Return an OpenMM context, at rest in a minimum of the energy and ready to run."""
    start = app.PDBFile(io.StringIO(DIPEPTIDE))
    system = app.ForceField("amber14-all.xml", "implicit/obc2.xml").createSystem(
        start.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds, hydrogenMass=HYDROGEN_AMU * unit.amu
    )
    held = openmm.CustomTorsionForce(f"{HOLD} * (1 + cos(theta))")
    for atoms in OMEGAS:
        held.addTorsion(*atoms)
    system.addForce(held)
    integrator = openmm.LangevinMiddleIntegrator(temperature, 2.0, TIMESTEP_PS)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(start.positions)
    openmm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(temperature, seed)
    return context


def positions_of(context: Any) -> Positions:
    """Return the positions of all atoms in nm."""
    state = context.getState(getPositions=True)
    return np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer), dtype=np.float64)


def superposed(positions: Positions, onto: Positions) -> Positions:
    """Shift and rotate positions onto others, with the smallest RMSD (W. Kabsch, Acta Cryst. A32, 1976)."""
    apart, target = positions - positions.mean(axis=0), onto - onto.mean(axis=0)
    left, _, right = np.linalg.svd(apart.T @ target)
    handed = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    moved: Positions = apart @ left @ handed @ right + onto.mean(axis=0)
    return moved


def dihedral(positions: Positions, atoms: tuple[int, ...]) -> float:
    """Return the angle, in degrees, by which four atoms in a row are twisted.

    >>> dihedral(np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]]), (0, 1, 2, 3))
    90.0
    """
    before, axis, after = np.diff(positions[list(atoms)], axis=0)
    a, b = np.cross(before, axis), np.cross(axis, after)
    return float(np.degrees(np.arctan2(np.cross(a, b) @ axis / np.linalg.norm(axis), a @ b)))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Move alanine dipeptide with OpenMM.")
    parser.add_argument("--steps", type=int, default=250_000, help="timesteps of 4 fs (%(default)s)")
    parser.add_argument(
        "--every", type=int, default=125, help="timesteps from one published step to the next (%(default)s)"
    )
    parser.add_argument("--temperature", type=float, default=900.0, help="in kelvin (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of velocities and friction (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
