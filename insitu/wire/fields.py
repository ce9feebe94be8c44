# SPDX-License-Identifier: Apache-2.0
"""How each kind of value goes into a header and comes out of it again.

A field checks in both directions by the same rule, so what one side can send the other takes. A wrong value raises
`Wrong`, which the codec turns into the error of whoever is to blame. Types are compared by identity: ``True`` is no
whole number, and 1 is no physical time.

Towards the wire, NumPy's own scalars become Python's, and text for people is cut to its limit rather than refused: an
event must not fail because a traceback is long.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from reprlib import Repr
from typing import Any

import numpy as np

from insitu.wire.limits import BLOCKS, BUFFER_BYTES, DEPTH, DIMENSIONS, ITEMS, NAME_CHARS, TEXT_CHARS, WHOLE

_repr = Repr()
_repr.maxstring = _repr.maxother = 80
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 4


class Wrong(ValueError):
    """A value that no message may hold; `path` grows on the way out of nested fields."""

    def __init__(self, expected: str, value: object, path: str = "") -> None:
        super().__init__(f"{path}: expected {expected}, got {_repr.repr(value)}." if path else expected)
        self.expected = expected
        self.value = value
        self.path = path

    def inside(self, place: str) -> "Wrong":
        joint = "." if self.path and not self.path.startswith("[") else ""
        return Wrong(self.expected, self.value, place + joint + self.path)


Check = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One kind of value: `dump` gives what msgpack can pack, `load` takes what it unpacked. Both raise `Wrong`."""

    dump: Check
    load: Check


def _python(value: Any) -> Any:
    """Make NumPy's numbers Python's; those that Python has no number for stay, and are found wrong."""
    return value.item() if isinstance(value, np.generic) else value


def _checked(check: Check) -> Field:
    return Field(lambda value: check(_python(value)), check)


