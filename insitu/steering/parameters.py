# SPDX-License-Identifier: Apache-2.0
"""What may be set in a running simulation, and to which values.

A `ParameterSpec` is what a simulation declares of one parameter. It is the one place where a value is checked: by the
controller before it bothers a rank, by each rank before it promises, and by whoever writes a rule before the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

import numpy as np

from insitu.errors import ActionError
from insitu.model import PARAMETERS, Array, Extent, Variable

#: What a parameter is. An *array* is small, and the same on all ranks; a *field* is a global array that lies cut into
#: pieces on the ranks, each of which gets its own part of what it is set to.
Kind = Literal["float", "int", "bool", "str", "array", "field"]
#: A value of a parameter; an array where the kind is array or field.
Value = bool | int | float | str | Array

KINDS: tuple[Kind, ...] = get_args(Kind)
#: An array parameter travels in the header of a message, and stands in a line of the record.
ARRAY_CELLS = 4096

_NAMES = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text"}


@dataclass(frozen=True, slots=True, eq=False)
class ParameterSpec:
    """A parameter: its kind, its default, and what it may be set to.

    `minimum` and `maximum` are inclusive, and hold for each cell of an array or field. `choices` lists all values that
    a scalar may have. `shape` and `dtype` (``<f8``, ``<i8``) are those of arrays and fields; a field has no default.

    Raises `ActionError` for a declaration that contradicts itself, a default that it does not admit included.

    >>> feed = ParameterSpec("feed", "float", 0.035, minimum=0.0, maximum=0.1)
    >>> feed.check(0.05)
    0.05
    >>> feed.check(0.2)
    Traceback (most recent call last):
        ...
    insitu.errors.ActionError: feed = 0.2 is above the maximum 0.1.
    """

    name: str
    kind: Kind
    default: Value | None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Value, ...] = ()
    units: str = ""
    description: str = ""
    shape: Extent = ()
    dtype: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ActionError(f"parameter {self.name!r}: take a name of letters, digits and _, as rules use it.")
        if self.kind not in KINDS:
            raise ActionError(f"parameter '{self.name}': kind {self.kind!r} is none of {', '.join(KINDS)}.")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ActionError(
                f"parameter '{self.name}': the minimum {self.minimum!r} is above the maximum {self.maximum!r}."
            )
        if self.kind in ("bool", "str") and (self.minimum, self.maximum) != (None, None):
            raise ActionError(f"parameter '{self.name}': {_NAMES[self.kind]} has no bounds; use choices.")
        if self.kind in ("array", "field") and self.choices:
            raise ActionError(f"parameter '{self.name}': an array has no choices; use minimum and maximum.")
        object.__setattr__(self, "choices", tuple(self._typed(choice) for choice in self.choices))
        if self.kind != "field":
            object.__setattr__(self, "default", self.check(self.default))

    @classmethod
    def of(
        cls,
        name: str,
        default: object,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        choices: Sequence[Value] = (),
        units: str = "",
        description: str = "",
    ) -> "ParameterSpec":
        """Return the declaration of a parameter whose default tells its kind.

        >>> ParameterSpec.of("solver", "cg", choices=["cg", "gmres"]).kind
        'str'
        >>> ParameterSpec.of("inlets", [1.0, 2.0], minimum=0).shape
        (2,)
        """
        if isinstance(default, (list, tuple, np.ndarray)) and np.ndim(default) > 0:
            array = np.asarray(default)
            array = array.astype(
                "<i8" if array.dtype.kind in "iu" else array.dtype if array.dtype.kind == "b" else "<f8"
            )
            if array.size > ARRAY_CELLS:
                raise ActionError(
                    f"parameter '{name}': {array.size} cells are more than {ARRAY_CELLS}; declare it as a state."
                )
            return cls(name, "array", array, minimum, maximum, (), units, description, array.shape, array.dtype.str)
        plain = _python(default)
        kind = type(plain).__name__
        if kind not in _NAMES:
            raise ActionError(
                f"parameter '{name}': the default {default!r} is no number, truth, text, or array of numbers."
            )
        return cls(name, kind, plain, minimum, maximum, tuple(choices), units, description)  # type: ignore[arg-type]

    @property
    def variable(self) -> Variable | None:
        """What it is where a variable may be named, as ``parameters.feed``; ``None`` for texts and fields.

        >>> ParameterSpec.of("inlets", [1.0, 2.0], units="m/s").variable.shape
        (2,)
        """
        if self.kind in ("str", "field"):
            return None
        dims = tuple(f"dim_{axis}" for axis in range(len(self.shape)))
        dtype = np.dtype(self.dtype or self.kind)
        return Variable(f"{PARAMETERS}.{self.name}", dtype, self.shape, dims, self.units, self.description)

    def check(self, value: object) -> Value:
        """Return a value as this parameter takes it: a Python scalar, or a read-only array of its shape and dtype.

        A whole number will do for a float, and a float without a fraction for a whole number. Raises `ActionError` for
        another type, a number that is not finite, one beyond a bound, a text that is no choice, another shape.
        """
        if self.kind in ("array", "field"):
            return self._check_array(value)
        typed: Value = self._typed(value)
        if isinstance(typed, (int, float)):
            self._check_bounds(typed, typed, typed)
        if self.choices and typed not in self.choices:
            listed = ", ".join(repr(choice) for choice in self.choices)
            raise ActionError(f"{self.name} = {typed!r} is none of its choices {listed}.")
        return typed

    def _typed(self, value: object) -> Any:
        plain = _python(value)
        if self.kind == "bool" and type(plain) is bool:
            return plain
        if self.kind == "str" and type(plain) is str:
            return plain
        if self.kind in ("float", "int") and type(plain) in (int, float):
            if not isfinite(plain):  # type: ignore[arg-type]
                raise ActionError(f"{self.name} = {plain!r} is not finite.")
            if self.kind == "float":
                return float(plain)  # type: ignore[arg-type]
            if plain == int(plain):  # type: ignore[call-overload]
                return int(plain)  # type: ignore[call-overload]
        raise ActionError(f"{self.name} = {value!r:.80} is not {_NAMES.get(self.kind, self.kind)}.")

    def _check_array(self, value: object) -> Array:
        try:
            array = np.asarray(value)
            if array.dtype.kind not in "biuf":
                raise TypeError
            array = array.astype(self.dtype, casting="same_kind", copy=True)
        except (TypeError, ValueError):
            raise ActionError(f"{self.name} = {value!r:.80} is no array of {np.dtype(self.dtype).name}.") from None
        if array.shape != self.shape:
            raise ActionError(f"{self.name} has shape {self.shape}, the value that it is set to has {array.shape}.")
        if array.size and array.dtype.kind != "b":
            if not np.isfinite(array).all():
                raise ActionError(f"{self.name} is set to an array with values that are not finite.")
            self._check_bounds(array.min().item(), array.max().item(), None)
        array.flags.writeable = False
        return array

    def _check_bounds(self, lowest: float, highest: float, shown: object) -> None:
        if self.minimum is not None and lowest < self.minimum:
            which = "" if shown is not None else " in its smallest cell"
            raise ActionError(f"{self.name} = {lowest!r}{which} is below the minimum {self.minimum!r}.")
        if self.maximum is not None and highest > self.maximum:
            which = "" if shown is not None else " in its largest cell"
            raise ActionError(f"{self.name} = {highest!r}{which} is above the maximum {self.maximum!r}.")

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON data that `from_plain` takes; equal for equal declarations."""
        return {
            "name": self.name,
            "kind": self.kind,
            "default": plain(self.default),
            "minimum": self.minimum,
            "maximum": self.maximum,
            "choices": list(self.choices),
            "units": self.units,
            "description": self.description,
            "shape": list(self.shape),
            "dtype": self.dtype,
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> "ParameterSpec":
        """Return what `to_plain` described. Raises `ActionError` for anything else."""
        try:
            return cls(
                str(data["name"]), data["kind"], data["default"], data["minimum"], data["maximum"],
                tuple(data["choices"]), str(data["units"]), str(data["description"]), tuple(data["shape"]),
                str(data["dtype"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ActionError(f"{data!r:.200} describes no parameter: {error!r}.") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParameterSpec) and self.to_plain() == other.to_plain()

    def __hash__(self) -> int:
        return hash((self.name, self.kind))


def plain(value: Value | None) -> Any:
    """Return a value as JSON data; an array as nested lists, whose floats keep every bit."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _python(value: object) -> object:
    """Make NumPy's scalars Python's, arrays without dimensions included."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value
