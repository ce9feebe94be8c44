# SPDX-License-Identifier: Apache-2.0
"""The merge of two sets of co-moments, for every kernel that needs it.

P. Pébay, Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical moments,
SAND2008-6212, 2008. A set of co-moments of pairs (x, y) is (count, mean of x, mean of y, Cxy, Cxx, Cyy), where Cxy is
the sum of the products of deviations from the means. Cxx and Cyy are there only where `squares` asks for them.
"""

import functools

from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

#: The means of x and y, Cxy, Cxx and Cyy; the last two are zero without `squares`.
Five = tuple[float, float, float, float, float]

#: The same of many cells.
Rows = tuple[Array, Array, Array, Array, Array]


def rows_of(squares: bool) -> int:
    """Return how many rows a set has in a state."""
    return 5 if squares else 3


@inlined
def merged(squares: bool, na: float, a: Five, nb: float, b: Five) -> Five:
    """Return the co-moments of both; of nothing and nothing, nothing."""
    n = max(na + nb, 1.0)
    q = nb / n
    c = na * q
    d, e = b[0] - a[0], b[1] - a[1]
    xx, yy = 0.0, 0.0
    if squares:
        xx, yy = a[3] + b[3] + d * d * c, a[4] + b[4] + e * e * c
    return a[0] + d * q, a[1] + e * q, a[2] + b[2] + d * e * c, xx, yy


@inlined
def rows(comoments: Array, start: int, end: int) -> Rows:
    """Return the five rows of co-moments of shape (rows, cells), each contiguous, for some of the cells.

    Of three rows, the last two are other names of the third, which nobody looks at.
    """
    top = len(comoments) - 1
    return (
        comoments[0, start:end],
        comoments[1, start:end],
        comoments[2, start:end],
        comoments[min(3, top), start:end],
        comoments[min(4, top), start:end],
    )


@inlined
def load(squares: bool, five: Rows, i: int) -> Five:
    xx = five[3][i] if squares else 0.0
    yy = five[4][i] if squares else 0.0
    return five[0][i], five[1][i], five[2][i], xx, yy


@inlined
def store(squares: bool, five: Rows, i: int, values: Five) -> None:
    five[0][i] = values[0]
    five[1][i] = values[1]
    five[2][i] = values[2]
    if squares:
        five[3][i] = values[3]
        five[4][i] = values[4]


@functools.cache
def merge_comoments(squares: bool) -> Kernel:
    """Return ``merge(na, a, nb, b)``: the co-moments `b` go into `a`, and their counts into `na`.

    `a` and `b` are float64 of shape (rows, cells); the counts are int64 of shape (cells,), or (1,) for all alike.
    """

    def merge(na: Array, a: Array, nb: Array, b: Array) -> None:
        mine, theirs = rows(a, 0, a.shape[1]), rows(b, 0, a.shape[1])
        for i in range(a.shape[1]):
            ka = na[i] if na.size > 1 else na[0]
            kb = nb[i] if nb.size > 1 else nb[0]
            both = merged(squares, float(ka), load(squares, mine, i), float(kb), load(squares, theirs, i))
            store(squares, mine, i, both)
        for i in range(na.size):
            na[i] += nb[i]

    return compiled(merge, squares)
