# SPDX-License-Identifier: Apache-2.0
"""Operators for runs from beginning to end: a sum that can be checked by hand, and some that misbehave.

A configuration names them ``tests.end_to_end.folds:Total``; the checkout is on the PYTHONPATH of these runs.
"""

import errno
import os
import threading
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from insitu.model import Array, Variable
from insitu.operator import Batch, Operator, State
from insitu.results import recording


class Total(Operator):
    """The sum of the values and how many there were: of each cell, each step, or each window."""

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        of = inputs[self.of[0]]
        shape, dims = (of.shape, of.dims) if self.keeps_cells else ((), ())
        return {
            "total": Variable("total", np.dtype("f8"), shape, dims, units=of.units),
            "number": Variable("number", np.dtype("i8"), shape, dims),
        }

    def init(self) -> State:
        return {"total": None, "number": 0}

    def update(self, state: State, batch: Batch) -> State:
        for array in batch[self.of[0]]:
            number, total = (1, array.astype(float)) if self.keeps_cells else (array.size, array.sum(dtype=float))
            state = self.merge(state, {"total": np.asarray(total), "number": number})
        return state

    def merge(self, a: State, b: State) -> State:
        if a["total"] is None or b["total"] is None:
            return b if a["total"] is None else a
        return {"total": a["total"] + b["total"], "number": a["number"] + b["number"]}

    def finalize(self, state: State) -> dict[str, Array]:
        total = np.zeros(()) if state["total"] is None else state["total"]
        return {"total": total, "number": np.full(np.shape(total), state["number"], np.int64)}


class Slow(Total):
    """Takes `pause_s` for each step; the fold of all others waits meanwhile."""

    pause_s: float

    def update(self, state: State, batch: Batch) -> State:
        threading.Event().wait(self.pause_s * len(batch))
        return super().update(state, batch)


class Slower(Total):
    """Takes ``pauses_s[k]`` for each rank's block of a step, from the index ``since[k]`` on."""

    pauses_s: list[float]
    since: list[int]

    def update(self, state: State, batch: Batch) -> State:
        for step in batch.steps:
            threading.Event().wait(self.pauses_s[bisect_right(self.since, step.index) - 1])
        return super().update(state, batch)


class Late(Total):
    """Takes long to be prepared, as one whose kernels are compiled."""

    def warm_up(self) -> None:
        threading.Event().wait(100.0)


class PoorDisk(Total):
    """Makes each chunk of a recording take `pause_s` on this worker, and lets only `room` of them be written."""

    pause_s: float
    room: int

    def warm_up(self) -> None:
        append, pause, left = recording._append, threading.Event(), iter(range(self.room))

        def poor(*arguments: Any) -> None:
            pause.wait(self.pause_s)
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            append(*arguments)

        recording._append = poor


class Faulty(Total):
    """Goes wrong in the method `method`: in `update` at a step, elsewhere at once."""

    method: Literal["warm_up", "describe", "init", "update", "merge", "finalize", "state", "shape", "loudly"]
    at: int = 0

    def warm_up(self) -> None:
        self._fail("warm_up")

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        self._fail("describe")
        return super().describe(inputs)

    def init(self) -> State:
        self._fail("init")
        return super().init()

    def update(self, state: State, batch: Batch) -> State:
        if any(step.index >= self.at for step in batch.steps):
            self._fail("update")
        if self.method == "loudly":
            raise ValueError("too much to say " * 10_000)
        state = super().update(state, batch)
        return {**state, "sent": object()} if self.method == "state" else state

    def merge(self, a: State, b: State) -> State:
        if "sent" in a or "sent" in b:
            return a
        if a["total"] is not None and b["total"] is not None:
            self._fail("merge")
        return super().merge(a, b)

    def finalize(self, state: State) -> dict[str, Array]:
        self._fail("finalize")
        results = super().finalize(state)
        return (
            {name: np.asarray(array)[np.newaxis] for name, array in results.items()}
            if self.method == "shape"
            else results
        )

    def _fail(self, method: str) -> None:
        if self.method == method:
            raise ZeroDivisionError(f"nothing to divide by in {method}")
