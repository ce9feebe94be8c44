# SPDX-License-Identifier: Apache-2.0
"""Moments and extremes of every cell, up to eight steps at a time.

A fold that took one step at a time would move the state through memory with each. So eight steps are taken at once: a
cell's eight values meet in registers, as a tuple that LLVM dissolves; their own moments (two passes: mean, then
deviations) are merged with the state by Pébay's formulas. Fewer than eight steps are filled up with copies of the
first, whose weight is zero; very few are merged one by one. Cells are taken in tiles, whose intermediate results stay
in the nearest cache.

The loops over a tile vectorise, which a branch in them would prevent: hence ``|`` where ``or`` would read better.
"""

import functools

import numpy as np

from analytics.kernels import lanes, pebay
from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

#: Cells taken at a time: eight rows of values and the intermediate results then fit a core's own cache of 512 KiB, and
#: each row is read in runs long enough for the hardware to read ahead.
TILE = 4096

#: Steps that are faster merged one by one than filled up to eight.
FEW = 3


@inlined
def _moments(order: int, skip: bool, rows: tuple[Array, ...], steps: int, size: Array, own: pebay.Rows) -> None:
    """Write each cell's count and moments of these steps alone."""
    fill = lanes.weights(steps)
    for i in range(rows[0].size):
        v, w = lanes.load(rows, i), fill
        n, near = float(steps), v[0]
        if skip:
            w, near = lanes.times(fill, lanes.known(v)), lanes.first(v)
            v = lanes.filled(v, near)
            n = lanes.total(w)
            size[i] = n
            n = max(n, 1.0)
        # Off one of them, so that the mean of equal values is that value, and what does not vary has no variance.
        m = near + lanes.total(lanes.times(lanes.minus(v, near), w)) / n
        d = lanes.times(lanes.minus(v, m), w)
        q = lanes.times(d, d)
        pebay.store(order, own, i, (m, lanes.total(q), lanes.total(lanes.times(q, d)), lanes.total(lanes.times(q, q))))


@inlined
def _merge(
    order: int, skip: bool, n: int, count: Array, state: pebay.Rows, steps: int, size: Array, own: pebay.Rows
) -> None:
    """Merge the moments of these steps into the state; with `skip`, both have counts by cell."""
    for i in range(state[0].size):
        na, nb = float(n), float(steps)
        if skip:
            na, nb = float(count[i]), size[i]
            count[i] = int(na + nb)
        both = pebay.merged(order, na, pebay.load(order, state, i), nb, pebay.load(order, own, i))
        pebay.store(order, state, i, both)


@inlined
def _extremes(skip: bool, rows: tuple[Array, ...], low: Array, high: Array) -> None:
    for i in range(low.size):
        v = lanes.load(rows, i)
        least, most = lanes.lowest(lanes.filled(v, np.inf)), lanes.highest(lanes.filled(v, -np.inf))
        if not skip and lanes.any_nan(v):
            least, most = np.nan, np.nan
        low[i] = least if (least < low[i]) | (least != least) else low[i]
        high[i] = most if (most > high[i]) | (most != most) else high[i]


@inlined
def _take_one(order: int, skip: bool, x: Array, n: int, count: Array, state: pebay.Rows) -> None:
    """Merge one value of each cell into the state."""
    for i in range(x.size):
        na, nb = float(n), 1.0
        v: float = np.float64(x[i])
        if skip:
            na, nb, v = float(count[i]), 1.0 if v == v else 0.0, lanes.either(v, 0.0)
            count[i] += x[i] == x[i]
        pebay.store(order, state, i, pebay.merged(order, na, pebay.load(order, state, i), nb, (v, 0.0, 0.0, 0.0)))


@inlined
def _reach_one(skip: bool, x: Array, low: Array, high: Array) -> None:
    for i in range(x.size):
        v = np.float64(x[i])
        unknown = v != v and not skip
        low[i] = v if (v < low[i]) | unknown else low[i]
        high[i] = v if (v > high[i]) | unknown else high[i]


@functools.cache
def fold_cells(dtype: str, order: int, extremes: bool, skip: bool) -> Kernel:
    """Return ``cells(x, steps, n, count, moments, ends)``: fold up to eight steps into the state of their cells.

    `x` is a tuple of eight arrays of shape (cells,), of which the first `steps` count. `n` is how many steps were
    folded before; with `skip`, `count` (int64, one per cell) says it for each cell and is brought up to date.
    `moments` is float64 of shape (order, cells); `ends`, smallest and largest, of shape (2, cells), or empty without
    `extremes`.
    """

    def cells(x: tuple[Array, ...], steps: int, n: int, count: Array, moments: Array, ends: Array) -> None:
        size, scratch = np.empty(TILE), np.empty((max(order, 1), TILE))
        own = pebay.rows(max(order, 1), scratch, 0, TILE)
        for c in range(0, x[0].size, TILE):
            rows, tile = lanes.part(x, c, c + TILE), slice(c, c + TILE)
            state = pebay.rows(max(order, 1), moments, c, c + TILE)
            if steps <= FEW:
                for k in range(steps):
                    if order >= 1:
                        _take_one(order, skip, rows[k], n + k, count[tile], state)
                    if extremes:
                        _reach_one(skip, rows[k], ends[0, tile], ends[1, tile])
                continue
            if order >= 1:
                _moments(order, skip, rows, steps, size, own)
                _merge(order, skip, n, count[tile], state, steps, size, own)
            if extremes:
                _extremes(skip, rows, ends[0, tile], ends[1, tile])

    return compiled(cells, dtype, order, extremes, skip)
