# SPDX-License-Identifier: Apache-2.0
"""Four processes compile one kernel for four dtypes, and meet where they save it; then this one calls it for all.

Says how many it found in the cache, which is empty at first, and what came out.
"""

import multiprocessing
from contextlib import suppress
from threading import BrokenBarrierError

import numpy as np
from numba.core.caching import IndexDataCacheFile

from analytics.kernels.compiling import compiled


def add(x, y):
    return x + y


DTYPES = ("i8", "f4", "f8", "c16")
kernel = compiled(add)


def call(dtype):
    value = np.dtype(dtype).type
    return kernel(value(1), value(2))


def meet(barrier, dtype):
    save = IndexDataCacheFile._save_index

    def save_together(cache_file, overloads):
        with suppress(BrokenBarrierError):  # where they come one by one, nobody is met
            barrier.wait(1)
        save(cache_file, overloads)

    IndexDataCacheFile._save_index = save_together
    call(dtype)


if __name__ == "__main__":
    processes = multiprocessing.get_context("fork")
    barrier = processes.Barrier(len(DTYPES))
    children = [processes.Process(target=meet, args=(barrier, dtype)) for dtype in DTYPES]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    results = [call(dtype) for dtype in DTYPES]
    print(sum(kernel.stats.cache_hits.values()))
    print(results)
