# SPDX-License-Identifier: Apache-2.0
"""Steps on their way from one rank to its staging nodes.

Rule 1: the caller's arrays are copied once, into pooled buffers, and are the caller's again when `put` returns.

Rule 2: there is no thread. Everything moves when the simulation calls the client; between two calls ZeroMQ's own I/O
thread goes on sending what was handed to it. (ADR 0004 says why.)

Rule 3: every wait has a bound, `max_wait_s`, and a name. When it has run out, this and the following steps are dropped
at once, without waiting again, until a staging node shows progress: a dead staging side costs one wait, not one a step.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from insitu.budget import Budget
from insitu.client.controller import ControllerLink
from insitu.client.link import NodeLink
from insitu.client.pool import Buffer, Pool, size_class
from insitu.errors import RunError
from insitu.model import Array, Step
from insitu.wire.messages import BlockSpec, Dropped, Layout, Publish, Status
from insitu.wire.sockets import poll

log = logging.getLogger("insitu.client")

#: A wait this long is worth a line in the simulation's own log, so that nobody has to guess why it stands still.
SAY_AFTER_S = 5.0
#: How often the controller hears how this rank does.
STATUS_S = 0.5
#: How long one poll may last; long enough to cost nothing, short enough that a wait's end is seen.
_POLL_S = 0.1


@dataclass(slots=True)
class _Block:
    """A block that was put: where it lies, and our copy of it."""

    spec: BlockSpec
    spec_id: int
    buffer: Buffer
    data: Array

    def part(self, rows: slice) -> memoryview | Array:
        """Return some of the rows, as they are to be sent.

        The number of a joined variable's rows changes from step to step, and so no part of it is met again.
        """
        if self.spec.variable.joined:
            return self.data[rows]
        row_bytes = self.data.nbytes // max(1, len(self.data))
        return self.buffer.part(rows.start * row_bytes, rows.stop * row_bytes)


@dataclass(slots=True)
class _Kept:
    """The buffers of a step that not all of its staging nodes have received yet."""

    nbytes: int
    buffers: list[Buffer]
    links: int


class Publisher:
    """Takes the steps of one rank and brings them to its staging nodes within the budgets.

    `rank` is for messages.
    """

    def __init__(
        self,
        rank: int,
        *,
        buffer_bytes: int,
        max_wait_s: float,
        then: str,
        controller: ControllerLink,
    ) -> None:
        self.links: list[NodeLink] = []
        self.counters = {"steps": 0, "dropped": 0, "put_bytes": 0, "wait_staging_s": 0.0, "wait_network_s": 0.0}
        self.budget = Budget(buffer_bytes)
        self._rank = rank
        self._max_wait_s = max_wait_s
        self._then = then
        self._controller = controller
        self._pool = Pool(buffer_bytes)
        self._kept: dict[int, _Kept] = {}
        self._layouts: dict[tuple[int, ...], int] = {}
        self._shedding = False
        self._said_at = time.monotonic()
        self._last_bytes = 0
        self._step: Step | None = None
        self._blocks: dict[str, _Block] = {}
        self._taken_bytes = 0
        self._lost: str | None = None

    def received(self, sequence: int) -> None:
        """One staging node has all that it gets of a step."""
        self._shedding = False
        kept = self._kept[sequence]
        kept.links -= 1
        if kept.links == 0:
            del self._kept[sequence]
            self.budget.give(kept.nbytes)
            for buffer in kept.buffers:
                self._pool.give(buffer)

    def pump(self, wait_s: float = 0.0) -> None:
        """Wait for news, at most `wait_s`; take in what the others said, and send what may be sent."""
        # One look at all sockets costs less than one failing attempt to receive.
        ready = poll([self._controller.socket, *(link.socket for link in self.links)], wait_s)
        if self._controller.socket in ready:
            self._controller.listen()
        for link in self.links:
            if link.socket in ready:
                link.listen()
            link.send()

    def open(self, step: Step) -> None:
        """Begin a step: the budget is asked for as much as the step before took, so that a full one is noticed here."""
        self._step, self._lost = step, None
        self.pump()
        self._make_room(min(self._last_bytes, self.budget.limit_bytes))

    def put(self, spec: BlockSpec, spec_id: int, data: Array) -> None:
        """Copy one block. Once the step is lost this does nothing."""
        nbytes = data.nbytes
        self._make_room(size_class(nbytes))
        if self._lost is not None:
            return
        buffer = self._pool.take(nbytes)
        self.budget.take(buffer.nbytes)
        self._taken_bytes += buffer.nbytes
        copy = buffer.array(spec.variable.dtype, data.shape, nbytes)
        np.copyto(copy, data, casting="equiv")
        self._blocks[spec.variable.name] = _Block(spec, spec_id, buffer, copy)

    def has(self, name: str) -> bool:
        """Whether the open step has a block of this variable."""
        return name in self._blocks

    def close(self) -> None:
        """End the step: queue it for its staging nodes, whole, or say that it is dropped."""
        assert self._step is not None
        messages = self._messages(self._step) if self._lost is None else []
        if self._lost is None:
            self._queue(self._step, messages)
        else:
            self._drop(self._step, self._lost)
        self._last_bytes, self._taken_bytes = self._taken_bytes, 0
        self._step, self._blocks = None, {}
        self.counters["steps"] += 1
        if time.monotonic() - self._said_at > STATUS_S:
            self._said_at = time.monotonic()
            self._controller.say(Status(dict(self.counters)))
        for link in self.links:
            link.send()

    def abandon(self, reason: str) -> None:
        """End the step without its data: it will be seen by nobody."""
        self._lost = reason
        self.close()

    def finish(self, steps: int) -> None:
        """Bring out what is queued, for at most `max_wait_s`, then detach from the staging nodes."""
        if not self._wait(lambda: all(link.idle for link in self.links), "the last steps to be received"):
            log.warning("rank %d ends with %d steps that no staging node acknowledged", self._rank, len(self._kept))
        for link in self.links:
            link.detach(steps)
            link.send()

    def _messages(self, step: Step) -> list[tuple[NodeLink, Publish, int]]:
        """Cut the step into one message for each staging node; if one can never take its part, the step is lost."""
        blocks = list(self._blocks.values())
        layout = self._layout([block.spec_id for block in blocks], [block.spec for block in blocks])
        messages = []
        for link in self.links:
            parts = tuple(
                block.part(link.part.rows(len(block.data))) if block.data.ndim else block.data
                for block in blocks
                if _goes_to(link, block.spec, self._rank)
            )
            nbytes = sum(part.nbytes for part in parts)
            if not link.accepts(nbytes):
                self._lose(
                    f"its {nbytes} bytes exceed the credit of {link.credit_bytes} bytes at staging node "
                    f"{link.part.node}; raise staging.memory or staging.nodes"
                )
            messages.append((link, Publish(step.sequence, step.index, step.time, layout, parts), nbytes))
        return messages

    def _queue(self, step: Step, messages: list[tuple[NodeLink, Publish, int]]) -> None:
        buffers = [block.buffer for block in self._blocks.values()]
        self._kept[step.sequence] = _Kept(self._taken_bytes, buffers, len(messages))
        for link, message, nbytes in messages:
            link.publish(message, nbytes)
        self.counters["put_bytes"] += sum(block.data.nbytes for block in self._blocks.values())

    def _layout(self, spec_ids: Sequence[int], specs: Sequence[BlockSpec]) -> int:
        """Return the number of this combination of blocks; a new one is announced to all."""
        key = tuple(spec_ids)
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = len(self._layouts)
            self._controller.say(Layout(layout, tuple(specs)))
            for link in self.links:
                parts = tuple(_part_of(spec, link) for spec in specs if _goes_to(link, spec, self._rank))
                link.layout(Layout(layout, parts))
        return layout

    def _make_room(self, nbytes: int) -> None:
        """Wait until `nbytes` fit the buffer; if they will not, the step is lost."""
        if self._lost is not None or self.budget.fits(nbytes):
            return
        if not self.budget.could_fit(self._taken_bytes + nbytes):
            self._lose(f"it needs more than the buffer of {self.budget.limit_bytes} bytes; raise variables.'*'.buffer")
        elif not self._wait(lambda: self.budget.fits(nbytes), "room in its buffer"):
            self._lose(f"no room in its buffer of {self.budget.limit_bytes} bytes after {self._max_wait_s:g} s")

    def _lose(self, reason: str) -> None:
        if self._then == "abort":
            raise RunError(f"Rank {self._rank} at step {self._step and self._step.index}: {reason} (then: abort).")
        self._lost = reason

    def _drop(self, step: Step, reason: str) -> None:
        for block in self._blocks.values():
            self._pool.give(block.buffer)
        self.budget.give(self._taken_bytes)
        if self.counters["dropped"] == 0:
            log.warning("rank %d drops step %d: %s", self._rank, step.index, reason)
        self.counters["dropped"] += 1
        self._controller.say(Dropped(step.sequence, step.index, step.time, reason))

    def _wait(self, done: Callable[[], bool], what: str) -> bool:
        """Pump until `done` or for `max_wait_s`; not at all while shedding."""
        begin = now = time.monotonic()
        said = False
        while not done():
            self._shedding = self._shedding or now - begin > self._max_wait_s
            if self._shedding:
                return False
            if now - begin > SAY_AFTER_S and not said:
                said = True
                log.warning("rank %d waits at step %s for %s: %s", self._rank, self._where, what, self._culprit())
            starved = any(link.starved for link in self.links)
            self.pump(min(_POLL_S, self._max_wait_s))
            before, now = now, time.monotonic()
            self.counters["wait_staging_s" if starved else "wait_network_s"] += now - before
        return True

    @property
    def _where(self) -> int | str:
        return self._step.index if self._step else "end"

    def _culprit(self) -> str:
        """Name whom this rank waits for."""
        return ", ".join(
            f"staging node {link.part.node} "
            + (f"has used up its credit of {link.credit_bytes} bytes" if link.starved else "has not acknowledged")
            for link in self.links
            if not link.idle
        )


def _goes_to(link: NodeLink, spec: BlockSpec, rank: int) -> bool:
    """A 0-d block goes from rank 0 to one node; of all others each node gets its rows, be they none."""
    return spec.variable.ndim > 0 or (rank == 0 and link.part.high == link.part.of)


def _part_of(spec: BlockSpec, link: NodeLink) -> BlockSpec:
    """Where the rows of a block lie that go to a staging node."""
    if spec.variable.ndim == 0:
        return spec
    rows = link.part.rows(spec.count[0])
    start = (spec.start[0] if spec.variable.joined else spec.start[0] + rows.start, *spec.start[1:])
    return BlockSpec(spec.variable, start, (rows.stop - rows.start, *spec.count[1:]))
