# SPDX-License-Identifier: Apache-2.0
"""The networks that a run trains, for the simulation to use while it runs.

They are read from the run's directory, which this rank must reach. Nothing of a network is imported before one is asked
for: a simulation that never asks needs no PyTorch.
"""

import importlib
from pathlib import Path
from typing import Any

from insitu.errors import LocalProtocolError

#: Who knows how versions lie on the disk.
VERSIONS = "analytics.nn.versions"


class Models:
    """The models of the run in `directory`, each in the version that was asked for last."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._loaded: dict[str, Any] = {}

    def get(self, name: str, version: int | None) -> Any:
        """Return a version of a model; the newest one, or ``None``, where none is named."""
        if not self._directory.is_dir():
            raise LocalProtocolError(
                f"model '{name}' is in {self._directory}, which this rank does not reach; run on a file system that "
                "all machines share."
            )
        versions = importlib.import_module(VERSIONS)
        models = self._directory / "models"
        number = versions.newest(models, name) if version is None else version
        known = self._loaded.get(name)
        if number is None or (known is not None and known.number == number):
            return known if number is not None else None
        self._loaded[name] = versions.read_version(models, name, number)
        return self._loaded[name]
