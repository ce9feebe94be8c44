# SPDX-License-Identifier: Apache-2.0
"""The directory of a run: what it leaves behind, and that nothing of an earlier one is lost.

====================  =====================================================================
``config.yaml``       the configuration with all defaults
``contact.json``      where the run is found, while it lasts
``results.zarr``      results, a group for each operator
``recording.zarr``    blocks as they came, where they are recorded
``actions.jsonl``     what was asked of the simulation, and what became of it
``log.jsonl``         what happened, one JSON object a line
``output``            what the simulation's processes wrote, a file for each stream
``report.json``       counts, times, drops, versions and the exit status
``snapshot.json``     how the run did at its end, as its dashboard showed it
====================  =====================================================================
"""

import json
import shutil
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from insitu.errors import ConfigError
from insitu.wire.messages import Event


class Directory:
    """The paths of one run's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.contact = path / "contact.json"
        self.results = path / "results.zarr"
        self.recording = path / "recording.zarr"
        self.actions = path / "actions.jsonl"
        self.log = path / "log.jsonl"
        self.output = path / "output"
        self.report = path / "report.json"
        self.snapshot = path / "snapshot.json"
        self._earlier = path.with_name(f".{path.name}.earlier")

    def create(self, config: str, *, force: bool) -> None:
        """Make the directory of a new run, with its resolved configuration.

        Raises `ConfigError` where one is there and where it cannot be made. With `force` one that is there is set
        aside, if it is the directory of a run: `begin` removes it, `remove` puts it back.
        """
        try:
            if self._earlier.exists() and not self.path.exists():
                self._earlier.rename(self.path)  # a call was killed between setting it aside and going on
            if self.path.exists():
                self._set_aside(force)
            self.path.mkdir(parents=True)
            self.config.write_text(config)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: the run's directory cannot be made ({error.strerror}); choose another place: "
                "--set directory=PATH"
            ) from error

    def begin(self) -> None:
        """The run begins: what the run of this name before has left is of no use any more."""
        shutil.rmtree(self._earlier, ignore_errors=True)

    def remove(self) -> None:
        """Take away the directory of a run that never began, as far as it can be: why it did not is to be heard."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self._earlier.rename(self.path)

    def _set_aside(self, force: bool) -> None:
        if not force:
            raise ConfigError(
                f"{self.path}: this run's directory is there already; replace it by --force, or choose another name: "
                "--set run=NAME"
            )
        if not self.config.exists():
            raise ConfigError(f"{self.path}: holds no config.yaml, so it is no run's directory; remove it yourself")
        if self._earlier.exists():  # a call was killed before its run began: this is all that it left
            shutil.rmtree(self.path)
        else:
            self.path.rename(self._earlier)

    def write_report(self, report: dict[str, Any]) -> None:
        self.report.write_text(json.dumps(report, indent=2) + "\n")

    def write_snapshot(self, snapshot: dict[str, Any]) -> None:
        self.snapshot.write_text(json.dumps(snapshot) + "\n")


class Journal:
    """Appends to ``log.jsonl``. May be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()
        self._begin = time.monotonic()

    def write(self, source: str, event: Event) -> None:
        """Add what `source` (controller, staging node 0, rank 3) has to say."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "since_start_s": round(time.monotonic() - self._begin, 3),
            "source": source,
            "level": event.level,
            "kind": event.kind,
            "text": event.text,
            **event.details,
        }
        with self._lock:
            self._file.write(json.dumps(line, default=str) + "\n")

    def close(self) -> None:
        self._file.close()
