# SPDX-License-Identifier: Apache-2.0
"""Co-moments of the pairs of every cell, up to eight pairs at a time, in the way of ``cells.py``.

Means and products are two loops over a tile, because one that did both would be too much for LLVM to vectorise.
"""

import functools

import numpy as np

from analytics.kernels import comoments, lanes
from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

#: Cells taken at a time: sixteen rows of values and the intermediate results then fit a core's own cache of 512 KiB.
TILE = 1024


@inlined
def _pairs(
    skip: bool, x: tuple[Array, ...], y: tuple[Array, ...], i: int, fill: lanes.Eight
) -> tuple[lanes.Eight, lanes.Eight, lanes.Eight]:
    """Return the values of a cell and their weights, which are 0 for what is left out."""
    u, v = lanes.load(x, i), lanes.load(y, i)
    if not skip:
        return u, v, fill
    w = lanes.times(fill, lanes.times(lanes.known(u), lanes.known(v)))
    return lanes.weighted(u, w, 0.0), lanes.weighted(v, w, 0.0), w


@inlined
def _means(
    skip: bool, x: tuple[Array, ...], y: tuple[Array, ...], steps: int, size: Array, own: comoments.Rows
) -> None:
    """Write each cell's number of pairs and their means."""
    fill = lanes.weights(steps)
    for i in range(x[0].size):
        u, v, w = _pairs(skip, x, y, i, fill)
        size[i] = lanes.total(w)
        n = max(size[i], 1.0)
        own[0][i], own[1][i] = lanes.mean(u, w, n), lanes.mean(v, w, n)


@inlined
def _products(
    squares: bool, skip: bool, x: tuple[Array, ...], y: tuple[Array, ...], steps: int, own: comoments.Rows
) -> None:
    fill = lanes.weights(steps)
    for i in range(x[0].size):
        u, v, w = _pairs(skip, x, y, i, fill)
        a, b = own[0][i], own[1][i]
        d, e = lanes.times(lanes.minus(u, a), w), lanes.times(lanes.minus(v, b), w)
        xy, xx, yy = lanes.total(lanes.times(d, e)), lanes.total(lanes.times(d, d)), lanes.total(lanes.times(e, e))
        comoments.store(squares, own, i, (a, b, xy, xx, yy))


@inlined
def _merge(
    squares: bool, skip: bool, count: Array, state: comoments.Rows, steps: int, size: Array, own: comoments.Rows
) -> None:
    """Merge the co-moments of these pairs into the state; with `skip`, both have counts by cell."""
    n = count[0] if not skip else 0
    for i in range(state[0].size):
        na, nb = float(n), float(steps)
        if skip:
            na, nb = float(count[i]), size[i]
            count[i] = int(na + nb)
        both = comoments.merged(squares, na, comoments.load(squares, state, i), nb, comoments.load(squares, own, i))
        comoments.store(squares, state, i, both)


@functools.cache
def fold_pairs(dtype: str, squares: bool, skip: bool) -> Kernel:
    """Return ``pairs(x, y, steps, count, state)``: fold up to eight pairs into the state of their cells.

    `x` and `y` are tuples of eight arrays of one dtype and of shape (cells,), of which the first `steps` count. `count`
    is int64 of shape (1,), or with `skip` of shape (cells,): a pair with a NaN is then left out. `state` is float64 of
    shape (rows, cells), the rows of ``comoments.py``. Both are brought up to date.
    """

    def pairs(x: tuple[Array, ...], y: tuple[Array, ...], steps: int, count: Array, state: Array) -> None:
        size = np.empty(TILE)
        own = comoments.rows(np.empty((len(state), TILE)), 0, TILE)
        for c in range(0, state.shape[1], TILE):
            end = c + TILE
            u, v = lanes.part(x, c, end), lanes.part(y, c, end)
            _means(skip, u, v, steps, size, own)
            _products(squares, skip, u, v, steps, own)
            some = count[c:end] if skip else count
            _merge(squares, skip, some, comoments.rows(state, c, end), steps, size, own)
        if not skip:
            count[0] += steps

    return compiled(pairs, dtype, squares, skip)
