# SPDX-License-Identifier: Apache-2.0
"""Ends a run, or does something else once, when a number of its results is known well enough or no longer changes."""

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from analytics.regions import scipy_part
from insitu.steering.controller import Action, OneResult, Parameters, Result


class Converged(OneResult):
    """Asks for the action `then`, once, when the mean of a number is known to within `bound`, or has come to rest.

    ``by: interval``. The half-width of the confidence interval of the mean is below `bound`. Results in a row are
    correlated, so they are joined to batches, whose means are nearly independent: half = t(confidence, b - 1) s / √b,
    with the standard deviation s of the b batch means. There are `batches` to 2 `batches` of them; when there are
    twice as many, pairs are joined, so that a batch grows with the run and memory does not. It is right once a batch
    is longer than what the results remember of each other. As it is looked at after every result, and the first time
    counts, it is met earlier than a test after a fixed number would be; `least` keeps it from chance at the beginning.

    ``by: drift``. The means of the last `batches` results and of as many before them differ by less than `bound`.

    With ``relative: true`` the bound is a fraction of the mean's magnitude. NaN results are passed over. Nothing is
    asked before `least` results.

    Reference: P. W. Glynn, D. L. Iglehart, Simulation output analysis using standardized time series, Mathematics of
    Operations Research 15 (1990) 1; the doubling of batches: G. S. Fishman, L. S. Yarberry, INFORMS J. Computing 9
    (1997) 296.
    """

    bound: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(description="half-width, or drift, to come below")
    relative: bool = Field(default=False, description="whether the bound is a fraction of the mean")
    by: Literal["interval", "drift"] = Field(default="interval", description="what must come below the bound")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="of the interval")
    batches: Annotated[int, Field(ge=2, le=10_000)] = Field(
        default=20, description="batches of the interval; of the drift: results in each of the two means"
    )
    least: Annotated[int, Field(ge=1)] = Field(default=100, description="results before anything is asked")
    then: Literal["stop", "pause", "checkpoint"] = Field(default="stop", description="the action")

    _seen: int = PrivateAttr(0)
    _length: int = PrivateAttr(1)
    _sums: list[float] = PrivateAttr(default_factory=list)
    _open: tuple[float, int] = PrivateAttr((0.0, 0))
    _done: bool = PrivateAttr(False)

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        value = self.number(result)
        if self._done or math.isnan(value):
            return []
        self._seen += 1
        self._add(value)
        mean, width = self._drift() if self.by == "drift" else self._interval()
        bound = self.bound * (abs(mean) if self.relative else 1.0)
        if self._seen < self.least or not width < bound:
            return []
        self._done = True
        what = "drifts by" if self.by == "drift" else f"is known to {self.confidence:.0%} within"
        return [Action(self.then, why=f"{result.operator} = {mean:.6g} {what} {width:.3g} after {self._seen} results")]

    def _add(self, value: float) -> None:
        """Add a value to the open batch; of a drift, keep the last values themselves."""
        if self.by == "drift":
            self._sums = [*self._sums, value][-2 * self.batches :]
            return
        total, n = self._open[0] + value, self._open[1] + 1
        self._open = (total, n)
        if n == self._length:
            self._sums.append(total)
            self._open = (0.0, 0)
        if len(self._sums) == 2 * self.batches:
            self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._length *= 2

    def _interval(self) -> tuple[float, float]:
        """Return the mean and the half-width of its confidence interval; infinite while there are too few batches."""
        b = len(self._sums)
        if b < self.batches:
            return math.nan, math.inf
        means = np.array(self._sums) / self._length
        quantile = float(scipy_part("special", "converged").stdtrit(b - 1, 0.5 + self.confidence / 2))
        return float(means.mean()), quantile * float(means.std(ddof=1)) / math.sqrt(b)

    def _drift(self) -> tuple[float, float]:
        """Return the newer mean, and by how much it differs from the older one."""
        if len(self._sums) < 2 * self.batches:
            return math.nan, math.inf
        older, newer = np.mean(self._sums[: self.batches]), np.mean(self._sums[self.batches :])
        return float(newer), float(abs(newer - older))
