# SPDX-License-Identifier: Apache-2.0
"""Lanes: what is sent comes, whole and in order, or is not taken; and who waits is rung."""

import os
import random
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from insitu.errors import RemoteProtocolError
from insitu.wire.lane import LANE_BYTES, PIECE_BYTES, RING_BYTES, Bell, Lane, lanes_work
from insitu.wire.limits import HEADER_BYTES
from insitu.wire.segment import Segment
from insitu.wire.sockets import poll

pytestmark = pytest.mark.skipif(not lanes_work(), reason="lanes need x86-64 and Linux")


@contextmanager
def lane(rung: Bell | None = None) -> Iterator[tuple[Lane, Lane]]:
    made = Segment.create(LANE_BYTES)
    with Bell() as bell:
        ours = Lane(made, rung or bell, makes=True)
        mapped = Segment.open(made.name, made.secret, LANE_BYTES, writable=True)
        theirs = Lane(mapped, bell, makes=False, other=(rung or bell).name)
        yield ours, theirs
        theirs.close()
        ours.close()


def test_what_is_sent_comes_in_order_both_ways_whatever_its_length() -> None:
    chance = random.Random(1)
    with lane() as both:
        sent: list[list[bytes]] = [[], []]
        came: list[list[bytes]] = [[], []]
        while min(map(len, came)) < 400:
            side = chance.randrange(2)
            message = chance.randbytes(
                chance.choice((0, 1, 7, 8, 40, 1300, PIECE_BYTES, PIECE_BYTES + 1, 3 * RING_BYTES))
            )
            if both[side].send(message):
                sent[side].append(message)
            both[side].flush()
            for _ in range(chance.randrange(3)):
                if (one := both[1 - side].receive()) is not None:
                    came[side].append(one)
        assert all(came[side] == sent[side][: len(came[side])] for side in (0, 1))


def test_a_full_ring_takes_nothing_more_until_something_was_received() -> None:
    with lane() as (ours, theirs):
        taken = 0
        while ours.send(b"x" * 1000):
            taken += 1
        assert taken == RING_BYTES // 1008
        assert theirs.receive() == b"x" * 1000
        assert ours.send(b"y")


@pytest.mark.parametrize("written", [-8, 4, RING_BYTES + 8])
def test_a_ring_that_says_what_cannot_be_is_refused(written: int) -> None:
    with lane() as (ours, theirs):
        struct.pack_into("<q", ours.segment.view(), 0, written)
        with pytest.raises(RemoteProtocolError, match="cannot hold"):
            theirs.receive()


@pytest.mark.parametrize(("length", "mark"), [(RING_BYTES, 0), (9, 0), (0, 3), (0xFFFFFFFF, 1)])
def test_a_piece_that_reaches_beyond_what_was_written_is_refused(length: int, mark: int) -> None:
    with lane() as (ours, theirs):
        ours.send(b"12345678")
        struct.pack_into("<II", ours.segment.view(), 128, length, mark)
        with pytest.raises(RemoteProtocolError, match="A piece of"):
            theirs.receive()


def test_a_message_without_end_is_refused() -> None:
    with lane() as (ours, theirs):
        ours.send(bytes(HEADER_BYTES + 1))

        def receive_all() -> None:
            while theirs.receive() is None:
                ours.flush()

        with pytest.raises(RemoteProtocolError, match="A message of more than"):
            receive_all()


def test_who_waits_is_rung_and_who_finds_something_does_not_wait() -> None:
    with Bell() as bell, lane(bell) as (ours, theirs):
        assert bell.listens([ours], 10.0) == 10.0
        teller = threading.Timer(0.05, theirs.send, [b"now"])
        teller.start()
        begin = time.monotonic()
        assert poll([bell], 10.0) == [bell]
        assert time.monotonic() - begin < 5.0
        bell.listened([ours])
        teller.join()
        assert bell.listens([ours], 10.0) == 0.0, "something is there"
        bell.listened([ours])
        assert (ours.receive(), poll([bell], 0.0)) == (b"now", [])
        theirs.send(b"later")
        assert poll([bell], 0.0) == [], "nobody waits"


def test_a_bell_that_is_gone_is_told_from_one_that_rang_often() -> None:
    with Bell() as ours:
        with Bell() as theirs:
            assert all(ours.ring(theirs.name) for _ in range(1000))
        assert not ours.ring(theirs.name)


def test_steps_go_round_between_two_threads() -> None:
    """What is written is seen whole, and no wait is missed for long."""
    n = 5_000
    with Bell() as bell, lane(bell) as (ours, theirs):

        def tell() -> None:
            for k in range(n):
                while not theirs.send(struct.pack("<Q", k)):
                    os.sched_yield()

        teller = threading.Thread(target=tell)
        teller.start()
        came: list[int] = []
        while len(came) < n:
            poll([bell], bell.listens([ours], 10.0))
            bell.listened([ours])
            while (message := ours.receive()) is not None:
                came.append(struct.unpack("<Q", message)[0])
        teller.join()
        assert came == list(range(n))
