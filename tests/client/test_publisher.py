# SPDX-License-Identifier: Apache-2.0
"""A rank's steps on their way: waits have their bound, memory comes back when it may, a faulty node harms nobody.

The rank and its sockets are real; controller and staging nodes say what the test tells them to.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest

from insitu.client.catalogue import Catalogue
from insitu.client.client import StepWriter
from insitu.client.contract import Contract
from insitu.client.controller import ControllerLink
from insitu.client.encoding import Encoder
from insitu.client.folding import Folding
from insitu.client.link import NodeLink
from insitu.client.patience import waits_of
from insitu.client.policy import Policy
from insitu.client.publisher import Publisher
from insitu.client.spool import Spool
from insitu.client.steering import Steered
from insitu.errors import RunError
from insitu.model import Step
from insitu.wire.codec import encode
from insitu.wire.messages import (
    VERSION,
    Ack,
    Adopted,
    Attach,
    Borrow,
    Buffer,
    Credit,
    Detach,
    Dropped,
    Event,
    Hello,
    Layout,
    Lend,
    Need,
    NodeGone,
    Publish,
    PublishLent,
    Refuse,
    Replan,
    Share,
    Skip,
    Welcome,
)
from insitu.wire.segment import Segment
from insitu.wire.session import Link
from insitu.wire.sockets import connect, poll
from insitu.wire.steering import SteeringTerms
from tests.client.ways import Watch
from tests.waiting import wait_until
from tests.wire.fakes import FakeListener

#: All of `u` is needed, as it is put.
STEERING = SteeringTerms("promise", 1.0, 60.0, "stop", 0)
NEEDS = (Need("u", (), "", "none", 0.0),)
#: The size of a step of these tests: eight numbers, which fill a slot.
STEP = 64
#: So short a wait that a test can wait for it to run out, and one that nobody waits for.
SOON_S, LATE_S = 0.2, 30.0


class Rank:
    """One rank with a buffer for `steps` steps, a controller, and staging nodes that have given `credit` steps each."""

    def __init__(
        self,
        stack: ExitStack,
        steps: int,
        credit: int,
        max_wait_s: float,
        then: str,
        nodes: int,
        lent: bool,
        policy: str,
        spool: Spool | None,
        folds: Mapping[str, dict[str, Any]] | None = None,
        free: str = "auto",
    ) -> None:
        self._free = free
        self._policy = Policy(policy)
        self.controller = FakeListener(Link.RANK_CONTROLLER)
        stack.callback(self.controller.close)
        controller = ControllerLink(connect(self.controller.listener.address))
        stack.callback(controller.give_up)
        assert controller.join(Hello(VERSION, "melt", 0, 0, 1, "n17", 1), 0.0) is None
        self.controller.hear(Hello)
        self.controller.say(
            Welcome("melt", (), STEP * steps, max_wait_s, "block", 1, then, 0, "", "auto", NEEDS, STEERING)
        )
        wait_until(lambda: controller.socket in poll([controller.socket], 0.01), what="the welcome")
        controller.listen()
        contract = Contract(0, NEEDS, controller.say)
        segment = Segment.create(STEP * steps) if lent else None
        self.publisher = Publisher(
            0,
            buffer_bytes=STEP * steps,
            segment=segment,
            spool=spool,
            max_wait_s=max_wait_s,
            policy=self._policy,
            then=then,
            controller=controller,
            contract=contract,
            connect=partial(self._link, stack, segment),
            folding=Folding(0, 0, folds, STEP * steps, controller.say) if folds else None,
            stays=("u",) if folds else (),
        )
        stack.callback(self.publisher.close_memory)
        self.nodes: list[FakeListener] = []
        self.publisher.planning.begin(tuple(Share(number, "a", number, number + 1, nodes) for number in range(nodes)))
        for node in self.nodes:
            self.admit(node, credit, lent)
        self.publisher.meet(10.0 if credit else 0.0)
        self._writer = StepWriter(Catalogue(0, contract), contract, self.publisher, Steered(0, STEERING, controller))
        self._steps = count()

    def admit(self, node: FakeListener, credit: int, lent: bool = False) -> None:
        """Let a staging node give credit for so many steps."""
        node.hear(Attach)
        node.say(Credit(credit * STEP))
        if lent:
            node.hear(Lend)
            node.say(Borrow(True))

    def _link(self, stack: ExitStack, segment: Segment | None, share: Share) -> NodeLink:
        node = FakeListener(Link.RANK_NODE)
        self.nodes.append(node)
        stack.callback(node.close)
        socket = connect(node.listener.address)
        stack.callback(socket.close, linger_s=0)
        lend = None if segment is None else Lend(segment.name, segment.secret, segment.data.nbytes)
        attach, encoder = Attach(VERSION, "melt", 0, 0, "n17", 1), Encoder(share.node, NEEDS, lambda message: None)
        under_way, done, lost = self._policy.under_way, self.publisher.done, self.publisher.lost
        return NodeLink(socket, share.node, attach, lend, encoder, done, under_way, lost=lost, free=self._free)

    @property
    def waited_s(self) -> float:
        counters = self.publisher.counters
        return counters["wait_staging_s"] + counters["wait_network_s"]

    @property
    def dropped(self) -> int:
        return int(self.publisher.counters["dropped"])

    def open(self) -> StepWriter:
        n = next(self._steps)
        return self._writer.open(Step(n, n, float(n)))

    def publish(self, steps: int = 1) -> None:
        """Publish steps, in each of which all values are the step's number."""
        for _ in range(steps):
            with self.open() as step:
                assert step._step is not None
                step.put("u", np.full(8, step._step.index, "f8"), start=(0,), shape=(8,))

    def hears(self, done: Callable[[], object]) -> None:
        """Let the rank take in what it is told until `done` holds."""
        wait_until(lambda: self.publisher.pump() or done(), what="the rank to take it in")

    @contextmanager
    def told_while_it_waits(self, *acks: Ack) -> Iterator[None]:
        """Have the first node acknowledge once the rank stands still for it, and only then."""

        def tell() -> None:
            wait_until(lambda: self.waited_s > 0, what="the rank to wait")
            for ack in acks:
                self.nodes[0].say(ack)

        self.nodes[0].take()
        teller = threading.Thread(target=tell)
        teller.start()
        try:
            yield
        finally:
            teller.join()


