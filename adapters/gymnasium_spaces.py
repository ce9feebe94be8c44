# SPDX-License-Identifier: Apache-2.0
"""What a steered run declares and yields, as spaces of Gymnasium, and actions of these spaces as values to be set."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from insitu.errors import ConfigError
from insitu.model import Array
from insitu.steering.parameters import ParameterSpec, Value

Space = spaces.Space[Any]


class Actions:
    """The space of actions on parameters, and what an action sets.

    One parameter has a space of its own where it is `alone`. Several floats and arrays have one flat `Box`, in their
    order; several of which one is discrete, a `Dict`. Raises `ConfigError` for a parameter that has no bounds.

    >>> actions = Actions([ParameterSpec.of("heat", 1.0, minimum=0.0, maximum=4.0)], alone=True)
    >>> actions.space
    Box(0.0, 4.0, (1,), float64)
    >>> actions.values(np.array([9.0], np.float32))
    {'heat': 4.0}
    """

    def __init__(self, specs: list[ParameterSpec], *, alone: bool) -> None:
        self._spaces = {spec.name: _of_parameter(spec) for spec in specs}
        self._specs = specs
        self._alone = alone
        boxes = [each for each in self._spaces.values() if isinstance(each, spaces.Box)]
        self._flat = not alone and len(boxes) == len(specs)
        if alone:
            self.space: Space = self._spaces[specs[0].name]
        elif self._flat:
            low, high = (np.concatenate([getattr(box, side).ravel() for box in boxes]) for side in ("low", "high"))
            self.space = spaces.Box(low, high, dtype=np.float64)
        else:
            self.space = spaces.Dict(self._spaces)

    def values(self, action: Any) -> dict[str, Value]:
        """Return the value of each parameter; what rounding has brought beyond a bound is put back onto it."""
        if self._alone:
            parts = {self._specs[0].name: action}
        elif self._flat:
            sizes = [int(np.prod(space.shape or ())) for space in self._spaces.values()]
            pieces = np.split(np.asarray(action, np.float64), np.cumsum(sizes)[:-1])
            parts = dict(zip(self._spaces, pieces, strict=True))
        else:
            parts = action
        return {spec.name: _value(spec, self._spaces[spec.name], parts[spec.name]) for spec in self._specs}


def _of_parameter(spec: ParameterSpec) -> Space:
    if spec.choices:
        return spaces.Discrete(len(spec.choices))
    if spec.kind == "bool":
        return spaces.Discrete(2)
    if spec.kind not in ("float", "int", "array"):
        raise ConfigError(f"parameter '{spec.name}' is a {spec.kind}, which no action can be; give it choices.")
    if spec.minimum is None or spec.maximum is None:
        side = "minimum" if spec.minimum is None else "maximum"
        raise ConfigError(f"parameter '{spec.name}' has no {side}, so its actions have no space; declare one.")
    if spec.kind == "int":
        low, high = int(np.ceil(spec.minimum)), int(np.floor(spec.maximum))
        return spaces.Discrete(high - low + 1, start=low)
    return spaces.Box(spec.minimum, spec.maximum, spec.shape or (1,), np.float64)


def _value(spec: ParameterSpec, space: Space, action: Any) -> Value:
    if isinstance(space, spaces.Discrete):
        index = int(action)
        return spec.choices[index] if spec.choices else bool(index) if spec.kind == "bool" else index
    assert isinstance(space, spaces.Box)
    clipped = np.clip(np.asarray(action, np.float64).reshape(space.shape), space.low, space.high)
    return float(clipped[0]) if spec.kind == "float" else clipped.astype(spec.dtype)


def observed_space(arrays: Mapping[str, Array], *, alone: bool) -> Space:
    """Return the space of observations: unbounded, of the arrays' shapes and dtypes."""
    boxes = {name: _of_array(array) for name, array in arrays.items()}
    return next(iter(boxes.values())) if alone else spaces.Dict(boxes)


def _of_array(array: Array) -> Space:
    if array.dtype.kind == "b":
        return spaces.MultiBinary(array.shape)
    if array.dtype.kind in "iu":
        bounds = np.iinfo(array.dtype)
        return spaces.Box(bounds.min, bounds.max, array.shape, array.dtype.type)
    return spaces.Box(-np.inf, np.inf, array.shape, array.dtype.type)
