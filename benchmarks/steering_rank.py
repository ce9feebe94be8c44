# SPDX-License-Identifier: Apache-2.0
"""One rank of `benchmarks.steering`, in a file of its own so that sixteen of them are started soon."""

import os
import sys
import threading
import time
from pathlib import Path

import insitu


def main(step_s: float) -> None:
    """Take steps by the clock, from the moment that the file ``go`` names, until it is stopped."""
    go, pause, n = Path(os.environ["GO"]), threading.Event(), 0
    with insitu.Client() as sim:
        sim.parameter("value", 0.0)
        while not go.exists():
            pause.wait(0.002)
        begin_s = float(go.read_text())
        while not sim.stopping:
            pause.wait(begin_s + n * step_s - time.monotonic())
            with sim.step(n):
                pass
            n += 1


if __name__ == "__main__":
    main(float(sys.argv[1]) * 1e-3)
