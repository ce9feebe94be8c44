# SPDX-License-Identifier: Apache-2.0
"""Pictures of a step for those who look: thinned copies of its blocks, made only when somebody has asked.

A look is answered by the next committed step that has the variable, before it is folded: its blocks are then here for
certain, be they in a rank's own memory. The copy takes every so many cells, so that it costs what the picture holds and
not what the field does: 1 ms for 512 x 512 cells of 8192 x 8192. Nothing waits for a picture.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from insitu.model import Array, Block, Extent, Variable
from insitu.staging.assembler import ReadyStep
from insitu.wire.viewing import Glimpse, Peek

#: Looks that wait for a step. Of more, the oldest are forgotten: nobody waits for them any longer.
WAITING = 16


class Glimpses:
    """The looks that one staging node has to answer."""

    def __init__(self) -> None:
        self._waiting: deque[Peek] = deque(maxlen=WAITING)

    def ask(self, peek: Peek) -> None:
        """Remember a look for the next step."""
        self._waiting.append(peek)

    def of(self, steps: Sequence[ReadyStep]) -> list[Glimpse]:
        """Return what these steps answer; the same for all nodes that get the same steps after the same look."""
        if not self._waiting:
            return []
        found: list[Glimpse] = []
        for ready in steps:
            for peek in list(self._waiting):
                blocks = [parts[peek.variable] for parts in ready.blocks.values() if peek.variable in parts]
                if blocks:
                    self._waiting.remove(peek)
                    found.append(_glimpse(peek, ready, blocks))
        return found


def _glimpse(peek: Peek, ready: ReadyStep, blocks: list[Block]) -> Glimpse:
    variable, step, at = blocks[0].variable, ready.step, dict(peek.at)
    why = _why_not(variable, at)
    pieces: list[tuple[Extent, Array]] = []
    stride: Extent = ()
    if not why and variable.joined:
        stride, pieces = _rows(blocks, peek.most)
    elif not why:
        stride = stride_for(variable, at, peek.most)
        pieces = [piece for block in blocks if (piece := thinned(block, at, stride)) is not None]
    places = tuple((start, data.shape) for start, data in pieces)
    buffers = tuple(data for _, data in pieces)
    return Glimpse(peek.number, variable, step.sequence, step.index, step.time, stride, places, why, buffers)


def _why_not(variable: Variable, at: Mapping[str, int]) -> str:
    """Say why such a picture cannot be had."""
    for dim, index in at.items():
        if dim not in variable.dims:
            return f"'{variable.name}' has no dim '{dim}'; it has {', '.join(variable.dims) or 'none'}"
        if variable.shape is None:
            return f"'{variable.name}' is joined over the ranks and has no slices"
        length = variable.shape[variable.dims.index(dim)]
        if index >= length:
            return f"'{variable.name}' has {length} cells along '{dim}', and no index {index}"
    return ""


def stride_for(variable: Variable, at: Mapping[str, int], most: int) -> Extent:
    """Return the strides that leave at most so many cells of the whole array; 1 along a dim of which one is taken.

    >>> field = Variable("u", np.dtype("f8"), (8192, 8192), ("y", "x"))
    >>> stride_for(field, {}, 512 * 512), stride_for(field, {"y": 7}, 4096)
    ((16, 16), (1, 2))
    """
    assert variable.shape is not None
    lengths = [1 if dim in at else n for dim, n in zip(variable.dims, variable.shape, strict=True)]
    stride = 1
    while prod(-(-n // stride) for n in lengths) > most:
        stride += 1
    return tuple(1 if dim in at else stride for dim in variable.dims)


def thinned(block: Block, at: Mapping[str, int], stride: Extent) -> tuple[Extent, Array] | None:
    """Return a block's part of the thinned array, without the dims of which one index is taken, and where it lies.

    The cells are those whose index in the whole array is a multiple of the stride, so that the parts of all blocks fit
    together. ``None`` where the block has none of them.
    """
    where: list[slice | int] = []
    start: list[int] = []
    for dim, first, count, step in zip(block.variable.dims, block.start, block.count, stride, strict=True):
        if dim in at:
            if not first <= at[dim] < first + count:
                return None
            where.append(at[dim] - first)
            continue
        offset = -first % step
        if offset >= count:
            return None
        where.append(slice(offset, None, step))
        start.append((first + offset) // step)
    return tuple(start), _shown(block.data[tuple(where)])


def _rows(blocks: list[Block], most: int) -> tuple[Extent, list[tuple[Extent, Array]]]:
    """Return every so many rows of a joined variable."""
    variable = blocks[0].variable
    rows = sum(block.count[0] for block in blocks)
    stride = max(1, -(-rows * max(1, prod(variable.row)) // most))
    start = (0,) * variable.ndim
    return (stride, *(1 for _ in variable.row)), [(start, _shown(block.data[::stride])) for block in blocks]


def _shown(data: Array) -> Array:
    """Return a copy of what is shown of numbers: float32, of complex ones the magnitude."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.abs(data) if data.dtype.kind == "c" else data
        return np.array(values, np.float32, order="C")  # always a copy: the rank will use its memory again
