# SPDX-License-Identifier: Apache-2.0
"""The folds on one core, beside what memory gives: GB/s of input.

    python -m benchmarks.kernels [--rounds 5] [--dtype float64]

Each contender is given eight steps at a time, as a staging node gives them that waited. ``np.sum`` and ``np.min``
read the same arrays and keep nothing; the first is what the others are measured against. A fold by cell moves its
state as well as its input, which is in "moved": in blocks that no cache holds, that is what memory limits. Time is
the thread's own, so that other programs on the machine disturb little.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from analytics.histogram import Histogram
from analytics.moments import Moments
from analytics.profile import Profile
from analytics.spectrum import Spectrum
from benchmarks.common import report, rounds
from insitu.model import Variable
from insitu.operator import Batch, Operator, state_nbytes
from insitu.testing import batch

SIZES = (256 << 10, 4 << 20, 64 << 20)
STEPS = 8
#: Bytes that a contender works through in a round.
ENOUGH = 1 << 30

BOTH = ["step", "space"]
OPERATORS: dict[str, Operator] = {
    "mean, variance by cell": Moments(of="u", over="step", extremes=False),
    "four moments by cell": Moments(of="u", over="step", orders=4, extremes=False),
    "min, max by cell": Moments(of="u", over="step", orders=0),
    "mean, variance, min, max by cell": Moments(of="u", over="step"),
    "the same, NaN left out": Moments(of="u", over="step", nan="skip"),
    "mean, variance over space": Moments(of="u", over=BOTH, extremes=False),
    "four moments over space": Moments(of="u", over=BOTH, orders=4, extremes=False),
    "mean, variance, min, max over space": Moments(of="u", over=BOTH),
    "histogram, range given": Histogram(of="u", over=BOTH, bins=100, range=(-4, 4)),
    "histogram, range found": Histogram(of="u", over=BOTH, bins=100, range="auto"),
    "histogram by cell": Histogram(of="u", over="step", bins=10, range=(-4, 4)),
    "profile along y": Profile(of="u", over=BOTH, along="y"),
    "profile along x": Profile(of="u", over=BOTH, along="x"),
    "spectrum along y": Spectrum(of="u", over=BOTH, along="y"),
    "spectrum along x": Spectrum(of="u", over=BOTH, along="x"),
}


def reading(data: Batch, read: Callable[[np.ndarray], object], times: int) -> float:
    """Return the GB/s of a function that reads each array."""
    arrays = data["u"]
    begin = time.thread_time()
    for _ in range(times):
        for array in arrays:
            read(array)
    return times * sum(array.nbytes for array in arrays) / (time.thread_time() - begin) / 1e9


def folding(data: Batch, operator: Operator, times: int) -> float:
    """Return the GB/s of a fold into a state that is there already."""
    state = operator.update(operator.init(), data)
    begin = time.thread_time()
    for _ in range(times):
        state = operator.update(state, data)
    return times * sum(array.nbytes for array in data["u"]) / (time.thread_time() - begin) / 1e9


def measured(size: int, dtype: np.dtype, n: int) -> list[dict[str, object]]:
    """Return the rows of one size of block."""
    rows = int(np.sqrt(size // dtype.itemsize))
    u = Variable("u", dtype, (rows, size // dtype.itemsize // rows), ("y", "x"))
    rng = np.random.default_rng(0)
    data = batch([u], {"u": [(10 * rng.normal(size=u.shape)).astype(dtype) / 10 for _ in range(STEPS)]})
    times = max(1, ENOUGH // (size * STEPS))
    contenders = {
        "np.sum": partial(reading, data, np.sum, times),
        "np.min": partial(reading, data, np.min, times),
        **{name: partial(folding, data, operator, times) for name, operator in OPERATORS.items()},
    }
    found = rounds(contenders, n)
    input_bytes = sum(array.nbytes for array in data["u"])
    table: list[dict[str, object]] = []
    for name, rate in found.items():
        kept = state_nbytes(OPERATORS[name].update(OPERATORS[name].init(), data)) if name in OPERATORS else 0
        moved = rate * (input_bytes + 2 * kept) / input_bytes
        table.append({
            "block_KiB": size >> 10, "dtype": dtype.name, "contender": name, "GB/s": rate,
            "of np.sum": rate / found["np.sum"], "moved_GB/s": moved, "moved of np.sum": moved / found["np.sum"],
        })  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", nargs="+", default=["float64", "float32"], help="of the published values")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "kernels.json")
    options = parser.parse_args()
    for operator in OPERATORS.values():
        operator.warm_up()
    table = [
        row for dtype in options.dtype for size in SIZES for row in measured(size, np.dtype(dtype), options.rounds)
    ]
    report("Folds of eight steps at a time on one core", table, options.json)


if __name__ == "__main__":
    main()
