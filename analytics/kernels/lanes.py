# SPDX-License-Identifier: Apache-2.0
"""Eight values of one cell, as a tuple that LLVM dissolves into registers: what kernels over cells are written in.

Everything is done to all eight alike, so that loops over cells vectorise; fewer than eight steps are filled up with
copies of the first, whose weight is zero.
"""

import numpy as np

from analytics.kernels.compiling import inlined
from insitu.model import Array

#: Steps folded by one pass over the state.
LANES = 8

#: A value of a cell in each of eight steps.
Eight = tuple[float, float, float, float, float, float, float, float]


@inlined
def load(rows: tuple[Array, ...], i: int) -> Eight:
    y0, y1, y2, y3, y4, y5, y6, y7 = rows
    f = np.float64
    return f(y0[i]), f(y1[i]), f(y2[i]), f(y3[i]), f(y4[i]), f(y5[i]), f(y6[i]), f(y7[i])


@inlined
def part(x: tuple[Array, ...], c: int, end: int) -> tuple[Array, ...]:
    x0, x1, x2, x3, x4, x5, x6, x7 = x
    return x0[c:end], x1[c:end], x2[c:end], x3[c:end], x4[c:end], x5[c:end], x6[c:end], x7[c:end]


@inlined
def weights(steps: int) -> Eight:
    """Return 1 for each step, 0 for what fills up."""
    f = np.float64
    return f(1), f(steps > 1), f(steps > 2), f(steps > 3), f(steps > 4), f(steps > 5), f(steps > 6), f(steps > 7)


@inlined
def total(a: Eight) -> float:
    return ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]))


@inlined
def times(a: Eight, b: Eight) -> Eight:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3], a[4] * b[4], a[5] * b[5], a[6] * b[6], a[7] * b[7]


@inlined
def minus(a: Eight, m: float) -> Eight:
    return a[0] - m, a[1] - m, a[2] - m, a[3] - m, a[4] - m, a[5] - m, a[6] - m, a[7] - m


@inlined
def mean(a: Eight, w: Eight, n: float) -> float:
    """Return the mean of those whose weight is 1, `n` in all. Of equal values it is that value, to the last bit."""
    near: float = total(times(a, w)) / n
    rest: float = total(times(minus(a, near), w)) / n
    return near + rest


@inlined
def either(v: float, z: float) -> float:
    """Return a number, `z` for NaN."""
    number: float = v if v == v else z
    return number


@inlined
def first(a: Eight) -> float:
    """Return the first number, 0 where all are NaN."""
    late = either(a[4], either(a[5], either(a[6], either(a[7], 0.0))))
    number: float = either(a[0], either(a[1], either(a[2], either(a[3], late))))
    return number


@inlined
def known(a: Eight) -> Eight:
    """Return 1 where there is a number, 0 for NaN."""
    f = np.float64
    return (
        f(a[0] == a[0]), f(a[1] == a[1]), f(a[2] == a[2]), f(a[3] == a[3]),
        f(a[4] == a[4]), f(a[5] == a[5]), f(a[6] == a[6]), f(a[7] == a[7]),
    )  # fmt: skip


@inlined
def filled(a: Eight, z: float) -> Eight:
    """Put a number where there is none."""
    return (
        either(a[0], z), either(a[1], z), either(a[2], z), either(a[3], z),
        either(a[4], z), either(a[5], z), either(a[6], z), either(a[7], z),
    )  # fmt: skip


@inlined
def one_if(v: float, w: float, z: float) -> float:
    """Return a number whose weight is not zero, else `z`."""
    return v if w > 0.0 else z


@inlined
def weighted(a: Eight, w: Eight, z: float) -> Eight:
    """Put a number in place of those whose weight is zero."""
    return (
        one_if(a[0], w[0], z), one_if(a[1], w[1], z), one_if(a[2], w[2], z), one_if(a[3], w[3], z),
        one_if(a[4], w[4], z), one_if(a[5], w[5], z), one_if(a[6], w[6], z), one_if(a[7], w[7], z),
    )  # fmt: skip


@inlined
def low(a: float, b: float) -> float:
    return a if a < b else b


@inlined
def high(a: float, b: float) -> float:
    return a if a > b else b


@inlined
def lowest(a: Eight) -> float:
    found: float = low(low(low(a[0], a[1]), low(a[2], a[3])), low(low(a[4], a[5]), low(a[6], a[7])))
    return found


@inlined
def highest(a: Eight) -> float:
    found: float = high(high(high(a[0], a[1]), high(a[2], a[3])), high(high(a[4], a[5]), high(a[6], a[7])))
    return found


@inlined
def any_nan(a: Eight) -> bool:
    return (
        (a[0] != a[0]) | (a[1] != a[1]) | (a[2] != a[2]) | (a[3] != a[3])
        | (a[4] != a[4]) | (a[5] != a[5]) | (a[6] != a[6]) | (a[7] != a[7])
    )  # fmt: skip
