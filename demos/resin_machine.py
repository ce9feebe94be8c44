# SPDX-License-Identifier: Apache-2.0
"""The machine of the hybrid twin: a mould that nobody knows exactly, with noisy sensors and three gates to be steered.

Publishes each time step the pressures at the sensors and how full each cell is; `gates` sets the gates' pressures. The
permeability is uneven, and along the upper edge the fibres leave a gap through which resin races ahead.
"""

import argparse
import threading
import time

import numpy as np
from resin import Array, Mould, at, sensor_places
from scipy.ndimage import gaussian_filter

import insitu

NY, NX = 24, 36
K0 = 5e-11
#: The gap: this many rows of cells along the upper edge, so many times as permeable.
GAP_ROWS, GAP = 1, 20.0
NOISE = 2e3
START = (2e5, 2e5, 2e5)


def true_permeability(seed: int = 3, gap: bool = True) -> Array:
    """Return what the machine has in its mould, with or without the gap."""
    noise = np.random.default_rng(seed).normal(size=(NY, NX))
    smooth = gaussian_filter(noise, (NY / 5, NX / 5), mode="reflect")
    k = K0 * np.exp(0.45 * smooth / smooth.std())
    if gap:
        k[-GAP_ROWS:] *= GAP
    return np.asarray(k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dt", type=float, default=4.0, help="seconds of filling a step (default: %(default)s)")
    parser.add_argument("--pace", type=float, default=0.0, help="wall seconds per second of filling, at least")
    options = parser.parse_args()
    mould, places, random = Mould(true_permeability()), sensor_places(), np.random.default_rng(1)
    begin, n, pause = time.monotonic(), 0, threading.Event()
    with insitu.Client() as sim:
        gates = sim.parameter("gates", list(START), minimum=0.0, maximum=4e5, units="Pa", description="inlet pressures")
        while not mould.over and not sim.stopping:
            mould.advance(options.dt, np.asarray(gates.value))
            seen = at(mould, mould.pressure, places) + random.normal(0.0, NOISE, len(places))
            with sim.step(n, time=mould.time) as step:
                step.put("sensors", seen, start=(0,), shape=seen.shape, dims=("sensor",), units="Pa")
                step.put("fill", mould.fill, start=(0, 0), shape=mould.fill.shape, dims=("y", "x"), units="1")
            n += 1
            pause.wait(max(0.0, begin + options.pace * mould.time - time.monotonic()))
    print(f"filled {mould.fill.mean():.1%} after {mould.time:.0f} s; dry spots {mould.dry.mean():.1%}")


if __name__ == "__main__":
    main()
