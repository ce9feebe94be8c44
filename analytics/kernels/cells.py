# SPDX-License-Identifier: Apache-2.0
"""Moments and extremes of every cell, up to eight steps at a time.

A fold that took one step at a time would move the state through memory with each. So eight steps are taken at once: a
cell's eight values meet in registers, as a tuple that LLVM dissolves; their own moments (two passes: mean, then
deviations) are merged with the state by Pébay's formulas. Fewer than eight steps are filled up with copies of the
first, whose weight is zero. Cells are taken in tiles, whose intermediate results stay in the nearest cache.

The loops over a tile vectorise, which a branch in them would prevent: hence ``|`` where ``or`` would read better. The
helpers are in this file because numba's cache looks at no other when it decides whether a kernel is still current.
"""

import functools

import numpy as np

from analytics.kernels import pebay
from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

#: Steps folded by one pass over the state.
LANES = 8

#: Cells taken at a time: eight rows of values and the intermediate results then fit a core's own cache of 512 KiB, and
#: each row is read in runs long enough for the hardware to read ahead.
TILE = 4096

Eight = tuple[float, float, float, float, float, float, float, float]


@inlined
def _load(rows: tuple[Array, ...], i: int) -> Eight:
    y0, y1, y2, y3, y4, y5, y6, y7 = rows
    f = np.float64
    return f(y0[i]), f(y1[i]), f(y2[i]), f(y3[i]), f(y4[i]), f(y5[i]), f(y6[i]), f(y7[i])


@inlined
def _part(x: tuple[Array, ...], c: int, end: int) -> tuple[Array, ...]:
    x0, x1, x2, x3, x4, x5, x6, x7 = x
    return x0[c:end], x1[c:end], x2[c:end], x3[c:end], x4[c:end], x5[c:end], x6[c:end], x7[c:end]


@inlined
def _weights(steps: int) -> Eight:
    """Return 1 for each step, 0 for what fills up."""
    f = np.float64
    return f(1), f(steps > 1), f(steps > 2), f(steps > 3), f(steps > 4), f(steps > 5), f(steps > 6), f(steps > 7)


@inlined
def _total(a: Eight) -> float:
    return ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]))


@inlined
def _times(a: Eight, b: Eight) -> Eight:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3], a[4] * b[4], a[5] * b[5], a[6] * b[6], a[7] * b[7]


@inlined
def _minus(a: Eight, m: float) -> Eight:
    return a[0] - m, a[1] - m, a[2] - m, a[3] - m, a[4] - m, a[5] - m, a[6] - m, a[7] - m


@inlined
def _or(v: float, instead: float) -> float:
    return v if v == v else instead


@inlined
def _known(a: Eight) -> Eight:
    """Return 1 where there is a number, 0 for NaN."""
    f = np.float64
    return (
        f(a[0] == a[0]), f(a[1] == a[1]), f(a[2] == a[2]), f(a[3] == a[3]),
        f(a[4] == a[4]), f(a[5] == a[5]), f(a[6] == a[6]), f(a[7] == a[7]),
    )  # fmt: skip


@inlined
def _filled(a: Eight, z: float) -> Eight:
    """Put a number where there is none."""
    return (
        _or(a[0], z),
        _or(a[1], z),
        _or(a[2], z),
        _or(a[3], z),
        _or(a[4], z),
        _or(a[5], z),
        _or(a[6], z),
        _or(a[7], z),
    )


@inlined
def _low(a: float, b: float) -> float:
    return a if a < b else b


@inlined
def _high(a: float, b: float) -> float:
    return a if a > b else b


@inlined
def _lowest(a: Eight) -> float:
    found: float = _low(_low(_low(a[0], a[1]), _low(a[2], a[3])), _low(_low(a[4], a[5]), _low(a[6], a[7])))
    return found


@inlined
def _highest(a: Eight) -> float:
    found: float = _high(_high(_high(a[0], a[1]), _high(a[2], a[3])), _high(_high(a[4], a[5]), _high(a[6], a[7])))
    return found


@inlined
def _any_nan(a: Eight) -> bool:
    return (
        (a[0] != a[0]) | (a[1] != a[1]) | (a[2] != a[2]) | (a[3] != a[3])
        | (a[4] != a[4]) | (a[5] != a[5]) | (a[6] != a[6]) | (a[7] != a[7])
    )  # fmt: skip


@inlined
def _moments(order: int, skip: bool, rows: tuple[Array, ...], steps: int, size: Array, own: pebay.Rows) -> None:
    """Write each cell's count and moments of these steps alone."""
    fill = _weights(steps)
    for i in range(rows[0].size):
        v, w = _load(rows, i), fill
        n = float(steps)
        if skip:
            w = _times(fill, _known(v))
            v = _filled(v, 0.0)
            n = _total(w)
            size[i] = n
            n = max(n, 1.0)
        m = _total(_times(v, w)) / n
        d = _times(_minus(v, m), w)
        q = _times(d, d)
        pebay.store(order, own, i, (m, _total(q), _total(_times(q, d)), _total(_times(q, q))))


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
        v = _load(rows, i)
        least, most = _lowest(_filled(v, np.inf)), _highest(_filled(v, -np.inf))
        if not skip and _any_nan(v):
            least, most = np.nan, np.nan
        low[i] = least if (least < low[i]) | (least != least) else low[i]
        high[i] = most if (most > high[i]) | (most != most) else high[i]


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
            rows, tile = _part(x, c, c + TILE), slice(c, c + TILE)
            if order >= 1:
                _moments(order, skip, rows, steps, size, own)
                _merge(order, skip, n, count[tile], pebay.rows(order, moments, c, c + TILE), steps, size, own)
            if extremes:
                _extremes(skip, rows, ends[0, tile], ends[1, tile])

    return compiled(cells, dtype, order, extremes, skip)
