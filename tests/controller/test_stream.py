# SPDX-License-Identifier: Apache-2.0
"""Who hears what of the steps and windows, from the plan on: without sockets, and with peers that are only names."""

from collections.abc import Sequence

import numpy as np
import pytest

from insitu.controller.admission import Peer, Terms
from insitu.controller.stream import Stream
from insitu.errors import RemoteProtocolError
from insitu.model import Variable
from insitu.wire.messages import (
    Adopted,
    Approve,
    BlockSpec,
    Closed,
    ClosedStep,
    Commit,
    Dropped,
    Entry,
    Event,
    Feed,
    Held,
    Layout,
    Message,
    NodeGone,
    Partial,
    Skip,
)
from insitu.wire.session import Link, Session, Side
from insitu.wire.steering import SteeringTerms
from tests.end_to_end.folds import Total

U = Variable("u", np.dtype("f8"), (8,), ("x",))


def peers(link: Link, hosts: Sequence[str]) -> dict[int, Peer]:
    """Return those of `hosts` that are there: an empty name is that of one who is not."""
    name = "rank" if link is Link.RANK_CONTROLLER else "node"
    return {
        number: Peer(b"", Session(link, Side.LISTENS), f"{name} {number}", number, host, 1)
        for number, host in enumerate(hosts)
        if host
    }


class Planned:
    """A stream, what came of it, and what everybody heard: `heard` by the names of peers."""

    def __init__(self, ranks: Sequence[str], nodes: Sequence[str], folds: bool = False, racks: Sequence[str] = ()):
        self.heard: list[tuple[str, Message]] = []
        self.journal: list[Event] = []
        #: What was told of results, in order: the names of variables, and the operators of what was delivered.
        self.told: list[str] = []
        self.released: list[Held] = []
        self.stopped: dict[str, str] = {}
        self.ranks, self.nodes = peers(Link.RANK_CONTROLLER, ranks), peers(Link.NODE_CONTROLLER, nodes)
        self.stream = Stream(
            Terms(
                "melt", len(ranks), 1 << 20, 5.0, "block", 1, "drop", 0, "", "tcp", (),
                SteeringTerms("promise", 1.0, 60.0, "stop", 0), ("sum",) if folds else (),
                racks={rack: [f"{rack}*"] for rack in racks},
            ),
            {"sum": Total(of="u", over="step", window=2, where="rank" if folds else "staging")},
            len(ranks),
            self.ranks,
            self.nodes,
            self.stopped,
            send=lambda peer, message: self.heard.append((peer.name, message)),
            journal=lambda source, event: self.journal.append(event),
            describe=lambda offered, whole: self.told.extend(whole),
            deliver=lambda done: self.told.append(done.operator),
            release=self.released.append,
        )  # fmt: skip
        self.stream.begin()
        for rank, peer in self.ranks.items():
            cells = 8 // len(ranks)
            self.stream.hear_rank(peer, Layout(0, (BlockSpec(U, (rank * cells,), (cells,)),)))

    def to(self, name: str, *kinds: type[Message]) -> list[Message]:
        """Return what one of them heard, of some kinds."""
        return [message for who, message in self.heard if who == name and isinstance(message, kinds)]

    def close(self, node: int, sequence: int, *ranks: int) -> None:
        """Let a node say that it has the parts of these ranks, and decide."""
        step = ClosedStep(sequence, sequence, float(sequence), 0, 32, ())
        self.stream.hear_node(node, Closed(0, (tuple((rank, 0) for rank in ranks),), (step,)))
        self.stream.decide()


@pytest.mark.parametrize(
    ("ranks", "nodes", "racks", "fed"),
    [
        (("n2", "n1"), ("n1", "n2"), (), [(1,), (0,)]),
        (("b7", "a7"), ("a1", "b1"), ("a", "b"), [(1,), (0,)]),
        (("a7", "a8"), ("a1", "b1"), ("a", "b"), [(0, 1)]),
        (("n2", ""), ("n1", "n2"), (), [(1,), (0,)]),
    ],
    ids=["hosts", "racks", "a rack for itself", "a rank that is not there yet"],
)
def test_ranks_feed_the_nodes_that_are_near(
    ranks: Sequence[str], nodes: Sequence[str], racks: Sequence[str], fed: list[tuple[int, ...]]
) -> None:
    it = Planned(ranks, nodes, racks=racks)
    assert [feed.ranks for name in ("node 0", "node 1") for feed in it.to(name, Feed) if isinstance(feed, Feed)] == fed


