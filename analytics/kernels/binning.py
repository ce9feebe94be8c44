# SPDX-License-Identifier: Apache-2.0
"""Count, mean and variance of what falls into each bin.

A tile's own means come first, then the deviations from them, then one merge with the state for each bin that the tile
touched: the tile is read twice, from the cache.
"""

import functools
import math

import numpy as np

from analytics.kernels import pebay
from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

#: Rows taken at a time.
TILE = 8192


@inlined
def _bin_of(periodic: bool, x: float, low: float, high: float, bins: int) -> int:
    """Return the bin of a position, or -1 for one outside; `high` itself is in the last bin."""
    length = high - low
    if periodic:
        x -= length * math.floor((x - low) / length)
    inside = low <= x <= high
    return min(int((x - low) * (bins / length)), bins - 1) if inside else -1


@inlined
def _has_nan(row: Array) -> bool:
    found = False
    for j in range(row.size):
        found |= row[j] != row[j]
    return found


@inlined
def _moments(of: Array, found: Array, size: Array, mean: Array, m2: Array) -> None:
    """Write the moments of rows by bin; those whose bin is negative are left out."""
    size[:], mean[:], m2[:] = 0, 0.0, 0.0
    for i in range(found.size):
        if found[i] >= 0:
            size[found[i]] += 1
            for j in range(of.shape[1]):
                mean[found[i], j] += of[i, j]
    for k in range(size.size):
        for j in range(of.shape[1]):
            mean[k, j] /= max(size[k], 1)
    for i in range(found.size):
        if found[i] >= 0:
            for j in range(of.shape[1]):
                d = of[i, j] - mean[found[i], j]
                m2[found[i], j] += d * d


@inlined
def _merge(size: Array, mean: Array, m2: Array, count: Array, moments: Array) -> None:
    for k in range(size.size):
        if size[k] > 0:
            for j in range(mean.shape[1]):
                a = (moments[0, k, j], moments[1, k, j], 0.0, 0.0)
                b = (mean[k, j], m2[k, j], 0.0, 0.0)
                both = pebay.merged(2, float(count[k]), a, float(size[k]), b)
                moments[0, k, j], moments[1, k, j] = both[0], both[1]
            count[k] += size[k]


@functools.cache
def fold_rows(dtype: str, where_dtype: str) -> Kernel:
    """Return ``rows(of, where, axis, bounds, periodic, skip, count, moments) -> int``: fold rows into their bins.

    `of` is of shape (rows, components), `where` (rows, axes), of which `axis` gives the bin between the two `bounds`;
    `count` is int64 (bins,), `moments` float64 (2, bins, components). Returns how many rows are in no bin. With `skip`,
    a row with a NaN is left out, and not counted in any way. No loop here vectorises, so flags cost as little as
    variants would.
    """

    def rows(
        of: Array,
        where: Array,
        axis: int,
        bounds: tuple[float, float],
        periodic: bool,
        skip: bool,
        count: Array,
        moments: Array,
    ) -> int:
        bins, outside = count.size, 0
        low, high = bounds
        size, mean, m2 = np.empty(bins, np.int64), np.empty(moments.shape[1:]), np.empty(moments.shape[1:])
        for c in range(0, len(where), TILE):
            tile = of[c : c + TILE]
            found = np.empty(len(tile), np.int64)
            for i in range(found.size):
                found[i] = _bin_of(periodic, where[c + i, axis], low, high, bins)
                if skip and _has_nan(tile[i]):
                    found[i] = -1
                else:
                    outside += found[i] < 0
            _moments(tile, found, size, mean, m2)
            _merge(size, mean, m2, count, moments)
        return outside

    return compiled(rows, dtype, where_dtype)


@inlined
def _sums(skip: bool, x: Array, inner: int, size: Array, total: Array) -> None:
    """Add up x as (layers, inner): how many values of each layer are known, and their sum."""
    if inner == 1:  # the loop over the layers is then the one to vectorise
        for k in range(size.size):
            size[k] += not skip or x[k] == x[k]
            total[k] += 0.0 if skip and x[k] != x[k] else x[k]
        return
    for k in range(size.size):
        known, s = 0, 0.0
        run = x[k * inner : (k + 1) * inner]
        for i in range(run.size):
            known += not skip or run[i] == run[i]
            s += 0.0 if skip and run[i] != run[i] else run[i]
        size[k] += known
        total[k] += s


@inlined
def _squares(skip: bool, x: Array, inner: int, mean: Array, total: Array) -> None:
    """Add up the squares of the deviations in the same way."""
    if inner == 1:
        for k in range(mean.size):
            d = 0.0 if skip and x[k] != x[k] else x[k] - mean[k]
            total[k] += d * d
        return
    for k in range(mean.size):
        s = 0.0
        run = x[k * inner : (k + 1) * inner]
        for i in range(run.size):
            d = 0.0 if skip and run[i] != run[i] else run[i] - mean[k]
            s += d * d
        total[k] += s


@functools.cache
def fold_layers(dtype: str, skip: bool) -> Kernel:
    """Return ``layers(x, shape, start, count, moments)``: fold x[:, k, :] into bin start + k, as `fold_rows` does.

    `x` is one-dimensional and becomes an array of `shape` (outer, layers, inner); `moments` is float64 (2, bins, 1).
    """

    def layers(x: Array, shape: tuple[int, int, int], start: int, count: Array, moments: Array) -> None:
        outer, length, inner = shape
        size, mean, m2 = np.empty(length, np.int64), np.empty(length), np.empty(length)
        count, moments = count[start : start + length], moments[:, start : start + length]
        slab = length * inner
        # Enough to be worth a merge, which costs about as much as 16 values of each layer.
        several = max(1, TILE // max(1, slab), 16 // max(1, inner))
        for first in range(0, outer, several):
            size[:], mean[:], m2[:] = 0, 0.0, 0.0
            last = min(first + several, outer)
            for a in range(first, last):
                _sums(skip, x[a * slab : (a + 1) * slab], inner, size, mean)
            mean /= np.maximum(size, 1)
            for a in range(first, last):
                _squares(skip, x[a * slab : (a + 1) * slab], inner, mean, m2)
            _merge(size, mean.reshape(length, 1), m2.reshape(length, 1), count, moments)

    return compiled(layers, dtype, skip)
