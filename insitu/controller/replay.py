# SPDX-License-Identifier: Apache-2.0
"""What ``insitu replay`` runs: a configuration whose simulation is a recording.

Everything else is a run like any other: staging nodes, controller, results, report. The ranks are those of
`insitu.controller.replayer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from insitu import config
from insitu.config import Config, Simulation
from insitu.config.model import Rules
from insitu.controller.directory import Directory
from insitu.errors import ConfigError
from insitu.pipeline import Pipeline
from insitu.results.recorded import Recording

#: ``full``: as fast as the staging nodes take them; ``recorded``: as far apart in time as they came.
Pace = Literal["full", "recorded"]
#: A rank that replays has nothing better to do than to wait for room: nothing is ever dropped.
PATIENCE_S = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Replay:
    """A recording, and the configuration that replays it."""

    config: Config
    recording: Recording
    pace: Pace

    @property
    def report(self) -> dict[str, Any]:
        """What the report says of where the steps came from."""
        recording = self.recording
        return {
            "of": str(recording.path),
            "pace": self.pace,
            "steps": len(recording.steps),
            "left_out": recording.left_out,
        }


def replay(run: Path, path: str | None, overrides: Sequence[str], pace: Pace) -> Replay:
    """Return what replays the recording in the directory `run` by the configuration at `path`.

    Without a path it is the recorded run's own, under the name RUN-replay, and nothing is recorded again. Raises
    `ConfigError` for a run without a recording, a configuration that is wrong or folds what was not recorded, and for
    one whose own directory is that of the recording.
    """
    directory = Directory(run)
    recording = Recording(directory.recording)
    if path is None:
        loaded = config.load(directory.config, (f"run={run.resolve().name}-replay", *overrides))
        results = tuple(output for output in loaded.outputs if output.to != "record")
        # What was selected and narrowed before it was recorded is so already.
        buffer = {"*": Rules(buffer=loaded.buffering.buffer)}
        results = results or Config.model_fields["outputs"].default
        loaded = loaded.model_copy(update={"outputs": results, "variables": buffer})
    else:
        loaded = config.load(path, overrides)
    if (Path(loaded.directory) / loaded.run).resolve() == run.resolve():
        raise ConfigError(f"{run}: this is the run that is replayed; give the new one another name: --set run=NAME")
    replaying = _replaying(loaded, recording, pace)
    Pipeline(replaying).describe(recording.variables, lacking="the recording holds no variable")
    return Replay(replaying, recording, pace)


def _replaying(loaded: Config, recording: Recording, pace: Pace) -> Config:
    command = ["python", "-m", "insitu.controller.replayer", str(recording.path.resolve()), pace]
    ranks = Simulation(command=tuple(command), ranks=recording.ranks)
    patient = loaded.rules("*").model_copy(update={"max_wait": PATIENCE_S})
    return loaded.model_copy(update={"simulation": ranks, "variables": {**loaded.variables, "*": patient}})
