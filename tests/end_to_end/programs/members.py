# SPDX-License-Identifier: Apache-2.0
"""An ensemble in one simulation: each rank has four members of a field `u` of two rows and three columns.

Member m has the value `value(m, n)` in step n.
"""

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size

MEMBERS, STEPS = 4, 5


def value(member: int, step: int) -> np.ndarray:
    return np.random.default_rng([member, step]).normal(size=(2, 3))


def main() -> None:
    rank, size = rank_and_size(None)
    own = range(rank * MEMBERS, (rank + 1) * MEMBERS)
    with insitu.Client() as sim:
        for n in range(STEPS):
            u = np.stack([value(member, n) for member in own])
            with sim.step(n, time=float(n)) as step:
                dims = ("member", "y", "x")
                step.put("u", u, start=(own.start, 0, 0), shape=(size * MEMBERS, 2, 3), dims=dims, units="m")


if __name__ == "__main__":
    main()
