# SPDX-License-Identifier: Apache-2.0
"""The merge of two sets of moments, for every kernel that needs it.

P. Pébay, Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical moments,
SAND2008-6212, 2008. A set of moments is (count, mean, M2, M3, M4), where Mk is the sum of the k-th powers of deviations
from the mean.
"""

import functools

from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

#: A mean, M2, M3 and M4; those above the order asked for are zero.
Four = tuple[float, float, float, float]

#: The same of many cells.
Rows = tuple[Array, Array, Array, Array]


@inlined
def merged(order: int, na: float, a: Four, nb: float, b: Four) -> Four:
    """Return the moments of both; of nothing and nothing, nothing."""
    n = max(na + nb, 1.0)
    p, q = na / n, nb / n
    c = na * q
    d = b[0] - a[0]
    mean, m2, m3, m4 = a[0] + d * q, 0.0, 0.0, 0.0
    d = d if (c > 0) | (d != d) else 0.0  # nothing times the square of 1e154, which is infinite, is nothing
    dd = d * d
    if order >= 2:
        m2 = a[1] + b[1] + dd * c
    if order >= 3:
        m3 = a[2] + b[2] + dd * d * (c * (p - q)) + 3 * d * (p * b[1] - q * a[1])
    if order >= 4:
        across = 6 * dd * (p * p * b[1] + q * q * a[1]) + 4 * d * (p * b[2] - q * a[2])
        m4 = a[3] + b[3] + dd * dd * (c * (p * p - p * q + q * q)) + across
    return mean, m2, m3, m4


@inlined
def rows(order: int, moments: Array, start: int, end: int) -> Rows:
    """Return the four rows of moments of shape (order, cells), each contiguous, for some of the cells.

    Those above the order are other names of the last, which nobody looks at.
    """
    top = order - 1
    return (
        moments[0, start:end],
        moments[min(1, top), start:end],
        moments[min(2, top), start:end],
        moments[min(3, top), start:end],
    )


@inlined
def load(order: int, four: Rows, i: int) -> Four:
    m2 = four[1][i] if order >= 2 else 0.0
    m3 = four[2][i] if order >= 3 else 0.0
    m4 = four[3][i] if order >= 4 else 0.0
    return four[0][i], m2, m3, m4


@inlined
def store(order: int, four: Rows, i: int, values: Four) -> None:
    four[0][i] = values[0]
    if order >= 2:
        four[1][i] = values[1]
    if order >= 3:
        four[2][i] = values[2]
    if order >= 4:
        four[3][i] = values[3]


@functools.cache
def merge_moments(order: int) -> Kernel:
    """Return ``merge(na, a, nb, b)``: the moments `b` go into `a`.

    `a` and `b` are float64 of shape (order, cells); the counts are int64 of shape (cells,), or (1,) for all alike.
    """

    def merge(na: Array, a: Array, nb: Array, b: Array) -> None:
        mine, theirs = rows(order, a, 0, a.shape[1]), rows(order, b, 0, a.shape[1])
        for i in range(a.shape[1]):
            ka = na[i] if na.size > 1 else na[0]
            kb = nb[i] if nb.size > 1 else nb[0]
            store(order, mine, i, merged(order, float(ka), load(order, mine, i), float(kb), load(order, theirs, i)))

    return compiled(merge, order)
