# SPDX-License-Identifier: Apache-2.0
"""What a staging node shows of a step to those who look: copies of its blocks, made only when somebody has asked.

A picture is made of the next committed step that has the variable, before it is folded: its blocks are then here for
certain, be they in a rank's own memory. The copy takes every so many cells, so that it costs what the picture holds and
not what the field does: 1 ms for 512 x 512 cells of 8192 x 8192. Whoever asks for exact cells gets them of a retained
step. Nothing waits for a look.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from insitu.model import Array, Block, Extent, Step, Variable
from insitu.selection import cut, faults_of_selection, selected
from insitu.staging.assembler import ReadyStep
from insitu.staging.retained import Retained
from insitu.text import size
from insitu.wire.limits import BLOCKS, SIGHT_BYTES
from insitu.wire.viewing import NEWEST, Glimpse, Peek, Pieces

#: Looks that wait for a step. Of more, the oldest are forgotten: nobody waits for them any longer.
WAITING = 16


class Glimpses:
    """The looks that one staging node has to answer. `announced` says whether any rank sends it a variable."""

    def __init__(self, retained: Retained, announced: Callable[[str], bool]) -> None:
        self._retained = retained
        self._announced = announced
        self._waiting: deque[Peek] = deque(maxlen=WAITING)

    def ask(self, peek: Peek) -> list[Glimpse]:
        """Answer a look from what is retained, or remember it for the steps to come."""
        self._retained.forget(peek.begin)
        found = self._told(peek) if peek.most == 0 else self._of_retained(peek)
        if found is None:
            self._waiting.append(peek)
        return [] if found is None else [found]

    def _told(self, peek: Peek) -> Glimpse:
        """Say which steps are retained, and what the variable is like in the newest of them."""
        retained = self._retained
        newest = retained.newest(peek.variable)
        step = None if newest is None else retained.read(newest, peek.variable)
        variable = None if step is None else step.blocks[peek.variable][0].variable
        why = "" if retained.steps else retained.why
        told = retained.told(peek.variable)
        return Glimpse(peek.number, variable, -1, 0, 0.0, (), (((0, 0), told.shape),), why, (told,))

    def of(self, steps: Sequence[ReadyStep]) -> list[Glimpse]:
        """Return what these steps answer; the same for all nodes that get the same steps after the same look.

        A node to which nobody sends the variable shows nothing of the first one.
        """
        if not self._waiting:
            return []
        found: list[Glimpse] = []
        for peek in list(self._waiting):
            glimpse = self._of_next(peek, steps) or self._of_retained(peek)
            if glimpse is not None:
                self._waiting.remove(peek)
                found.append(glimpse)
        return found

    def _of_next(self, peek: Peek, steps: Sequence[ReadyStep]) -> Glimpse | None:
        """Answer a look from steps that were just committed, where it is one at the next step."""
        if peek.most is None or peek.since not in (None, NEWEST):
            return None
        if not self._announced(peek.variable):
            return _glimpse(peek, steps[0].step, [])
        for ready in steps:
            blocks = [parts[peek.variable] for parts in ready.blocks.values() if peek.variable in parts]
            if blocks:
                return _glimpse(peek, ready.step, blocks)
        return None

    def _of_retained(self, peek: Peek) -> Glimpse | None:
        """Answer a look from what is retained, where it is by now; ``None`` where it has to wait."""
        retained = self._retained
        since = retained.newest(peek.variable) if peek.since == NEWEST else peek.since
        step = None if since is None else retained.read(since, peek.variable)
        if step is not None:
            return _glimpse(peek, step.step, step.blocks.get(peek.variable, []))
        nothing = peek.since is not None and retained.why and not retained.steps
        if nothing and (peek.most is None or peek.since != NEWEST):
            return _nothing(peek, retained.why)
        return _nothing(peek) if peek.since == NEWEST and not self._announced(peek.variable) else None


def _nothing(peek: Peek, why: str = "") -> Glimpse:
    return Glimpse(peek.number, None, -1, 0, 0.0, (), (), why, ())


def _glimpse(peek: Peek, step: Step, blocks: list[Block]) -> Glimpse:
    """Show what is asked for of the blocks of one variable, if any."""
    variable = blocks[0].variable if blocks else None
    why, stride = "", Extent()
    pieces: list[_Part] = []
    if variable is not None:
        why = "; ".join(faults_of_selection(variable, peek.select).values())
    if variable is not None and not why:
        parts = [_selected(block, peek) for block in blocks]
        left = selected(variable, peek.select)
        if peek.most is None:
            stride, pieces = (1,) * variable.ndim, _exact(parts)
            why = _too_much(variable, parts)
        elif variable.joined:
            stride, pieces = _rows(left, parts, peek.most)
        else:
            stride = stride_for(left, peek.most)
            pieces = [piece for start, data in parts if (piece := thinned(start, data, stride)) is not None]
        if not why and len(pieces) > BLOCKS:
            why = f"{len(pieces)} blocks of it lie on a staging node, which sends {BLOCKS} at once; select less"
    if why:
        pieces = []
    places: Pieces = tuple((start, data.shape) for start, data in pieces)
    buffers = tuple(data for _, data in pieces)
    return Glimpse(peek.number, variable, step.sequence, step.index, step.time, stride, places, why, buffers)


#: Cells of one block, and where they lie in what is selected of the variable.
_Part = tuple[Extent, Array]


def _selected(block: Block, peek: Peek) -> _Part:
    found = cut(block.variable, peek.select, block.start, block.count)
    return found.start, block.data[found.cells]


def _exact(parts: list[_Part]) -> list[_Part]:
    return [(start, np.array(data, order="C")) for start, data in parts if data.size]


def _too_much(variable: Variable, parts: list[_Part]) -> str:
    nbytes = sum(data.nbytes for _, data in parts)
    if nbytes <= SIGHT_BYTES:
        return ""
    return f"{size(nbytes)} of it lie on a staging node, which sends {size(SIGHT_BYTES)} at once; select less"


def stride_for(variable: Variable, most: int) -> Extent:
    """Return the strides that leave at most so many cells of the whole array; 1 along a dim that has one.

    >>> field = Variable("u", np.dtype("f8"), (8192, 8192), ("y", "x"))
    >>> stride_for(field, 512 * 512)
    (16, 16)
    """
    assert variable.shape is not None
    shape = variable.shape
    strides = range(1, max(shape, default=1) + 1)
    enough = bisect_left(strides, True, key=lambda stride: prod(-(-length // stride) for length in shape) <= most)
    return tuple(1 if length == 1 else enough + 1 for length in shape)


def thinned(start: Extent, data: Array, stride: Extent) -> _Part | None:
    """Return what a block that lies at `start` has of the thinned array, and where that lies there.

    The cells are those whose index in the whole array is a multiple of the stride, so that the parts of all blocks fit
    together. ``None`` where the block has none of them.
    """
    offsets = [-first % step for first, step in zip(start, stride, strict=True)]
    if any(offset >= length for offset, length in zip(offsets, data.shape, strict=True)):
        return None
    where = tuple(slice(offset, None, step) for offset, step in zip(offsets, stride, strict=True))
    place = tuple((first + offset) // step for first, offset, step in zip(start, offsets, stride, strict=True))
    return place, _shown(data[where])


def _rows(variable: Variable, parts: list[_Part], most: int) -> tuple[Extent, list[_Part]]:
    """Return every so many rows of a joined variable."""
    rows = sum(len(data) for _, data in parts)
    stride = max(1, -(-rows * max(1, prod(variable.row)) // most))
    return (stride, *(1 for _ in variable.row)), [(start, _shown(data[::stride])) for start, data in parts]


def _shown(data: Array) -> Array:
    """Return a copy of what is shown of numbers: float32, of complex ones the magnitude."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.abs(data) if data.dtype.kind == "c" else data
        return np.array(values, np.float32, order="C")  # always a copy: the rank will use its memory again
