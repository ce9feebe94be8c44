# SPDX-License-Identifier: Apache-2.0
"""A rank that folds its own steps: those that are committed, no others, and what becomes of their states."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from insitu.wire.messages import Ack, Commit, Detach, Dropped, Event, Publish, Ship
from tests.client.test_publisher import LATE_S, SOON_S, Rank
from tests.end_to_end.runs import total

MakeRank = Callable[..., Rank]


@pytest.fixture
def make() -> Iterator[MakeRank]:
    """Make a rank that sums up `u` over windows of two steps, with a buffer of `steps` steps."""
    with ExitStack() as stack:

        def rank(*, steps: int = 4, credit: int = 4, max_wait_s: float = LATE_S, window: int | str = 2) -> Rank:
            folds = {"sum": total(window=window, where="rank")}
            return Rank(stack, steps, credit, max_wait_s, "drop", 1, False, "block", None, folds)

        yield rank


def ship(rank: Rank, number: int = 1) -> Ship:
    """Let the rank go on until the node has heard so many states; return the last one."""
    rank.hears(lambda: len(rank.nodes[0].all(Ship)) >= number)
    return rank.nodes[0].all(Ship)[number - 1]


def test_only_what_is_committed_is_folded_and_only_states_leave(make: MakeRank) -> None:
    rank = make()
    rank.publish(4)
    assert [rank.nodes[0].hear(Publish, n + 1).buffers for n in range(4)] == [()] * 4
    assert rank.nodes[0].all(Ship) == []
    rank.controller.say(Commit(0, 1, (), ()))
    first = ship(rank).partial
    assert (first.window, first.since, first.upto, first.full) == (0, 0, 1, True)
    [entry] = first.entries
    assert (entry.steps, entry.place) == (2, ((0,), (8,)))
    np.testing.assert_array_equal(entry.state["total"], np.full(8, 0.0 + 1.0))
    rank.controller.say(Commit(0, 3, (), (2,)))
    [entry] = ship(rank, 2).partial.entries
    assert (entry.steps, entry.first, entry.last) == (1, 3, 3)
    np.testing.assert_array_equal(entry.state["total"], np.full(8, 3.0))
    assert rank.publisher.counters["rank_folded_steps"] == 3


def test_a_variable_that_is_not_whole_is_not_folded(make: MakeRank) -> None:
    rank = make()
    rank.publish(2)
    rank.controller.say(Commit(0, 1, ((0, ("u",)),), ()))
    [entry] = ship(rank).partial.entries
    np.testing.assert_array_equal(entry.state["total"], np.ones(8))


def test_what_nobody_has_decided_on_stays_in_the_buffer_within_its_bytes(make: MakeRank) -> None:
    rank = make(steps=2, max_wait_s=SOON_S)
    rank.publish(2)
    rank.nodes[0].hear(Publish, 2)
    rank.nodes[0].say(Ack(1, 1, 0, 0))
    rank.publish()
    assert rank.dropped == 1
    assert rank.controller.hear(Dropped).sequence == 2
    rank.controller.say(Commit(0, 2, (), (2,)))
    ship(rank)
    rank.publish(2)
    assert rank.dropped == 1
    rank.controller.say(Commit(0, 4, (), ()))
    [entry] = ship(rank, 2).partial.entries
    assert (entry.steps, entry.first, entry.last) == (1, 3, 3)


def test_at_its_end_a_rank_waits_for_the_last_steps_and_sends_what_is_open(make: MakeRank) -> None:
    rank = make(max_wait_s=SOON_S, window="run")
    rank.publish(3)
    rank.controller.say(Commit(0, 2, (), ()))
    rank.nodes[0].hear(Publish, 3)
    rank.nodes[0].say(Ack(2, 2, 0, 0))
    rank.publisher.finish(3)
    left = rank.nodes[0].hear(Ship).partial
    assert (left.since, left.upto, left.full) == (0, 2, False)
    np.testing.assert_array_equal(left.entries[0].state["total"], np.full(8, 3.0))
    rank.nodes[0].hear(Detach)
    assert rank.controller.all(Event) == []


def test_what_is_open_while_steps_are_undecided_is_lost_and_said_so(make: MakeRank) -> None:
    rank = make(max_wait_s=SOON_S, window="run")
    rank.publish(3)
    rank.controller.say(Commit(0, 1, (), ()))
    rank.publisher.finish(3)
    rank.nodes[0].hear(Detach)
    assert rank.nodes[0].all(Ship) == []
    event = rank.controller.hear(Event)
    assert (event.level, event.kind, event.details["decided"]) == ("error", "states-lost", 1)


def test_states_beyond_the_credit_stop_their_operator(make: MakeRank) -> None:
    rank = make(credit=1)
    rank.publish(2)
    rank.controller.say(Commit(0, 1, (), ()))
    rank.hears(lambda: rank.controller.all(Event))
    [event] = rank.controller.all(Event)
    assert event.details["operator"] == "sum"
    assert "its states on rank 0 take 72 bytes, and staging node 0 takes 64 of this rank" in event.text


def test_states_that_wait_for_credit_hold_back_further_folds(make: MakeRank) -> None:
    rank = make(steps=8, credit=2)
    rank.publish(8)
    rank.controller.say(Commit(0, 1, (), ()))
    first = ship(rank)
    for upto in (3, 5, 7):
        rank.controller.say(Commit(0, upto, (), ()))
    link = rank.publisher.links[0]
    rank.hears(lambda: rank.publisher.counters["rank_folded_steps"] == 8 or link.shipping_bytes == 3 * first.nbytes)
    assert len(rank.nodes[0].all(Ship)) == 1
    for n in range(2, 5):
        rank.nodes[0].say(Ack(7, 7, (n - 1) * first.nbytes, (n - 1) * first.nbytes))
        assert ship(rank, n).partial.window == n - 1
