# SPDX-License-Identifier: Apache-2.0
"""A rank's link to one staging node: what waits to be sent, what is under way, what was acknowledged.

A message is sent when its bytes fit the node's credit, in order, from the thread that calls the client. Nothing here
waits: `listen` and `send` do what can be done now and return.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from operator import add
from typing import NamedTuple

from insitu.budget import Budget
from insitu.client.account import Runs
from insitu.client.encoding import WAIT_S, Encoder
from insitu.errors import RemoteProtocolError
from insitu.model import Array
from insitu.plan import Part
from insitu.wire.codec import Frame
from insitu.wire.lane import Lane
from insitu.wire.messages import (
    Ack,
    Attach,
    Borrow,
    BorrowLane,
    Buffer,
    Credit,
    Detach,
    Layout,
    Lend,
    LendLane,
    Message,
    Publish,
    PublishEncoded,
    PublishLent,
    Refuse,
    Ship,
)
from insitu.wire.session import Link, Session, Side, nbytes_of
from insitu.wire.sockets import Socket, poll
from insitu.wire.tracing import Traced

log = logging.getLogger("insitu.client")

#: Called with a sequence when the memory that this link sent of it is needed no more.
Done = Callable[[int], None]

Published = Publish | PublishLent | PublishEncoded


#: What a node says of steps, in the order in which it does, and when their memory is free again if nothing else is
#: said: lent memory is read until the step is folded.
_STAGES = ("received", "folded", "durable")
_FREE = {False: _STAGES.index("received"), True: _STAGES.index("folded")}


class _UnderWay(NamedTuple):
    """A message on its way, the last of `upto_bytes` that were sent; its memory is free when it has come to a stage."""

    sequence: int
    free: int
    upto_bytes: int


class NodeLink:
    """Staging node `node`, as a rank sees it. `parts` say which rows of each block go there; a node may have none.

    At most `under_way` steps that are not folded yet are sent (``None``: as many as the credit allows). `lost` is
    called, before `done`, with each step that may have been lost with a connection. With a `lane` and the `bell` that
    the node is to ring, all goes there once the node has said that it has it. `free` says when a step's memory is free
    again (`insitu.wire.messages.Welcome`).
    """

    def __init__(
        self,
        socket: Socket,
        node: int,
        attach: Attach,
        lend: Lend | None,
        encoder: Encoder,
        done: Done,
        under_way: int | None = None,
        *,
        lost: Done = lambda sequence: None,
        lane: Lane | None = None,
        bell: str = "",
        free: str = "auto",
    ) -> None:
        self.node = node
        self.parts: tuple[Part, ...] = ()
        self.socket = socket
        self.sent_bytes = 0
        #: The steps that were sent, and are not acknowledged as folded.
        self.unfolded = Runs()
        #: Of each layout, the bytes of each of its blocks that were sent, or lent.
        self._sent: dict[int, list[int]] = {}
        self.encoder = encoder
        #: When the node last said anything.
        self.heard_at = 0.0
        #: Whether the node has mapped the segment; ``None`` while it has not said so.
        self.lent: bool | None = False if lend is None else None
        #: Where messages go and come, once the node has said so; until then it is only `_offered`.
        self.lane: Lane | None = None
        self._offered = lane
        self._session = Session(Link.RANK_NODE, Side.CONNECTS)
        self._done = done
        self._lost = lost
        self._unreceived: deque[_UnderWay] = deque()
        self._lost_bytes = 0
        self._credit = Budget(0)
        self._folded_bytes = 0
        #: Whether nothing is expected of the node any more.
        self.given_up = False
        self._waiting: deque[tuple[Message, int]] = deque()
        self._under_way: deque[_UnderWay] = deque()
        #: States that wait, and how many bytes were sent and came when the last of them was.
        self.shipping_bytes = 0
        self._shipped_upto = self._received_bytes = 0
        self._most_unfolded = under_way
        self._free = _FREE if free == "auto" else dict.fromkeys(_FREE, _STAGES.index(free))
        #: Whether the message by which the link was measured needed longer than the wait for it.
        self._slow = False
        self._say(attach, 0)
        if lend is not None:
            self._say(lend, 0)
        if lane is not None:
            self._say(LendLane(lane.segment.name, lane.segment.secret, bell), 0)

    @property
    def sent(self) -> Counter[str]:
        """The bytes of each variable that were sent, or lent."""
        sent: Counter[str] = Counter()
        for layout, sizes in self._sent.items():
            for block, nbytes in zip(self._session.layouts[layout].blocks, sizes, strict=True):
                sent[block.variable.name] += nbytes
        return sent

    @property
    def met(self) -> bool:
        """Whether the node has said how much it takes, and whether it has mapped the segment and the lane."""
        return self.credit_bytes > 0 and self.lent is not None and self._offered is None

    @property
    def idle(self) -> bool:
        """Whether the node needs nothing of this rank any more."""
        came = self._received_bytes + self._lost_bytes >= self._shipped_upto
        return not self._waiting and not self._under_way and came

    @property
    def starved(self) -> bool:
        """Whether this rank waits for the node's folds, for credit or for memory that it lent, not for the network."""
        if self._waiting:
            return not self._may_send(self._waiting[0][1])
        return bool(self._under_way) and self._under_way[0].free > 0

    @property
    def credit_bytes(self) -> int:
        return self._credit.limit_bytes

    def accepts(self, nbytes: int) -> bool:
        """Whether the node could ever take a message of this size. Before the first credit nobody knows."""
        return self.credit_bytes == 0 or self._credit.could_fit(nbytes)

    @property
    def unsent(self) -> list[Published]:
        """The steps that wait for credit."""
        return [message for message, _ in self._waiting if isinstance(message, Published)]

    @property
    def oldest_unsent(self) -> int | None:
        """The sequence of the first step that waits to be sent."""
        return next((message.sequence for message, _ in self._waiting if isinstance(message, Published)), None)

    def withdraw(self, sequence: int) -> None:
        """Send a step that waits no more. Costs O(steps that wait)."""
        self._waiting = deque(
            (message, nbytes)
            for message, nbytes in self._waiting
            if not isinstance(message, Published | Traced) or message.sequence != sequence
        )

    def give_up(self) -> list[int]:
        """The node is gone: return the sequences that it needs no more, all that were sent or wait."""
        self.given_up = True
        left = [each.sequence for each in self._under_way] + [message.sequence for message in self.unsent]
        self._waiting.clear()
        self.shipping_bytes = self._shipped_upto = 0
        self._under_way.clear()
        self._unreceived.clear()
        return left

    def layout(self, layout: Layout) -> None:
        self._waiting.append((layout, 0))

    def trace(self, traced: Traced) -> None:
        """Say ahead of a step that it is traced."""
        self._waiting.append((traced, 0))

    def publish(self, message: Publish | PublishLent, nbytes: int) -> None:
        self._waiting.append((message, nbytes))

    def ship(self, states: Ship) -> None:
        """Send states, behind all that waits."""
        if not self.given_up:
            self.shipping_bytes += states.nbytes
            self._waiting.append((states, states.nbytes))

    def detach(self, steps: int) -> None:
        if not self.given_up:
            self._waiting.append((Detach(steps), 0))

    def close(self, since: float) -> None:
        """Leave; what was sent has some seconds to leave too, but not towards a node that was silent `since` then."""
        for lane in (self.lane, self._offered):
            if lane is not None:
                lane.close()  # what is in it stays there for the node
        if (self.idle and not self.given_up) or self.heard_at > since:
            self.socket.close()
        else:
            self.socket.close(linger_s=0)

    def listen(self) -> None:
        """Take in what the node said.

        A node that talks nonsense, or refuses this rank, is given up: its credit never grows again, so that steps are
        dropped after one wait. The simulation does not end for it.
        """
        try:
            while (frames := self._receive()) is not None:
                self.heard_at = time.monotonic()
                if not self.given_up:
                    self._handle(self._session.receive(frames))
        except RemoteProtocolError as error:
            self.given_up = True
            if self.lane is not None:
                self.lane.close()
                self.lane = None
            log.error("staging node %d is given up: %s", self.node, error)

    def _receive(self) -> Sequence[Frame] | None:
        if self.lane is None:
            return self.socket.receive()
        self.socket.require_own()  # the memory of a lane is its parent's, in a process that was forked
        message = self.lane.receive()
        return None if message is None else [message]

    def _transmit(self, frames: list[Buffer]) -> bool:
        if self.lane is None:
            return self.socket.send(frames)
        self.socket.require_own()
        (frame,) = frames
        return self.lane.send(bytes(frame))

    def send(self) -> None:
        """Send what may be sent; nothing before the first credit, not even what has no bytes.

        A node that has given none may not know yet that this rank feeds it.
        """
        if self.lane is not None and self.lane.is_full:
            self.socket.require_own()
            self.lane.flush()
        while self._waiting and self._may_send(self._waiting[0][1]):
            message, nbytes = self._waiting[0]
            samples: list[tuple[str, Array]] = []
            if type(message) is Publish:
                layout = self._session.layouts[message.layout]
                samples = self._samples(message, layout)
                if not samples:
                    # It stays encoded where it cannot be sent now, so that this is done once.
                    message = self.encoder.encode(message, layout)
                    self._waiting[0] = message, nbytes
            if not self._say(message, nbytes):
                break
            self._waiting.popleft()
            if samples:
                self._measure(samples, nbytes)

    def _may_send(self, nbytes: int) -> bool:
        if nbytes and self._most_unfolded is not None and len(self.unfolded) >= self._most_unfolded:
            return False
        return self.met and self._credit.fits(nbytes)

    def _samples(self, message: Publish, layout: Layout) -> list[tuple[str, Array]]:
        """Return the parts by which ``codec: auto`` can learn how fast the link is: all that is then under way.

        Such a message goes plain, whatever else is in it, so that no codec is measured with the link. Where the one
        that was measured before is still under way, the link is as slow as that one said.
        """
        samples = self.encoder.samples(message, layout)
        if not samples or not self._under_way:
            return samples
        if self._slow:
            self.encoder.learn(samples, 0.0)
        return []

    def _measure(self, samples: list[tuple[str, Array]], nbytes: int) -> None:
        """Let ``codec: auto`` learn how long a message needs to be received, by waiting for that: at the start only."""
        begin = time.monotonic()
        while self._under_way and (left_s := begin + WAIT_S - time.monotonic()) > 0:
            poll([self.socket], left_s)
            self.listen()
        self._slow = bool(self._under_way)
        self.encoder.learn(samples, nbytes / max(time.monotonic() - begin, 1e-6))

    def _say(self, message: Message, nbytes: int) -> bool:
        if not self._transmit(self._session.send(message)):
            return False
        if isinstance(message, Published):
            self._credit.take(nbytes)
            self.sent_bytes += nbytes
            sent = _UnderWay(message.sequence, self._free[type(message) is PublishLent], self.sent_bytes)
            self._under_way.append(sent)
            if self.lane is None:
                self._unreceived.append(sent)
            self.unfolded.append(message.sequence)
            self._count(message)
        elif isinstance(message, Ship):
            self._credit.take(nbytes)
            self.sent_bytes += nbytes
            self.shipping_bytes -= nbytes
            self._shipped_upto = self.sent_bytes
        return True

    def _count(self, message: Published) -> None:
        if isinstance(message, PublishLent):
            sizes = [nbytes for _, nbytes in message.places]
        else:
            sizes = [nbytes_of(buffer) for buffer in message.buffers]
        before = self._sent.get(message.layout)
        self._sent[message.layout] = sizes if before is None else list(map(add, before, sizes))

    def _handle(self, message: Message) -> None:
        match message:
            case Credit(nbytes):
                self._credit.limit_bytes = nbytes
            case Borrow(mapped):
                self.lent = mapped
            case BorrowLane(bell):
                self._enter(bell)
            case Ack():
                self._acknowledged(message)
            case Refuse(reason):
                raise RemoteProtocolError(f"it refuses this rank: {reason}")

    def _enter(self, bell: str) -> None:
        """Say and hear all that follows in the lane, where there is one."""
        lane, self._offered = self._offered, None
        if lane is None:
            raise RemoteProtocolError("It has a lane that nobody lent to it.")
        if not bell:
            lane.close()
            return
        lane.segment.unlink()
        lane.rings(bell)
        self.lane = lane

    def _acknowledged(self, ack: Ack) -> None:
        if not self._folded_bytes <= ack.folded_bytes <= self.sent_bytes:
            raise RemoteProtocolError(
                f"Staging node {self.node} says it folded {ack.folded_bytes} bytes, after {self._folded_bytes} "
                f"before and {self.sent_bytes} sent."
            )
        self._received_bytes = ack.received_bytes
        self._miss(ack)
        self._credit.give(ack.folded_bytes - self._folded_bytes)
        self._folded_bytes = ack.folded_bytes
        self.unfolded.take(ack.folded)
        reached = (ack.received, ack.folded, ack.durable)
        while self._under_way:
            first = self._under_way[0]
            if first.sequence > reached[first.free]:
                break
            self._under_way.popleft()
            self._done(first.sequence)

    def _miss(self, ack: Ack) -> None:
        """Find what was lost with a connection: messages come in order, so later ones came and the bytes do not add up.

        Which ones it was is not known: all are given up that were acknowledged together, but for those that are folded.
        """
        came: list[_UnderWay] = []
        while self._unreceived and self._unreceived[0].sequence <= ack.received:
            came.append(self._unreceived.popleft())
        lost_bytes = came[-1].upto_bytes - self._lost_bytes - ack.received_bytes if came else 0
        if lost_bytes > 0:
            log.warning("%d bytes were lost on their way to staging node %d", lost_bytes, self.node)
            self._lost_bytes += lost_bytes
            self._credit.give(lost_bytes)
            for each in came:
                if each.sequence > ack.folded:
                    self._lost(each.sequence)
