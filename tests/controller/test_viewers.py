# SPDX-License-Identifier: Apache-2.0
"""Those who look at a run, without sockets: one answer to each question, and never more often than they may."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from insitu.controller.viewers import NEWS_S, SIGHT_BYTES_PER_S, SIGHT_S, STEP_S, VIEWERS, Viewers
from insitu.errors import RemoteProtocolError
from insitu.wire.blocks import Range
from insitu.wire.messages import VERSION, Message, Ping, Refuse, Shutdown
from insitu.wire.session import Link, Session, Side
from insitu.wire.viewing import Ask, Glimpse, Look, News, Peek, Sight, Watch, Watching


class World:
    """A controller's part of the world: viewers with their sessions, and staging nodes that are asked."""

    def __init__(self, nodes: tuple[int, ...] = (0, 1)) -> None:
        self.snapshots = 0
        self.gone: set[bytes] = set()
        self.sessions: dict[bytes, Session] = {}
        self.heard: dict[bytes, list[Message]] = {}
        self.peeks: list[Peek] = []
        self.nodes = nodes
        self.viewers = Viewers("melt", send=self._send, peek=self._peek, snapshot=self._snapshot)

    def join(self, name: bytes, run: str = "melt") -> None:
        self.sessions[name], self.heard[name] = Session(Link.VIEWER_CONTROLLER, Side.CONNECTS), []
        watch = Watch(VERSION, run, "n19", 1)
        session = Session(Link.VIEWER_CONTROLLER, Side.LISTENS)
        session.receive(_raw(self.sessions[name].send(watch)))
        self.viewers.admit(name, session, watch)

    def say(self, name: bytes, message: Message) -> None:
        self.viewers.receive(name, _raw(self.sessions[name].send(message)))

    def kinds(self, name: bytes) -> list[type]:
        return [type(message) for message in self.heard[name]]

    def _send(self, name: bytes, frames: Sequence[Any]) -> bool:
        if name in self.gone:
            return False
        self.heard[name].append(self.sessions[name].receive(_raw(frames)))
        return True

    def _peek(self, peek: Peek) -> tuple[int, ...]:
        self.peeks.append(peek)
        return self.nodes

    def _snapshot(self) -> dict[str, Any]:
        self.snapshots += 1
        return {"number": self.snapshots}


def _raw(frames: Sequence[Any]) -> list[memoryview]:
    return [memoryview(bytes(frame)) for frame in frames]


@pytest.fixture
def world() -> World:
    world = World()
    world.join(b"a")
    world.join(b"b")
    return world


def glimpse(number: int) -> Glimpse:
    return Glimpse(number, None, 7, 70, 0.7, (1,), (((0,), (2,)),), "", (np.ones(2, np.float32),))


def test_nothing_is_made_where_nobody_asks(world: World) -> None:
    for now in range(100):
        world.viewers.answer(float(now))
    assert world.snapshots == 0
    assert world.kinds(b"a") == [Watching]


def test_one_snapshot_answers_all_who_have_asked(world: World) -> None:
    world.say(b"a", Ask())
    world.say(b"b", Ask())
    world.viewers.answer(1.0)
    world.viewers.answer(2.0)
    assert world.snapshots == 1
    for name in (b"a", b"b"):
        [news] = world.heard[name][1:]
        assert isinstance(news, News)
        assert news.snapshot == {"number": 1}


def test_whoever_asks_all_the_time_is_answered_now_and_then(world: World) -> None:
    for k in range(1000):
        world.say(b"a", Ask())
        world.viewers.answer(k / 1000)
    assert world.snapshots == pytest.approx(1 / NEWS_S, abs=1)


def test_of_looks_that_wait_the_newest_counts(world: World) -> None:
    for number in range(3):
        world.say(b"a", Look(number, "u", (), 100))
    world.viewers.answer(0.0)
    world.say(b"a", Look(3, "v", (Range("y", 1, 2, 1),), 100))
    world.viewers.answer(SIGHT_S / 2)
    world.viewers.answer(SIGHT_S)
    assert [(peek.variable, peek.select) for peek in world.peeks] == [("u", ()), ("v", (Range("y", 1, 2, 1),))]


def test_each_node_answers_a_look_once_and_to_who_has_asked(world: World) -> None:
    world.say(b"b", Look(42, "u", (), 100))
    world.viewers.answer(0.0)
    number = world.peeks[0].number
    for node in (0, 1, 1, 5):
        world.viewers.glimpse(node, glimpse(number))
    assert world.kinds(b"a") == [Watching]
    sights = [message for message in world.heard[b"b"] if isinstance(message, Sight)]
    assert [(sight.number, sight.parts, sight.sequence) for sight in sights] == [(42, 2, 7)] * 2


def test_an_answer_to_a_look_that_was_replaced_is_dropped(world: World) -> None:
    world.say(b"a", Look(1, "u", (), 100))
    world.viewers.answer(0.0)
    world.say(b"a", Look(2, "u", (), 100))
    world.viewers.answer(1.0)
    world.viewers.glimpse(0, glimpse(world.peeks[0].number))
    assert world.kinds(b"a") == [Watching]


def test_a_look_waits_until_there_are_nodes_to_look_at() -> None:
    world = World(nodes=())
    world.join(b"a")
    world.say(b"a", Look(1, "u", (), None, 0))
    assert world.viewers.due_s(0.0) == STEP_S
    for now in (0.0, 1.0):
        world.viewers.answer(now)
    world.nodes = (0,)
    world.viewers.answer(2.0)
    world.viewers.answer(3.0)
    assert [peek.number for peek in world.peeks] == [1, 2, 3]
    assert world.viewers.due_s(3.0) == math.inf


def test_all_viewers_together_get_so_many_bytes_in_a_second(world: World) -> None:
    nbytes, now, sent = 4 << 20, 0.0, 0
    while now < 1.0:
        for name in (b"a", b"b"):
            world.say(name, Look(1, "u", (), None, 0))
        before = len(world.peeks)
        world.viewers.answer(now)
        for peek in world.peeks[before:]:
            for node in (0, 1):
                part = replace(glimpse(peek.number), buffers=(np.zeros(nbytes // 2, np.uint8),))
                world.viewers.glimpse(node, part)
            sent += nbytes
        now += 0.001
    assert SIGHT_BYTES_PER_S / 2 < sent <= SIGHT_BYTES_PER_S + 2 * nbytes
    assert abs(world.kinds(b"a").count(Sight) - world.kinds(b"b").count(Sight)) <= 2


def test_whoever_cannot_be_reached_is_forgotten(world: World) -> None:
    world.gone.add(b"a")
    world.viewers.ping()
    assert b"a" not in world.viewers
    assert world.kinds(b"b")[-1] is Ping


def test_who_has_another_run_or_comes_too_late_is_refused(world: World) -> None:
    world.join(b"c", run="other")
    assert world.kinds(b"c") == [Refuse]
    for k in range(VIEWERS):
        world.join(b"%d" % k)
    assert len(world.viewers) == VIEWERS
    assert world.kinds(b"%d" % (VIEWERS - 1)) == [Refuse]


def test_at_the_end_all_hear_how_it_ended(world: World) -> None:
    world.viewers.shut_down()
    assert world.kinds(b"a") == world.kinds(b"b") == [Watching, News, Shutdown]


def test_nonsense_is_the_viewers_fault(world: World) -> None:
    with pytest.raises(RemoteProtocolError):
        world.viewers.receive(b"a", [memoryview(b"nonsense")])
