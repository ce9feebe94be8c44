# SPDX-License-Identifier: Apache-2.0
"""Steps are folded in order, whole, and without what was taken out of them."""

import random

import numpy as np
import pytest

from insitu.errors import RemoteProtocolError
from insitu.model import Block, Step, Variable
from insitu.staging.assembler import Assembler, ClosedHere, closed_message, in_order, rank_of
from insitu.wire.messages import Approve, Closed, ClosedStep, Commit, Moved, Publish

U = Variable("u", np.dtype("f8"), (4,), ("x",))
V = Variable("v", np.dtype("f8"), (4,), ("x",))


def publish(assembler: Assembler, rank: int, sequence: int, *, index: int | None = None) -> ClosedHere | None:
    blocks = [Block(variable, (2 * rank,), np.full(2, float(sequence))) for variable in (U, V)]
    message = Publish(sequence, sequence if index is None else index, 0.5, 3, ())
    return assembler.publish(rank, message, blocks, sum(block.data.nbytes for block in blocks))


def test_a_step_closes_with_the_last_of_its_ranks_in_any_order() -> None:
    assembler, closed = Assembler((0, 1, 2)), []
    arrivals = [(rank, sequence) for rank in range(3) for sequence in range(10)]
    random.Random(2).shuffle(arrivals)
    for rank, sequence in arrivals:
        if step := publish(assembler, rank, sequence):
            closed.append(step.step.sequence)
    assert sorted(closed) == list(range(10))


def test_a_closed_step_names_its_layouts_and_its_bytes() -> None:
    assembler = Assembler((0, 1))
    publish(assembler, 1, 0)
    assert publish(assembler, 0, 0) == ClosedHere(Step(0, 0, 0.5), ((0, 3), (1, 3)), 64, ())


def test_a_message_of_closed_steps_names_layouts_that_they_share_once() -> None:
    same, other = ((0, 3), (1, 3)), ((0, 3), (1, 4))
    several = [ClosedHere(Step(k, 10 * k, 0.5), other if k == 1 else same, 64, ()) for k in range(3)]
    steps = tuple(ClosedStep(k, 10 * k, 0.5, int(k == 1), 64, ()) for k in range(3))
    assert closed_message(7, several) == Closed(7, (same, other), steps)


def test_commits_hand_over_in_order() -> None:
    assembler = Assembler((0,))
    for sequence in (2, 0, 1):
        publish(assembler, 0, sequence)
    ready = assembler.commit(Commit(0, 1, (), ())) + assembler.commit(Commit(0, 2, (), ()))
    assert [step.step.sequence for step in ready] == [0, 1, 2]


def test_what_was_taken_out_is_not_folded_and_still_acknowledged() -> None:
    assembler = Assembler((0,))
    publish(assembler, 0, 0)
    publish(assembler, 0, 1)
    first, second = assembler.commit(Commit(0, 1, ((0, ("u",)),), (1,)))
    assert list(first.blocks[0]) == ["v"]
    assert second.blocks == {}
    assert first.nbytes == second.nbytes == {0: 32}


def test_a_part_that_comes_after_the_decision_is_late() -> None:
    assembler = Assembler((0, 1))
    publish(assembler, 0, 0)
    [dropped] = assembler.commit(Commit(0, 0, (), (0,)))
    assert dropped.blocks == {}
    assert assembler.is_late(0)
    assert publish(assembler, 1, 0) is None


def test_a_dropped_step_of_which_nothing_came_is_counted_through() -> None:
    assembler = Assembler((0,))
    [ready] = assembler.commit(Commit(0, 0, (), (0,)))
    assert (ready.step.sequence, ready.blocks, ready.nbytes) == (0, {}, {})


def test_ranks_that_number_a_step_differently_are_named() -> None:
    assembler = Assembler((0, 1))
    publish(assembler, 0, 0, index=10)
    closed = publish(assembler, 1, 0, index=11)
    assert closed is not None
    assert (closed.step.index, closed.disagree) == (10, (1,))


def test_a_rank_that_does_not_feed_the_node_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="Rank 5 does not feed"):
        publish(Assembler((0, 1)), 5, 0)


