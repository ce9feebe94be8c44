# SPDX-License-Identifier: Apache-2.0
"""Co-moments of one series with another, or with itself, some steps later: what lagged statistics are read off.

For each lag l from 0 to `Lags.lags`, the pairs are the values of x at a step and of y l steps after it, cell by cell.
As a merge is to find the pairs that lie across the seam, a state keeps the fields at both ends of each of its
stretches, `lags` of them. So all pairs are found, each once, in whatever order states are merged.

Steps are counted by their sequence numbers: one that is missing makes the pairs it would be in fewer, never others.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from analytics.kernels.comoments import merge_comoments, rows_of
from analytics.kernels.flat_pairs import fold_flat_pairs
from analytics.kernels.pairs import fold_pairs
from analytics.kernels.values import eights, read_only, values
from analytics.stretches import glued, gone_on, within
from insitu.model import Array, Extent, Step
from insitu.operator import State

#: The fields x and y of steps, by sequence number.
Fields = Mapping[int, tuple[Array, Array]]


@dataclass(frozen=True, slots=True)
class Lags:
    """How a state of pairs is folded and merged. The state of no data is ``{}``.

    ``state["pairs"]`` is float64 of shape (lags + 1, rows, *cells), the rows being those of ``kernels/comoments.py``,
    with or without `squares`. ``state["count"]`` is int64 of shape (lags + 1,), or with `skip`, which leaves out pairs
    with a NaN, (lags + 1, *cells).
    """

    lags: int
    squares: bool
    skip: bool

    def update(self, state: State, steps: Sequence[Step], x: Sequence[Array], y: Sequence[Array]) -> State:
        """Fold the fields of steps, pairing cell with cell."""
        state = state or self._zeros(x[0].shape)
        old = _fields(state["kept"])
        new = {step.sequence: _pair(a, b) for step, a, b in zip(steps, x, y, strict=True)}
        for lag in range(self.lags + 1):
            self._fold(state, lag, [*_across(old, new, lag), *_inside(new, lag)])
        gone_on(state["stretches"], min(new), max(new))
        self._keep(state, new)
        return state

    def update_flat(self, state: State, x: Sequence[Array], y: Sequence[Array]) -> State:
        """Fold all pairs of arrays into one, without lags."""
        state = state or self._zeros(())
        count, rows = _flat(state, 0)
        for a, b in map(_pair, x, y):
            fold_flat_pairs(a.dtype.name, self.skip)(a, b, count, rows)
        return state

    def merge(self, a: State, b: State) -> State:
        """Merge two states, and find the pairs that lie across their seam."""
        if not (a and b):
            return a or deepcopy(b)
        old, new = _fields(a["kept"]), _fields(b["kept"])
        for lag in range(self.lags + 1):
            merge_comoments(self.squares)(*_flat(a, lag), *map(read_only, _flat(b, lag)))
            self._fold(a, lag, list(_across(old, new, lag)))
        a["stretches"] = glued([*a["stretches"], *(dict(stretch) for stretch in b["stretches"])])
        self._keep(a, new)
        return a

    def read(self, state: State) -> tuple[Array, list[Array]]:
        """Return a copy of the counts and views of the rows, each of shape (lags + 1, *cells)."""
        state = state or self._zeros(())
        pairs, count = np.moveaxis(state["pairs"], 1, 0), state["count"]
        by_cell = count.reshape(count.shape + (1,) * (pairs[0].ndim - count.ndim))
        return np.broadcast_to(by_cell, pairs[0].shape).copy(), list(pairs)

    def _zeros(self, cells: Extent) -> State:
        return {
            "count": np.zeros((self.lags + 1, *(cells if self.skip else ())), np.int64),
            "pairs": np.zeros((self.lags + 1, rows_of(self.squares), *cells)),
            "kept": [],
            "stretches": [],
        }

    def _fold(self, state: State, lag: int, pairs: Sequence[tuple[Array, Array]]) -> None:
        for (x, steps), (y, _) in zip(eights([x for x, _ in pairs]), eights([y for _, y in pairs]), strict=True):
            fold = fold_pairs(x[0].dtype.name, self.squares, self.skip)
            fold(x, y, steps, *_flat(state, lag))

    def _keep(self, state: State, new: Fields) -> None:
        """Keep copies of the fields that steps which are not known yet may pair with, and only these."""
        fields = {each["at"]: each["fields"] for each in state["kept"]}
        wanted = {at for at in (*fields, *new) if not within(state["stretches"], at - self.lags, at + self.lags)}
        fields |= {at: _copies(*pair) for at, pair in new.items() if at in wanted}
        state["kept"] = [{"at": at, "fields": fields[at]} for at in sorted(wanted)]


def _flat(state: State, lag: int) -> tuple[Array, Array]:
    """Return views of the count and the rows of one lag, with all cells in one dimension, as kernels take them."""
    rows = state["pairs"][lag]
    return state["count"][lag : lag + 1].reshape(-1), rows.reshape(len(rows), math.prod(rows.shape[1:]))


def _pair(x: Array, y: Array) -> tuple[Array, Array]:
    """Return two fields as kernels take them: of one dtype, double where theirs differ."""
    a = values(x)
    b = a if x is y else values(y)
    if a.dtype != b.dtype:
        a, b = (read_only(each.astype(np.float64, copy=False)) for each in (a, b))
    return a, b


def _fields(kept: Sequence[State]) -> Fields:
    return {each["at"]: _pair(each["fields"][0], each["fields"][-1]) for each in kept}


def _copies(x: Array, y: Array) -> list[Array]:
    """Return copies to keep: of x alone, where it is y as well."""
    return [x.copy()] if x is y else [x.copy(), y.copy()]


def _across(old: Fields, new: Fields, lag: int) -> Iterator[tuple[Array, Array]]:
    """Yield the pairs of a field of `old` and one of `new`, whichever comes first."""
    for at, (x, y) in new.items():
        if at - lag in old:
            yield old[at - lag][0], y
        if at + lag in old:
            yield x, old[at + lag][1]


def _inside(new: Fields, lag: int) -> Iterator[tuple[Array, Array]]:
    for at, (x, _) in new.items():
        if at + lag in new:
            yield x, new[at + lag][1]