MakeRank = Callable[..., Rank]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """No step of a test goes another way than those that are drawn."""
    watch = Watch(monkeypatch)
    yield watch
    watch.forget()
    assert watch.wrong == []


@pytest.fixture
def make(ways: Watch) -> Iterator[MakeRank]:
    with ExitStack() as stack:

        def rank(
            *, steps: int = 2, credit: int = 1, max_wait_s: float = LATE_S, then: str = "drop", nodes: int = 1,
            lent: bool = False, policy: str = "block", spool: Spool | None = None, free: str = "auto",
        ) -> Rank:  # fmt: skip
            return Rank(stack, steps, credit, max_wait_s, then, nodes, lent, policy, spool, free=free)

        yield rank


def test_without_credit_steps_stay_and_without_room_put_waits(make: MakeRank) -> None:
    rank = make(steps=2, credit=1)
    rank.publish(2)
    rank.nodes[0].hear(Publish)
    assert rank.waited_s == 0
    with rank.told_while_it_waits(Ack(0, 0, STEP, STEP)):
        rank.publish()
    rank.hears(lambda: len(rank.nodes[0].all(Publish)) == 2)
    assert [published.sequence for published in rank.nodes[0].all(Publish)] == [0, 1]
    counters = rank.publisher.counters
    assert counters["wait_staging_s"] > 0
    assert sum(counters.get(name, 0) for name in waits_of("staging")) == 1
    assert (counters["wait_network_s"], counters["dropped"], counters["steps"]) == (0, 0, 3)


