# SPDX-License-Identifier: Apache-2.0
"""Lorenz's convection in three numbers, with a force on the first one that may be set while it runs.

    dx/dt = sigma (y - x) + force,  dy/dt = x (rho - z) - y,  dz/dt = x y - beta z

At rho = 28 it wanders for ever between two states that are not stable, x = y = -8.5 and +8.5 at z = 27. The action
``restart`` begins anew on the attractor, at a place that the seed draws. Publishes ``state`` each --every steps.

E. N. Lorenz, Deterministic nonperiodic flow, J. Atmos. Sci. 20 (1963) 130-141.
"""

import argparse

import numpy as np
import numpy.typing as npt

import insitu

State = npt.NDArray[np.float64]

SIGMA, RHO, BETA = 10.0, 28.0, 8.0 / 3.0
#: Where the system would stay if nothing disturbed it, on the side of the negative x.
REST = np.array([-np.sqrt(BETA * (RHO - 1)), -np.sqrt(BETA * (RHO - 1)), RHO - 1])
FORCE = 10.0


def derivative(state: State, force: float) -> State:
    x, y, z = state
    return np.array([SIGMA * (y - x) + force, x * (RHO - z) - y, x * y - BETA * z])


def advance(state: State, force: float, dt: float) -> State:
    """One step of the classical Runge-Kutta method."""
    k1 = derivative(state, force)
    k2 = derivative(state + dt / 2 * k1, force)
    k3 = derivative(state + dt / 2 * k2, force)
    k4 = derivative(state + dt * k3, force)
    return np.asarray(state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4))


def drawn(seed: int) -> State:
    """Return a state on the attractor: where a random one has gone after ten units of time."""
    state = np.random.default_rng(seed).normal([0.0, 0.0, RHO], 5.0)
    for _ in range(1000):
        state = advance(state, 0.0, 0.01)
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dt", type=float, default=0.01, help="time of a step (default: %(default)s)")
    parser.add_argument("--every", type=int, default=5, help="steps from one that is published to the next")
    parser.add_argument("--steps", type=int, default=10_000_000, help="published steps until it ends by itself")
    parser.add_argument("--seed", type=int, default=0, help="draws where it begins (default: %(default)s)")
    options = parser.parse_args()
    state, n = drawn(options.seed), 0

    def restart(seed: int) -> None:
        state[:] = drawn(seed)

    with insitu.Client() as sim:
        force = sim.parameter("force", 0.0, minimum=-FORCE, maximum=FORCE, description="a force on x")
        sim.action("restart", restart, "begin anew on the attractor", seed=0)
        while n < options.steps and not sim.stopping:
            for _ in range(options.every):
                state[:] = advance(state, force.value, options.dt)
            with sim.step(n, time=n * options.every * options.dt) as step:
                step.put("state", state, start=(0,), shape=(3,), dims=("component",), units="1")
            n += 1


if __name__ == "__main__":
    main()
