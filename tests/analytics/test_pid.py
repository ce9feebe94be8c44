# SPDX-License-Identifier: Apache-2.0
"""A PID against closed loops that linear algebra solves, and against the faults that PIDs are known for."""

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from analytics.pid import PID
from tests.analytics.results import result


def controller(**keys: Any) -> PID:
    return PID(**{"of": "series", "sets": "u", "setpoint": 1.0, "kp": 1.0, "bias": 0.0, **keys})


def loop(
    pid: PID, steps: int, dt: float = 0.1, y: float = 0.0, disturbance: float = 0.0
) -> tuple[list[float], list[float]]:
    """Keep the plant y' = -y + u + disturbance, by explicit Euler steps, with the controller in the loop."""
    u, ys, us = 0.0, [], []
    for n in range(steps):
        for action in pid.on_result(result(y, n, n * dt), {"u": u}):
            u = float(action.values["u"])  # type: ignore[arg-type]
        ys.append(y)
        us.append(u)
        y += dt * (-y + u + disturbance)
    return ys, us


def test_a_pi_loop_is_the_linear_system_that_it_should_be() -> None:
    """y[n+1] = (1 - dt) y + dt u, u = kp e + I, I[n+1] = I + ki dt e[n+1]: as powers of one matrix."""
    kp, ki, dt, r = 2.0, 1.5, 0.1, 1.0
    ys, us = loop(controller(kp=kp, ki=ki), 60)
    # The state (y, I, 1); the first result only sets out, later ones integrate before u is made.
    plant = np.array([[1 - dt - dt * kp, dt, dt * kp * r], [0, 1, 0], [0, 0, 1.0]])
    integrate = np.array([[1, 0, 0], [-ki * dt, 1, ki * dt * r], [0, 0, 1.0]])
    state = np.array([0.0, 0.0, 1.0])
    for n in range(60):
        state = integrate @ state if n else state
        assert ys[n] == pytest.approx(state[0], abs=1e-12)
        assert us[n] == pytest.approx(kp * (r - state[0]) + state[1], abs=1e-12)
        state = plant @ state


def test_the_integral_removes_what_a_disturbance_leaves() -> None:
    assert loop(controller(kp=3.0), 400, disturbance=-0.5)[0][-1] == pytest.approx((3.0 - 0.5) / 4.0)
    assert loop(controller(kp=3.0, ki=2.0), 400, disturbance=-0.5)[0][-1] == pytest.approx(1.0, abs=1e-6)


def test_an_output_at_its_bound_winds_nothing_up() -> None:
    """After a long time at the bound, the output leaves it as soon as the setpoint is passed."""
    wound = controller(kp=0.5, ki=2.0, maximum=1.2, minimum=0.0, setpoint=1.1)
    free = controller(kp=0.5, ki=2.0, setpoint=1.1)
    ys, us = loop(wound, 300, y=-20.0)
    assert max(us) <= 1.2
    assert max(ys) < 1.1 + 0.1
    assert max(loop(free, 300, y=-20.0)[0]) > 5.0
    assert ys[-1] == pytest.approx(1.1, abs=1e-3)


def test_a_new_setpoint_gives_the_derivative_no_kick() -> None:
    quiet, moved = controller(kd=5.0, setpoint=1.0), controller(kd=5.0, setpoint=3.0)
    first = [float(pid.on_result(result(0.5, 0), {})[0].values["u"]) for pid in (quiet, moved)]  # type: ignore[arg-type]
    again = [pid.on_result(result(0.5, 1), {}) for pid in (quiet, moved)]
    assert first == [0.5, 2.5]  # kp e alone
    assert again == [[], []]


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_the_derivative_of_a_ramp_is_its_slope(smoothing: float) -> None:
    pid, last = controller(kp=0.0, kd=2.0, smoothing=smoothing), 0.0
    for n in range(200):
        for action in pid.on_result(result(3.0 * n * 0.1, n, n * 0.1), {}):
            last = float(action.values["u"])  # type: ignore[arg-type]
    assert last == pytest.approx(-2.0 * 3.0, rel=1e-6)


def test_switching_on_changes_nothing() -> None:
    pid = controller(bias=None, kp=7.0)
    (action,) = pid.on_result(result(0.25), {"u": 0.6})
    assert action.values["u"] == pytest.approx(0.6)


def test_nan_and_a_result_of_the_same_time_do_no_harm() -> None:
    pid = controller(ki=1.0, kd=1.0)
    pid.on_result(result(0.0, 0, 0.0), {})
    assert pid.on_result(result(math.nan, 1, 1.0), {}) == []
    assert pid.on_result(result(0.0, 2, 0.0), {}) == []
    assert float(pid.on_result(result(0.0, 3, 1.0), {})[0].values["u"]) == pytest.approx(2.0)  # type: ignore[arg-type]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValidationError, match="minimum: 2 must be below maximum: 1"):
        controller(minimum=2, maximum=1)
    with pytest.raises(ValueError, match="the simulation has no number 'u' \\(it has v\\)"):
        controller(bias=None).on_result(result(0.0), {"v": 1.0})
    with pytest.raises(ValueError, match="a result of 'series' is an array of shape \\(3,\\), not a number"):
        controller().on_result(result([1, 2, 3]), {})
    with pytest.raises(ValueError, match="'series' yields value: result: must name one of them"):
        controller(result="mean").on_result(result(0.0), {})
