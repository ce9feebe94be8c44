# SPDX-License-Identifier: Apache-2.0
"""Squared displacements of particles between all pairs of places in time, added up by lag."""

import functools

import numpy as np

from analytics.kernels.compiling import Kernel, compiled
from insitu.model import Array


@functools.cache
def add_displacements() -> Kernel:
    """Return ``displacements(ways, total, count)``: add squares and number of displacements of each lag.

    `ways` is float64 of shape (places in time, dimensions, particles), NaN where a particle is not there. `total`
    (float64) and `count` (int64) have one entry for each lag from 0 on, as many as are wanted.
    """

    def displacements(ways: Array, total: Array, count: Array) -> None:
        square = np.empty(ways.shape[2])
        for lag in range(min(total.size, ways.shape[0])):
            for t in range(ways.shape[0] - lag):
                square[:] = 0.0
                for d in range(ways.shape[1]):
                    before, after = ways[t, d], ways[t + lag, d]
                    for i in range(square.size):
                        square[i] += (after[i] - before[i]) * (after[i] - before[i])
                some, known = 0.0, 0
                for i in range(square.size):
                    known += square[i] == square[i]
                    some += square[i] if square[i] == square[i] else 0.0
                total[lag] += some
                count[lag] += known

    return compiled(displacements)
