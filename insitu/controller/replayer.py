# SPDX-License-Identifier: Apache-2.0
"""One rank of a replay: ``python -m insitu.controller.replayer RECORDING PACE``, started by ``insitu replay``.

It calls the client as the recorded rank did: the same steps with the same blocks. A step that was dropped is published
empty, so that those behind it fall into the windows in which they were.
"""

import sys
import time
from pathlib import Path
from threading import Event

from insitu.client import Client, StepWriter
from insitu.client.launcher import rank_and_size
from insitu.model import Block
from insitu.results.recorded import Recording


def replay(path: Path, paced: bool) -> None:
    """Publish this rank's part of the recording at `path`."""
    recording = Recording(path)
    rank, _ = rank_and_size()
    blocks = recording.blocks_of(rank)
    with Client() as sim:
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
    replay(Path(sys.argv[1]), paced=sys.argv[2] == "recorded")
