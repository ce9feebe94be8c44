# SPDX-License-Identifier: Apache-2.0
"""A quantity of particles or cells, by bins along an axis."""

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from analytics.fields import OneName, Range, in_hand, label, power, require_real
from analytics.kernels.binning import fold_layers, fold_rows
from analytics.kernels.pebay import merge_moments
from analytics.kernels.values import read_only, refuse_nan, values
from insitu.errors import OperatorError
from insitu.model import Array, Extent, Variable
from insitu.operator import Batch, NanPolicy, Operator, State

#: The components of a position by their usual names.
AXES = {"x": 0, "y": 1, "z": 2}


class Profile(Operator):
    """Count, density, mean and variance of a quantity by bins along an axis, per step or per window.

    **Particles**: with `range`, `along` names a variable that gives the position of each row of `of`, and `axis` its
    component::

        heat: {use: profile, of: energy, along: position, axis: z, range: [0, 30], bins: 60, over: space}

    Both variables are joined over the ranks, with the same rows. `of` and `along` may be the same: only the density is
    wanted then, and mean and variance are left out.

    **Cells**: without `range`, `along` names a dimension of `of`, each index along it is a bin, and all other
    dimensions are reduced::

        wind: {use: profile, of: u, along: z, over: [step, space], window: 100}

    ============  =======  ==================  ==============================================================
    result        dtype    dims                value
    ============  =======  ==================  ==============================================================
    ``count``     int64    bin                 n, the rows (or values) in the bin, of all steps together
    ``mean``      float64  bin, components     mean of the quantity, by component for vectors
    ``variance``  float64  bin, components     M2 / (n - 1)
    ``density``   float64  bin                 rows per step and length, or per volume if `area` is given
    ``edges``     float64  edge                the bins' limits
    ``outside``   int64                        rows in no bin, of all steps together
    ============  =======  ==================  ==============================================================

    Density, edges and outside are those of particles only; for cells the first dimension has the name `along`. Without
    rows, mean and variance are NaN, and the variance of one row is. A bin includes its lower edge, the last one both;
    a position within a rounding error of an edge may be on its other side. With `periodic`, positions outside the range
    are first moved into it by whole lengths of it. A position that is NaN or infinite is in no bin.

    **NaN** in the quantity. ``nan: propagate``: mean and variance of that bin (and component) are NaN. ``skip``: the
    row is left out, as if it had not been published; of cells, the value. ``fail``: `OperatorError` names variable,
    step and place, also for positions; this reads the data once more.

    **Accuracy.** Any real dtype, computed in float64; merged by Pébay's formulas (SAND2008-6212, 2008), so any tree,
    order and split give the same to about 1e-15 of the values' magnitude, and digits remain where the mean is 1e8 times
    the standard deviation. Counts and density are exact.

    **Cost.** Two passes over each tile of rows. State: one int64 and two float64 per bin and component, and the numbers
    of the steps seen, as a list of [first, last].

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> z = Variable("z", np.dtype("f8"), None, ("atom",), units="m")
    >>> v = Variable("v", np.dtype("f8"), None, ("atom",), units="m s-1")
    >>> heat = Profile(of="v", along="z", range=(0, 4), bins=2, over="space")
    >>> state = heat.update(heat.init(), batch([v, z], {"v": [[1.0, 3.0, 7.0]], "z": [[0.5, 1.5, 9.0]]}))
    >>> found = heat.finalize(state)
    >>> found["count"], found["mean"], found["density"], int(found["outside"])
    (array([2, 0]), array([ 2., nan]), array([1., 0.]), 1)
    """

    reductions: ClassVar[frozenset[frozenset[str]]] = frozenset({frozenset({"space"}), frozenset({"step", "space"})})

    of: OneName
    along: str = Field(description="with range: the variable that gives positions; without: a dimension of `of`")
    range: Range | None = Field(default=None, description="[low, high] of the bins, for particles")
    bins: Annotated[int, Field(ge=1, le=1 << 20)] | None = Field(default=None, description="how many bins, with range")
    axis: Literal["x", "y", "z"] | Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="component of the position, if it has several"
    )
    periodic: bool = Field(default=False, description="whether positions outside the range are moved into it")
    area: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="cross-section of the domain, in the square of the position's units"
    )
    nan: NanPolicy = Field(default="propagate", description="what a NaN does: propagate, skip or fail")

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "Profile":
        if self.range is not None and self.bins is None:
            raise ValueError("range needs bins beside it: how many")
        given = [key for key in ("bins", "axis", "periodic", "area") if key in self.model_fields_set]
        if self.range is None and given:
            raise ValueError(
                f"{given[0]} belongs to positions, and these need a range; without one, along: {self.along} is a "
                "dimension, each index of which is a bin"
            )
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.of if self.range is None else tuple(dict.fromkeys((*self.of, self.along)))

    def warm_up(self) -> None:
        row = () if self.axis is None else (self._component + 1,)
        for dtype in map(np.dtype, ("f8", "f4")):
            if self.range is None:
                batch = in_hand([Variable(self.of[0], dtype, (1,), (self.along,))])
            else:
                dims = ("row", "component")[: 1 + len(row)]
                batch = in_hand([Variable(name, dtype, None, dims, row=row) for name in self.inputs])
            self.merge(self.update(self.init(), batch), self.update(self.init(), batch))

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        of = inputs[self.of[0]]
        require_real(of)
        if self.range is None or self.bins is None:
            d = self._dimension(of)
            return self._quantity(of, self.along, (of.shape or ())[d], ())
        where = inputs[self.along]
        require_real(where)
        self._require_rows(of, where)
        volume = -1 if self.area is None else -3
        density = power(where.units, volume)
        return {
            **self._quantity(of, "bin", self.bins, of.row),
            "density": _result("density", (self.bins,), ("bin",), density, f"number density along {label(where)}"),
            "edges": _result("edges", (self.bins + 1,), ("edge",), where.units, f"edges of the bins of {label(where)}"),
            "outside": Variable("outside", np.dtype(np.int64), (), (), "1", "rows in no bin"),
        }

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        if self.nan == "fail":
            for name in self.inputs:
                refuse_nan(batch, name)
        if self.range is None:
            return self._fold_layers(state, batch)
        return self._fold_rows(state, batch, *self.range)

    def merge(self, a: State, b: State) -> State:
        if not b:
            return a
        if not a:
            return copy.deepcopy(b)
        mine, theirs = (_by_component(state["moments"]) for state in (a, b))
        na, nb = (read_only(np.repeat(state["count"], mine.shape[2])) for state in (a, b))
        merge_moments(2)(na, mine.reshape(2, na.size), nb, read_only(theirs.reshape(2, nb.size)))
        a["count"] += b["count"]
        a["outside"] += b["outside"]
        a["steps"] = _united([*a["steps"], *b["steps"]])
        return a

    def finalize(self, state: State) -> dict[str, Array]:
        state = state or self._zeros(self.bins or 0, ())
        count, (mean, m2) = state["count"], state["moments"]
        n = count.reshape(-1, *(1,) * (mean.ndim - 1))
        results = {"count": count.copy()}
        if not self._density_only:
            with np.errstate(divide="ignore", invalid="ignore"):
                results["mean"] = np.where(n > 0, mean, np.nan)
                results["variance"] = np.where(n > 1, m2 / (n - 1), np.nan)
        if self.range is not None and self.bins is not None:
            low, high = self.range
            steps = sum(last - first + 1 for first, last in state["steps"])
            volume = (high - low) / self.bins * (self.area or 1.0)
            results["density"] = count / (max(steps, 1) * volume)
            results["edges"] = np.linspace(low, high, self.bins + 1)
            results["outside"] = np.array(state["outside"], np.int64)
        return results

    @property
    def _density_only(self) -> bool:
        return self.range is not None and self.along == self.of[0]

    @property
    def _component(self) -> int:
        return AXES[self.axis] if isinstance(self.axis, str) else self.axis or 0

    def _dimension(self, of: Variable) -> int:
        """Return which dimension of the cells is meant."""
        if of.joined:
            raise OperatorError(
                f"'{of.name}' is joined over the ranks and has no cells along '{self.along}'; "
                "give the variable of its positions in along, and range and bins"
            )
        if self.along not in of.dims:
            raise OperatorError(
                f"'{of.name}' has no dimension '{self.along}', only {', '.join(of.dims) or 'none'}; name one of these, "
                "or if this is a variable that gives positions, give range and bins"
            )
        return of.dims.index(self.along)

    def _require_rows(self, of: Variable, where: Variable) -> None:
        for variable in (of, where):
            if not variable.joined:
                raise OperatorError(
                    f"'{variable.name}' has cells that stay in place, not rows with positions; leave range out and "
                    f"name one of its dimensions ({', '.join(variable.dims)}) in along"
                )
        if where.row == () and self.axis is not None:
            raise OperatorError(f"'{where.name}' is one number per row and has no axis {self.axis}; leave axis out")
        if where.row != () and (len(where.row) > 1 or self.axis is None or self._component >= where.row[0]):
            raise OperatorError(
                f"'{where.name}' has {' x '.join(map(str, where.row))} components per row, and axis is {self.axis}; "
                "name one of them, from 0 on, or x, y or z"
            )

    def _quantity(self, of: Variable, dim: str, bins: int, row: Extent) -> dict[str, Variable]:
        """Describe count, mean and variance."""
        count = Variable("count", np.dtype(np.int64), (bins,), (dim,), "1", f"number of values of {label(of)}")
        if self._density_only:
            return {"count": count}
        shape, dims = (bins, *row), (dim, *(of.dims[1:] if row else ()))
        return {
            "count": count,
            "mean": _result("mean", shape, dims, of.units, f"mean of {label(of)}"),
            "variance": _result("variance", shape, dims, power(of.units, 2), f"variance of {label(of)}"),
        }

    def _zeros(self, bins: int, row: Extent) -> State:
        """Return the state of no data, with room for these bins."""
        return {"steps": [], "count": np.zeros(bins, np.int64), "outside": 0, "moments": np.zeros((2, bins, *row))}

    def _fold_rows(self, state: State, batch: Batch, low: float, high: float) -> State:
        of, where = batch.variables[self.of[0]], batch.variables[self.along]
        row = (0,) if self._density_only else of.row
        state = state or self._zeros(self.bins or 0, row)
        moments = _by_component(state["moments"])
        skip = self.nan == "skip" and of.dtype.kind == "f"
        for step, rows, places in zip(batch.steps, batch[of.name], batch[where.name], strict=True):
            if len(rows) != len(places):
                raise OperatorError(
                    f"'{of.name}' has {len(rows)} rows in step {step.index} and '{where.name}' has {len(places)}; "
                    "each rank has to publish both for the same particles"
                )
            quantity = values(rows).reshape(len(rows), math.prod(of.row))[:, : moments.shape[2]]
            position = values(places).reshape(len(places), math.prod(where.row))
            fold = fold_rows(quantity.dtype.name, position.dtype.name)
            how = self._component, (low, high), self.periodic, skip
            state["outside"] += fold(quantity, position, *how, state["count"], moments)
        state["steps"] = _united([*state["steps"], *([step.sequence, step.sequence] for step in batch.steps)])
        return state

    def _fold_layers(self, state: State, batch: Batch) -> State:
        of = batch.variables[self.of[0]]
        d = self._dimension(of)
        state = state or self._zeros((of.shape or ())[d], ())
        fold = fold_layers(values(batch[of.name][0]).dtype.name, self.nan == "skip" and of.dtype.kind == "f")
        for array in batch[of.name]:
            shape = math.prod(array.shape[:d]), array.shape[d], math.prod(array.shape[d + 1 :])
            fold(values(array), shape, batch.start[of.name][d], state["count"], _by_component(state["moments"]))
        return state


def _result(name: str, shape: Extent, dims: tuple[str, ...], units: str, long_name: str) -> Variable:
    return Variable(name, np.dtype(np.float64), shape, dims, units, long_name)


def _by_component(moments: Array) -> Array:
    """Return a view of shape (2, bins, components), as kernels take it."""
    return moments.reshape(*moments.shape[:2], math.prod(moments.shape[2:]))


def _united(spans: Iterable[list[int]]) -> list[list[int]]:
    """Return spans of steps, [first, last] each, with those as one that overlap or touch.

    >>> _united([[5, 6], [0, 2], [1, 3], [4, 4], [9, 9]])
    [[0, 6], [9, 9]]
    """
    done: list[list[int]] = []
    for first, last in sorted(spans):
        if done and first <= done[-1][1] + 1:
            done[-1][1] = max(done[-1][1], last)
        else:
            done.append([first, last])
    return done
