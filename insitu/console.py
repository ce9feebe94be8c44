# SPDX-License-Identifier: Apache-2.0
"""A console: steers a run from outside, over the run's own wire and with its keys.

    >>> with insitu.steer("runs/gray-scott/contact.json") as run:  # doctest: +SKIP
    ...     print(run.parameters["feed"].maximum, run.values["feed"])
    ...     receipt = run.steer(feed=0.03).receipt(timeout=5)
    ...     print(receipt.outcome, receipt.step)
    0.1 0.035
    applied 1240

A console belongs to the thread that made it. It takes in what the run says whenever it is asked for something that
needs it, and waits for nothing else.
"""

import getpass
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from insitu.errors import RunError
from insitu.results import Provenance, Result
from insitu.steering.actions import Action, Receipt
from insitu.steering.parameters import ParameterSpec, Value
from insitu.steering.waits import Wait
from insitu.wire.contact import Contact
from insitu.wire.messages import VERSION, Message, Refuse
from insitu.wire.session import Link, Session, Side
from insitu.wire.sockets import connect, poll, require_admitted
from insitu.wire.steering import (
    ConsoleHello,
    ConsoleWelcome,
    Follow,
    Leave,
    Paused,
    Request,
    Scale,
    Scaled,
    Settled,
    Shown,
    Steerable,
)

#: The controller of a run answers within milliseconds; this is for one that stores a large result meanwhile.
TIMEOUT_S = 10.0
#: How long one wait lasts until its time is looked at.
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Standing:
    """Where all ranks stand still: at a boundary, behind the step of this index and physical time."""

    boundary: int
    step: int
    time: float


class Asked:
    """An action that was asked for."""

    def __init__(self, console: "Console", action: Action, token: int) -> None:
        self.action = action
        self._console = console
        self._token = token

    @property
    def settled(self) -> bool:
        """Whether its receipt is here."""
        return self._token in self._console.settled

    def receipt(self, timeout: float | None = None) -> Receipt:
        """Wait for what became of it, at most `timeout` seconds.

        Raises `TimeoutError`, and `RunError` where the run has ended without saying; the action may have been applied
        all the same, which ``actions.jsonl`` in the run's directory tells.
        """
        self._console.wait(lambda: self.settled, timeout, self.action.describe())
        return self._console.settled[self._token]


