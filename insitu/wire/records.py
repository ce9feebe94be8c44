# SPDX-License-Identifier: Apache-2.0
"""How a dataclass travels: a `Record` of its fields, and the values that several messages have in common.

A record checks what it dumps as it does what it loads, so that a mistake here is found before it has left.
"""

import dataclasses
from collections.abc import Callable
from math import isfinite, prod
from typing import Any

import numpy as np

from insitu.model import Extent, Variable
from insitu.wire import messages as m
from insitu.wire.blocks import BlockSpec
from insitu.wire.fields import Field, Wrong, extent, label, many, name, optional, text, time, whole
from insitu.wire.limits import BUFFER_BYTES, DIMENSIONS, WHOLE

#: The dtypes that travel, by what they are called in a header. Bytes are little-endian, and there is no number that
#: two machines may disagree about (long double).
DTYPES: dict[str, np.dtype[Any]] = {
    np.dtype(code).str: np.dtype(code)
    for code in ("?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16")
}
#: The author's own number of a step.
any_index = whole(-(1 << 63))


class Record:
    """The fields of one dataclass. `also` checks what the fields mean together, and raises `Wrong`."""

    def __init__(self, cls: type, also: Callable[[Any], None] = lambda value: None, **fields: Field) -> None:
        declared = [field.name for field in dataclasses.fields(cls)]
        assert declared == list(fields), f"{cls.__name__} has the fields {declared}, its record {list(fields)}"
        self.cls = cls
        self._also = also
        self._fields = fields
        self.field = Field(self.dump, self.load)

    def dump(self, value: Any) -> list[Any]:
        """Return what msgpack can pack. Raises `Wrong`."""
        if type(value) is not self.cls:
            raise Wrong(f"a {self.cls.__name__}", value)
        self._also(value)
        return [self._named(key, field.dump, getattr(value, key)) for key, field in self._fields.items()]

    def load(self, values: Any) -> Any:
        """Return the dataclass for what msgpack unpacked. Raises `Wrong`."""
        if type(values) is not list or len(values) != len(self._fields):
            raise Wrong(f"{len(self._fields)} fields ({', '.join(self._fields)})", values)
        pairs = zip(self._fields.items(), values, strict=True)
        loaded = self.cls(*[self._named(key, field.load, value) for (key, field), value in pairs])
        self._also(loaded)
        return loaded

    @staticmethod
    def _named(key: str, check: Callable[[Any], Any], value: Any) -> Any:
        try:
            return check(value)
        except Wrong as wrong:
            raise wrong.inside(key) from None


def _dump_dtype(value: Any) -> str:
    if not isinstance(value, np.dtype) or value.str not in DTYPES:
        raise Wrong(f"a dtype among {', '.join(DTYPES)}", value)
    return value.str


def _load_dtype(value: Any) -> np.dtype[Any]:
    if type(value) is not str or value not in DTYPES:
        raise Wrong(f"a dtype among {', '.join(DTYPES)}", value)
    return DTYPES[value]


dtype = Field(_dump_dtype, _load_dtype)


def _variable(variable: Variable) -> None:
    """A joined variable has rows instead of a shape; the dims name every dimension."""
    ndim = len(variable.row) + 1 if variable.shape is None else len(variable.shape)
    if len(variable.dims) != ndim:
        raise Wrong(f"{ndim} dims, one for each dimension", variable.dims, "dims")
    if variable.row and variable.shape is not None:
        raise Wrong("no row beside a shape", variable.row, "row")
    # NumPy leaves out the zeros too when it looks whether a shape is too large for this machine.
    if prod(n or 1 for n in variable.shape or variable.row) * variable.dtype.itemsize > WHOLE:
        raise Wrong(f"a variable of at most {WHOLE} bytes", variable.shape or variable.row, "shape")


def _block(block: BlockSpec) -> None:
    """A block lies inside its variable. The rows of a joined one are counted when they come."""
    variable = block.variable
    ndim = len(variable.dims)
    if len(block.start) != ndim:
        raise Wrong(f"{ndim} numbers", block.start, "start")
    if len(block.count) != ndim:
        raise Wrong(f"{ndim} numbers", block.count, "count")
    if variable.shape is None:
        _joined(block, variable.row)
        return
    if any(s + c > n for s, c, n in zip(block.start, block.count, variable.shape, strict=True)):
        raise Wrong(f"a block inside the shape {variable.shape}", (block.start, block.count), "count")
    if prod(block.count) * variable.dtype.itemsize > BUFFER_BYTES:
        raise Wrong(f"a block of at most {BUFFER_BYTES} bytes", block.count, "count")


def _joined(block: BlockSpec, row: Extent) -> None:
    if block.count != (0, *row):
        raise Wrong(f"{(0, *row)}, since the variable is joined", block.count, "count")
    if any(block.start):
        raise Wrong("zeros, since the variable is joined", block.start, "start")


variable = Record(
    Variable,
    _variable,
    name=name,
    dtype=dtype,
    shape=optional(extent),
    dims=many(name, DIMENSIONS),
    units=label,
    long_name=text,
    row=extent,
).field
block = Record(BlockSpec, _block, variable=variable, start=extent, count=extent).field
_closed_step = Record(
    m.ClosedStep,
    sequence=whole(),
    index=any_index,
    time=time,
    layouts=whole(),
    nbytes=whole(),
    disagree=many(whole()),
)


def _dump_closed_step(step: Any) -> list[Any]:
    if type(step) is not m.ClosedStep:
        return _closed_step.dump(step)
    values = [step.sequence, step.index, step.time, step.layouts, step.nbytes, step.disagree]
    return values if _is_closed_step(values, tuple) else _closed_step.dump(step)


def _load_closed_step(values: Any) -> Any:
    if type(values) is list and len(values) == 6 and _is_closed_step(values, list):
        number, index, time, layouts, nbytes, _ = values
        return m.ClosedStep(number, index, time, layouts, nbytes, ())
    return _closed_step.load(values)


def _is_closed_step(values: list[Any], sequence: type) -> bool:
    """Whether a step on which ranks agree is right, told without the record: there is one for each step of a run."""
    number, index, time, layouts, nbytes, disagree = values
    return (
        type(number) is type(index) is type(layouts) is type(nbytes) is int
        and 0 <= number <= WHOLE
        and -WHOLE <= index <= WHOLE
        and 0 <= layouts <= WHOLE
        and 0 <= nbytes <= WHOLE
        and type(time) is float
        and isfinite(time)
        and type(disagree) is sequence
        and not disagree
    )


closed_step = Field(_dump_closed_step, _load_closed_step)
