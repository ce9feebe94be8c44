# SPDX-License-Identifier: Apache-2.0
"""A tank that fills by the parameter `inflow` and drains by its level; every rank has some cells of the same level.

--steps N, --pause SECONDS after each step, --cells M, --leak STEP from which on it drains by LEAK more. Publishes u,
the level in M cells per rank, up and down a little.
"""

import argparse
import threading

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size

DT = 0.05
LEAK = 0.5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.005)
    parser.add_argument("--cells", type=int, default=4)
    parser.add_argument("--leak", type=int, default=-1)
    options = parser.parse_args()
    cells = options.cells
    rank, size = rank_and_size(None)
    pause = threading.Event()
    level, ripple = 0.0, np.resize([-0.01, 0.01, -0.02, 0.02], cells)
    with insitu.Client() as sim:
        inflow = sim.parameter("inflow", 1.0, minimum=0.0, maximum=10.0, units="m3/s")
        sim.parameter("mode", "idle", choices=["idle", "busy"])
        for n in range(options.steps):
            drain = level + (LEAK if 0 <= options.leak <= n else 0.0)
            level += DT * (float(inflow.value) - drain)
            with sim.step(n, time=n * DT) as step:
                step.put("u", level + ripple, start=(rank * cells,), shape=(size * cells,), dims=("x",), units="m")
            if sim.stopping:
                break
            pause.wait(options.pause)


if __name__ == "__main__":
    main()
