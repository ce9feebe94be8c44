# SPDX-License-Identifier: Apache-2.0
"""States and models as files: arrays in safetensors, all else as JSON in its header. Reading runs no code of the file.

A file is seen whole or not at all: it is written beside its place and then moved there, so what was there before stays
whole until then, whatever happens (a full disk, a power cut).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from analytics.nn.learning import Network, network_of
from analytics.nn.needs import torch
from analytics.nn.samples import Shapes
from analytics.nn.specs import Training
from analytics.nn.writing import whole
from insitu.errors import OperatorError
from insitu.model import Array
from insitu.operator import State

#: Raised by one when an older version could not read what is written.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Model:
    """A network as it was written, with all that is known about it. `card` is whatever its writer wished to say."""

    network: Network
    spec: Training
    shapes: Shapes
    card: dict[str, Any]


def write_state(path: Path, state: State) -> None:
    """Write nested dicts and lists of arrays, numbers, strings, booleans and ``None``."""
    arrays: dict[str, Array] = {}
    _write(path, arrays, {"kind": "state", "state": _without_arrays(state, "", arrays)})


def read_state(path: Path) -> State:
    """Return what `write_state` wrote; `OperatorError` for any other file."""
    arrays, header = _read(path, "state")
    found: State = _with_arrays(header["state"], arrays)
    return found


def packed(state: State) -> bytes:
    """Return what `write_state` would write, as bytes."""
    arrays: dict[str, Array] = {}
    text = json.dumps(_without_arrays(state, "", arrays)).encode()
    return safetensors.numpy.save({**arrays, "$state": np.frombuffer(text, np.uint8)})


def unpacked(said: bytes) -> State:
    """Return the state that was `packed`."""
    arrays = safetensors.numpy.load(said)
    found: State = _with_arrays(json.loads(arrays.pop("$state").tobytes()), arrays)
    return found


def write_model(path: Path, network: Network, spec: Training, shapes: Shapes, card: Mapping[str, Any]) -> None:
    """Write a network, and what it takes to make it again."""
    arrays = {name: np.array(part.numpy()) for name, part in network.state_dict().items()}
    sides = {"inputs": shapes.inputs, "targets": shapes.targets}
    header = {"kind": "model", "spec": spec.model_dump(mode="json"), "shapes": sides, "card": dict(card)}
    _write(path, arrays, header)


def read_model(path: Path) -> Model:
    """Return what `write_model` wrote, on the CPU, ready to predict; `OperatorError` for any other file.

    A model that is a function of one's own is made by that function, which must be importable here.
    """
    arrays, header = _read(path, "model")
    spec, (inputs, targets) = (
        Training.model_validate(header["spec"]),
        (header["shapes"][k] for k in ("inputs", "targets")),
    )
    shapes = Shapes(tuple(inputs), None if targets is None else tuple(targets))
    network = network_of(spec, shapes)
    try:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    except RuntimeError as error:
        raise OperatorError(f"{path} does not fit its own description: {error}") from error
    return Model(network.eval(), spec, shapes, header["card"])


def _write(path: Path, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
    text = json.dumps({"version": VERSION, **header})
    with whole(path) as beside:
        safetensors.numpy.save_file(dict(arrays), beside, metadata={"insitu": text})


def _read(path: Path, kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("insitu", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise OperatorError(f"{path} cannot be read: {error}") from error
    if header.get("kind") != kind or header.get("version") != VERSION:
        found = f"{header.get('kind', 'nothing of insitu')} of version {header.get('version')}"
        raise OperatorError(f"{path} holds {found}, expected a {kind} of version {VERSION}")
    return arrays, header


def _without_arrays(part: Any, place: str, arrays: dict[str, Array]) -> Any:
    """Return a state whose arrays are replaced by their names, and put them into `arrays`."""
    if isinstance(part, np.ndarray):
        arrays[place] = np.ascontiguousarray(part)
        return {"$array": place}
    if isinstance(part, np.generic):
        return part.item()
    if isinstance(part, Mapping):
        return {key: _without_arrays(value, f"{place}/{key}", arrays) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_without_arrays(value, f"{place}/{k}", arrays) for k, value in enumerate(part)]
    return part


def _with_arrays(part: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(part, dict):
        if set(part) == {"$array"}:
            return arrays[part["$array"]]
        return {key: _with_arrays(value, arrays) for key, value in part.items()}
    return [_with_arrays(value, arrays) for value in part] if isinstance(part, list) else part
