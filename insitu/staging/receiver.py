# SPDX-License-Identifier: Apache-2.0
"""The thread that receives: it owns all sockets of a staging node.

It takes blocks in, tells the controller which steps are closed and the ranks what is acknowledged, and passes committed
steps on to whoever takes them. The ranks come and go through `RankLinks`.
"""

import logging
import os
import socket as hosts
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from insitu.errors import LocalProtocolError, RemoteProtocolError, RunError
from insitu.model import Block
from insitu.staging.assembler import Assembler, ClosedHere, ReadyStep, closed_message
from insitu.staging.consumers import Merger
from insitu.staging.feeders import Feeders
from insitu.staging.folder import Folded, operator_stopped
from insitu.staging.glimpses import Glimpses
from insitu.staging.keeper import Keeper
from insitu.staging.links import RankLinks
from insitu.staging.ranks import RankLink
from insitu.staging.retained import Retained
from insitu.staging.shipped import Shipped, Whole
from insitu.staging.silence import Silence
from insitu.staging.tracing import Tracing
from insitu.wire import guard
from insitu.wire.contact import Contact
from insitu.wire.learning import Dismiss
from insitu.wire.messages import (
    VERSION,
    Approve,
    Commit,
    Event,
    Fed,
    Feed,
    Finish,
    Finished,
    Lend,
    LendLane,
    Message,
    Moved,
    NodeHello,
    Partial,
    Publish,
    PublishEncoded,
    PublishLent,
    Ship,
    Shutdown,
    Status,
)
from insitu.wire.pages import keep_pages_mapped
from insitu.wire.session import Link, Session, Side
from insitu.wire.sockets import Waker, connect
from insitu.wire.tracing import Traced
from insitu.wire.viewing import Peek

log = logging.getLogger("insitu.staging")

#: How often the controller hears how this node does.
STATUS_S = 0.1
#: Acknowledgements that are not urgent go when nothing is there to do and all that came is folded, at the latest when
#: nothing has come for so long, ...
LULL_S = 0.001
#: ... and while more is coming a rank gets one at most this often, times the number of ranks.
ACK_S = 0.00025
#: How long this thread sleeps between two looks while steps follow each other closely. What comes meanwhile is taken in
#: at once: a look costs as much as taking in two or three small messages, and so does waking the folder.
NAP_S = 0.001
#: How old a report on steps that this node has committed by itself may be.
CLOSED_S = 0.02
#: Makes what takes committed steps, once it is known who feeds this node, and where it reports.
MakeConsumer = Callable[[Feed, Callable[[Folded], None]], Merger]


