# SPDX-License-Identifier: Apache-2.0
"""Notices when the mean of a number changes, and asks for an action."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from insitu.steering.controller import Action, OneResult, Parameters, Result


class ChangePoint(OneResult):
    """Asks for the action `then` when the mean of a number has changed, then learns anew what is usual.

    Each number x is first made z = (x - mean) / std, with `mean` and `std` as given, or else as the first `learn`
    results have them. Then two sums, one for either direction, are followed:

    ``method: cusum``. up <- max(0, up + z - k), down <- max(0, down - z - k), with the `allowance` k.

    ``method: page_hinkley``. up is the sum of z - k and down that of z + k; each is compared with its smallest, or
    largest, value so far.

    A sum beyond the `threshold` h is a change. k is half of the change, in standard deviations, that is to be found
    soonest. With k = 0.5 and h = 5 there is a false alarm each 465 independent results on average, and a change by one
    standard deviation is found after 10. Correlated results give more false alarms: take windows that are longer than
    what they remember. NaN is passed over.

    References: E. S. Page, Continuous inspection schemes, Biometrika 41 (1954) 100; D. C. Montgomery, Introduction to
    Statistical Quality Control, chapter 9, for the run lengths.
    """

    method: Literal["cusum", "page_hinkley"] = Field(default="cusum", description="how changes are noticed")
    allowance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.5, description="k: changes below twice as many standard deviations are let pass"
    )
    threshold: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=5.0, description="h: how far a sum may go, in standard deviations"
    )
    learn: Annotated[int, Field(ge=2)] = Field(default=50, description="results from which mean and std are learnt")
    mean: Annotated[float, Field(allow_inf_nan=False)] | None = Field(default=None, description="what is usual")
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="how far results usually are from it"
    )
    then: Literal["set", "stop", "pause", "checkpoint"] = Field(default="checkpoint", description="the action")
    values: dict[str, Any] = Field(default={}, description="with then: set, the parameters and their values")

    _learnt: tuple[int, float, float] = PrivateAttr((0, 0.0, 0.0))
    _sums: tuple[float, float] = PrivateAttr((0.0, 0.0))
    _ends: tuple[float, float] = PrivateAttr((0.0, 0.0))

    @model_validator(mode="after")
    def _is_consistent(self) -> "ChangePoint":
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both, or none and let them be learnt")
        if (self.then == "set") != bool(self.values):
            raise ValueError("values and then: set belong together")
        return self

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        value = self.number(result)
        if math.isnan(value):
            return []
        z = self._standardised(value)
        if z is None:
            return []
        up, down = self._follow(z)
        if max(up, down) <= self.threshold:
            return []
        self._learnt, self._sums, self._ends = (0, 0.0, 0.0), (0.0, 0.0), (0.0, 0.0)
        way = "risen" if up > down else "fallen"
        why = f"{result.operator} has {way}: {value:.6g} at step {result.provenance.last_step}, {z:+.2g} deviations off"
        return [Action(self.then, dict(self.values), why=why)]

    def _standardised(self, value: float) -> float | None:
        """Return z, or learn from the value."""
        if self.mean is not None and self.std is not None:
            return (value - self.mean) / self.std
        n, mean, m2 = self._learnt
        if n < self.learn:
            deviation = value - mean
            mean += deviation / (n + 1)
            self._learnt = (n + 1, mean, m2 + deviation * (value - mean))
            return None
        std = math.sqrt(m2 / (n - 1))
        if std == 0:  # all were equal: any other value is a change
            return 0.0 if value == mean else math.copysign(math.inf, value - mean)
        return (value - mean) / std

    def _follow(self, z: float) -> tuple[float, float]:
        """Return how far the sums of both directions have gone."""
        k, (up, down) = self.allowance, self._sums
        if self.method == "cusum":
            self._sums = (max(0.0, up + z - k), max(0.0, down - z - k))
            return self._sums
        self._sums = (up + z - k, down + z + k)
        lowest, highest = self._ends
        self._ends = (min(lowest, self._sums[0]), max(highest, self._sums[1]))
        return self._sums[0] - self._ends[0], self._ends[1] - self._sums[1]
