# SPDX-License-Identifier: Apache-2.0
"""Covariance and correlation of two variables, over steps, over space, or over both; over steps also lagged."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from analytics.fields import in_hand, label, power, refuse_other_blocks, require_real, require_same_grid
from analytics.kernels.values import refuse_nan
from analytics.lags import Lags
from insitu.model import Array, Variable
from insitu.operator import OVER_MEMBERS, Batch, Names, NanPolicy, Operator, State, require_array


def _two(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > 2:
        raise ValueError(
            f"takes one or two variables, got {len(names)} ({', '.join(names)}); make an entry for each pair"
        )
    return names


class Covariance(Operator):
    """Covariance and correlation of two variables x and y, cell by cell.

    With ``over: step`` of every cell's values in time; with ``over: space`` of all cells of a step; with both, of all
    cells and steps of a window. ``of: [u, v]`` takes u as x and v as y; ``of: u`` takes u as both.

    ===============  =======  ==================================  =======================
    result           dtype    value                               units
    ===============  =======  ==================================  =======================
    ``count``        int64    n, the pairs folded                 1
    ``covariance``   float64  Cxy / (n - 1)                       x's times y's
    ``correlation``  float64  Cxy / √(Cxx Cyy), from -1 to 1      1
    ===============  =======  ==================================  =======================

    where Cxy = Σ (x - x̄)(y - ȳ). What is not defined is NaN: both of no pairs, the covariance of one, the correlation
    where x or y does not vary.

    **Lags.** ``lags: L``, only with ``over: step``, gives a leading dimension ``lag`` of length L + 1: entry l is of
    the pairs of x at a step and y l steps *later* (swap the variables for earlier), with the means of those pairs
    alone. Steps are counted as they are published: one that is lost, or lacks a variable, makes the pairs it would be
    in fewer, which ``count`` tells. A window has the pairs whose both steps lie in it.

    **Input.** Any real dtypes, computed in float64. Both variables must have the same shape and the same blocks
    (joined ones: the same number of rows), else `OperatorError` says which differ.

    **NaN.** ``nan: propagate``: the results of that cell (or step, or window) are NaN, except ``count``, which counts
    the pair too. ``skip``: the pair is left out. ``fail``: `OperatorError` names variable, step and place. Infinite
    values make both results NaN.

    **Accuracy.** The merge is exact but for rounding, lags included: any tree, order and split give the same to about
    1e-15 of the values' magnitude, and right digits remain where the mean is 1e8 times the standard deviation
    (P. Pébay, SAND2008-6212, 2008).

    **Cost.** State: 5 (L + 1) float64 per cell, and with lags the fields of both variables of the first and the last L
    steps. Each lag costs as much time as the covariance itself.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u, v = (Variable(name, np.dtype("f8"), (1,), ("x",), units="m") for name in "uv")
    >>> operator = Covariance(of=["u", "v"], over="step", lags=1)
    >>> held = batch([u, v], {"u": [[1.0], [2.0], [4.0], [3.0]], "v": [[0.0], [1.0], [2.0], [4.0]]})
    >>> found = operator.finalize(operator.update(operator.init(), held))
    >>> found["covariance"][:, 0], found["count"][:, 0]
    (array([1.5       , 2.33333333]), array([4, 3]))
    """

    reductions = Operator.reductions | OVER_MEMBERS

    of: Annotated[Names, AfterValidator(_two)] = Field(description="the variables x and y, or one that is both")
    lags: Annotated[int, Field(ge=0)] = Field(
        default=0, description="by how many steps y is moved against x at most; only with over: step"
    )
    nan: NanPolicy = Field(default="propagate", description="what a NaN does: propagate, skip or fail")

    @model_validator(mode="after")
    def _lags_need_steps(self) -> "Covariance":
        if self.lags and self.over != ("step",):
            raise ValueError(f"lags: {self.lags} needs over: step; take over: step or leave the lags out")
        return self

    def warm_up(self) -> None:
        for dtype in ("f8", "f4"):
            batch = in_hand([Variable(name, np.dtype(dtype), (1,), ("cell",)) for name in self.of])
            self.merge(self.update(self.init(), batch), self.update(self.init(), batch))

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        require_array(self, inputs)
        x, y = inputs[self.of[0]], inputs[self.of[-1]]
        for variable in (x, y):
            require_real(variable)
        require_same_grid(x, y)
        shape, dims = (x.shape or (), x.dims) if self.keeps_cells else ((), ())
        if self.lags:
            shape, dims = (self.lags + 1, *shape), ("lag", *dims)
        units = power(x.units, 2) if x.units == y.units else f"({x.units or 1}) ({y.units or 1})"
        both = f"{label(x)} and {label(y)}"
        return {
            "count": Variable("count", np.dtype(np.int64), shape, dims, "1", "number of pairs"),
            "covariance": Variable("covariance", np.dtype(np.float64), shape, dims, units, f"covariance of {both}"),
            "correlation": Variable("correlation", np.dtype(np.float64), shape, dims, "1", f"correlation of {both}"),
        }

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        x, y = self.of[0], self.of[-1]
        if self.nan == "fail":
            for name in {x: 0, y: 0}:
                refuse_nan(batch, name)
        refuse_other_blocks(batch, x, y)
        if self.keeps_cells:
            # Without lags it only matters that entries have different numbers, which members of a step have not.
            steps = [replace(step, sequence=k) for k, step in enumerate(batch.steps)] if batch.members else batch.steps
            return self._pairs.update(state, steps, batch[x], batch[y])
        return self._pairs.update_flat(state, batch[x], batch[y])

    def merge(self, a: State, b: State) -> State:
        return self._pairs.merge(a, b)

    def finalize(self, state: State) -> dict[str, Array]:
        n, (_, _, xy, xx, yy) = self._pairs.read(state)
        with np.errstate(divide="ignore", invalid="ignore"):
            covariance = np.where(n > 0, xy / (n - 1), np.nan)
            correlation = np.clip(xy / (np.sqrt(xx) * np.sqrt(yy)), -1.0, 1.0)
        results = {"count": n, "covariance": covariance, "correlation": correlation}
        return results if self.lags else {name: result.reshape(result.shape[1:]) for name, result in results.items()}

    @property
    def _pairs(self) -> Lags:
        return Lags(self.lags, squares=True, skip=self.nan == "skip")
