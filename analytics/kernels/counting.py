# SPDX-License-Identifier: Apache-2.0
"""Into which bin each value falls, and how many fall into each.

The bins of a tile are computed first, which vectorises, and counted then, which does not. Counting goes round several
tables: where neighbours fall into the same bin, an increment would otherwise wait for the one before it.
"""

import functools
import math

import numpy as np

from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

TILE = 1024

#: Tables among which neighbours are dealt.
TABLES = 4

#: Rows of a table of counts beside the bins: underflow before them, overflow and NaN after them.
EXTRA = 3


@inlined
def _find_bins(
    aligned: bool, v: Array, low: float, high: float, scale: float, first: float, bins: int, found: Array
) -> None:
    for i in range(v.size):
        x = np.float64(v[i])
        t: float
        if aligned:
            t = math.floor(x * scale)
            # A product too small for float64 is zero, of which the floor is not that of a negative number.
            t = (min(t, -1.0) if x < 0.0 else t) - first
        else:
            t = (x - low) * scale
        k = int(min(max(t, 0.0), bins - 1.0)) + 1
        k = 0 if x < low else k
        k = bins + 1 if x > high else k
        found[i] = bins + 2 if x != x else k


@functools.cache
def count_values(dtype: str, aligned: bool) -> Kernel:
    """Return ``count(x, low, high, scale, first, bins, counts)``: add values to `counts`, int64 of (bins + 3,).

    A value from `low` to `high` is in bin floor((x - low) * scale), `high` itself in the last one; or with `aligned` in
    bin floor(x * scale) - first, which is exact where `scale` is a power of two.
    """

    def count(x: Array, low: float, high: float, scale: float, first: float, bins: int, counts: Array) -> None:
        tables = np.zeros((TABLES, bins + EXTRA), np.int64)
        found = np.empty(TILE, np.uint32)
        for c in range(0, x.size, TILE):
            v = x[c : c + TILE]
            _find_bins(aligned, v, low, high, scale, first, bins, found)
            whole = v.size // TABLES * TABLES
            for i in range(0, whole, TABLES):
                for k in range(TABLES):
                    tables[k, found[i + k]] += 1
            for i in range(whole, v.size):
                tables[0, found[i]] += 1
        for k in range(TABLES):
            for b in range(bins + EXTRA):
                counts[b] += tables[k, b]

    return compiled(count, dtype, aligned)


@functools.cache
def count_cells(dtype: str) -> Kernel:
    """Return ``count(x, steps, low, high, scale, bins, counts)``: add values of cells to `counts` (bins + 3, cells).

    `x` is a tuple of eight arrays of shape (cells,), of which the first `steps` count. The table of a tile of cells
    stays in the cache for all of them.
    """

    def count(
        x: tuple[Array, ...], steps: int, low: float, high: float, scale: float, bins: int, counts: Array
    ) -> None:
        found = np.empty(TILE, np.uint32)
        for c in range(0, counts.shape[1], TILE):
            for step in range(steps):
                v = x[step][c : c + TILE]
                _find_bins(False, v, low, high, scale, 0.0, bins, found)
                for i in range(v.size):
                    counts[found[i], np.uint64(c + i)] += 1

    return compiled(count, dtype, "cells")


@functools.cache
def span(dtype: str) -> Kernel:
    """Return ``span(x) -> (low, high)`` of the finite values; (inf, -inf) where there are none."""

    def span(x: Array) -> tuple[float, float]:
        low, high = np.full(256, np.inf), np.full(256, -np.inf)
        for c in range(0, x.size, 256):
            v = x[c : c + 256]
            for i in range(v.size):
                f = np.float64(v[i])
                low[i] = f if (f < low[i]) & (f > -np.inf) else low[i]
                high[i] = f if (f > high[i]) & (f < np.inf) else high[i]
        return low.min(), high.max()

    return compiled(span, dtype)
