# SPDX-License-Identifier: Apache-2.0
"""How long a variable remembers: autocorrelation and integrated autocorrelation time of every cell."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from analytics.fields import OneName, in_hand, label, require_real
from analytics.kernels.values import refuse_nan
from analytics.lags import Lags
from insitu.model import Array, Variable
from insitu.operator import Batch, NanPolicy, Operator, State, require_array

#: For how many integrated times correlations are added up, and for how many steps at least: a series that alternates
#: from step to step has a time below 1, and one lag would not tell it.
REACH = 5


class Autocorrelation(Operator):
    """Autocorrelation in time and its integral, of every cell or of a series of numbers.

    ===================  =======  ============  =====================================================================
    result               dtype    dims          value, dimensionless (times are in published steps)
    ===================  =======  ============  =====================================================================
    ``count``            int64    (cells)       n, the steps folded
    ``autocorrelation``  float64  lag (,cells)  r(l) = c(l) / c(0), for l from 0 to `lags`
    ``integrated_time``  float64  (cells)       τ = 1 + 2 (r(1) + ... + r(W))
    ===================  =======  ============  =====================================================================

    c(l) is the mean of (x(t) - x̄)(x(t + l) - x̄) over all pairs of steps l apart, x̄ the mean of all steps. W is the
    smallest lag that is at least 5 τ, and at least 5 (A. Sokal, Monte Carlo methods in statistical mechanics, 1997):
    beyond it there is nothing but noise. n / τ is how many independent samples the mean is worth. Where `lags` do not
    reach that far, τ is NaN: raise `lags`. A hundred of them are right for a τ of some 20 steps, and n should be some
    50 τ for τ to mean much.

    A step that is lost, or lacks the variable, makes the pairs it would be in fewer; with correlations still of steps
    that are l apart. What does not vary, and a single step, has no autocorrelation: NaN, as has a lag of no pairs.

    **Input.** Any real dtype, computed in float64. Joined variables have no cells that stay in place from step to step:
    `OperatorError`. **NaN.** ``nan: propagate``: the results of that cell are NaN, except ``count``, which counts it.
    ``skip``: it is left out of the mean and of all pairs. ``fail``: `OperatorError` names variable, step and place.
    Infinite values make the results of their cell NaN.

    **Accuracy.** The merge is exact but for rounding, in any order and tree: a state keeps the fields at both ends of
    each stretch of steps that it has seen, so pairs that lie across a seam are found. Each lag has means of its own
    (P. Pébay, SAND2008-6212, 2008), so right digits remain where the mean is 1e8 times the standard deviation.

    **Cost.** State: 3 (L + 1) float64 per cell for L = `lags`, and the fields of the first and the last L steps. Each
    lag takes as long as a covariance, and 15 microseconds for each batch: some hundreds are right for scalars and
    probes, far fewer for maps of millions of cells.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (), ())
    >>> memory = Autocorrelation(of="u", over="step", lags=5)
    >>> found = memory.finalize(memory.update(memory.init(), batch([u], {"u": [1.0, -1.0] * 8})))
    >>> found["autocorrelation"], float(found["integrated_time"])
    (array([ 1., -1.,  1., -1.,  1., -1.]), -1.0)
    """

    reductions = frozenset({frozenset({"step"})})

    of: OneName
    lags: Annotated[int, Field(ge=1)] = Field(description="the largest distance of two steps, in published steps")
    nan: NanPolicy = Field(default="propagate", description="what a NaN does: propagate, skip or fail")

    def warm_up(self) -> None:
        for dtype in ("f8", "f4"):
            batch = in_hand([Variable(self.of[0], np.dtype(dtype), (1,), ("cell",))])
            self.merge(self.update(self.init(), batch), self.update(self.init(), batch))

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        require_array(self, inputs)
        of = inputs[self.of[0]]
        require_real(of)
        shape, dims, real, name = of.shape or (), of.dims, np.dtype(np.float64), label(of)
        results = [
            Variable("count", np.dtype(np.int64), shape, dims, "1", "number of steps"),
            Variable(
                "autocorrelation", real, (self.lags + 1, *shape), ("lag", *dims), "1", f"autocorrelation of {name}"
            ),
            Variable("integrated_time", real, shape, dims, "1", f"integrated autocorrelation time of {name}, in steps"),
        ]
        return {result.name: result for result in results}

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        name = self.of[0]
        if self.nan == "fail":
            refuse_nan(batch, name)
        return self._pairs.update(state, batch.steps, batch[name], batch[name])

    def merge(self, a: State, b: State) -> State:
        return self._pairs.merge(a, b)

    def finalize(self, state: State) -> dict[str, Array]:
        n, (earlier, later, products) = self._pairs.read(state)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # The means of the pairs of a lag are not the mean of all steps, from which deviations are to be taken.
            covariance = products / n + (earlier - earlier[0]) * (later - earlier[0])
            correlation = covariance / covariance[0]
        return {
            "count": np.array(n[0]),
            "autocorrelation": correlation,
            "integrated_time": _integrated(correlation),
        }

    @property
    def _pairs(self) -> Lags:
        return Lags(self.lags, squares=False, skip=self.nan == "skip")


def _integrated(correlation: Array) -> Array:
    """Return 1 + 2 (r(1) + ... + r(W)), NaN where no W is large enough."""
    times = 1.0 + 2.0 * np.cumsum(correlation[1:], axis=0)
    lags = np.arange(1, len(correlation)).reshape(-1, *(1,) * (correlation.ndim - 1))
    enough = lags >= REACH * np.maximum(times, 1.0)
    first = np.argmax(enough, axis=0)
    at_first = np.take_along_axis(times, first[np.newaxis], axis=0)[0]
    return np.where(enough.any(axis=0), at_first, np.nan)
