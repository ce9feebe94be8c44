# SPDX-License-Identifier: Apache-2.0
"""What a rank is told of its steps: memory that is still read is not given back."""

from insitu.staging.ranks import RankLink
from insitu.wire.messages import Ack
from insitu.wire.session import Link, Session, Side


def link() -> RankLink:
    return RankLink(b"rank", Session(Link.RANK_NODE, Side.LISTENS), 0, credit_bytes=1000, allowed_bytes=1000)


def test_a_late_step_does_not_acknowledge_one_that_is_still_being_folded() -> None:
    rank = link()
    for sequence in (4, 5):
        rank.receive(sequence, 100)
    rank.fold(5, 100)  # another rank had dropped it
    assert rank.ack() == Ack(5, -1, 200, 100)
    rank.fold(4, 100)
    assert rank.ack() == Ack(5, 5, 200, 200)


def test_steps_that_never_came_are_no_hindrance() -> None:
    rank = link()
    for sequence in (0, 3, 9):
        rank.receive(sequence, 10)
        rank.fold(sequence, 10)
        assert rank.folded == sequence
    assert rank.here == {}


def test_what_is_unacknowledged_is_urgent_from_an_eighth_of_the_credit_on() -> None:
    rank = link()
    rank.receive(0, 100)
    assert not rank.urgent
    rank.receive(1, 100)
    assert rank.urgent
    rank.acked(1.0, sent=True)
    assert not rank.urgent
    assert not rank.dirty
