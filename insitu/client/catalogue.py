# SPDX-License-Identifier: Apache-2.0
"""What this rank publishes: checks each put against the rules that one rank alone can see.

A variable is declared by its first put. Later puts must agree with it; what may change is the values, where the block
lies, and the number of rows of a joined variable. The check of a put that looks like the one before costs a few
comparisons, since it stands in the simulation's inner loop.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from insitu.client.contract import Contract, Sent, Volume
from insitu.errors import LocalProtocolError
from insitu.model import NUMERIC_KINDS, Array, Extent, Variable
from insitu.wire.limits import NAME_CHARS
from insitu.wire.records import DTYPES

Halo = int | tuple[int | tuple[int, int], ...]


class Put(NamedTuple):
    """The arguments of a put beside its data, as the author gave them."""

    start: Extent | None
    shape: Extent | None
    dims: tuple[str, ...] | None
    units: str
    long_name: str
    halo: Halo


@dataclass(frozen=True, slots=True)
class Known:
    """A variable's declaration and its newest put, to recognise the next one like it; and what is sent of that.

    Each such put adds `adds` to `volume`, what there was of the variable so far.
    """

    variable: Variable
    sent: Sent | None
    count: Extent
    put: Put
    shape: Extent
    dtype: np.dtype[Any]
    volume: Volume
    adds: Volume


class Catalogue:
    """The variables that one rank has declared so far. `rank` is for the messages."""

    def __init__(self, rank: int, contract: Contract) -> None:
        self._rank = rank
        self._contract = contract
        self._known: dict[str, Known] = {}

    def admit(self, name: str, values: npt.ArrayLike, put: Put, step_index: int) -> tuple[Known, Array]:
        """Return what is known of the variable and of what is sent of this block, and the data without its halo.

        Raises `LocalProtocolError` for a put that no later rank or step can make right.
        """
        data = np.asarray(values)
        if (known := self.recall(name, put, data.shape, data.dtype)) is not None:
            return known, data if put.halo == 0 else _interior(data, known.count, put.halo)
        known = self._known.get(name)
        try:
            variable, start, interior = _described(name, data, put)
            if known is not None:
                _agrees(known.variable, variable)
        except LocalProtocolError as error:
            raise LocalProtocolError(f"put of '{name}' by rank {self._rank} at step {step_index}: {error}") from None
        if known is None:
            self._contract.offer(variable)
        count = interior.shape if not variable.joined else (0, *interior.shape[1:])
        sent = self._contract.sent(variable, start, count)
        volume, adds = self._contract.volume(name), self._contract.volume_of(interior, sent)
        known = Known(variable, sent, interior.shape, put, data.shape, data.dtype, volume, adds)
        self._known[name] = known
        return known, interior

    def recall(self, name: str, put: Put, shape: Extent, dtype: np.dtype[Any]) -> Known | None:
        """Return what is known of the variable where this put looks like the one before."""
        known = self._known.get(name)
        if known is not None and known.put == put and known.shape == shape and known.dtype == dtype:
            return known
        return None


def _interior(data: Array, count: Extent, halo: Halo) -> Array:
    if halo == 0:
        return data
    lows = [low for low, _ in widths(halo, data.shape)]
    return data[tuple(slice(low, low + n) for low, n in zip(lows, count, strict=True))]


def _described(name: str, data: Array, put: Put) -> tuple[Variable, Extent, Array]:
    """Check one put by itself."""
    _require_name(name)
    if data.dtype.kind not in NUMERIC_KINDS or data.dtype.newbyteorder("<").str not in DTYPES:
        raise LocalProtocolError(
            f"dtype {data.dtype} cannot be published; take integers, floats of at most 64 bits, complex numbers of at "
            "most 128, or booleans."
        )
    sides = widths(put.halo, data.shape)
    interior = _interior(
        data, tuple(n - low - high for n, (low, high) in zip(data.shape, sides, strict=True)), put.halo
    )
    dims = _dims(put.dims, data.ndim)
    joined = put.shape is None and data.ndim > 0
    if joined:
        if put.start is not None:
            raise LocalProtocolError(f"start {put.start} needs the global shape beside it; add shape=(...).")
        shape, start, row = None, (0,) * data.ndim, interior.shape[1:]
    else:
        shape, row = _lengths("shape", put.shape or ()), ()
        start = _start(put.start, shape, interior.shape)
    variable = Variable(name, data.dtype.newbyteorder("="), shape, dims, put.units, put.long_name, row)
    return variable, start, interior


def _start(start: Extent | None, shape: Extent, count: Extent) -> Extent:
    """Check where a block lies in its global array."""
    if start is None:
        if shape != count:
            raise LocalProtocolError(
                f"the array of shape {count} is only a part of the global shape {shape}; say where it begins: start=."
            )
        return (0,) * len(shape)
    start = _lengths("start", start)
    if not len(start) == len(count) == len(shape):
        raise LocalProtocolError(
            f"start {start}, the array's shape {count} and the global shape {shape} differ in length."
        )
    for axis, (first, n, length) in enumerate(zip(start, count, shape, strict=True)):
        if first + n > length:
            raise LocalProtocolError(
                f"start {start} + count {count} reaches beyond the global shape {shape} in dimension {axis}; "
                "cut halo cells off by halo=."
            )
    return start


def _agrees(before: Variable, now: Variable) -> None:
    """Check a declaration against the first one."""
    for attribute in ("dtype", "shape", "dims", "units", "long_name", "row"):
        was, is_now = getattr(before, attribute), getattr(now, attribute)
        if was != is_now:
            raise LocalProtocolError(
                f"its {attribute} changed from {was!r} to {is_now!r} in mid-run; keep it, or take another name."
            )


def _dims(dims: tuple[str, ...] | None, ndim: int) -> tuple[str, ...]:
    if dims is None:
        return tuple(f"dim_{axis}" for axis in range(ndim))
    for dim in () if isinstance(dims, str) else dims:
        _require_name(dim)
    if isinstance(dims, str) or len(dims) != ndim or len(set(dims)) != ndim:
        raise LocalProtocolError(f"dims {dims!r} must be {ndim} different names, one for each dimension of the array.")
    return tuple(dims)


def _require_name(name: str) -> None:
    if not (isinstance(name, str) and 0 < len(name) <= NAME_CHARS and name.isprintable()):
        raise LocalProtocolError(f"{name!r:.80} is no name; take 1 to {NAME_CHARS} printable characters.")


def _lengths(what: str, lengths: Extent) -> Extent:
    try:
        whole = tuple(int(length) for length in lengths)
    except (TypeError, ValueError):
        whole = (-1,)
    if min(whole, default=0) < 0 or whole != tuple(lengths):
        raise LocalProtocolError(f"{what} {lengths!r} must be a tuple of integers of at least 0.")
    return whole


def widths(halo: Halo, shape: Extent) -> list[tuple[int, int]]:
    """Spell out a halo: one number for all sides, or for each dimension a number or a pair.

    Raises `LocalProtocolError` where it does not fit an array of this shape.
    """
    if not isinstance(halo, int) and len(halo) != len(shape):
        raise LocalProtocolError(
            f"halo {halo} has {len(halo)} entries for {len(shape)} dimensions; give one for each, or one number."
        )
    each = (halo,) * len(shape) if isinstance(halo, int) else halo
    sides = [(width, width) if isinstance(width, int) else width for width in each]
    if any(low < 0 or high < 0 or low + high > n for n, (low, high) in zip(shape, sides, strict=True)):
        raise LocalProtocolError(
            f"halo {halo} does not fit the array's shape {shape}; give the cells to cut off at each side."
        )
    return sides
