# SPDX-License-Identifier: Apache-2.0
"""Reads ``results.zarr`` for people: scalar results as series, short ones as profiles, cells as fields.

The store is read as any other reader would, while the run goes on: the controller is not asked. Rows that were read are
kept, so that a refresh costs the new ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import GroupNotFoundError

from insitu.model import Array, Extent
from insitu.results.groups import COORDINATES_OF, array_of, leading_of, rows_of

#: The result that says where an operator's bins begin and end.
EDGES = "edges"
#: Results that say where others are, and are nothing to look at.
UNSEEN = (EDGES, "column")
#: Points of one line that are shown: as many as a wide screen has.
POINTS = 1200
#: Cells of a profile: a histogram's bins, a spectrum's lines. Longer ones are fields.
PROFILE_CELLS = 4096
#: Dims whose indices are numbers of things, not places; how many bars one figure has room for.
COUNTED, BARS = ("component", "parameter", "cluster"), 64
#: The result that says whether modes grow or decay.
EIGENVALUES = "eigenvalue"
#: Rows with more bytes are not read to be looked at.
FIELD_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """One result of an operator. `shape` and `dims` are without the leading one."""

    operator: str
    name: str
    leading: str
    dims: tuple[str, ...]
    shape: Extent
    dtype: str
    units: str
    long_name: str

    @property
    def key(self) -> str:
        return f"{self.operator}.{self.name}"

    @property
    def row_bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def title(self) -> str:
        return f"{self.key} [{self.units}]" if self.units else self.key


class Store:
    """The results at `path`, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.results: dict[str, Stored] = {}
        self._path = path
        self._stamp = 0
        self._groups: dict[str, zarr.Group] = {}
        self._known: set[str] = set()
        self._series: dict[str, Array] = {}

    def refresh(self) -> bool:
        """Look what is there; return whether it is something new."""
        try:
            stamp = (self._path / "zarr.json").stat().st_mtime_ns
            if stamp == self._stamp:
                return False
            root = zarr.open_group(self._path, mode="r")
        except (OSError, GroupNotFoundError, ValueError):
            return False  # not there yet, or just being written
        self._stamp = stamp
        self._groups = {}
        for operator, group in sorted(root.groups(), key=lambda item: item[0]):
            self._groups[operator] = group
            if operator in self._known:
                continue  # what an operator yields does not change
            self._known.add(operator)
            leading = leading_of(group)
            for name in sorted(set(group.array_keys()) - set(COORDINATES_OF[leading])):
                stored = _described(operator, group, name, leading)
                self.results[stored.key] = stored
        return True

    def rows(self, stored: Stored) -> int:
        """Return how many rows a result has."""
        return rows_of(self._group(stored))

    def series(self, stored: Stored) -> dict[str, Array]:
        """Return a scalar result over all rows: `step`, `time` and `value`, thinned to about `POINTS`.

        Where there are more, each part of them is shown by its least and its largest value, so that no peak is lost.
        """
        group = self._group(stored)
        rows = rows_of(group)
        columns = {
            "step": self._steps(group, stored.operator, rows),
            "time": self._grown(group, f"{stored.operator}/time", "time", rows),
            "value": self._grown(group, stored.key, stored.name, rows),
        }
        keep = spread(columns["value"], POINTS)
        return {name: values[keep] for name, values in columns.items()}

    def together(self, operator: str, names: Sequence[str]) -> dict[str, Array]:
        """Return numbers of an operator over the same rows, and their last steps; thinned evenly to about `POINTS`."""
        group = self._groups[operator]
        rows = rows_of(group)
        keep = np.unique(np.linspace(0, max(0, rows - 1), min(rows, POINTS)).astype(int))
        found = {name: self._grown(group, f"{operator}.{name}", name, rows)[keep] for name in names}
        return found | {"step": self._steps(group, operator, rows)[keep]}

    def way(self, stored: Stored) -> dict[str, Array]:
        """Return the first two numbers of a result of each step, and the step; thinned evenly to about `POINTS`."""
        group = self._group(stored)
        rows = rows_of(group)
        keep = np.unique(np.linspace(0, max(0, rows - 1), min(rows, POINTS)).astype(int))
        values = self._grown(group, stored.key, stored.name, rows)[keep]
        steps = self._grown(group, f"{stored.operator}/step", "step", rows)[keep]
        return {"x": values[:, 0], "y": values[:, 1], "step": steps}

    def _steps(self, group: zarr.Group, operator: str, rows: int) -> Array:
        """Return the last step of each row; one without any, as where a network learns on, stands at the one before."""
        step = "step" if leading_of(group) == "step" else "last_step"
        steps = self._grown(group, f"{operator}/{step}", step, rows)
        return np.where(steps < 0, np.maximum.accumulate(steps), steps)

    def newest(self, stored: Stored) -> Array:
        """Return the newest row of a result."""
        return _newest(self._group(stored), stored.name)

    def profile(self, stored: Stored) -> tuple[Array, Array]:
        """Return the newest row of a one-dimensional result, and where its values lie."""
        group = self._group(stored)
        values = _newest(group, stored.name)
        where = np.arange(len(values), dtype=float)
        if EDGES in group and stored.name != EDGES and len(edges := _newest(group, EDGES)) == len(values) + 1:
            where = (edges[1:] + edges[:-1]) / 2
        return where, np.asarray(values, float)

    def field(self, stored: Stored, at: int, most: int) -> Array:
        """Return the newest row of a two-dimensional result, or of a three-dimensional one at `at`, thinned.

        Of complex numbers it is the real part.
        """
        shape = stored.shape[-2:]
        stride = 1
        while prod(-(-n // stride) for n in shape) > most:
            stride += 1
        values = _newest(self._group(stored), stored.name, *((at,) if len(stored.shape) > 2 else ()))
        return np.asarray(values[::stride, ::stride].real, np.float32)

    def _group(self, stored: Stored) -> zarr.Group:
        return self._groups[stored.operator]

    def _grown(self, group: zarr.Group, key: str, name: str, rows: int) -> Array:
        """Return a column of `rows` rows, of which only those are read that were not there before."""
        before = self._series.get(key, np.empty(0))
        if len(before) < rows:
            new = np.asarray(array_of(group, name)[len(before) : rows], float)
            before = self._series[key] = np.concatenate([before, new]) if len(before) else new
        return before[:rows]


def kind_of(stored: Stored) -> str:
    """Say how a result is shown, or with an empty text that it is not.

    A number over the steps is a ``series``, a few numbers for each step are a way in the ``plane`` of the first two.
    Of one dimension, numbers that are counted off (components, parameters) are ``bars``, others a ``profile``;
    eigenvalues lie about the unit ``circle``. More dimensions are a ``field``.

    >>> kind_of(Stored("spread", "counts", "window", ("bin",), (64,), "int64", "", ""))
    'profile'
    >>> kind_of(Stored("modes", "energy", "window", ("component",), (8,), "float64", "1", ""))
    'bars'
    """
    dims, shape, complex_ = stored.dims, stored.shape, np.dtype(stored.dtype).kind == "c"
    if np.dtype(stored.dtype).kind not in "biufc" or stored.name in UNSEEN:
        return ""
    if len(shape) < 2 and complex_:
        return "circle" if stored.name == EIGENVALUES and shape else ""
    if not shape:
        return "series"
    if len(shape) == 1 and shape[0] <= PROFILE_CELLS:
        if stored.leading == "step" and dims[0] == "component" and shape[0] > 1:
            return "plane"
        return "bars" if dims[0] in COUNTED and shape[0] <= BARS else "profile"
    small = prod(shape[-2:]) * np.dtype(stored.dtype).itemsize <= FIELD_BYTES
    return "field" if len(shape) in (2, 3) and small else ""


def spread(values: Array, points: int) -> Array:
    """Return the indices of about `points` values that show where the line goes: the extremes of each part.

    >>> spread(np.array([0.0, 9, 0, 0, 0, 0, -9, 0]), 4)
    array([0, 1, 4, 6])
    """
    if len(values) <= points:
        return np.arange(len(values))
    parts = np.array_split(np.arange(len(values)), points // 2)
    finite = np.where(np.isfinite(values), values, 0.0)
    found = {int(part[pick(finite[part])]) for part in parts for pick in (np.argmin, np.argmax)}
    return np.array(sorted(found))


def _described(operator: str, group: zarr.Group, name: str, leading: str) -> Stored:
    array = array_of(group, name)
    metadata: Any = array.metadata
    dims = tuple(str(dim) for dim in metadata.dimension_names[1:])
    attrs = array.attrs
    return Stored(
        operator,
        name,
        leading,
        dims,
        tuple(array.shape[1:]),
        str(array.dtype),
        str(attrs.get("units", "")),
        str(attrs.get("long_name", "")),
    )


def _newest(group: zarr.Group, name: str, *at: int) -> Array:
    array = array_of(group, name)
    return np.asarray(array[(array.shape[0] - 1, *at)])
