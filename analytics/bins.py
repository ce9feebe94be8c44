# SPDX-License-Identifier: Apache-2.0
"""Bins as a way to quantiles: the same ones for all cells, or each cell's own."""

import copy
import math
from dataclasses import dataclass

import numpy as np

from analytics.fields import in_hand
from analytics.histogram import Histogram
from analytics.kernels.counting import EXTRA
from analytics.kernels.levels import locate_levels
from analytics.kernels.values import eights, read_only, values
from analytics.kernels.widening import count_own, merge_own
from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Batch, State

#: What can be counted in 32 bits, with which a table takes half the memory.
MOST_STEPS = 2**32 - 1

#: Cells whose counts are read at a time, copied into the one layout that the kernel is compiled for.
TILE = 1024

_LARGEST = float(np.finfo(np.float64).max)

#: Quantiles by level and cell, how many values each cell has, and how many NaN beside them.
Found = tuple[Array, Array, Array]


@dataclass(frozen=True, slots=True)
class SharedBins:
    """The bins of a histogram."""

    histogram: Histogram

    def warm_up(self) -> None:
        self.histogram.warm_up()

    def update(self, state: State, batch: Batch) -> State:
        return self.histogram.update(state, batch)

    def merge(self, a: State, b: State) -> State:
        return self.histogram.merge(a, b)

    def read(self, state: State, levels: Array) -> Found:
        table = state["counts"] if state else np.zeros(self.histogram.bins + EXTRA, np.int64)
        cells = table.reshape(len(table), math.prod(table.shape[1:]))
        # Edges do not depend on counts; those of no cell instead of all save a copy of the table.
        none = np.zeros(len(table), np.int64)
        edges = self.histogram.finalize({**state, "counts": none} if state else state)["edges"]
        place, count = _located(cells, levels)
        found = np.interp(place, np.arange(len(edges)), np.clip(edges, -_LARGEST, _LARGEST), -np.inf, np.inf)
        return found.reshape(len(levels), *table.shape[1:]), count.reshape(table.shape[1:]), table[-1]


@dataclass(frozen=True, slots=True)
class OwnBins:
    """So many bins for each cell of a variable, found from its values as ``kernels/widening.py`` says."""

    name: str
    bins: int

    def warm_up(self) -> None:
        for dtype in ("f8", "f4"):
            batch = in_hand([Variable(self.name, np.dtype(dtype), (1,), ("cell",))])
            self.merge(self.update({}, batch), self.update({}, batch))

    def update(self, state: State, batch: Batch) -> State:
        arrays = batch[self.name]
        state = state or self._zeros(arrays[0].shape)
        for eight, steps in eights([values(array) for array in arrays]):
            count_own(eight[0].dtype.name)(eight, steps, *_parts(state))
        return _counted(state, len(arrays))

    def merge(self, a: State, b: State) -> State:
        if not b:
            return a
        if not a:
            return copy.deepcopy(b)
        merge_own()(*_parts(a), *map(read_only, _parts(b)))
        return _counted(a, b["steps"])

    def read(self, state: State, levels: Array) -> Found:
        counts, exponent, first = _parts(state := state or self._zeros(()))
        place, count = _located(counts.T, levels)
        with np.errstate(over="ignore"):  # the last edge of numbers near the largest one is infinite
            found = np.ldexp(first + place, exponent)
        np.clip(found, -_LARGEST, _LARGEST, out=found, where=np.isfinite(place))
        shape = state["first"].shape
        return found.reshape(len(levels), *shape), count.reshape(shape), state["counts"][..., -1]

    def _zeros(self, shape: tuple[int, ...]) -> State:
        return {
            "counts": np.zeros((*shape, self.bins + EXTRA), np.uint32),
            "exponent": np.zeros(shape, np.int32),
            "first": np.zeros(shape, np.int64),
            "steps": 0,
        }


def _located(counts: Array, levels: Array) -> tuple[Array, Array]:
    """Return where each cell's quantiles lie among its bins, and how many values it has."""
    place, count = np.empty((len(levels), counts.shape[1])), np.empty(counts.shape[1], np.int64)
    for first in range(0, counts.shape[1], TILE):
        some = read_only(np.ascontiguousarray(counts[:, first : first + TILE], np.int64))
        found = np.empty((len(levels), some.shape[1])), np.empty(some.shape[1], np.int64)
        locate_levels()(some, read_only(levels), *found)
        place[:, first : first + TILE], count[first : first + TILE] = found
    return place, count


def _parts(state: State) -> tuple[Array, Array, Array]:
    """Return views of counts, exponent and first with all cells in one dimension, as kernels take them."""
    counts = state["counts"]
    return counts.reshape(-1, counts.shape[-1]), state["exponent"].reshape(-1), state["first"].reshape(-1)


def _counted(state: State, steps: int) -> State:
    state["steps"] += steps
    if state["steps"] > MOST_STEPS:
        raise OperatorError(f"bins of a cell count up to {MOST_STEPS} steps of a window; take a shorter window")
    return state
