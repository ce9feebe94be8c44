# SPDX-License-Identifier: Apache-2.0
"""The controller among ranks and staging nodes that say what a test tells them to: who takes part, who is gone."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insitu.controller import service as module
from insitu.controller.admission import Terms
from insitu.controller.gather import Rows, Window
from insitu.controller.record import ActionRecord
from insitu.controller.service import Service
from insitu.model import Variable
from insitu.steering.parameters import ParameterSpec
from insitu.wire.messages import (
    VERSION,
    Adopted,
    Approve,
    BlockSpec,
    Bye,
    Closed,
    ClosedStep,
    Commit,
    Dropped,
    Entry,
    Event,
    Fed,
    Feed,
    Finish,
    Finished,
    Held,
    Hello,
    Layout,
    Message,
    Moved,
    NodeGone,
    NodeHello,
    NodeWelcome,
    Partial,
    Refuse,
    Replan,
    Share,
    Shutdown,
    Status,
    Welcome,
)
from insitu.wire.session import Link
from insitu.wire.sockets import listen
from insitu.wire.steering import (
    Answer,
    ConsoleHello,
    ConsoleWelcome,
    Decide,
    Declare,
    Propose,
    Reached,
    Scale,
    Scaled,
    SteeringTerms,
)
from insitu.wire.viewing import Look, Peek, Watch, Watching
from tests.end_to_end.folds import Total
from tests.waiting import wait_until
from tests.wire.fakes import FakeCaller

U = Variable("u", np.dtype("f8"), (8,), ("x",))
#: How long a dead rank's goodbye may take in these tests.
LINGERS_S = 0.1
STEERING = SteeringTerms("promise", 1.0, 60.0, "stop", 0)


class Controller:
    """A service, what came of it, and those who talk to it. Of two ranks and nodes, rank k feeds node k alone."""

    def __init__(
        self, stack: ExitStack, folder: Path, ranks: int | None, nodes: int, folds: tuple[str, ...] = (),
        hosts: tuple[str, ...] = (), **terms: Any,
    ) -> None:  # fmt: skip
        self.journal: list[tuple[str, Event]] = []
        self.delivered: list[Window | Rows] = []
        self.released: list[Held] = []
        #: Where the nodes are, if not all on n17.
        self.hosts = dict(enumerate(hosts))
        self._stack = stack
        self._listener = stack.enter_context(listen("tcp://127.0.0.1:*"))
        record = ActionRecord(folder / "actions.jsonl")
        stack.callback(record.close)
        self.service = Service(
            self._listener,
            Terms("melt", ranks, 1 << 20, 5.0, "block", 1, "drop", 0, "", "tcp", (), STEERING, folds, **terms),
            {"sum": Total(of="u", over="step", window=2, where="rank" if folds else "staging")},
            nodes,
            journal=lambda source, event: self.journal.append((source, event)),
            describe=lambda offered, whole: None,
            deliver=self.delivered.append,
            release=self.released.append,
            record=record,
            snapshot=lambda service: {"steps": service.tracker.counts.whole if service.tracker else 0},
        )
        stack.callback(self.service.close)
        self.nodes = [self.node(number) for number in range(nodes)]
        for node in self.nodes:
            node.hear(NodeWelcome)

    def turn(self) -> None:
        self.service.turn(0.0)

    def until(self, done: Callable[[], object], what: str = "") -> None:
        wait_until(lambda: self.turn() or done(), what=what)

    def events(self, kind: str) -> list[tuple[str, str]]:
        return [(source, event.text) for source, event in self.journal if event.kind == kind]

    def node(self, number: int, run: str = "melt") -> FakeCaller:
        """A staging node that asks to take part."""
        hello = NodeHello(
            VERSION, run, number, f"tcp://127.0.0.1:{5000 + number}", self.hosts.get(number, "n17"), 100 + number
        )
        return self._caller(Link.NODE_CONTROLLER, hello)

    def rank(self, number: int, size: int = 2, run: str = "melt", host: str = "n17") -> FakeCaller:
        """A rank that asks to take part."""
        return self._caller(Link.RANK_CONTROLLER, Hello(VERSION, run, 0, number, size, host, 200 + number))

    def ranks(self, size: int = 2) -> list[FakeCaller]:
        """All ranks, admitted, each with its half of `U`."""
        ranks = [self.rank(number, size) for number in range(size)]
        for number, rank in enumerate(ranks):
            rank.hear(Welcome)
            rows = 8 // size
            rank.say(Layout(0, (BlockSpec(U, (number * rows,), (rows,)),)))
        return ranks

    def close_steps(self, first: int, end: int, *nodes: int) -> None:
        """Let nodes say that they have all they get of some steps."""
        for node in nodes:
            steps = tuple(ClosedStep(n, n, float(n), 0, 32, ()) for n in range(first, end))
            self.nodes[node].say(Closed(0, (((node, 0),),), steps))

    def _caller(self, link: Link, first: Message) -> FakeCaller:
        caller = FakeCaller(link, self._listener.address)
        self._stack.callback(caller.socket.close, linger_s=0)
        caller.meanwhile = self.turn
        caller.say(first)
        return caller


MakeController = Callable[..., Controller]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MakeController]:
    monkeypatch.setattr(module, "LINGERS_S", LINGERS_S)
    monkeypatch.setattr(module, "PING_S", 0.01)
    with ExitStack() as stack:
        yield lambda ranks=2, nodes=2, folds=(), **more: Controller(stack, tmp_path, ranks, nodes, folds, **more)


def part(window: int, number: int = 2) -> Partial:
    state = {"total": np.zeros(4), "number": number}
    entry = Entry(window, 2, 0, 1, 1.0, ((0,), (4,)), state)
    return Partial("sum", 0, window, 2 * window, 2 * window + 1, True, (entry,))


def test_ranks_are_told_their_part_and_nodes_who_feeds_them(make: MakeController) -> None:
    it = make()
    assert it.service.staged
    rank = it.rank(1)
    assert rank.hear(Welcome) == Welcome(
        "melt",
        (Share(1, "tcp://127.0.0.1:5001", 0, 1, 1),),
        1 << 20,
        5.0,
        "block",
        1,
        "drop",
        0,
        "",
        "tcp",
        (),
        STEERING,
    )
    assert [node.hear(Feed) for node in it.nodes] == [Feed(0, 2, (0,)), Feed(0, 2, (1,))]
    assert it.journal == []


@pytest.mark.parametrize("there", [True, False], ids=["all ranks", "not in time"])
def test_where_nodes_are_on_several_hosts_all_ranks_are_waited_for(
    make: MakeController, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """For a rank is to feed the node beside it. But each waits for its welcome, so that is not for long."""
    monkeypatch.setattr(module, "PLAN_S", 1e6 if there else 0.1)
    it = make(hosts=("n1", "n2"))
    early = it.rank(0, host="n2")
    it.until(lambda: it.service.ranks)
    assert (it.service.tracker, early.all(Welcome)) == (None, [])
    if there:
        late = it.rank(1, host="n1")
        assert [share.node for share in late.hear(Welcome).shares] == [0]
    assert [share.node for share in early.hear(Welcome).shares] == [1]
    assert it.nodes[0].hear(Feed) == Feed(0, 2, (1,))


def test_racks_are_nearer_than_other_hosts(make: MakeController) -> None:
    it = make(hosts=("a1", "b1"), racks={"a": ["a*"], "b": ["b*"]})
    ranks = [it.rank(number, host=host) for number, host in enumerate(("b7", "a7"))]
    assert [[share.node for share in rank.hear(Welcome).shares] for rank in ranks] == [[1], [0]]


def test_a_rank_is_refused_where_it_has_no_node_of_its_own_machine(
    make: MakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either there is none, or the plan was made without it and has its part elsewhere."""
    monkeypatch.setattr(module, "PLAN_S", 0.0)
    it = make(ranks=3, hosts=("n1", "n2"), at_home=("sum",))
    why = "'sum' folds on a staging node of the rank's own machine (where: node), and rank "
    assert it.rank(0, 3, host="n3").hear(Refuse).reason.startswith(f"{why}0 has none on n3 (there are some on n1, n2);")
    welcome = it.rank(0, 3, host="n2").hear(Welcome)
    assert [share.node for share in welcome.shares] == [1]
    homes = {rank: number for number, node in enumerate(it.nodes) for rank in node.hear(Feed).ranks}
    other = {0: "n2", 1: "n1"}[homes[1]]
    assert it.rank(1, 3, host=other).hear(Refuse).reason.startswith(f"{why}1 came too late to be given one")
    assert it.service.ranks.keys() == {0}


