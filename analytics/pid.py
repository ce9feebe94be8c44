# SPDX-License-Identifier: Apache-2.0
"""A PID controller: keeps a number of the results at a setpoint by a parameter of the simulation."""

import math
from typing import Annotated

from pydantic import Field, PrivateAttr, model_validator

from insitu.steering.controller import Action, OneResult, Parameters, Result

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PID(OneResult):
    """Sets the parameter `sets` to u so that the number y comes to the `setpoint` r.

    With e = r - y, dt the physical time since the result before, and y' the derivative of y:

        u = kp e + I + D,    I += ki e dt,    D = -kd y'

    **Derivative on measurement.** D looks at y and not at e, so that a new setpoint gives no kick; it is filtered by a
    first-order lag of time constant `smoothing`, in the backward form D <- (s D - kd (y - y_before)) / (s + dt).

    **Anti-windup.** u is cut to [`minimum`, `maximum`]. While it is cut, I does not grow further beyond that bound, so
    that u comes back as soon as e changes its sign (conditional integration).

    **Start.** I begins where u is what the parameter has, so that switching on changes nothing by itself; `bias` gives
    I another beginning.

    A result that is NaN is passed over. An action is asked for where u differs from the one before.
    Reference: K. J. Åström, T. Hägglund, Advanced PID Control, ISA, 2006, chapters 3 and 13.
    """

    sets: str = Field(description="the parameter of the simulation that is u")
    setpoint: Finite = Field(description="r, in the units of the result")
    kp: Finite = Field(description="proportional gain")
    ki: Finite = Field(default=0.0, description="integral gain, per physical time")
    kd: Finite = Field(default=0.0, description="derivative gain, in physical time")
    smoothing: Positive = Field(default=0.0, description="time constant of the derivative's filter, in physical time")
    minimum: Finite | None = Field(default=None, description="smallest u; null: none")
    maximum: Finite | None = Field(default=None, description="largest u; null: none")
    bias: Finite | None = Field(default=None, description="where I begins; null: where u is the parameter's value")

    _integral: float | None = PrivateAttr(None)
    _derivative: float = PrivateAttr(0.0)
    _before: tuple[float, float] | None = PrivateAttr(None)
    _output: float | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "PID":
        low, high = self._bounds
        if not low < high:
            raise ValueError(f"minimum: {low:g} must be below maximum: {high:g}")
        return self

    @property
    def _bounds(self) -> tuple[float, float]:
        low = -math.inf if self.minimum is None else self.minimum
        return low, math.inf if self.maximum is None else self.maximum

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        y, time = self.number(result), result.provenance.time
        if math.isnan(y):
            return []
        error = self.setpoint - y
        if self._integral is None:
            self._integral = self._start(parameters, error)
        if self._before is not None and time > self._before[1]:
            self._advance(y, error, time - self._before[1])
        self._before = (y, time)
        low, high = self._bounds
        output = min(max(self.kp * error + self._integral + self._derivative, low), high)
        if output == self._output:
            return []
        self._output = output
        return [Action("set", {self.sets: output}, why=f"{result.operator} is {y:g}, wanted {self.setpoint:g}")]

    def _start(self, parameters: Parameters, error: float) -> float:
        if self.bias is not None:
            return self.bias
        value = parameters.get(self.sets)
        if not isinstance(value, int | float):
            raise ValueError(f"sets: the simulation has no number '{self.sets}' (it has {', '.join(parameters)})")
        return value - self.kp * error

    def _advance(self, y: float, error: float, dt: float) -> None:
        assert self._before is not None
        assert self._integral is not None
        lag = self.smoothing + dt
        self._derivative = (self.smoothing * self._derivative - self.kd * (y - self._before[0])) / lag
        change = self.ki * error * dt
        wanted = self.kp * error + self._integral + change + self._derivative
        low, high = self._bounds
        if not (wanted > high and change > 0) and not (wanted < low and change < 0):
            self._integral += change
