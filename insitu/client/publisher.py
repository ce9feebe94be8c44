# SPDX-License-Identifier: Apache-2.0
"""Steps on their way from one rank to its staging nodes.

Rule 1: the caller's arrays are copied once, into pooled buffers, and are the caller's again when `put` returns.

Rule 2: there is no thread. Everything moves when the simulation calls the client; between two calls ZeroMQ's own I/O
thread goes on sending what was handed to it. (ADR 0004 says why.)

Rule 3: what happens to a step without room is the policy's to say (`insitu.client.policy`). Every wait has a bound,
`max_wait_s`, and a name. When it has run out, this and the following steps are dropped at once, without waiting again,
until a staging node shows progress: a dead staging side costs one wait, not one a step.

Rule 4: steps leave in their order. While any of them is on the disk, those that follow go there too.

Rule 5: after a fork all of this is the parent's, memory that is shared included, and the child leaves it alone.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import chain
from math import prod
from typing import TypeVar

import numpy as np

from insitu.client.account import Account
from insitu.client.contract import Contract
from insitu.client.controller import ControllerLink
from insitu.client.cutting import Cutter, Filled, TooLarge
from insitu.client.folding import Folding
from insitu.client.link import NodeLink
from insitu.client.outbox import Outbox
from insitu.client.patience import Patience
from insitu.client.planning import Planning
from insitu.client.policy import Policy
from insitu.client.pool import Pool, Slot
from insitu.client.spool import UNSPILLED, Spool
from insitu.client.tracing import Tracer
from insitu.errors import InsituError, LocalProtocolError, RunError
from insitu.model import Array, Extent, Step
from insitu.wire.blocks import BlockSpec
from insitu.wire.lane import Bell
from insitu.wire.messages import Adopted, Dropped, Event, Share, Status
from insitu.wire.segment import Segment
from insitu.wire.sockets import Pollable, poll

log = logging.getLogger("insitu.client")

T = TypeVar("T")

#: How often the controller hears how this rank does.
STATUS_S = 0.5
#: How often a step that needs nothing looks for news: a look takes some 15 us. Lanes cost less, and are looked into at
#: each step. Sooner where steps wait to be replaced, for each leaves when the one before it is folded.
PUMP_S, REPLACING_PUMP_S = 0.001, 0.00025
_ELSEWHERE = "another rank has dropped it"
_GONE = "a staging node is gone"


class _Forks:
    """How many forks ago this module was loaded: known without the system call that `os.getpid` is."""

    passed = 0

    @classmethod
    def count(cls) -> None:
        cls.passed += 1


os.register_at_fork(after_in_child=_Forks.count)


class Publisher:
    """Takes the steps of one rank and brings them to its staging nodes within the budgets.

    They wait in `segment`, memory that staging nodes of this machine can map, or in `buffer_bytes` of this process's
    own, and beyond that in `spool` where there is one. `connect` links a staging node; those with a lane ring `bell`.
    `rank` is for messages. What this rank folds itself passes through `folding`; the variables `stays` go nowhere else.
    `tracer` is there where steps are traced.
    """

    def __init__(
        self,
        rank: int,
        *,
        buffer_bytes: int,
        segment: Segment | None,
        bell: Bell | None = None,
        spool: Spool | None = None,
        max_wait_s: float,
        policy: Policy,
        then: str,
        controller: ControllerLink,
        contract: Contract,
        connect: Callable[[Share], NodeLink],
        folding: Folding | None = None,
        stays: Collection[str] = (),
        tracer: Tracer | None = None,
    ) -> None:
        self.links: list[NodeLink] = []
        self.planning = Planning(self.links, connect)
        self._steps = 0
        self._account = Account()
        self._rank = rank
        self._pid, self._forks = os.getpid(), _Forks.passed
        self.patience = Patience(rank, max_wait_s, self.links, self.pump)
        self._policy = policy
        self._then = then
        self._controller = controller
        self._contract = contract
        self._segment = segment
        self._bell = bell
        self._pump_s = REPLACING_PUMP_S if policy.replaces and bell is None else PUMP_S
        # Filled, so that its pages are there before the first step: a fresh one costs more than the copy into it.
        self._pool = Pool(np.full(buffer_bytes, 0, np.uint8) if segment is None else segment.data)
        self._cutter = Cutter(rank, self._pool, self.links, controller.say, stays)
        self._folding = folding
        self._outbox = Outbox(self._pool, self.links, self._cutter, folding)
        self._spool = spool
        self._tracer = tracer
        self._told: set[str] = set()
        self._missing: set[int] = set()
        self._said_at = self._pumped_at = self._finished_at = time.monotonic()
        self._last_bytes = 0
        self._step: Step | None = None
        self._puts: dict[str, Filled] = {}
        self._lost: str | None = None
        self._to_disk = False

    @property
    def counters(self) -> dict[str, int | float]:
        """What this rank has done so far, and how long it has waited."""
        spilled = self._spool.counters if self._spool is not None else {}
        folded = self._folding.counters if self._folding is not None else {}
        waits = {**self.patience.waited_s, **self.patience.waits}
        steps = {"steps": self._steps, "dropped": self._account.dropped}
        return {**steps, "put_bytes": self._outbox.put_bytes, **waits, **spilled, **folded}

    def meet(self, timeout_s: float) -> None:
        """Wait for all staging nodes to say how much they take: only then is it known which step is too large."""
        self.patience.meet(timeout_s)

    def done(self, sequence: int) -> None:
        """One staging node needs a step's memory no more."""
        self.patience.shedding = False
        self._outbox.done(sequence)

    def lost(self, sequence: int) -> None:
        """A step may have been lost with a connection."""
        self._say_dropped(self._outbox.step(sequence), "it was lost with a connection", sent=True)

    def pump(self, wait_s: float = 0.0) -> None:
        """Wait for news, at most `wait_s`; take in what the others said, and send what may be sent."""
        self._pumped_at = time.monotonic()
        # One look at all sockets costs less than one failing attempt to receive.
        ready = self._poll([self._controller.socket, *(link.socket for link in self.links)], wait_s)
        if self._controller.socket in ready:
            self._controller.listen()
            self._skip()
            self._miss_nodes()
            self._replan()
        for link in self.links:
            if link.socket in ready or (link.lane is not None and link.lane.waiting):
                link.listen()
        self._fold()
        for link in self.links:
            link.send()
        self._unspill()
        if self._pumped_at - self._said_at > STATUS_S:
            self.report()
        if self._segment is not None and self._segment.named and all(link.lent is not None for link in self.links):
            self._segment.unlink()

    def _poll(self, sockets: Sequence[Pollable], wait_s: float) -> list[Pollable]:
        if self._bell is None or wait_s <= 0:
            return poll(sockets, wait_s)
        lanes = [link.lane for link in self.links if link.lane is not None]
        ready = poll([*sockets, self._bell], self._bell.listens(lanes, wait_s))
        self._bell.listened(lanes)
        return ready

    def close_links(self) -> None:
        """Leave the staging nodes; what was sent has some seconds to leave, but not towards one that is silent."""
        for link in self.links:
            link.close(self._finished_at)

    def look(self) -> None:
        """Look for news, unless that was done just now."""
        for link in self.links:
            if link.lane is not None and link.lane.waiting:
                link.listen()
                link.send()
        if time.monotonic() - self._pumped_at > self._pump_s:
            self.pump()

    def close_memory(self) -> None:
        """Let go of the memory; staging nodes that have mapped it keep it until they are done."""
        if self._segment is not None:
            self._segment.unlink()
            self._segment.close()
        if self._bell is not None:
            self._bell.close()
        if self._spool is not None:
            self._spool.close()

    @property
    def forked(self) -> bool:
        """Whether this is a fork of the process that takes part in the run."""
        return self._forks != _Forks.passed

    def require_own(self) -> None:
        """Raise `LocalProtocolError` in a fork of the process that takes part in the run."""
        if self.forked:
            raise LocalProtocolError(
                f"rank {self._rank}: this client is that of process {self._pid}, which was forked, and process "
                f"{os.getpid()} cannot publish by it; hand the data back to process {self._pid}, and put them there."
            )

    def open(self, step: Step) -> None:
        """Begin a step: room is looked for as much as the step before took, so that a full buffer is noticed here."""
        self._step, self._lost, self._to_disk = step, None, False
        if self._tracer is not None:
            self._tracer.open(step, self.counters)
        try:
            self._find_room(step)
        except RunError:  # nobody will close a step that was never opened
            self._end(step)
            raise

    def _find_room(self, step: Step) -> None:
        self.look()
        if self.planning.ready:
            self._adopt(step.sequence)
        if step.sequence in self._controller.skipped:
            self._controller.skipped.remove(step.sequence)
            self._lost = _ELSEWHERE
        elif self._missing and any(link.parts and link.node in self._missing for link in self.links):
            self._lose(_GONE)
        elif self._spool or not (self._fits() or self._room(self._fits)):
            self._overflow()

    def put(self, spec: BlockSpec, spec_id: int, data: Array) -> None:
        """Copy one block, into the dtype of its variable. Once the step is lost this does nothing."""
        copy = self.empty(spec, spec_id, data.shape)
        if copy is not None:
            copy[...] = data

    def empty(self, spec: BlockSpec, spec_id: int, count: Extent) -> Array | None:
        """Return the memory of one block, to be filled before the step is closed; ``None`` once the step is lost."""
        self.require_own()
        name, dtype = spec.variable.name, spec.variable.dtype
        slot = self._slot(prod(count) * dtype.itemsize)
        if slot is not None:
            data = self._pool.array(slot, dtype, count)
        elif self._lost is None:
            assert self._spool is not None
            data = self._spool.spare(name, count, dtype)
        else:
            return None
        self._puts[name] = Filled(spec, spec_id, slot, data)
        return data

    def close(self) -> None:
        """End the step: queue it for its staging nodes, whole, or say that it is dropped."""
        assert self._step is not None
        try:
            if self._lost is None:
                self._take(self._step, list(self._puts.values()))
        except TooLarge as error:
            self._lose(str(error))
        except InsituError as error:
            self._lost = self._lost or str(error)
            raise
        finally:  # a step that ends the simulation is dropped like any other
            self._end(self._step)

    def abandon(self, reason: str) -> None:
        """End the step without its data: it will be seen by nobody."""
        self._lost = self._lost or reason
        self.close()

    def finish(self, steps: int) -> None:
        """Bring out what is queued, for at most `max_wait_s`, then detach from the staging nodes.

        With steps on the disk, of which there may be many, that counts anew from each one that leaves it.
        """
        self._finished_at = time.monotonic()
        going = True
        while self._spool and going:
            going = bool(self._wait(partial(self._spool.has_left, len(self._spool)), "a step on its disk to leave it"))
        if not self._wait(lambda: not self._spool and self._outbox.idle, "the last steps to be received"):
            left = len(self._outbox) + len(self._spool or ())
            log.warning("rank %d ends with %d steps that no staging node acknowledged", self._rank, left)
            self._give_up()
        self._hand_over(steps)
        for link in self.links:
            link.detach(steps)
            link.send()

    def _hand_over(self, steps: int) -> None:
        """Fold the last steps, for which all ranks must have closed them, and bring out their states."""
        if self._folding is not None and self.links:
            self._wait(partial(self._folding.is_done, steps), "the last steps to be closed by all ranks")
            self._folding.finish(steps, self.links[0])
            self._wait(lambda: self._outbox.idle, "its states to be received")

    def _fold(self) -> None:
        """Fold what was decided on, where this rank folds."""
        if self._folding is None or not self.links:
            return
        done = [each for commit in self._controller.commits for each in self._folding.decide(commit)]
        self._controller.commits.clear()
        for sequence in [*done, *self._folding.fold(self.links[0])]:
            self.patience.shedding = False
            self._outbox.done(sequence)

    def report(self) -> None:
        """Tell the controller how this rank does."""
        self._said_at = self._pumped_at
        self._controller.say(Status(dict(self.counters)))
        sent = sum((link.sent for link in self.links), Counter[str]())
        lossless = sum((link.encoder.lossless for link in self.links), Counter[str]())
        self._controller.say(self._contract.tally(sent, lossless))

    def _give_up(self) -> None:
        """Say of the steps that not all of their staging nodes were sent that nobody will have them."""
        for step in self._outbox.unsent:
            self._say_dropped(step, "it had not left its rank's buffer when the rank ended", sent=True)
        self._empty_disk("it had not left its rank's disk when the rank ended")

    def _empty_disk(self, reason: str) -> None:
        if self._spool is not None:
            for step in self._spool.steps:
                self._say_dropped(step, reason)
                self._spool.forget(step.sequence)

    def told(self) -> str:
        """Say what became of the steps so far, as far as this rank knows."""
        return self._account.told(self._steps, chain.from_iterable(link.unfolded for link in self.links))

    def _say_dropped(self, step: Step, reason: str, *, sent: bool = False) -> None:
        self._account.drop(reason, step.sequence if sent else None)
        self._controller.say(Dropped(step.sequence, step.index, step.time, reason))

    def _take(self, step: Step, puts: Sequence[Filled]) -> None:
        """Let a step that is filled wait in memory or on the disk."""
        if self._to_disk:
            self._spill(step, puts)
            if self._lost is None:
                self._outbox.free(puts)
            return
        while self._policy.keeps_one and self._withdraw_oldest():
            pass
        self._outbox.queue(step, puts, self._tracer.traced if self._tracer is not None else None)

    def _end(self, step: Step) -> None:
        if self._lost is not None:
            self._drop(step, self._lost)
        self._last_bytes = sum([put.nbytes for put in self._puts.values()])
        if self._tracer is not None:
            self._tracer.close(step, self.counters, self._lost or "")
        self._step, self._lost, self._puts = None, None, {}
        self._steps += 1
        for link in self.links:
            link.send()

    def _overflow(self) -> None:
        """There is no room for the open step: it goes to the disk, where that is what the run wants, or is lost."""
        assert self._step is not None
        if self._spool is not None and self._policy.ends(self._step.sequence):
            self._to_disk = True
        else:
            self._lose(self._no_room())

    def _spill(self, step: Step, puts: Sequence[Filled]) -> None:
        """Write the step to the disk; where there is no room either, wait for it, and then lose the step."""
        spool = self._spool
        assert spool is not None
        self._cutter.require_credit(puts)
        if spool.push(step, puts):
            self._say_once("spill", f"Rank {self._rank} spills steps to {spool.directory}, from step {step.index} on.")
            return
        text = f"Rank {self._rank} can spill no more at step {step.index}: {spool.why}. It waits, then: {self._then}."
        self._say_once("spill-full", text)
        if not self._wait(lambda: spool.push(step, puts), "room on its disk"):
            self._lose(f"{self._no_room()}, and {spool.why}")

    def _unspill(self) -> None:
        """Bring back the oldest steps from the disk, as long as they can be sent at once."""
        for _ in range(UNSPILLED):
            record = self._spool.first if self._spool else None
            puts = self._outbox.room_for(record) if record is not None and not self._outbox.waits else None
            if record is None or puts is None or self._spool is None:
                return
            if self._spool.read(put.data for put in puts):
                self._outbox.queue(record.step, puts)
                for link in self.links:
                    link.send()
            else:
                self._outbox.free(puts)
                self._say_dropped(record.step, f"it came back damaged from the disk of rank {self._rank}")
            self._spool.forget(record.step.sequence)

    def _say_once(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            log.warning(text)
            self._controller.say(Event("warning", kind, text, {"rank": self._rank}))

    def _slot(self, nbytes: int) -> Slot | None:
        """Return room for a block, waiting for it where there is none; without any the step is lost, or spilled."""
        if self._lost is not None:
            return None
        slot = None if self._to_disk else self._pool.take(nbytes)
        if slot is None:
            own_bytes = sum(put.nbytes for put in self._puts.values())
            if not self._pool.could_fit(own_bytes + nbytes):
                self._lose(
                    f"it needs more than the buffer of {self._pool.limit_bytes} bytes; raise variables.'*'.buffer"
                )
            elif not self._to_disk:
                slot = self._room(lambda: self._pool.take(nbytes))
                if slot is None:
                    self._overflow()
        return slot

    def _fits(self) -> bool:
        return self._pool.fits(self._last_bytes)

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
            found = self._wait(look, "room in its buffer")
        return found

    def _withdraw_oldest(self) -> bool:
        """Drop the oldest step that no staging node was sent any part of; return whether there was one."""
        sequence = self._outbox.replaceable
        if sequence is None:
            return False
        step = self._outbox.withdraw(sequence)
        reason = f"a newer one took its place (policy: {self._policy.name})"
        self._say_dropped(step, reason)
        return True

    def _skip(self) -> None:
        """Drop what other ranks have dropped, as far as it is still here; what is to come is not begun."""
        newest = self._steps + (self._step is not None)
        for sequence in sorted(self._controller.skipped):
            if sequence >= newest:
                break
            self._controller.skipped.remove(sequence)
            first = self._outbox.replaceable
            if self._step is not None and sequence == self._step.sequence:
                self._lost = self._lost or _ELSEWHERE
            elif sequence in self._outbox and first is not None and first <= sequence:
                self._outbox.withdraw(sequence)
                self._account.drop(_ELSEWHERE)
            elif self._spool is not None and self._spool.forget(sequence):
                self._account.drop(_ELSEWHERE)

    def _miss_nodes(self) -> None:
        """Give up nodes that are gone: what waits for them is theirs no more.

        While a part of this rank is theirs no step of it can be whole.
        """
        for link in self.links:
            node = link.node
            if node in self._controller.gone - self._missing:
                self._missing.add(node)
                if link.parts:
                    log.warning("rank %d drops steps from now on: staging node %d is gone", self._rank, node)
                for sequence in link.give_up():
                    self._outbox.done(sequence)
                if link.parts:
                    self._empty_disk(_GONE)
                    if self._step is not None:
                        self._lose(_GONE)

    def _replan(self) -> None:
        """Prepare for the plan that the controller has sent, if it has."""
        replan, self._controller.replan = self._controller.replan, None
        if replan is not None:
            self.planning.prepare(replan)

    def _adopt(self, sequence: int) -> None:
        """Go by the next plan from this sequence on; what is on the disk leaves by it too."""
        first = self._spool.first if self._spool else None
        begin = first.step.sequence if first is not None else sequence
        self._controller.say(Adopted(self.planning.adopt(), begin))
        self._cutter.renew()
        self._outbox.planned_from = begin

    def _no_room(self) -> str:
        if self._step is not None and not self._policy.ends(self._step.sequence):
            return f"no room in its buffer of {self._pool.limit_bytes} bytes (policy: {self._policy.name})"
        return f"no room in its buffer of {self._pool.limit_bytes} bytes after {self.patience.max_wait_s:g} s"

    def _lose(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        if self._then == "abort" and (self._step is None or self._policy.ends(self._step.sequence)):
            raise RunError(f"Rank {self._rank} at step {self._step and self._step.index}: {reason} (then: abort).")

    def _drop(self, step: Step, reason: str) -> None:
        self._outbox.free(list(self._puts.values()))
        if self._account.dropped == 0:
            log.warning("rank %d drops step %d: %s", self._rank, step.index, reason)
        if reason == _ELSEWHERE:
            self._account.drop(reason)
        else:
            self._say_dropped(step, reason)

    def _wait(self, done: Callable[[], T | None], what: str) -> T | None:
        where = self._step.index if self._step else "end"
        return self.patience.wait(done, what, where, lambda: self._lost is not None)
