# SPDX-License-Identifier: Apache-2.0
"""A simulation whose steps are large for its analysis: a row of `--kib` KiB a rank, every value of which is the step.

Each rank tells of its longest step and of the memory that it took beside its own in ``rank-RANK.json``.
"""

import argparse
import json
import threading
import time
from pathlib import Path

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int)
    parser.add_argument("--kib", type=int)
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    rank, size = rank_and_size()
    n = options.kib * 1024 // 8
    took = []
    own = np.full((1, n), -1, "f8")  # what the program itself holds, whoever looks at it
    pause, before_bytes = threading.Event(), 0
    try:
        with insitu.Client() as sim:
            Path("begun").touch()
            before_bytes = resident("VmRSS")
            for k in range(options.steps):
                own[...] = k
                begin = time.monotonic()
                try:
                    with sim.step(k) as step:
                        step.put("u", own, start=(rank, 0), shape=(size, n))
                finally:  # the step that ends the simulation took its time, too
                    took.append(time.monotonic() - begin)
                pause.wait(options.pause)
    finally:
        said = {"steps": len(took), "longest_s": max(took, default=0.0), "all_s": sum(took)}
        said["grown_bytes"] = resident("VmHWM") - before_bytes
        Path(f"rank-{rank}.json").write_text(json.dumps(said))


def resident(what: str) -> int:
    """Return the memory that this process has now (VmRSS), or the most that it had (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


if __name__ == "__main__":
    main()
