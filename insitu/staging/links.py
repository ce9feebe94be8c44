# SPDX-License-Identifier: Apache-2.0
"""The links of a staging node to the ranks that feed it: who is let in, by which way messages come and answers go.

A rank's first messages come over ZeroMQ. One of the same machine may lend memory, and make a lane through which all
that follows goes. Whoever breaks the protocol is refused and not listened to any more; nobody else suffers.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from insitu.errors import RemoteProtocolError
from insitu.staging.feeders import Feeders
from insitu.staging.ranks import RankLink
from insitu.wire.addresses import new_local, toward
from insitu.wire.codec import Frame, kind
from insitu.wire.contact import Contact
from insitu.wire.lane import Bell, Lane, lanes_work
from insitu.wire.learning import Subscribe
from insitu.wire.messages import Attach, Borrow, BorrowLane, Event, Lend, LendLane, Message, Refuse
from insitu.wire.segment import Segment
from insitu.wire.session import Link, Session, Side
from insitu.wire.sockets import Listener, Pollable, listen, poll

#: Messages over ZeroMQ that follow each other within this time are a stream: to take in what has gathered costs less
#: than to wake up for each of them.
CLOSE_S = 0.00025
#: Messages taken in before anything is answered, so that nobody waits for an endless stream of others.
MESSAGES_PER_TURN = 256


class RankLinks:
    """The links of one node, in the order in which ranks attached. `memory_bytes` is what all may have under way.

    `heard` gets the messages of a rank that is attached, and may raise `RemoteProtocolError` for one; `say` tells the
    controller. Beside ranks, the peers of `feeders` come by the same door.
    """

    def __init__(
        self,
        contact: Contact,
        memory_bytes: int,
        feeders: Feeders,
        heard: Callable[[RankLink, Message], None],
        say: Callable[[Message], None],
    ) -> None:
        self.listener: Listener
        #: The name of the local socket that leads here too, empty where there are none.
        self.local = ""
        #: Whether something came just now that more will follow, as far as is known: through lanes, and none of those
        #: ranks waits for an answer, or over ZeroMQ soon after something else.
        self.streams = False
        self._came_at = 0.0
        self._contact = contact
        self._memory_bytes = memory_bytes
        self._feeders = feeders
        self._heard = heard
        self._say = say
        self._fed_by: tuple[int, ...] = ()
        self._bell = Bell() if lanes_work() else None
        self._lanes: list[Lane] = []
        self._links: dict[bytes, RankLink] = {}
        self._by_rank: dict[int, RankLink] = {}
        self._refused: set[bytes] = set()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Listen, at an address that the controller's machine reaches and at a local socket."""
        address = f"tcp://{toward(self._contact.address)}:*"
        with listen(address, self._contact.keys, self._memory_bytes) as self.listener:
            self.local = new_local()
            if self.local:
                self.listener.also(self.local)
            yield

    def close(self) -> None:
        """Let go of all memory that ranks have lent. May be called twice."""
        for link in self._links.values():
            link.release()
        if self._bell is not None:
            self._bell.close()

    def __getitem__(self, rank: int) -> RankLink:
        """The link of a rank that has attached, be it refused since."""
        return self._by_rank[rank]

    def __iter__(self) -> Iterator[RankLink]:
        return iter(self._links.values())

    def announced(self, variable: str) -> bool:
        """Whether a rank has said that it sends blocks of a variable. Costs O(layouts)."""
        return any(
            block.variable.name == variable
            for link in self._links.values()
            for layout in link.session.layouts.values()
            for block in layout.blocks
        )

    def poll(self, sockets: Iterable[Pollable], wait_s: float) -> list[Pollable]:
        """Wait for these sockets, for ranks and for their lanes; return which of the sockets have something."""
        all_of_them = [self.listener, *sockets]
        if self._bell is None or wait_s <= 0:
            return poll(all_of_them, wait_s)
        ready = poll([*all_of_them, self._bell], self._bell.listens(self._lanes, wait_s))
        self._bell.listened(self._lanes)
        return [each for each in ready if each is not self._bell]

    def receive_from_lanes(self) -> bool:
        """Take in what is in the lanes; return whether anything was."""
        came = False
        for link in [link for link in self._links.values() if link.lane is not None and link.lane.waiting]:
            came = True
            try:
                for _ in range(MESSAGES_PER_TURN):
                    message = link.lane.receive() if link.lane is not None else None
                    if message is None:
                        break
                    self._heard(link, link.session.receive([message]))
            except RemoteProtocolError as error:
                self._refuse(link.identity, str(error))
        self.streams = came and not any(lane.awaited for lane in self._lanes)
        return came

    def receive(self) -> None:
        """Take in what came over ZeroMQ."""
        before, self._came_at = self._came_at, time.monotonic()
        self.streams = self.streams or self._came_at - before < CLOSE_S
        for _ in range(MESSAGES_PER_TURN):
            arrived = self.listener.receive()
            if arrived is None:
                return
            identity, frames = arrived
            if identity in self._refused:
                continue
            try:
                if identity in self._feeders:
                    self._feeders.receive(identity, frames)
                else:
                    self._receive_from(identity, frames)
            except RemoteProtocolError as error:
                self._refuse(identity, str(error))

    def feed(self, ranks: tuple[int, ...]) -> None:
        """Share out the memory among the ranks that feed this node, and tell those that are there."""
        self._fed_by = ranks
        for link in self._links.values():
            self._grant(link)

    def borrow(self, link: RankLink, lend: Lend | LendLane) -> None:
        """Look for memory that a rank lends, or a lane; where it is found, this is the rank's own machine."""
        if isinstance(lend, Lend):
            link.segment = Segment.open(lend.segment, lend.secret, lend.bytes)
            self._grant(link)  # before the answer, so that a rank which has both knows what it may send
            self._tell(link, Borrow(link.segment is not None))
            return
        lane = None if self._bell is None else link.take_lane(lend, self._bell)
        self._tell(link, BorrowLane("" if lane is None or self._bell is None else self._bell.name))
        if lane is not None:
            link.lane = lane
            self._lanes.append(lane)

    def acknowledge(self, idle: bool, pace_s: float) -> None:
        """Acknowledge what is urgent or was not for `pace_s` times the number of ranks; where it is `idle`, all."""
        now = time.monotonic()
        pace_s *= len(self._links)
        for link in self._links.values():
            if link.dirty and (idle or link.urgent or now - link.acked_at > pace_s):
                # Where its connection is closed, or it does not read, the next message makes it dirty again.
                link.acked(now, self._tell(link, link.ack()))

    def _receive_from(self, identity: bytes, frames: Sequence[Frame]) -> None:
        link = self._links.get(identity)
        if link is not None:
            self._heard(link, link.session.receive(frames))
        elif kind(frames) is Subscribe:
            self._feeders.admit(identity, frames)
        else:
            session = Session(Link.RANK_NODE, Side.LISTENS)
            attach = session.receive(frames)
            assert isinstance(attach, Attach)
            self._attach(RankLink(identity, session, attach.rank), attach)

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
        if link.rank in self._fed_by:
            # What is lent lies in the rank's own memory and takes none of this node's.
            lent_bytes = link.segment.data.nbytes if link.segment is not None else 0
            self._tell(link, link.grant(max(lent_bytes, self._memory_bytes // len(self._fed_by))))

    def _tell(self, link: RankLink, message: Message) -> bool:
        """Say something to a rank, whole or not at all; return whether it was taken."""
        frames = link.session.send(message)
        if link.lane is None:
            return self.listener.send(link.identity, frames)
        return link.lane.send(bytes(frames[0]))

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
        self.listener.send(identity, session.send(Refuse(reason)))
