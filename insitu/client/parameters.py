# SPDX-License-Identifier: Apache-2.0
"""What a simulation declares to be steered: parameters, fields, and functions of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from insitu.client.catalogue import Halo, widths
from insitu.errors import ActionError, LocalProtocolError
from insitu.model import Array, Extent
from insitu.steering.actions import RULES, VERBS
from insitu.steering.parameters import ParameterSpec


class Parameter:
    """A value that the run knows by name. `value` is what the simulation is to use from the next step on."""

    __slots__ = ("name", "spec", "value")

    def __init__(self, name: str, value: object, spec: ParameterSpec | None = None) -> None:
        self.name = name
        self.value: Any = value
        #: What it may be set to; ``None`` without a run.
        self.spec = spec

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {self.value!r})"


@dataclass(slots=True)
class FreeState:
    """The state of a client without a run."""

    name: str
    array: Array


class StateArray:
    """This rank's part of a field that the run may overwrite, between steps.

    `array` is the author's own, halo included: what the run sets is written into its interior. Assign another one where
    the simulation goes on with another array; it has the same shape and dtype.
    """

    __slots__ = ("_array", "_interior", "count", "name", "spec", "start")

    def __init__(
        self,
        name: str,
        array: Array,
        *,
        start: Sequence[int] | None,
        shape: Sequence[int] | None,
        halo: Halo,
        minimum: float | None,
        maximum: float | None,
        units: str,
        description: str,
    ) -> None:
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or not array.flags.writeable:
            raise LocalProtocolError(f"state '{name}': {type(array).__name__} is no array of numbers to be written to.")
        sides = widths(halo, array.shape)
        self._interior = tuple(slice(low, n - high) for (low, high), n in zip(sides, array.shape, strict=True))
        self.name = name
        self._array = array
        self.count: Extent = array[self._interior].shape
        whole = self.count if shape is None else tuple(int(n) for n in shape)
        self.start: Extent = (0,) * len(whole) if start is None else tuple(int(n) for n in start)
        if not len(whole) == len(self.start) == array.ndim or not all(
            0 <= low <= low + n <= most for low, n, most in zip(self.start, self.count, whole, strict=True)
        ):
            raise LocalProtocolError(
                f"state '{name}': {self.count} cells at {self.start} do not lie inside the shape {whole}."
            )
        self.spec = ParameterSpec(
            name, "field", None, minimum, maximum, (), units, description, whole, array.dtype.newbyteorder("<").str
        )

    @property
    def array(self) -> Array:
        return self._array

    @array.setter
    def array(self, array: Array) -> None:
        if array.shape != self._array.shape or array.dtype != self._array.dtype:
            raise LocalProtocolError(
                f"state '{self.name}': {array.dtype} of shape {array.shape} in the place of {self._array.dtype} of "
                f"shape {self._array.shape}; declare it anew where it changes."
            )
        self._array = array

    def part(self, value: Any) -> Array:
        """Return this rank's part of what the field is set to: of all of it, or of the part alone.

        Raises `ActionError` where it does not fit.
        """
        try:
            shape = np.shape(value)
        except ValueError:  # lists of unequal length
            raise ActionError(f"{self.name} is set to what is no array.") from None
        if shape not in (self.count, self.spec.shape):
            raise ActionError(f"{self.name} has shape {self.spec.shape}, the value that it is set to has {shape}.")
        if shape != self.count:
            value = np.asarray(value)[tuple(slice(low, low + n) for low, n in zip(self.start, self.count, strict=True))]
        own = ParameterSpec(
            self.name, "field", None, self.spec.minimum, self.spec.maximum, shape=self.count, dtype=self.spec.dtype
        )
        checked = own.check(value)
        assert isinstance(checked, np.ndarray)
        return checked

    def overwrite(self, part: Array) -> None:
        self._array[self._interior] = part


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the author's that an action of this name calls, on all ranks after the same step."""

    name: str
    call: Callable[..., object]
    arguments: dict[str, ParameterSpec]
    description: str = ""

    @classmethod
    def of(
        cls, name: str, call: Callable[..., object], description: str, arguments: Mapping[str, object]
    ) -> "Function":
        """Return the declaration of a custom action. Raises `LocalProtocolError` for a name that is taken."""
        if name in (*VERBS, RULES) or not name.isidentifier():
            raise LocalProtocolError(
                f"action '{name}': take a name of letters, digits and _ that is none of {', '.join([*VERBS, RULES])}."
            )
        specs = {}
        for key, said in arguments.items():
            options: dict[str, Any] = dict(said) if isinstance(said, Mapping) else {"default": said}
            try:
                specs[key] = ParameterSpec.of(key, options.pop("default", None), **options)
            except TypeError as error:
                raise LocalProtocolError(f"action '{name}': {key}={said!r}: {error}.") from error
        return cls(name, call, specs, description)
