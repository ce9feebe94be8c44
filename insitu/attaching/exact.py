# SPDX-License-Identifier: Apache-2.0
"""Retained steps of a run, read exactly: which there are, and their cells, put together from all staging nodes.

What is retained of a step on only some nodes is no step: one is read in two parts. First all nodes agree on a step,
which costs next to nothing and keeps it for a moment; then its cells are fetched, of a large field in pieces. Where one
node has let go of the step meanwhile, there is nothing of it, never a part.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from operator import index
from typing import Any

import numpy as np
import xarray as xr

from insitu.attaching.asking import Asking
from insitu.dashboard.pictures import ranges_of
from insitu.errors import LocalProtocolError, RunError
from insitu.model import Array, Step, Variable
from insitu.selection import selected
from insitu.wire.blocks import Range
from insitu.wire.viewing import Sight

#: Which cells are wanted: of some dims the one index, or a slice with a positive step.
Select = Mapping[str, int | slice]
#: Variables of one step, by name.
Arrays = dict[str, xr.DataArray]

#: A field is fetched in pieces of so many bytes: a node says nothing else to its controller while it sends one.
PIECE_BYTES = 4 << 20
#: How often steps that were there are read again where they had gone when their cells were asked for.
TRIES = 5


def checked(select: Mapping[str, Any] | None) -> Select:
    """Return what is selected, in plain Python.

    Raises `LocalProtocolError` for what is neither an index nor a slice with a positive step.
    """
    found: dict[str, int | slice] = {}
    for dim, which in (select or {}).items():
        try:
            bounds = (which.start, which.stop, which.step) if isinstance(which, slice) else (which,)
            whole = [None if bound is None and isinstance(which, slice) else index(bound) for bound in bounds]
        except TypeError:
            raise LocalProtocolError(f"select: '{dim}' takes an index or a slice, got {which!r}.") from None
        if len(whole) == 3 and whole[2] is not None and whole[2] < 1:
            raise LocalProtocolError(f"select: '{dim}' takes a slice with a positive step, got {which!r}.")
        found[dim] = slice(*whole) if len(whole) == 3 else whole[0] or 0
    return found


class Exact:
    """The retained steps of a run, in the order of their sequence."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._known: dict[str, Variable] = {}

    def listed(self, names: Sequence[str], deadline: float) -> list[tuple[int, int]]:
        """Return the sequence and the index of each step of which all nodes have retained all of these variables.

        Raises `LocalProtocolError` where the run retains nothing, with the reason, and as `Asking.look` does.
        """
        found: dict[int, int] | None = None
        for name in names:
            parts = self._asking.look(name, (), 0, None, deadline)
            _require_seen(name, parts)
            self._learn(name, parts)
            told = [
                np.frombuffer(buffer, np.int64).reshape(-1, 3).tolist() for part in parts for buffer in part.buffers
            ]
            common = set.intersection(*({sequence for sequence, _, _ in rows} for rows in told))
            here = {sequence: index for rows in told for sequence, index, has in rows if has}
            found = {
                sequence: index
                for sequence, index in here.items()
                if sequence in common and (found is None or sequence in found)
            }
        return sorted((found or {}).items())

    def recent(self, names: Sequence[str], select: Select, which: slice, deadline: float) -> list[Arrays]:
        """Return those of the retained steps that `which` takes of them, oldest first.

        Raises `RunError` where they go faster than they can be read, and as `listed` does.
        """
        for _ in range(TRIES):
            wanted = self.listed(names, deadline)[which]
            found = [self.read(names, select, sequence, deadline) for sequence, _ in wanted]
            if all(each is not None for each in found):
                return [each for each in found if each is not None]
        raise RunError(
            f"Run '{self._asking.run}': steps of {_named(names)} are gone before they are read; select less of them, "
            "or raise staging.retain."
        )

    def newest(self, names: Sequence[str], select: Select, since: int, deadline: float) -> tuple[int, Arrays]:
        """Return the newest retained step since a sequence, and its sequence; wait for one where there is none.

        Raises as `first` does.
        """
        newer = [sequence for sequence, _ in self.listed(names, deadline) if sequence >= since]
        found = self.read(names, select, newer[-1], deadline) if newer else None
        if found is not None:
            return newer[-1], found
        return self.first(names, select, newer[-1] + 1 if newer else since, deadline)

    def first(self, names: Sequence[str], select: Select, since: int, deadline: float) -> tuple[int, Arrays]:
        """Wait for the first step since a sequence that all nodes have retained, and return its sequence and the step.

        Raises `TimeoutError` where none comes until `deadline`, and as `listed` does.
        """
        while True:
            agreed = since
            for name in names:
                agreed = self._agreed(name, agreed, deadline)
            if agreed > since and len(names) > 1:  # the first of them may not have that one
                since = agreed
                continue
            found = self.read(names, select, agreed, deadline)
            if found is not None:
                return agreed, found
            since = agreed + 1

    def read(self, names: Sequence[str], select: Select, sequence: int, deadline: float) -> Arrays | None:
        """Return one step of some variables; ``None`` where a node has not all of it, or no more."""
        arrays: Arrays = {}
        for name in names:
            array = self._array(name, select, sequence, deadline)
            if array is None:
                return None
            arrays[name] = array
        return arrays

    def _agreed(self, name: str, since: int, deadline: float) -> int:
        """Wait for the first step since a sequence of which all nodes have retained their parts of a variable."""
        while True:
            parts = self._asking.look(name, (), 1, since, deadline)
            _require_seen(name, parts)
            self._learn(name, parts)
            newest = max(part.sequence for part in parts)
            if any(part.sequence != newest for part in parts):
                since = newest
            elif all(part.variable is None for part in parts):
                since = newest + 1
            else:
                return newest

    def _learn(self, name: str, parts: Sequence[Sight]) -> None:
        """Note what a variable is like by now."""
        for part in parts:
            if part.variable is not None:
                self._known[name] = part.variable

    def _array(self, name: str, select: Select, sequence: int, deadline: float) -> xr.DataArray | None:
        if name not in self._known:
            self.listed([name], deadline)
        variable = self._known.get(name)
        if variable is None:
            return None
        ranges = ranges_of(select)
        answers: list[tuple[int, list[Sight]]] = []
        for low, piece in _pieces(variable, ranges):
            parts = self._asking.look(name, piece, None, sequence, deadline)
            _require_seen(name, parts)
            self._learn(name, parts)
            if self._known[name] != variable or any(part.sequence != sequence for part in parts):
                return None
            if all(part.variable is None for part in parts):
                return None
            answers.append((low, parts))
        return _whole(variable, ranges, select, answers)


