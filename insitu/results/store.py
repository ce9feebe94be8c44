# SPDX-License-Identifier: Apache-2.0
"""``results.zarr``: the results of a run as a Zarr v3 store that xarray opens while the run goes on.

One group per operator (`insitu.results.groups`). Opens with ``xarray.open_datatree(path, engine="zarr")`` or
``xarray.open_zarr(path, group="stats")``.

**No reader ever sees a hole.** Rows are written beyond the end of their arrays first and the arrays' shapes are grown
afterwards; each file is replaced in one go. Many arrays grow one after the other, so the shapes of all of them are also
kept in the root's consolidated metadata, which is written last: whoever opens the store through it (xarray does so by
itself) sees all arrays of all groups at one moment. With ``consolidated=False`` xarray may meet two arrays of different
lengths while a row is being shown, and says so; opening it again helps. What a crash leaves beyond the end is
overwritten by the next row.

**One writer.** Rows are shown by one process, the controller. The parts of a large row may be written by others before
(`write_slab`), each chunk by one of them.
"""

import errno
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.group import GroupMetadata
from zarr.errors import ZarrUserWarning

from insitu.errors import OperatorError, RunError
from insitu.learner import Learner
from insitu.model import Array, Variable
from insitu.operator import Operator
from insitu.results import Provenance, Result
from insitu.results.chunks import Slab
from insitu.results.groups import (
    COORDINATES_OF,
    array_of,
    create_group,
    entry_of,
    known_of,
    leading_of,
    make_group,
    rows_of,
)

CURES = {
    errno.ENOSPC: "Free some space there",
    errno.EDQUOT: "Free some of your quota there",
    errno.EACCES: "Ask for permission to write there",
    errno.EPERM: "Ask for permission to write there",
    errno.EROFS: "That file system is read-only: have it mounted for writing",
}


class ResultStore:
    """The results of one run, at `path`. Not to be shared by threads.

    `create` starts a new store, `open` continues one; `declare` says what an operator yields, once, before its first
    row; `append` adds rows. Appending costs some milliseconds per array of the operator, however many rows it adds:
    small ones are best appended together. Showing them costs a tenth of a millisecond per array of the whole store:
    groups and rows of several operators are best added with ``show=False``, and shown by `show` together. All raise
    `RunError` where the disk does not take it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hidden = False
        self._root = self._consolidated()

    @classmethod
    def create(cls, path: Path, attrs: Mapping[str, Any]) -> "ResultStore":
        """Start a store whose root holds `attrs`, in the types of JSON. Nothing may be at `path` yet."""
        if path.exists():
            raise RunError(f"{path} exists already and results are never overwritten. Take another run directory.")
        with writing("results", path):
            zarr.create_group(path, attributes={"Conventions": "CF-1.11", **attrs})
            return cls(path)

    @classmethod
    def open(cls, path: Path) -> "ResultStore":
        """Continue a store, after a crash as well: rows that were not shown whole are taken back."""
        if not (path / "zarr.json").is_file():
            raise RunError(f"{path} holds no results. Give the results.zarr of a run directory.")
        with writing("results", path):
            for _, group in zarr.open_group(path, mode="r+", use_consolidated=False).groups():
                arrays = dict(group.arrays())
                rows = next(arrays[leading].shape[0] for leading in COORDINATES_OF if leading in arrays)
                for array in arrays.values():
                    array.resize((rows, *array.shape[1:]))
            return cls(path)

    def declare(
        self, name: str, operator: Operator, inputs: Mapping[str, Variable], attrs: Mapping[str, Any],
        *, show: bool = True,
    ) -> dict[str, Variable]:  # fmt: skip
        """Make room for the results of operator `name` over `inputs`; return what `Operator.describe` says of them.

        The group's attributes hold the operator's configuration as JSON beside `attrs`. Raises `OperatorError` for
        results that cannot be stored side by side.
        """
        with writing(f"the results of operator '{name}'", self._path):
            described, made = create_group(self._path, name, operator, inputs, attrs)
            self._add(name, made, show)
        return described

    def declare_group(
        self,
        name: str,
        leading: str,
        operator: Operator | Learner,
        described: Mapping[str, Variable],
        attrs: Mapping[str, Any],
        *,
        show: bool = True,
    ) -> None:
        """Make a group `name` for what `operator` yields beside or without what its `describe` says."""
        with writing(f"the results of '{name}'", self._path):
            operator_attrs = {"operator": entry_of(operator), **attrs}
            self._add(name, make_group(self._path, name, leading, described, (), operator_attrs), show)

    def rows(self, name: str) -> int:
        """Return how many rows of operator `name` are shown."""
        return rows_of(self._group(name))

    def append(self, results: Sequence[Result], *, show: bool = True) -> None:
        """Add rows of one operator, in order, and show them together, now or with the next `show`.

        Raises `OperatorError` where their arrays are not what was declared.
        """
        name = results[0].operator
        group = self._group(name)
        first = rows_of(group)
        with writing(f"the results of operator '{name}'", self._path):
            for key in _declared(group):
                array = array_of(group, key)
                rows = np.stack([_checked(result, key, array) for result in results])
                grown(array, first + len(rows))[first:] = rows
        self.publish(name, [result.provenance for result in results], show=show)

    def publish(self, name: str, provenances: Sequence[Provenance], *, show: bool = True) -> None:
        """Add the next rows of operator `name`, whose arrays `write_slab` has written, and show them as `append` does.

        What nobody wrote reads as NaN, or as zero in an array of integers: so a window without any step, or one that
        was lost, is published too.
        """
        group = self._group(name)
        first, leading = rows_of(group), leading_of(group)
        rows = first + len(provenances)
        with writing(f"the results of operator '{name}'", self._path):
            for key in _declared(group):
                _resize(group, key, rows)
            for key in COORDINATES_OF[leading]:
                field = "index" if key == leading else key
                array = array_of(group, key)
                grown(array, rows)[first:] = np.array([getattr(each, field) for each in provenances], array.dtype)
                _resize(group, key, rows)
            self._hidden = True
            if show:
                self.show()

    def show(self) -> None:
        """Show all groups and rows that were added; nothing happens where all are shown."""
        if self._hidden:
            with writing("results", self._path):
                self._root.update_attributes({})  # writes the root's file, the arrays' metadata with it
            self._hidden = False

    def _add(self, name: str, made: GroupMetadata, show: bool) -> None:
        """Take the metadata of a new group into the root's; to have all of them read again takes longer each time."""
        known_of(self._root)[name] = made
        self._hidden = True
        if show:
            self.show()

    def _group(self, name: str) -> zarr.Group:
        group = self._root[name]
        assert isinstance(group, zarr.Group)
        return group

    def _consolidated(self) -> zarr.Group:
        """Write the metadata of all arrays into the root's, in one file: now readers see them."""
        with warnings.catch_warnings():
            # It warns that consolidated metadata are not in the specification. Those who know none read all the same.
            warnings.simplefilter("ignore", ZarrUserWarning)
            return zarr.consolidate_metadata(self._path)


