# SPDX-License-Identifier: Apache-2.0
"""Co-moments of all pairs of two arrays, tile by tile as in ``flat.py``."""

import functools

import numpy as np

from analytics.kernels import comoments
from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

#: Pairs taken at a time: twice 16 KiB of float64, the nearest cache.
TILE = 2048


@inlined
def _base(u: Array, v: Array) -> tuple[float, float]:
    """Return the first pair in which both are numbers, or (0, 0).

    Sums start from it, so that what does not vary has no covariance, rather than one of rounding errors.
    """
    for i in range(u.size):
        if u[i] == u[i] and v[i] == v[i]:
            return np.float64(u[i]), np.float64(v[i])
    return 0.0, 0.0


@inlined
def _means(skip: bool, u: Array, v: Array) -> tuple[float, float, float]:
    """Return how many pairs there are, and their means."""
    x, y = _base(u, v)
    n, s, t = 0, 0.0, 0.0
    for i in range(u.size):
        known = (u[i] == u[i]) & (v[i] == v[i]) if skip else True
        n += known
        s += u[i] - x if known else 0.0
        t += v[i] - y if known else 0.0
    return float(n), x + s / max(n, 1), y + t / max(n, 1)


@inlined
def _products(skip: bool, u: Array, v: Array, x: float, y: float) -> comoments.Five:
    xy, xx, yy = 0.0, 0.0, 0.0
    for i in range(u.size):
        known = (u[i] == u[i]) & (v[i] == v[i]) if skip else True
        d = u[i] - x if known else 0.0
        e = v[i] - y if known else 0.0
        xy += d * e
        xx += d * d
        yy += e * e
    return x, y, xy, xx, yy


@functools.cache
def fold_flat_pairs(dtype: str, skip: bool) -> Kernel:
    """Return ``flat(x, y, count, state)``: fold two one-dimensional arrays of one dtype into one cell.

    `count` is int64 of shape (1,), `state` float64 of shape (5, 1); both are brought up to date. With `skip` a pair
    with a NaN is left out; without, it makes all five NaN.
    """

    def flat(x: Array, y: Array, count: Array, state: Array) -> None:
        rows = comoments.rows(state, 0, 1)
        five = comoments.load(True, rows, 0)
        for c in range(0, x.size, TILE):
            u, v = x[c : c + TILE], y[c : c + TILE]
            n, a, b = _means(skip, u, v)
            five = comoments.merged(True, float(count[0]), five, n, _products(skip, u, v, a, b))
            count[0] += int(n)
        comoments.store(True, rows, 0, five)

    return compiled(flat, dtype, skip)
