# SPDX-License-Identifier: Apache-2.0
"""Ranks that publish noise, whose sums round differently in every order: a field of 12 rows, and particles."""

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size

STEPS, ROWS, COLUMNS = 30, 12, 7


def main() -> None:
    rank, size = rank_and_size()
    noise = np.random.default_rng(rank)
    low, high = (ROWS * k // size for k in (rank, rank + 1))
    with insitu.Client() as sim:
        for n in range(STEPS):
            with sim.step(3 * n, time=n / 7) as step:
                u = noise.normal(1e3, 1.0, (high - low, COLUMNS))
                step.put("u", u, start=(low, 0), shape=(ROWS, COLUMNS), dims=("y", "x"), units="m")
                step.put("p", noise.normal(size=(noise.integers(9), 3)), dims=("particle", "axis"))
                step.put("t", noise.normal())


if __name__ == "__main__":
    main()
