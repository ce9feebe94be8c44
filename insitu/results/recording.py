# SPDX-License-Identifier: Apache-2.0
"""``recording.zarr``: the blocks of a run as they came, written by the staging nodes, each in a group of its own.

::

    node-0/                      what came to staging node 0; attribute ``steps``: how many of its steps are whole
        index, time, elapsed     of each step, by its sequence: index, physical time, seconds since the first one came
        var-u/                   a variable, with all that is known of it in its attributes
            rank-1.0/            blocks of rank 1 of one shape; where the shape changes, rank-1.1 and so on
                data             one block for each row
                index            of each row: sequence, count, start

**Rows.** A large block is a chunk of its own. Small ones share a chunk, or there would be more files than a file system
likes. A joined block lies in as many rows as the next power of two, for its number changes from step to step.

**Whole or not at all.** What belongs to a step is written before ``steps`` counts it, and each file is replaced in one
go. So what a crash or a full disk leaves is a recording of the steps before.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from insitu.model import Array, Block, Extent, Step, Variable
from insitu.results.chunks import SERIES_ROWS, rows_per_chunk
from insitu.results.store import grown, writing

#: Says that a store is a recording, and how it is to be read.
FORMAT = {"insitu_recording": 1}

Group = zarr.Group


def create_recording(path: Path, nodes: int) -> None:
    """Start a recording that `nodes` staging nodes will write. Raises `RunError` where the disk does not take it."""
    with writing("the recording", path):
        zarr.create_group(path, attributes={**FORMAT, "nodes": nodes}, zarr_format=3)


def group_of(node: int) -> str:
    return f"node-{node}"


class RecordingWriter:
    """What one staging node adds to the recording at `path`, of a simulation of `ranks` ranks. For one thread.

    Small blocks are copied and wait until they fill a chunk; more than `limit_bytes` of them never wait. All raise
    `RunError` where the disk does not take it; then nothing more may be written.
    """

    def __init__(self, path: Path, node: int, ranks: int, limit_bytes: int) -> None:
        self.nbytes = 0
        self.steps = 0
        self._limit_bytes = limit_bytes
        self._path = path
        with writing("the recording", path):
            self._group = zarr.create_group(path, path=group_of(node), attributes={"ranks": ranks, "steps": 0})
            self._of_steps = {
                "index": _array(self._group, "index", (), np.dtype("i8")),
                "time": _array(self._group, "time", (), np.dtype("f8")),
                "elapsed": _array(self._group, "elapsed", (), np.dtype("f8")),
            }
        self._new: list[tuple[int, float, float]] = []
        self._variables: dict[str, Group] = {}
        self._rows: dict[tuple[str, int, Extent], _Rows] = {}

    def write(self, step: Step, blocks: Mapping[int, Mapping[str, Block]], elapsed_s: float) -> None:
        """Add the next step: of each rank its blocks. The blocks may be changed when this returns."""
        with writing("the recording", self._path):
            for rank, parts in blocks.items():
                for block in parts.values():
                    self._rows_for(rank, block).add(step.sequence, block)
                    self.nbytes += block.data.nbytes
            self._new.append((step.index, step.time, elapsed_s))
            if sum(rows.waiting_bytes for rows in self._rows.values()) > self._limit_bytes:
                for rows in self._rows.values():
                    rows.flush()

    def commit(self) -> None:
        """Make all that was added part of the recording."""
        if not self._new:
            return
        with writing("the recording", self._path):
            for rows in self._rows.values():
                rows.commit()
            for column, (name, array) in enumerate(self._of_steps.items()):
                values = np.array([row[column] for row in self._new], "i8" if name == "index" else "f8")
                _append(array, self.steps, values)
            self._group.update_attributes({"steps": self.steps + len(self._new)})
        self.steps += len(self._new)
        self._new = []

    def _rows_for(self, rank: int, block: Block) -> "_Rows":
        name = block.variable.name
        key = (name, rank, _room(block))
        if key not in self._rows:
            if name not in self._variables:
                about = {**asdict(block.variable), "dtype": block.variable.dtype.str}
                self._variables[name] = self._group.create_group(_quoted(name), attributes=about)
            number = sum(key[:2] == (name, rank) for key in self._rows)
            group = self._variables[name].create_group(f"rank-{rank}.{number}", attributes={"rank": rank})
            self._rows[key] = _Rows(group, key[2], block.variable)
        return self._rows[key]


class _Rows:
    """Blocks of one rank and variable that have room in arrays of shape `room`."""

    def __init__(self, group: Group, room: Extent, variable: Variable) -> None:
        self._room = room
        self._per_chunk = rows_per_chunk(room, variable.dtype.itemsize)
        self._data = _array(group, "data", room, variable.dtype, self._per_chunk)
        self._index = _array(group, "index", (1 + 2 * variable.ndim,), np.dtype("i8"))
        self._written = 0
        self._waiting: list[Array] = []
        self._indexed = 0
        self._new: list[tuple[int, ...]] = []

    @property
    def waiting_bytes(self) -> int:
        return sum(data.nbytes for data in self._waiting)

    def add(self, sequence: int, block: Block) -> None:
        self._new.append((sequence, *block.count, *block.start))
        data = block.data
        if block.count != self._room or self._per_chunk > 1:
            data = np.zeros(self._room, block.data.dtype)
            data[tuple(slice(0, n) for n in block.count)] = block.data
        self._waiting.append(data)
        if (self._written + len(self._waiting)) % self._per_chunk == 0:
            self.flush()

    def flush(self) -> None:
        """Write what waits, also where it fills no chunk: that one is then read and written again later."""
        if self._waiting:
            rows = self._waiting[0][np.newaxis] if len(self._waiting) == 1 else np.stack(self._waiting)
            _append(self._data, self._written, rows)
            self._written += len(self._waiting)
            self._waiting = []

    def commit(self) -> None:
        self.flush()
        if self._new:
            _append(self._index, self._indexed, np.array(self._new, "i8"))
            self._indexed += len(self._new)
            self._new = []


def _room(block: Block) -> Extent:
    """Return the shape of a row for a block: at least one cell, and for a joined one a power of two."""
    lengths = [max(1, length) for length in block.count]
    if block.variable.joined:
        lengths[0] = 1 << (lengths[0] - 1).bit_length()
    return tuple(lengths)


def _quoted(name: str) -> str:
    """Return a name for a group: a variable's may hold slashes, or begin as Zarr's own names do."""
    return f"var-{quote(name, safe=' ')}"


def _array(group: Group, name: str, row: Extent, dtype: np.dtype[Any], per_chunk: int = SERIES_ROWS) -> zarr.Array[Any]:
    return group.create_array(
        name,
        shape=(0, *row),
        chunks=(per_chunk, *row),
        dtype=dtype,
        # Values of a simulation shrink little, but rows that are padded and chunks that are not full do.
        compressors=ZstdCodec(level=1),
        # A chunk of zeros would not be written, and -0.0 come back as 0.0.
        config={"write_empty_chunks": True},
    )


def _append(array: zarr.Array[Any], first: int, rows: Array) -> None:
    grown(array, first + len(rows))[first:] = rows
    array.resize((first + len(rows), *array.shape[1:]))


def files_of(path: Path) -> tuple[int, int]:
    """Return how many files a recording has, and their bytes."""
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    return len(sizes), sum(sizes)
