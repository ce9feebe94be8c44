# SPDX-License-Identifier: Apache-2.0
"""Many ranks in a few processes: ``crowd.py FIRST COUNT SIZE STEPS``; each is a thread with a client of its own.

Each tells of its longest step in ``rank-RANK.json``.
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

import insitu
from insitu.testing import Place


def publish(rank: int, size: int, steps: int) -> None:
    took = []
    with insitu.Client(comm=Place(rank, size)) as sim:
        for n in range(steps):
            begin = time.monotonic()
            with sim.step(n) as step:
                step.put("u", np.full(4, float(rank + n)), start=(4 * rank,), shape=(4 * size,))
            took.append(time.monotonic() - begin)
    Path(f"rank-{rank}.json").write_text(json.dumps({"steps": len(took), "longest_s": max(took)}))


def main() -> None:
    first, count, size, steps = map(int, sys.argv[1:])
    threads = [threading.Thread(target=publish, args=(rank, size, steps)) for rank in range(first, first + count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