def test_a_rank_that_has_ended_is_not_waited_for() -> None:
    assembler = Assembler((0, 1))
    publish(assembler, 0, 0)
    publish(assembler, 1, 0)
    publish(assembler, 0, 1)
    publish(assembler, 0, 2)
    closed = assembler.feed((0,))
    assert [(each.step.sequence, each.layouts) for each in closed] == [(1, ((0, 3),)), (2, ((0, 3),))]
    later = publish(assembler, 0, 3)
    assert later is not None
    assert assembler.feed(()) == []


def test_the_only_node_commits_by_itself_what_the_controller_has_judged_alike() -> None:
    assembler = Assembler((0, 1))
    for rank in (0, 1):
        publish(assembler, rank, 0)
    assert assembler.take_approved() == []
    assembler.approve(Approve(0, ((0, 3), (1, 3)), ("v",)))
    publish(assembler, 0, 1)
    [first] = assembler.take_approved()
    assert (first.step.sequence, list(first.blocks[0])) == (0, ["u"])
    publish(assembler, 1, 1)
    [second] = assembler.take_approved()
    assert second.step.sequence == 1
    assert assembler.commit(Commit(0, 1, (), ())) == []


def test_what_is_not_approved_holds_up_what_comes_behind_it() -> None:
    assembler = Assembler((0,))
    assembler.approve(Approve(0, ((0, 3),), ()))
    publish(assembler, 0, 1)
    assert assembler.take_approved() == []
    dropped, whole = assembler.commit(Commit(0, 1, (), (0,)))
    assert (dropped.blocks, whole.step.sequence) == ({}, 1)


def test_ranks_that_disagree_wait_for_the_controller() -> None:
    assembler = Assembler((0, 1))
    assembler.approve(Approve(0, ((0, 3), (1, 3)), ()))
    publish(assembler, 0, 0, index=10)
    publish(assembler, 1, 0, index=11)
    assert assembler.take_approved() == []


def test_a_rank_that_moves_away_is_waited_for_up_to_that_step() -> None:
    assembler = Assembler((0, 1))
    for sequence in (0, 1, 2):
        assert publish(assembler, 0, sequence) is None
    assert publish(assembler, 1, 0) is not None
    assert [closed.step.sequence for closed in assembler.moved(Moved(0, 1, 2, False))] == [2]
    assert publish(assembler, 1, 1) is not None
    assembler.commit(Commit(0, 2, (), ()))
    assert publish(assembler, 0, 3) is not None


def test_a_node_that_joins_takes_ranks_from_the_steps_on_that_they_move_at() -> None:
    """What comes before it is told is reported twice, the second time with all ranks that feed the node then."""
    assembler = Assembler((0, 1), begin=5)
    early = publish(assembler, 0, 7)
    assert early is not None
    assert assembler.moved(Moved(0, 0, 7, True)) == []
    again = publish(assembler, 1, 7)
    assert again is not None
    assert again.layouts == ((0, 3), (1, 3))
    assembler.moved(Moved(0, 1, 7, True))
    assert publish(assembler, 1, 8) is None
    assert publish(assembler, 0, 8) is not None
    assert [ready.step.sequence for ready in assembler.commit(Commit(0, 8, (), ()))] == [5, 6, 7, 8]


def test_two_parts_of_a_rank_are_two_sources() -> None:
    assembler = Assembler((0, 2))
    upper, lower = (Block(U, (start,), np.full(1, float(start))) for start in (2, 3))
    assembler.publish(2, Publish(0, 0, 0.5, 3, ()), [upper, lower], 16)
    assembler.publish(0, Publish(0, 0, 0.5, 3, ()), [Block(U, (0,), np.zeros(2))], 16)
    [ready] = assembler.commit(Commit(0, 0, (), ()))
    assert [rank_of(source) for source in sorted(ready.blocks, key=in_order)] == [0, 2, 2]
    assert sorted(ready.blocks[source]["u"].start for source in ready.blocks) == [(0,), (2,), (3,)]
    assert ready.nbytes == {0: 16, 2: 16}
