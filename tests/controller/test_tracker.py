# SPDX-License-Identifier: Apache-2.0
"""Which steps are whole: the absence of a rank, a node or a variable has its outcome, in any order of arrival."""

import random

import numpy as np
import pytest

from insitu.controller.tracker import Tracker, judge
from insitu.model import Variable
from insitu.wire.messages import Approve, BlockSpec, Closed, ClosedStep, Commit, Layout

U = Variable("u", np.dtype("f8"), (8,), ("x",))
ATOMS = Variable("velocity", np.dtype("f8"), None, ("atom", "axis"), row=(3,))


def halves() -> Tracker:
    """Two ranks that each own their half of `U`, on staging nodes 0 and 1."""
    tracker = Tracker(0, [(0,), (1,)])
    for rank in range(2):
        tracker.layout(rank, half(rank))
    return tracker


def half(rank: int, number: int = 0) -> Layout:
    return Layout(number, (BlockSpec(U, (4 * rank,), (4,)),))


def closed(sequence: int, *ranks: int, index: int | None = None, disagree: tuple[int, ...] = ()) -> Closed:
    number = 10 * sequence if index is None else index
    step = ClosedStep(sequence, number, 0.1 * number, 0, 64, disagree)
    return Closed(0, (tuple((rank, 0) for rank in ranks),), (step,))


def close(tracker: Tracker, sequence: int) -> None:
    tracker.closed(0, closed(sequence, 0))
    tracker.closed(1, closed(sequence, 1))


def test_a_step_is_whole_when_every_node_has_closed_it() -> None:
    tracker = halves()
    tracker.closed(0, closed(0, 0))
    assert tracker.decide() is None
    tracker.closed(1, closed(0, 1))
    assert tracker.decide() == Commit(0, 0, (), ())
    assert tracker.decide() is None


def test_steps_that_are_lost_with_a_rank_which_had_told_of_them_are_dropped() -> None:
    tracker = halves()
    close(tracker, 0)
    tracker.said(3)
    tracker.rank_ended(0, 1)
    tracker.rank_ended(1, 1)
    assert tracker.decide() == Commit(0, 2, (), (1, 2))
    assert tracker.counts.dropped == {"rank 0 had ended before": 2}
    assert tracker.ended


def test_steps_are_decided_in_order_whatever_order_they_close_in() -> None:
    tracker, decided = halves(), []
    arrivals = [(node, sequence) for node in (0, 1) for sequence in range(20)]
    random.Random(1).shuffle(arrivals)
    for node, sequence in arrivals:
        tracker.closed(node, closed(sequence, node))
        if commit := tracker.decide():
            decided.append(commit.upto)
    assert decided == sorted(decided)
    assert decided[-1] == 19
    assert tracker.counts.whole == 20


def test_one_message_tells_of_steps_with_different_layouts() -> None:
    tracker = Tracker(0, [(0,)])
    for layout, count in enumerate((8, 7)):
        tracker.layout(0, Layout(layout, (BlockSpec(U, (0,), (count,)),)))
    steps = tuple(ClosedStep(k, k, 0.0, k % 2, 64, ()) for k in range(4))
    tracker.closed(0, Closed(0, (((0, 0),), ((0, 1),)), steps))
    assert tracker.decide() == Commit(0, 3, ((1, ("u",)), (3, ("u",))), ())


def test_a_node_that_is_the_only_one_is_told_each_verdict_once() -> None:
    tracker = Tracker(0, [(0,), (0,)])
    for rank, rows in enumerate((4, 3)):
        tracker.layout(rank, Layout(0, (BlockSpec(U, (4 * rank,), (rows,)),)))
    for sequence in range(3):
        tracker.closed(0, closed(sequence, 0, 1))
        tracker.decide()
    assert tracker.take_approvals() == [(0, Approve(0, ((0, 0), (1, 0)), ("u",)))]
    assert tracker.take_approvals() == []


def test_nodes_that_see_a_part_of_each_step_are_not_left_to_decide() -> None:
    tracker = halves()
    close(tracker, 0)
    assert tracker.decide() is not None
    assert tracker.take_approvals() == []


def test_a_step_waits_for_its_layout() -> None:
    tracker = Tracker(0, [(0,)])
    tracker.closed(0, closed(0, 0))
    assert tracker.decide() is None
    tracker.layout(0, Layout(0, (BlockSpec(U, (0,), (8,)),)))
    assert tracker.decide() == Commit(0, 0, (), ())


def test_a_dropped_step_is_decided_without_waiting_for_the_others() -> None:
    tracker = halves()
    tracker.closed(0, closed(0, 0))
    tracker.drop(0, "no room")
    assert tracker.decide() == Commit(0, 0, (), (0,))
    tracker.closed(1, closed(0, 1))
    assert tracker.decide() is None
    assert tracker.counts.dropped == {"no room": 1}


