# SPDX-License-Identifier: Apache-2.0
"""The thread that records: it writes the blocks of committed steps to the disk, beside the folder and as one like it.

A step gives its credit back when it is written (or copied, a small one) and folded. So while the disk is slower than
the stream, ranks wait as they do for a slow fold, within the same bounds. A disk that does not take a step ends the
recording, with an event; steps go on to the folder.
"""

import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from insitu.errors import InsituError
from insitu.results.recording import RecordingWriter
from insitu.staging.assembler import Blocks, ReadyStep
from insitu.staging.folder import Folded
from insitu.wire.messages import Event, Finished

#: How often what was recorded is made safe from a crash. Each time costs some milliseconds for each rank and variable;
#: where they are so many that this would take more than a part of the time, it is done less often.
COMMIT_S = 2.0
COMMIT_PART = 0.1


@dataclass(frozen=True, slots=True)
class RecordingPlan:
    """Record the variables `of`, or all where ``"*"`` is among them, to the store at `path`, which is there."""

    path: Path
    of: frozenset[str]

    def chosen(self, blocks: Blocks) -> Blocks:
        """Return the blocks that are to be recorded."""
        if "*" in self.of:
            return blocks
        return {
            rank: {name: block for name, block in parts.items() if name in self.of} for rank, parts in blocks.items()
        }


class Recorder:
    """Records the steps of one `member` of `ranks` ranks on staging node `node`, in a thread of its own.

    Small blocks wait to be written together; `limit_bytes` bounds them. `done` is called from the recording thread.
    """

    cause = "recording"

    def __init__(
        self,
        member: int,
        ranks: int,
        plan: RecordingPlan,
        node: int,
        limit_bytes: int,
        done: Callable[[Folded], None],
    ) -> None:
        self.steps = 0
        self.nbytes = 0
        self._member = member
        self._ranks = ranks
        self._plan = plan
        self._node = node
        self._limit_bytes = limit_bytes
        self._done = done
        self._writer: RecordingWriter | None = None
        self._failed = False
        self._first_s: float | None = None
        self._commit_at = 0.0
        self._closing = threading.Event()
        self._work: queue.SimpleQueue[list[tuple[float, ReadyStep]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="insitu-recorder", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def status(self) -> dict[str, int | float | str]:
        """What the controller is told of the recording so far."""
        return {"recorded_steps": self.steps, "recorded_bytes": self.nbytes}

    def submit(self, steps: list[ReadyStep]) -> None:
        """Queue committed steps; they come in the order of their sequence."""
        now = time.monotonic()
        self._work.put([(now, ready) for ready in steps])

    def finish(self, steps: int) -> None:
        """Queue the end: what was queued before is recorded."""
        self._work.put([])

    def close(self) -> None:
        """End the thread, also with work in its queue, and wait for it. May be called twice."""
        self._closing.set()
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            item = self._work.get()
            if item is None:
                continue
            for came_s, ready in item:
                if not self._closing.is_set():
                    self._guarded(partial(self._write, came_s, ready))
                    self._done(Folded([ready], []))
            if not item or time.monotonic() > self._commit_at:
                self._guarded(self._commit)
            if not item:
                self._done(Folded([], [Finished(self._member)]))
        self._guarded(self._commit)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Write; what goes wrong there ends the recording only."""
        if self._failed:
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever the disk or its library says, the run goes on
            self._failed = True
            reason = str(error) if isinstance(error, InsituError) else f"{type(error).__name__}: {error}"
            text = f"the recording ends after {self.steps} steps: {reason}"
            details = {"reason": text, "traceback": traceback.format_exc()}
            self._done(Folded([], [Event("error", "recording-stopped", text, details)]))

    def _write(self, came_s: float, ready: ReadyStep) -> None:
        if self._writer is None:
            self._writer = RecordingWriter(self._plan.path, self._node, self._ranks, self._limit_bytes)
            self._first_s = came_s
        assert self._first_s is not None
        self._writer.write(ready.step, self._plan.chosen(ready.blocks), came_s - self._first_s)
        self.nbytes = self._writer.nbytes

    def _commit(self) -> None:
        begin = time.monotonic()
        if self._writer is not None:
            self._writer.commit()
            self.steps = self._writer.steps
        end = time.monotonic()
        self._commit_at = end + max(COMMIT_S, (end - begin) / COMMIT_PART)
