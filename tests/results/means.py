# SPDX-License-Identifier: Apache-2.0
"""A small operator whose results have every shape that a store can meet."""

from collections.abc import Mapping

import numpy as np

from insitu.model import Array, Variable
from insitu.operator import Batch, JointOperator, Operator, State


class Means(Operator):
    """The mean of one variable, `twice` itself and its double, and `kinds`, which has no cells."""

    twice: int = 2

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        given = inputs[self.of[0]]
        cells = given.dims if self.keeps_cells else ()
        shape = (given.shape or ()) if self.keeps_cells else ()
        double = np.dtype("f8")
        return {
            "mean": Variable("mean", double, shape, cells, units=given.units, long_name="mean of it"),
            "twice": Variable("twice", np.dtype("f4"), (self.twice, *shape), ("time_and_again", *cells)),
            "kinds": Variable("kinds", np.dtype("i8"), (3,), ("kind",)),
        }

    def init(self) -> State:
        return {"n": 0}

    def update(self, state: State, batch: Batch) -> State:
        for array in batch[self.of[0]]:
            total = array.astype(float) if self.keeps_cells else array.sum(dtype=float)
            state = self.merge(state, {"n": 1 if self.keeps_cells else array.size, "total": total})
        return state

    def merge(self, a: State, b: State) -> State:
        if not a["n"] or not b["n"]:
            return b if b["n"] else a
        a["total"] += b["total"]
        a["n"] += b["n"]
        return a

    def finalize(self, state: State) -> dict[str, Array]:
        mean = np.asarray(state["total"] / state["n"])
        twice = np.stack([mean * k for k in range(1, self.twice + 1)]).astype("f4")
        return {"mean": mean, "twice": twice, "kinds": np.arange(3)}


class Anomalies(JointOperator):
    """The mean of each cell less the mean of the whole field, which no place knows."""

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        given = inputs[self.of[0]]
        return {
            "anomaly": Variable("anomaly", np.dtype("f8"), given.shape, given.dims),
            "level": Variable("level", np.dtype("f8"), (), ()),
        }

    def init(self) -> State:
        return {"n": 0}

    def update(self, state: State, batch: Batch) -> State:
        for array in batch[self.of[0]]:
            state = self.merge(state, {"n": 1, "total": array.astype(float)})
        return state

    def merge(self, a: State, b: State) -> State:
        if not a["n"] or not b["n"]:
            return b if b["n"] else a
        return {"n": a["n"] + b["n"], "total": a["total"] + b["total"]}

    def summarize(self, state: State) -> State:
        mean = state["total"] / state["n"] if state["n"] else np.zeros(0)
        return {"sum": float(mean.sum()), "cells": mean.size}

    def combine(self, a: State, b: State) -> State:
        return {"sum": a["sum"] + b["sum"], "cells": a["cells"] + b["cells"]}

    def finalize_place(self, state: State, summary: State) -> dict[str, Array]:
        level = summary["sum"] / summary["cells"]
        return {"anomaly": np.asarray(state["total"] / state["n"] - level), "level": np.array(level)}


def field(shape: tuple[int, ...] = (4, 6), units: str = "K") -> dict[str, Variable]:
    """The variable `u`, as inputs."""
    return {"u": Variable("u", np.dtype("f8"), shape, ("y", "x")[: len(shape)], units=units)}