@pytest.mark.parametrize(
    ("number", "size", "run", "why"),
    [
        (1, 2, "yesterday", "this is run 'melt', not 'yesterday'; its contact file is an old one"),
        (1, 3, "melt", "it says it is rank 1 of 3, but this run has 2; check simulation.ranks and simulation.launcher"),
        (0, 2, "melt", "rank 0 is there already (process 200 on n17)"),
    ],
)
def test_a_rank_that_does_not_belong_is_refused(
    make: MakeController, number: int, size: int, run: str, why: str
) -> None:
    it = make()
    it.rank(0).hear(Welcome)
    refused = it.rank(number, size, run)
    assert refused.hear(Refuse).reason.startswith(why)
    [(source, text)] = it.events("rank-refused")
    assert source == f"rank {number}"
    assert text.startswith(why)
    assert list(it.service.ranks) == [0]
    it.rank(1).hear(Welcome)


def test_where_any_number_is_expected_the_first_rank_says_it(make: MakeController) -> None:
    it = make(ranks=None)
    it.rank(2, 3).hear(Welcome)
    assert it.service.size == 3
    assert "it says it is rank 0 of 2, but this run has 3" in it.rank(0, 2).hear(Refuse).reason


@pytest.mark.parametrize(("number", "run"), [(0, "melt"), (2, "melt"), (1, "yesterday")])
def test_a_node_that_nobody_started_is_not_listened_to(make: MakeController, number: int, run: str) -> None:
    it = make(nodes=1)
    other = it.node(number, run)
    it.until(lambda: it.events("protocol"))
    assert it.events("protocol") == [("unknown", f"Staging node {number} of run '{run}' on n17 is not expected.")]
    other.send([b"nonsense"])
    it.nodes[0].say(Event("info", "here", "still"))
    it.until(lambda: it.events("here"))
    assert len(it.events("protocol")) == 1


