# SPDX-License-Identifier: Apache-2.0
"""A staging node among ranks and a controller that say what a test tells them to: what it folds, answers, reports."""

import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import pairwise

import numpy as np
import pytest

from insitu.model import Variable
from insitu.staging import receiver as module
from insitu.staging import silence
from insitu.staging.folder import Folded, Folder
from insitu.staging.receiver import Receiver
from insitu.wire.contact import Contact
from insitu.wire.lane import LANE_BYTES, Bell, Lane, lanes_work
from insitu.wire.messages import (
    VERSION,
    Ack,
    Approve,
    Attach,
    BlockSpec,
    Borrow,
    BorrowLane,
    Closed,
    Commit,
    Credit,
    Event,
    Fed,
    Feed,
    Finish,
    Finished,
    Layout,
    Lend,
    LendLane,
    Message,
    NodeHello,
    NodeWelcome,
    Partial,
    Ping,
    Publish,
    PublishLent,
    Refuse,
    Shutdown,
    Status,
)
from insitu.wire.segment import Segment
from insitu.wire.session import Link
from insitu.wire.sockets import poll
from tests.end_to_end.folds import Total
from tests.waiting import wait_until
from tests.wire.fakes import FakeCaller, FakeListener

#: The bytes of a rank's part of a step, and of all that a node has for blocks.
PART, MEMORY = 32, 64 * 32
#: Longer than any test; ZeroMQ counts milliseconds in 32 bits.
NEVER_S = 1e6


class Shelf:
    """Keeps nothing: the states of these tests are small."""

    def hold(self, key: str, value: object, nbytes: int) -> None:
        raise AssertionError(key)

    def held_bytes(self) -> int:
        return 0


class Node:
    """Staging node 0, fed by `ranks` ranks of which each has 4 of the cells of `u`."""

    def __init__(self, stack: ExitStack, ranks: int, window: int) -> None:
        self.controller = FakeListener(Link.NODE_CONTROLLER)
        stack.callback(self.controller.close)
        contact = Contact("melt", self.controller.listener.address, 1, "n17", "")
        operators = {"sum": Total(of="u", over="step", window=window)}

        def make_folder(feed: Feed, done: Callable[[Folded], None]) -> Folder:
            return Folder(feed.member, operators, 1 << 20, Shelf(), "insitu-melt-0", done)

        self.abandoned = threading.Event()
        self.receiver = Receiver(contact, 0, MEMORY, make_folder, abandoned=self.abandoned.set)
        stack.callback(self.receiver.close)
        self.address = self.controller.hear(NodeHello).address
        self.controller.say(NodeWelcome("melt"))
        self.controller.say(Feed(0, ranks, tuple(range(ranks))))
        self._stack = stack
        self._variable = Variable("u", np.dtype("f8"), (4 * ranks,), ("x",))
        self.layouts = tuple((number, 0) for number in range(ranks))
        self.ranks = [self.rank(number) for number in range(ranks)]

    def rank(self, number: int, run: str = "melt") -> FakeCaller:
        """Attach a rank."""
        rank = FakeCaller(Link.RANK_NODE, self.address)
        self._stack.callback(rank.socket.close, linger_s=0)
        rank.say(Attach(VERSION, run, 0, number, "n17", 1))
        if number < len(self.layouts) and run == "melt":
            rank.say(Layout(0, (BlockSpec(self._variable, (4 * number,), (4,)),)))
        return rank

    def publish(self, sequence: int, *ranks: int) -> None:
        for number in ranks or range(len(self.ranks)):
            self.ranks[number].say(Publish(sequence, sequence, float(sequence), 0, (np.full(4, sequence, "f8"),)))

    def approve(self) -> None:
        """Let the node commit what it closes by itself, and wait until it does."""
        self.controller.say(Approve(0, self.layouts, ()))
        wait_until(lambda: self.layouts in self.receiver._assembler._approved, what="the approval")

    def steps_closed(self) -> list[int]:
        return [step.sequence for closed in self.controller.all(Closed) for step in closed.steps]


