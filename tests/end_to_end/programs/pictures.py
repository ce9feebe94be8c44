# SPDX-License-Identifier: Apache-2.0
"""Ranks that publish one variable of each kind that can be looked at, until the file ``enough`` is there.

Cell (j, i) of `u` has the value n + 100 j + i in the n-th step; what else there is follows from n as well.
"""

import threading
from pathlib import Path

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size

ROWS, COLUMNS = 24, 32
PAUSE_S, STEPS = 0.25, 100_000


def main() -> None:
    rank, size = rank_and_size()
    low, high = (ROWS * k // size for k in (rank, rank + 1))
    u = 100.0 * np.arange(low, high)[:, np.newaxis] + np.arange(COLUMNS)
    pause = threading.Event()
    with insitu.Client() as sim:
        sim.parameter("feed", 0.25, minimum=0.0, maximum=1.0, units="1/s", description="<i>how fast</i>")
        sim.parameter("solver", "cg", choices=["cg", "gmres"])
        sim.parameter("quick", True)
        sim.parameter("inlets", [1.0, 2.0], minimum=0.0)
        for n in range(STEPS):
            with sim.step(10 * n, time=0.5 * n) as step:
                at = {"start": (low, 0), "shape": (ROWS, COLUMNS), "dims": ("y", "x")}
                step.put("u", u + n, **at, units="mol/L", long_name="<i>how much</i>")
                step.put("<b>bold</b>", np.where(u % 3, u, np.nan), **at)
                step.put("cube", np.broadcast_to(u + n, (4, *u.shape)), start=(0, low, 0), shape=(4, ROWS, COLUMNS))
                step.put("line", u[:, 0] + n, start=(low,), shape=(ROWS,), dims=("y",), units="m")
                step.put("atoms", np.stack([u[0], u[0] + rank, u[0]], axis=1), dims=("atom", "axis"))
            if sim.stopping or Path("enough").exists():
                break
            pause.wait(PAUSE_S)


if __name__ == "__main__":
    main()