class Receiver:
    """The sockets of staging node `number`. `memory_bytes` bounds the blocks that are here and not folded.

    Of the operators `shipped` ranks send states instead. `tracing` notes which steps are traced. In `retain_bytes` of
    its own it keeps copies of the newest steps, for who looks. `abandoned` is called when all has ended because nothing
    is heard of the controller any more (`insitu.staging.silence`).
    """

    def __init__(
        self,
        contact: Contact,
        number: int,
        memory_bytes: int,
        make_consumer: MakeConsumer,
        feeders: Feeders | None = None,
        keepers: Sequence[Keeper] = (),
        shipped: Collection[str] = (),
        tracing: Tracing | None = None,
        retain_bytes: int = 0,
        abandoned: Callable[[], None] = lambda: None,
    ) -> None:
        self._contact = contact
        self._number = number
        self._make_consumer = make_consumer
        self._feeders = feeders or Feeders(contact.run, {})
        self._keepers = keepers
        self._closing = threading.Event()
        self._waker = Waker()
        self._ranks = RankLinks(contact, memory_bytes, self._feeders, self._heard, self._say)
        self._done: deque[Folded] = deque()
        self._outbox: deque[Message] = deque()
        self._silence = Silence(memory_bytes // 4, time.monotonic())
        self._abandoned = abandoned
        self._newly_closed: list[ClosedHere] = []
        self._waited_for = False
        self._closed_at = 0.0
        self._unsendable: set[str] = set()
        self._feed: Feed | None = None
        self._assembler = Assembler(())
        self._shipped = Shipped(frozenset(shipped), ())
        self._retained = Retained(retain_bytes)
        self._glimpses = Glimpses(self._retained, self._ranks.announced)
        self._tracing = tracing or Tracing()
        self._consumer: Merger | None = None
        self._status_at = 0.0
        self._folding_steps = 0
        self._waiting_bytes = 0
        self._peak_bytes = 0
        self._thread = threading.Thread(target=self._run, name="insitu-receiver", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and wait for it. May be called twice."""
        self._closing.set()
        if self._thread.is_alive():  # it may have ended by the controller's word
            self._waker.wake()
        self._thread.join()
        self._waker.close()
        self._ranks.close()

    def _run(self) -> None:
        keep_pages_mapped()
        abandoned = False
        try:
            with self._ranks.open(), connect(self._contact.address, self._contact.keys) as self._controller:
                self._session = Session(Link.NODE_CONTROLLER, Side.CONNECTS)
                self._say(self._hello())
                while not (self._closing.is_set() or abandoned):
                    self._turn()
                    abandoned = self._silence.look(time.monotonic())
                if abandoned:
                    who = f"staging node {self._number} of run '{self._contact.run}'"
                    log.warning("%s ends: its controller has said nothing for %g s", who, self._silence.limit_s)
                    self._controller.close(linger_s=0)
        finally:
            if self._consumer is not None:
                self._consumer.close()
            self._ranks.close()
            for keeper in self._keepers:
                keeper.ask_to_end()
            for keeper in self._keepers:
                keeper.close()
        if abandoned:
            self._abandoned()

    def _hello(self) -> NodeHello:
        address, local = self._ranks.listener.address, self._ranks.local
        return NodeHello(VERSION, self._contact.run, self._number, address, hosts.gethostname(), os.getpid(), local)

    def _turn(self) -> None:
        """Take in what is there and answer it; wait only where there is nothing to do."""
        if self._ranks.streams or len(self._assembler) + self._folding_steps > 1:
            self._closing.wait(NAP_S)
        wait_s = self._wait_s()
        ready = self._ranks.poll([self._controller, self._waker], wait_s)
        heard = self._ranks.receive_from_lanes()
        came = heard or bool(ready)
        # An attempt to receive where nothing is costs more than this whole look.
        if self._ranks.listener in ready:
            self._ranks.receive()
        if self._controller in ready:
            self._receive_from_controller()
        for reason in self._ranks.listener.new_refusals():
            self._say(guard.event(reason))
        if self._waker in ready:
            self._waker.clear()
            self._take_folded()
        if self._consumer is not None and not self._consumer.alive:
            raise RunError("A thread that takes steps on this staging node has ended; its traceback stands above.")
        if not self._silence.full:
            self._submit(self._assembler.take_approved())
        self._report_closed()
        self._ranks.acknowledge(not came, ACK_S)
        self._outbox.extend(self._feeders.send(self._ranks.listener.send))
        if time.monotonic() - self._status_at > STATUS_S:
            self._report()
        self._empty_outbox()

    def _wait_s(self) -> float:
        """How long to wait for news: not at all while a rank may stand still until it knows that all is folded."""
        if any(link.caught_up for link in self._ranks):
            return 0.0
        if any(link.dirty for link in self._ranks):
            return LULL_S
        return CLOSED_S if self._newly_closed else STATUS_S

    def _heard(self, link: RankLink, message: Message) -> None:
        match message:
            case PublishLent():
                self._publish(link, message, *link.lent(message))
            case Publish():
                self._publish_own(link, message)
            case PublishEncoded():
                self._publish_own(link, link.decoded(message))
            case Ship():
                self._ship(link, message)
            case Traced():
                self._tracing.announced(message)
            case Lend() | LendLane():
                self._ranks.borrow(link, message)

    def _publish_own(self, link: RankLink, message: Publish) -> None:
        """Take in blocks that lie in this process's own memory."""
        blocks = link.session.blocks_of(message)
        self._publish(link, message, blocks, sum(block.data.nbytes for block in blocks))

    def _publish(self, link: RankLink, message: Publish | PublishLent, blocks: list[Block], nbytes: int) -> None:
        link.receive(message.sequence, nbytes)
        if self._assembler.is_late(message.sequence):
            link.fold(message.sequence, nbytes)
            return
        self._waiting_bytes += nbytes
        self._peak_bytes = max(self._peak_bytes, self._waiting_bytes)
        closed = self._assembler.publish(link.rank, message, blocks, nbytes)
        if closed is not None:
            self._newly_closed.append(closed)
            self._waited_for = self._waited_for or not self._assembler.is_approved(closed)

    def _ship(self, link: RankLink, ship: Ship) -> None:
        link.receive_states(ship.nbytes)
        if _arrays_bytes([entry.state for entry in ship.partial.entries]) > ship.nbytes:
            raise RemoteProtocolError(f"Rank {link.rank} says that states take {ship.nbytes} bytes, which take more.")
        self._merge(self._shipped.take(link.rank, ship))

    def _merge(self, several: Iterable[Whole]) -> None:
        for whole in several:
            if whole.partials and self._consumer is not None:
                self._consumer.merge(whole)
            else:
                self._free(whole.nbytes)

    def _free(self, shipped: Mapping[int, int]) -> None:
        """Give back the credit of states that are not needed here any more."""
        for rank, nbytes in shipped.items():
            self._ranks[rank].fold_states(nbytes)

    def _finish(self, consumer: Merger, steps: int) -> None:
        whole, lost = self._shipped.finish()
        self._merge(whole)
        for operator, window, ranks in lost:
            who = ", ".join(map(str, ranks))
            text = f"Window {window} of operator '{operator}' is lost: rank {who} ended before it had sent its state."
            details = {"operator": operator, "window": window, "ranks": list(ranks)}
            self._say(Event("error", "states-lost", text, details))
        consumer.finish(steps)

    def _receive_from_controller(self) -> None:
        while (frames := self._controller.receive()) is not None:
            self._silence.heard(time.monotonic())
            match self._session.receive(frames):
                case Feed() as feed:
                    self._fed_by(feed)
                case Moved() as move:
                    self._close(self._assembler.moved(move))
                case Approve() as approve:
                    self._assembler.approve(approve)
                case Commit() as commit:
                    self._commit(commit)
                case Peek() as peek:
                    self._outbox.extend(self._glimpses.ask(peek))
                case Finish(_, steps) if self._consumer is not None:
                    self._finish(self._consumer, max(steps, self._assembler.decided) if steps >= 0 else steps)
                case Dismiss(operator, process):
                    self._feeders.dismiss(operator, process)
                    if process is None:
                        self._merge(self._shipped.dismiss(operator))
                case Shutdown():
                    self._closing.set()

    def _fed_by(self, feed: Feed) -> None:
        if self._feed is not None:
            self._report_closed(at_once=True)  # first: the controller may give up all that it does not know of
            self._say(Fed(feed.member, self._assembler.left_by(feed.ranks)))
            self._close(self._assembler.feed(feed.ranks))
            if not set(feed.ranks) <= set(self._feed.ranks):
                self._feed = feed
                self._ranks.feed(feed.ranks)
            return
        self._feed = feed
        self._member = feed.member
        self._assembler = Assembler(feed.ranks, feed.begin)
        self._shipped = Shipped(self._shipped.operators, feed.ship)
        self._consumer = self._make_consumer(feed, self._folded)
        self._ranks.feed(feed.ranks)

    def _close(self, closed: list[ClosedHere]) -> None:
        """Report steps that were closed by a word of the controller, which waits for them."""
        self._newly_closed += closed
        self._waited_for = bool(self._newly_closed)

    def _commit(self, commit: Commit) -> None:
        # What was approved is not taken back: the controller counts it, though it hears of it too late.
        self._submit(self._assembler.take_approved())
        self._submit(self._assembler.commit(commit))

    def _submit(self, ready: list[ReadyStep]) -> None:
        if ready and self._consumer is not None:
            if ready[-1].step.sequence >= self._retained.due:
                self._retained.take(ready)
            self._outbox.extend(self._glimpses.of(ready))
            self._outbox.extend(self._tracing.committed(ready))
            self._folding_steps += len(ready)
            self._consumer.submit(ready)

    def _folded(self, folded: Folded) -> None:
        """Called by the consumer, from a thread of its own."""
        self._done.append(folded)
        self._waker.wake()

    def _take_folded(self) -> None:
        while self._done:
            folded = self._done.popleft()
            self._folding_steps -= len(folded.steps)
            for ready in folded.steps:
                for rank, nbytes in ready.nbytes.items():
                    self._ranks[rank].fold(ready.step.sequence, nbytes)
                    self._waiting_bytes -= nbytes
            self._free(folded.shipped)
            if any(isinstance(message, Finished) for message in folded.messages):
                self._report()  # the last word on how this node did
            if folded.messages:
                self._report_closed(at_once=True)  # before what came of them
                self._outbox.extend(folded.messages)
                self._silence.said(folded.messages)

    def _report_closed(self, at_once: bool = False) -> None:
        """Tell the controller of closed steps: at once where it has to decide on them, else now and then."""
        now = time.monotonic()
        if self._newly_closed and (at_once or self._waited_for or now - self._closed_at >= CLOSED_S):
            self._say(closed_message(self._member, self._newly_closed))
            self._newly_closed = []
            self._waited_for = False
            self._closed_at = now

    def _report(self) -> None:
        self._status_at = time.monotonic()
        for keeper in self._keepers:
            self._outbox.extend(keeper.look())
        self._retained.relax()
        counters: dict[str, int | float | str] = {
            "waiting_bytes": self._waiting_bytes,
            "waiting_steps": len(self._assembler) + self._folding_steps,
            "peak_bytes": self._peak_bytes,
            "received_bytes": sum(link.received_bytes for link in self._ranks),
            "refused_clients": self._ranks.listener.refused.total(),
        }
        if self._consumer is not None:
            counters |= self._consumer.status()
        self._say(Status(counters))

    def _say(self, message: Message) -> None:
        self._outbox.append(message)
        self._silence.said([message])

    def _empty_outbox(self) -> None:
        while self._outbox and self._send(self._outbox[0]):
            self._outbox.popleft()

    def _send(self, message: Message) -> bool:
        """Send a message. In the place of states that cannot be sent it says, once, that their operator is stopped."""
        if isinstance(message, Partial) and message.operator in self._unsendable:
            return True
        try:
            frames = self._session.send(message)
        except LocalProtocolError as error:
            if not isinstance(message, Partial):
                raise
            self._unsendable.add(message.operator)
            self._outbox[0] = operator_stopped(message.operator, str(error), traceback.format_exc())
            frames = self._session.send(self._outbox[0])
        return self._controller.send(frames)


def _arrays_bytes(state: object) -> int:
    """Return the bytes of all arrays in a state."""
    if isinstance(state, dict):
        return sum(_arrays_bytes(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(_arrays_bytes(value) for value in state)
    return int(getattr(state, "nbytes", 0))