def folded(rank: FakeCaller) -> int:
    """The newest step that a rank knows to be folded."""
    acks = rank.all(Ack)
    return acks[-1].folded if acks else -1


MakeNode = Callable[..., Node]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeNode]:
    monkeypatch.setattr(module, "keep_pages_mapped", lambda: None)  # it is for good, and this is the tests' process
    with ExitStack() as stack:

        def node(*, ranks: int = 1, window: int = 5) -> Node:
            made = Node(stack, ranks, window)
            for rank in made.ranks:
                assert rank.hear(Credit).bytes == MEMORY // ranks
            return made

        yield node


def test_in_a_lull_all_is_acknowledged(make: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACK_S", math.inf)
    node = make()
    node.publish(0)
    assert node.ranks[0].hear(Ack) == Ack(0, -1, PART, 0)


def test_while_more_is_coming_a_rank_hears_now_and_then(make: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LULL_S", NEVER_S)
    monkeypatch.setattr(module, "ACK_S", 0.0)
    node = make()
    node.publish(0)
    assert node.ranks[0].hear(Ack) == Ack(0, -1, PART, 0)


def test_what_a_rank_may_soon_wait_for_is_acknowledged_at_once(make: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of its credit; and until then nothing, where there is neither a lull nor time."""
    monkeypatch.setattr(module, "LULL_S", NEVER_S)
    monkeypatch.setattr(module, "ACK_S", math.inf)
    node = make()
    for sequence in range(9):
        node.publish(sequence)
    assert node.ranks[0].hear(Ack).received == 8


def test_a_rank_hears_at_once_that_all_of_it_is_folded(make: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may stand still until then, and nothing would follow that brings the word along."""
    monkeypatch.setattr(module, "LULL_S", NEVER_S)
    monkeypatch.setattr(module, "ACK_S", math.inf)
    node = make()
    node.approve()
    for sequence in range(3):
        node.publish(sequence)
        wait_until(lambda sequence=sequence: folded(node.ranks[0]) == sequence, what="the word that it is folded")


def test_acknowledgements_say_all_so_far(make: MakeNode) -> None:
    """There are fewer of them than messages, and none goes back."""
    node = make(ranks=2)
    node.approve()
    for sequence in range(300):
        for number, rank in enumerate(node.ranks):
            wait_until(lambda rank=rank, n=sequence: n < 16 or folded(rank) >= n - 16, what="credit")
            node.publish(sequence, number)
    for rank in node.ranks:
        wait_until(lambda rank=rank: Ack(299, 299, 300 * PART, 300 * PART) in rank.all(Ack), what="the last one")
        acks = [(ack.received, ack.folded, ack.received_bytes, ack.folded_bytes) for ack in rank.all(Ack)]
        assert all(b >= a for one, other in pairwise(acks) for a, b in zip(one, other, strict=True))
        assert all(received >= folded for received, folded, *_ in acks)


def test_a_step_waits_for_all_ranks_and_for_the_word_of_the_controller(make: MakeNode) -> None:
    node = make(ranks=2, window=1)
    node.publish(0, 0)
    node.ranks[0].hear(Ack)
    assert node.steps_closed() == []
    node.publish(0, 1)
    (step,) = node.controller.hear(Closed).steps
    assert (step.sequence, step.nbytes, step.disagree) == (0, 2 * PART, ())
    assert node.controller.all(Partial) == []
    node.controller.say(Commit(0, 0, (), ()))
    assert [entry.steps for entry in node.controller.hear(Partial).entries] == [1, 1]  # a state for each place


def test_what_is_approved_is_folded_without_the_controller(make: MakeNode) -> None:
    node = make(ranks=2, window=3)
    node.publish(0)
    node.controller.hear(Closed)
    node.approve()
    for sequence in (1, 2):
        node.publish(sequence)
    totals = [entry.state["total"] for entry in node.controller.hear(Partial).entries]
    np.testing.assert_array_equal(totals, [[3.0] * 4] * 2)
    for rank in node.ranks:
        wait_until(lambda rank=rank: folded(rank) == 2, what="the acknowledgement")


def test_what_was_not_approved_holds_up_all_behind_it(make: MakeNode) -> None:
    """A rank that gives a step another time than the others."""
    node = make(ranks=2, window=1)
    node.approve()
    node.publish(0)
    node.controller.hear(Partial)
    node.ranks[0].say(Publish(1, 1, 1.0, 0, (np.zeros(4),)))
    node.ranks[1].say(Publish(1, 1, 1.5, 0, (np.zeros(4),)))
    node.publish(2)
    wait_until(lambda: node.steps_closed() == [0, 1, 2], what="the reports")
    assert [step.disagree for closed in node.controller.all(Closed) for step in closed.steps] == [(), (1,), ()]
    assert len(node.controller.all(Partial)) == 1
    node.controller.say(Commit(0, 1, (), (1,)))
    assert node.controller.hear(Partial, 3).window == 2  # that of the dropped step is empty
    assert [len(partial.entries) for partial in node.controller.all(Partial)] == [2, 0, 2]


def test_steps_are_said_to_be_closed_before_what_came_of_them(make: MakeNode) -> None:
    node = make(window=5)
    node.approve()
    for sequence in range(200):
        wait_until(lambda n=sequence: n < 32 or folded(node.ranks[0]) >= n - 32)
        node.publish(sequence)
    node.controller.hear(Partial, 40)
    closed = -1
    for message in node.controller.heard:
        if isinstance(message, Closed):
            assert [step.sequence for step in message.steps] == list(range(closed + 1, closed + 1 + len(message.steps)))
            closed += len(message.steps)
        elif isinstance(message, Partial):
            assert closed >= 5 * message.window + 4


def test_the_end_hands_over_what_is_open_and_says_how_it_went(make: MakeNode) -> None:
    node = make(window=5)
    node.approve()
    for sequence in range(7):
        node.publish(sequence)
    node.controller.hear(Partial)
    wait_until(lambda: node.steps_closed() == list(range(7)), what="the reports")
    node.controller.say(Finish(0, 7))
    node.controller.hear(Finished)
    kinds = [type(message) for message in node.controller.heard if not isinstance(message, Closed)]
    assert kinds[-1] is Finished
    assert [partial.window for partial in node.controller.all(Partial)] == [0, 1]
    last = node.controller.all(Status)[-1].counters
    assert (last["folded_steps"], last["waiting_bytes"]) == (7, 0)
    assert last["received_bytes"] == 7 * PART


def test_ranks_that_have_ended_are_not_waited_for(make: MakeNode) -> None:
    node = make(ranks=2)
    node.publish(0, 0)
    node.ranks[0].hear(Ack)
    node.controller.say(Feed(0, 2, (0,)))
    assert node.controller.hear(Closed).layouts == (((0, 0),),)
    assert node.controller.all(Fed) == [Fed(0, ((1, -1),))]


def test_what_a_rank_had_published_before_it_ended_is_told_and_still_makes_steps_whole(make: MakeNode) -> None:
    node = make(ranks=2)
    node.approve()
    for sequence in range(3):
        node.publish(sequence, 0)
    node.publish(0, 1)
    wait_until(lambda: node.steps_closed() == [0], what="the report")
    node.controller.say(Feed(0, 2, (1,)))
    assert node.controller.hear(Fed) == Fed(0, ((0, 2),))
    node.publish(1, 1)
    node.publish(2, 1)
    node.publish(3, 1)
    wait_until(lambda: node.steps_closed() == [0, 1, 2, 3], what="the reports")
    layouts = [closed.layouts[step.layouts] for closed in node.controller.all(Closed) for step in closed.steps]
    assert layouts == [node.layouts] * 3 + [((1, 0),)]


def test_what_it_folded_by_itself_is_told_before_how_far_a_rank_came(
    make: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the controller may give up then all that it was not told of."""
    monkeypatch.setattr(module, "LULL_S", NEVER_S)
    monkeypatch.setattr(module, "CLOSED_S", NEVER_S)
    node = make()
    node.approve()
    node.publish(0)
    wait_until(lambda: folded(node.ranks[0]) == 0, what="the fold")
    assert node.controller.all(Closed) == []
    node.controller.say(Feed(0, 1, ()))
    node.controller.hear(Fed)
    kinds = [type(message) for message in node.controller.heard]
    assert kinds.index(Closed) < kinds.index(Fed)


def test_what_it_may_commit_by_itself_is_not_taken_back(make: MakeNode) -> None:
    """So the controller knows what becomes of a step of which it hears too late; and the end may come at once."""
    node = make(window=5)
    node.publish(0)
    node.controller.hear(Closed)
    node.controller.say(Approve(0, node.layouts, ()))
    node.controller.say(Commit(0, 0, (), (0,)))
    node.controller.say(Finish(0, 0))
    node.controller.hear(Finished)
    [partial] = node.controller.all(Partial)
    assert [entry.steps for entry in partial.entries] == [1]


def test_what_comes_too_late_is_acknowledged_and_forgotten(make: MakeNode) -> None:
    node = make()
    node.controller.say(Commit(0, 2, (), (0, 1, 2)))
    wait_until(lambda: any(status.counters.get("folded_steps") == 3 for status in node.controller.all(Status)))
    node.publish(1)
    wait_until(lambda: Ack(1, 1, PART, PART) in node.ranks[0].all(Ack), what="the acknowledgement")
    assert node.steps_closed() == []


def test_memory_that_is_lent_is_read_where_it_lies_and_released_when_folded(make: MakeNode) -> None:
    node = make(window=1)
    node.approve()
    segment = Segment.create(4096)
    try:
        node.ranks[0].say(Lend(segment.name, segment.secret, 4096))
        assert node.ranks[0].hear(Borrow).mapped
        segment.unlink()
        assert [credit.bytes for credit in node.ranks[0].all(Credit)] == [MEMORY, 4096]
        segment.data[64:96].view("f8")[...] = range(4)
        node.ranks[0].say(PublishLent(0, 0, 0.0, 0, ((64, 32),)))
        np.testing.assert_array_equal(node.controller.hear(Partial).entries[0].state["total"], range(4))
        node.ranks[0].say(PublishLent(1, 1, 1.0, 0, ((4080, 32),)))
        assert "speaks of 32 bytes at 4080 of a segment of 4096 bytes" in node.ranks[0].hear(Refuse).reason
    finally:
        segment.unlink()
        segment.close()


@pytest.mark.skipif(not lanes_work(), reason="lanes need x86-64 and Linux")
def test_a_rank_with_a_lane_is_heard_and_answered_there(make: MakeNode) -> None:
    node = make(window=1)
    node.approve()
    rank, session = node.ranks[0], node.ranks[0].session
    blocks, memory = Segment.create(4096), Segment.create(LANE_BYTES)
    with Bell() as bell, closing(blocks), closing(Lane(memory, bell, makes=True)) as lane:

        def hear(cls: type[Message]) -> Message:
            while True:
                message = lane.receive()
                if message is None:
                    assert poll([bell], bell.listens([lane], 10.0)) or lane.waiting, "nobody rang"
                    bell.listened([lane])
                elif isinstance(heard := session.receive([message]), cls):
                    return heard

        rank.say(Lend(blocks.name, blocks.secret, 4096))
        rank.say(LendLane(memory.name, memory.secret, bell.name))
        lane.rings(rank.hear(BorrowLane).bell)
        blocks.unlink()
        lane.send(bytes(session.send(PublishLent(0, 0, 0.0, 0, ((64, 32),)))[0]))
        assert hear(Ack) in (Ack(0, -1, 32, 0), Ack(0, 0, 32, 32))
        lane.send(bytes(session.send(PublishLent(0, 0, 0.0, 0, ((64, 32),)))[0]))
        refuse = hear(Refuse)
        assert isinstance(refuse, Refuse)
        assert "published sequence 0 after 0" in refuse.reason


def test_a_lane_that_is_not_on_this_machine_is_not_taken(make: MakeNode) -> None:
    node = make()
    node.ranks[0].say(LendLane("insitu-0-0", "c0ffee", "insitu-bell-0-0"))
    assert node.ranks[0].hear(BorrowLane).bell == ""
    node.publish(0)
    wait_until(lambda: node.steps_closed() == [0], what="the step, over the socket")


WRONG: dict[str, tuple[list[Message], str]] = {
    "out of order": (
        [Publish(1, 1, 0.0, 0, (np.zeros(4),)), Publish(0, 0, 0.0, 0, (np.zeros(4),))],
        "Rank 0 published sequence 0 after 1",
    ),
    "not lent": ([PublishLent(0, 0, 0.0, 0, ((0, 32),))], "speaks of memory that this staging node has not mapped"),
    "another size": ([Publish(0, 0, 0.0, 0, (np.zeros(3),))], "'u' has 24 bytes, not the 32 of count (4,)"),
    "too much": (
        [Publish(n, n, 0.0, 0, (np.zeros(4),)) for n in range(65)],
        "sent 32 bytes beyond its credit of 2048 at sequence 64",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_rank_that_breaks_a_rule_is_refused_and_not_listened_to(make: MakeNode, what: str) -> None:
    node = make()
    messages, words = WRONG[what]
    for message in messages:
        node.ranks[0].say(message)
    assert words in node.ranks[0].hear(Refuse).reason
    event = node.controller.hear(Event)
    assert (event.level, event.kind, event.details["rank"]) == ("error", "protocol", 0)
    before = len(node.ranks[0].heard)
    node.ranks[0].send([b"and another thing"])
    newest = len(node.controller.all(Status))
    node.controller.hear(Status, newest + 2)
    assert len(node.ranks[0].all(Refuse)) == 1
    assert len(node.ranks[0].heard) == before


def test_ranks_that_do_not_belong_are_refused_and_the_others_are_not(make: MakeNode) -> None:
    node = make(window=1)
    node.approve()
    assert "is attached already" in node.rank(0).hear(Refuse).reason
    assert "attaches to run 'yesterday', this is 'melt'" in node.rank(0, "yesterday").hear(Refuse).reason
    node.publish(0)
    node.controller.hear(Partial)


def test_it_ends_when_it_is_told_to(make: MakeNode) -> None:
    node = make()
    node.controller.say(Shutdown())
    names = {"insitu-receiver", "insitu-folder"}
    wait_until(lambda: names.isdisjoint(thread.name for thread in threading.enumerate()), what="its threads' end")
    for _ in range(2):
        node.receiver.close()


def test_for_a_silent_controller_so_much_is_kept_and_no_more_until_it_is_heard_again(
    make: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank then has no credit, and does what its policy says."""
    monkeypatch.setattr(silence, "SILENT_S", 0.0)
    node = make(window=1)
    node.approve()

    def two_more() -> Status:
        """Wait for two more words on how it does, and return the last; they count too."""
        return node.controller.hear(Status, len(node.controller.all(Status)) + 2)

    two_more()
    node.publish(0)
    two_more()
    assert two_more().counters["folded_steps"] == 0
    assert node.steps_closed() == [0]
    node.controller.say(Ping())
    node.controller.hear(Partial)
    wait_until(lambda: folded(node.ranks[0]) == 0, what="the acknowledgement")


def test_a_controller_that_stays_silent_is_given_up(make: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "ABANDONED_S", 0.8)
    node = make()
    for _ in range(5):
        assert not node.abandoned.wait(0.2), "it pings"
        node.controller.say(Ping())
    assert node.abandoned.wait(30.0)
    host, _, port = node.address.removeprefix("tcp://").partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    assert "insitu-folder" not in [thread.name for thread in threading.enumerate()]