def test_ranks_that_number_a_step_differently_lose_it_and_are_named() -> None:
    tracker = halves()
    tracker.closed(0, closed(0, 0, index=5))
    tracker.closed(1, closed(0, 1, index=6))
    assert tracker.decide() == Commit(0, 0, (), (0,))
    [reason] = tracker.counts.dropped
    assert "ranks 1 gave" in reason


def test_ranks_that_disagree_on_one_node_lose_the_step() -> None:
    tracker = Tracker(0, [(0,), (0,)])
    tracker.closed(0, closed(0, 0, 1, disagree=(1,)))
    assert tracker.decide() == Commit(0, 0, (), (0,))


def test_steps_beyond_a_ranks_end_can_never_be_whole() -> None:
    tracker = halves()
    close(tracker, 0)
    tracker.closed(0, closed(1, 0))
    tracker.rank_ended(1, 1)
    assert tracker.decide() == Commit(0, 1, (), (1,))
    tracker.rank_ended(0, 2)
    assert tracker.ended


def test_a_member_has_ended_only_when_its_last_step_is_decided() -> None:
    tracker = halves()
    for rank in range(2):
        tracker.rank_ended(rank, 2)
    close(tracker, 0)
    tracker.decide()
    assert not tracker.ended
    close(tracker, 1)
    tracker.decide()
    assert tracker.ended


def test_giving_up_drops_what_is_undecided() -> None:
    tracker = halves()
    close(tracker, 0)
    tracker.closed(0, closed(2, 0))
    tracker.give_up("it never arrived")
    assert tracker.decide() == Commit(0, 2, (), (1, 2))


@pytest.mark.parametrize("ends", [None, 4], ids=["nobody said how far it goes", "a rank had ended"])
def test_what_a_lone_node_had_folded_when_it_was_given_up_is_delivered(ends: int | None) -> None:
    """It commits by itself what was judged, and says so a little later; the third step it has not got."""
    tracker = Tracker(0, [(0,), (0,)])
    for rank in range(2):
        tracker.layout(rank, half(rank))
    tracker.closed(0, closed(0, 0, 1))
    tracker.decide()
    assert tracker.take_approvals() == [(0, Approve(0, ((0, 0), (1, 0)), ()))]
    for rank, steps in enumerate((ends or 1, 1)):
        tracker.rank_ended(rank, steps)
    tracker.give_up("the run was interrupted")
    tracker.decide()
    assert tracker.ended
    for sequence in (1, 2):
        tracker.closed(0, closed(sequence, 0, 1))
        tracker.decide()
    dropped = {"the run was interrupted": 1} if ends else {}
    assert (tracker.counts.whole, tracker.counts.delivered["u"], dict(tracker.counts.dropped)) == (3, 3, dropped)


def test_what_a_lone_node_may_not_commit_by_itself_stays_given_up() -> None:
    tracker = Tracker(0, [(0,), (0,)])
    for rank in range(2):
        tracker.layout(rank, half(rank))
        tracker.rank_ended(rank, 1)
    tracker.give_up("the run was interrupted")
    tracker.decide()
    tracker.closed(0, closed(0, 0, 1))
    assert (tracker.counts.whole, tracker.counts.dropped.total()) == (0, 1)


def test_a_lost_node_drops_every_later_step() -> None:
    tracker = halves()
    close(tracker, 0)
    tracker.node_gone(1)
    tracker.closed(0, closed(1, 0))
    assert tracker.decide() == Commit(0, 1, (), (0, 1))


def test_a_variable_with_a_hole_is_taken_out_and_said_once() -> None:
    tracker = Tracker(0, [(0,), (0,)])
    tracker.layout(0, Layout(0, (BlockSpec(U, (0,), (4,)), BlockSpec(ATOMS, (0, 0), (0, 3)))))
    tracker.layout(1, Layout(0, (BlockSpec(U, (4,), (3,)), BlockSpec(ATOMS, (0, 0), (0, 3)))))
    for sequence in range(3):
        tracker.closed(0, closed(sequence, 0, 1))
    commit = tracker.decide()
    assert commit == Commit(0, 2, ((0, ("u",)), (1, ("u",)), (2, ("u",))), ())
    assert tracker.counts.delivered == {"velocity": 3}
    [event] = tracker.take_events()
    assert "'u' is left out from step 0" in event.text
    assert "1 of its 8 cells is missing" in event.text


def test_a_variable_that_comes_and_goes_is_told_of_when_it_goes() -> None:
    tracker = Tracker(0, [(0,)])
    whole, hole = BlockSpec(U, (0,), (8,)), BlockSpec(U, (0,), (7,))
    for number, spec in enumerate((whole, hole, BlockSpec(U, (1,), (7,)))):
        tracker.layout(0, Layout(number, (spec,)))
    for sequence, layout in enumerate((0, 1, 2, 0, 2)):
        tracker.closed(0, Closed(0, (((0, layout),),), (ClosedStep(sequence, sequence, 0.0, 0, 64, ()),)))
    tracker.decide()
    assert [event.details["step"] for event in tracker.take_events()] == [1, 4]


