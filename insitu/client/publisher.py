# SPDX-License-Identifier: Apache-2.0
"""Steps on their way from one rank to its staging nodes.

Rule 1: the caller's arrays are copied once, into pooled buffers, and are the caller's again when `put` returns.

Rule 2: there is no thread. Everything moves when the simulation calls the client; between two calls ZeroMQ's own I/O
thread goes on sending what was handed to it. (ADR 0004 says why.)

Rule 3: what happens to a step without room is the policy's to say (`insitu.client.policy`). Every wait has a bound,
`max_wait_s`, and a name. When it has run out, this and the following steps are dropped at once, without waiting again,
until a staging node shows progress: a dead staging side costs one wait, not one a step.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np

from insitu.client.contract import Contract
from insitu.client.controller import ControllerLink
from insitu.client.link import NodeLink
from insitu.client.policy import Policy
from insitu.client.pool import Pool, Slot
from insitu.errors import InsituError, RunError
from insitu.model import Array, Extent, Step
from insitu.plan import Part
from insitu.wire.messages import BlockSpec, Buffer, Dropped, Layout, Publish, PublishLent, Status
from insitu.wire.segment import Segment
from insitu.wire.sockets import poll

log = logging.getLogger("insitu.client")

T = TypeVar("T")

#: A wait this long is worth a line in the simulation's own log, so that nobody has to guess why it stands still.
SAY_AFTER_S = 5.0
#: How often the controller hears how this rank does.
STATUS_S = 0.5
#: How often a step that needs nothing looks for news; a look costs as much as copying 64 KiB.
PUMP_S = 0.00025
#: How long one poll may last; long enough to cost nothing, short enough that a wait's end is seen.
_POLL_S = 0.1
_ROOM = "room in its buffer"
_ELSEWHERE = "another rank has dropped it"


@dataclass(slots=True)
class _Kept:
    """The slots of a step that not all of its staging nodes are done with yet."""

    step: Step
    slots: list[Slot]
    links: int


@dataclass(frozen=True, slots=True)
class _Put:
    """A block of the open step: where it lies in its array and in the arena, and a view of it there."""

    spec: BlockSpec
    spec_id: int
    slot: Slot
    data: Array

    def place(self, part: Part) -> tuple[int, int]:
        """Return offset and size in the arena of the rows that go to a staging node."""
        if self.data.ndim == 0:
            return self.slot.offset, self.data.nbytes
        rows, row_bytes = part.rows(len(self.data)), self.data.nbytes // max(1, len(self.data))
        return self.slot.offset + rows.start * row_bytes, (rows.stop - rows.start) * row_bytes


class Publisher:
    """Takes the steps of one rank and brings them to its staging nodes within the budgets.

    They wait in `segment`, memory that staging nodes of this machine can map, or in `buffer_bytes` of this process's
    own. `rank` is for messages.
    """

    def __init__(
        self,
        rank: int,
        *,
        buffer_bytes: int,
        segment: Segment | None,
        max_wait_s: float,
        policy: Policy,
        then: str,
        controller: ControllerLink,
        contract: Contract,
    ) -> None:
        self.links: list[NodeLink] = []
        self.counters = {"steps": 0, "dropped": 0, "put_bytes": 0, "wait_staging_s": 0.0, "wait_network_s": 0.0}
        self._rank = rank
        self._max_wait_s = max_wait_s
        self._policy = policy
        self._then = then
        self._controller = controller
        self._contract = contract
        self._segment = segment
        self._pool = Pool(np.empty(buffer_bytes, np.uint8) if segment is None else segment.data)
        self._kept: dict[int, _Kept] = {}
        self._layouts: dict[tuple[int, ...], int] = {}
        self._shedding = False
        self._said_at = self._pumped_at = self._finished_at = time.monotonic()
        self._last_bytes = 0
        self._step: Step | None = None
        self._puts: dict[str, _Put] = {}
        self._lost: str | None = None

    def meet(self, timeout_s: float) -> None:
        """Wait for all staging nodes to say how much they take: only then is it known which step is too large."""
        deadline = time.monotonic() + timeout_s
        while not all(link.met for link in self.links):
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                nodes = ", ".join(str(link.part.node) for link in self.links if not link.met)
                log.warning("rank %d: no answer from staging node %s within %g s", self._rank, nodes, timeout_s)
                return
            self.pump(min(_POLL_S, remaining_s))

    def done(self, sequence: int) -> None:
        """One staging node needs a step's memory no more."""
        self._shedding = False
        kept = self._kept[sequence]
        kept.links -= 1
        if kept.links == 0:
            del self._kept[sequence]
            for slot in kept.slots:
                self._pool.give(slot)

    def pump(self, wait_s: float = 0.0) -> None:
        """Wait for news, at most `wait_s`; take in what the others said, and send what may be sent."""
        self._pumped_at = time.monotonic()
        # One look at all sockets costs less than one failing attempt to receive.
        ready = poll([self._controller.socket, *(link.socket for link in self.links)], wait_s)
        if self._controller.socket in ready:
            self._controller.listen()
            self._skip()
        for link in self.links:
            if link.socket in ready:
                link.listen()
            link.send()
        if self._segment is not None and self._segment.named and all(link.lent is not None for link in self.links):
            self._segment.unlink()

    def close_links(self) -> None:
        """Leave the staging nodes; what was sent has some seconds to leave, but not towards one that is silent."""
        for link in self.links:
            if link.idle or link.heard_at > self._finished_at:
                link.socket.close()
            else:
                link.socket.close(linger_s=0)

    def look(self) -> None:
        """Look for news, unless that was done just now."""
        if time.monotonic() - self._pumped_at > PUMP_S:
            self.pump()

    def close_memory(self) -> None:
        """Let go of the memory; staging nodes that have mapped it keep it until they are done."""
        if self._segment is not None:
            self._segment.unlink()
            self._segment.close()

    def open(self, step: Step) -> None:
        """Begin a step: room is looked for as much as the step before took, so that a full buffer is noticed here."""
        self._step, self._lost = step, None
        self.look()
        if step.sequence in self._controller.skipped:
            self._controller.skipped.remove(step.sequence)
            self._lost = _ELSEWHERE
        elif not self._room(lambda: self._pool.fits(self._last_bytes)):
            self._lose(self._no_room())

    def put(self, spec: BlockSpec, spec_id: int, data: Array) -> None:
        """Copy one block, into the dtype of its variable. Once the step is lost this does nothing."""
        copy = self.empty(spec, spec_id, data.shape)
        if copy is not None:
            np.copyto(copy, data, casting="same_kind")

    def empty(self, spec: BlockSpec, spec_id: int, count: Extent) -> Array | None:
        """Return the memory of one block, to be filled before the step is closed; ``None`` once the step is lost."""
        dtype = spec.variable.dtype
        slot = self._slot(prod(count) * dtype.itemsize)
        if slot is None:
            return None
        data = self._pool.array(slot, dtype, count)
        self._puts[spec.variable.name] = _Put(spec, spec_id, slot, data)
        return data

    def close(self) -> None:
        """End the step: queue it for its staging nodes, whole, or say that it is dropped."""
        assert self._step is not None
        messages: list[tuple[NodeLink, Publish | PublishLent, int]] = []
        try:
            if self._lost is None:
                messages = self._messages(self._step)
        except InsituError as error:
            self._lost = self._lost or str(error)
            raise
        finally:  # a step that ends the simulation is dropped like any other
            self._end(self._step, messages)

    def abandon(self, reason: str) -> None:
        """End the step without its data: it will be seen by nobody."""
        self._lost = self._lost or reason
        self.close()

    def finish(self, steps: int) -> None:
        """Bring out what is queued, for at most `max_wait_s`, then detach from the staging nodes."""
        self._finished_at = time.monotonic()
        if not self._wait(lambda: all(link.idle for link in self.links), "the last steps to be received"):
            log.warning("rank %d ends with %d steps that no staging node acknowledged", self._rank, len(self._kept))
            self._give_up()
        for link in self.links:
            link.detach(steps)
            link.send()

    def report(self) -> None:
        """Tell the controller how this rank does."""
        self._controller.say(Status(dict(self.counters)))
        sent = sum((link.sent for link in self.links), Counter[str]())
        lossless = sum((link.encoder.lossless for link in self.links), Counter[str]())
        self._controller.say(self._contract.tally(sent, lossless))

    def _give_up(self) -> None:
        """Say of the steps that not all of their staging nodes were sent that nobody will have them."""
        unsent = {message.sequence: message for link in self.links for message in link.unsent}
        for message in unsent.values():
            self.counters["dropped"] += 1
            reason = "it had not left its rank's buffer when the rank ended"
            self._controller.say(Dropped(message.sequence, message.index, message.time, reason))

    def _end(self, step: Step, messages: list[tuple[NodeLink, Publish | PublishLent, int]]) -> None:
        if self._lost is None:
            self._queue(step, messages)
        else:
            self._drop(step, self._lost)
        self._last_bytes = sum(put.slot.nbytes for put in self._puts.values())
        self._step, self._lost, self._puts = None, None, {}
        self.counters["steps"] += 1
        if time.monotonic() - self._said_at > STATUS_S:
            self._said_at = time.monotonic()
            self.report()
        for link in self.links:
            link.send()

    def _messages(self, step: Step) -> list[tuple[NodeLink, Publish | PublishLent, int]]:
        """Cut the step into one message for each staging node; if one can never take its part, the step is lost."""
        puts = list(self._puts.values())
        layout = self._layout([put.spec_id for put in puts], [put.spec for put in puts])
        messages: list[tuple[NodeLink, Publish | PublishLent, int]] = []
        for link in self.links:
            some = [put for put in puts if _goes_to(link, put.spec, self._rank)]
            places = tuple(put.place(link.part) for put in some)
            nbytes = sum(size for _, size in places)
            if not link.accepts(nbytes):
                self._lose(
                    f"its {nbytes} bytes exceed the credit of {link.credit_bytes} bytes at staging node "
                    f"{link.part.node}; raise staging.memory or staging.nodes"
                )
            fields = (step.sequence, step.index, step.time, layout)
            if link.lent:
                messages.append((link, PublishLent(*fields, places), nbytes))
            else:
                buffers = tuple(self._buffer(put, *place) for put, place in zip(some, places, strict=True))
                messages.append((link, Publish(*fields, buffers), nbytes))
        return messages

    def _buffer(self, put: _Put, offset: int, nbytes: int) -> Buffer:
        """Return a part of a block as it is to be sent over tcp.

        The number of a joined variable's rows changes from step to step, and so no part of it is met again.
        """
        if put.spec.variable.joined:
            return self._pool.arena[offset : offset + nbytes]
        return self._pool.part(offset, nbytes)

    def _queue(self, step: Step, messages: list[tuple[NodeLink, Publish | PublishLent, int]]) -> None:
        while self._policy.keeps_one and self._withdraw_oldest():
            pass
        self._kept[step.sequence] = _Kept(step, [put.slot for put in self._puts.values()], len(messages))
        for link, message, nbytes in messages:
            link.publish(message, nbytes)
        self.counters["put_bytes"] += sum(put.data.nbytes for put in self._puts.values())

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

    def _slot(self, nbytes: int) -> Slot | None:
        """Return room for a block, waiting for it where there is none; without any the step is lost."""
        if self._lost is not None:
            return None
        slot = self._pool.take(nbytes)
        if slot is None:
            own_bytes = sum(put.slot.nbytes for put in self._puts.values())
            if not self._pool.could_fit(own_bytes + nbytes):
                self._lose(
                    f"it needs more than the buffer of {self._pool.limit_bytes} bytes; raise variables.'*'.buffer"
                )
            else:
                slot = self._room(lambda: self._pool.take(nbytes))
                if slot is None:
                    self._lose(self._no_room())
        return slot

    def _room(self, look: Callable[[], T | None]) -> T | None:
        """Look for room, and if there is none do for it what the policy says."""
        assert self._step is not None
        found = look()
        if not found and not self._policy.waits(self._step.sequence):
            self.pump()
            found = look()
        while not found and self._policy.replaces and self._withdraw_oldest():
            found = look()
        if not found and self._policy.waits(self._step.sequence):
            found = self._wait(look, _ROOM)
        return found

    def _withdraw_oldest(self) -> bool:
        """Drop the oldest step that no staging node was sent any part of; return whether there was one."""
        oldest = [link.oldest_unsent for link in self.links]
        unsent = [sequence for sequence in oldest if sequence is not None]
        if len(unsent) < len(oldest):
            return False
        sequence = max(unsent)
        step = self._withdraw(sequence)
        reason = f"a newer one took its place (policy: {self._policy.name})"
        self._controller.say(Dropped(sequence, step.index, step.time, reason))
        return True

    def _withdraw(self, sequence: int) -> Step:
        """Forget a step that waits; its memory is free."""
        kept = self._kept.pop(sequence)
        for link in self.links:
            link.withdraw(sequence)
        for slot in kept.slots:
            self._pool.give(slot)
        self.counters["dropped"] += 1
        return kept.step

    def _skip(self) -> None:
        """Drop what other ranks have dropped, as far as it is still here; what is to come is not begun."""
        newest = self.counters["steps"] + (self._step is not None)
        for sequence in sorted(self._controller.skipped):
            if sequence >= newest:
                break
            self._controller.skipped.remove(sequence)
            oldest = [link.oldest_unsent for link in self.links]
            if self._step is not None and sequence == self._step.sequence:
                self._lost = self._lost or _ELSEWHERE
            elif sequence in self._kept and all(first is not None and first <= sequence for first in oldest):
                self._withdraw(sequence)

    def _no_room(self) -> str:
        if self._step is not None and not self._policy.waits(self._step.sequence):
            return f"no room in its buffer of {self._pool.limit_bytes} bytes (policy: {self._policy.name})"
        return f"no room in its buffer of {self._pool.limit_bytes} bytes after {self._max_wait_s:g} s"

    def _lose(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        if self._then == "abort" and (self._step is None or self._policy.waits(self._step.sequence)):
            raise RunError(f"Rank {self._rank} at step {self._step and self._step.index}: {reason} (then: abort).")

    def _drop(self, step: Step, reason: str) -> None:
        for put in self._puts.values():
            self._pool.give(put.slot)
        if self.counters["dropped"] == 0:
            log.warning("rank %d drops step %d: %s", self._rank, step.index, reason)
        self.counters["dropped"] += 1
        if reason != _ELSEWHERE:
            self._controller.say(Dropped(step.sequence, step.index, step.time, reason))

    def _wait(self, done: Callable[[], T | None], what: str) -> T | None:
        """Pump until `done` returns something, and return that; ``None`` after `max_wait_s`, at once while shedding."""
        begin = now = time.monotonic()
        said = False
        while not (found := done()):
            self._shedding = self._shedding or now - begin > self._max_wait_s
            if self._shedding or self._lost is not None:
                return None
            if now - begin > SAY_AFTER_S and not said:
                said = True
                log.warning("rank %d waits at step %s for %s: %s", self._rank, self._where, what, self._culprit())
            starved = any(link.starved for link in self.links)
            self.pump(min(_POLL_S, self._max_wait_s))
            before, now = now, time.monotonic()
            self.counters["wait_staging_s" if starved else "wait_network_s"] += now - before
        return found

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
