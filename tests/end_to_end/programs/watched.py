# SPDX-License-Identifier: Apache-2.0
"""The three ranks of `shapes`, for as long as they are not stopped: who looks at them finds their arrays as they are.

Each rank tells in ``rank-RANK.json`` how many steps it had, and how long the longest of them took.
"""

import json
import threading
import time
from pathlib import Path

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size
from tests.end_to_end.programs.shapes import particles, parts, scalar

#: Fewer steps than a test needs to look at them would be an end before its time.
PAUSE_S, STEPS = 0.03, 5000
#: The arrays that are put: two in uneven parts, of which one rank has none, and one in columns.
ARRAYS = ("uneven", "short", "columns")


def main() -> None:
    rank, _ = rank_and_size()
    pause, longest_s, done = threading.Event(), 0.0, 0
    with insitu.Client() as sim:
        for n in range(STEPS):
            begin = time.monotonic()
            with sim.step(10 * n, time=0.5 * n) as step:
                for name, block, where in parts(rank, n):
                    if name in ARRAYS:
                        step.put(name, block, **where)
                step.put("particles", particles(rank, n), dims=("particle", "axis"), units="m/s")
                step.put("agreed", scalar(n))
                if rank == 0 and n % 3 == 0:
                    step.put("lonely", np.int64(n))
            longest_s = max(longest_s, time.monotonic() - begin)
            done = n + 1
            if sim.stopping:
                break
            pause.wait(PAUSE_S)
    Path(f"rank-{rank}.json").write_text(json.dumps({"steps": done, "longest_s": longest_s}))


if __name__ == "__main__":
    main()
