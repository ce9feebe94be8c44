# SPDX-License-Identifier: Apache-2.0
"""Bins of each cell's own, which widen where its values spread: counts that any order of the values makes the same.

The width of a bin is a power of two, 2^exponent, and its edges are whole multiples of the width. A cell's exponent is
the smallest with which its finite values fit into the bins and each has an index below 2^52, which float64 holds
exactly; but it is not below -1000, for 2^-exponent has to be a float64, too. The first bin holds the smallest value. So
bins follow from the values alone, and coarser bins from finer ones: an index is shifted.

A row of counts is as in ``levels.py``, with infinite values outside of the bins.
"""

import functools
import math

import numpy as np

from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

_FINEST = -1000
_INDEX = 2.0**52


@inlined
def _index(x: float, scale: float) -> float:
    """Return the index of a value's bin. A product too small for float64 is zero, but not of a negative number."""
    index = math.floor(x * scale)
    return min(index, -1.0) if x < 0.0 else index


@inlined
def _shifted(index: int, by: int) -> int:
    """A shift by more than 63 is undefined; by then, only the sign is left."""
    return index >> min(by, 63)


@inlined
def _last(counts: Array) -> int:
    """Return the index of the last bin that is not empty, from 0 on; the first never is."""
    k = counts.size - 3
    while counts[k] == 0:
        k -= 1
    return k - 1


@inlined
def _cover(bins: int, e1: int, low1: int, high1: int, e2: int, low2: int, high2: int) -> tuple[int, int]:
    """Return exponent and first index of the finest bins, not finer than either, that cover two ranges of indices."""
    e = max(e1, e2)
    low = min(_shifted(low1, e - e1), _shifted(low2, e - e2))
    high = max(_shifted(high1, e - e1), _shifted(high2, e - e2))
    while high - low >= bins:
        e, low, high = e + 1, low >> 1, high >> 1
    return e, low


@inlined
def _add(e: int, first: int, counts: Array, to_e: int, to_first: int, to: Array) -> None:
    """Add the counts of bins to coarser ones that cover them."""
    for k in range(counts.size - 3):
        if counts[k + 1] > 0:
            to[_shifted(first + k, to_e - e) - to_first + 1] += counts[k + 1]


@inlined
def _widen(e: int, first: int, counts: Array, to_e: int, to_first: int, scratch: Array) -> None:
    scratch[:] = counts
    counts[1:-2] = 0
    _add(e, first, scratch, to_e, to_first, counts)


@inlined
def _take(x: float, c: int, counts: Array, exponent: Array, first: Array, scratch: Array) -> None:
    """Count a finite value for which the bins of a cell may have to be widened."""
    bins, row = counts.shape[1] - 3, counts[c]
    e = max(math.frexp(x)[1] - 52, _FINEST) if x != 0.0 else _FINEST
    index = int(_index(x, math.ldexp(1.0, -e)))
    if row[1] == 0:
        exponent[c], first[c] = e, index
    else:
        last = first[c] + _last(row)
        to_e, to_first = _cover(bins, exponent[c], first[c], last, e, index, index)
        if to_e != exponent[c] or to_first != first[c]:
            _widen(exponent[c], first[c], row, to_e, to_first, scratch)
        index = _shifted(index, to_e - e)
        exponent[c], first[c] = to_e, to_first
    row[index - first[c] + 1] += 1


@functools.cache
def count_own(dtype: str) -> Kernel:
    """Return ``count(x, steps, counts, exponent, first)``: count values of cells in bins of their own.

    `x` is a tuple of eight arrays of shape (cells,), of which the first `steps` count. `counts` is uint32 of shape
    (cells, bins + 3), `exponent` int32 and `first` int64 of shape (cells,).
    """

    def own(x: tuple[Array, ...], steps: int, counts: Array, exponent: Array, first: Array) -> None:
        bins, scratch = counts.shape[1] - 3, np.empty(counts.shape[1], np.uint32)
        for c in range(len(counts)):
            scale = math.ldexp(1.0, -exponent[c])
            for step in range(steps):
                v = np.float64(x[step][c])
                index = _index(v, scale)
                k = index - first[c]
                if (k >= 0.0) & (k < bins) & (abs(index) < _INDEX) & (counts[c, 1] > 0):
                    counts[c, int(k) + 1] += 1
                elif math.isfinite(v):
                    _take(v, c, counts, exponent, first, scratch)
                    scale = math.ldexp(1.0, -exponent[c])
                elif v != v:
                    counts[c, bins + 2] += 1
                else:
                    counts[c, bins + 1 if v > 0.0 else 0] += 1

    return compiled(own, dtype)


@functools.cache
def merge_own() -> Kernel:
    """Return ``merge(counts, exponent, first, counts_b, exponent_b, first_b)``: add the counts of b to the others."""

    def merge(counts: Array, exponent: Array, first: Array, counts_b: Array, exponent_b: Array, first_b: Array) -> None:
        bins, scratch = counts.shape[1] - 3, np.empty(counts.shape[1], np.uint32)
        for c in range(len(counts)):
            mine, theirs = counts[c], counts_b[c]
            for outside in (0, bins + 1, bins + 2):
                mine[outside] += theirs[outside]
            if theirs[1] == 0:
                continue
            if mine[1] == 0:
                exponent[c], first[c] = exponent_b[c], first_b[c]
            else:
                last, last_b = first[c] + _last(mine), first_b[c] + _last(theirs)
                e, low = _cover(bins, exponent[c], first[c], last, exponent_b[c], first_b[c], last_b)
                if e != exponent[c] or low != first[c]:
                    _widen(exponent[c], first[c], mine, e, low, scratch)
                exponent[c], first[c] = e, low
            _add(exponent_b[c], first_b[c], theirs, exponent[c], first[c], mine)

    return compiled(merge)