def test_a_rank_that_talks_nonsense_is_gone_and_the_others_are_not(make: MakeController) -> None:
    it = make()
    ranks = it.ranks()
    ranks[1].send([b"nonsense"])
    it.until(lambda: it.service.gone)
    assert it.service.gone == [1]
    assert [source for source, _ in it.events("protocol")] == ["rank 1"]
    ranks[0].say(Status({"steps": 3}))
    it.until(lambda: it.service.ranks[0].counters)


def test_a_step_is_committed_when_all_nodes_have_it(make: MakeController) -> None:
    it = make()
    it.ranks()
    it.close_steps(0, 3, 0)
    it.close_steps(0, 2, 1)
    for node in it.nodes:
        commits = [node.hear(Commit)]
        it.until(lambda node=node, commits=commits: max(each.upto for each in node.all(Commit)) == 1)
        assert all(each.dropped == () for each in commits)
    assert it.service.tracker is not None
    assert it.service.tracker.watermark == 1


def test_a_node_that_is_the_only_one_may_commit_by_itself(make: MakeController) -> None:
    it = make(ranks=1, nodes=1)
    it.ranks(1)
    it.close_steps(0, 1, 0)
    assert it.nodes[0].hear(Approve) == Approve(0, ((0, 0),), ())


def test_what_one_rank_drops_is_dropped_everywhere(make: MakeController) -> None:
    it = make()
    ranks = it.ranks()
    ranks[1].say(Dropped(0, 0, 0.0, "no room"))
    it.close_steps(0, 1, 0)
    assert [node.hear(Commit) for node in it.nodes] == [Commit(0, 0, (), (0,))] * 2
    assert it.events("step-dropped") == [("controller", "Sequence 0 is dropped: no room.")]


