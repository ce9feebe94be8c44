# SPDX-License-Identifier: Apache-2.0
"""How often, when and for how long a variable lies above or below a threshold."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from analytics.fields import OneName, in_hand, label, require_real
from analytics.kernels.exceeding import exceed_cells, exceed_values
from analytics.kernels.values import eights, refuse_nan, values
from analytics.stretches import Stretch, glued, going_on
from insitu.model import Array, Extent, Step, Variable
from insitu.operator import Batch, NanPolicy, Operator, State, require_array

#: What stands for no first and no last step.
_NEVER = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)


class Exceedance(Operator):
    """Probability, first and last step, and longest run of a variable beyond a threshold.

    With ``over: step`` of every cell; with ``over: space`` of all values of a step; with both, of all values of a
    window. The latter two give ``count`` and ``probability`` alone.

    ===============  =======  =====================================================================
    result           dtype    value
    ===============  =======  =====================================================================
    ``count``        int64    n, the values folded
    ``probability``  float64  how many of them are beyond the threshold, divided by n
    ``first``        int64    index of the first step whose value is, -1 where there is none
    ``last``         int64    index of the last one, -1 where there is none
    ``first_time``   float64  physical time of these steps, NaN where there is none
    ``last_time``    float64
    ``longest``      int64    the most steps, one after another, whose values are
    ===============  =======  =====================================================================

    ``side: above`` counts what is greater than the threshold, ``side: below`` what is less; what equals it is not
    beyond it. All are dimensionless (units 1) but the times, whose units nobody told.

    A run ends with its window. A step that was lost, or lacks the variable, ends it too: what was there is not known.
    So the longest run is what was seen, and may have been longer.

    **Input.** Any real dtype, compared in float64. Infinite values are beyond or not, as any other.

    **NaN.** ``nan: propagate``: the probability of that cell (or step, or window) is NaN, and ``count`` counts it.
    ``skip``: it is left out of both. In the other results it counts as not beyond, and so ends a run. ``fail``:
    `OperatorError` names variable, step and place. The probability of no values is NaN.

    **Merge.** Exact, in any order and tree: for each stretch of steps that it has seen, a state keeps the run at the
    beginning, the one at the end and the longest.

    **Cost.** State with ``over: step``: 52 bytes per cell. Runs of up to 2^31 steps.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (2,), ("x",), units="m")
    >>> storms = Exceedance(of="u", over="step", threshold=1.0)
    >>> held = batch([u], {"u": [[0.0, 2.0], [2.0, 1.0], [3.0, 0.0], [0.0, 2.0]]})
    >>> found = storms.finalize(storms.update(storms.init(), held))
    >>> found["probability"], found["first"], found["last"], found["longest"]
    (array([0.5, 0.5]), array([1, 0]), array([2, 3]), array([2, 1]))
    """

    of: OneName
    threshold: Annotated[float, Field(allow_inf_nan=False)] = Field(description="in the variable's units")
    side: Literal["above", "below"] = Field(default="above", description="which side of the threshold is looked for")
    nan: NanPolicy = Field(default="propagate", description="what a NaN does: propagate, skip or fail")

    def warm_up(self) -> None:
        for dtype in ("f8", "f4"):
            self.update(self.init(), in_hand([Variable(self.of[0], np.dtype(dtype), (1,), ("cell",))]))

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        require_array(self, inputs)
        of = inputs[self.of[0]]
        require_real(of)
        shape, dims = (of.shape, of.dims) if self.keeps_cells else ((), ())
        beyond = f"{label(of)} {self.side} {self.threshold:g}"
        kinds = [("count", "i8", "1", "number of values"), ("probability", "f8", "1", f"probability of {beyond}")]
        if self.keeps_cells:
            kinds += [
                ("first", "i8", "1", f"index of the first step with {beyond}"),
                ("last", "i8", "1", f"index of the last step with {beyond}"),
                ("first_time", "f8", "", f"time of the first step with {beyond}"),
                ("last_time", "f8", "", f"time of the last step with {beyond}"),
                ("longest", "i8", "1", f"most steps one after another with {beyond}"),
            ]
        return {name: Variable(name, np.dtype(kind), shape, dims, unit, what) for name, kind, unit, what in kinds}

    def init(self) -> State:
        return {"count": 0, "beyond": 0, "unknown": 0} if not self.keeps_cells else {"count": 0}

    def update(self, state: State, batch: Batch) -> State:
        name = self.of[0]
        if self.nan == "fail":
            refuse_nan(batch, name)
        if self.keeps_cells:
            return self._fold_cells(state, batch.steps, batch[name])
        for x in map(values, batch[name]):
            beyond, unknown = exceed_values(x.dtype.name)(x, self._sign, self._sign * self.threshold)
            state = {
                "count": state["count"] + x.size,
                "beyond": state["beyond"] + beyond,
                "unknown": state["unknown"] + unknown,
            }
        return state

    def merge(self, a: State, b: State) -> State:
        a["count"] += b["count"]
        if not self.keeps_cells:
            a["beyond"] += b["beyond"]
            a["unknown"] += b["unknown"]
        elif "cells" not in a:
            a |= {key: deepcopy(part) for key, part in b.items() if key != "count"}
        elif "cells" in b:
            a["cells"] += b["cells"]
            wins = np.stack([b["at"][0] < a["at"][0], b["at"][1] > a["at"][1]])
            for key in ("at", "when"):
                np.copyto(a[key], b[key], where=wins)
            a["stretches"] = glued([*a["stretches"], *deepcopy(b["stretches"])], _glue)
        return a

    def finalize(self, state: State) -> dict[str, Array]:
        if not self.keeps_cells:
            return self._shares(state["count"], np.array(state["beyond"]), np.array(state["unknown"]))
        if "cells" not in state:
            state = self._zeros(())
        beyond, unknown = state["cells"]
        never = beyond == 0
        first, last = (np.where(never, -1, at) for at in state["at"])
        first_time, last_time = state["when"].copy()
        longest = np.zeros(beyond.shape, np.int64)
        for stretch in state["stretches"]:
            longest = np.maximum(longest, stretch["runs"][2])
        times = {"first": first, "last": last, "first_time": first_time, "last_time": last_time, "longest": longest}
        return self._shares(state["count"], beyond, unknown) | {key: np.asarray(each) for key, each in times.items()}

    @property
    def _sign(self) -> float:
        return 1.0 if self.side == "above" else -1.0

    def _shares(self, n: int, beyond: Array, unknown: Array) -> dict[str, Array]:
        count = np.asarray(n - unknown if self.nan == "skip" else np.full(beyond.shape, n), np.int64)
        with np.errstate(divide="ignore", invalid="ignore"):
            probability = np.where((unknown > 0) & (self.nan != "skip"), np.nan, beyond / count)
        return {"count": count, "probability": probability}

    def _zeros(self, cells: Extent) -> State:
        # All of it is written at once: where nothing ever exceeds, the kernel's masked stores into pages that were only
        # promised, as those of np.zeros, would take a hundred times as long.
        at = np.empty((2, *cells), np.int64)
        at[0], at[1] = _NEVER
        return {
            "count": 0,
            "cells": np.zeros((2, *cells), np.int32),
            "at": at,
            "when": np.full((2, *cells), np.nan),
            "stretches": [],
        }

    def _fold_cells(self, state: State, steps: Sequence[Step], arrays: Sequence[Array]) -> State:
        cells = arrays[0].shape
        if "cells" not in state:
            state = self._zeros(cells)
        stretch = _stretch_for(state["stretches"], steps[0].sequence, cells)
        parts = [_rows(part) for part in (state["cells"], state["at"], state["when"], stretch["runs"])]
        sequence = np.array([stretch["last"], *(step.sequence for step in steps)])
        known, follows = sequence[1:] - stretch["first"], np.diff(sequence) == 1
        index, time = np.array([step.index for step in steps]), np.array([step.time for step in steps])
        first = 0
        for x, n in eights([values(array) for array in arrays]):
            some = slice(first, first + n)
            about = index[some], time[some], known[some], follows[some]
            exceed_cells(x[0].dtype.name)(x, n, self._sign, self._sign * self.threshold, *about, *parts)
            first += n
        stretch["last"] = steps[-1].sequence
        state["count"] += len(steps)
        return state


def _rows(array: Array) -> Array:
    """Return a view with all cells in one dimension, as kernels take it."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _stretch_for(stretches: list[Stretch], first: int, cells: Extent) -> Stretch:
    """Return the stretch that steps from `first` on belong to, which may be a new one."""
    stretch = going_on(stretches, first)
    if stretch is None:
        stretch = {"first": first, "last": first - 1, "runs": np.zeros((3, *cells), np.int32)}
        stretches.append(stretch)
    return stretch


def _glue(a: Stretch, b: Stretch) -> None:
    """Bring the runs of `a` up to date with `b`, which follows it; a run as long as its stretch goes on beyond it."""
    (head, tail, longest), (next_head, next_tail, next_longest) = a["runs"], b["runs"]
    across = tail + next_head
    all_of_a, all_of_b = head == a["last"] - a["first"] + 1, next_tail == b["last"] - b["first"] + 1
    runs = np.where(all_of_a, across, head), np.where(all_of_b, across, next_tail)
    a["runs"] = np.stack([*runs, np.maximum(np.maximum(longest, next_longest), across)])
