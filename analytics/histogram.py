# SPDX-License-Identifier: Apache-2.0
"""How the values of one variable are spread, over steps, over space, or over both."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from analytics.fields import OneName, Range, in_hand, label, require_real
from analytics.kernels.counting import EXTRA, count_cells, count_values, span
from analytics.kernels.values import eights, refuse_nan, values
from insitu.model import Array, Extent, Variable
from insitu.operator import OVER_MEMBERS, Batch, Operator, State, require_array

#: No bin is narrower than 2 to this power: its inverse has to be a float64, too.
_FINEST = -1000

#: Values that are looked at together where the range is not given: their extremes first, then, from the cache, their
#: bins.
PIECE = 1 << 17


@dataclass(frozen=True, slots=True)
class Grid:
    """Bins whose width is 2 to the power `exponent` and whose first edge is `first` widths from zero."""

    exponent: int
    first: int

    @classmethod
    def over(cls, low: float, high: float, bins: int) -> "Grid":
        """Return the finest grid of which so many bins cover all from `low` to `high`.

        No bin is narrower than the last bit of the larger of the two, nor than 2^-1000.
        """
        if low > high:
            return cls(0, 0)  # of no data: nothing is ever counted in it
        exponent, largest, width = _FINEST, max(abs(low), abs(high)), high / bins - low / bins
        if largest > 0:
            # Indices below 2^52 leave room for the bins beside them within the whole numbers that float64 holds.
            exponent = max(exponent, math.frexp(largest)[1] - 52)
        if width > 0:
            exponent = max(exponent, math.frexp(width)[1] - 2)
        while _index(high, exponent) - _index(low, exponent) >= bins:
            exponent += 1
        return cls(exponent, _index(low, exponent))

    def edges(self, bins: int) -> Array:
        """Return the edges, which float64 holds exactly."""
        with np.errstate(over="ignore"):  # the last edge of numbers near the largest one is infinite
            return np.ldexp(np.arange(self.first, self.first + bins + 1).astype(np.float64), self.exponent)

    def counts_in(self, coarser: "Grid", counts: Array) -> Array:
        """Return counts by the bins of a grid that covers this one; the rest of the table stays as it is."""
        table = np.zeros_like(counts)
        table[0], table[-2:] = counts[0], counts[-2:]
        used = np.flatnonzero(counts[1:-2])
        # A shift by the width of the integer is undefined; by then, only the sign is left.
        shift = min(coarser.exponent - self.exponent, 63)
        place = ((used + self.first) >> shift) - coarser.first
        np.add.at(table, place + 1, counts[used + 1])
        return table


def _index(x: float, exponent: int) -> int:
    index = math.floor(math.ldexp(x, -exponent))
    return min(index, -1) if x < 0 else index  # ldexp may have rounded to zero


class Histogram(Operator):
    """Counts of a variable's values in bins of equal width, with what lies outside.

    With ``over: step`` for every cell; with ``over: space`` of all values of a step; with both, of all values of a
    window. Space means every value: the components of a vector are counted together.

    =============  =======  ==============  ================================================================
    result         dtype    dims            value
    =============  =======  ==============  ================================================================
    ``count``      int64    bin (, cells)   values in the bin
    ``edges``      float64  edge            the bins' limits, one more than there are bins
    ``underflow``  int64    (cells)         values below the first edge, -inf included
    ``overflow``   int64    (cells)         values above the last edge, inf included
    ``nan``        int64    (cells)         values that are NaN, which are in no bin
    =============  =======  ==============  ================================================================

    A bin includes its lower edge; the last one includes both, as in `numpy.histogram`. A value within a rounding
    error of an edge may be counted on its other side, always on the same one. Any real dtype; integers beyond 2^53
    are rounded to float64. ``nan: fail`` raises `OperatorError` that names variable, step and place of a NaN, and
    reads the data once more.

    **Range.** ``range: [low, high]`` is taken as it is. ``range: auto`` needs no knowledge of the data, keeps what is
    finite in the bins, and is still exact: the width of a bin is a power of two, edges are whole multiples of it, and
    the width is the smallest with which all values fit into the bins. When a value comes to lie outside, neighbouring
    bins are joined. So at least half of the bins lie between the smallest and the largest value, equal values share
    one very narrow bin, and edges differ from window to window; where nothing was finite they are NaN. Not with
    ``over: step``, whose cells would all have other edges.

    **Merge.** Exact, in any order and tree: the edges follow from the extremes and the number of bins alone.

    **Cost.** One pass over the data. State: `bins` + 3 int64, for each cell with ``over: step``.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (6,), ("x",), units="m")
    >>> data = batch([u], {"u": [[-1.0, 0.0, 0.5, 1.9, 2.0, np.nan]]})
    >>> given = Histogram(of="u", over="space", bins=2, range=(0, 2))
    >>> found = given.finalize(given.update(given.init(), data))
    >>> found["count"], found["edges"], int(found["underflow"]), int(found["nan"])
    (array([2, 2]), array([0., 1., 2.]), 1, 1)
    >>> auto = Histogram(of="u", over="space", bins=4, range="auto")
    >>> found = auto.finalize(auto.update(auto.init(), data))
    >>> found["count"], found["edges"]
    (array([1, 2, 1, 1]), array([-1.,  0.,  1.,  2.,  3.]))
    """

    reductions = Operator.reductions | OVER_MEMBERS

    of: OneName
    bins: Annotated[int, Field(ge=1, le=1 << 20)] = Field(description="how many bins")
    range: Range | Literal["auto"] = Field(description="[low, high] of the bins, or auto to find them")
    nan: Literal["skip", "fail"] = Field(
        default="skip", description="what a NaN does: skip (it is counted apart) or fail"
    )

    @model_validator(mode="after")
    def _range_can_be_found(self) -> "Histogram":
        if self.range == "auto" and self.keeps_cells:
            raise ValueError(
                "range: auto is not possible with over: step, where each cell would have bins of its own; "
                "give [low, high]"
            )
        if self.range == "auto" and self.bins < 4:
            raise ValueError(f"range: auto needs 4 bins or more, got {self.bins}; raise bins or give [low, high]")
        return self

    def warm_up(self) -> None:
        for dtype in ("f8", "f4"):
            self.update(self.init(), in_hand([Variable(self.of[0], np.dtype(dtype), (1,), ("cell",))]))

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        require_array(self, inputs)
        of = inputs[self.of[0]]
        require_real(of)
        shape, dims = (of.shape or (), of.dims) if self.keeps_cells else ((), ())
        whole, real = np.dtype(np.int64), np.dtype(np.float64)
        name = label(of)

        def counted(key: str, what: str) -> Variable:
            return Variable(key, whole, shape, dims, units="1", long_name=f"values of {name} {what}")

        return {
            "count": Variable("count", whole, (self.bins, *shape), ("bin", *dims), "1", f"values of {name} in the bin"),
            "edges": Variable("edges", real, (self.bins + 1,), ("edge",), of.units, f"edges of the bins of {name}"),
            "underflow": counted("underflow", "below the first edge"),
            "overflow": counted("overflow", "above the last edge"),
            "nan": counted("nan", "that are NaN"),
        }

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        name = self.of[0]
        if self.nan == "fail":
            refuse_nan(batch, name)
        if not state:
            state = self._zeros(batch[name][0].shape if self.keeps_cells else ())
        arrays = [values(array) for array in batch[name]]
        if self.range == "auto":
            for piece in (x[c : c + PIECE] for x in arrays for c in range(0, x.size, PIECE)):
                state = self._count_piece(state, piece)
        else:
            self._count(state, arrays, *self.range)
        return state

    def merge(self, a: State, b: State) -> State:
        if not b:
            return a
        if not a:
            return {key: copy.copy(part) for key, part in b.items()}
        if self.range == "auto":
            low, high = min(a["low"], b["low"]), max(a["high"], b["high"])
            a, b = self._widened(a, low, high), self._widened(b, low, high)
        a["counts"] += b["counts"]
        return a

    def finalize(self, state: State) -> dict[str, Array]:
        state = state or self._zeros(())
        counts = state["counts"]
        return {
            "count": counts[1 : self.bins + 1].copy(),
            "edges": self._edges(state),
            "underflow": np.array(counts[0]),
            "overflow": np.array(counts[self.bins + 1]),
            "nan": np.array(counts[self.bins + 2]),
        }

    def _edges(self, state: State) -> Array:
        if self.range != "auto":
            return np.linspace(*self.range, self.bins + 1)
        known = state["low"] <= state["high"]
        return self._grid(state).edges(self.bins) if known else np.full(self.bins + 1, np.nan)

    def _zeros(self, shape: Extent) -> State:
        """Return the state of no data, with room for these cells."""
        counts = np.zeros((self.bins + EXTRA, *shape), np.int64)
        return {"counts": counts, "low": math.inf, "high": -math.inf} if self.range == "auto" else {"counts": counts}

    def _count(self, state: State, arrays: list[Array], low: float, high: float) -> None:
        dtype, counts, scale = arrays[0].dtype.name, state["counts"], self.bins / (high - low)
        if self.keeps_cells:
            for eight, steps in eights(arrays):
                table = counts.reshape(len(counts), eight[0].size)
                count_cells(dtype)(eight, steps, low, high, scale, self.bins, table)
        else:
            for x in arrays:
                count_values(dtype, False)(x, low, high, scale, 0.0, self.bins, counts)

    def _count_piece(self, state: State, x: Array) -> State:
        low, high = span(x.dtype.name)(x)
        low, high = min(low, state["low"]), max(high, state["high"])
        if (low, high) != (state["low"], state["high"]):
            state = self._widened(state, low, high)
        grid = self._grid(state)
        scale, first = math.ldexp(1.0, -grid.exponent), float(grid.first)
        count = count_values(x.dtype.name, True)
        count(x, low, high, scale, first, self.bins, state["counts"])
        return state

    def _grid(self, state: State) -> Grid:
        return Grid.over(state["low"], state["high"], self.bins)

    def _widened(self, state: State, low: float, high: float) -> State:
        """Return a state with its counts in the bins that belong to wider extremes: itself where they are the same."""
        old, new = self._grid(state), Grid.over(low, high, self.bins)
        counts = state["counts"] if old == new else old.counts_in(new, state["counts"])
        return {"counts": counts, "low": low, "high": high}
