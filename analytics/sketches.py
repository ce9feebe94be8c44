# SPDX-License-Identifier: Apache-2.0
"""Sketches of the distribution of all values, as states of an operator: the one door to Apache DataSketches.

A sketch is kept as the bytes it serialises to, because a state has to be plain data; that costs tens of microseconds
per batch. The library samples with a generator of its own, which cannot be seeded.
"""

import copy
import functools
import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from insitu.errors import OperatorError
from insitu.model import Array
from insitu.operator import Batch, State

#: Values given to the library at a time. It holds Python's lock meanwhile (some 3 ms), and other threads of the process
#: have to receive steps.
PIECE = 1 << 16


@functools.cache
def datasketches() -> Any:
    """Import the library only where a sketch is asked for; raise `OperatorError` where it is not installed."""
    try:
        return importlib.import_module("datasketches")
    except ImportError as error:
        raise OperatorError(
            f"method: kll needs the package datasketches, which cannot be imported here ({error}); install it with "
            "pip install 'insitu[sketches]', or take method: histogram"
        ) from error


@dataclass(frozen=True, slots=True)
class Sketch:
    """A KLL sketch of size `k` of all values of a variable."""

    name: str
    k: int

    def warm_up(self) -> None:
        datasketches()

    def update(self, state: State, batch: Batch) -> State:
        sketch = _load(state) if state else datasketches().kll_doubles_sketch(self.k)
        unknown = state.get("nan", 0)
        for values in (array.reshape(-1) for array in batch[self.name]):
            for first in range(0, values.size, PIECE):
                piece = values[first : first + PIECE].astype(np.float64)  # a copy, as read-only arrays are refused
                sketch.update(piece)
                unknown += int(np.count_nonzero(np.isnan(piece)))
        return _save(sketch, unknown)

    def merge(self, a: State, b: State) -> State:
        if not b:
            return a
        if not a:
            return copy.deepcopy(b)
        sketch = _load(a)
        sketch.merge(_load(b))
        return _save(sketch, a["nan"] + b["nan"])

    def read(self, state: State, levels: Array) -> tuple[Array, Array, Array]:
        sketch = _load(state) if state else datasketches().kll_doubles_sketch(self.k)
        found = np.full(len(levels), np.nan)
        if sketch.n:
            found[:] = sketch.get_quantiles(levels.tolist(), True)
        return found, np.array(sketch.n, np.int64), np.array(state.get("nan", 0), np.int64)


def _load(state: State) -> Any:
    return datasketches().kll_doubles_sketch.deserialize(state["sketch"].tobytes())


def _save(sketch: Any, unknown: int) -> State:
    return {"sketch": np.frombuffer(sketch.serialize(), np.uint8), "nan": unknown}
