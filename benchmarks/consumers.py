# SPDX-License-Identifier: Apache-2.0
"""What a consumer by hand makes of the blocks it receives; the same for every contender but insitu, which has its own.

Each writes, when it has done with everything, at what time that was.
"""

import time
from typing import Protocol

import numpy as np

from benchmarks.workload import BINS, Array, Workload, write


class Fold(Protocol):
    """Takes one block after the other."""

    def take(self, rank: int, block: Array) -> None: ...


class Sum:
    """Reads every element once."""

    def __init__(self) -> None:
        self.total = 0.0

    def take(self, rank: int, block: Array) -> None:
        self.total += float(np.sum(block))


class Statistics:
    """Mean and variance of every cell, and one histogram of all values, in one pass of a numba kernel (Welford)."""

    def __init__(self, work: Workload) -> None:
        from benchmarks.kernel import fold

        cells = int(np.prod(work.block))
        self.n = [0] * work.ranks
        self.mean, self.m2 = np.zeros((work.ranks, cells)), np.zeros((work.ranks, cells))
        self.counts = np.zeros(BINS, np.int64)
        self._fold = fold
        fold(np.zeros(1), 1, np.zeros(1), np.zeros(1), np.zeros(BINS, np.int64))  # compiles it

    def take(self, rank: int, block: Array) -> None:
        self.n[rank] += 1
        self._fold(block.reshape(-1), self.n[rank], self.mean[rank], self.m2[rank], self.counts)


class Consumer:
    """Counts the blocks of a workload, and folds them.

    Leaves the note ``warm`` when the steps before the clock are done with, and ``end`` when all are.
    """

    def __init__(self, work: Workload) -> None:
        self._work = work
        self._fold: Fold = Sum() if work.fold == "sum" else Statistics(work)
        self._left = work.ranks * work.total

    def __bool__(self) -> bool:
        """Whether more is to come."""
        return self._left > 0

    def take(self, rank: int, block: Array) -> None:
        """Fold a block; it may go afterwards."""
        self._fold.take(rank, block)
        self._left -= 1
        if self._left == self._work.ranks * self._work.steps:
            self._work.warm.touch()
        if self._left == 0:
            write(self._work.note("end"), repr(time.monotonic()))
