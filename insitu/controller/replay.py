# SPDX-License-Identifier: Apache-2.0
"""What ``insitu replay`` runs: a configuration whose simulation is a recording.

Everything else is a run like any other: staging nodes, controller, results, report. The ranks are those of
`insitu.controller.replayer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from insitu import config
from insitu.config import Config, Simulation
from insitu.config.model import Rules
from insitu.controller.directory import Directory
from insitu.controller.record import read_declared, to_replay_on
from insitu.errors import ConfigError
from insitu.model import Variable
from insitu.pipeline import Pipeline
from insitu.results.recorded import Recording
from insitu.steering.actions import Action

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
    #: Those of the recorded run, with their boundaries in this one, and what is to be said of those left out.
    actions: list[tuple[int, Action]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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


def replay(run: Path, path: str | None, overrides: Sequence[str], pace: Pace, *, actions: bool = False) -> Replay:
    """Return what replays the recording in the directory `run` by the configuration at `path`.

    Without a path it is the recorded run's own, under the name RUN-replay, and nothing is recorded again. With
    `actions` its parameters are declared, and set as they were. Raises `ConfigError` for a run without a recording, a
    configuration that is wrong or folds what was not recorded, and for one whose own directory is the recording's.
    """
    directory = Directory(run)
    recording = Recording(directory.recording)
    if path is None:
        loaded = config.load(directory.config, (f"run={run.resolve().name}-replay", *overrides))
        results = tuple(output for output in loaded.outputs if output.to != "record")
        # What was selected and narrowed before it was recorded is so already.
        # Steps are numbered as they were, unless some were dropped.
        whole = [recorded.step.sequence for recorded in recording.steps] == list(range(len(recording.steps)))
        thinned = {
            name: Rules(select={"step": rules.select["step"]})
            for name, rules in loaded.variables.items()
            if "step" in rules.select and whole
        }
        of_all = thinned.get("*", Rules()).model_copy(update={"buffer": loaded.buffering.buffer})
        results = results or Config.model_fields["outputs"].default
        loaded = loaded.model_copy(update={"outputs": results, "variables": {**thinned, "*": of_all}})
    else:
        loaded = config.load(path, overrides)
    if (Path(loaded.directory) / loaded.run).resolve() == run.resolve():
        raise ConfigError(f"{run}: this is the run that is replayed; give the new one another name: --set run=NAME")
    replaying = _replaying(loaded, recording, pace, directory.actions if actions else None)
    declared = _declared(directory.actions) if actions else {}
    Pipeline(replaying).describe({**declared, **recording.variables}, lacking="the recording holds no variable")
    if not actions:
        return Replay(replaying, recording, pace)
    indices = [recorded.step.index for recorded in recording.steps]
    return Replay(replaying, recording, pace, *to_replay_on(directory.actions, indices))


def _declared(actions: Path) -> dict[str, Variable]:
    """Return the parameters that a recorded run has declared, as a replay with its actions publishes them."""
    variables = (spec.variable for spec in read_declared(actions)[0])
    return {variable.name: variable for variable in variables if variable is not None}


def _replaying(loaded: Config, recording: Recording, pace: Pace, actions: Path | None) -> Config:
    command = ["python", "-m", "insitu.controller.replayer", str(recording.path.resolve()), pace]
    if actions is not None:
        command.append(str(actions.resolve()))
    ranks = Simulation(command=tuple(command), ranks=recording.ranks)
    patient = loaded.rules("*").model_copy(update={"max_wait": PATIENCE_S})
    return loaded.model_copy(update={"simulation": ranks, "variables": {**loaded.variables, "*": patient}})