def test_a_rank_that_ends_is_not_waited_for(make: MakeController) -> None:
    it = make()
    ranks = it.ranks()
    ranks[1].say(Bye(1, {"steps": 1}))
    assert it.nodes[1].hear(Feed, 2) == Feed(0, 2, ())
    assert it.nodes[0].all(Feed) == [Feed(0, 2, (0,))]
    it.close_steps(0, 2, 0)
    it.close_steps(0, 1, 1)
    ranks[0].say(Bye(2, {}))
    it.until(lambda: it.service.streamed)
    tracker = it.service.tracker
    assert tracker is not None
    assert (tracker.counts.whole, dict(tracker.counts.dropped)) == (1, {"rank 1 had ended before": 1})
    assert it.service.gone == []


def test_a_goodbye_that_comes_after_the_connection_was_closed_is_one(make: MakeController) -> None:
    it = make()
    ranks = it.ranks()
    it.until(lambda: len(it.service.ranks) == 2)
    it.service.rank_gone(1)  # as a ping says that finds the connection closed before the goodbye was read
    ranks[1].say(Bye(0, {}))
    ranks[1].close()
    it.until(lambda: it.service.ranks[1].ended)
    it.service.rank_gone(1)
    done = module.time.monotonic() + 2 * LINGERS_S
    it.until(lambda: module.time.monotonic() > done)
    assert it.service.gone == []
    assert it.events("rank-gone") == []


def test_a_rank_whose_link_was_broken_for_a_moment_is_not_gone(make: MakeController) -> None:
    it = make()
    ranks = it.ranks()
    it.until(lambda: len(it.service.ranks) == 2)
    it.service.rank_gone(1)  # as a ping says that finds the connection closed before it is made again
    ranks[1].say(Status({"steps": 3}))
    it.until(lambda: it.service.ranks[1].counters)
    done = module.time.monotonic() + 2 * LINGERS_S
    it.until(lambda: module.time.monotonic() > done)
    assert it.service.gone == []


def test_a_rank_that_is_gone_without_a_goodbye_is_seen(make: MakeController) -> None:
    it = make()
    ranks = it.ranks()
    it.close_steps(0, 2, 0)
    it.close_steps(0, 1, 1)
    it.nodes[0].hear(Commit)
    ranks[1].close()
    it.until(lambda: it.service.gone)
    assert it.service.gone == [1]
    assert it.events("rank-gone") == [("rank 1", "Rank 1 is gone: its connection is closed, and it said no goodbye.")]
    assert it.nodes[1].hear(Feed, 2) == Feed(0, 2, ())
    it.nodes[1].say(Fed(0, ((1, 0),)))
    ranks[0].say(Bye(2, {}))
    it.until(lambda: it.service.streamed)
    tracker = it.service.tracker
    assert tracker is not None
    assert (tracker.counts.whole, tracker.counts.dropped.total()) == (1, 1)


@pytest.mark.parametrize("whole_run", [True, False], ids=["all ranks", "one rank"])
def test_steps_that_a_rank_had_published_count_though_it_is_gone(make: MakeController, whole_run: bool) -> None:
    """A node that commits by itself may fold them, so it is asked what it has before anything is dropped."""
    it = make(nodes=1)
    ranks = it.ranks()
    [node] = it.nodes
    it.until(lambda: len(it.service.ranks) == 2)
    node.hear(Feed)
    if whole_run:
        it.service.conclude("the simulation ended with status -9", wait=True)
    else:
        ranks[1].close()
    assert node.hear(Feed, 3 if whole_run else 2) == Feed(0, 2, () if whole_run else (0,))
    node.say(Closed(0, (((0, 0), (1, 0)),), tuple(ClosedStep(n, n, float(n), 0, 32, ()) for n in range(3))))
    node.say(Fed(0, ((0, 2), (1, 4)) if whole_run else ((1, 2),)))
    if not whole_run:
        ranks[0].say(Bye(5, {}))
    it.until(lambda: it.service.streamed)
    tracker = it.service.tracker
    assert tracker is not None
    assert tracker.counts.whole == 3
    why = "the simulation ended with status -9" if whole_run else "rank 1 had ended before"
    assert dict(tracker.counts.dropped) == {why: 2}


