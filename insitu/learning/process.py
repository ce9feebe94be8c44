# SPDX-License-Identifier: Apache-2.0
"""What the process of a learner does: takes steps from the staging nodes, lets the learner work, tells what came of it.

One thread does all, in turns: what has come is looked at between two pieces of work, and only where there is none to do
is anything waited for. What is under way meanwhile waits in the buffers of ZeroMQ, within the bounds of
`insitu.staging.feeders`.
"""

import os
import socket as hosts
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from insitu.config.plugins import load_operator
from insitu.errors import OperatorError
from insitu.kept import kept
from insitu.learner import Learner, Learning, Row, Taken, Team, Workspace
from insitu.learning.gathering import Gathering
from insitu.wire.addresses import stays_here
from insitu.wire.contact import Contact
from insitu.wire.keys import CurveKeys
from insitu.wire.learning import Join, Learned, LearnerHello, Lesson, Meet, Sources, Subscribe
from insitu.wire.messages import VERSION, Entry, Event, Finish, Finished, Message, Partial, Refuse, Shutdown, Status
from insitu.wire.session import Link, Session, Side
from insitu.wire.sockets import Pollable, Socket, connect, poll

#: How often the controller hears how it goes, and the keeper that this process lives.
STATUS_S = 0.25
#: How long one look waits where there is nothing to do.
IDLE_S = 0.1


