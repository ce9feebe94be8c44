# SPDX-License-Identifier: Apache-2.0
"""A simulation of one rank that goes on until it is stopped, with a parameter and a field that may be set."""

from pathlib import Path
from threading import Event

import numpy as np

import insitu

u = np.zeros(4)
with insitu.Client() as sim:
    level = sim.parameter("level", 0.5, minimum=0.0, maximum=1.0)
    sim.state("u", u)
    for n in range(1_000_000):
        u += level.value
        with sim.step(n) as step:
            step.put("u", u, shape=(4,))
        Path("begun").touch()
        if sim.stopping:
            break
        Event().wait(0.005)
