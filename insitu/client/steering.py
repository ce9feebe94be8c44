# SPDX-License-Identifier: Apache-2.0
"""What the run may change in one rank, and when: the rank's side of every agreement on an action.

Rule 1: an action is applied at a boundary, the moment after a step was closed, published or not, and nowhere else. A
boundary at which nothing is due costs below a microsecond.

Rule 2: what is wrong with an action is found before this rank promises it, so that what was promised can be applied.

Rule 3: every wait here has a bound: for a decision `max_wait_s`, in a pause `max_pause_s`, and `SILENCE_S` without a
word from the controller. Time in which this process was stopped itself is no silence of others, and counts for little
(`Wait`). Who waits goes on taking in what the staging nodes say.

With `agree: mpi` rank 0 alone talks to the controller about actions and tells the others, in one broadcast of eight
bytes at each boundary; then there is neither a promise nor a doubt.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import msgpack
import numpy as np

from insitu.client.parameters import Function, Parameter, StateArray
from insitu.errors import ActionError, LocalProtocolError, RunError
from insitu.steering.actions import Action, check_values, pauses_after
from insitu.steering.agreement import Pledge, Word
from insitu.steering.parameters import ParameterSpec, plain
from insitu.steering.waits import Wait
from insitu.wire.codec import decode, encode
from insitu.wire.messages import Message
from insitu.wire.steering import Answer, Decide, Declare, Propose, Reached, Standing, SteeringTerms

log = logging.getLogger("insitu.client")

#: How often the controller hears where this rank is.
REACHED_S = 0.5
#: The controller says something every two seconds, unless it is gone. A paused rank that hears nothing goes on.
SILENCE_S = 60.0
#: How long a wait lasts until its time is looked at.
_POLL_S = 0.02


class Broadcaster(Protocol):
    """What is used of an mpi4py communicator where `agree` is ``mpi``."""

    def Bcast(self, buf: Any, root: int = 0) -> None: ...


class Line(Protocol):
    """What is used of the link to the controller."""

    heard_at: float

    def say(self, message: Message) -> None: ...


class Steered:
    """The steering of one rank.

    With `comm` all ranks follow rank 0.
    """

    def __init__(self, rank: int, terms: SteeringTerms, line: Line, comm: Broadcaster | None = None) -> None:
        self.stopping = False
        #: Of so many steps one is published.
        self.every = 1
        #: How many boundaries were passed.
        self.passed = 0
        self._rank = rank
        self._terms = terms
        self._line = line
        self._say = line.say
        self._pump: Callable[[float], None] = lambda wait_s: None
        self._comm = comm
        self._parameters: dict[str, Parameter] = {}
        self._states: dict[str, StateArray] = {}
        self._functions: dict[str, Function] = {}
        self._scheduled: deque[Propose] = deque()
        self._proposed: Propose | None = None
        self._pledge: Pledge | None = None
        self._decided_at = 0
        self._paused = False
        #: The boundary of the pause to which it runs.
        self._pause_at: int | None = None
        self._busy = comm is not None
        self._said_at = 0.0

    def meet(self, scheduled: int, timeout_s: float, pump: Callable[[float], None]) -> None:
        """Wait for the actions that were decided before this rank joined.

        `pump` takes in what is said on the line and elsewhere, and waits for it at most as long as it is told. Raises
        `RunError` where they do not come.
        """
        self._pump = pump
        deadline = time.monotonic() + timeout_s
        while len(self._scheduled) < scheduled:
            if time.monotonic() > deadline:
                raise RunError(
                    f"Rank {self._rank}: of {scheduled} recorded actions, {len(self._scheduled)} came within "
                    f"{timeout_s:g} s; without them the run would not be the recorded one."
                )
            pump(_POLL_S)

    @property
    def parameters(self) -> Collection[Parameter]:
        """All that are declared; of states, which are fields, none."""
        return self._parameters.values()

    def parameter(self, spec: ParameterSpec) -> Parameter:
        """Declare a parameter, and return what the simulation reads it from."""
        known = self._parameters.get(spec.name)
        if known is None:
            self._require_new(spec.name)
            assert spec.default is not None
            known = self._parameters[spec.name] = Parameter(spec.name, spec.default, spec)
            self._say(Declare("parameter", spec.name, spec.to_plain(), (), ()))
        elif known.spec != spec:
            raise LocalProtocolError(f"parameter '{spec.name}' was declared otherwise before; declare it once.")
        return known

    def state(self, state: StateArray) -> StateArray:
        """Declare a field that may be overwritten."""
        self._require_new(state.name)
        self._states[state.name] = state
        self._say(Declare("state", state.name, state.spec.to_plain(), state.start, state.count))
        return state

    def function(self, function: Function) -> None:
        """Declare a function of the author's that an action calls."""
        if function.name in self._functions:
            raise LocalProtocolError(f"action '{function.name}' was declared before; declare it once.")
        self._functions[function.name] = function
        arguments = [spec.to_plain() for spec in function.arguments.values()]
        spec = {"name": function.name, "description": function.description, "arguments": arguments}
        self._say(Declare("action", function.name, spec, (), ()))

    def _require_new(self, name: str) -> None:
        if name in self._parameters or name in self._states:
            raise LocalProtocolError(f"'{name}' was declared before, as a parameter or a state; take another name.")

    def schedule(self, propose: Propose) -> None:
        """Take in an action that is decided: one of a record, or a stop from before this rank joined."""
        self._scheduled.append(propose)
        self._busy = True

    def hear(self, message: Propose | Decide) -> None:
        """Take in a word of the controller."""
        if isinstance(message, Decide):
            if self._pledge is not None and self._proposed is not None and message.round == self._proposed.round:
                self._pledge.decide(apply=message.apply)
                self._decided_at = self.passed
        elif message.decided:
            self.schedule(message)
        else:
            self._consider(message)
        self._busy = True

    def _consider(self, propose: Propose) -> None:
        """Promise, or say why not. A new attempt means that nothing came of the one before."""
        self._proposed, self._pledge = propose, None
        if 0 <= propose.at < self.passed:
            self._answer(propose, Word.LATE)
            return
        try:
            self._checked(propose)
        except ActionError as error:
            self._answer(propose, Word.REFUSE, str(error))
            return
        self._pledge = Pledge(propose.at, self._terms.max_wait_s)
        if self._comm is not None:
            self._pledge.decide(apply=True)
        self._answer(propose, Word.PROMISE)

    def _answer(
        self,
        propose: Propose,
        word: Word,
        reason: str = "",
        *,
        step: tuple[int, float] = (0, 0.0),
        old: Mapping[str, Any] | None = None,
        waited_s: float = 0.0,
    ) -> None:
        spare = max(0, self.passed - self._decided_at)
        self._say(Answer(propose.round, word.value, self.passed, *step, reason, dict(old or {}), waited_s, spare))

    def boundary(self, index: int, at_time: float) -> None:
        """The step of this index and time was closed: apply what is due, wait where it was promised or in a pause."""
        if self._busy:
            self._settle(index, at_time)
        self.passed += 1
        now = time.monotonic()
        if now - self._said_at > REACHED_S:
            self._said_at = now
            self._say(Reached(self.passed, index, at_time))

    def _settle(self, index: int, at_time: float) -> None:
        step = (index, at_time)
        while self._scheduled and self._scheduled[0].at <= self.passed:
            self._apply(self._scheduled.popleft(), step)
        if self._comm is None:
            self._keep_promise(step)
        else:
            self._follow_rank_0(step)
        if self._pause_at is not None and self._pause_at <= self.passed:
            self._paused, self._pause_at = True, None
        if self._paused:
            self._pause(step)
        to_come = bool(self._scheduled) or self._pledge is not None or self._pause_at is not None
        self._busy = to_come or self._comm is not None

    def _keep_promise(self, step: tuple[int, float]) -> None:
        """Apply what is decided for this boundary; wait for what is not decided yet."""
        while (pledge := self._pledge) is not None and pledge.at <= self.passed:
            assert self._proposed is not None
            waited_s = self._await(pledge, self._proposed) if pledge.waits(self.passed) else 0.0
            if pledge is not self._pledge:
                continue  # another attempt came in its place
            self._pledge = None
            if pledge.applies(self.passed):
                self._apply(self._proposed, step, waited_s)

    def _await(self, pledge: Pledge, propose: Propose) -> float:
        """Wait for a decision; return how long."""
        wait = Wait(self._terms.max_wait_s, time.monotonic())
        while pledge is self._pledge and pledge.waits(self.passed):
            self._pump(min(_POLL_S, wait.look_s))
            word = pledge.waited(wait.look(time.monotonic()))
            if word is not None:
                self._answer(propose, word)
            if word is Word.DOUBT:
                self._doubt(propose)
        return wait.waited_s

    def _doubt(self, propose: Propose) -> None:
        stops = self._terms.in_doubt == "stop" or propose.kind == "stop"
        self.stopping = self.stopping or stops
        log.error(
            "rank %d: whether '%s' is to be applied could not be learnt within %g s; it is not applied here%s",
            self._rank, propose.kind, self._terms.max_wait_s, ", and the simulation is asked to stop" if stops else "",
        )  # fmt: skip

    def _pause(self, step: tuple[int, float]) -> None:
        """Stand still until a resume, a stop, or the end of one of the bounds."""
        self._say(Standing(self.passed, *step))
        now = time.monotonic()
        paused, silence, heard_at = Wait(self._terms.max_pause_s, now), Wait(SILENCE_S, now), self._line.heard_at
        while self._paused and not self.stopping:
            if self._comm is None or self._rank == 0:
                self._pump(min(_POLL_S, paused.look_s))
                now = time.monotonic()
                if self._line.heard_at != heard_at:
                    silence, heard_at = Wait(SILENCE_S, now), self._line.heard_at
                why = _too_long(paused, silence, now)
                if why and self._comm is None:
                    # What was promised meanwhile is kept: its decision is waited for at this boundary.
                    log.warning("rank %d goes on after a pause: %s", self._rank, why)
                    self._paused = False
                elif why and self._pledge is None:
                    log.warning("rank %d goes on after a pause: %s", self._rank, why)
                    # To itself and to the others, which follow this rank.
                    self._proposed, self._pledge = Propose(0, self.passed, True, "resume", {}), Pledge(self.passed, 0.0)
                    self._pledge.decide(apply=True)
            if self._comm is None:
                self._keep_promise(step)
            else:
                self._follow_rank_0(step)
        self._paused = False

    def _follow_rank_0(self, step: tuple[int, float]) -> None:
        """Apply at this boundary what rank 0 has accepted before it."""
        assert self._comm is not None
        frames: list[Any] = []
        if self._rank == 0 and self._pledge is not None and self._proposed is not None:
            frames = [bytes(frame) for frame in encode(self._proposed)]
            self._pledge = None
        packed = np.frombuffer(msgpack.packb(frames), np.uint8) if frames else np.empty(0, np.uint8)
        length = np.array([len(packed)], np.int64)
        self._comm.Bcast(length)
        if length[0]:
            body = packed.copy() if self._rank == 0 else np.empty(int(length[0]), np.uint8)
            self._comm.Bcast(body)
            propose = decode([memoryview(frame) for frame in msgpack.unpackb(body.tobytes())])
            assert isinstance(propose, Propose)
            self._apply(propose, step)

    def _checked(self, propose: Propose) -> dict[str, Any]:
        """Return the values of an action as they are to be set here, of states this rank's part."""
        values = dict(propose.values)
        states = {name: values.pop(name) for name in list(values) if propose.kind == "set" and name in self._states}
        checked: dict[str, Any] = {name: self._states[name].part(value) for name, value in states.items()}
        if values or not states:
            specs = {name: parameter.spec for name, parameter in self._parameters.items() if parameter.spec is not None}
            functions = {name: function.arguments for name, function in self._functions.items()}
            checked |= check_values(Action(propose.kind, values), specs, functions)
        return checked

    def _apply(self, propose: Propose, step: tuple[int, float], waited_s: float = 0.0) -> None:
        """Do what the action says, and tell the controller; what the author's function raises is told too."""
        old: dict[str, Any] = {}
        try:
            values = self._checked(propose)
            old = self._do(propose.kind, values)
        except Exception as error:
            log.exception("rank %d: the action '%s' failed", self._rank, propose.kind)
            self._answer(propose, Word.FAILED, f"{type(error).__name__}: {error}", step=step)
            return
        self._answer(propose, Word.APPLIED, step=step, old=old, waited_s=waited_s)

    def _do(self, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        """Carry out an action; return the values before it, as plain data, and none of states."""
        old: dict[str, Any] = {}
        if kind == "set":
            for name, value in values.items():
                if name in self._states:
                    self._states[name].overwrite(value)
                else:
                    parameter = self._parameters[name]
                    old[name] = plain(parameter.value)
                    parameter.value = value
        elif kind == "trate":
            old["every"], self.every = self.every, values["every"]
        elif kind == "stop":
            self.stopping = True
        elif kind in ("pause", "resume"):
            self._paused = kind == "pause"
            self._pause_at = pauses_after(self.passed, values["steps"], self.every) if values else None
        else:
            self._functions[kind].call(**values)
        return old

    def publishes(self) -> bool:
        """Whether the step that is opened now is one that `trate` lets through."""
        return self.every == 1 or self.passed % self.every == 0


def _too_long(paused: Wait, silence: Wait, now: float) -> str:
    """Say why a pause is over, if it is."""
    paused.look(now)
    silence.look(now)
    if paused.over:
        return f"max_pause, {paused.limit_s:g} s, is over"
    if silence.over:
        return f"the controller has said nothing for {silence.limit_s:g} s"
    return ""
