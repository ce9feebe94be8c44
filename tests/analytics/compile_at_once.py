# SPDX-License-Identifier: Apache-2.0
"""Four processes compile one kernel, two of them for each dtype; then this one calls it for all.

Says how often it was compiled, how many this process found in the cache, which is empty at first, and what came out.
"""

import multiprocessing

import numpy as np

from analytics.kernels.compiling import compiled


def add(x, y):
    return x + y


DTYPES = ("i8", "f8")
kernel = compiled(add)


def call(dtype):
    value = np.dtype(dtype).type
    return kernel(value(1), value(2))


def count(compiled_, dtype):
    call(dtype)
    with compiled_.get_lock():
        compiled_.value += sum(kernel.stats.cache_misses.values())


if __name__ == "__main__":
    processes = multiprocessing.get_context("fork")
    compiled_ = processes.Value("i")
    children = [processes.Process(target=count, args=(compiled_, dtype)) for dtype in DTYPES * 2]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    results = [call(dtype) for dtype in DTYPES]
    print(compiled_.value)
    print(sum(kernel.stats.cache_hits.values()))
    print(results)
