# SPDX-License-Identifier: Apache-2.0
"""Feeds learners with committed steps, each at its own pace. No thread and no socket: all is the receiver's.

A step is kept until the learner has said that it took it; only then its memory and its credit are free again. So a
learner that is slow, or full, makes the ranks wait as a slow fold would, by the policy of their buffers. Some steps are
under way at once, within `AHEAD_BYTES`. A learner's process that subscribes anew, because the one before has died, is
sent what was never taken.
"""

import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from insitu.errors import LocalProtocolError, RemoteProtocolError
from insitu.staging.assembler import ReadyStep, in_order, rank_of
from insitu.staging.consumers import Done
from insitu.staging.folder import Folded, operator_stopped
from insitu.wire.blocks import BlockSpec
from insitu.wire.codec import Frame
from insitu.wire.learning import Learned, Lesson, Subscribe
from insitu.wire.messages import Buffer, Event, Finish, Finished, Message
from insitu.wire.session import Link, Session, Side, nbytes_of

#: Bytes that may be under way to one learner: several batches of what a small network learns from, and of large fields
#: the next one while this one is taken. One step always may.
AHEAD_BYTES = 32 << 20

#: Sends frames to a peer, and says whether they were taken.
Send = Callable[[bytes, list[Buffer]], bool]


class Feeder:
    """The consumer that keeps the steps of one `member` for learner `operator`, which `needs` some variables."""

    cause = "trainer"

    def __init__(self, operator: str, needs: Collection[str], member: int, done: Done) -> None:
        self._operator = operator
        self._needs = frozenset(needs)
        self._member = member
        self._done = done
        self._steps: deque[ReadyStep] = deque()
        self._under_way: deque[int] = deque()
        self._ended: int | None = None
        self._told = False
        self._finished = False
        self._gone = False
        self._newest = -1

    @property
    def alive(self) -> bool:
        return True  # it has no thread that could end

    def status(self) -> dict[str, int | float | str]:
        """What the controller is told: how many steps wait for the learner."""
        return {f"waiting_for_{self._operator}": len(self._steps)}

    def submit(self, steps: list[ReadyStep]) -> None:
        self._newest = max([self._newest, *(ready.step.sequence for ready in steps)])
        if self._gone:
            self._done(Folded(steps, []))
        else:
            self._steps.extend(steps)

    def finish(self, steps: int) -> None:
        self._ended = steps
        self._finish()

    def close(self) -> None:
        """Nothing is here that would have to be ended."""

    def begin(self) -> None:
        """A process of the learner has subscribed: it is sent all that none before has taken."""
        self._under_way.clear()
        self._told = False

    def next(self) -> Message | None:
        """Return what is to be sent next, or ``None`` while that must wait; `sent` is called when it was."""
        if len(self._under_way) < len(self._steps):
            if self._under_way and sum(self._under_way) > AHEAD_BYTES:
                return None
            return self._lesson(self._steps[len(self._under_way)])
        if self._ended is not None and not self._told and not self._gone:
            return Finish(self._member, self._ended)
        return None

    def sent(self, message: Message) -> None:
        """Note that a message is under way."""
        if isinstance(message, Lesson):
            self._under_way.append(sum(nbytes_of(buffer) for buffer in message.buffers))
        else:
            self._told = True

    def learned(self, upto: int) -> None:
        """Let go of the steps that the learner took. Raises `RemoteProtocolError` for steps that it was not sent."""
        if upto > self._newest:
            raise RemoteProtocolError(f"Learner '{self._operator}' took step {upto}, which it was not sent.")
        taken: list[ReadyStep] = []
        while self._under_way and self._steps[0].step.sequence <= upto:
            self._under_way.popleft()
            taken.append(self._steps.popleft())
        if taken:
            self._done(Folded(taken, []))
        self._finish()

    def dismiss(self) -> None:
        """The learner is stopped: let go of all steps, now and from now on."""
        self._gone = True
        steps, self._steps = list(self._steps), deque()
        self._under_way.clear()
        if steps:
            self._done(Folded(steps, []))
        self._finish()

    def _finish(self) -> None:
        if self._ended is not None and not self._steps and not self._finished:
            self._finished = True
            self._done(Folded([], [Finished(self._member)]))

    def _lesson(self, ready: ReadyStep) -> Lesson:
        parts = [
            (rank_of(source), block)
            for source, blocks in sorted(ready.blocks.items(), key=lambda item: in_order(item[0]))
            for name, block in blocks.items()
            if name in self._needs
        ]
        specs = tuple(
            (rank, BlockSpec(each.variable, each.start, (0, *each.count[1:]) if each.variable.joined else each.count))
            for rank, each in parts
        )
        step = ready.step
        return Lesson(step.sequence, step.index, step.time, specs, tuple(each.data for _, each in parts))