def test_a_node_that_does_not_answer_is_not_waited_for_where_there_is_no_time(make: MakeController) -> None:
    it = make(nodes=1)
    it.ranks()
    it.until(lambda: len(it.service.ranks) == 2)
    it.service.conclude("the run was interrupted", wait=True)
    assert not it.service.streamed
    it.service.conclude("the run was interrupted", wait=False)
    assert it.service.streamed


def test_what_a_lone_node_folded_before_it_heard_of_the_end_is_delivered(make: MakeController) -> None:
    """Where there is no time it is not asked, but what it hands over has these steps."""
    it = make(nodes=1)
    ranks = it.ranks()
    [node] = it.nodes
    layouts = ((0, 0), (1, 0))
    node.say(Closed(0, (layouts,), (ClosedStep(0, 0, 0.0, 0, 32, ()),)))
    assert node.hear(Approve).layouts == layouts
    ranks[0].say(Bye(3, {}))
    it.until(lambda: it.service.ranks[0].ended)
    it.service.conclude("the run was interrupted", wait=False)
    assert it.service.streamed
    it.service.finish()
    node.hear(Finish)
    node.say(Closed(0, (layouts,), (ClosedStep(1, 1, 1.0, 0, 32, ()),)))
    node.say(part(0))
    it.until(lambda: it.delivered)
    [window] = it.delivered
    tracker = it.service.tracker
    assert isinstance(window, Window)
    assert tracker is not None
    assert sum(entry.steps for entry in window.entries) == 2 == tracker.counts.whole
    assert dict(tracker.counts.dropped) == {"the run was interrupted": 1}


def test_a_goodbye_that_was_on_its_way_at_a_forced_end_loses_no_count(make: MakeController) -> None:
    it = make(nodes=1)
    ranks = it.ranks()
    [node] = it.nodes
    layouts = ((0, 0), (1, 0))
    node.say(Closed(0, (layouts,), (ClosedStep(0, 0, 0.0, 0, 32, ()),)))
    node.hear(Approve)
    it.service.conclude("the run was interrupted", wait=False)
    ranks[0].say(Bye(3, {}))
    it.until(lambda: it.service.ranks[0].counters == {} and it.service.tracker and it.service.tracker.steps == 3)
    node.say(Closed(0, (layouts,), (ClosedStep(1, 1, 1.0, 0, 32, ()),)))
    it.until(lambda: it.service.tracker and it.service.tracker.counts.whole == 2)


def test_a_node_that_is_gone_takes_its_part_of_every_window_along(make: MakeController) -> None:
    it = make()
    it.ranks()
    it.close_steps(0, 2, 0, 1)
    it.nodes[0].say(part(0))
    it.until(lambda: it.service.tracker and it.service.tracker.watermark == 1)
    it.nodes[1].close()
    it.until(lambda: it.delivered)
    [window] = it.delivered
    assert isinstance(window, Window)
    assert (window.window, len(window.entries), window.complete, window.upto) == (0, 1, False, 1)
    assert it.service.nodes[1].ended
    assert len(it.events("node-gone")) == 1
    it.close_steps(2, 4, 0)
    assert it.nodes[0].hear(Commit, len(it.nodes[0].all(Commit)) + 1).dropped != ()
    it.service.finish()
    it.nodes[0].hear(Finish)
    assert not it.service.drained
    it.nodes[0].say(Finished(0))
    it.until(lambda: it.service.drained)


def test_windows_are_handed_over_when_all_parts_are_there(make: MakeController) -> None:
    it = make()
    it.ranks()
    it.close_steps(0, 2, 0, 1)
    it.nodes[0].say(part(0))
    it.nodes[1].say(Held("sum", 0, 0, 0, 1, True, "key", 100, 2, 0, 1, 1.0, (((4,), (4,)),)))
    it.until(lambda: it.delivered)
    [window] = it.delivered
    assert isinstance(window, Window)
    assert (len(window.entries), len(window.held), window.complete, window.upto) == (1, 1, True, 1)


