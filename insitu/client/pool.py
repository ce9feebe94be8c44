# SPDX-License-Identifier: Apache-2.0
"""Buffers that are used again.

A page that was touched before costs nothing; a fresh one costs more than the copy into it (4 against 11 GB/s measured).
So `put` copies into buffers that stay with the process.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from insitu.wire.sockets import pinned


class Buffer:
    """`nbytes` bytes of memory, and its parts as they are sent."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._memory = np.empty(nbytes, np.uint8)
        self._parts: dict[tuple[int, int], memoryview] = {}

    def array(self, dtype: np.dtype[Any], count: tuple[int, ...], nbytes: int) -> npt.NDArray[Any]:
        """Return the first `nbytes` as an array, without a copy."""
        return self._memory[:nbytes].view(dtype).reshape(count)

    def part(self, begin: int, end: int) -> memoryview:
        """Return some of the bytes, ready to be sent; the same part costs nothing the next time."""
        part = self._parts.get((begin, end))
        if part is None:
            if len(self._parts) == PARTS:
                self._parts.clear()
            part = self._parts[begin, end] = pinned(self._memory[begin:end])
        return part


#: Parts that a buffer remembers. There is one for each staging node of a rank, so more than a few are old ones.
PARTS = 8


class Pool:
    """Byte buffers in size classes, an eighth of a power of two apart: at most an eighth of a buffer lies idle.

    Not safe for threads. Keeps at most `limit_bytes` of buffers that nobody uses.

    >>> pool = Pool(limit_bytes=1000)
    >>> first = pool.take(100); first.nbytes
    104
    >>> pool.give(first); pool.take(97) is first
    True
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._idle: dict[int, list[Buffer]] = {}
        self._idle_bytes = 0

    def take(self, nbytes: int) -> Buffer:
        """Return a buffer of at least `nbytes`."""
        size = size_class(nbytes)
        idle = self._idle.get(size)
        if idle:
            self._idle_bytes -= size
            return idle.pop()
        return Buffer(size)

    def give(self, buffer: Buffer) -> None:
        """Take a buffer back; whoever gave it must not touch it any more."""
        if self._idle_bytes + buffer.nbytes > self._limit_bytes:
            return
        self._idle.setdefault(buffer.nbytes, []).append(buffer)
        self._idle_bytes += buffer.nbytes


def size_class(nbytes: int) -> int:
    """Return the size of the buffer that holds `nbytes`: what a budget has to count.

    >>> [size_class(n) for n in (0, 1, 9, 1000, 1024, 1025)]
    [8, 8, 9, 1024, 1024, 1152]
    """
    if nbytes <= 8:
        return 8
    step: int = 1 << max(0, (nbytes - 1).bit_length() - 4)
    return -(-nbytes // step) * step