@dataclass(slots=True)
class _Subscriber:
    """A learner's process, and whether it is still sent anything."""

    operator: str
    session: Session
    here: bool = True


class Feeders:
    """The feeders of one staging node of run `run`, for learners with what each `needs`, and who subscribed there."""

    def __init__(self, run: str, needs: Mapping[str, Collection[str]]) -> None:
        self._run = run
        self._needs = needs
        self._feeders: dict[str, Feeder] = {}
        self._subscribers: dict[bytes, _Subscriber] = {}
        self._newest: dict[str, bytes] = {}

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._subscribers

    def makers(self, member: int) -> list[Callable[[Done], Feeder]]:
        """Return what makes the consumers of a member's steps, one for each learner."""

        def maker(operator: str) -> Callable[[Done], Feeder]:
            def make(done: Done) -> Feeder:
                feeder = self._feeders[operator] = Feeder(operator, self._needs[operator], member, done)
                return feeder

            return make

        return [maker(operator) for operator in self._needs]

    def admit(self, identity: bytes, frames: Sequence[Frame]) -> None:
        """Take in a subscription. Raises `RemoteProtocolError` for one that is not expected."""
        session = Session(Link.LEARNER_NODE, Side.LISTENS)
        subscribe = session.receive(frames)
        assert isinstance(subscribe, Subscribe)
        operator = subscribe.operator
        if subscribe.run != self._run or operator not in self._needs:
            raise RemoteProtocolError(f"Learner '{operator}' of run '{subscribe.run}' is not expected.")
        if (before := self._newest.get(operator)) is not None:
            self._subscribers[before].here = False
        self._subscribers[identity] = _Subscriber(operator, session)
        self._newest[operator] = identity
        if operator in self._feeders:
            self._feeders[operator].begin()

    def receive(self, identity: bytes, frames: Sequence[Frame]) -> None:
        """Take in what a subscriber says."""
        subscriber = self._subscribers[identity]
        message = subscriber.session.receive(frames)
        if isinstance(message, Learned) and subscriber.here and subscriber.operator in self._feeders:
            self._feeders[subscriber.operator].learned(message.upto)

    def forget(self, identity: bytes) -> None:
        """A subscriber broke the protocol: it is sent nothing more."""
        if identity in self._subscribers:
            self._subscribers[identity].here = False

    def dismiss(self, operator: str) -> None:
        """A learner is stopped."""
        if operator in self._feeders:
            self._feeders[operator].dismiss()

    def send(self, send: Send) -> list[Event]:
        """Send what can be sent; return what is to be told."""
        told: list[Event] = []
        for operator, identity in self._newest.items():
            feeder, subscriber = self._feeders.get(operator), self._subscribers[identity]
            while feeder is not None and subscriber.here and (message := feeder.next()) is not None:
                try:
                    frames = subscriber.session.send(message)
                except LocalProtocolError as error:
                    told.append(operator_stopped(operator, str(error), traceback.format_exc()))
                    subscriber.here = False
                    break
                if not send(identity, frames):
                    subscriber.here = False  # its process is gone; the next one will subscribe
                    break
                feeder.sent(message)
        return told
