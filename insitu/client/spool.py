# SPDX-License-Identifier: Apache-2.0
"""Steps of one rank on the disk of its node: first in, first out, within a number of bytes.

The file has no name: it is gone with the process, however that ends (`tempfile.TemporaryFile`). So nothing in it has to
be found again by anybody, and what it holds stands in this process's memory. It is used as a ring, and emptied when the
last step has left it. Each record has a checksum, for a disk may give back something else than it was given.
"""

import os
import tempfile
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Any

import numpy as np

from insitu.client.cutting import Filled
from insitu.errors import RunError
from insitu.model import Array, Extent, Step
from insitu.wire.blocks import BlockSpec

#: Steps that are brought back from the disk at one look: one would only make up for the one that is put meanwhile.
UNSPILLED = 2


@dataclass(frozen=True, slots=True)
class Record:
    """A step in the file; of each block its place in the variable, the number of that place, and its extent."""

    step: Step
    blocks: tuple[tuple[BlockSpec, int, Extent], ...]
    offset: int
    nbytes: int
    crc: int

    @property
    def end(self) -> int:
        return self.offset + _size(self.nbytes)


class Spool:
    """At most `limit_bytes` of steps in `directory` (empty: that of the system for temporary files).

    Raises `RunError` where no file can be had there. Costs the disk's time for each `push` and each `read`; the system
    usually keeps what was written in memory until it needs that.
    """

    def __init__(self, directory: str, limit_bytes: int) -> None:
        self.directory = directory or tempfile.gettempdir()
        self.limit_bytes = limit_bytes
        #: Why the last `push` failed, and what was pushed so far.
        self.why = ""
        self.counters = {"spilled": 0, "spilled_bytes": 0, "spill_peak_bytes": 0}
        self._records: deque[Record] = deque()
        self._spare: dict[str, Array] = {}
        try:
            self._file = tempfile.TemporaryFile(dir=self.directory, prefix="insitu-", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise RunError(
                f"Steps cannot be spilled to {self.directory} on this machine ({error.strerror}); name a folder of its "
                "own disk: variables.'*'.spill_directory."
            ) from error

    def __len__(self) -> int:
        return len(self._records)

    @property
    def nbytes(self) -> int:
        """The bytes of the steps that are here."""
        return sum(record.nbytes for record in self._records)

    @property
    def first(self) -> Record | None:
        """The oldest step."""
        return self._records[0] if self._records else None

    @property
    def steps(self) -> list[Step]:
        return [record.step for record in self._records]

    def has_left(self, before: int) -> bool:
        """Whether fewer steps are here than `before`."""
        return len(self) < before

    def spare(self, name: str, count: Extent, dtype: np.dtype[Any]) -> Array:
        """Return memory for a block on its way to the file: the same for each step, until the last one has left."""
        spare = self._spare.get(name)
        if spare is None or spare.shape != count or spare.dtype != dtype:
            spare = self._spare[name] = np.empty(count, dtype)
        return spare

    def push(self, step: Step, blocks: Sequence[Filled]) -> bool:
        """Write a step, whole or not at all; return whether it is here. `why` tells what is wrong where it is not."""
        nbytes = sum(block.data.nbytes for block in blocks)
        offset = self._room(nbytes)
        if offset is None:
            self.why = f"the {self.limit_bytes} bytes of its spill are full"
            return False
        crc, place = 0, offset
        try:
            for block in blocks:
                data = _bytes_of(block.data)
                crc = zlib.crc32(data, crc)
                _write(self._file.fileno(), data, place)
                place += len(data)
        except OSError as error:
            self.why = f"its spill in {self.directory} takes no more ({error.strerror})"
            return False
        kept = tuple((block.spec, block.spec_id, block.data.shape) for block in blocks)
        self._records.append(Record(step, kept, offset, nbytes, crc))
        self.counters["spilled"] += 1
        self.counters["spilled_bytes"] += nbytes
        self.counters["spill_peak_bytes"] = max(self.counters["spill_peak_bytes"], self.nbytes)
        return True

    def read(self, into: Iterable[Array]) -> bool:
        """Read the oldest step's blocks into these arrays; return whether they are what was written."""
        record, crc = self._records[0], 0
        place = record.offset
        for array in into:
            data = _bytes_of(array)
            if not _read(self._file, data, place):
                return False
            crc = zlib.crc32(data, crc)
            place += len(data)
        return crc == record.crc

    def forget(self, sequence: int) -> bool:
        """Let go of a step, whether it was read or not; return whether it was here."""
        before = len(self._records)
        self._records = deque(record for record in self._records if record.step.sequence != sequence)
        if not self._records:
            self._spare.clear()
            os.ftruncate(self._file.fileno(), 0)
        return len(self._records) < before

    def close(self) -> None:
        """Let go of the file, and of what is in it. May be called twice."""
        self._file.close()

    def _room(self, nbytes: int) -> int | None:
        """Return where `nbytes` in one piece are free."""
        size = _size(nbytes)
        if not self._records:
            return 0 if size <= self.limit_bytes else None
        head, last = self._records[0].offset, self._records[-1]
        if last.offset < head:
            return last.end if last.end + size <= head else None
        if last.end + size <= self.limit_bytes:
            return last.end
        return 0 if size <= head else None


def _size(nbytes: int) -> int:
    """A step without any cell takes a byte too: so no two begin at the same place, and the last tells where all end."""
    return max(1, nbytes)


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of it; the system may take less than it is given."""
    while len(data):
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _read(file: FileIO, data: memoryview, offset: int) -> bool:
    """Fill `data`; return whether there was as much. (`os.preadv` would do without a seek, and is not everywhere.)"""
    try:
        file.seek(offset)
        while len(data):
            read = file.readinto(data)
            if not read:
                return False
            data = data[read:]
    except OSError:  # the disk cannot give it back
        return False
    return True
