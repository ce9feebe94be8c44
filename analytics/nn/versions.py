# SPDX-License-Identifier: Apache-2.0
"""Models of a run on the disk: ``models/NAME/VERSION/`` holds the weights and a card that says what they are.

``weights.safetensors`` is what `analytics.nn.learning.Network` holds, normalisation included. ``card.json`` says from
what it was made, and has its checksum: who loads a version finds out that it is whole, and what it takes and gives.
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
from pydantic import ValidationError

from analytics.nn.learning import Network, outputs_of
from analytics.nn.models import build
from analytics.nn.needs import torch
from analytics.nn.normalising import Normaliser
from analytics.nn.samples import Shapes
from analytics.nn.specs import Training, training
from insitu.errors import OperatorError, RunError
from insitu.model import Array

try:
    from safetensors.torch import load, save
except ModuleNotFoundError as error:
    raise OperatorError('models need safetensors, which is not installed: pip install "insitu[train]"') from error

WEIGHTS, CARD = "weights.safetensors", "card.json"
#: Samples that go through a network at once.
AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a trained network, as it was written. Takes and gives raw values, as they are on the stream."""

    name: str
    version: int
    card: Mapping[str, Any]
    network: Network

    def __call__(self, inputs: Any) -> Array:
        """Return what it makes of inputs of shape (n, *inputs), or of one sample: float32.

        Raises `OperatorError` for another shape.
        """
        given, shape = np.asarray(inputs, np.float32), tuple(self.card["inputs"]["shape"])
        if given.shape != shape and given.shape[1:] != shape:
            raise OperatorError(f"model '{self.name}' takes inputs of shape {shape} (or several), got {given.shape}")
        several = np.ascontiguousarray(given).reshape(-1, *shape)
        groups = (several[first : first + AT_ONCE] for first in range(0, len(several), AT_ONCE))
        with torch.inference_mode():
            parts = [self.network(torch.from_numpy(group)).numpy() for group in groups]
        made: Array = np.concatenate(parts) if parts else np.empty((0, *self.card["outputs"]["shape"]), np.float32)
        return made[0] if given.shape == shape else made


def write_version(
    models: Path, name: str, network: Network, spec: Training, shapes: Shapes, about: Mapping[str, Any]
) -> int:
    """Write a network as the next version of model `name`, with a card that holds `about`; return its number.

    The folder of a version is there whole or not at all. Raises `RunError` where the disk does not take it.
    """
    weights = save({key: part.contiguous() for key, part in network.state_dict().items()})
    version = (newest(models, name) or 0) + 1
    card = {
        "model": name,
        "version": version,
        "inputs": {"shape": list(shapes.inputs)},
        "outputs": {"shape": list(outputs_of(spec, shapes))},
        "targets": None if shapes.targets is None else list(shapes.targets),
        "training": spec.model_dump(mode="json", include=set(Training.model_fields)),
        "sha256": hashlib.sha256(weights).hexdigest(),
        **about,
    }
    temporary = None
    try:
        (models / name).mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=models / name, prefix=".new-"))
        for file, data in ((WEIGHTS, weights), (CARD, (json.dumps(card, indent=2) + "\n").encode())):
            with (temporary / file).open("wb") as written:
                written.write(data)
                written.flush()
                os.fsync(written.fileno())
        temporary.chmod(0o755)
        temporary.rename(models / name / str(version))
    except OSError as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(f"Version {version} of model '{name}' cannot be written: {error.strerror}.") from error
    return version


def newest(models: Path, name: str) -> int | None:
    """Return the number of the newest version of a model, or ``None`` where there is none."""
    try:
        versions = [int(entry.name) for entry in os.scandir(models / name) if entry.name.isdecimal()]
    except FileNotFoundError:
        return None
    return max(versions, default=None)


def read_version(models: Path, name: str, version: int) -> Model:
    """Load a version. Raises `RunError` for one that is not there, or whose weights are not those of its card."""
    folder = models / name / str(version)
    try:
        card = json.loads((folder / CARD).read_text())
        weights = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(weights).hexdigest() != card["sha256"]:
            raise RunError(f"{folder}: the weights are not those that the card was written for; train it anew.")
        spec = training(**card["training"])
        targets = card["targets"]
        shapes = Shapes(tuple(card["inputs"]["shape"]), None if targets is None else tuple(targets))
        return Model(name, version, card, _network(spec, shapes, load(weights)))
    except (OSError, ValueError, KeyError, TypeError, ValidationError, RuntimeError) as error:
        raise RunError(f"{folder} holds no model: {type(error).__name__}: {error}.") from error


def _network(spec: Training, shapes: Shapes, weights: Mapping[str, torch.Tensor]) -> Network:
    per = spec.normalise.per
    inputs = Normaliser(shapes.inputs, per)
    outputs: Normaliser | None = None
    if spec.loss.kind != "cross_entropy":
        outputs = inputs if shapes.targets is None else Normaliser(shapes.targets, per)
    network = Network(build(spec.model, shapes.inputs, outputs_of(spec, shapes), spec.seed), inputs, outputs)
    network.load_state_dict(dict(weights))
    return network.eval()
