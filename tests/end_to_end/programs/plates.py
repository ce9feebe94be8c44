# SPDX-License-Identifier: Apache-2.0
"""The plates of ``demos/heat.py``, with a parameter that scales them; before the last ones rank 0 asks a network.

It waits until there is a version of ``killed``, asks it about a plate, and writes down what it was told.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

import insitu
from insitu.client.launcher import rank_and_size

sys.path.insert(0, str(Path(__file__).parents[3] / "demos"))
from heat import DURATION, advance, begun, drawn

#: A network has learned something by then, or never will; two that were killed begin anew meanwhile, on a busy machine.
LIMIT_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("plates", "generations", "steps", "cells"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args()
    rank, size = rank_and_size()
    first, last = options.plates * rank // size, options.plates * (rank + 1) // size
    shape = (options.plates, options.cells, options.cells)
    with insitu.Client() as sim:
        scale = sim.parameter("scale", [1.0, 1.0], minimum=0.0, description="of temperatures within and at the sides")
        for generation in range(options.generations):
            if rank == 0 and generation == options.generations - 1:
                ask(sim)
            temperatures = drawn(1, generation, options.plates)[first:last]
            temperatures *= np.repeat(scale.value, [1, 4]).astype(np.float32)
            u = begun(temperatures, options.cells)
            for n in range(1, options.steps + 1):
                advance(u, options.steps)
                with sim.step(generation * options.steps + n - 1, time=DURATION * n / options.steps) as step:
                    place = {"start": (first, 0, 0), "shape": shape, "dims": ("member", "y", "x")}
                    step.put("u", u[:, 1:-1, 1:-1], **place, units="K")
                    place = {"start": (first, 0), "shape": (options.plates, 5), "dims": ("member", "number")}
                    step.put("temperatures", temperatures, **place, units="K")


def ask(sim: insitu.Client) -> None:
    deadline = time.monotonic() + LIMIT_S
    while (model := sim.model("killed")) is None and time.monotonic() < deadline:
        threading.Event().wait(0.25)
    inputs = [[300.0, 300.0, 300.0, 300.0, 300.0, 0.05, 1.0, 1.0]]
    said = {} if model is None else {"version": model.number, "inputs": inputs, "plate": model(inputs).tolist()}
    Path("asked.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
