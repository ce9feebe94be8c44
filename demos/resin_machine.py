# SPDX-License-Identifier: Apache-2.0
"""The machine of the hybrid twin: a mould that nobody knows exactly, with noisy sensors and five gates to be steered.

Publishes each time step what its sensors show, the pressure and when the resin has come to them, the pressures of its
gates, and how full each cell is. The permeability is uneven and larger than expected, and along the upper edge the
fibres leave a gap through which resin races ahead.
"""

import argparse
import threading
import time

import numpy as np
from resin import Array, Mould, arrivals, at, sensor_places
from scipy.ndimage import gaussian_filter

import insitu

NY, NX = 24, 36
#: What the permeability is in the middle (m^2), how uneven its logarithm is, and over which length it changes (m).
K0, UNEVEN, LENGTH = 8e-11, 0.45, 0.12
#: The gap: the uppermost row of cells is so many times as permeable.
GAP = 10.0
#: Errors of the sensors: of a pressure in Pa, of a clock in s.
NOISE, CLOCK = 2e3, 1.0
#: The gates in Pa: three along the left edge from below; one in the middle of the lower edge, and of the upper one.
START = (2e5, 2e5, 2e5, 0.0, 0.0)


def true_permeability(seed: int = 5) -> Array:
    """Return what the machine has in its mould."""
    noise = np.random.default_rng(seed).normal(size=(NY, NX))
    smooth = gaussian_filter(noise, (LENGTH / 0.4 * NY, LENGTH / 0.6 * NX), mode="reflect")
    k = K0 * np.exp(UNEVEN * (smooth - smooth.mean()) / smooth.std())
    k[-1] *= GAP
    return np.asarray(k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dt", type=float, default=4.0, help="seconds of filling a step (default: %(default)s)")
    parser.add_argument("--pace", type=float, default=0.0, help="wall seconds per second of filling")
    options = parser.parse_args()
    mould, places, random = Mould(true_permeability(), ports=0.5), sensor_places(), np.random.default_rng(1)
    late = random.normal(0.0, CLOCK, len(places))
    due, n, pause = time.monotonic(), 0, threading.Event()
    with insitu.Client() as sim:
        gates = sim.parameter("gates", list(START), minimum=0.0, maximum=4e5, units="Pa", description="inlet pressures")
        while not mould.over and not sim.stopping:
            used = np.array(gates.value)
            mould.advance(options.dt, used)
            pressure = at(mould, mould.pressure, places) + random.normal(0.0, NOISE, len(places))
            arrival = np.maximum(arrivals(mould, places) + late, 1.0)
            with sim.step(n, time=mould.time) as step:
                for name, values, units in (("pressure", pressure, "Pa"), ("arrival", arrival, "s")):
                    step.put(name, values, start=(0,), shape=values.shape, dims=("sensor",), units=units)
                step.put("gates", used, start=(0,), shape=used.shape, dims=("gate",), units="Pa")
                step.put("fill", mould.fill, start=(0, 0), shape=mould.fill.shape, dims=("y", "x"), units="1")
            n += 1
            due = max(due + options.pace * options.dt, time.monotonic())  # time that was lost is not made up for
            pause.wait(due - time.monotonic())
    print(f"filled {mould.fill.mean():.1%} after {mould.time:.0f} s; dry spots {mould.dry.mean():.1%}")


if __name__ == "__main__":
    main()