def write_slab(path: Path, name: str, result: str, row: int, slab: Slab, values: Array) -> None:
    """Write one slab of a window's `result` of operator `name`, as row `row`, which is not shown yet.

    May be called in any process that reaches `path`, for different slabs at once: `slab` is one of
    `insitu.results.chunks.slabs`. Writing the same slab again replaces it. Raises `RunError` as the store does.
    """
    with writing(f"the results of operator '{name}'", path):
        array = zarr.open_array(path, path=f"{name}/{result}", mode="r+")
        grown(array, row + 1)[(slice(row, row + 1), *slab)] = values[np.newaxis]


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors into a sentence."""
    try:
        with zarr.config.set(json_indent=None):  # without, Python's encoder in C writes it, ten times as fast
            yield
    except OSError as error:
        cure = CURES.get(error.errno or 0, "See whether that file system is well")
        raise RunError(
            f"Cannot write {what} to {path}: {error.strerror or error}. {cure}, or choose another directory for runs."
        ) from error


def _declared(group: zarr.Group) -> list[str]:
    """Name the arrays of a group that are no coordinates."""
    return sorted(known_of(group).keys() - COORDINATES_OF[leading_of(group)])


def grown(array: zarr.Array[Any], rows: int) -> zarr.Array[Any]:
    """Return the array as if it had `rows` rows; the one on disk stays as it is."""
    inner = array.async_array
    metadata = inner.metadata.update_shape((rows, *array.shape[1:]))
    return zarr.Array(zarr.AsyncArray(metadata, inner.store_path, inner.config))


def _resize(group: zarr.Group, key: str, rows: int) -> None:
    """Give an array its new length, on disk and in the root's metadata, which are yet to be written."""
    array = array_of(group, key)
    array.resize((rows, *array.shape[1:]))
    known_of(group)[key] = array.metadata


def _checked(result: Result, key: str, array: zarr.Array[Any]) -> Array:
    """Return one array of a result, which must be what was declared."""
    if key not in result.arrays:
        raise OperatorError(f"Operator '{result.operator}' did not yield '{key}', which its describe() promises.")
    values = np.asarray(result.arrays[key])
    if (values.shape, values.dtype) != (array.shape[1:], array.dtype):
        raise OperatorError(
            f"Operator '{result.operator}' yielded '{key}' as {values.dtype} of shape {values.shape}, but its "
            f"describe() promises {array.dtype} of shape {array.shape[1:]}."
        )
    return values