def _require_seen(name: str, parts: Sequence[Sight]) -> None:
    why = next((part.why for part in parts if part.why), "")
    if why:
        raise LocalProtocolError(f"'{name}' cannot be seen exactly: {why}.")


def _pieces(variable: Variable, ranges: tuple[Range, ...]) -> Iterator[tuple[int, tuple[Range, ...]]]:
    """Say for each piece of what is selected of a variable where it begins along the first dim, and what to ask for."""
    left = selected(variable, ranges).shape
    if not left or not all(left):  # a single number, rows of a joined variable, or what the nodes find wrong
        yield 0, ranges
        return
    row_bytes = max(1, prod(left[1:]) * variable.dtype.itemsize)
    rows, dim = max(1, PIECE_BYTES // row_bytes), variable.dims[0]
    chosen = next((one for one in ranges if one.dim == dim), Range(dim, None, None, 1))
    assert variable.shape is not None
    cells = range(*slice(chosen.start, chosen.stop, chosen.step).indices(variable.shape[0]))
    for low in range(0, len(cells), rows):
        part = cells[low : low + rows]
        others = tuple(one for one in ranges if one.dim != dim)
        yield low, (Range(dim, part[0], part[-1] + 1, part.step), *others)


def _whole(
    variable: Variable, ranges: tuple[Range, ...], select: Select, answers: list[tuple[int, list[Sight]]]
) -> xr.DataArray | None:
    """Put pieces together; ``None`` where they do not make up all that was selected."""
    pieces = [
        ((low, *([0] * (variable.ndim - 1))), start, np.frombuffer(buffer, variable.dtype).reshape(count))
        for low, parts in answers
        for part in parts
        for (start, count), buffer in zip(part.pieces, part.buffers, strict=True)
    ]
    first = next(part for _, parts in answers for part in parts if part.variable is not None)
    step = Step(first.sequence, first.index, first.time)
    if variable.shape is None:
        none = np.empty((0, *selected(variable, ranges).row), variable.dtype)
        return _labelled(variable, step, np.concatenate([none, *(data for _, _, data in pieces)]), ranges, select)
    values = np.empty(selected(variable, ranges).shape or (), variable.dtype)
    cells = 0
    for low, start, data in pieces:
        begin = [offset + at for offset, at in zip(low, start, strict=False)]
        values[tuple(slice(at, at + n) for at, n in zip(begin, data.shape, strict=True))] = data
        cells += data.size
    return _labelled(variable, step, values, ranges, select) if cells == values.size else None


def _labelled(variable: Variable, step: Step, values: Array, ranges: tuple[Range, ...], select: Select) -> xr.DataArray:
    """Name dims and cells: the coordinates are indices. A joined variable's rows have none."""
    coords: dict[str, object] = {"step": step.index, "time": step.time}
    if variable.shape is not None:
        by_dim = {one.dim: one for one in ranges}
        for dim, length in zip(variable.dims, variable.shape, strict=True):
            one = by_dim.get(dim, Range(dim, None, None, 1))
            coords[dim] = (dim, np.arange(length)[slice(one.start, one.stop, one.step)])
    attrs = {key: value for key in ("units", "long_name") if (value := getattr(variable, key))}
    array = xr.DataArray(values, coords, variable.dims, variable.name, attrs)
    return array.squeeze([dim for dim, which in select.items() if isinstance(which, int)])


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