def test_a_lone_node_is_told_what_it_may_commit_before_what_is_decided() -> None:
    """Then whatever it has closed so is folded, and counts, though the controller should hear of it too late."""
    it = Planned(["n1", "n1"], ["n1"])
    it.close(0, 0, 0, 1)
    assert it.to("node 0", Approve, Commit) == [Approve(0, ((0, 0), (1, 0)), ()), Commit(0, 0, (), ())]


def test_a_variable_is_told_of_before_what_is_made_of_it() -> None:
    """A node says in the same breath what it closed and what came of it, also of a variable that was not put before."""
    it = Planned(["n1"], ["n1"])
    v = BlockSpec(U.renamed("v"), (0,), (8,))
    it.stream.hear_rank(it.ranks[0], Layout(1, (v,)))
    for window, layout in enumerate((0, 1)):
        steps = tuple(ClosedStep(n, n, float(n), 0, 32, ()) for n in (2 * window, 2 * window + 1))
        entry = Entry(window, 2, steps[0].sequence, steps[1].sequence, steps[1].time, ((0,), (8,)), {"number": 2})
        it.stream.hear_node(0, Closed(0, (((0, layout),),), steps))
        it.stream.hear_node(0, Partial("sum", 0, window, entry.first, entry.last, True, (entry,)))
    assert it.told == ["u", "sum", "u", "v", "sum"]


def test_all_but_the_one_who_drops_a_step_are_told_once() -> None:
    it = Planned(["n1"] * 3, ["n1"])
    for rank in (1, 2):
        it.stream.hear_rank(it.ranks[rank], Dropped(0, 0, 0.0, "no room"))
    assert [name for name, message in it.heard if message == Skip((0,))] == ["rank 0", "rank 2"]


def test_a_rank_that_comes_late_hears_what_is_decided_and_who_is_gone() -> None:
    """Where ranks fold no part can move, and no step that went by was whole without it."""
    it = Planned(["n1", ""], ["n1", "n2"], folds=True)
    it.nodes[1].ended = True
    it.stream.lose(1)
    it.close(0, 0, 0)
    late = it.ranks[1] = peers(Link.RANK_CONTROLLER, ("", "n2"))[1]
    it.stream.catch_up(late)
    assert it.to("rank 1", Commit, NodeGone) == [Commit(0, 0, (), (0,)), NodeGone(1)]
    assert it.journal[-1].kind == "step-dropped"


def test_what_is_held_of_a_stopped_operator_is_let_go_of() -> None:
    it = Planned(["n1"], ["n1"])
    held = Held("sum", 0, 0, 0, 1, True, "key", 1 << 20, 2, 0, 1, 1.0, ())
    it.stopped["sum"] = "it raised"
    it.stream.fail("sum")
    it.stream.hear_node(0, held)
    assert (it.released, it.told) == ([held], [])


def test_a_plan_that_nobody_made_is_a_fault_of_the_rank() -> None:
    it = Planned(["n1"], ["n1"])
    with pytest.raises(RemoteProtocolError, match="Rank 0 goes by plan 1, which it was not sent"):
        it.stream.hear_rank(it.ranks[0], Adopted(1, 2))


def test_a_stream_that_is_concluded_waits_for_the_word_of_its_nodes_and_no_longer_than_it_is_let() -> None:
    it = Planned(["n1", "n1"], ["n1", "n1"])
    it.close(0, 0, 0)
    for rank in (0, 1):
        it.stream.end_rank(rank, None)
    it.stream.conclude("the run was interrupted", wait=True)
    assert not it.stream.tracker.ended
    it.stream.conclude("", wait=False)
    assert it.stream.tracker.ended
    assert dict(it.stream.tracker.counts.dropped) == {"the run was interrupted": 1}
    assert it.stream.unfinished == [0, 1]
