# SPDX-License-Identifier: Apache-2.0
"""Samples beyond the memory of a buffer, compressed on the node's own disk.

The file has no name: it is gone with the process, however that ends (`tempfile.TemporaryFile`). Each slot has a place
of its own in it, of the size of a plain sample, which a smaller record leaves empty: a file system with holes stores
what is written. Places need no list and no search, and what is on the disk is never more than its capacity. Records
have checksums, for a disk may give back something else than it was given.
"""

import os
import tempfile
import weakref
import zlib
from collections.abc import Mapping

import numpy as np
from numcodecs import Blosc

from analytics.nn.samples import Rows, Storage, row_nbytes
from insitu.errors import OperatorError
from insitu.model import Array, Extent

#: Lossless, and faster than most disks: LZ4 of bytes that are put together by their place in a number.
CODEC = Blosc(cname="lz4", clevel=1, shuffle=Blosc.SHUFFLE)
#: What a slot on the disk takes in memory: length and checksum of its record.
INDEX = 4 + 4


class Spilling(Storage):
    """A storage of `slots` in memory and, from that number on, `spilled` more on the disk of `directory`.

    Where a slot lies never changes, and a slot of the disk is read and written like any other: who draws uniformly over
    all of them draws so. Costs one write or read of a compressed record for each sample there; some 10 µs where the
    operating system still has it in memory.

    Raises `OperatorError` where the directory is none, the disk takes no more, or gives back something else.
    """

    def __init__(
        self,
        columns: Mapping[str, tuple[Extent, np.dtype[np.generic]]],
        slots: int,
        spilled: int,
        directory: str | None = None,
    ) -> None:
        super().__init__(columns, slots)
        self._slots = slots
        self._row = row_nbytes(columns)
        self._lengths, self._sums = np.zeros(spilled, np.uint32), np.zeros(spilled, np.uint32)
        try:
            file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - open as long as this lives
        except OSError as error:
            raise OperatorError(f"spill: {directory} takes no file: {error}") from error
        self._descriptor = file.fileno()
        weakref.finalize(self, file.close)

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._lengths.nbytes + self._sums.nbytes

    @property
    def spilled_nbytes(self) -> int:
        """Bytes on the disk, as they are compressed."""
        return int(self._lengths.sum())

    def in_memory(self, slots: Array) -> Array:
        found: Array = slots < self._slots
        return found

    def write(self, slots: Array, rows: Rows) -> None:
        here = self.in_memory(slots)
        super().write(slots[here], {name: values[here] for name, values in rows.items()})
        for k in np.flatnonzero(~here).tolist():
            record = b"".join(np.ascontiguousarray(rows[name][k], of.dtype).tobytes() for name, of in self._of)
            small: bytes = CODEC.encode(record)
            if len(small) >= self._row:
                small = record
            at = int(slots[k]) - self._slots
            self._lengths[at], self._sums[at] = len(small), zlib.crc32(small)
            try:
                if os.pwrite(self._descriptor, small, at * self._row) < len(small):
                    raise OSError("it takes a part of a sample only")
            except OSError as error:
                raise OperatorError(
                    f"spill: the disk takes no more samples: {error}; lower its capacity, or name another directory"
                ) from error

    def read(self, slots: Array) -> dict[str, Array]:
        here = self.in_memory(slots)
        if here.all():
            return super().read(slots)
        found = {name: np.empty((len(slots), *of.shape[1:]), of.dtype) for name, of in self._of}
        for name, values in super().read(slots[here]).items():
            found[name][here] = values
        for k in np.flatnonzero(~here).tolist():
            record, begin = self._record(int(slots[k]) - self._slots), 0
            for name, of in self._of:
                end = begin + of.dtype.itemsize * found[name][k].size
                found[name][k] = np.frombuffer(record[begin:end], of.dtype).reshape(of.shape[1:])
                begin = end
        return found

    @property
    def _of(self) -> list[tuple[str, Array]]:
        return list(self.columns.items())

    def _record(self, at: int) -> bytes:
        length = int(self._lengths[at])
        small = os.pread(self._descriptor, length, at * self._row)
        if len(small) < length or zlib.crc32(small) != self._sums[at]:
            raise OperatorError("spill: a sample came back damaged from the disk; name another directory")
        return small if length == self._row else bytes(CODEC.decode(small))
