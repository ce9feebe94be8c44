# SPDX-License-Identifier: Apache-2.0
"""Equality of messages: NaN equals NaN, an array its dtype, shape and bytes, a buffer what it holds."""

import dataclasses
from typing import Any

import numpy as np


def same(a: Any, b: Any) -> bool:
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, bytes | memoryview | np.ndarray):
        return bytes(a) == bytes(b)
    return type(a) is type(b) and (a == b or (a != a and b != b))
