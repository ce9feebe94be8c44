# SPDX-License-Identifier: Apache-2.0
"""A staging node's account of each rank that feeds it: what came, what is folded, what was acknowledged.

Acknowledgements are cumulative, so they are sent seldom: when a part of the credit has gathered, after some time, or
when there is nothing else to do. A rank never waits for one that is held back, since a lull sends them all.
"""

from dataclasses import dataclass, field

from insitu.errors import RemoteProtocolError
from insitu.model import Block
from insitu.wire.lane import LANE_BYTES, Bell, Lane
from insitu.wire.messages import Ack, Credit, LendLane, Publish, PublishEncoded, PublishLent
from insitu.wire.segment import Segment
from insitu.wire.session import Session

#: The share of its credit that a rank may have unacknowledged while more is arriving.
_SHARE = 8
#: Combinations of places that are remembered of each rank.
_PLACES = 4096


@dataclass(slots=True)
class RankLink:
    """One rank, as a staging node sees it."""

    identity: bytes
    session: Session
    rank: int
    #: What it may have under way by the newest word, and the most that it was ever told.
    credit_bytes: int = 0
    allowed_bytes: int = 0
    received: int = -1
    received_bytes: int = 0
    folded: int = -1
    folded_bytes: int = 0
    acked_received_bytes: int = 0
    acked_folded_bytes: int = 0
    acked_at: float = 0.0
    dirty: bool = False
    segment: Segment | None = None
    #: Where messages go and come, where there is a lane.
    lane: Lane | None = None
    #: The sequences that came and are not acknowledged as folded yet, in order: whether each is done with.
    here: dict[int, bool] = field(default_factory=dict)
    _known: dict[tuple[int, tuple[tuple[int, int], ...]], tuple[list[Block], int]] = field(default_factory=dict)

    def grant(self, nbytes: int) -> Credit:
        """Give the rank credit; it may use up what it had until it hears of less."""
        self.credit_bytes = nbytes
        self.allowed_bytes = max(self.allowed_bytes, nbytes)
        return Credit(nbytes)

    def lent(self, message: PublishLent) -> tuple[list[Block], int]:
        """Return the blocks of a message, views of the rank's own memory, and their bytes.

        The same places come again and again, since a rank takes the lowest free ones first. Raises
        `RemoteProtocolError` for places that are not in what was lent.
        """
        known = self._known.get((message.layout, message.places))
        if known is None:
            if len(self._known) == _PLACES:
                self._known.clear()
            blocks = self.session.blocks_of(self._look_up(message))
            known = self._known[message.layout, message.places] = blocks, sum(block.data.nbytes for block in blocks)
        return known

    def _look_up(self, message: PublishLent) -> Publish:
        if self.segment is None:
            raise RemoteProtocolError(f"Rank {self.rank} speaks of memory that this staging node has not mapped.")
        data = self.segment.data
        for offset, nbytes in message.places:
            if offset + nbytes > data.nbytes:
                raise RemoteProtocolError(
                    f"Rank {self.rank} speaks of {nbytes} bytes at {offset} of a segment of {data.nbytes} bytes."
                )
        buffers = tuple(data[offset : offset + nbytes] for offset, nbytes in message.places)
        return Publish(message.sequence, message.index, message.time, message.layout, buffers)

    def decoded(self, message: PublishEncoded) -> Publish:
        """Return the message with its buffers as they were put; what is beyond the credit is not even decoded."""
        self._require(message.sequence, sum(form.nbytes for form in message.forms))
        return self.session.decoded(message)

    def take_lane(self, lend: LendLane, bell: Bell) -> Lane | None:
        """Return the lane that the rank has made, where it is on this machine and its bell can be rung."""
        if self.lane is not None:
            raise RemoteProtocolError(f"Rank {self.rank} has a lane already.")
        segment = Segment.open(lend.segment, lend.secret, LANE_BYTES, writable=True)
        if segment is None or not bell.ring(lend.bell):
            return None
        return Lane(segment, bell, makes=False, other=lend.bell)

    def release(self) -> None:
        """Let go of the rank's memory."""
        if self.lane is not None:
            self.lane.close()
            self.lane = None
        self._known.clear()
        if self.segment is not None:
            self.segment.close()
            self.segment = None

    def receive(self, sequence: int, nbytes: int) -> None:
        """Count a message. Raises `RemoteProtocolError` for one out of order, and for one beyond the credit."""
        self._require(sequence, nbytes)
        self.received = sequence
        self.received_bytes += nbytes
        self.here[sequence] = False
        # Lent memory is the rank's again when it is folded, and not before: that it came tells it nothing.
        self.dirty = self.dirty or self.segment is None

    def _require(self, sequence: int, nbytes: int) -> None:
        if sequence <= self.received:
            raise RemoteProtocolError(f"Rank {self.rank} published sequence {sequence} after {self.received}.")
        self._require_credit(nbytes, f"at sequence {sequence}")

    def _require_credit(self, nbytes: int, where: str) -> None:
        if self.received_bytes + nbytes - self.acked_folded_bytes > self.allowed_bytes:
            raise RemoteProtocolError(
                f"Rank {self.rank} sent {nbytes} bytes beyond its credit of {self.allowed_bytes} {where}."
            )

    def receive_states(self, nbytes: int) -> None:
        """Count states that the rank has folded. Raises `RemoteProtocolError` for some beyond the credit."""
        self._require_credit(nbytes, "in states")
        self.received_bytes += nbytes
        self.dirty = True

    def fold_states(self, nbytes: int) -> None:
        """Count states that were handed over, or are of no use."""
        self.folded_bytes += nbytes
        self.dirty = True

    def fold(self, sequence: int, nbytes: int) -> None:
        """Count what is done with: folded, dropped or late.

        A late step is done with before an earlier one that is being folded. The rank takes `folded` for all up to it,
        and would use their memory again: so it stays behind what is still needed.
        """
        self.here[sequence] = True
        self.folded_bytes += nbytes
        while self.here and self.here[first := next(iter(self.here))]:
            del self.here[first]
            self.folded = first
        self.dirty = True

    @property
    def urgent(self) -> bool:
        """Whether so much is unacknowledged that the rank could soon wait for it."""
        late = max(self.received_bytes - self.acked_received_bytes, self.folded_bytes - self.acked_folded_bytes)
        return self.dirty and late * _SHARE > self.credit_bytes

    @property
    def caught_up(self) -> bool:
        """Whether all that came is folded, and the rank does not know: it may wait for this, and nothing follows it."""
        return self.dirty and self.folded_bytes != self.acked_folded_bytes and not self.here

    def ack(self) -> Ack:
        """Return the acknowledgement of all so far."""
        return Ack(self.received, self.folded, self.received_bytes, self.folded_bytes)

    def acked(self, now: float, sent: bool) -> None:
        """The acknowledgement was sent, or could not be: the next message from the rank is then answered by another."""
        if sent:
            self.acked_received_bytes = self.received_bytes
            self.acked_folded_bytes = self.folded_bytes
        self.acked_at = now
        self.dirty = False
