# SPDX-License-Identifier: Apache-2.0
"""One rank of a replay, started by ``insitu replay``:

    python -m insitu.controller.replayer RECORDING PACE [ACTIONS]

It calls the client as the recorded rank did: the same steps with the same blocks. A step that was dropped is published
empty, so that those behind it fall into the windows in which they were. With the record of the run's actions it
declares its parameters too; its own actions are called, and do nothing.
"""

import sys
import time
from pathlib import Path
from threading import Event
from typing import Any

from insitu.client import Client, StepWriter
from insitu.client.launcher import rank_and_size
from insitu.controller.record import read_declared
from insitu.model import Block
from insitu.results.recorded import Recording
from insitu.steering.parameters import ParameterSpec


def replay(path: Path, paced: bool, actions: Path | None = None) -> None:
    """Publish this rank's part of the recording at `path`."""
    recording = Recording(path)
    rank, _ = rank_and_size()
    blocks = recording.blocks_of(rank)
    with Client() as sim:
        if actions is not None:
            _declare(sim, actions)
        begin = time.monotonic()
        for recorded in recording.steps:
            if paced:
                Event().wait(max(0.0, begin + recorded.elapsed_s - time.monotonic()))
            with sim.step(recorded.step.index, time=recorded.step.time) as step:
                if isinstance(step, StepWriter):
                    for block in blocks.at(recorded.step.sequence):
                        _put(step, block)
            if sim.stopping:
                return


def _declare(sim: Client, actions: Path) -> None:
    parameters, functions = read_declared(actions)
    for spec in parameters:
        if spec.kind != "field":
            sim.parameter(spec.name, spec.default, **_rest(spec))  # type: ignore[arg-type]
    for name, arguments in functions.items():
        if name == "checkpoint":
            sim.on_checkpoint(lambda: None)
        else:
            sim.action(
                name, lambda **_: None, **{each.name: {"default": each.default, **_rest(each)} for each in arguments}
            )


def _rest(spec: ParameterSpec) -> dict[str, Any]:
    names = ("minimum", "maximum", "choices", "units", "description")
    return {name: getattr(spec, name) for name in names}


def _put(step: StepWriter, block: Block) -> None:
    variable = block.variable
    placed = variable.shape or None
    step.put(
        variable.name,
        block.data,
        start=block.start if placed else None,
        shape=placed,
        dims=variable.dims,
        units=variable.units,
        long_name=variable.long_name,
    )


if __name__ == "__main__":
    replay(Path(sys.argv[1]), paced=sys.argv[2] == "recorded", actions=Path(sys.argv[3]) if sys.argv[3:] else None)
