# SPDX-License-Identifier: Apache-2.0
"""The largest and smallest values of a variable, and where and when they were."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from analytics.fields import OneName, label, require_real
from analytics.kernels.values import refuse_nan, values
from insitu.model import Array, Extent, Step, Variable
from insitu.operator import Batch, NanPolicy, Operator, State

#: Values looked at together: 512 KiB of float64, which stay in a core's own cache while they are compared.
PIECE = 1 << 16

#: How many values of each kind may be asked for: they are sorted again with every piece that has one of them.
MOST = 1 << 16

HowMany = Annotated[int, Field(ge=0, le=MOST)]


class Extremes(Operator):
    """The k largest or smallest values of a variable, with their places and steps.

    With ``over: space`` of each step, with ``over: [step, space]`` of all values of a window.

    ==================  =======  ========================  ==========================================================
    result              dtype    dims                      value
    ==================  =======  ========================  ==========================================================
    ``largest``         float64  nth_largest               the values, largest first
    ``largest_place``   int64    nth_largest, dimension    their places in the global array
    ``largest_index``   int64    nth_largest               the index of their steps; not with ``over: space``, whose
                                                           rows are the steps
    ==================  =======  ========================  ==========================================================

    and likewise ``smallest``, smallest first. `largest` and `smallest` say how many of each. Space means every value:
    the component of a vector is a dimension of its place. Values have the variable's units. Of equal values the
    earlier step comes first, then the place that comes first in C order; both are so on any number of ranks.

    **Joined variables.** Their rows have no place that means anything outside their rank, so ``_place`` has what is
    left of it: the place in the row (the axis of a velocity). Where a row is a single number, and for scalars, there is
    no ``_place``. Which particle it was can only be told by a variable that names it.

    **Too few values.** What is missing is NaN, its place and index -1.

    **Input.** Any real dtype; integers beyond 2^53 are rounded to float64, and equal if they then are. Infinite values
    are the largest and smallest of all.

    **NaN.** ``nan: propagate``: one NaN makes all values of that step or window NaN, with -1 for places and indices.
    ``skip``: it is left out. ``fail``: `OperatorError` names variable, step and place.

    **Merge.** Exact, in any order and tree. **Cost.** Two passes over the data, from the cache, as long as new extremes
    are rare; where a variable grows with every step they are not, and its values are sorted in part each time. State: k
    times 3 numbers and one for each dimension.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (2, 3), ("y", "x"), units="m")
    >>> peaks = Extremes(of="u", over=["step", "space"], largest=3)
    >>> held = batch([u], {"u": [[[0, 7, 1], [2, 0, 5]], [[9, 0, 0], [5, 0, 0]]]})
    >>> found = peaks.finalize(peaks.update(peaks.init(), held))
    >>> found["largest"], found["largest_index"], found["largest_place"].tolist()
    (array([9., 7., 5.]), array([1, 0, 0]), [[0, 0], [0, 1], [1, 2]])
    """

    reductions = frozenset({frozenset({"space"}), frozenset({"step", "space"})})

    of: OneName
    largest: HowMany = Field(default=0, description="how many of the largest values")
    smallest: HowMany = Field(default=0, description="how many of the smallest values")
    nan: NanPolicy = Field(default="propagate", description="what a NaN does: propagate, skip or fail")

    @model_validator(mode="after")
    def _finds_something(self) -> "Extremes":
        if not (self.largest or self.smallest):
            raise ValueError("largest: 0 and smallest: 0 leave nothing to find; set one of them to 1 or more")
        return self

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        of = inputs[self.of[0]]
        require_real(of)
        results = []
        for side, k, _ in self._sides:
            nth, dimensions, whole = f"nth_{side}", _dimensions(of), np.dtype(np.int64)
            what = f"{side} values of {label(of)}"
            results.append(Variable(side, np.dtype(np.float64), (k,), (nth,), of.units, what))
            if dimensions:
                shape, dims = (k, dimensions), (nth, "dimension")
                results.append(Variable(f"{side}_place", whole, shape, dims, "1", f"places of the {what}"))
            if not self.keeps_steps:
                results.append(Variable(f"{side}_index", whole, (k,), (nth,), "1", f"step indices of the {what}"))
        return {result.name: result for result in results}

    def init(self) -> State:
        return {"nan": False}

    def update(self, state: State, batch: Batch) -> State:
        name = self.of[0]
        of, start = batch.variables[name], batch.start[name]
        if self.nan == "fail":
            refuse_nan(batch, name)
        for side, _, _ in self._sides:
            state.setdefault(side, _none(_dimensions(of)))
        for step, array in zip(batch.steps, batch[name], strict=True):
            self._fold(state, step, array, start, _dimensions(of))
        return state

    def merge(self, a: State, b: State) -> State:
        a["nan"] = a["nan"] or b["nan"]
        for side, k, _ in self._sides:
            if side in b:
                a[side] = (
                    _best(k, a[side], b[side]) if side in a else {key: part.copy() for key, part in b[side].items()}
                )
        return a

    def finalize(self, state: State) -> dict[str, Array]:
        results = {}
        for side, k, sign in self._sides:
            found = state.get(side, _none(0))
            n = 0 if state["nan"] else len(found["values"])
            value, key = np.full(k, np.nan), np.full((k, found["keys"].shape[1]), -1, np.int64)
            value[:n], key[:n] = sign * found["values"][:n], found["keys"][:n]
            results[side] = value
            if key.shape[1] > 2:
                results[f"{side}_place"] = key[:, 2:].copy()
            if not self.keeps_steps:
                results[f"{side}_index"] = key[:, 1].copy()
        return results

    @property
    def _sides(self) -> list[tuple[str, int, float]]:
        """The kinds that are asked for: their name, how many, and the sign with which they are the largest."""
        kinds = [("largest", self.largest, 1.0), ("smallest", self.smallest, -1.0)]
        return [kind for kind in kinds if kind[1]]

    def _fold(self, state: State, step: Step, array: Array, start: Extent, dimensions: int) -> None:
        x = values(array)
        for first in range(0, x.size, PIECE):
            for side, k, sign in self._sides:
                found, piece = state[side], sign * x[first : first + PIECE]
                floor = float(found["values"][-1]) if len(found["values"]) == k else -np.inf
                highest = piece.max()
                state["nan"] |= self.nan == "propagate" and bool(np.isnan(highest))
                if highest < floor:
                    continue
                at = _highest(piece, k, floor)
                keys = np.empty((len(at), 2 + dimensions), np.int64)
                keys[:, 0], keys[:, 1] = step.sequence, step.index
                keys[:, 2:] = _places(at + first, array.shape, start)[:, array.ndim - dimensions :]
                state[side] = _best(k, found, {"values": piece[at].astype(np.float64), "keys": keys})


def _dimensions(of: Variable) -> int:
    """Return how many dimensions of a variable mean the same on every rank."""
    return of.ndim - of.joined


def _none(dimensions: int) -> State:
    """Return the state of one kind without values: these, and a row for each: sequence and index of its step, place."""
    return {"values": np.zeros(0), "keys": np.zeros((0, 2 + dimensions), np.int64)}


def _places(at: Array, shape: Extent, start: Extent) -> Array:
    """Return the global place of values, a row each, from where they are in the flat array."""
    if not shape:
        return np.empty((len(at), 0), np.int64)
    inside = np.stack(np.unravel_index(at, shape), axis=1)
    return inside + np.array(start, np.int64)


def _best(k: int, a: State, b: State) -> State:
    """Return the k best of both: larger values, then smaller keys."""
    x, keys = np.concatenate([a["values"], b["values"]]), np.concatenate([a["keys"], b["keys"]])
    order = np.lexsort((*keys.T[::-1], -x))[:k]
    return {"values": x[order], "keys": keys[order]}


def _highest(x: Array, k: int, floor: float) -> Array:
    """Return where the k highest values are that are not below `floor`, nor NaN; of equal ones the first."""
    at = np.flatnonzero(x >= floor)
    if len(at) <= k:
        return at
    some = x[at]
    cut = np.partition(some, len(at) - k)[len(at) - k]
    chosen = some > cut
    chosen[np.flatnonzero(some == cut)[: k - np.count_nonzero(chosen)]] = True
    highest: Array = at[chosen]
    return highest
