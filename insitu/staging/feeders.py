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

#: Says whether a learner's process is given the step of a sequence.
Takes = Callable[[int], bool]
#: A learner's process: its operator, and its number.
Pupil = tuple[str, int]

#: Sends frames to a peer, and says whether they were taken.
Send = Callable[[bytes, list[Buffer]], bool]


def _all(sequence: int) -> bool:
    return True


class Feeder:
    """The consumer that keeps the steps of one `member` for one process of learner `operator`: those that it `takes`,
    and of these the variables that it `needs`."""

    cause = "trainer"

    def __init__(self, operator: str, needs: Collection[str], member: int, done: Done, takes: Takes = _all) -> None:
        self._operator = operator
        self._needs = frozenset(needs)
        self._takes = takes
        self._member = member
        self._done = done
        #: All that must be let go of in its order, those that it does not take among them.
        self._steps: deque[ReadyStep] = deque()
        self._waiting: deque[ReadyStep] = deque()
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
            self._waiting.extend(ready for ready in steps if self._takes(ready.step.sequence))
            self._let_go(upto=-1)

    def finish(self, steps: int) -> None:
        self._ended = steps
        self._finish()

    def close(self) -> None:
        """Nothing is here that would have to be ended."""

    def begin(self) -> None:
        """A process of the learner has subscribed: it is sent all that none before has taken."""
        self._under_way.clear()
        self._waiting = deque(ready for ready in self._steps if self._takes(ready.step.sequence))
        self._told = False

    def next(self) -> Message | None:
        """Return what is to be sent next, or ``None`` while that must wait; `sent` is called when it was."""
        if self._waiting:
            if self._under_way and sum(self._under_way) > AHEAD_BYTES:
                return None
            return self._lesson(self._waiting[0])
        if self._ended is not None and not self._told and not self._gone:
            return Finish(self._member, self._ended)
        return None

    def sent(self, message: Message) -> None:
        """Note that a message is under way."""
        if isinstance(message, Lesson):
            self._waiting.popleft()
            self._under_way.append(sum(nbytes_of(buffer) for buffer in message.buffers))
        else:
            self._told = True

    def learned(self, upto: int) -> None:
        """Let go of the steps that the learner took. Raises `RemoteProtocolError` for steps that it was not sent."""
        if upto > self._newest:
            raise RemoteProtocolError(f"Learner '{self._operator}' took step {upto}, which it was not sent.")
        self._let_go(upto)

    def dismiss(self) -> None:
        """The learner is stopped: let go of all steps, now and from now on."""
        self._gone = True
        steps, self._steps = list(self._steps), deque()
        self._waiting.clear()
        self._under_way.clear()
        if steps:
            self._done(Folded(steps, []))
        self._finish()

    def _let_go(self, upto: int) -> None:
        """Let go of the first steps: of those that were sent and taken, and of those that others take."""
        free: list[ReadyStep] = []
        while self._steps:
            sequence = self._steps[0].step.sequence
            if self._takes(sequence):
                if not self._under_way or sequence > upto:
                    break
                self._under_way.popleft()
            free.append(self._steps.popleft())
        if free:
            self._done(Folded(free, []))
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

    pupil: Pupil
    session: Session
    here: bool = True


class Feeders:
    """The feeders of one staging node of run `run`, for learners with what each `needs`, and who subscribed there.

    `shares` says of learners with several processes which steps each of these takes.
    """

    def __init__(
        self, run: str, needs: Mapping[str, Collection[str]], shares: Mapping[str, Sequence[Takes]] | None = None
    ) -> None:
        self._run = run
        self._needs = needs
        self._shares: dict[Pupil, Takes] = {
            (name, number): takes for name in needs for number, takes in enumerate((shares or {}).get(name, [_all]))
        }
        self._feeders: dict[Pupil, Feeder] = {}
        self._subscribers: dict[bytes, _Subscriber] = {}
        self._newest: dict[Pupil, bytes] = {}

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._subscribers

    def makers(self, member: int) -> list[Callable[[Done], Feeder]]:
        """Return what makes the consumers of a member's steps, one for each process of a learner."""

        def maker(pupil: Pupil, takes: Takes) -> Callable[[Done], Feeder]:
            def make(done: Done) -> Feeder:
                feeder = self._feeders[pupil] = Feeder(pupil[0], self._needs[pupil[0]], member, done, takes)
                return feeder

            return make

        return [maker(pupil, takes) for pupil, takes in self._shares.items()]

    def admit(self, identity: bytes, frames: Sequence[Frame]) -> None:
        """Take in a subscription. Raises `RemoteProtocolError` for one that is not expected."""
        session = Session(Link.LEARNER_NODE, Side.LISTENS)
        subscribe = session.receive(frames)
        assert isinstance(subscribe, Subscribe)
        pupil = (subscribe.operator, subscribe.process)
        if subscribe.run != self._run or pupil not in self._shares:
            raise RemoteProtocolError(f"Learner '{pupil[0]}' of run '{subscribe.run}' is not expected.")
        if (before := self._newest.get(pupil)) is not None:
            self._subscribers[before].here = False
        self._subscribers[identity] = _Subscriber(pupil, session)
        self._newest[pupil] = identity
        if pupil in self._feeders:
            self._feeders[pupil].begin()

    def receive(self, identity: bytes, frames: Sequence[Frame]) -> None:
        """Take in what a subscriber says."""
        subscriber = self._subscribers[identity]
        message = subscriber.session.receive(frames)
        if isinstance(message, Learned) and subscriber.here and subscriber.pupil in self._feeders:
            self._feeders[subscriber.pupil].learned(message.upto)

    def forget(self, identity: bytes) -> None:
        """A subscriber broke the protocol: it is sent nothing more."""
        if identity in self._subscribers:
            self._subscribers[identity].here = False

    def dismiss(self, operator: str, process: int | None = None) -> None:
        """A learner is stopped, or one process of it."""
        for (name, number), feeder in self._feeders.items():
            if name == operator and process in (None, number):
                feeder.dismiss()

    def send(self, send: Send) -> list[Event]:
        """Send what can be sent; return what is to be told."""
        told: list[Event] = []
        for pupil, identity in self._newest.items():
            feeder, subscriber = self._feeders.get(pupil), self._subscribers[identity]
            while feeder is not None and subscriber.here and (message := feeder.next()) is not None:
                try:
                    frames = subscriber.session.send(message)
                except LocalProtocolError as error:
                    told.append(operator_stopped(pupil[0], str(error), traceback.format_exc()))
                    subscriber.here = False
                    break
                if not send(identity, frames):
                    subscriber.here = False  # its process is gone; the next one will subscribe
                    break
                feeder.sent(message)
        return told