def test_over_tcp_memory_comes_back_when_it_is_received_but_credit_when_it_is_folded(make: MakeRank) -> None:
    rank = make(steps=2, credit=2)
    rank.publish(2)
    rank.nodes[0].hear(Publish, 2)
    with rank.told_while_it_waits(Ack(1, -1, 2 * STEP, 0)):
        rank.publish()
    rank.publish()
    assert rank.dropped == 0
    rank.publisher.pump(0.05)
    assert len(rank.nodes[0].all(Publish)) == 2
    rank.nodes[0].say(Ack(1, 1, 2 * STEP, 2 * STEP))
    rank.hears(lambda: len(rank.nodes[0].all(Publish)) == 4)


def test_memory_that_is_lent_comes_back_only_when_it_is_folded(make: MakeRank) -> None:
    rank = make(steps=2, credit=4, max_wait_s=SOON_S, lent=True)
    rank.publish(2)
    rank.nodes[0].hear(PublishLent, 2)
    with rank.told_while_it_waits(Ack(1, -1, 2 * STEP, 0)):
        rank.publish()
    assert rank.dropped == 1
    rank.nodes[0].say(Ack(1, 0, 2 * STEP, STEP))
    rank.hears(lambda: rank.publisher.links[0].sent_bytes and rank.publisher._pool.fits(STEP))
    rank.publish()
    assert rank.dropped == 1
    assert rank.nodes[0].hear(PublishLent, 3).sequence == 3


@pytest.mark.parametrize("free", ["received", "folded", "durable"])
def test_over_tcp_memory_comes_back_when_the_configuration_says(make: MakeRank, free: str) -> None:
    rank = make(steps=2, credit=9, max_wait_s=SOON_S, free=free)
    rank.publish(2)
    rank.nodes[0].hear(Publish, 2)
    stages = [Ack(1, -1, 2 * STEP, 0), Ack(1, 1, 2 * STEP, 2 * STEP), Ack(1, 1, 2 * STEP, 2 * STEP, 1, 2 * STEP)]
    last = ["received", "folded", "durable"].index(free)
    for ack in stages[:last]:
        rank.nodes[0].say(ack)
        rank.hears(lambda ack=ack: rank.publisher.links[0]._received_bytes == ack.received_bytes)
        rank.hears(lambda ack=ack: rank.publisher.links[0]._folded_bytes == ack.folded_bytes)
        rank.publish()
    assert rank.dropped == last
    assert not rank.publisher.links[0].idle
    rank.nodes[0].say(stages[last])
    rank.hears(lambda: rank.publisher.links[0].idle)
    rank.publish()
    assert rank.dropped == last


def test_a_wait_that_runs_out_drops_the_step_and_the_next_ones_cost_none(make: MakeRank) -> None:
    rank = make(steps=2, credit=1, max_wait_s=SOON_S)
    rank.publish(2)
    rank.nodes[0].hear(Publish)
    rank.publish()
    waited_s = rank.waited_s
    assert waited_s >= SOON_S
    rank.publish(20)
    assert rank.waited_s == waited_s
    assert rank.dropped == 21
    last = rank.controller.hear(Dropped, 21)
    assert (last.sequence, last.index) == (22, 22)
    assert last.reason == f"no room in its buffer of {2 * STEP} bytes after {SOON_S:g} s"
    rank.nodes[0].say(Ack(0, 0, STEP, STEP))
    rank.hears(lambda: len(rank.nodes[0].all(Publish)) == 2)
    rank.publish()
    assert rank.dropped == 21
    rank.publish()  # and the next wait is a whole one again
    assert rank.dropped == 22
    assert rank.waited_s >= waited_s + SOON_S


