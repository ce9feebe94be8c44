# SPDX-License-Identifier: Apache-2.0
"""Arrays as kernels take them, and the search for NaN."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from analytics.kernels.compiling import Kernel, compiled
from analytics.kernels.lanes import LANES
from insitu.errors import OperatorError
from insitu.model import Array
from insitu.operator import Batch

#: What kernels are not compiled for is converted to the next type that holds all its values.
_STAND_INS: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype("?"): np.dtype("u1"),
    np.dtype("f2"): np.dtype("f4"),
    np.dtype("g"): np.dtype("f8"),
}


def kernel_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of what `values` returns for arrays of this one.

    >>> kernel_dtype(np.dtype(">f4")), kernel_dtype(np.dtype(bool))
    (dtype('float32'), dtype('uint8'))
    """
    native = dtype.newbyteorder("=")
    return _STAND_INS.get(native, native)


def values(array: Array) -> Array:
    """Return all values of a C-contiguous array in one dimension, read-only, as kernels take them.

    No copy, unless the array's dtype is none of the kernels' (bool, half and extended precision, a foreign byte
    order) or its memory is not aligned.
    """
    return read_only(np.require(array.reshape(-1), kernel_dtype(array.dtype), "A"))


def read_only(array: Array) -> Array:
    """Return a view that cannot be written: for numba a type of its own, so that one kernel serves all that is read."""
    view = array.view()
    view.flags.writeable = False
    return view


def eights(arrays: Sequence[Array]) -> Iterator[tuple[tuple[Array, ...], int]]:
    """Deal arrays out eight at a time, and say how many count: the last are filled up with copies of their first."""
    for first in range(0, len(arrays), LANES):
        some = tuple(arrays[first : first + LANES])
        yield (*some, *some[:1] * (LANES - len(some))), len(some)


@functools.cache
def _first_nan(dtype: str) -> Kernel:
    """Return ``first_nan(x, tile) -> int``: the index of the first NaN, or -1."""

    def first_nan(x: Array, tile: int) -> int:
        for c in range(0, x.size, tile):
            v = x[c : c + tile]
            unknown = 0
            for i in range(v.size):
                unknown += v[i] != v[i]
            if unknown:
                for i in range(v.size):
                    if v[i] != v[i]:
                        return c + i
        return -1

    return compiled(first_nan, dtype)


def refuse_nan(batch: Batch, name: str) -> None:
    """Raise `OperatorError` that says where the first NaN of this variable is. Reads the data once more."""
    if batch.variables[name].dtype.kind != "f":
        return
    for step, array in zip(batch.steps, batch[name], strict=True):
        found = _first_nan(kernel_dtype(array.dtype).name)(values(array), 4096)
        if found >= 0:
            inside = np.unravel_index(found, array.shape)
            place = tuple(int(i) + start for i, start in zip(inside, batch.start[name], strict=True))
            kind = "row" if batch.variables[name].joined else "cell"
            raise OperatorError(
                f"'{name}' is NaN in step {step.index} at {kind} {place}, and nan: fail is set; "
                "take nan: skip to leave such values out, or nan: propagate to let the result be NaN"
            )
