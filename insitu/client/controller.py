# SPDX-License-Identifier: Apache-2.0
"""A rank's link to the controller: joining, saying what happens, hearing what it decides."""

import time
from collections.abc import Callable

from insitu.errors import LocalProtocolError
from insitu.wire.messages import Commit, Hello, Message, NodeGone, Refuse, Replan, Skip, Welcome
from insitu.wire.session import Link, Session, Side
from insitu.wire.sockets import LINGER_S, Socket, poll, require_admitted
from insitu.wire.steering import Decide, Propose


class ControllerLink:
    """Never waits but in `join`."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self._session = Session(Link.RANK_CONTROLLER, Side.CONNECTS)
        #: Sequences that other ranks have dropped, and that this one has not looked at yet.
        self.skipped: set[int] = set()
        #: What was decided on steps, where this rank folds, and it has not looked at yet.
        self.commits: list[Commit] = []
        #: Staging nodes that are gone.
        self.gone: set[int] = set()
        #: The newest plan that this rank is to adopt.
        self.replan: Replan | None = None
        #: Called with what the controller says of actions.
        self.steer: Callable[[Propose | Decide], None] = lambda message: None
        self.heard_at = 0.0

    def join(self, hello: Hello, timeout_s: float) -> Welcome | None:
        """Ask to take part and return the answer, or ``None`` where none comes in time.

        Raises `LocalProtocolError` when the controller refuses.
        """
        self.say(hello)
        deadline = time.monotonic() + timeout_s
        while (remaining := deadline - time.monotonic()) > 0:
            poll([self.socket], remaining)
            while (frames := self.socket.receive()) is not None:
                match self._session.receive(frames):
                    case Welcome() as welcome:
                        return welcome
                    case Refuse(reason):
                        raise LocalProtocolError(f"The run refuses rank {hello.rank} of {hello.size}: {reason}")
            require_admitted(self.socket)
        return None

    def say(self, message: Message) -> None:
        """Send; a controller that takes nothing any more is given up on silently, for nobody is there to be told."""
        self.socket.send(self._session.send(message))

    def listen(self) -> None:
        """Take in what the controller said, without waiting."""
        while (frames := self.socket.receive()) is not None:
            self.heard_at = time.monotonic()
            match self._session.receive(frames):
                case Skip(sequences):
                    self.skipped.update(sequences)
                case NodeGone(node):
                    self.gone.add(node)
                case Replan() as replan:
                    self.replan = replan
                case Commit() as commit:
                    self.commits.append(commit)
                case Propose() | Decide() as message:
                    self.steer(message)
                case Refuse(reason):
                    raise LocalProtocolError(f"The run refuses this rank: {reason}")

    def close(self) -> bool:
        """Close, once what was said has left; return whether it has, as far as one can see.

        A goodbye leaves within milliseconds. Where closing took as long as it may, nobody was there to take it.
        """
        begin = time.monotonic()
        self.socket.close()
        return time.monotonic() - begin < LINGER_S

    def give_up(self) -> None:
        """Close without waiting for what was said to leave: nobody is there."""
        self.socket.close(linger_s=0)