class Order:
    """What a staging node asks of this process."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        entry = dict(said["entry"])
        kind = load_operator(entry.pop("use"))
        assert issubclass(kind, Learner)
        self.operator = str(said["operator"])
        self.process = int(said.get("process", 0))
        self.learner: Learner = kind.model_validate(entry)
        contact = dict(said["contact"])
        keys = contact.pop("keys")
        self.contact = Contact(**contact, keys=keys and CurveKeys(**keys))
        self.config_hash = str(said["config_hash"])


class Line:
    """One link of this process: its socket and its session."""

    def __init__(self, link: Link, address: str, keys: CurveKeys | None, hello: Message) -> None:
        self.socket: Socket = connect(address, keys)
        self._session = Session(link, Side.CONNECTS)
        self.say(hello)

    def say(self, message: Message) -> None:
        self.socket.send(self._session.send(message))

    def hear(self) -> Message | None:
        frames = self.socket.receive()
        return None if frames is None else self._session.receive(frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Working:
    """One learner at work. `parent` is readable when the keeper is gone or wants an end; `beat` tells it that all is
    well."""

    def __init__(self, order: Order, parent: Pollable, beat: Callable[[], None]) -> None:
        self._order = order
        self._parent = parent
        self._beat = beat
        self._nodes: dict[int, Line] = {}
        self._ends: set[int] = set()
        self._learning: Learning | None = None
        self._gathering: Gathering | None = None
        self._rows = 0
        self._over = False
        self._finished = False
        self._taken = -1
        self._waiting: tuple[int, Taken | None] | None = None
        self._full_at: float | None = None
        self._more = False
        self._told_end = False
        self._counters: dict[str, int | float] = dict.fromkeys(("taken_steps", "pieces"), 0)
        self._seconds = dict.fromkeys(("work_s", "take_s", "idle_s", "full_s"), 0.0)
        self._status_at = 0.0

    def run(self) -> None:
        """Work until the run is over, or the learner raises."""
        order, contact = self._order, self._order.contact
        with kept():
            order.learner.require()
            order.learner.warm_up()  # before the greeting: the simulation is started when all have greeted
        who = (VERSION, contact.run, order.operator, hosts.gethostname(), os.getpid(), order.process)
        with ExitStack() as stack:
            hello = LearnerHello(*who)
            self._controller = stack.enter_context(Line(Link.LEARNER_CONTROLLER, contact.address, contact.keys, hello))
            self._who, self._stack = who, stack
            while not self._over:
                self._turn()

    def _turn(self) -> None:
        begin = time.monotonic()
        worked = self._learning is not None and self._learning.work()
        now = time.monotonic()
        self._seconds["work_s"] += now - begin
        self._counters["pieces"] += worked
        lines = [self._controller, *self._nodes.values()]
        busy = worked or self._more
        ready = poll([*(line.socket for line in lines), self._parent], 0 if busy else IDLE_S)
        if not worked:
            self._seconds["idle_s"] += time.monotonic() - now
        if self._parent in ready:
            self._over = True
            return
        self._hear_controller()
        for node, line in self._nodes.items():
            if line.socket in ready:
                self._hear_node(node, line)
        taking = time.monotonic()
        self._take(now - begin if worked else IDLE_S)
        self._seconds["take_s"] += time.monotonic() - taking
        self._tell_rows()
        if not self._finished and self._all_is_taken:
            self._end(worked)
        if time.monotonic() - self._status_at > STATUS_S:
            self._report()

    def _hear_controller(self) -> None:
        while (message := self._controller.hear()) is not None:
            match message:
                case Sources(nodes):
                    self._gathering = Gathering([number for number, _ in nodes], self._order.learner.needs)
                    for number, address in nodes:
                        line = Line(Link.LEARNER_NODE, address, self._order.contact.keys, Subscribe(*self._who))
                        self._nodes[number] = self._stack.enter_context(line)
                case Meet(generation, members, meeting):
                    assert self._learning is not None  # it asks for that when it has begun
                    self._learning.meet(Team(generation, members, meeting))
                case Shutdown():
                    self._over = True
                case Refuse(reason):
                    raise OperatorError(f"The run does not take this learner: {reason}")

    def _hear_node(self, node: int, line: Line) -> None:
        assert self._gathering is not None
        while (message := line.hear()) is not None:
            match message:
                case Lesson():
                    self._gathering.add(node, message)
                case Finish():
                    self._ends.add(node)
                case Refuse(reason):
                    raise OperatorError(f"Staging node {node} does not take this learner: {reason}")

    def _take(self, at_most_s: float) -> None:
        """Give the learner what has come, as far as it has room and no longer than it worked; let the nodes go on.

        So a fast stream cannot keep it from its work: both get half of the time.
        """
        if self._gathering is None:
            return
        before, begin = self._taken, time.monotonic()
        self._more = False
        while (found := self._waiting or self._gathering.next()) is not None:
            self._waiting = found
            sequence, taken = found
            if taken is not None:
                if self._learning is None:
                    self._learning = self._order.learner.begin(self._gathering.variables, self._workspace)
                if not self._learning.take(taken):
                    break
                self._counters["taken_steps"] += 1
            self._waiting = None
            self._taken = sequence
            if time.monotonic() - begin > at_most_s:
                self._more = True
                break
        if self._waiting is not None:
            self._seconds["full_s"] += begin - self._full_at if self._full_at is not None else 0.0
            self._full_at = begin
        else:
            self._full_at = None
        if self._taken > before:
            for line in self._nodes.values():
                line.say(Learned(self._taken))

    @property
    def _all_is_taken(self) -> bool:
        ended = bool(self._nodes) and len(self._ends) == len(self._nodes)
        return ended and not self._more and self._waiting is None

    def _end(self, worked: bool) -> None:
        """No step will come: say so once, and when nothing is left to do, close."""
        if self._learning is not None and not self._told_end:
            self._told_end = True
            self._learning.end()
        elif not worked and (self._learning is None or self._learning.finished):
            if self._learning is not None:
                self._learning.close()
                self._tell_rows()
            self._finished = True
            self._report()
            self._controller.say(Finished(0))

    @property
    def _workspace(self) -> Workspace:
        order = self._order
        return Workspace(
            order.operator,
            Path(order.contact.directory),
            order.config_hash,
            self._tell,
            order.process,
            stays_here(order.contact.address),
            lambda generation, missing: self._controller.say(Join(generation, missing)),
        )

    def _tell(self, text: str) -> None:
        who = f"'{self._order.operator}'"
        if self._order.learner.processes > 1:
            who += f", process {self._order.process}"
        self._controller.say(Event("warning", "learner", f"Learner {who}: {text}"))

    def _tell_rows(self) -> None:
        for row in self._learning.rows() if self._learning is not None else ():
            self._controller.say(self._partial(row))
            self._rows += 1

    def _partial(self, row: Row) -> Partial:
        """Return the message of one row; one without any step covers nothing, behind the newest."""
        last = row.last
        since = row.first.sequence if row.steps else last.sequence + 1
        values = {name: np.asarray(value) for name, value in row.values.items()}
        entry = Entry(self._rows, row.steps, row.first.index, last.index, last.time, None, values)
        return Partial(self._order.operator, 0, -1, since, last.sequence, True, (entry,))

    def _report(self) -> None:
        self._status_at = time.monotonic()
        self._beat()
        counters: dict[str, int | float | str] = {**self._counters}
        counters |= {name: round(seconds, 3) for name, seconds in self._seconds.items()}
        if self._gathering is not None:
            counters["left_out_steps"] = self._gathering.left_out
        if self._learning is not None:
            counters |= self._learning.counters()
        self._controller.say(Status(counters))
