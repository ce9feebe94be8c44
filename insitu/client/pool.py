# SPDX-License-Identifier: Apache-2.0
"""The memory that a rank's steps wait in: slots of one arena, used again and again.

A page that was touched before costs nothing; a fresh one costs more than the copy into it (4 against 11 GB/s
measured). So `put` copies into slots that stay with the process, and the lowest free one is taken first: while the
staging side keeps up, the same few slots go round and stay in the cache. The arena is the byte budget: what does not
fit has to wait.
"""

from bisect import bisect
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from insitu.wire.sockets import pinned

#: Parts that are remembered as they are sent: the same come again and again, and they are few while the staging
#: side keeps up.
PARTS = 4096
#: Slots begin at multiples of this: a cache line, enough for any dtype.
ALIGNMENT = 64


class Slot(NamedTuple):
    """`nbytes` of the arena from `offset` on."""

    offset: int
    nbytes: int


class Pool:
    """Slots of `arena`, first fit. Not safe for threads. Costs grow with the number of gaps, of which there are few.

    >>> pool = Pool(np.zeros(1024, np.uint8))
    >>> first, second = pool.take(100), pool.take(500); first, second
    (Slot(offset=0, nbytes=128), Slot(offset=128, nbytes=512))
    >>> pool.take(500) is None
    True
    >>> pool.give(first); pool.give(second); pool.take(1024)
    Slot(offset=0, nbytes=1024)
    """

    def __init__(self, arena: npt.NDArray[np.uint8]) -> None:
        self.arena = arena
        self.limit_bytes = arena.nbytes // ALIGNMENT * ALIGNMENT
        self.taken_bytes = 0
        self._gaps = [(0, self.limit_bytes)]
        self._parts: dict[tuple[int, int], memoryview] = {}

    def fits(self, nbytes: int) -> bool:
        """Whether so many bytes are free, be it in several gaps."""
        return self.taken_bytes + _rounded(nbytes) <= self.limit_bytes

    def could_fit(self, nbytes: int) -> bool:
        """Whether `nbytes` would fit if nothing else were taken: if not, waiting cannot help."""
        return _rounded(nbytes) <= self.limit_bytes

    def take(self, nbytes: int) -> Slot | None:
        """Return a slot of at least `nbytes`, or ``None`` where there is none until others are given back."""
        size = _rounded(nbytes)
        for k, (offset, room) in enumerate(self._gaps):
            if size <= room:
                self._gaps[k : k + 1] = [(offset + size, room - size)] if size < room else []
                self.taken_bytes += size
                return Slot(offset, size)
        return None

    def give(self, slot: Slot) -> None:
        """Take a slot back; whoever gave it must not touch it any more."""
        offset, room = slot
        self.taken_bytes -= room
        gaps = self._gaps
        first = last = bisect(gaps, slot)
        if first and sum(gaps[first - 1]) == offset:
            first -= 1
            offset, room = gaps[first][0], gaps[first][1] + room
        if last < len(gaps) and gaps[last][0] == offset + room:
            room += gaps[last][1]
            last += 1
        gaps[first:last] = [(offset, room)]

    def part(self, offset: int, nbytes: int) -> memoryview:
        """Return some bytes of the arena, ready to be sent; the same part costs nothing the next time."""
        part = self._parts.get((offset, nbytes))
        if part is None:
            if len(self._parts) == PARTS:
                self._parts.clear()
            part = self._parts[offset, nbytes] = pinned(self.arena[offset : offset + nbytes])
        return part

    def array(self, slot: Slot, dtype: np.dtype[Any], count: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return the beginning of a slot as an array, without a copy."""
        return self.arena[slot.offset : slot.offset + prod(count) * dtype.itemsize].view(dtype).reshape(count)


def _rounded(nbytes: int) -> int:
    return max(1, -(-nbytes // ALIGNMENT)) * ALIGNMENT
