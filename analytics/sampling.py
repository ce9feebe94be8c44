# SPDX-License-Identifier: Apache-2.0
"""Samples of a stream: bounded, uniform, and the same however the stream is cut into states and places.

Each sample draws a lot, once and for all, that is mixed from what it is; a state keeps those with the smallest lots
(bottom-k sampling: E. Cohen, H. Kaplan, PODC 2007). So a merge keeps the smallest of both, and any order, tree and
split keep the same ones. Two things can be a sample:

* a whole step (``over: step``). Its lot is mixed from its sequence, so all places keep their parts of the same steps,
  without a word between them;
* a row (``over: space`` or ``[step, space]``): a particle of a step, or the values of all variables in a cell. Its lot
  is mixed from its values and the step's sequence. Rows that are the same to the last bit in one step share a lot, so
  they are all kept or all left, as far as there is room.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from analytics.fields import refuse_other_blocks, stacked
from analytics.kernels.values import refuse_nan
from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Batch, JointOperator, Names, Over, State, require_array

Reals = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
_Lots = npt.NDArray[np.uint64]


class Sampling(JointOperator):
    """Keys and folding of operators that look at samples when a window ends."""

    reductions = frozenset({frozenset({"step"}), frozenset({"space"}), frozenset({"step", "space"})})

    of: Names = Field(description="the variable, or several of one grid and one unit (or with a scale)")
    over: Over = Field(default=("step",), description="step: whole steps are the samples; with space: rows or cells")
    sample: Annotated[int, Field(ge=2)] = Field(default=1000, description="how many samples are kept at most")
    scale: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = Field(
        default=None, description="what each variable of `of` is divided by, in its units, before they are compared"
    )
    nan: Literal["skip", "fail"] = Field(default="skip", description="what a NaN does: its sample is left out, or fail")

    @model_validator(mode="after")
    def _a_scale_for_each(self) -> "Sampling":
        if self.scale is not None and len(self.scale) != len(self.of):
            raise ValueError(f"scale: expected one number for each of {list(self.of)}, got {list(self.scale)}")
        return self

    def init(self) -> State:
        return {}

    def update(self, state: State, batch: Batch) -> State:
        for name in self.of:
            refuse_other_blocks(batch, self.of[0], name)
            if self.nan == "fail":
                refuse_nan(batch, name)
        return self._with_steps(state, batch) if self.keeps_cells else self._with_rows(state, batch)

    def merge(self, a: State, b: State) -> State:
        if not a or not b:
            return a or b
        if self.keeps_cells:
            return a | {"kept": self._fewest({**a["kept"], **b["kept"]})}
        lots, rows = (np.concatenate([a[key], b[key]]) for key in ("lots", "rows"))
        return self._smallest(lots, rows, a["seen"] + b["seen"])

    def _with_steps(self, state: State, batch: Batch) -> State:
        kept = dict(state.get("kept", {}))
        sequences = np.array([step.sequence for step in batch.steps], np.int64)
        last = _lots_of([int(key) for key in kept]).max() if len(kept) >= self.sample else None
        for k, lot in enumerate(mixed(sequences.astype(np.uint64))):
            if last is None or lot < last:
                values = np.concatenate([part.reshape(-1) for part in self._scaled(batch, k)], dtype=np.float64)
                kept[str(sequences[k])] = {"index": batch.steps[k].index, "values": values}
        first = self.of[0]
        return {
            "start": list(batch.start[first]),
            "count": list(batch[first][0].shape),
            "shape": list(batch.variables[first].shape or ()),
            "kept": self._fewest(kept),
        }

    def _fewest(self, kept: dict[str, State]) -> dict[str, State]:
        if len(kept) <= self.sample:
            return kept
        keys = list(kept)
        order = np.argsort(_lots_of([int(key) for key in keys]))[: self.sample]
        return {keys[k]: kept[keys[k]] for k in order}

    def _with_rows(self, state: State, batch: Batch) -> State:
        lots, rows, seen = [], [], state.get("seen", 0)
        if state:
            lots, rows = [state["lots"]], [state["rows"]]
        for k, step in enumerate(batch.steps):
            new = np.column_stack([_as_rows(part, batch.variables[self.of[0]]) for part in self._scaled(batch, k)])
            new = new[np.isfinite(new).all(axis=1)]
            seen += len(new)
            drawn = _row_lots(new, step.sequence)
            if state and len(state["lots"]) == self.sample:
                few = drawn < state["lots"][-1]
                drawn, new = drawn[few], new[few]
            lots, rows = [*lots, drawn], [*rows, new]
        return self._smallest(np.concatenate(lots), np.concatenate(rows), seen)

    def _smallest(self, lots: _Lots, rows: Reals, seen: int) -> State:
        order = np.argsort(lots, kind="stable")[: self.sample]
        return {"lots": lots[order], "rows": rows[order], "seen": seen}

    def _scaled(self, batch: Batch, k: int) -> list[Array]:
        """Return the values of all variables in a step, as they are compared."""
        scales = self.scale or (1.0,) * len(self.of)
        parts = [np.asarray(batch[name][k]) for name in self.of]
        return [part / scale if scale != 1.0 else part for part, scale in zip(parts, scales, strict=True)]

    def _stacked(self, inputs: Mapping[str, Variable]) -> tuple[list[Variable], str]:
        """Return the variables, and the units in which they are compared; `OperatorError` where they do not fit."""
        require_array(self, inputs)
        return stacked([inputs[name] for name in self.of], self.scale, "compared")

    def _features(self, variables: Sequence[Variable]) -> int:
        """Return how many numbers a row has."""
        return len(variables) * (int(np.prod(variables[0].row)) if variables[0].joined else 1)


def steps_of(state: State) -> tuple[Whole, Whole, Reals]:
    """Return the sequences of the steps that a place has kept, sorted; their indices; their values (steps, cells)."""
    sequences = np.array(sorted(int(key) for key in state["kept"]), np.int64)
    kept = [state["kept"][str(sequence)] for sequence in sequences]
    return sequences, np.array([each["index"] for each in kept], np.int64), np.stack([each["values"] for each in kept])


def common(some: Whole, others: Whole) -> tuple[Whole, Array, Array]:
    """Return which steps are in both, and where; raise `OperatorError` if there is none."""
    steps, here, there = np.intersect1d(some, others, assume_unique=True, return_indices=True)
    if not len(steps):
        raise OperatorError(
            "no step of this window was kept at every place; publish the variables on all ranks at the same steps"
        )
    return steps, here, there


def by_lot(sequences: Whole) -> Array:
    """Return the order of steps by their lots."""
    return np.argsort(_lots_of(sequences))


def squared_distances(values: Reals, landmarks: Array) -> Reals:
    """Return the squared distances of all rows from some of them, (rows, landmarks), NaN for what is not finite.

    By products of what is left when the mean is taken off: right to 1e-16 of the largest.
    """
    finite = np.asarray(np.isfinite(values).all(axis=1))
    apart = np.full(values.shape, np.nan)
    apart[finite] = centred(values[finite])
    with np.errstate(invalid="ignore"):
        lengths = np.einsum("rc,rc->r", apart, apart)
        found = lengths[:, np.newaxis] + lengths[landmarks] - 2 * apart @ apart[landmarks].T
        found = np.maximum(found, 0.0)
        found[landmarks, np.arange(len(landmarks))] = np.where(finite[landmarks], 0.0, np.nan)
    return np.asarray(found)


def centred(samples: Reals) -> Reals:
    """Return samples without their mean; raise `OperatorError` where no float64 holds their squares."""
    apart: Reals = samples - samples.mean(axis=0) if len(samples) else samples
    require_squares(apart)
    return apart


def require_squares(samples: Reals) -> None:
    """Raise `OperatorError` where no float64 holds the sum of the squares."""
    if np.abs(samples).max(initial=0.0) > np.sqrt(np.finfo(float).max / (8 * max(1, samples.size))):
        raise OperatorError("values are so large that their squares overflow; publish them in another unit")


def mixed(numbers: _Lots) -> _Lots:
    """Return a lot for each number: the finisher of splitmix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014).

    >>> mixed(np.array([0, 1, 2], np.uint64)) // np.uint64(10**18)
    array([ 0, 16,  7], dtype=uint64)
    """
    made = numbers * np.uint64(0x9E3779B97F4A7C15)
    made = (made ^ (made >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    made = (made ^ (made >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return made ^ (made >> np.uint64(31))


def _lots_of(sequences: Sequence[int] | Whole) -> _Lots:
    return mixed(np.asarray(sequences, np.uint64))


def _row_lots(rows: Reals, sequence: int) -> _Lots:
    lots = mixed(np.full(len(rows), sequence + 1, np.uint64))
    for column in rows.T:
        lots = mixed(lots ^ np.ascontiguousarray(column).view(np.uint64))
    return lots


def _as_rows(values: Array, variable: Variable) -> Reals:
    """Return the rows of a joined variable, or the cells of an array as rows of one number."""
    rows = len(values) if variable.joined else values.size
    return values.astype(np.float64).reshape(rows, -1) if rows else np.zeros((0, max(1, int(np.prod(variable.row)))))
