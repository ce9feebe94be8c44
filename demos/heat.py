# SPDX-License-Identifier: Apache-2.0
"""Heat in a square plate, many plates at once: each has a random temperature within and at each of its four sides.

    insitu run configs/surrogate_heat.yaml        a network learns the field from five temperatures and the time

Each rank has some of the plates. When they are through they begin anew with other temperatures, so that one run shows
many simulations. The equation is u_t = u_xx + u_yy, by explicit differences in space and time (second and first order).
With ``--store FOLDER`` every step is also written to a file, as who learns afterwards would have to.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

import insitu
from insitu.client.launcher import rank_and_size

Floats = npt.NDArray[np.float32]

#: Temperatures in kelvin, between which the five of a plate are drawn: within, and at its four sides.
LOW, HIGH = 100.0, 500.0
#: The time that a plate is looked at: after it, heat has crossed the plate.
DURATION = 0.1


def main() -> None:
    options = parse_options()
    rank, size = rank_and_size(None)
    first, last = options.plates * rank // size, options.plates * (rank + 1) // size
    cells = options.cells
    shape = (options.plates, cells, cells)
    with insitu.Client() as sim:
        index = 0
        for generation in range(options.generations):
            temperatures = drawn(options.seed, generation, options.plates)[first:last]
            u = begun(temperatures, cells)
            for n in range(1, options.steps + 1):
                advance(u, options.steps)
                time = DURATION * n / options.steps
                with sim.step(index, time=time) as step:
                    inner, dims = u[:, 1:-1, 1:-1], ("member", "y", "x")
                    step.put("u", inner, start=(first, 0, 0), shape=shape, dims=dims, units="K")
                    five, names = (options.plates, 5), ("member", "number")
                    step.put("temperatures", temperatures, start=(first, 0), shape=five, dims=names, units="K")
                if options.store:
                    store(options.store, index, first, u, temperatures, time)
                index += 1
                if sim.stopping:
                    return


def drawn(seed: int, generation: int, plates: int) -> Floats:
    """Return the temperatures of all plates of a generation, (plates, 5)."""
    return np.random.default_rng([seed, generation]).uniform(LOW, HIGH, (plates, 5)).astype(np.float32)


def begun(temperatures: Floats, cells: int) -> Floats:
    """Return plates at their beginning, with a rim that has the temperature of each side."""
    u = np.empty((len(temperatures), cells + 2, cells + 2), np.float32)
    u[:] = temperatures[:, :1, np.newaxis]
    for side, number in ((np.s_[:, 0, :], 1), (np.s_[:, -1, :], 2), (np.s_[:, :, 0], 3), (np.s_[:, :, -1], 4)):
        u[side] = temperatures[:, number, np.newaxis]
    return u


def advance(u: Floats, steps: int) -> None:
    """Advance plates in place by one published step, in as many of the scheme's as it needs to be stable."""
    spacing = 1.0 / (u.shape[-1] - 1)
    length = DURATION / steps
    substeps = int(np.ceil(length / (0.2 * spacing**2)))
    factor = np.float32(length / substeps / spacing**2)
    for _ in range(substeps):
        inner = u[:, 1:-1, 1:-1]
        around = u[:, :-2, 1:-1] + u[:, 2:, 1:-1] + u[:, 1:-1, :-2] + u[:, 1:-1, 2:]
        inner += factor * (around - 4 * inner)


def store(folder: Path, index: int, first: int, u: Floats, temperatures: Floats, time: float) -> None:
    """Write a step of this rank's plates: of each a file, as one simulation does that knows of no other."""
    for k, plate in enumerate(u):
        row = np.concatenate([temperatures[k], [time], plate[1:-1, 1:-1].ravel()], dtype=np.float32)
        np.save(folder / f"{index:06}-{first + k:03}.npy", row)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Heat in many square plates.")
    parser.add_argument("--plates", type=int, default=8, help="simulations at once (default: %(default)s)")
    parser.add_argument("--generations", type=int, default=40, help="one after the other (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="published by each (default: %(default)s)")
    parser.add_argument("--cells", type=int, default=32, help="along each side of a plate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the temperatures (default: %(default)s)")
    parser.add_argument("--store", type=Path, help="a folder that is there, for a file of each plate and step")
    return parser.parse_args()


if __name__ == "__main__":
    main()