def test_an_operator_that_is_stopped_is_told_once_and_let_go_of(make: MakeController) -> None:
    it = make()
    it.ranks()
    held = Held("sum", 0, 0, 0, 1, True, "key", 100, 2, 0, 1, 1.0, (((0,), (4,)),))
    it.nodes[0].say(held)
    for node, reason in zip(it.nodes, ("first", "second"), strict=True):
        node.say(Event("error", "operator-stopped", "It is stopped.", {"operator": "sum", "reason": reason}))
        it.until(lambda: it.service.failed)
    it.until(lambda: len(it.events("operator-stopped")) == 2)
    assert it.service.failed == {"sum": "first"}
    assert it.released == [held]
    it.nodes[1].say(part(0))
    late = replace(held, window=1, key="late")
    it.nodes[1].say(late)
    it.until(lambda: it.released == [held, late])
    assert it.delivered == []


def test_all_ranks_are_asked_to_stop_after_the_same_step_also_a_late_one(make: MakeController) -> None:
    it = make(ranks=3)
    early = [it.rank(number, 3) for number in range(2)]
    for number, rank in enumerate(early):
        rank.hear(Welcome)
        rank.say(Reached(41 + number, 0, 0.0))
        it.until(lambda passed=41 + number: it.service.steering._pace.passed(now=0.0) == passed)
    it.service.stop("interrupted")
    proposed = [rank.hear(Propose) for rank in early]
    assert proposed == [Propose(1, 43, False, "stop", {})] * 2
    for rank in early:
        rank.say(Answer(1, "promise", 42, 0, 0.0, "", {}, 0.0, 0))
    assert [rank.hear(Decide) for rank in early] == [Decide(1, True)] * 2
    late = it.rank(2, 3)
    assert late.hear(Welcome).steering.scheduled == 1
    assert late.hear(Propose) == Propose(1, 43, True, "stop", {})


def test_what_is_left_is_decided_at_once_where_nothing_more_will_come(make: MakeController) -> None:
    it = make(ranks=3)
    for number in range(2):
        it.rank(number, 3).hear(Welcome)
    it.nodes[0].say(Closed(0, (((0, 0),),), (ClosedStep(0, 0, 0.0, 0, 32, ()),)))
    it.until(lambda: it.service.tracker and it.service.tracker.steps)
    it.service.conclude("the run was interrupted", wait=False)
    assert it.service.gone == [0, 1, 2]
    assert it.service.streamed
    it.service.shut_down()
    for node in it.nodes:
        node.meanwhile = lambda: None  # it has said its last word
        node.hear(Shutdown)


def test_a_node_that_says_only_how_it_does_moves_nothing(make: MakeController) -> None:
    it = make()
    for number, rank in enumerate(it.ranks()):
        rank.say(Status({"steps": 1}))  # by then its layout has come too
        it.until(lambda number=number: it.service.ranks[number].counters)
    before = it.service.moved_at
    it.nodes[0].say(Status({"folded_steps": 3}))
    it.until(lambda: it.service.nodes[0].counters)
    assert it.service.moved_at == before


def test_nodes_that_do_not_finish_can_be_given_up(make: MakeController) -> None:
    it = make()
    it.ranks()
    it.turn()
    it.service.finish()
    it.nodes[0].say(Finished(0))
    it.nodes[0].say(Event("info", "after", ""))
    it.until(lambda: it.events("after"))
    assert not it.service.drained
    it.service.give_up_nodes("no step was folded for 600 s")
    it.until(lambda: it.service.drained)
    assert it.events("node-stuck") == [("staging node 1", "It is given up: no step was folded for 600 s.")]


def test_parameters_on_which_ranks_differ_are_told_of(make: MakeController) -> None:
    it = make()
    ranks = it.ranks()
    for rank, value in zip(ranks, (0.035, 0.04), strict=True):
        rank.say(Declare("parameter", "feed", ParameterSpec.of("feed", value).to_plain(), (), ()))
        it.until(lambda: it.service.steering.values)
    it.until(lambda: it.events("declarations-differ"))
    assert it.events("declarations-differ") == [
        ("controller", "Rank 1 declares parameter 'feed' otherwise than rank 0.")
    ]
    assert it.service.steering.values["feed"] == 0.035


