# SPDX-License-Identifier: Apache-2.0
"""How many pairs of particles are how far apart, in a periodic box.

Particles are sorted into cells not smaller than the cutoff, so that each is compared with those of its own and of the
neighbouring cells only. Where a direction has less than three cells they are all neighbours, and each is visited once.
"""

import functools
import math

import numpy as np

from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array


@inlined
def _cells(box: Array, cutoff: float, particles: int) -> Array:
    """Return the number of cells in each direction: not smaller than the cutoff, and not many more than particles."""
    cells, most = np.empty(3, np.int64), math.ceil(particles ** (1.0 / 3.0))
    for d in range(3):
        cells[d] = max(1, min(int(box[d] / cutoff), most))
    return cells


@inlined
def _place(x: Array, box: Array, inside: Array) -> None:
    """Write a particle's place within the box."""
    for d in range(3):
        inside[d] = x[d] - box[d] * math.floor(x[d] / box[d])


@inlined
def _cell(inside: Array, box: Array, cells: Array, cell: Array) -> None:
    for d in range(3):
        cell[d] = max(0, min(int(inside[d] * (cells[d] / box[d])), cells[d] - 1))


@inlined
def _number(i: int, j: int, k: int, cells: Array) -> int:
    number: int = (i * cells[1] + j) * cells[2] + k
    return number


@inlined
def _sort(y: Array, box: Array, cells: Array) -> tuple[Array, Array, Array]:
    """Return particles by cell, the first of each cell, and which particle each was."""
    numbers, start = np.empty(len(y), np.int64), np.zeros(cells.prod() + 1, np.int64)
    inside, cell = np.empty((len(y), 3)), np.empty(3, np.int64)
    for i in range(len(y)):
        _place(y[i], box, inside[i])
        _cell(inside[i], box, cells, cell)
        numbers[i] = _number(cell[0], cell[1], cell[2], cells)
        start[numbers[i] + 1] += 1
    start = np.cumsum(start)
    was, fill, by_cell = np.empty(len(y), np.int64), start.copy(), np.empty((len(y), 3))
    for i in range(len(y)):
        at = fill[numbers[i]]
        fill[numbers[i]] += 1
        was[at], by_cell[at] = i, inside[i]
    return by_cell, start, was


@inlined
def _apart(a: float, b: float, length: float) -> float:
    """Return how far apart two places along one direction are, the nearest images of both taken."""
    d = abs(a - b)
    return min(d, length - d)


@inlined
def _count(x: Array, y: Array, was: Array, after: int, box: Array, cutoff: float, counts: Array) -> None:
    """Count one particle's distances from others, of which only those count that were behind `after`."""
    scale = counts.size / cutoff
    for j in range(len(y)):
        u, v, w = _apart(x[0], y[j, 0], box[0]), _apart(x[1], y[j, 1], box[1]), _apart(x[2], y[j, 2], box[2])
        square = u * u + v * v + w * w
        if square <= cutoff * cutoff and was[j] > after:
            counts[min(int(math.sqrt(square) * scale), counts.size - 1)] += 1


@functools.cache
def count_pairs(dtype: str) -> Kernel:
    """Return ``pairs(x, y, same, box, cutoff, counts)``: add the pairs of each of `x` with each of `y` to `counts`.

    `x` and `y` are of shape (particles, 3) and finite. With `same`, `y` is `x`, and each pair counts once. `box` is
    float64 of shape (3,), and `cutoff` at most half of the shortest. Bin k of `counts` (int64) is from k to k + 1 times
    cutoff / bins, the last one including the cutoff.
    """

    def pairs(x: Array, y: Array, same: bool, box: Array, cutoff: float, counts: Array) -> None:
        cells = _cells(box, cutoff, len(y))
        by_cell, start, was = _sort(y, box, cells)
        inside, cell = np.empty(3), np.empty(3, np.int64)
        # From the cell before to the one behind; of two cells, only one is another.
        low, high = -(cells > 2).astype(np.int64), (cells > 1).astype(np.int64)
        for i in range(len(x)):
            _place(x[i], box, inside)
            _cell(inside, box, cells, cell)
            own = _number(cell[0], cell[1], cell[2], cells)
            for a in range(low[0], high[0] + 1):
                for b in range(low[1], high[1] + 1):
                    for c in range(low[2], high[2] + 1):
                        p, q, r = (cell[0] + a) % cells[0], (cell[1] + b) % cells[1], (cell[2] + c) % cells[2]
                        n = _number(p, q, r, cells)
                        if same and n < own:
                            continue  # it counts, or has counted, its pairs with this one
                        some, after = slice(start[n], start[n + 1]), i if same and n == own else -1
                        _count(inside, by_cell[some], was[some], after, box, cutoff, counts)

    return compiled(pairs, dtype)