def whole(low: int = 0, high: int = WHOLE) -> Field:
    """An integer within limits."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Wrong(f"a whole number from {low} to {high}", value)
        return value

    return _checked(check)


def _time(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise Wrong("a finite float", value)
    return value


def _number(value: Any) -> int | float:
    if type(value) is int and -WHOLE - 1 <= value <= WHOLE:
        return value
    return _time(value)


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise Wrong("true or false", value)
    return value


def _scalar(value: Any) -> bool | int | float | str:
    if type(value) is str:
        return _short(value)
    if type(value) is bool or (type(value) is float and not math.isnan(value)):
        return value
    if type(value) is int and -WHOLE - 1 <= value <= WHOLE:
        return value
    raise Wrong("true or false, a 64-bit integer, a number that is not NaN, or a text", value)


def _short(value: Any) -> str:
    if type(value) is not str or len(value) > TEXT_CHARS:
        raise Wrong(f"a text of at most {TEXT_CHARS} characters", value)
    return value


def _cut(value: Any) -> str:
    if isinstance(value, str):
        # Names of files may hold bytes that are no text; they cannot be sent as such.
        value = value[:TEXT_CHARS].encode("utf-8", "replace").decode()
    return _short(value)


def _name(value: Any) -> str:
    if type(value) is not str or not 0 < len(value) <= NAME_CHARS or not value.isprintable():
        raise Wrong(f"a name of 1 to {NAME_CHARS} printable characters", value)
    return value


def _label(value: Any) -> str:
    return "" if value == "" else _name(value)


#: A physical time, or a duration.
time = Field(lambda value: _time(float(value) if type(value) is int else _python(value)), _time)
number = _checked(_number)
truth = _checked(_truth)
scalar = _checked(_scalar)
text = Field(_cut, _short)
name = _checked(_name)
label = _checked(_label)


def choice(*values: str) -> Field:
    """One of some words."""

    def check(value: Any) -> str:
        if value not in values or type(value) is not str:
            raise Wrong(f"one of {', '.join(values)}", value)
        return value

    return Field(check, check)


def optional(field: Field) -> Field:
    """``None``, or what `field` is."""
    return Field(
        lambda value: None if value is None else field.dump(value),
        lambda value: None if value is None else field.load(value),
    )


def many(field: Field, limit: int = ITEMS) -> Field:
    """A tuple of any length up to `limit`."""

    def items(values: Any, check: Check) -> list[Any]:
        if type(values) not in (list, tuple) or len(values) > limit:
            raise Wrong(f"a list of at most {limit}", values)
        return [_at(f"[{k}]", check, value) for k, value in enumerate(values)]

    return Field(lambda values: items(values, field.dump), lambda values: tuple(items(values, field.load)))


def row(*fields: Field) -> Field:
    """A tuple of given length, each item of its own kind."""

    def items(values: Any, checks: list[Check]) -> list[Any]:
        if type(values) not in (list, tuple) or len(values) != len(checks):
            raise Wrong(f"a list of {len(checks)}", values)
        return [_at(f"[{k}]", check, value) for k, (check, value) in enumerate(zip(checks, values, strict=True))]

    dumps, loads = [field.dump for field in fields], [field.load for field in fields]
    return Field(lambda values: items(values, dumps), lambda values: tuple(items(values, loads)))


def mapping(field: Field) -> Field:
    """A dict from names."""

    def items(values: Any, check: Check) -> dict[str, Any]:
        if type(values) is not dict or len(values) > ITEMS:
            raise Wrong(f"a dict of at most {ITEMS}", values)
        return {_name(key): _at(f"[{key!r}]", check, value) for key, value in values.items()}

    return Field(lambda values: items(values, field.dump), lambda values: items(values, field.load))


def _at(place: str, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except Wrong as wrong:
        raise wrong.inside(place) from None


extent = many(whole(), DIMENSIONS)
place = row(extent, extent)


def fits(buffer: Any) -> bool:
    """Whether a buffer can travel as it is."""
    try:
        view = memoryview(buffer)
    except (TypeError, ValueError, BufferError):  # no buffer at all, or one of dates
        return False
    # An array of objects would travel as its pointers.
    return view.c_contiguous and view.nbytes <= BUFFER_BYTES and "O" not in view.format


def _buffer(value: Any) -> Any:
    if not fits(value):
        raise Wrong(f"contiguous numbers or bytes, at most {BUFFER_BYTES} bytes", value)
    return value


buffers = many(Field(_buffer, _buffer), BLOCKS)


def _tree(arrays: bool, value: Any, text: Check, depth: int = 0) -> Any:
    """Walk through numbers, texts, truths, ``None``, and lists or dicts of these; and arrays where they are allowed."""
    value = _python(value)
    if value is None or type(value) in (bool, float) or (arrays and type(value) is np.ndarray):
        return value
    if type(value) is int:
        return _any_whole(value)
    if type(value) is str:
        return text(value)
    if type(value) not in (list, tuple, dict) or len(value) > ITEMS or depth == DEPTH:
        raise Wrong(
            f"numbers, texts, true, false, None{', arrays' if arrays else ''}, or lists and dicts of at most {ITEMS} "
            f"of these, {DEPTH} deep",
            value,
        )

    def item(inner: Any) -> Any:
        return _tree(arrays, inner, text, depth + 1)

    if type(value) is dict:
        return {_short(key): _at(f"[{key!r}]", item, inner) for key, inner in value.items()}
    return [_at(f"[{k}]", item, inner) for k, inner in enumerate(value)]


def _dict(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise Wrong("a dict", value)
    return value


_any_whole = whole(-WHOLE - 1).load

#: An operator's state. Its arrays are left as they are: the codec takes them out and puts them back. Tuples become
#: lists.
state = Field(lambda value: _tree(True, _dict(value), _short), lambda value: _tree(True, _dict(value), _short))

#: What an event tells beside its text.
details = Field(lambda value: _tree(False, _dict(value), _cut), lambda value: _tree(False, _dict(value), _short))