def test_ranks_that_fold_hear_of_what_is_decided_and_ship_to_one_node_each(make: MakeController) -> None:
    it = make(ranks=1, folds=("sum",))
    rank = it.rank(0, 1)
    assert rank.hear(Welcome).folds == ("sum",)
    assert [node.hear(Feed) for node in it.nodes] == [Feed(0, 1, (0,), (0,)), Feed(0, 1, (0,), ())]
    rank.say(Layout(0, (BlockSpec(U, (0,), (8,)),)))
    for node in it.nodes:
        node.say(Closed(0, (((0, 0),),), (ClosedStep(0, 0, 0.0, 0, 32, ()),)))
    assert rank.hear(Commit) == it.nodes[1].hear(Commit) == Commit(0, 0, (), ())
    it.nodes[0].say(part(0))  # the other node has no part of it
    it.until(lambda: it.delivered, "the window")


def test_a_rank_that_comes_later_hears_which_steps_are_dropped_already(make: MakeController) -> None:
    it = make(folds=("sum",))
    first = it.rank(0)
    first.hear(Welcome)
    first.say(Dropped(0, 0, 0.0, "no room"))
    assert first.hear(Commit) == Commit(0, 0, (), (0,))
    second = it.rank(1)
    second.hear(Welcome)
    assert second.hear(Commit) == Commit(0, 0, (), (0,))


def test_a_window_of_which_a_node_has_no_states_is_lost_and_what_is_held_of_it_released(make: MakeController) -> None:
    it = make(folds=("sum",))
    for rank in it.ranks():
        rank.hear(Welcome)
    held = Held("sum", 0, 0, 0, 1, True, "key", 1 << 20, 2, 0, 1, 1.0, (((0,), (4,)),))
    it.nodes[0].say(held)
    for node in it.nodes:
        node.say(Finished(0))
    it.until(lambda: it.released, "the release")
    assert it.released == [held]
    assert it.delivered == []
    assert it.events("states-lost") == [
        ("controller", "Window 0 of operator 'sum' is lost: not all staging nodes have the states of it.")
    ]


def test_the_parts_of_a_lost_node_go_to_another_one_from_a_step_that_each_rank_chooses(make: MakeController) -> None:
    it = make()
    ranks = it.ranks()
    it.close_steps(0, 1, 0)
    it.close_steps(0, 2, 1)
    it.nodes[0].hear(Commit)
    it.service.node_gone(1)
    assert ranks[1].hear(NodeGone) == NodeGone(1)
    assert [rank.hear(Replan).epoch for rank in ranks] == [1, 1]
    assert ranks[1].hear(Replan).shares == (Share(0, "tcp://127.0.0.1:5000", 0, 1, 1),)
    assert it.nodes[0].hear(Feed, 2) == Feed(0, 2, (0, 1))
    ranks[0].say(Adopted(1, 2))
    it.close_steps(1, 2, 0)
    ranks[1].say(Adopted(1, 3))
    assert it.nodes[0].hear(Moved) == Moved(0, 1, 3, True)
    ranks[1].say(Layout(1, (BlockSpec(U, (4,), (4,)),)))
    steps = tuple(ClosedStep(n, n, float(n), 0, 64, ()) for n in range(2, 5))
    it.nodes[0].say(Closed(0, (((0, 0), (1, 1)),), steps))
    it.until(lambda: it.nodes[0].take() or it.nodes[0].all(Commit)[-1].upto == 4)
    dropped = [sequence for commit in it.nodes[0].all(Commit) for sequence in commit.dropped]
    assert dropped == [1, 2]
    it.nodes[0].say(part(0))
    it.nodes[0].say(replace(part(2), since=4, upto=5))
    it.until(lambda: len(it.delivered) == 2)
    assert [one.complete for one in it.delivered if isinstance(one, Window)] == [False, True]
    [(_, gone)], [(_, taken)] = it.events("node-gone"), it.events("replanned")
    assert gone == "Staging node 1 is gone; others take its part as soon as all ranks can."
    assert taken == "From sequence 3 on staging nodes 0 have all parts of the domain."


