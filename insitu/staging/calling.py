# SPDX-License-Identifier: Apache-2.0
"""Calls a function of a window in a task, and makes of what it returns results of one form.

What comes back to the controller is small: names, dims and dtypes, numbers up to `SMALL_BYTES`, or a picture. Larger
results stay where the function ran, lazily if they were lazy, and are written from there slab by slab.
"""

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from insitu import registry
from insitu.config.function import Function
from insitu.errors import OperatorError
from insitu.model import NUMERIC_KINDS, Array, Variable
from insitu.results.chunks import slabs
from insitu.results.store import write_slab
from insitu.staging.datasets import Index, dataset

#: Results up to this size come to the controller, which writes those of a window together with its provenance.
SMALL_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Called:
    """What a function has returned for one window."""

    described: Mapping[str, Variable]
    data: xr.Dataset | None = None
    picture: bytes | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What the controller is told of it: `values` where they are small."""

    described: Mapping[str, Variable]
    values: Mapping[str, Array] | None
    picture: bytes | None


def call(
    function: Function,
    variables: Mapping[str, Variable],
    indices: Sequence[Index],
    keys: Sequence[str],
    first: Mapping[str, Variable] | None,
) -> Called:
    """Call a function with a window; `first` is what it returned for the first one, and must be the same again.

    Where its entry says what it yields, that is what every window must return.
    """
    window = dataset(variables, indices, keys, any_step=function.when == "any")
    found = registry.find(function.use)
    assert callable(found)
    result = found(window)
    said = function.yielded
    if hasattr(result, "savefig") and not said:
        return Called({}, picture=_picture(result))
    data = _as_dataset(function, result)
    if said:
        return _as_said(function, data, said)
    if first is not None:
        data = _as_long(data, first)
    described = {str(name): _described(function, str(name), array) for name, array in data.data_vars.items()}
    if first is not None and (fault := _difference(first, described, "for the first window")):
        raise OperatorError(f"{function.use} {fault}; results of all windows must have one form")
    if sum(array.nbytes for array in data.data_vars.values()) <= SMALL_BYTES:
        data = data.compute()
    return Called(described, data)


def told(called: Called) -> Told:
    """Return what the controller needs to know."""
    values = None
    if called.data is not None and sum(array.nbytes for array in called.data.data_vars.values()) <= SMALL_BYTES:
        values = {str(name): np.asarray(array.values) for name, array in called.data.data_vars.items()}
    return Told(called.described, values, called.picture)


def write(called: Called, path: Path, name: str, row: int) -> None:
    """Write a large result to its row of the store, never more than one slab at once."""
    assert called.data is not None
    for result, variable in called.described.items():
        array = called.data[result].data
        for slab in slabs(variable.shape or (), variable.dtype.itemsize):
            write_slab(path, name, result, row, slab, np.asarray(array[slab], order="C"))


def _picture(figure: Any) -> bytes:
    into = io.BytesIO()
    figure.savefig(into, format="png")
    if "matplotlib.pyplot" in sys.modules:  # it keeps every figure that it made until it is told not to
        sys.modules["matplotlib.pyplot"].close(figure)
    return into.getvalue()


def _as_dataset(function: Function, result: object) -> xr.Dataset:
    if isinstance(result, xr.DataArray):
        name = str(result.name) if result.name else function.use.partition(":")[2].rpartition(".")[2]
        return result.drop_vars(list(result.coords)).to_dataset(name=name)
    if isinstance(result, xr.Dataset) and len(result.data_vars):
        return result.drop_vars(list(result.coords))
    if isinstance(result, dict) and result:
        arrays = {str(key): np.asarray(value) for key, value in result.items()}
        for key, array in arrays.items():
            if array.ndim or array.dtype.kind not in NUMERIC_KINDS:
                raise OperatorError(
                    f"{function.use} returned a dict whose '{key}' is no number; return a Dataset for arrays"
                )
        return xr.Dataset({key: ((), array) for key, array in arrays.items()})
    shown = "nothing" if result is None else f"an empty {type(result).__name__}" if _is_empty(result) else repr(result)
    raise OperatorError(
        f"{function.use} returned {shown:.200}; return an xarray Dataset or DataArray, a dict of numbers, or a "
        "matplotlib figure"
    )


def _is_empty(result: object) -> bool:
    return isinstance(result, dict | xr.Dataset)


def _as_long(data: xr.Dataset, first: Mapping[str, Variable]) -> xr.Dataset:
    """Fill the steps of a window up that is shorter than the first one was."""
    lengths = [dict(zip(each.dims, each.shape or (), strict=True)) for each in first.values()]
    wanted = max((one.get("step", 0) for one in lengths), default=0)
    lacking = wanted - data.sizes.get("step", wanted)
    if lacking <= 0:
        return data

    def filled(array: xr.DataArray) -> xr.DataArray:
        if "step" not in array.dims:
            return array
        nothing = np.nan if array.dtype.kind in "fc" else 0
        return array.pad(step=(0, lacking), constant_values=nothing, keep_attrs=True)

    return data.map(filled, keep_attrs=True)


def _described(function: Function, name: str, array: xr.DataArray) -> Variable:
    if array.dtype.kind not in NUMERIC_KINDS:
        raise OperatorError(f"{function.use} returned '{name}' as {array.dtype}, and only numbers can be stored")
    dims = tuple(str(dim) for dim in array.dims)
    attrs = array.attrs
    return Variable(name, array.dtype, array.shape, dims, str(attrs.get("units", "")), str(attrs.get("long_name", "")))


def _as_said(function: Function, data: xr.Dataset, said: Mapping[str, Variable]) -> Called:
    """Return what the entry says, cast to its dtypes; raise `OperatorError` where it is something else."""
    if set(said) == set(data.data_vars):
        data = data[list(said)].map(lambda array: _cast(array, said[str(array.name)]), keep_attrs=True)
    described = {str(name): _described(function, str(name), array) for name, array in data.data_vars.items()}
    if fault := _difference(said, described, "in its entry under yields"):
        raise OperatorError(f"{function.use} {fault}; correct what is wrong of the two")
    if (nbytes := sum(array.nbytes for array in data.data_vars.values())) > SMALL_BYTES:
        raise OperatorError(
            f"{function.use} returned {nbytes} bytes, and what other operators take comes to the controller, up to "
            f"{SMALL_BYTES} bytes; return less, or leave yields out, so that it is stored only"
        )
    return Called(said, data.compute())


def _cast(array: xr.DataArray, variable: Variable) -> xr.DataArray:
    return array.astype(variable.dtype) if np.can_cast(array.dtype, variable.dtype, "safe") else array


def _difference(first: Mapping[str, Variable], described: Mapping[str, Variable], where: str) -> str | None:
    if list(first) != list(described):
        return f"returned {', '.join(described)}, and {where} {', '.join(first)}"
    for name, variable in first.items():
        for key in ("dims", "shape", "dtype"):
            if getattr(variable, key) != getattr(described[name], key):
                was, now = getattr(variable, key), getattr(described[name], key)
                return f"returned '{name}' with {key} {now}, and {where} with {was}"
    return None
