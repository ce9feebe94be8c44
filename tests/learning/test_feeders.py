# SPDX-License-Identifier: Apache-2.0
"""A step is kept until a learner has taken it, whatever becomes of the learner's process."""

from collections.abc import Sequence

import numpy as np
import pytest

from insitu.errors import RemoteProtocolError
from insitu.model import Block, Step, Variable
from insitu.staging.assembler import ReadyStep
from insitu.staging.feeders import AHEAD_BYTES, Feeders, Takes
from insitu.staging.folder import Folded
from insitu.wire.codec import Frame
from insitu.wire.learning import Learned, Lesson, Subscribe
from insitu.wire.messages import VERSION, Finish, Finished, Message
from insitu.wire.session import Link, Session, Side

U = Variable("u", np.dtype("f8"), (4,), ("x",))


def ready(sequence: int, cells: int = 4) -> ReadyStep:
    data = np.full(cells, float(sequence))
    data.flags.writeable = False
    block = Block(Variable("u", np.dtype("f8"), (cells,), ("x",)), (0,), data)
    return ReadyStep(Step(sequence, sequence, 0.0), {0: {"u": block, "other": block}}, {0: data.nbytes})


class Node:
    """A staging node's feeders of one learner, and what a process of it gets."""

    def __init__(self, takes: Sequence[Takes] | None = None) -> None:
        self.folded: list[Folded] = []
        self.feeders = Feeders("run", {"net": ["u"]}, takes and {"net": takes})
        self.feeder, *self.others = [make(self.folded.append) for make in self.feeders.makers(0)]
        self.processes: dict[bytes, Session] = {}
        self.heard: dict[bytes, list[Message]] = {}
        self.deaf: set[bytes] = set()

    def subscribe(self, identity: bytes, operator: str = "net", process: int = 0) -> None:
        session = self.processes[identity] = Session(Link.LEARNER_NODE, Side.CONNECTS)
        self.heard[identity] = []
        self.feeders.admit(identity, _bytes(session.send(Subscribe(VERSION, "run", operator, "host", 1, process))))

    def learned(self, identity: bytes, upto: int) -> None:
        self.feeders.receive(identity, _bytes(self.processes[identity].send(Learned(upto))))

    def send(self) -> None:
        def send(identity: bytes, frames: list[object]) -> bool:
            if identity not in self.deaf:
                self.heard[identity].append(self.processes[identity].receive(_bytes(frames)))
            return identity not in self.deaf

        assert self.feeders.send(send) == []

    def steps(self, identity: bytes) -> list[int]:
        return [each.sequence for each in self.heard[identity] if isinstance(each, Lesson)]

    @property
    def done(self) -> list[int]:
        return [each.step.sequence for folded in self.folded for each in folded.steps]


def _bytes(frames: list[object]) -> list[Frame]:
    return [bytes(frame) for frame in frames]  # type: ignore[call-overload]


def test_steps_are_done_with_when_they_are_taken_and_not_before() -> None:
    node = Node()
    node.feeder.submit([ready(0), ready(1)])
    node.send()
    assert node.done == []
    node.subscribe(b"a")
    node.feeder.submit([ready(2)])
    node.send()
    assert node.steps(b"a") == [0, 1, 2]
    assert [spec.variable.name for _, spec in node.heard[b"a"][0].blocks] == ["u"]  # type: ignore[union-attr]
    node.learned(b"a", 1)
    assert node.done == [0, 1]
    node.feeder.finish(3)
    node.send()
    assert isinstance(node.heard[b"a"][-1], Finish)
    assert not any(folded.messages for folded in node.folded)
    node.learned(b"a", 2)
    assert node.folded[-1].messages == [Finished(0)]


def test_a_process_in_the_place_of_another_is_sent_what_that_one_has_not_taken() -> None:
    node = Node()
    node.subscribe(b"a")
    node.feeder.submit([ready(k) for k in range(4)])
    node.send()
    node.learned(b"a", 1)
    node.subscribe(b"b")
    node.learned(b"a", 3)  # said by the dead one's socket, too late
    node.send()
    assert node.steps(b"b") == [2, 3]
    assert node.done == [0, 1]


def test_what_is_under_way_is_bounded_but_one_step_always_may() -> None:
    node = Node()
    node.subscribe(b"a")
    cells = AHEAD_BYTES // 8 + 1
    node.feeder.submit([ready(k, cells) for k in range(3)])
    node.send()
    assert node.steps(b"a") == [0]
    node.learned(b"a", 0)
    node.send()
    assert node.steps(b"a") == [0, 1]


def test_a_dismissed_learner_holds_nothing_up() -> None:
    node = Node()
    node.feeder.submit([ready(0)])
    node.feeders.dismiss("net")
    node.feeder.submit([ready(1)])
    node.feeder.finish(2)
    assert node.done == [0, 1]
    assert node.folded[-1].messages == [Finished(0)]


def test_a_process_that_cannot_be_reached_is_sent_nothing_more() -> None:
    node = Node()
    node.subscribe(b"a")
    node.deaf.add(b"a")
    node.feeder.submit([ready(0)])
    node.send()
    node.deaf.clear()
    node.send()
    assert node.steps(b"a") == []


@pytest.mark.parametrize("upto", [0, 1 << 60])
def test_steps_that_were_never_sent_cannot_be_taken(upto: int) -> None:
    node = Node()
    node.subscribe(b"a")
    with pytest.raises(RemoteProtocolError, match="was not sent"):
        node.learned(b"a", upto)


def test_a_learner_that_nobody_knows_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="Learner 'other' of run 'run' is not expected"):
        Node().subscribe(b"a", "other")


def test_each_process_of_a_learner_is_sent_its_share_and_lets_go_in_the_order_of_the_steps() -> None:
    node = Node([lambda sequence: sequence % 3 == 0, lambda sequence: sequence % 3 > 0])
    node.subscribe(b"0")
    node.subscribe(b"1", process=1)
    for feeder in (node.feeder, *node.others):
        feeder.submit([ready(sequence) for sequence in range(7)])
    node.send()
    assert (node.steps(b"0"), node.steps(b"1")) == ([0, 3, 6], [1, 2, 4, 5])
    node.folded.clear()  # what is not the second one's before its first
    node.learned(b"0", 3)
    assert node.done == [0, 1, 2, 3, 4, 5]
    node.folded.clear()
    node.learned(b"1", 1)
    assert node.done == [1]
    node.subscribe(b"new", process=1)  # in the place of the one that died
    node.send()
    assert node.steps(b"new") == [2, 4, 5]
    node.feeders.dismiss("net", 1)
    assert node.done == [1, 2, 3, 4, 5, 6]
    node.learned(b"0", 6)
    assert node.done[-1] == 6
