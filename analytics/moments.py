# SPDX-License-Identifier: Apache-2.0
"""Mean, variance, skewness, kurtosis and extremes of one variable, over steps, over space, or over both."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from analytics.fields import OneName, in_hand, label, power, require_real
from analytics.kernels.cells import fold_cells
from analytics.kernels.flat import fold_flat
from analytics.kernels.pebay import merge_moments
from analytics.kernels.values import eights, read_only, refuse_nan, values
from insitu.model import Array, Extent, Variable
from insitu.operator import OVER_MEMBERS, Batch, NanPolicy, Operator, State, require_array

#: How a result is read off n and the rows mean, M2, M3, M4; in the order of `orders`.
_FORMULAS: dict[str, Callable[[Array, Array], Array]] = {
    "mean": lambda n, m: m[0],
    "variance": lambda n, m: m[1] / (n - 1),
    "skewness": lambda n, m: np.sqrt(n) * m[2] / m[1] ** 1.5,
    "kurtosis": lambda n, m: n * m[3] / m[1] ** 2,
}


class Moments(Operator):
    """Count, mean, variance, skewness, kurtosis, minimum and maximum of a variable.

    With ``over: step`` of every cell; with ``over: space`` of all values of a step; with both, of all values of a
    window; with ``over: member`` of every cell and step, over the members of an ensemble. Space means every value: the
    components of a vector are taken together, so publish them apart to have them apart.

    ============  =======  ===========================  ====================================================
    result        dtype    value                        units
    ============  =======  ===========================  ====================================================
    ``count``     int64    n, the values folded         1
    ``mean``      float64  x̄ = Σ x / n                  the variable's
    ``variance``  float64  M2 / (n - 1)                 the variable's, squared
    ``skewness``  float64  √n M3 / M2^(3/2)             1
    ``kurtosis``  float64  n M4 / M2²; 3 for a          1
                           normal distribution
    ``min``       float64  the smallest value           the variable's
    ``max``       float64  the largest value            the variable's
    ============  =======  ===========================  ====================================================

    where Mk = Σ (x - x̄)^k. `orders` says how many from ``mean`` to ``kurtosis`` are computed, `extremes` whether
    ``min`` and ``max`` are. What is not defined is NaN: all but ``count`` of no values, the variance of one, skewness
    and kurtosis of values that are all equal.

    **Input.** Any real dtype. Everything is computed in float64: integers beyond 2^53 are rounded to it.

    **NaN.** ``nan: propagate``: the results of that cell (or step, or window) are NaN, except ``count``, which counts
    them too. ``skip``: it is left out of everything, and ``count`` counts what is left. ``fail``: `OperatorError` names
    variable, step and place; this reads the data once more. Infinite values make the moments infinite or NaN; minimum,
    maximum and count stay right.

    **Accuracy.** The merge is exact but for rounding: any tree, order and split give the same to about 1e-15 of the
    values' magnitude, and right digits remain where the mean is 1e8 times the standard deviation (variance and
    kurtosis to 1e-7 of their value): eight steps, or a tile of cells, are reduced by their own mean first and then
    merged (P. Pébay, SAND2008-6212, 2008), never by raw powers.

    **Cost.** State: `orders` + 2 float64 per cell (and one int64 with ``nan: skip``). With ``over: step`` a batch of
    eight steps reads the values once and moves the state once; each step alone moves it every time.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (2,), ("x",), units="m")
    >>> stats = Moments(of="u", over="step", orders=2)
    >>> state = stats.update(stats.init(), batch([u], {"u": [[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]]}))
    >>> stats.finalize(state)["mean"], stats.finalize(state)["variance"]
    (array([ 3., 30.]), array([  7., 700.]))
    >>> stats.describe({"u": u})["variance"].units
    '(m)2'
    """

    reductions = Operator.reductions | OVER_MEMBERS

    of: OneName
    orders: Annotated[int, Field(ge=0, le=4)] = Field(
        default=2, description="how many of mean, variance, skewness, kurtosis to compute"
    )
    extremes: bool = Field(default=True, description="whether to compute min and max")
    nan: NanPolicy = Field(default="propagate", description="what a NaN does: propagate, skip or fail")

    @model_validator(mode="after")
    def _computes_something(self) -> "Moments":
        if not (self.orders or self.extremes):
            raise ValueError("orders: 0 with extremes: false leaves nothing to compute; raise orders to 1 or more")
        return self

    def warm_up(self) -> None:
        for dtype in ("f8", "f4"):
            batch = in_hand([Variable(self.of[0], np.dtype(dtype), (1,), ("cell",))])
            self.merge(self.update(self.init(), batch), self.update(self.init(), batch))

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        require_array(self, inputs)
        of = inputs[self.of[0]]
        require_real(of)
        shape, dims = (of.shape, of.dims) if self.keeps_cells else ((), ())
        real = np.dtype(np.float64)
        kinds: list[tuple[str, np.dtype[Any], str, str]] = [("count", np.dtype(np.int64), "1", "number of values")]
        kinds += [
            ("mean", real, of.units, "mean"),
            ("variance", real, power(of.units, 2), "variance"),
            ("skewness", real, "1", "skewness"),
            ("kurtosis", real, "1", "kurtosis"),
        ][: self.orders]
        if self.extremes:
            kinds += [("min", real, of.units, "minimum"), ("max", real, of.units, "maximum")]
        return {
            name: Variable(name, dtype, shape, dims, units=units, long_name=f"{what} of {label(of)}")
            for name, dtype, units, what in kinds
        }

    def init(self) -> State:
        return {"count": 0}

    def update(self, state: State, batch: Batch) -> State:
        name = self.of[0]
        if self.nan == "fail":
            refuse_nan(batch, name)
        skip = self.nan == "skip" and batch.variables[name].dtype.kind == "f"
        if "moments" not in state:
            state = self._zeros(batch[name][0].shape if self.keeps_cells else (), by_cell=skip and self.keeps_cells)
        fold = self._fold_cells if self.keeps_cells else self._fold_values
        fold(state, [values(array) for array in batch[name]], skip)
        return state

    def merge(self, a: State, b: State) -> State:
        if "moments" not in b:
            return a
        if "moments" not in a:
            return {key: copy.copy(part) for key, part in b.items()}
        na, nb = (read_only(np.reshape(state["count"], -1)) for state in (a, b))
        if self.orders:
            merge_moments(self.orders)(na, _rows(a["moments"]), nb, read_only(_rows(b["moments"])))
        if self.extremes:
            np.minimum(a["extremes"][:1], b["extremes"][:1], out=a["extremes"][:1])
            np.maximum(a["extremes"][1:], b["extremes"][1:], out=a["extremes"][1:])
        a["count"] = a["count"] + b["count"]
        return a

    def finalize(self, state: State) -> dict[str, Array]:
        if "moments" not in state:
            state = self._zeros(())
        shape = state["moments"].shape[1:]
        n = np.broadcast_to(np.asarray(state["count"], np.int64), shape).copy()
        results = {"count": n}
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for name in list(_FORMULAS)[: self.orders]:
                results[name] = np.where(n > 0, _FORMULAS[name](n, state["moments"]), np.nan)
        if self.extremes:
            results["min"], results["max"] = (np.where(n > 0, end, np.nan) for end in state["extremes"])
        return results

    def _zeros(self, shape: Extent, by_cell: bool = False) -> State:
        """Return the state of no data, with room for these cells; with `by_cell`, each has a count of its own."""
        ends = np.empty((2 if self.extremes else 0, *shape))
        ends[:1], ends[1:] = np.inf, -np.inf
        count = np.zeros(shape, np.int64) if by_cell else 0
        return {"count": count, "moments": np.zeros((self.orders, *shape)), "extremes": ends}

    def _fold_cells(self, state: State, arrays: list[Array], skip: bool) -> None:
        moments, ends, count = _rows(state["moments"]), _rows(state["extremes"]), np.reshape(state["count"], -1)
        fold = fold_cells(arrays[0].dtype.name, self.orders, self.extremes, skip)
        for eight, steps in eights(arrays):
            fold(eight, steps, 0 if skip else state["count"], count, moments, ends)
            if not skip:
                state["count"] += steps

    def _fold_values(self, state: State, arrays: list[Array], skip: bool) -> None:
        moments, ends = _rows(state["moments"]), _rows(state["extremes"])
        fold = fold_flat(arrays[0].dtype.name, self.orders, self.extremes, skip)
        for array in arrays:
            state["count"] = fold(array, state["count"], moments, ends)


def _rows(array: Array) -> Array:
    """Return a view with all cells in one dimension, as kernels take it."""
    return array.reshape(len(array), math.prod(array.shape[1:]))
