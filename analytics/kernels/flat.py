# SPDX-License-Identifier: Apache-2.0
"""Moments and extremes of all values of an array.

The array is taken in tiles that fit the nearest cache: the tile's own mean, then the powers of the deviations from it,
then one merge with the state. So memory is read once, and the state's own rounding counts once per tile.
"""

import functools

import numpy as np

from analytics.kernels import pebay
from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

#: Values taken at a time: 16 KiB of float64, half of the nearest cache.
TILE = 2048

#: Values whose mean is so near to the first of them, relatively, may all be equal to it, and the mean rounded.
EQUAL = 1e-12

#: A search for one smallest number does not vectorise; one in each of these columns side by side does.
COLUMNS = 256


@inlined
def _mean(v: Array) -> tuple[int, float]:
    """Return how many values are numbers, and their mean."""
    known, total = 0, 0.0
    for i in range(v.size):
        known += v[i] == v[i]
        total += np.float64(v[i]) if v[i] == v[i] else 0.0
    return known, total / max(known, 1)


@inlined
def _mean_of_equal(v: Array, known: int) -> float:
    """Return the mean again, but of equal values that value, to the last bit."""
    near, total = 0.0, 0.0
    for i in range(v.size):
        if v[i] == v[i]:
            near = np.float64(v[i])
            break
    for i in range(v.size):
        total += np.float64(v[i]) - near if v[i] == v[i] else 0.0
    return near + total / max(known, 1)


@inlined
def _powers(order: int, v: Array, mean: float) -> pebay.Four:
    """Return the mean and the sums of powers of deviations from it."""
    m2, m3, m4 = 0.0, 0.0, 0.0
    if order >= 2:
        for i in range(v.size):
            d = np.float64(v[i]) - mean if v[i] == v[i] else 0.0
            q = d * d
            m2 += q
            m3 += q * d
            m4 += q * q
    return mean, m2, m3, m4


@inlined
def _extremes(v: Array, least: Array, most: Array) -> None:
    for c in range(0, v.size, COLUMNS):
        row = v[c : c + COLUMNS]
        for i in range(row.size):
            f = np.float64(row[i])
            least[i] = f if f < least[i] else least[i]
            most[i] = f if f > most[i] else most[i]


@functools.cache
def fold_flat(dtype: str, order: int, extremes: bool, skip: bool) -> Kernel:
    """Return ``flat(x, n, moments, ends) -> int``: fold a one-dimensional array into the state of one cell.

    `n` is how many values were folded before, and the new number is returned. `moments` is float64 of shape (order,
    1); `ends`, smallest and largest, of shape (2, 1), or empty without `extremes`. Without `skip`, one NaN makes all
    of them NaN.
    """

    def flat(x: Array, n: int, moments: Array, ends: Array) -> int:
        low, high = np.full(COLUMNS, np.inf), np.full(COLUMNS, -np.inf)
        rows = pebay.rows(order, moments, 0, 1)
        state = pebay.load(order, rows, 0) if order >= 1 else (0.0, 0.0, 0.0, 0.0)
        for c in range(0, x.size, TILE):
            v = x[c : c + TILE]
            known, mean = _mean(v)
            near = np.float64(v[0])
            if not EQUAL * abs(near) < abs(mean - near) < np.inf:
                mean = _mean_of_equal(v, known)
            if known < v.size and not skip:
                known, mean = v.size, np.nan
                low[:], high[:] = np.nan, np.nan
            if extremes:
                _extremes(v, low, high)
            state = pebay.merged(order, float(n), state, float(known), _powers(order, v, mean))
            n += known
        if order >= 1:
            pebay.store(order, rows, 0, state)
        if extremes:
            for i in range(COLUMNS):
                ends[0, 0] = low[i] if (low[i] < ends[0, 0]) | (low[i] != low[i]) else ends[0, 0]
                ends[1, 0] = high[i] if (high[i] > ends[1, 0]) | (high[i] != high[i]) else ends[1, 0]
        return n

    return compiled(flat, dtype, order, extremes, skip)
