# SPDX-License-Identifier: Apache-2.0
"""The thread that receives: it owns all sockets of a staging node.

It takes blocks in, tells the controller which steps are closed and the ranks what is acknowledged, and passes committed
steps on to whoever takes them. A rank that breaks the protocol is refused and not listened to any more; nobody else
suffers.
"""

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
from insitu.staging.ranks import RankLink
from insitu.staging.shipped import Shipped, Whole
from insitu.staging.tracing import Tracing
from insitu.wire import guard
from insitu.wire.addresses import new_local, toward
from insitu.wire.codec import Frame, kind
from insitu.wire.contact import Contact
from insitu.wire.lane import Bell, Lane, lanes_work
from insitu.wire.learning import Dismiss, Subscribe
from insitu.wire.messages import (
    VERSION,
    Approve,
    Attach,
    Borrow,
    BorrowLane,
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
    Refuse,
    Ship,
    Shutdown,
    Status,
)
from insitu.wire.segment import Segment
from insitu.wire.session import Link, Session, Side
from insitu.wire.sockets import Pollable, Waker, connect, keep_pages_mapped, listen, poll
from insitu.wire.tracing import Traced
from insitu.wire.viewing import Peek

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
#: Messages taken in before anything is answered, so that nobody waits for an endless stream of others.
MESSAGES_PER_TURN = 256

#: Makes what takes committed steps, once it is known who feeds this node, and where it reports.
MakeConsumer = Callable[[Feed, Callable[[Folded], None]], Merger]