def test_a_rank_that_does_not_put_its_part_is_named() -> None:
    faults = judge({0: (BlockSpec(U, (0,), (4,)),), 1: (), 2: ()}).faults
    assert faults == {"u": "4 of its 8 cells are missing beside those of ranks 0 (it was not put by rank 1, 2)"}


@pytest.mark.parametrize(
    ("attribute", "other"),
    [
        ("dtype", Variable("u", np.dtype("f4"), (8,), ("x",))),
        ("shape", Variable("u", np.dtype("f8"), (9,), ("x",))),
        ("dims", Variable("u", np.dtype("f8"), (8,), ("y",))),
        ("units", Variable("u", np.dtype("f8"), (8,), ("x",), units="m")),
    ],
)
def test_ranks_that_disagree_on_a_variable_are_named(attribute: str, other: Variable) -> None:
    verdict = judge({0: (BlockSpec(U, (0,), (4,)),), 3: (BlockSpec(other, (4,), (4,)),)})
    assert verdict.variables == {}
    assert attribute in verdict.faults["u"]
    assert "rank 3" in verdict.faults["u"]


def test_a_step_without_a_rank_that_ended_waits_for_the_word_of_its_end() -> None:
    tracker = Tracker(0, [(0,), (0,)])
    for rank in range(2):
        tracker.layout(rank, Layout(0, (BlockSpec(U, (4 * rank,), (4,)),)))
    tracker.closed(0, closed(0, 0))
    assert tracker.decide() is None
    tracker.rank_ended(1, 0)
    assert tracker.decide() == Commit(0, 0, (), (0,))


def test_a_rank_that_adopts_a_plan_is_waited_for_at_its_new_node_from_that_step_on() -> None:
    """Also where the node does not know yet that it is fed, and reports the step before the rank's part is there."""
    tracker = halves()
    tracker.adopt(1, 2, [2])
    tracker.layout(1, half(1, number=1))
    for sequence in range(3):
        tracker.closed(0, closed(sequence, 0))
    tracker.closed(1, closed(0, 1))
    tracker.closed(2, Closed(0, ((),), (ClosedStep(2, 20, 2.0, 0, 0, ()),)))
    assert tracker.decide() == Commit(0, 0, (), ())
    tracker.closed(1, closed(1, 1))
    assert tracker.decide() == Commit(0, 1, (), ())
    tracker.closed(2, Closed(0, (((1, 1),),), (ClosedStep(2, 20, 2.0, 0, 64, ()),)))
    assert tracker.decide() == Commit(0, 2, (), ())
    assert tracker.counts.nbytes == 6 * 64


def test_a_part_of_what_a_rank_publishes_by_its_new_plan_makes_no_step_whole() -> None:
    """Rank 0 goes to two nodes from step 1 on; node 0 has its part of it before the rank's word is here."""
    tracker = Tracker(0, [(0,), (0,)])
    for rank in range(2):
        tracker.layout(rank, half(rank))
    moved = Closed(0, (((0, 1), (1, 0)),), (ClosedStep(1, 10, 1.0, 0, 96, ()),))
    tracker.closed(0, closed(0, 0, 1))
    tracker.closed(0, moved)
    assert tracker.decide() == Commit(0, 0, (), ())
    tracker.adopt(0, 1, [0, 1])
    tracker.layout(0, half(0, number=1))
    assert tracker.decide() is None
    tracker.closed(1, Closed(0, (((0, 1),),), (ClosedStep(1, 10, 1.0, 0, 32, ()),)))
    assert tracker.decide() == Commit(0, 1, (), ())
    assert [approval.layouts for _, approval in tracker.take_approvals()] == [((0, 0), (1, 0))]


def test_after_a_node_is_lost_steps_are_whole_again_once_no_rank_feeds_it() -> None:
    tracker = halves()
    tracker.adopt(0, 0, [0, 1])
    tracker.node_gone(1)
    for sequence in range(3):
        tracker.closed(0, closed(sequence, 0))
    assert tracker.decide() == Commit(0, 2, (), (0, 1, 2))
    tracker.adopt(1, 4, [0])
    tracker.adopt(0, 3, [0])
    tracker.layout(1, half(1, number=1))
    for sequence in (3, 4):
        tracker.closed(0, Closed(0, (((0, 0), (1, 1)),), (ClosedStep(sequence, 10, 1.0, 0, 64, ()),)))
    assert tracker.decide() == Commit(0, 4, (), (3,))
    assert tracker.take_approvals()[0][0] == 0
    assert tracker.counts.dropped == {"a staging node is gone": 4}
