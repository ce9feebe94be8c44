# SPDX-License-Identifier: Apache-2.0
"""Two sessions joined by a link that is only a list, so that every order of events is a few lines of a test."""

from collections import deque

from insitu.wire.messages import Message
from insitu.wire.session import Link, Session, Side


class Pair:
    """Both ends of one link. What was sent stays under way until it is delivered; what arrived is in `received`."""

    def __init__(self, link: Link) -> None:
        self.ends = {side: Session(link, side) for side in Side}
        self.under_way: dict[Side, deque[list[bytes]]] = {side: deque() for side in Side}
        self.received: dict[Side, list[Message]] = {side: [] for side in Side}

    def send(self, side: Side, message: Message) -> None:
        """Let `side` say something."""
        self.under_way[side].append([bytes(frame) for frame in self.ends[side].send(message)])

    def deliver(self, side: Side, at: int = 0) -> Message:
        """Bring the oldest message of `side`, or the one at `at`, to the other end."""
        frames = self.under_way[side][at]
        del self.under_way[side][at]
        other = Side.LISTENS if side is Side.CONNECTS else Side.CONNECTS
        message = self.ends[other].receive(frames)
        self.received[other].append(message)
        return message

    def drop(self, side: Side, at: int = 0) -> None:
        """Lose a message of `side`."""
        del self.under_way[side][at]

    def double(self, side: Side, at: int = 0) -> None:
        """Let a message of `side` arrive twice."""
        self.under_way[side].insert(at, self.under_way[side][at])

    def settle(self) -> None:
        """Deliver all that is under way."""
        for side in Side:
            while self.under_way[side]:
                self.deliver(side)