def test_where_no_other_node_may_have_its_part_a_lost_node_ends_the_stream(make: MakeController) -> None:
    it = make(folds=("sum",))
    ranks = it.ranks()
    it.nodes[1].close()
    it.until(lambda: it.events("node-gone"))
    [(_, text)] = it.events("node-gone")
    assert text == "Staging node 1 is gone; every step from now on is dropped: 'sum' folds where it does (where: rank)."
    assert ranks[0].hear(NodeGone) == NodeGone(1)
    assert ranks[0].all(Replan) == []


def test_a_rank_that_goes_by_a_plan_which_there_is_not_is_not_listened_to(make: MakeController) -> None:
    it = make()
    ranks = it.ranks()
    ranks[0].say(Adopted(1, 2))
    it.until(lambda: it.events("protocol"))
    assert it.events("protocol") == [("rank 0", "Rank 0 goes by plan 1, which it was not sent.")]


def test_a_node_that_leaves_hands_over_what_it_has_and_nothing_is_lost(make: MakeController) -> None:
    it = make()
    ranks = it.ranks()
    console = it._caller(Link.CONSOLE_CONTROLLER, ConsoleHello(VERSION, "melt", "ada", "n17", 300))
    console.hear(ConsoleWelcome)
    console.say(Scale(1))
    assert console.hear(Scaled) == Scaled(1, "")
    assert ranks[1].hear(Replan).shares == (Share(0, "tcp://127.0.0.1:5000", 0, 1, 1),)
    for rank, begin in zip(ranks, (1, 3), strict=True):
        rank.say(Adopted(1, begin))
    assert it.nodes[1].hear(Moved) == Moved(0, 1, 3, False)
    ranks[1].say(Layout(1, (BlockSpec(U, (4,), (4,)),)))
    it.close_steps(0, 3, 0)
    it.close_steps(0, 2, 1)
    it.until(lambda: it.nodes[1].all(Commit) and it.nodes[1].all(Commit)[-1].upto == 1)
    assert it.nodes[1].all(Finish) == []
    it.close_steps(2, 3, 1)
    assert it.nodes[1].hear(Finish) == Finish(0, -1)
    it.nodes[0].say(Closed(0, (((0, 0), (1, 1)),), (ClosedStep(3, 3, 3.0, 0, 64, ()),)))
    it.until(lambda: it.nodes[0].all(Commit)[-1].upto == 3)
    assert it.nodes[1].all(Commit)[-1].upto == 2
    it.nodes[1].say(part(0))
    it.nodes[1].say(replace(part(1), upto=2, full=False))
    it.nodes[1].say(Finished(0))
    assert [rank.hear(NodeGone) for rank in ranks] == [NodeGone(1)] * 2
    it.nodes[1].hear(Shutdown)
    for window in (0, 1):
        it.nodes[0].say(part(window))
    it.until(lambda: len(it.delivered) == 2)
    assert [(one.full, one.complete, len(one.entries)) for one in it.delivered if isinstance(one, Window)] == [
        (True, True, 2)
    ] * 2
    assert (it.service.left, it.service.lacking) == ({1}, 0)
    viewer = it._caller(Link.VIEWER_CONTROLLER, Watch(VERSION, "melt", "n19", 301))
    viewer.hear(Watching)
    viewer.say(Look(0, "u", (), 0))
    assert it.nodes[0].hear(Peek).begin == 4  # of the steps before it had parts
    assert it.service.tracker is not None
    assert it.service.tracker.counts.dropped.total() == 0


def test_where_nodes_cannot_come_and_go_a_console_is_told_why(make: MakeController) -> None:
    it = make(folds=("sum",))
    it.ranks()
    console = it._caller(Link.CONSOLE_CONTROLLER, ConsoleHello(VERSION, "melt", "ada", "n17", 300))
    console.hear(ConsoleWelcome)
    console.say(Scale(1))
    assert console.hear(Scaled) == Scaled(2, "'sum' folds where it does (where: rank)")