class Receiver:
    """The sockets of staging node `number`. `memory_bytes` bounds the blocks that are here and not folded.

    Of the operators `shipped` ranks send states instead. `tracing` notes which steps are traced.
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
    ) -> None:
        self._contact = contact
        self._number = number
        self._memory_bytes = memory_bytes
        self._make_consumer = make_consumer
        self._feeders = feeders or Feeders(contact.run, {})
        self._keepers = keepers
        self._closing = threading.Event()
        self._waker = Waker()
        self._bell = Bell() if lanes_work() else None
        self._lanes: list[Lane] = []
        #: Whether something came through lanes just now, and none of those ranks waits for an answer.
        self._streams = False
        self._done: deque[Folded] = deque()
        self._outbox: deque[Message] = deque()
        self._newly_closed: list[ClosedHere] = []
        self._waited_for = False
        self._closed_at = 0.0
        self._links: dict[bytes, RankLink] = {}
        self._by_rank: dict[int, RankLink] = {}
        self._refused: set[bytes] = set()
        self._unsendable: set[str] = set()
        self._feed: Feed | None = None
        self._assembler = Assembler(())
        self._shipped = Shipped(frozenset(shipped), ())
        self._glimpses = Glimpses()
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
        if self._bell is not None:
            self._bell.close()

    def _run(self) -> None:
        keep_pages_mapped()
        try:
            with (
                listen(
                    f"tcp://{toward(self._contact.address)}:*", self._contact.keys, self._memory_bytes
                ) as self._listener,
                connect(self._contact.address, self._contact.keys) as self._controller,
            ):
                self._local = new_local()
                if self._local:
                    self._listener.also(self._local)
                self._session = Session(Link.NODE_CONTROLLER, Side.CONNECTS)
                self._say(self._hello())
                while not self._closing.is_set():
                    self._turn()
        finally:
            if self._consumer is not None:
                self._consumer.close()
            for link in self._links.values():
                link.release()
            for keeper in self._keepers:
                keeper.ask_to_end()
            for keeper in self._keepers:
                keeper.close()

    def _hello(self) -> NodeHello:
        address = self._listener.address
        return NodeHello(
            VERSION, self._contact.run, self._number, address, hosts.gethostname(), os.getpid(), self._local
        )

    def _turn(self) -> None:
        """Take in what is there and answer it; wait only where there is nothing to do."""
        if self._streams or len(self._assembler) + self._folding_steps > 1:
            self._closing.wait(NAP_S)
        wait_s = self._wait_s()
        ready = self._poll([self._listener, self._controller, self._waker], wait_s)
        heard = self._receive_from_lanes()
        self._streams = heard and not any(lane.awaited for lane in self._lanes)
        came = heard or bool(ready)
        lull = not came and wait_s > 0
        # An attempt to receive where nothing is costs more than this whole look.
        if self._listener in ready:
            self._receive_from_ranks()
        if self._controller in ready:
            self._receive_from_controller()
        for reason in self._listener.new_refusals():
            self._say(guard.event(reason))
        if self._waker in ready:
            self._waker.clear()
            self._take_folded()
        if self._consumer is not None and not self._consumer.alive:
            raise RunError("A thread that takes steps on this staging node has ended; its traceback stands above.")
        self._submit(self._assembler.take_approved())
        self._report_closed(lull)
        self._acknowledge(idle=not came)
        self._outbox.extend(self._feeders.send(self._listener.send))
        if time.monotonic() - self._status_at > STATUS_S:
            self._report()
        self._empty_outbox()

    def _wait_s(self) -> float:
        """How long to wait for news: not at all while a rank may stand still until it knows that all is folded."""
        links = self._links.values()
        if any(link.caught_up for link in links):
            return 0.0
        return LULL_S if self._newly_closed or any(link.dirty for link in links) else STATUS_S

    def _poll(self, sockets: list[Pollable], wait_s: float) -> list[Pollable]:
        if self._bell is None or wait_s <= 0:
            return poll(sockets, wait_s)
        ready = poll([*sockets, self._bell], self._bell.listens(self._lanes, wait_s))
        self._bell.listened(self._lanes)
        return [each for each in ready if each is not self._bell]

    def _receive_from_lanes(self) -> bool:
        """Take in what is in the lanes; return whether anything was."""
        came = False
        for link in [link for link in self._links.values() if link.lane is not None and link.lane.waiting]:
            came = True
            try:
                for _ in range(MESSAGES_PER_TURN):
                    message = link.lane.receive() if link.lane is not None else None
                    if message is None:
                        break
                    self._heard(link, [message])
            except RemoteProtocolError as error:
                self._refuse(link.identity, str(error))
        return came

    def _receive_from_ranks(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            arrived = self._listener.receive()
            if arrived is None:
                return
            identity, frames = arrived
            if identity in self._refused:
                continue
            try:
                if identity in self._feeders:
                    self._feeders.receive(identity, frames)
                else:
                    self._from_rank(identity, frames)
            except RemoteProtocolError as error:
                self._refuse(identity, str(error))

    def _from_rank(self, identity: bytes, frames: list[memoryview]) -> None:
        link = self._links.get(identity)
        if link is None:
            if kind(frames) is Subscribe:
                self._feeders.admit(identity, frames)
                return
            session = Session(Link.RANK_NODE, Side.LISTENS)
            attach = session.receive(frames)
            assert isinstance(attach, Attach)
            self._attach(RankLink(identity, session, attach.rank), attach)
            return
        self._heard(link, frames)

    def _heard(self, link: RankLink, frames: Sequence[Frame]) -> None:
        match link.session.receive(frames):
            case PublishLent() as message:
                self._publish(link, message, *link.lent(message))
            case Publish() as message:
                self._publish_own(link, message)
            case PublishEncoded() as message:
                self._publish_own(link, link.decoded(message))
            case Ship() as ship:
                self._ship(link, ship)
            case Traced() as traced:
                self._tracing.announced(traced)
            case Lend() as lend:
                self._borrow(link, lend)
            case LendLane() as lane:
                self._borrow_lane(link, lane)

    def _attach(self, link: RankLink, attach: Attach) -> None:
        if attach.run != self._contact.run:
            raise RemoteProtocolError(
                f"Rank {attach.rank} attaches to run '{attach.run}', this is '{self._contact.run}'."
            )
        if attach.rank in self._by_rank:
            raise RemoteProtocolError(f"Rank {attach.rank} is attached already.")
        self._links[link.identity] = self._by_rank[attach.rank] = link
        self._grant(link)

    def _grant(self, link: RankLink) -> None:
        """Give a rank its part of the memory for blocks, once it is known how many ranks there are."""
        if self._feed is not None and link.rank in self._feed.ranks:
            # What is lent lies in the rank's own memory and takes none of this node's.
            lent_bytes = link.segment.data.nbytes if link.segment is not None else 0
            credit = link.grant(max(lent_bytes, self._memory_bytes // len(self._feed.ranks)))
            self._tell(link, credit)

    def _borrow(self, link: RankLink, lend: Lend) -> None:
        """Look for the rank's segment; where it is found, this is the rank's own machine."""
        link.segment = Segment.open(lend.segment, lend.secret, lend.bytes)
        self._grant(link)  # before the answer, so that a rank which has both knows what it may send
        self._tell(link, Borrow(link.segment is not None))

    def _borrow_lane(self, link: RankLink, lend: LendLane) -> None:
        """Look for the rank's lane; where it is found, all that follows goes there."""
        lane = None if self._bell is None else link.take_lane(lend, self._bell)
        self._tell(link, BorrowLane("" if lane is None or self._bell is None else self._bell.name))
        if lane is not None:
            link.lane = lane
            self._lanes.append(lane)

    def _tell(self, link: RankLink, message: Message) -> bool:
        """Say something to a rank, whole or not at all; return whether it was taken."""
        frames = link.session.send(message)
        if link.lane is None:
            return self._listener.send(link.identity, frames)
        return link.lane.send(bytes(frames[0]))

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
            self._by_rank[rank].fold_states(nbytes)

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
                    self._glimpses.ask(peek)
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
            self._report_closed()  # first: the controller may give up all that it does not know of
            self._say(Fed(feed.member, self._assembler.left_by(feed.ranks)))
            self._close(self._assembler.feed(feed.ranks))
            if not set(feed.ranks) <= set(self._feed.ranks):
                self._feed = feed  # the memory is divided anew, among more ranks
                self._grant_all()
            return
        self._feed = feed
        self._member = feed.member
        self._assembler = Assembler(feed.ranks, feed.begin)
        self._shipped = Shipped(self._shipped.operators, feed.ship)
        self._consumer = self._make_consumer(feed, self._folded)
        self._grant_all()

    def _grant_all(self) -> None:
        for link in self._links.values():
            self._grant(link)

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
                    self._by_rank[rank].fold(ready.step.sequence, nbytes)
                    self._waiting_bytes -= nbytes
            self._free(folded.shipped)
            if any(isinstance(message, Finished) for message in folded.messages):
                self._report()  # the last word on how this node did
            if folded.messages:
                self._report_closed()  # before what came of them
                self._outbox.extend(folded.messages)

    def _report_closed(self, lull: bool = True) -> None:
        """Tell the controller of closed steps: at once where it has to decide on them, else now and then."""
        now = time.monotonic()
        if self._newly_closed and (lull or self._waited_for or now - self._closed_at > CLOSED_S):
            self._say(closed_message(self._member, self._newly_closed))
            self._newly_closed = []
            self._waited_for = False
            self._closed_at = now

    def _acknowledge(self, idle: bool) -> None:
        now = time.monotonic()
        pace_s = ACK_S * len(self._links)
        for link in self._links.values():
            if link.dirty and (idle or link.urgent or now - link.acked_at > pace_s):
                # Where its connection is closed, or it does not read, the next message makes it dirty again.
                link.acked(now, self._tell(link, link.ack()))

    def _report(self) -> None:
        self._status_at = time.monotonic()
        for keeper in self._keepers:
            self._outbox.extend(keeper.look())
        counters: dict[str, int | float | str] = {
            "waiting_bytes": self._waiting_bytes,
            "waiting_steps": len(self._assembler) + self._folding_steps,
            "peak_bytes": self._peak_bytes,
            "received_bytes": sum(link.received_bytes for link in self._links.values()),
            "refused_clients": self._listener.refused.total(),
        }
        if self._consumer is not None:
            counters |= self._consumer.status()
        self._say(Status(counters))

    def _refuse(self, identity: bytes, reason: str) -> None:
        link = self._links.pop(identity, None)
        self._refused.add(identity)
        self._feeders.forget(identity)
        self._say(Event("error", "protocol", f"A rank is refused: {reason}", {"rank": link.rank if link else -1}))
        if link is not None:
            self._tell(link, Refuse(reason))
            if link.lane is not None:
                self._lanes.remove(link.lane)
                link.lane.close()
            return
        session = Session(Link.RANK_NODE, Side.LISTENS)
        self._listener.send(identity, session.send(Refuse(reason)))

    def _say(self, message: Message) -> None:
        self._outbox.append(message)

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
