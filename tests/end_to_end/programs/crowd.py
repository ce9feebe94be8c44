# SPDX-License-Identifier: Apache-2.0
"""Many ranks in a few processes: ``crowd.py FIRST COUNT SIZE STEPS``; each is a thread with a client of its own."""

import sys
import threading

import numpy as np

import insitu
from insitu.testing import Place


def publish(rank: int, size: int, steps: int) -> None:
    with insitu.Client(comm=Place(rank, size)) as sim:
        for n in range(steps):
            with sim.step(n) as step:
                step.put("u", np.full(4, float(rank + n)), start=(4 * rank,), shape=(4 * size,))


def main() -> None:
    first, count, size, steps = map(int, sys.argv[1:])
    threads = [threading.Thread(target=publish, args=(rank, size, steps)) for rank in range(first, first + count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
