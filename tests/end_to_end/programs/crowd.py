# SPDX-License-Identifier: Apache-2.0
"""Many ranks in a few processes: ``crowd.py FIRST COUNT SIZE STEPS``; each is a thread with a client of its own."""

import sys
import threading
from dataclasses import dataclass

import numpy as np

import insitu


@dataclass(frozen=True)
class Place:
    """Says which rank this is, as a communicator of mpi4py does."""

    rank: int
    size: int

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return self.size


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
