# SPDX-License-Identifier: Apache-2.0
"""Pictures of variables: which are wanted, and how the staging nodes' parts make one up. No sockets, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from insitu.model import Array, Variable
from insitu.wire.viewing import Look, Sight

#: Values of one picture: a square of 512 x 512, about what a page has room for.
CELLS = 512 * 512
#: A look that was not answered for so long is asked again: no step came, or a staging node is gone.
PATIENCE_S = 2.0
#: How often one picture is made, and how long it is wanted after somebody has last asked for it.
EVERY_S = 0.1
WANTED_S = 3.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A variable, and the one index that is wanted of some dims."""

    variable: str
    at: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A variable at one step, thinned: `values` have every `stride` of the cells, and NaN where a part is missing.

    Of a joined variable they are rows. `why` says why there is nothing to be seen.
    """

    variable: Variable | None
    index: int
    time: float
    stride: tuple[int, ...]
    values: Array
    why: str = ""


class Looks:
    """Asks for what is wanted, one after the other, and keeps the newest picture of each.

    `want` is called by whoever shows them, in another thread than `next` and `take`: a dict's single steps are safe.
    """

    def __init__(self) -> None:
        self._wanted: dict[Wanted, float] = {}
        self._pictures: dict[Wanted, Picture] = {}
        self._asked: dict[Wanted, float] = {}
        self._now: tuple[int, Wanted, float] | None = None
        self._parts: list[Sight] = []
        self._number = 0

    def want(self, wanted: Wanted, now: float) -> Picture | None:
        """Say that this picture is looked at, and return the newest one there is."""
        self._wanted[wanted] = now
        return self._pictures.get(wanted)

    def next(self, now: float) -> Look | None:
        """Return what is to be asked for, if anything is and nothing else is under way."""
        if self._now is not None and now - self._now[2] < PATIENCE_S:
            return None
        for wanted, last in list(self._wanted.items()):
            if now - last > WANTED_S:
                for known in (self._wanted, self._pictures, self._asked):
                    known.pop(wanted, None)
        due = [each for each in list(self._wanted) if now - self._asked.get(each, -EVERY_S) >= EVERY_S]
        if not due:
            return None
        wanted = min(due, key=lambda each: self._asked.get(each, -EVERY_S))
        self._number += 1
        self._now, self._parts = (self._number, wanted, now), []
        self._asked[wanted] = now
        return Look(self._number, wanted.variable, wanted.at, CELLS)

    def take(self, sight: Sight) -> bool:
        """Take in one node's part; return whether a picture is complete by it."""
        if self._now is None or sight.number != self._now[0]:
            return False
        self._parts.append(sight)
        if len(self._parts) < sight.parts:
            return False
        wanted, self._now = self._now[1], None
        if wanted in self._wanted:
            self._pictures[wanted] = assembled(self._parts, dict(wanted.at))
        return True


def assembled(parts: Sequence[Sight], at: dict[str, int]) -> Picture:
    """Put the parts of all nodes together."""
    first = parts[0]
    why = next((part.why for part in parts if part.why), "")
    variable = first.variable
    if why or variable is None:
        return Picture(variable, first.index, first.time, first.stride, np.empty(0, np.float32), why)
    pieces = [
        (start, np.frombuffer(buffer, np.float32).reshape(count))
        for part in parts
        for (start, count), buffer in zip(part.pieces, part.buffers, strict=True)
    ]
    if variable.shape is None:
        rows = [data for _, data in pieces]
        values = np.concatenate(rows) if rows else np.empty((0, *variable.row), np.float32)
        return Picture(variable, first.index, first.time, first.stride, values)
    kept = [
        (length, stride)
        for dim, length, stride in zip(variable.dims, variable.shape, first.stride, strict=True)
        if dim not in at
    ]
    values = np.full([-(-length // stride) for length, stride in kept], np.nan, np.float32)
    for start, data in pieces:
        where = tuple(slice(low, low + count) for low, count in zip(start, data.shape, strict=True))
        values[where] = data
    return Picture(variable, first.index, first.time, tuple(stride for _, stride in kept), values)