class Console:
    """A link to the controller of a run. Made by `steer`."""

    def __init__(self, contact: Contact, user: str = "") -> None:
        #: What may be set, and the arguments of the simulation's own actions, each by name.
        self.parameters: dict[str, ParameterSpec] = {}
        self.actions: dict[str, dict[str, ParameterSpec]] = {}
        #: What the parameters are set to.
        self.values: dict[str, Any] = {}
        #: The receipts of all actions since this console is there, whoever asked for them.
        self.receipts: list[Receipt] = []
        self._scaled: str | None = None
        self.settled: dict[int, Receipt] = {}
        self.ready = False
        #: Where all ranks stand still, as far as the run has said; ``None`` where they do not.
        self.standing: Standing | None = None
        #: The results of the operators that are followed, oldest first; take away what was read.
        self.results: dict[str, deque[Result]] = {}
        self._unshown: dict[str, str] = {}
        self._contact = contact
        self._tokens = self._heard = 0
        self._user = user or _user()
        self._welcome = self._told = False
        self._session = Session(Link.CONSOLE_CONTROLLER, Side.CONNECTS)
        self._socket = connect(contact.address, contact.keys)
        try:
            self._say(ConsoleHello(VERSION, contact.run, self._user, socket.gethostname(), os.getpid()))
            self.wait(lambda: self._told, TIMEOUT_S, "an answer")
        except BaseException:
            self._socket.close(linger_s=0)
            raise

    def steer(self, **values: Value) -> Asked:
        """Set parameters and states, all at one step."""
        return self.act("set", values)

    def pause(self) -> Asked:
        """Let the simulation stand still after a step."""
        return self.act("pause")

    def resume(self, steps: int | None = None) -> Asked:
        """Let it go on; with `steps`, until so many more were published, where all ranks stand still again.

        The receipt comes when it goes on; `until_standing` waits for the pause.
        """
        return self.act("resume", {} if steps is None else {"steps": steps})

    def until_standing(self, timeout: float | None = None, *, behind: int = -1) -> "Standing":
        """Wait until all ranks stand still in a pause at a boundary behind this one, and return where.

        Raises `TimeoutError`, and `RunError` where the run has ended instead.
        """
        there = lambda: self.standing is not None and self.standing.boundary > behind  # noqa: E731
        self.wait(there, timeout, "all ranks to stand still")
        assert self.standing is not None
        return self.standing

    def follow(self, *operators: str) -> None:
        """Have the results of these operators sent here, into `results`: the newest one, and all that follow.

        They are results that are stored and small: those that stay with the staging nodes are not fetched. A console
        that follows has to listen: one that takes in nothing for thousands of results is let go.
        """
        for operator in operators:
            self.results.setdefault(operator, deque())
        self._say(Follow(operators))

    def next_result(self, operator: str, timeout: float | None = None) -> Result:
        """Take the oldest result of an operator that is followed; wait for it at most `timeout` seconds.

        Raises `TimeoutError`, and `RunError` with the reason where there will be none.
        """
        waiting = self.results[operator]
        self.wait(lambda: waiting or operator in self._unshown, timeout, f"a result of '{operator}'")
        if not waiting:
            raise RunError(f"Run '{self._contact.run}': operator '{operator}': {self._unshown[operator]}.")
        return waiting.popleft()

    def checkpoint(self) -> Asked:
        """Have the simulation write its checkpoint."""
        return self.act("checkpoint")

    def stop(self) -> Asked:
        """Let it end, after the same step on all ranks."""
        return self.act("stop")

    def scale(self, nodes: int, timeout: float | None = None) -> None:
        """Let the run go on with so many staging nodes; they join and leave between steps, some time later.

        Raises `RunError` where it cannot, with the reason, and `TimeoutError` where it does not answer in time.
        """
        self._scaled = None
        self._say(Scale(nodes))
        self.wait(lambda: self._scaled is not None, timeout, f"{nodes} staging nodes")
        if self._scaled:
            raise RunError(f"The run keeps its staging nodes: {self._scaled}.")

    def act(self, kind: str, values: Mapping[str, Any] | None = None, *, why: str = "", by: str = "") -> Asked:
        """Ask for an action of any kind, such as one of the simulation's own; `by` and `why` are for the record."""
        values = {} if values is None else values
        action = Action(kind, values, by=by or f"user:{self._user}", why=why)
        self._tokens += 1
        self._say(Request(self._tokens, kind, dict(values), action.by, why))
        return Asked(self, action, self._tokens)

    def listen(self, wait_s: float = 0.0) -> None:
        """Take in what the run says; wait for it at most `wait_s`.

        Raises `RunError` where the run does not take part with this console, and `LocalProtocolError` where it does not
        take its keys.
        """
        poll([self._socket], wait_s)
        require_admitted(self._socket)
        while (frames := self._socket.receive()) is not None:
            self._heard += 1
            self._take(self._session.receive(frames))

    def wait(self, done: Callable[[], object], timeout: float | None, what: str) -> None:
        """Listen until `done`. Raises `TimeoutError` after `timeout` seconds, `RunError` when the run is silent.

        Time in which this process is stopped, by Ctrl-Z or with all of its machine, counts for little of either.
        """
        now = time.monotonic()
        patience, silence = Wait(math.inf if timeout is None else timeout, now), Wait(TIMEOUT_S, now)
        while not done():
            if patience.over:
                limit_s = patience.limit_s
                raise TimeoutError(f"Run '{self._contact.run}': {what}: nothing was heard of it within {limit_s:g} s.")
            if silence.over:
                raise RunError(
                    f"Run '{self._contact.run}' at {self._contact.address} has said nothing for {TIMEOUT_S:g} s; it "
                    "has ended, or this is an old contact file."
                )
            before = self._heard
            self.listen(min(_POLL_S, patience.look_s))
            now = time.monotonic()
            patience.look(now)
            silence.look(now)
            if self._heard > before:
                silence = Wait(TIMEOUT_S, now)

    def _take(self, message: Message) -> None:
        match message:
            case ConsoleWelcome():
                self._welcome = True
            case Refuse(reason):
                raise RunError(f"The run refuses this console: {reason}.")
            case Steerable(ready, parameters, actions, values):
                self.ready, self._told = ready, True
                self.parameters = {str(each["name"]): ParameterSpec.from_plain(each) for each in parameters}
                self.actions = {
                    name: {key: ParameterSpec.from_plain(each) for key, each in arguments.items()}
                    for name, arguments in actions.items()
                }
                self.values = dict(values)
            case Settled(token, data):
                receipt = Receipt.from_plain(data)
                if token >= 0:
                    self.settled[token] = receipt
                else:
                    self.receipts.append(receipt)
                    if receipt.outcome == "applied" and receipt.action.kind == "set":
                        self.values.update(receipt.new)
            case Scaled(_, why):
                self._scaled = why
            case Paused(boundary, index, at):
                self.standing = None if boundary < 0 else Standing(boundary, index, at)
            case Shown(operator, why) if why:
                self._unshown[operator] = why
            case Shown(operator):
                self.results[operator].append(_result(message))

    def _say(self, message: Message) -> None:
        self._socket.send(self._session.send(message))

    def close(self) -> None:
        """Leave the run; what was asked for stays asked for. May be called twice."""
        if self._session.state.name == "OPEN":
            self._say(Leave())
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def steer(contact: str | os.PathLike[str], *, user: str = "") -> Console:
    """Connect to a run by its contact file, or by the run's directory that holds it.

    `user` is who the receipts name (default: who is logged in). Raises `RunError` where there is no such run, or it
    does not answer, and `TimeoutError` where it is too slow.
    """
    path = os.fspath(contact)
    return Console(Contact.read(os.path.join(path, "contact.json") if os.path.isdir(path) else path), user)


def _result(shown: Shown) -> Result:
    time = math.nan if shown.time is None else shown.time
    provenance = Provenance(
        shown.index, shown.first_step, shown.last_step, time, shown.steps, shown.dropped, shown.complete
    )
    return Result(shown.operator, provenance, shown.arrays)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for this user
        return str(os.getuid())
