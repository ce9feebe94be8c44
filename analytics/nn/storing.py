# SPDX-License-Identifier: Apache-2.0
"""States in files: safetensors, which hold arrays and text, and no program.

A file is there whole or not at all: it is written beside its place, made safe on the disk, and then put in the place of
the one before. A full disk leaves that one as it was.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from insitu.errors import OperatorError, RunError
from insitu.operator import State

try:
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import save
except ModuleNotFoundError as error:
    raise OperatorError('training needs safetensors, which is not installed: pip install "insitu[train]"') from error

#: Where the parts of a state stand in a file whose other text is free.
_TREE = "insitu"


def write_state(path: Path, state: State, about: dict[str, str] | None = None) -> int:
    """Write a state, with text `about` it, in the place of what is at `path`; return its bytes.

    Raises `RunError` where the disk does not take it; what was there stays.
    """
    arrays: dict[str, Any] = {}
    tree = _taken_apart(state, "", arrays)
    return write_whole(path, save(arrays, {**(about or {}), _TREE: json.dumps(tree)}))


def read_state(path: Path) -> State:
    """Read what `write_state` wrote. Raises `RunError` for a file that it did not."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            state: State = _put_together(json.loads((file.metadata() or {})[_TREE]), arrays)
            return state
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} holds no state: {type(error).__name__}: {error}; remove it to begin anew.") from error


def write_whole(path: Path, data: bytes) -> int:
    """Write a file whole or not at all; return its bytes. Raises `RunError` where the disk does not take it."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise RunError(f"{path} cannot be written: {error.strerror}; the one before stays as it was.") from error
    return len(data)


def _taken_apart(part: Any, name: str, arrays: dict[str, Any]) -> Any:
    """Return a state as JSON has it, with the name of an array in its place."""
    if isinstance(part, np.ndarray):
        arrays[name] = np.ascontiguousarray(part).reshape(part.shape)
        return {"array": name}
    if isinstance(part, np.generic):
        return {"value": part.item()}
    if isinstance(part, dict):
        return {"dict": {key: _taken_apart(value, f"{name}/{key}", arrays) for key, value in part.items()}}
    if isinstance(part, list | tuple):
        return {"list": [_taken_apart(value, f"{name}/{k}", arrays) for k, value in enumerate(part)]}
    return {"value": part}


def _put_together(tree: Any, arrays: dict[str, Any]) -> Any:
    ((kind, part),) = tree.items()
    if kind == "array":
        return arrays[part]
    if kind == "dict":
        return {key: _put_together(value, arrays) for key, value in part.items()}
    if kind == "list":
        return [_put_together(value, arrays) for value in part]
    return part
