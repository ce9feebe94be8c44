# SPDX-License-Identifier: Apache-2.0
"""Models of a run on the disk: each version of a model is a folder, ``models/NAME/VERSION/``.

``model.safetensors`` is what `analytics.nn.saving` writes: weights, normalisation, and what it takes to make the
network again. ``card.json`` says, for people and programs, from what it was made, and has the file's checksum: who
loads a version finds out that it is whole, and what it takes and gives.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from analytics.nn.learning import Network, outputs_of
from analytics.nn.predicting import predict
from analytics.nn.samples import Shapes
from analytics.nn.saving import read_model, write_model
from analytics.nn.specs import Training
from insitu.errors import OperatorError, RunError
from insitu.model import Array

FILE, CARD = "model.safetensors", "card.json"
#: Samples that go through a network at once.
AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a trained network, as it was written. Takes and gives raw values, as they are on the stream."""

    name: str
    number: int
    card: Mapping[str, Any]
    network: Network

    def __call__(self, inputs: Any) -> Array:
        """Return what it makes of inputs of shape (n, *inputs), or of one sample: float32.

        Raises `OperatorError` for another shape.
        """
        given, shape = np.asarray(inputs, np.float32), tuple(self.card["inputs"])
        if given.shape != shape and given.shape[1:] != shape:
            raise OperatorError(f"model '{self.name}' takes inputs of shape {shape} (or several), got {given.shape}")
        several = np.ascontiguousarray(given).reshape(-1, *shape)
        parts = [predict(self.network, several[first : first + AT_ONCE]) for first in range(0, len(several), AT_ONCE)]
        made: Array = np.concatenate(parts) if parts else np.empty((0, *self.card["outputs"]), np.float32)
        return made[0] if given.shape == shape else made


def write_version(
    models: Path, name: str, network: Network, spec: Training, shapes: Shapes, about: Mapping[str, Any]
) -> int:
    """Write a network as the next version of model `name`, with a card that holds `about`; return its number.

    The folder of a version is there whole or not at all. Raises `RunError` where the disk does not take it.
    """
    number = (newest(models, name) or 0) + 1
    card = {
        "model": name,
        "version": number,
        "inputs": list(shapes.inputs),
        "outputs": list(outputs_of(spec, shapes)),
        **about,
        "training": spec.model_dump(mode="json"),
    }
    temporary = None
    try:
        (models / name).mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=models / name, prefix=".new-"))
        write_model(temporary / FILE, network, spec, shapes, card)
        card["sha256"] = hashlib.sha256((temporary / FILE).read_bytes()).hexdigest()
        (temporary / CARD).write_text(json.dumps(card, indent=2) + "\n")
        temporary.chmod(0o755)
        temporary.rename(models / name / str(number))
    except (OSError, SafetensorError) as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(f"version {number} of model '{name}' cannot be written: {error}") from error
    return number


def newest(models: Path, name: str) -> int | None:
    """Return the number of the newest version of a model, or ``None`` where there is none."""
    try:
        with os.scandir(models / name) as entries:
            return max((int(entry.name) for entry in entries if entry.name.isdecimal()), default=None)
    except FileNotFoundError:
        return None


def read_version(models: Path, name: str, number: int) -> Version:
    """Load a version. Raises `RunError` for one that is not there, or whose weights are not those of its card."""
    folder = models / name / str(number)
    try:
        card = json.loads((folder / CARD).read_text())
        if hashlib.sha256((folder / FILE).read_bytes()).hexdigest() != card["sha256"]:
            raise RunError(f"{folder}: the model is not the one that its card was written for; train it anew.")
        return Version(name, number, card, read_model(folder / FILE).network)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder} holds no model: {type(error).__name__}: {error}.") from error
