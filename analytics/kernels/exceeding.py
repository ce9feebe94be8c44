# SPDX-License-Identifier: Apache-2.0
"""How often, when and for how long values lie beyond a threshold.

``sign`` is 1 for values above the threshold and -1 for those below it: then a value is beyond it where ``sign * value >
limit``, with ``limit = sign * threshold``. NaN never is.
"""

import functools

from analytics.kernels.compiling import Kernel, compiled, inlined
from insitu.model import Array

#: Cells taken at a time: what is known of them, 52 bytes each, stays in a core's own cache for all steps of a batch.
TILE = 2048


@inlined
def _count(x: Array, sign: float, limit: float, beyond: Array, unknown: Array) -> None:
    for i in range(x.size):
        v = sign * x[i]
        beyond[i] += v > limit
        unknown[i] += v != v


@inlined
def _lengthen(x: Array, sign: float, limit: float, known: int, follows: bool, runs: tuple[Array, Array, Array]) -> None:
    """Bring the runs of a stretch of `known` steps up to date with a step, which `follows` the last or comes later."""
    head, tail, longest = runs
    for i in range(x.size):
        beyond = sign * x[i] > limit
        head[i] += beyond & (head[i] == known)
        run = (tail[i] if follows else 0) + 1
        tail[i] = run if beyond else 0
        longest[i] = max(longest[i], tail[i])


@inlined
def _date(x: Array, sign: float, limit: float, index: int, time: float, at: Array, when: Array, later: bool) -> None:
    """Note a step where it is the first, or with `later` the last, beyond the threshold."""
    for i in range(x.size):
        wins = index > at[i] if later else index < at[i]
        wins = wins & (sign * x[i] > limit)
        at[i] = index if wins else at[i]
        when[i] = time if wins else when[i]


@functools.cache
def exceed_cells(dtype: str) -> Kernel:
    """Return ``exceed(x, steps, sign, limit, index, time, known, follows, counts, at, when, runs)``: fold eight steps.

    `x` is a tuple of eight arrays of shape (cells,), of which the first `steps` count. For each of these, `index` and
    `time` are the step's, `known` is how many steps the stretch of `runs` then has, and `follows` whether this one is
    next to the last of them. Of each cell, `counts` (int32) has how often it was beyond and how often NaN; `at` (int64)
    and `when` (float64) the first and the last step beyond; `runs` (int32) the run that the stretch begins with, the
    one it ends with, and the longest.
    """

    def exceed(
        x: tuple[Array, ...],
        steps: int,
        sign: float,
        limit: float,
        index: Array,
        time: Array,
        known: Array,
        follows: Array,
        counts: Array,
        at: Array,
        when: Array,
        runs: Array,
    ) -> None:
        for c in range(0, x[0].size, TILE):
            tile = slice(c, c + TILE)
            for k in range(steps):
                v = x[k][tile]
                _count(v, sign, limit, counts[0, tile], counts[1, tile])
                _lengthen(v, sign, limit, known[k], follows[k], (runs[0, tile], runs[1, tile], runs[2, tile]))
                _date(v, sign, limit, index[k], time[k], at[0, tile], when[0, tile], False)
                _date(v, sign, limit, index[k], time[k], at[1, tile], when[1, tile], True)

    return compiled(exceed, dtype)


@functools.cache
def exceed_values(dtype: str) -> Kernel:
    """Return ``exceed(x, sign, limit) -> (beyond, unknown)``: how many values are beyond, and how many NaN."""

    def exceed(x: Array, sign: float, limit: float) -> tuple[int, int]:
        beyond, unknown = 0, 0
        for i in range(x.size):
            v = sign * x[i]
            beyond += v > limit
            unknown += v != v
        return beyond, unknown

    return compiled(exceed, dtype, "flat")
