# SPDX-License-Identifier: Apache-2.0
"""How a row of results is cut into chunks.

**Large rows.** A chunk holds cells of one window only, so whoever writes a window writes none of another's chunks. A
row above `SLAB_BYTES` is cut in slabs, so that several workers can write it and a reader need not take it whole.

**Small rows**, of windows, learners or steps, are many, and all written by the controller. A chunk holds as many as fit
in `SERIES_BYTES`, at most `SERIES_ROWS`: the last chunk is written anew with each batch of rows, and this bounds what
that costs. A file for each number of each window would cost a millisecond, and a shared file system its patience.
"""

from collections.abc import Mapping
from itertools import product
from math import prod

from insitu.model import Extent, Variable

Slab = tuple[slice, ...]

#: One chunk of a large field: big enough for a disk's full speed, small enough that a worker can hold a few of them.
SLAB_BYTES = 64 * 2**20

#: A row of all results of a window up to this size is small.
ROW_BYTES = 64 * 2**10

#: Limits of a chunk of rows. zstd takes about 3 ms for the bytes; 1,024 rows of a scalar are one file of 8 KiB.
SERIES_BYTES = 2**20
SERIES_ROWS = 1024


def slab_shape(shape: Extent, itemsize: int, limit_bytes: int = SLAB_BYTES) -> Extent:
    """Return the shape of the slabs that an array is cut into, along its first axis as long as that is enough.

    >>> slab_shape((512, 512), 8)
    (512, 512)
    >>> slab_shape((300, 1024, 1024), 8)
    (8, 1024, 1024)
    >>> slab_shape((2, 40_000, 1000), 8)
    (1, 8000, 1000)
    >>> slab_shape((0, 3), 8), slab_shape((), 8)
    ((1, 3), ())
    """
    slab = [max(1, length) for length in shape]
    for axis, length in enumerate(slab):
        inner = prod(slab[axis + 1 :]) * itemsize
        parts = -(-length // max(1, limit_bytes // inner))
        slab[axis] = -(-length // parts)
    return tuple(slab)


def slabs(shape: Extent, itemsize: int, limit_bytes: int = SLAB_BYTES) -> list[Slab]:
    """Return the slabs of an array, which share no cell and leave none out.

    >>> [(rows.start, rows.stop) for rows, _ in slabs((5, 4), 8, limit_bytes=64)]
    [(0, 2), (2, 4), (4, 5)]
    """
    lengths = slab_shape(shape, itemsize, limit_bytes)
    axes = [
        [slice(low, min(low + length, whole)) for low in range(0, whole, length)]
        for whole, length in zip(shape, lengths, strict=True)
    ]
    return list(product(*axes))


def is_small(described: Mapping[str, Variable]) -> bool:
    """Say whether a row of these results is written by the controller, wherever the states lie that it comes from."""
    return sum(prod(each.shape or ()) * each.dtype.itemsize for each in described.values()) <= ROW_BYTES


def rows_per_chunk(shape: Extent, itemsize: int) -> int:
    """Return how many rows of a series one chunk holds.

    >>> rows_per_chunk((), 8), rows_per_chunk((1000,), 8), rows_per_chunk((1000, 1000), 8)
    (1024, 131, 1)
    """
    row_bytes = max(1, prod(shape) * itemsize)
    return max(1, min(SERIES_ROWS, SERIES_BYTES // row_bytes))
