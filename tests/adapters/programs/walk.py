# SPDX-License-Identifier: Apache-2.0
"""A walker on a line that can be pushed; it cannot be begun anew, and ends by itself or is killed at a step.

--seed N draws where it begins, --steps N ends it, --die N kills it before that step.
"""

import argparse
import os
import signal

import numpy as np

import insitu


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--die", type=int, default=-1)
    options = parser.parse_args()
    place = float(np.random.default_rng(options.seed).integers(100))
    with insitu.Client() as sim:
        push = sim.parameter("push", "stay", choices=["back", "stay", "on"])
        far = sim.parameter("far", 1.0, minimum=0.0, maximum=10.0)
        sim.parameter("free", 1.0)
        for n in range(options.steps):
            if n == options.die:
                os.kill(os.getpid(), signal.SIGKILL)
            place += {"back": -1, "stay": 0, "on": 1}[push.value] * far.value
            with sim.step(2 * n, time=0.5 * n) as step:
                step.put("place", place)
                step.put("half", [place / 2, 0.0], shape=(2,))
            if sim.stopping:
                break


if __name__ == "__main__":
    main()
