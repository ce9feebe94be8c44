# SPDX-License-Identifier: Apache-2.0
"""Pictures of variables: which are wanted, and how the staging nodes' parts make one up. No sockets, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from insitu.model import Array, Variable
from insitu.selection import selected
from insitu.wire.blocks import Range
from insitu.wire.viewing import NEWEST, Look, Sight

#: Values of one picture: a square of 512 x 512, about what a page has room for.
CELLS = 512 * 512
#: A look that was not answered for so long is asked again, now for the newest retained step: the simulation stands
#: still, or a staging node is gone.
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
        self._since: dict[Wanted, int] = {}
        self._now: tuple[int, Wanted, float] | None = None
        self._parts: list[Sight] = []
        self._number = 0

    def want(self, wanted: Wanted, now: float) -> Picture | None:
        """Say that this picture is looked at, and return the newest one there is."""
        self._wanted[wanted] = now
        return self._pictures.get(wanted)

    def next(self, now: float) -> Look | None:
        """Return what is to be asked for, if anything is and nothing else is under way."""
        if self._now is not None:
            if now - self._now[2] < PATIENCE_S:
                return None
            self._since.setdefault(self._now[1], NEWEST)
        for wanted, last in list(self._wanted.items()):
            if now - last > WANTED_S:
                for known in (self._wanted, self._pictures, self._asked, self._since):
                    known.pop(wanted, None)
        due = [each for each in list(self._wanted) if now - self._asked.get(each, -EVERY_S) >= EVERY_S]
        if not due:
            return None
        wanted = min(due, key=lambda each: self._asked.get(each, -EVERY_S))
        self._number += 1
        self._now, self._parts = (self._number, wanted, now), []
        self._asked[wanted] = now
        return Look(self._number, wanted.variable, ranges_of(dict(wanted.at)), CELLS, self._since.pop(wanted, None))

    def take(self, sight: Sight) -> bool:
        """Take in one node's part; return whether a picture is complete by it."""
        if self._now is None or sight.number != self._now[0]:
            return False
        self._parts.append(sight)
        if len(self._parts) < sight.parts:
            return False
        wanted, self._now = self._now[1], None
        if unseen(self._parts):
            return False
        steps = {part.sequence for part in self._parts if part.variable is not None}
        if len(steps) > 1:
            # The simulation stands still, and one node has retained newer steps: of the older all have their parts.
            self._since[wanted] = min(steps)
            return False
        if wanted in self._wanted:
            self._pictures[wanted] = assembled(self._parts, dict(wanted.at))
        return True


def ranges_of(select: Mapping[str, int | slice]) -> tuple[Range, ...]:
    """Say which cells are meant by an index, or by a slice, of some dims.

    >>> ranges_of({"x": -1})
    (Range(dim='x', start=-1, stop=None, step=1),)
    """
    return tuple(
        Range(dim, which.start, which.stop, which.step or 1)
        if isinstance(which, slice)
        else Range(dim, which, which + 1 if which != -1 else None, 1)
        for dim, which in select.items()
    )


def unseen(parts: Sequence[Sight]) -> bool:
    """Whether no node has a part, and none says why: no rank has sent it to any of them yet."""
    return not any(part.variable is not None or part.why for part in parts)


def assembled(parts: Sequence[Sight], select: Mapping[str, int | slice]) -> Picture:
    """Put the parts of all nodes together. A dim of which one index was selected is gone."""
    first = next((part for part in parts if part.variable is not None or part.why), parts[0])
    why = next((part.why for part in parts if part.why), "")
    if why or first.variable is None:
        return Picture(first.variable, first.index, first.time, first.stride, np.empty(0, np.float32), why)
    variable = selected(first.variable, ranges_of(select))
    pieces = [
        (start, np.frombuffer(buffer, np.float32).reshape(count))
        for part in parts
        for (start, count), buffer in zip(part.pieces, part.buffers, strict=True)
    ]
    if variable.shape is None:
        rows = [data for _, data in pieces]
        values = np.concatenate(rows) if rows else np.empty((0, *variable.row), np.float32)
        return Picture(first.variable, first.index, first.time, first.stride, values)
    values = np.full([-(-n // k) for n, k in zip(variable.shape, first.stride, strict=True)], np.nan, np.float32)
    for start, data in pieces:
        where = tuple(slice(low, low + count) for low, count in zip(start, data.shape, strict=True))
        values[where] = data
    gone = tuple(k for k, dim in enumerate(variable.dims) if isinstance(select.get(dim), int))
    left = tuple(k for k in range(variable.ndim) if k not in gone)
    stride = tuple(first.stride[k] for k in left)
    return Picture(first.variable, first.index, first.time, stride, values.squeeze(gone))
