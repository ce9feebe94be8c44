# SPDX-License-Identifier: Apache-2.0
"""A simulation of one field `u`, in which cell i of step n has the value n + i, and which can be made to fail.

Each rank tells of itself in files of the working directory: ``begun-RANK`` after its first step, and at its end
``rank-RANK.json``.
"""

import argparse
import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size


def main() -> None:
    options = parse_options()
    comm = world() if options.mpi else None
    rank, size = rank_and_size(comm)
    cells = options.cells
    place = np.arange(rank * cells, (rank + 1) * cells, dtype="f8")
    pause, longest_s, done = threading.Event(), 0.0, 0
    earliest, latest = math.inf, -math.inf
    begin = time.monotonic()
    sim = insitu.Client(comm=comm)
    join_s = time.monotonic() - begin
    try:
        for n in range(options.steps):
            if comm is not None:
                comm.Barrier()
            begin = time.monotonic()
            with sim.step(n, time=0.5 * n) as step:
                step.put("u", place + n, start=(rank * cells,), shape=(size * cells,), dims=("x",), units="m")
                if (rank, n) == (options.fail_rank, options.fail_at):
                    fail(options.fail)
            if options.talk is not None:
                print("step", n, "of rank", rank, "." * options.talk, flush=True)
            longest_s = max(longest_s, time.monotonic() - begin)
            earliest, latest = min(earliest, time.time()), max(latest, time.time())
            done = n + 1
            if n == 0:
                Path(f"begun-{rank}").touch()
            if (sim.stopping and not options.deaf) or (options.until and Path(options.until).exists()):
                break
            pause.wait(options.pause)
    finally:
        begin = time.monotonic()
        sim.close()
        said = {"steps": done, "join_s": join_s, "longest_s": longest_s, "wall_s": latest - earliest}
        said["close_s"] = time.monotonic() - begin
        Path(f"rank-{rank}.json").write_text(json.dumps(said))


def world() -> Any:
    from mpi4py import MPI

    return MPI.COMM_WORLD


def fail(how: str) -> None:
    """Fail in the middle of a step."""
    print(f"about to {how}", file=sys.stderr, flush=True)
    if how == "raise":
        raise ArithmeticError("the field became negative")
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cells", type=int, default=8, help="of each rank")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each step")
    parser.add_argument("--mpi", action="store_true", help="let no rank be a step ahead of another")
    parser.add_argument("--fail", choices=["raise", "exit", "kill"])
    parser.add_argument("--fail-rank", type=int)
    parser.add_argument("--fail-at", type=int)
    parser.add_argument("--talk", type=int, nargs="?", const=0, help="print a line each step, with so many dots")
    parser.add_argument("--until", default="", help="end when this file is there")
    parser.add_argument("--deaf", action="store_true", help="go on when asked to stop")
    return parser.parse_args()


if __name__ == "__main__":
    main()
