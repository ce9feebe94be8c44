# SPDX-License-Identifier: Apache-2.0
"""The controller's side of its conversations with learners. No sockets: who sends comes in by `send`.

A learner's process may die and be started anew by its staging node; the new one takes the place of the old, and its
results go on where the others ended. Its rows are numbered here, so that no number comes twice.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from insitu.controller.admission import Peer
from insitu.controller.gather import Window
from insitu.errors import RemoteProtocolError
from insitu.wire.learning import LearnerHello, Sources
from insitu.wire.messages import Event, Finished, Message, Partial, Shutdown, Status

Counters = Mapping[str, int | float | str]


class Learners:
    """The learners of one run, by the `names` of their operators."""

    def __init__(
        self,
        names: Collection[str],
        *,
        send: Callable[[Peer, Message], None],
        deliver: Callable[[Window], None],
        event: Callable[[Peer, Event], None],
    ) -> None:
        #: What each says it has counted so far, its processes before included as far as they were told.
        self.counters: dict[str, Counters] = {}
        #: How often each was started anew.
        self.restarts: Counter[str] = Counter()
        self._names = frozenset(names)
        self._send = send
        self._deliver = deliver
        self._event = event
        self._peers: dict[str, Peer] = {}
        self._finished: set[str] = set()
        self._windows: Counter[str] = Counter()
        self._sources: Sources | None = None

    @property
    def here(self) -> bool:
        """Whether all of them are there."""
        return not self.lacking

    @property
    def lacking(self) -> list[str]:
        """Those whose process has not begun."""
        return sorted(self._names - self._peers.keys())

    def require_expected(self, hello: LearnerHello, run: str) -> None:
        """Learners are started by staging nodes of the run: another one was started by somebody else."""
        if hello.run != run or hello.operator not in self._names:
            raise RemoteProtocolError(f"Learner '{hello.operator}' of run '{hello.run}' is not expected.")

    def admit(self, peer: Peer, operator: str) -> None:
        """A learner's process is there, the first one or one in the place of another."""
        if (before := self._peers.get(operator)) is not None:
            before.ended = True
            self.restarts[operator] += 1
        self._peers[operator] = peer
        if self._sources is not None:
            self._send(peer, self._sources)

    def begin(self, nodes: Mapping[int, str]) -> None:
        """Say which staging nodes are fed, by number and address."""
        self._sources = Sources(tuple(nodes.items()))
        for peer in self._peers.values():
            self._send(peer, self._sources)

    def hear(self, peer: Peer, message: Message) -> None:
        """Take in what a learner says."""
        operator = self._operator_of(peer)
        if operator is None:
            return  # the last words of a process that another has replaced
        match message:
            case Partial():
                if message.operator != operator or len(message.entries) != 1 or message.entries[0].place is not None:
                    raise RemoteProtocolError(f"The learner '{operator}' sent what is no row of its results.")
                number = self._windows[operator]
                self._windows[operator] += 1
                self._deliver(Window(operator, number, message.since, message.upto, True, message.entries, (), True))
            case Event():
                self._event(peer, message)
            case Status(counters):
                self.counters[operator] = counters
            case Finished():
                self._finished.add(operator)

    def drained(self, failed: Collection[str]) -> bool:
        """Whether every learner that was not stopped has worked off all it was given."""
        return all(name in self._finished or name in failed for name in self._names)

    @property
    def pieces(self) -> int:
        """How many pieces of work were done, to see whether anything moves."""
        return sum(int(counters.get("pieces", 0)) for counters in self.counters.values())

    def stop(self, operator: str) -> None:
        """A learner is stopped, for whatever reason: its process may go."""
        if operator in self._peers:
            self._send(self._peers[operator], Shutdown())

    def shut_down(self) -> None:
        """Let all of them go."""
        for peer in self._peers.values():
            self._send(peer, Shutdown())

    def _operator_of(self, peer: Peer) -> str | None:
        return next((name for name, known in self._peers.items() if known is peer), None)
