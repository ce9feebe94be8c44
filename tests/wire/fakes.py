# SPDX-License-Identifier: Apache-2.0
"""One end of a link in a test's own hands: a real socket, a real session, and nothing said but what the test says."""

from collections.abc import Callable
from typing import TypeVar

from insitu.wire.messages import Buffer, Message
from insitu.wire.session import Link, Session, Side
from insitu.wire.sockets import Listener, Socket, connect, listen
from tests.waiting import wait_until

M = TypeVar("M")


class _Fake:
    """What both ends have in common. `meanwhile` is done between two looks for a message."""

    def __init__(self, link: Link, side: Side) -> None:
        self.session = Session(link, side)
        self.heard: list[Message] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def take(self) -> None:
        """Take in what has arrived."""
        raise NotImplementedError

    def all(self, kind: type[M]) -> list[M]:
        """Return what was heard of one kind so far."""
        self.take()
        return [message for message in self.heard if isinstance(message, kind)]

    def hear(self, kind: type[M], number: int = 1) -> M:
        """Wait for the message of this kind that has this number; return it."""

        def there() -> bool:
            self.meanwhile()
            return len(self.all(kind)) >= number

        wait_until(there, 10.0, f"{number} {kind.__name__}, after {self.heard}")
        return self.all(kind)[number - 1]


class FakeListener(_Fake):
    """Whoever listens, to one peer."""

    def __init__(self, link: Link) -> None:
        super().__init__(link, Side.LISTENS)
        self.listener: Listener = listen("tcp://127.0.0.1:*")
        self._identity = b""

    def take(self) -> None:
        while (arrived := self.listener.receive()) is not None:
            self._identity, frames = arrived
            self.heard.append(self.session.receive(frames))

    def say(self, message: Message) -> None:
        self.send(self.session.send(message))

    def send(self, frames: list[Buffer]) -> None:
        """Say what need not be a message."""
        assert self.listener.send(self._identity, frames)

    def close(self) -> None:
        self.listener.close(linger_s=0)


class FakeCaller(_Fake):
    """Whoever connects."""

    def __init__(self, link: Link, address: str) -> None:
        super().__init__(link, Side.CONNECTS)
        self.socket: Socket = connect(address)

    def take(self) -> None:
        while (frames := self.socket.receive()) is not None:
            self.heard.append(self.session.receive(frames))

    def say(self, message: Message) -> None:
        self.send(self.session.send(message))

    def send(self, frames: list[Buffer]) -> None:
        """Say what need not be a message."""
        assert self.socket.send(frames)

    def close(self) -> None:
        """Leave; what was said is still sent."""
        self.socket.close()
