# SPDX-License-Identifier: Apache-2.0
"""What a network learns from: samples, and the memory that holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from insitu.errors import OperatorError
from insitu.model import Array, Extent

#: Names a sample wherever it goes: its number in the ledger.
Ids = npt.NDArray[np.uint32]

#: One row of each column for each sample.
Rows = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes of one sample; without targets, the inputs are the targets (an autoencoder)."""

    inputs: Extent
    targets: Extent | None = None
    #: Class numbers are integers; everything else is float32.
    classes: bool = False

    @property
    def columns(self) -> dict[str, tuple[Extent, np.dtype[np.generic]]]:
        found: dict[str, tuple[Extent, np.dtype[np.generic]]] = {"inputs": (self.inputs, np.dtype(np.float32))}
        if self.targets is not None:
            found["targets"] = (self.targets, np.dtype(np.int64 if self.classes else np.float32))
        return found


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples as they come off the stream, with where each is from.

    `inputs` is (n, *inputs), `targets` (n, *targets) or ``None`` where the inputs are the targets; `member`, `step` (a
    sequence) and `place` (whatever tells the samples of a step apart) are (n,) integers, or one for all.
    """

    inputs: Array
    targets: Array | None = None
    member: Array | int = 0
    step: Array | int = 0
    place: Array | int = 0

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, which: slice | Array) -> "Samples":
        """Return some of them: ``samples[taken:]`` is what `put` has left."""
        of = (self.member, self.step, self.place)
        member, step, place = (part if isinstance(part, int) else part[which] for part in of)
        targets = None if self.targets is None else self.targets[which]
        return Samples(self.inputs[which], targets, member, step, place)

    def rows(self, shapes: Shapes) -> dict[str, Array]:
        """Return the values as columns; `OperatorError` where they are not of these shapes."""
        found = {"inputs": self.inputs} | ({} if self.targets is None else {"targets": self.targets})
        if set(found) != set(shapes.columns):
            raise OperatorError(f"samples have {' and '.join(found)}, and {' and '.join(shapes.columns)} were expected")
        for name, (shape, dtype) in shapes.columns.items():
            if found[name].shape != (len(self), *shape):
                raise OperatorError(
                    f"{name} of {len(self)} samples have shape {found[name].shape}, expected {(len(self), *shape)}"
                )
            # What is too large for float32 becomes infinite, and is refused as that.
            with np.errstate(over="ignore", invalid="ignore"):
                narrowed = np.asarray(found[name], dtype)
            if dtype.kind == "i" and not np.array_equal(narrowed, found[name]):
                raise OperatorError(f"{name} are numbers of classes, and not all of them are whole")
            found[name] = narrowed
        return found

    def origins(self) -> Array:
        """Return (n, 3) int64: member, step and place of each."""
        origins = np.empty((len(self), 3), np.int64)
        for k, column in enumerate((self.member, self.step, self.place)):
            origins[:, k] = column
        return origins


def joined(parts: Sequence[Samples]) -> Samples:
    """Return samples of several steps, one after the other.

    >>> joined([Samples(np.zeros((2, 3)), step=4), Samples(np.ones((1, 3)), step=5)]).step
    array([4, 4, 5])
    """
    if len(parts) == 1:
        return parts[0]
    origins = [np.concatenate([part.origins()[:, k] for part in parts]) for k in range(3)]
    targets = [part.targets for part in parts if part.targets is not None]
    member, step, place = origins
    inputs = np.concatenate([part.inputs for part in parts])
    return Samples(inputs, np.concatenate(targets) if targets else None, member, step, place)


class Storage:
    """Rows of several columns in preallocated, contiguous memory, so that a batch is one gather of each column."""

    def __init__(self, columns: Mapping[str, tuple[Extent, np.dtype[np.generic]]], slots: int) -> None:
        self.columns = {name: np.empty((slots, *shape), dtype) for name, (shape, dtype) in columns.items()}

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self.columns.values())

    @property
    def spilled_nbytes(self) -> int:
        """Bytes that lie on a disk; none here."""
        return 0

    def in_memory(self, slots: Array) -> Array:
        """Return of each slot whether it is in memory, (n,) bool."""
        return np.ones(len(slots), bool)

    def write(self, slots: Array, rows: Rows) -> None:
        for name, column in self.columns.items():
            column[slots] = rows[name]

    def read(self, slots: Array) -> dict[str, Array]:
        return {name: column[slots] for name, column in self.columns.items()}


def row_nbytes(columns: Mapping[str, tuple[Extent, np.dtype[np.generic]]]) -> int:
    """Return the bytes that one sample takes."""
    return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in columns.values())
