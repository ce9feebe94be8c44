# SPDX-License-Identifier: Apache-2.0
"""An ensemble of pulses that travel and spread, whose speed, diffusivity and first width nobody knows well.

    insitu run configs/ensemble.yaml        which of the three matters where, and when: Sobol' indices

Each member is the exact solution of advection and diffusion on a line, of a pulse that begins at 0.2:

    u(x, t) = w / s exp(-(x - 0.2 - c t)^2 / (2 s^2)),    s^2 = w^2 + 2 D t

Members come in groups of five: A, B, and A with one parameter of B each (pick-freeze). Each rank has some groups.
"""

import argparse

import numpy as np
import numpy.typing as npt

import insitu
from insitu.client.launcher import rank_and_size

Floats = npt.NDArray[np.float64]

#: Limits of speed c, diffusivity D and width w, between which each is drawn uniformly.
LIMITS = np.array([[0.4, 0.6], [0.0, 0.004], [0.03, 0.06]])
CELLS = 200


def main() -> None:
    options = parse_options()
    rank, size = rank_and_size(None)
    own = slice(options.groups * rank // size * 5, options.groups * (rank + 1) // size * 5)
    members = parameters(options.groups)
    x = (np.arange(CELLS) + 0.5) / CELLS
    with insitu.Client() as sim:
        for n in range(options.steps):
            time = n / options.steps
            with sim.step(n, time=time) as step:
                u = pulses(members[own], x, time)
                step.put("u", u, start=(own.start, 0), shape=(len(members), CELLS), dims=("member", "x"), units="1")
            if sim.stopping:
                break


def parameters(groups: int) -> Floats:
    """Return the parameters of all members, (5 groups, 3): group by group A, B and A with one of B's."""
    low, high = LIMITS.T
    a, b = np.random.default_rng(1).uniform(low, high, (2, groups, 3))
    mixed = [np.where(np.arange(3) == k, b, a) for k in range(3)]
    return np.stack([a, b, *mixed], axis=1).reshape(-1, 3)


def pulses(members: Floats, x: Floats, time: float) -> Floats:
    speed, diffusivity, width = members.T[:, :, np.newaxis]
    spread = np.sqrt(width**2 + 2 * diffusivity * time)
    u: Floats = width / spread * np.exp(-((x - 0.2 - speed * time) ** 2) / (2 * spread**2))
    return u


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An ensemble of pulses on a line.")
    parser.add_argument("--groups", type=int, default=400, help="groups of five members (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="steps until time 1 (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
