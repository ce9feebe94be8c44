# SPDX-License-Identifier: Apache-2.0
"""Where among the bins of a cell its quantiles lie.

The counts of a cell are bins + 3 numbers, as in ``counting.py``: what lies below the bins, the bins, what lies above
them, and NaN.
"""

import functools

import numpy as np

from analytics.kernels.compiling import Kernel, compiled
from insitu.model import Array


@functools.cache
def locate_levels() -> Kernel:
    """Return ``locate(counts, levels, place, count)``: write each cell's quantiles and number of values, without NaN.

    `counts` is int64 of shape (bins + 3, cells); `levels` come in any order. `place`, float64 of shape
    (levels, cells), is k + 0.5 in the middle of bin k, counted from 0 on, if the bin's values are evenly spread; -inf
    below the bins, inf above them, and NaN without values. `count` is int64.
    """

    def locate(counts: Array, levels: Array, place: Array, count: Array) -> None:
        order, rows = np.argsort(levels), len(counts) - 1
        for c in range(count.size):
            total = 0
            for row in range(rows):
                total += counts[row, c]
            count[c] = total
            place[:, c] = np.nan
            here, below = 0, 0
            for k in order[: levels.size if total > 0 else 0]:
                rank = levels[k] * total
                while counts[here, c] == 0 or below + counts[here, c] < rank:
                    below += counts[here, c]
                    here += 1
                part = (rank - below) / counts[here, c]
                place[k, c] = -np.inf if here == 0 else np.inf if here == rows - 1 else here - 1 + part

    return compiled(locate)
