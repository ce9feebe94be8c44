# SPDX-License-Identifier: Apache-2.0
"""The kernel of `benchmarks.consumers.Statistics`, in a file of its own since not every environment has numba."""

from numba import njit

from benchmarks.workload import BINS, HIGH, LOW, Array


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "arcp", "nsz"})
def fold(x: Array, n: int, mean: Array, m2: Array, counts: Array) -> None:
    """Fold the `n`-th block into mean and sum of squared deviations of its cells (Welford), and into the histogram."""
    scale = (BINS - 2) / (HIGH - LOW)
    for i in range(x.size):
        v = x[i]
        d = v - mean[i]
        mean[i] += d / n
        m2[i] += d * (v - mean[i])
        b = int((v - LOW) * scale) + 1
        counts[0 if v < LOW else BINS - 1 if v >= HIGH else b] += 1