def test_a_rank_knows_what_became_of_its_steps_by_what_all_its_nodes_have_said(make: MakeRank) -> None:
    rank = make(steps=5, credit=10, max_wait_s=SOON_S, nodes=2)
    one, other = rank.nodes
    rank.publish(6)
    one.hear(Publish, 5)
    one.say(Ack(4, 3, 5 * STEP // 2, 4 * STEP // 2))
    other.hear(Publish, 5)
    other.say(Ack(1, 1, 2 * STEP // 2, 2 * STEP // 2))
    rank.hears(lambda: len(rank.publisher.links[1].unfolded) == 3)
    reason = f"no room in its buffer of {5 * STEP} bytes after {SOON_S:g} s"
    assert rank.publisher.told() == f"6 steps: 2 folded, 1 dropped ({reason}: 1), 3 sent, of which nothing was heard"


def test_a_wait_that_is_to_abort_raises_and_says_where(make: MakeRank) -> None:
    rank = make(steps=1, credit=1, max_wait_s=SOON_S, then="abort")
    rank.publish()
    with pytest.raises(RunError, match=r"Rank 0 at step 1: no room in its buffer of 64 bytes .* \(then: abort\)"):
        rank.publish()


NONSENSE: dict[str, list[Buffer]] = {
    "no message": [b"let me in"],
    "nothing": [b""],
    "a message of the other side": encode(Detach(3)),
    "a refusal": encode(Refuse("rank 0 sent nonsense")),
    "more folded than was sent": encode(Ack(0, 0, STEP, 2 * STEP)),
    "less folded than before": encode(Ack(0, 0, STEP, 0)),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_node_that_talks_nonsense_is_given_up_and_costs_one_wait(
    make: MakeRank, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    rank = make(steps=2, credit=1, max_wait_s=SOON_S)
    node = rank.nodes[0]
    rank.publish()
    node.hear(Publish)
    if what.startswith("less"):
        node.say(Ack(0, 0, STEP, STEP))
        rank.hears(lambda: rank.publisher.links[0].idle)
        rank.publish()
        node.hear(Publish, 2)
    node.send(NONSENSE[what])
    rank.hears(lambda: "is given up" in caplog.text)
    for ack in (Ack(5, 5, STEP, STEP), Credit(100 * STEP)):  # whatever it says now
        node.send(encode(ack))
    rank.publish(10)
    assert rank.waited_s < 5 * SOON_S
    assert rank.dropped == 9  # there was room for one
    assert caplog.text.count("is given up") == 1


def test_a_node_that_is_given_up_does_not_take_the_others_along(
    make: MakeRank, caplog: pytest.LogCaptureFixture
) -> None:
    rank = make(steps=4, credit=4, max_wait_s=SOON_S, nodes=2)
    rank.nodes[1].send([b"nonsense"])
    rank.hears(lambda: "staging node 1 is given up" in caplog.text)
    rank.publish(2)
    halves = [node.hear(Publish, 2).buffers[0] for node in rank.nodes]
    assert [np.frombuffer(half, "f8").tolist() for half in halves] == [[1.0] * 4] * 2


def test_a_put_without_a_copy_lies_where_the_node_reads_it(make: MakeRank) -> None:
    rank = make(steps=2, credit=2, lent=True)
    with rank.open() as step:
        room = step.empty("u", (2, 4), start=(0, 0), shape=(2, 4))
        room[...] = np.arange(8.0).reshape(2, 4)
    lend = rank.nodes[0].hear(Lend)
    published = rank.nodes[0].hear(PublishLent)
    ((offset, nbytes),) = published.places
    assert np.shares_memory(room, rank.publisher._pool.arena[offset : offset + nbytes])
    assert lend.bytes == 2 * STEP
    np.testing.assert_array_equal(rank.publisher._pool.arena[offset : offset + nbytes].view("f8"), np.arange(8.0))


def test_over_tcp_a_put_without_a_copy_is_sent_from_where_it_lies(make: MakeRank) -> None:
    rank = make()
    with rank.open() as step:
        step.empty("u", (8,), "i8", start=(0,), shape=(8,))[...] = range(8)
    np.testing.assert_array_equal(np.frombuffer(rank.nodes[0].hear(Publish).buffers[0], "i8"), range(8))


def test_a_put_without_a_copy_into_a_lost_step_writes_nowhere(make: MakeRank) -> None:
    rank = make(steps=1, credit=1, max_wait_s=SOON_S)
    rank.publish()
    with rank.open() as step:
        room = step.empty("u", (8,), start=(0,), shape=(8,))
        assert (room.shape, room.dtype) == ((8,), np.dtype(float))
        assert not np.shares_memory(room, rank.publisher._pool.arena)
        room[...] = 7.0
    assert rank.controller.hear(Dropped).sequence == 1


def test_a_step_that_the_simulation_breaks_off_is_seen_by_nobody(make: MakeRank) -> None:
    rank = make(steps=1, credit=1)

    def step_that_fails() -> None:
        with rank.open() as step:
            step.put("u", np.zeros(8), start=(0,), shape=(8,))
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        step_that_fails()
    assert rank.controller.hear(Dropped).reason == "the simulation raised ArithmeticError inside the step"
    rank.publish()
    assert rank.nodes[0].hear(Publish).sequence == 1


def test_the_end_waits_for_the_last_steps_and_takes_leave(make: MakeRank) -> None:
    rank = make(steps=2, credit=2)
    rank.publish(2)
    rank.nodes[0].hear(Publish, 2)
    with rank.told_while_it_waits(Ack(0, -1, STEP, 0), Ack(1, -1, 2 * STEP, 0)):
        rank.publisher.finish(2)
    assert rank.nodes[0].hear(Detach).steps == 2
    assert rank.dropped == 0


def test_steps_that_never_left_are_said_to_be_dropped_at_the_end(
    make: MakeRank, caplog: pytest.LogCaptureFixture
) -> None:
    rank = make(steps=4, credit=1, max_wait_s=SOON_S)
    rank.publish(3)
    rank.nodes[0].hear(Publish)
    rank.publisher.finish(3)
    assert "ends with 3 steps that no staging node acknowledged" in caplog.text
    rank.controller.hear(Dropped, 2)
    dropped = rank.controller.all(Dropped)
    assert [(each.sequence, each.reason) for each in dropped] == [
        (1, "it had not left its rank's buffer when the rank ended"),
        (2, "it had not left its rank's buffer when the rank ended"),
    ]
    assert rank.dropped == 2


def test_a_node_that_never_answers_is_named(make: MakeRank, caplog: pytest.LogCaptureFixture) -> None:
    rank = make(credit=0)  # which is none
    caplog.clear()
    rank.publisher.meet(SOON_S)
    assert f"no answer from staging node 0 within {SOON_S:g} s" in caplog.text


def sequences_dropped(rank: Rank) -> list[int]:
    """Which steps the controller has heard are dropped."""
    return [dropped.sequence for dropped in rank.controller.all(Dropped)]


def test_the_newest_step_is_dropped_without_a_wait(make: MakeRank) -> None:
    rank = make(steps=2, credit=1, policy="drop_newest")
    rank.publish(4)
    assert (rank.waited_s, rank.dropped) == (0, 2)
    rank.hears(lambda: sequences_dropped(rank) == [2, 3])
    assert "(policy: drop_newest)" in rank.controller.all(Dropped)[0].reason
    rank.nodes[0].say(Ack(0, 0, STEP, STEP))
    rank.hears(lambda: len(rank.nodes[0].all(Publish)) == 2)
    assert [published.sequence for published in rank.nodes[0].all(Publish)] == [0, 1]


def test_a_new_step_takes_the_place_of_the_oldest_that_waits(make: MakeRank) -> None:
    rank = make(steps=3, credit=1, policy="drop_oldest")
    rank.publish(5)
    assert (rank.waited_s, rank.dropped) == (0, 2)
    rank.hears(lambda: sequences_dropped(rank) == [1, 2])
    rank.nodes[0].say(Ack(0, 0, STEP, STEP))
    rank.hears(lambda: len(rank.nodes[0].all(Publish)) == 2)
    assert [published.sequence for published in rank.nodes[0].all(Publish)] == [0, 3]


def test_only_the_latest_step_waits_though_there_is_room(make: MakeRank) -> None:
    rank = make(steps=8, credit=8, policy="latest")
    rank.publish(6)
    rank.hears(lambda: len(rank.nodes[0].all(Publish)) == 2)
    rank.hears(lambda: sequences_dropped(rank) == [2, 3, 4])
    rank.nodes[0].say(Ack(1, 0, 2 * STEP, STEP))
    rank.hears(lambda: len(rank.nodes[0].all(Publish)) == 3)
    assert [published.sequence for published in rank.nodes[0].all(Publish)] == [0, 1, 5]


def test_what_another_rank_dropped_is_dropped_where_it_waits_and_not_begun_where_it_is_to_come(make: MakeRank) -> None:
    rank = make(steps=8, credit=1)
    rank.publish(3)
    rank.controller.say(Skip((1, 4)))
    rank.hears(lambda: rank.dropped == 1)
    rank.publish(3)
    assert rank.dropped == 2
    rank.nodes[0].say(Ack(0, 0, STEP, STEP))
    for n, sequence in enumerate((2, 3, 5), 2):
        rank.hears(lambda n=n: len(rank.nodes[0].all(Publish)) == n)
        rank.nodes[0].say(Ack(sequence, sequence, n * STEP, n * STEP))
    assert [published.sequence for published in rank.nodes[0].all(Publish)] == [0, 2, 3, 5]
    assert sequences_dropped(rank) == []  # it is known already


def test_a_wait_ends_when_the_step_is_dropped_elsewhere(make: MakeRank) -> None:
    rank = make(steps=1, credit=1)
    rank.publish()
    rank.controller.say(Skip((1,)))
    rank.publish()
    assert rank.dropped == 1


def values(rank: Rank, node: int = 0) -> list[tuple[int, float]]:
    """Of each step that came to a node its sequence and its value; all eight must be the same."""
    came = rank.nodes[node].all(Publish)
    arrays = [np.frombuffer(published.buffers[0], "f8") for published in came]
    assert all(len(set(array.tolist())) == 1 for array in arrays)
    return [(published.sequence, array[0]) for published, array in zip(came, arrays, strict=True)]


@pytest.mark.parametrize(("policy", "then"), [("spill", "drop"), ("block", "spill")])
def test_steps_without_room_go_to_the_disk_and_leave_in_their_order(make: MakeRank, policy: str, then: str) -> None:
    rank = make(steps=2, credit=1, policy=policy, then=then, max_wait_s=SOON_S, spool=Spool("", 100 * STEP))
    rank.publish(10)
    assert rank.dropped == 0
    assert (rank.waited_s > 0) == (policy == "block")  # and then it has waited once
    assert rank.publisher.counters["spilled"] == 8
    event = rank.controller.hear(Event)
    assert (event.kind, event.level) == ("spill", "warning")
    for n in range(9):
        rank.nodes[0].say(Ack(n, n, STEP * (n + 1), STEP * (n + 1)))
        rank.hears(lambda n=n: len(rank.nodes[0].all(Publish)) == n + 2)
        rank.nodes[0].hear(Publish, n + 2)
    assert values(rank) == [(n, n) for n in range(10)]
    rank.nodes[0].say(Ack(9, 9, 10 * STEP, 10 * STEP))
    rank.hears(lambda: rank.publisher._pool.taken_bytes == 0)
    spilled = rank.publisher.counters["spilled"]
    rank.publish(2)  # the disk is empty again, and not needed
    assert rank.publisher.counters["spilled"] == spilled


def test_a_full_disk_makes_it_wait_and_then_drop_and_says_so_once(make: MakeRank) -> None:
    rank = make(steps=1, credit=1, policy="spill", max_wait_s=SOON_S, spool=Spool("", 3 * STEP))
    rank.publish(4)
    assert rank.waited_s == 0
    rank.publish(6)
    assert SOON_S <= rank.waited_s < 2 * SOON_S
    assert rank.dropped == 6
    reason = rank.controller.hear(Dropped).reason
    assert (
        reason
        == f"no room in its buffer of {STEP} bytes after {SOON_S:g} s, and the {3 * STEP} bytes of its spill are full"
    )
    assert [event.kind for event in rank.controller.all(Event)] == ["spill", "spill-full"]
    assert rank.controller.all(Event)[1].text.endswith("It waits, then: drop.")


def test_what_leaves_a_full_disk_ends_the_wait(make: MakeRank) -> None:
    rank = make(steps=1, credit=1, policy="spill", spool=Spool("", 3 * STEP))
    rank.publish(4)
    with rank.told_while_it_waits(Ack(0, 0, STEP, STEP)):
        rank.publish()
    assert (rank.dropped, rank.publisher.counters["spilled"]) == (0, 4)


def test_a_full_disk_that_is_to_abort_does(make: MakeRank) -> None:
    rank = make(steps=1, credit=1, policy="spill", then="abort", max_wait_s=SOON_S, spool=Spool("", STEP))
    rank.publish(2)
    with pytest.raises(RunError, match=r"Rank 0 at step 2: no room .* of its spill are full \(then: abort\)"):
        rank.publish()


def test_what_another_rank_has_dropped_leaves_the_disk_too(make: MakeRank) -> None:
    rank = make(steps=1, credit=1, policy="spill", spool=Spool("", 9 * STEP))
    rank.publish(4)
    rank.controller.say(Skip((2,)))
    rank.hears(lambda: rank.dropped == 1)
    for n in (0, 1):
        rank.nodes[0].say(Ack(n, n, STEP * (n + 1), STEP * (n + 1)))
        rank.hears(lambda n=n: len(rank.nodes[0].all(Publish)) == n + 2)
    assert values(rank) == [(0, 0), (1, 1), (3, 3)]


def test_a_step_that_comes_back_damaged_is_dropped_and_the_next_ones_are_not(make: MakeRank) -> None:
    spool = Spool("", 9 * STEP)
    rank = make(steps=1, credit=1, policy="spill", spool=spool)
    rank.publish(3)
    os.pwrite(spool._file.fileno(), b"?", 3)
    rank.nodes[0].say(Ack(0, 0, STEP, STEP))
    rank.hears(lambda: len(rank.nodes[0].all(Publish)) == 2)
    assert values(rank) == [(0, 0), (2, 2)]
    assert rank.controller.hear(Dropped).reason == "it came back damaged from the disk of rank 0"


def test_the_end_waits_for_the_disk_as_long_as_steps_leave_it(make: MakeRank) -> None:
    rank = make(steps=1, credit=1, policy="spill", max_wait_s=SOON_S, spool=Spool("", 99 * STEP))
    rank.publish(6)
    node, stop = rank.nodes[0], threading.Event()

    def acknowledge() -> None:
        for n in range(4):
            stop.wait(0.6 * SOON_S)
            node.say(Ack(n, n, STEP * (n + 1), STEP * (n + 1)))

    node.take()
    teller = threading.Thread(target=acknowledge)
    teller.start()
    rank.publisher.finish(6)
    teller.join()
    assert rank.waited_s > 2.4 * SOON_S  # longer than any one wait may be
    rank.controller.hear(Dropped)
    assert [(each.sequence, each.reason) for each in rank.controller.all(Dropped)] == [
        (5, "it had not left its rank's disk when the rank ended"),
    ]


def test_a_node_that_is_gone_is_not_waited_for(make: MakeRank, caplog: pytest.LogCaptureFixture) -> None:
    """Not by the step that waits for room, not by later ones, and not by the end; the other node gets what waits."""
    rank = make(steps=2, credit=1, nodes=2, policy="spill", spool=Spool("", 9 * STEP))
    rank.publish(6)
    rank.nodes[0].hear(Publish)
    rank.controller.say(NodeGone(1))
    rank.hears(lambda: "drops steps from now on: staging node 1 is gone" in caplog.text)
    assert len(rank.publisher._spool or ()) == 0
    rank.publish(3)
    rank.nodes[0].say(Ack(1, 1, STEP, STEP))
    rank.publisher.finish(9)
    assert rank.waited_s < LATE_S / 2
    reasons = {dropped.reason for dropped in rank.controller.all(Dropped)}
    assert reasons == {"a staging node is gone"}
    assert rank.nodes[0].hear(Detach).steps == 9
    assert rank.publisher._pool.taken_bytes == 0


def test_a_step_that_waits_for_a_node_that_is_gone_takes_no_room(make: MakeRank) -> None:
    rank = make(steps=2, credit=1)
    rank.publish(2)
    rank.controller.say(NodeGone(0))
    rank.hears(lambda: rank.publisher._pool.taken_bytes == 0)


def test_a_node_that_goes_while_a_step_waits_ends_the_wait(make: MakeRank) -> None:
    rank = make(steps=1, credit=1)
    rank.publish()

    def tell() -> None:
        wait_until(lambda: rank.waited_s > 0, what="the rank to wait")
        rank.controller.say(NodeGone(0))

    rank.controller.take()
    teller = threading.Thread(target=tell)
    teller.start()
    rank.publish()
    teller.join()
    assert (rank.dropped, rank.controller.hear(Dropped).sequence) == (1, 1)
    assert rank.waited_s < LATE_S / 2


def test_what_a_connection_took_along_is_dropped_and_its_credit_comes_back(make: MakeRank) -> None:
    """Of four steps two came, and the node says that it has the last one."""
    rank = make(steps=4, credit=4)
    rank.publish(4)
    rank.nodes[0].hear(Publish, 4)
    rank.nodes[0].say(Ack(0, 0, STEP, STEP))
    rank.nodes[0].say(Ack(3, 0, 2 * STEP, STEP))
    rank.hears(lambda: sequences_dropped(rank) == [1, 2, 3])
    assert {dropped.reason for dropped in rank.controller.all(Dropped)} == {"it was lost with a connection"}
    rank.nodes[0].say(Ack(3, 3, 2 * STEP, 2 * STEP))
    rank.publish(4)
    rank.hears(lambda: len(rank.nodes[0].all(Publish)) == 8)
    rank.nodes[0].say(Ack(7, 7, 6 * STEP, 6 * STEP))
    rank.hears(lambda: rank.publisher.links[0].idle)
    assert sequences_dropped(rank) == [1, 2, 3]


def sequences(node: FakeListener) -> list[int]:
    """Return the two steps that a node was sent."""
    node.hear(Publish, 2)
    return [publish.sequence for publish in node.all(Publish)]


def test_a_plan_is_adopted_when_its_nodes_give_credit_and_nothing_before(make: MakeRank) -> None:
    """Until then steps go where they went; nobody waits. Parts that come together keep their own blocks."""
    rank = make(steps=8, credit=8, nodes=2)
    rank.publish()
    rank.controller.say(Replan(1, (Share(2, "a", 0, 1, 2), Share(2, "a", 1, 2, 2))))
    rank.hears(lambda: len(rank.nodes) == 3)
    rank.publish()
    assert rank.controller.all(Adopted) == []
    rank.admit(rank.nodes[2], 8)
    rank.hears(lambda: rank.publisher.planning.ready)
    rank.publish(2)
    assert rank.controller.hear(Adopted) == Adopted(1, 2)
    layout = rank.nodes[2].hear(Layout)
    assert [(block.start, block.count) for block in layout.blocks] == [((0,), (4,)), ((4,), (4,))]
    assert layout.id == 1
    assert sequences(rank.nodes[2]) == [2, 3]
    for node in rank.nodes[:2]:
        assert sequences(node) == [0, 1]
    assert rank.waited_s == 0


def test_a_rank_whose_node_is_gone_publishes_again_by_the_next_plan(make: MakeRank) -> None:
    rank = make(steps=4, credit=4, nodes=2)
    rank.publish()
    rank.controller.say(NodeGone(1))
    rank.hears(lambda: 1 in rank.publisher._missing)
    rank.publish()
    rank.controller.say(Replan(1, (Share(0, "a", 0, 1, 2), Share(0, "a", 1, 2, 2))))
    rank.hears(lambda: rank.publisher.planning.ready)
    rank.publish()
    assert rank.controller.hear(Adopted) == Adopted(1, 2)
    assert sequences(rank.nodes[0]) == [0, 2]
    assert [dropped.sequence for dropped in rank.controller.all(Dropped)] == [1]
    rank.nodes[0].say(Ack(2, 2, 96, 96))
    rank.publisher.finish(3)
    assert rank.publisher._pool.taken_bytes == 0
