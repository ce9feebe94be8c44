# SPDX-License-Identifier: Apache-2.0
"""The controller's side of its conversations with learners. No sockets: who sends comes in by `send`.

A learner's process may die and be started anew by its staging node; the new one takes the place of the old, and its
results go on where the others ended. Its rows are numbered here, so that no number comes twice. Where a learner has
several processes, all of this holds of each, and it is said here which of them work together.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from insitu.controller.admission import Peer
from insitu.controller.gather import Window
from insitu.controller.teams import Team
from insitu.errors import RemoteProtocolError
from insitu.learner import Learner
from insitu.wire.learning import Join, LearnerHello, Sources
from insitu.wire.messages import Event, Finished, Message, Partial, Shutdown, Status

Counters = Mapping[str, int | float | str]
#: A process of a learner: its operator, and its number.
Pupil = tuple[str, int]


class Learners:
    """The `learners` of one run, by the names of their operators."""

    def __init__(
        self,
        learners: Mapping[str, Learner],
        *,
        send: Callable[[Peer, Message], None],
        deliver: Callable[[Window], None],
        event: Callable[[Peer, Event], None],
    ) -> None:
        #: How often the processes of each were started anew.
        self.restarts: Counter[str] = Counter()
        self._learners = learners
        self._pupils = frozenset((name, k) for name, each in learners.items() for k in range(each.processes))
        self._counters: dict[Pupil, Counters] = {}
        meeting = secrets.token_hex(8)
        self._teams = {name: Team(each.processes, meeting) for name, each in learners.items()}
        self._send = send
        self._deliver = deliver
        self._event = event
        self._peers: dict[Pupil, Peer] = {}
        self._finished: set[Pupil] = set()
        self._windows: Counter[str] = Counter()
        self._sources: Sources | None = None

    @property
    def here(self) -> bool:
        """Whether all of them are there."""
        return not self.lacking

    @property
    def lacking(self) -> list[str]:
        """Those of which a process has not begun."""
        return sorted({name for name, _ in self._pupils - self._peers.keys()})

    @property
    def counters(self) -> dict[str, Counters]:
        """What each says it has counted so far, its processes before included as far as they were told.

        Where there are several, the numbers of all are added up but for those that mean the same in each.
        """
        return {name: found for name in self._learners if (found := self._added(name))}

    def processes(self, operator: str) -> list[Counters]:
        """What the processes of a learner have counted, each by itself; nothing where there is but one."""
        number = self._learners[operator].processes
        return [self._counters.get((operator, k), {}) for k in range(number)] if number > 1 else []

    def require_expected(self, hello: LearnerHello, run: str) -> None:
        """Learners are started by staging nodes of the run: another one was started by somebody else."""
        if hello.run != run or (hello.operator, hello.process) not in self._pupils:
            raise RemoteProtocolError(f"Learner '{hello.operator}' of run '{hello.run}' is not expected.")

    def admit(self, peer: Peer, operator: str, process: int = 0) -> None:
        """A learner's process is there, the first one or one in the place of another."""
        if (before := self._peers.get((operator, process))) is not None:
            before.ended = True
            self.restarts[operator] += 1
            self._meet(operator, self._teams[operator].lose(process))
        self._peers[operator, process] = peer
        if self._sources is not None:
            self._send(peer, self._sources)

    def begin(self, nodes: Mapping[int, str]) -> None:
        """Say which staging nodes are fed, by number and address."""
        self._sources = Sources(tuple(nodes.items()))
        for peer in self._peers.values():
            self._send(peer, self._sources)

    def hear(self, peer: Peer, message: Message) -> None:
        """Take in what a learner says."""
        found = self._pupil_of(peer)
        if found is None:
            return  # the last words of a process that another has replaced
        operator, process = found
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
                self._counters[found] = counters
            case Join(generation, missing):
                self._meet(operator, self._teams[operator].join(process, generation, missing))
            case Finished():
                self._finished.add(found)
                self._meet(operator, self._teams[operator].finish(process))

    def lose(self, operator: str, process: int, *, for_good: bool = False) -> bool:
        """The process of a learner has died, and is started anew or not; return whether the others can go on."""
        if operator not in self._teams:
            return False
        team = self._teams[operator]
        self._meet(operator, team.lose(process, for_good=for_good))
        if for_good:
            self._finished.add((operator, process))
        return team.alive

    def drained(self, failed: Collection[str]) -> bool:
        """Whether every learner that was not stopped has worked off all it was given."""
        return all(pupil in self._finished or pupil[0] in failed for pupil in self._pupils)

    @property
    def pieces(self) -> int:
        """How many pieces of work were done, to see whether anything moves."""
        return sum(int(counters.get("pieces", 0)) for counters in self._counters.values())

    def stop(self, operator: str) -> None:
        """A learner is stopped, for whatever reason: its processes may go."""
        for (name, _), peer in self._peers.items():
            if name == operator:
                self._send(peer, Shutdown())

    def shut_down(self) -> None:
        """Let all of them go."""
        for peer in self._peers.values():
            self._send(peer, Shutdown())

    def _meet(self, operator: str, processes: Collection[int]) -> None:
        for process in processes:
            self._send(self._peers[operator, process], self._teams[operator].meet())

    def _added(self, operator: str) -> Counters:
        found: dict[str, int | float | str] = {}
        shared = self._learners[operator].shared_counters
        for (name, _), counters in sorted(self._counters.items()):
            for key, value in counters.items() if name == operator else ():
                before = found.get(key)
                if before is None or isinstance(value, str) or isinstance(before, str):
                    found[key] = value
                else:
                    found[key] = max(before, value) if key in shared else round(before + value, 3)
        return found

    def _pupil_of(self, peer: Peer) -> Pupil | None:
        return next((pupil for pupil, known in self._peers.items() if known is peer), None)
