# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: what the table says, in every order that a link can bring about."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.errors import LocalProtocolError, RemoteProtocolError
from insitu.model import Variable
from insitu.wire import learning as n
from insitu.wire import messages as m
from insitu.wire import session as wire_session
from insitu.wire import steering as w
from insitu.wire import viewing as v
from insitu.wire.codec import decode
from insitu.wire.schema import KINDS
from insitu.wire.session import FROM_LISTENER, TRANSITIONS, Link, Session, Side, State, blocks_of, link_of
from tests.wire.examples import BUFFERS, LAYOUT, MESSAGES, VELOCITY
from tests.wire.hostile import INSANE, MALFORMED, WRONG_BUFFERS, frames_of
from tests.wire.pair import Pair

EXAMPLE = {type(message): message for message in MESSAGES}
OPENING = {
    Link.RANK_CONTROLLER: m.Hello,
    Link.RANK_NODE: m.Attach,
    Link.NODE_CONTROLLER: m.NodeHello,
    Link.CONSOLE_CONTROLLER: w.ConsoleHello,
    Link.VIEWER_CONTROLLER: v.Watch,
    Link.LEARNER_CONTROLLER: n.LearnerHello,
    Link.LEARNER_NODE: n.Subscribe,
}
ADMISSION = {
    Link.RANK_CONTROLLER: m.Welcome,
    Link.NODE_CONTROLLER: m.NodeWelcome,
    Link.CONSOLE_CONTROLLER: w.ConsoleWelcome,
    Link.VIEWER_CONTROLLER: v.Watching,
    Link.LEARNER_CONTROLLER: n.Sources,
}


def admitted(link: Link) -> Pair:
    """Return both ends of an open link."""
    pair = Pair(link)
    pair.send(Side.CONNECTS, EXAMPLE[OPENING[link]])
    pair.settle()
    if link in ADMISSION:
        pair.send(Side.LISTENS, EXAMPLE[ADMISSION[link]])
        pair.settle()
    return pair


def speaker(cls: type) -> Side:
    return Side.LISTENS if cls in FROM_LISTENER else Side.CONNECTS


class TestTable:
    def test_every_message_has_a_place(self) -> None:
        said = {cls for states in TRANSITIONS.values() for turns in states.values() for cls in turns}
        assert said == {record.cls for record in KINDS.values()}

    @pytest.mark.parametrize("link", Link)
    def test_every_state_can_be_reached_and_is_in_the_table(self, link: Link) -> None:
        reached = {State.NEW} | {state for turns in TRANSITIONS[link].values() for state in turns.values()}
        assert reached == set(TRANSITIONS[link])

    @pytest.mark.parametrize("link", Link)
    @pytest.mark.parametrize("state", State)
    def test_in_no_state_both_sides_can_move_the_link_on(self, link: Link, state: State) -> None:
        """The reason why messages may cross on the way."""
        turns = TRANSITIONS[link].get(state, {})
        movers = {speaker(cls) for cls, after in turns.items() if after is not state and cls is not m.Refuse}
        assert len(movers) <= 1

    @pytest.mark.parametrize("link", Link)
    def test_what_one_side_may_say_stays_legal_when_the_other_moves_on(self, link: Link) -> None:
        for state, turns in TRANSITIONS[link].items():
            for mover, after in turns.items():
                if after is state or mover is m.Refuse:
                    continue
                others = {cls for cls in turns if speaker(cls) is not speaker(mover)}
                assert others <= set(TRANSITIONS[link][after]), (state, mover)


class TestTurns:
    @pytest.mark.parametrize("link", Link)
    @pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
    def test_only_an_opening_or_a_refusal_can_be_first(self, link: Link, message: m.Message) -> None:
        first = type(message)
        legal = first in (OPENING[link], m.Refuse)
        for side in Side:
            session = Session(link, side)
            if legal and speaker(first) is side:
                session.send(message)
                assert session.state is TRANSITIONS[link][State.NEW][first]
            else:
                with pytest.raises(LocalProtocolError, match=f"^{first.__name__} "):
                    session.send(message)
                assert session.state is State.NEW

    @pytest.mark.parametrize("link", Link)
    @pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
    def test_what_one_may_not_send_the_other_may_not_receive(self, link: Link, message: m.Message) -> None:
        for side in Side:
            pair = admitted(link)
            other = Side.LISTENS if side is Side.CONNECTS else Side.CONNECTS
            if link is Link.RANK_NODE:
                pair.send(Side.CONNECTS, LAYOUT)
                pair.settle()
            try:
                pair.send(side, message)
            except LocalProtocolError:
                with pytest.raises(RemoteProtocolError):
                    pair.ends[other].receive(frames_of(message))
            else:
                pair.settle()
                assert pair.ends[side].state is pair.ends[other].state

    def test_the_error_names_message_link_and_state(self) -> None:
        session = Session(Link.RANK_NODE, Side.CONNECTS)
        expected = "Detach has no place on the link from rank to staging node when nothing was said."
        with pytest.raises(LocalProtocolError, match=expected):
            session.send(m.Detach(3))

    def test_a_message_that_cannot_be_encoded_changes_nothing(self) -> None:
        pair = admitted(Link.RANK_NODE)
        wrong = m.Layout(0, (m.BlockSpec(VELOCITY.renamed("line\nbreak"), (0, 0), (0, 3)),))
        session = pair.ends[Side.CONNECTS]
        with pytest.raises(LocalProtocolError, match="printable"):
            session.send(wrong)
        assert session.layouts == {}
        with pytest.raises(LocalProtocolError):
            session.send(m.Detach(-1))
        assert session.state is State.OPEN

    @pytest.mark.parametrize("link", Link)
    def test_the_first_message_tells_the_link(self, link: Link) -> None:
        assert link_of(frames_of(EXAMPLE[OPENING[link]])) is link

    def test_another_first_message_opens_no_link(self) -> None:
        with pytest.raises(
            RemoteProtocolError, match="first message is Ping, but only one of Hello, Attach, NodeHello"
        ):
            link_of(frames_of(m.Ping()))

    def test_nothing_is_said_on_a_refused_link(self) -> None:
        pair = Pair(Link.RANK_NODE)
        pair.send(Side.CONNECTS, EXAMPLE[m.Attach])
        pair.settle()
        pair.send(Side.LISTENS, m.Refuse("another run"))
        pair.send(Side.CONNECTS, LAYOUT)  # it does not know yet
        pair.deliver(Side.LISTENS)
        with pytest.raises(LocalProtocolError, match="does not take part"):
            pair.send(Side.CONNECTS, LAYOUT)
        with pytest.raises(RemoteProtocolError, match="does not take part"):
            pair.deliver(Side.CONNECTS)


@settings(max_examples=80, derandomize=True)
@given(st.data())
def test_messages_may_cross_in_any_order(data: st.DataObject) -> None:
    """Both sides say what they may, at any time; the link keeps each side's order, as ZeroMQ does."""
    pair = Pair(data.draw(st.sampled_from(Link)))
    for _ in range(data.draw(st.integers(0, 30))):
        side = data.draw(st.sampled_from(Side))
        if pair.under_way[side] and data.draw(st.booleans()):
            pair.deliver(side)
            continue
        session = pair.ends[side]
        turns = TRANSITIONS[session.link][session.state]
        legal = [cls for cls in turns if speaker(cls) is side and cls is not m.Refuse]
        if 0 not in session.layouts:
            legal = [cls for cls in legal if cls not in (m.Publish, m.PublishLent, m.PublishEncoded)]
        if legal:
            cls = data.draw(st.sampled_from(sorted(legal, key=lambda cls: cls.__name__)))
            pair.send(side, EXAMPLE[cls])
    pair.settle()
    assert pair.ends[Side.CONNECTS].state is pair.ends[Side.LISTENS].state
    assert pair.ends[Side.CONNECTS].layouts == pair.ends[Side.LISTENS].layouts


@settings(max_examples=60, derandomize=True)
@given(st.data())
def test_a_link_that_loses_doubles_and_reorders_gives_messages_or_remote_protocol_error(data: st.DataObject) -> None:
    pair = Pair(Link.RANK_NODE)
    for message in (EXAMPLE[m.Attach], LAYOUT, *[m.Publish(k, k, 0.5, 0, BUFFERS) for k in range(5)], m.Detach(5)):
        pair.send(Side.CONNECTS, message)
    queue = pair.under_way[Side.CONNECTS]
    arrived: list[m.Message] = []
    while queue:
        at = data.draw(st.integers(0, len(queue) - 1))
        match data.draw(st.sampled_from(["deliver", "drop", "double"])):
            case "drop":
                pair.drop(Side.CONNECTS, at)
            case "double" if len(queue) < 12:
                pair.double(Side.CONNECTS, at)
            case _:
                try:
                    arrived.append(pair.deliver(Side.CONNECTS, at))
                except RemoteProtocolError:
                    continue
    kinds = [type(message) for message in arrived]
    assert kinds[:1] in ([], [m.Attach])
    assert kinds.count(m.Detach) <= 1
    assert m.Publish not in kinds or m.Layout in kinds[: kinds.index(m.Publish)]


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_frames_leave_a_session_as_it_was(name: str) -> None:
    for link in Link:
        pair = admitted(link)
        for session in pair.ends.values():
            with pytest.raises(RemoteProtocolError):
                session.receive(MALFORMED[name])
            assert session.state is State.OPEN
        pair.send(Side.LISTENS, m.Refuse("enough"))
        pair.settle()


@pytest.mark.parametrize("link", Link)
def test_insane_messages_pass_a_session_or_are_refused(link: Link) -> None:
    session = admitted(link).ends[Side.LISTENS]
    for message in INSANE[link].values():
        session.receive(frames_of(message))


class TestLayouts:
    def test_a_step_needs_a_layout(self) -> None:
        pair = admitted(Link.RANK_NODE)
        publish = m.Publish(0, 0, 0.0, 5, ())
        with pytest.raises(LocalProtocolError, match="layout 5 was not announced"):
            pair.send(Side.CONNECTS, publish)
        with pytest.raises(RemoteProtocolError, match="layout 5 was not announced"):
            pair.ends[Side.LISTENS].receive(frames_of(publish))

    def test_a_step_has_a_buffer_for_each_block(self) -> None:
        pair = admitted(Link.RANK_NODE)
        pair.send(Side.CONNECTS, LAYOUT)
        pair.settle()
        publish = m.Publish(0, 0, 0.0, 0, BUFFERS[:2])
        with pytest.raises(LocalProtocolError, match="has 3 blocks, not 2"):
            pair.send(Side.CONNECTS, publish)
        with pytest.raises(RemoteProtocolError, match="has 3 blocks, not 2"):
            pair.ends[Side.LISTENS].receive(frames_of(publish))

    def test_a_layout_may_be_said_again_but_not_otherwise(self) -> None:
        pair = admitted(Link.RANK_CONTROLLER)
        pair.send(Side.CONNECTS, LAYOUT)
        pair.send(Side.CONNECTS, LAYOUT)
        pair.settle()
        with pytest.raises(LocalProtocolError, match="layout 0 was announced with other blocks"):
            pair.send(Side.CONNECTS, m.Layout(0, ()))
        with pytest.raises(RemoteProtocolError, match="layout 0 was announced with other blocks"):
            pair.ends[Side.LISTENS].receive(frames_of(m.Layout(0, ())))

    def test_a_session_remembers_only_so_many_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wire_session, "SESSION_BLOCKS", 10)
        pair = admitted(Link.RANK_CONTROLLER)
        for number in (1, 2):
            pair.send(Side.CONNECTS, m.Layout(number, LAYOUT.blocks))
        pair.settle()
        with pytest.raises(LocalProtocolError, match="more than 10 blocks"):
            pair.send(Side.CONNECTS, m.Layout(3, LAYOUT.blocks))
        with pytest.raises(RemoteProtocolError, match="more than 10 blocks"):
            pair.ends[Side.LISTENS].receive(frames_of(m.Layout(3, LAYOUT.blocks)))


class TestBlocks:
    def publish(self, *buffers: m.Buffer) -> m.Publish:
        return m.Publish(0, 0, 0.0, 0, buffers)

    def test_blocks_are_the_ranks_arrays(self) -> None:
        pair = admitted(Link.RANK_NODE)
        pair.send(Side.CONNECTS, LAYOUT)
        pair.send(Side.CONNECTS, self.publish(*BUFFERS))
        pair.settle()
        publish = pair.received[Side.LISTENS][-1]
        assert isinstance(publish, m.Publish)
        blocks = pair.ends[Side.LISTENS].blocks_of(publish)
        for block, spec, array in zip(blocks, LAYOUT.blocks, BUFFERS, strict=True):
            assert block.variable == spec.variable
            assert block.start == spec.start
            assert block.data.dtype == array.dtype
            assert np.array_equal(block.data, array)
            assert block.data.flags.c_contiguous
            assert not block.data.flags.writeable

    def test_no_copy_is_made_of_what_is_aligned(self) -> None:
        raw = np.arange(12.0)
        layout = m.Layout(0, LAYOUT.blocks[:1])
        (block,) = blocks_of(self.publish(memoryview(raw).cast("B").toreadonly()), layout)
        assert np.shares_memory(block.data, raw)

    def test_what_is_not_aligned_is_copied(self) -> None:
        raw = np.zeros(97, np.uint8)
        raw[1:] = np.arange(12.0).view(np.uint8)
        (block,) = blocks_of(self.publish(raw[1:].data), m.Layout(0, LAYOUT.blocks[:1]))
        assert block.data.flags.aligned
        assert not block.data.flags.writeable
        assert np.array_equal(block.data, np.arange(12.0).reshape(2, 6))

    @pytest.mark.parametrize("rows", [0, 1, 7])
    def test_a_joined_block_has_as_many_rows_as_came(self, rows: int) -> None:
        (block,) = blocks_of(self.publish(np.ones((rows, 3), np.float32)), m.Layout(0, LAYOUT.blocks[1:2]))
        assert block.count == (rows, 3)

    @pytest.mark.parametrize("count", [(0, 6), (2, 0), (0, 0)])
    def test_an_empty_block_is_legal(self, count: tuple[int, int]) -> None:
        spec = m.BlockSpec(LAYOUT.blocks[0].variable, (0, 0), count)
        (block,) = blocks_of(self.publish(b""), m.Layout(0, (spec,)))
        assert block.count == count

    def test_rows_of_no_bytes_are_none(self) -> None:
        variable = Variable("p", np.dtype("f8"), None, ("atom", "axis"), row=(0,))
        (block,) = blocks_of(self.publish(b""), m.Layout(0, (m.BlockSpec(variable, (0, 0), (0, 0)),)))
        assert block.count == (0, 0)

    @pytest.mark.parametrize("name", WRONG_BUFFERS)
    def test_a_buffer_of_a_wrong_size_is_the_peers_fault(self, name: str) -> None:
        layout, publish = WRONG_BUFFERS[name]
        received = decode(frames_of(publish))
        assert isinstance(received, m.Publish)
        with pytest.raises(RemoteProtocolError, match=r"Publish.buffers: '[Tv]' has \d+ bytes, not "):
            blocks_of(received, layout)


def test_the_examples_can_be_said_in_a_row() -> None:
    """What the docs' table of messages says, as one conversation per link."""
    for link in Link:
        states = [State.NEW]
        pair = Pair(link)
        path = {
            Link.RANK_CONTROLLER: [
                *(m.Hello, m.Welcome, m.Layout, w.Declare, m.Dropped, m.Status, w.Propose, w.Reached, w.Answer),
                *(w.Decide, m.Commit, w.Standing, m.Bye, m.Ping),
            ],
            Link.RANK_NODE: [m.Attach, m.Credit, m.Layout, m.Publish, m.Ship, m.Ack, m.Detach, m.Ack],
            Link.NODE_CONTROLLER: [
                *(m.NodeHello, m.Status, m.NodeWelcome, m.Feed, m.Closed, m.Commit, m.Partial, m.Held, m.Finish),
                *(m.Event, m.Finished, m.Shutdown, m.Status),
            ],
            Link.CONSOLE_CONTROLLER: [
                *(w.ConsoleHello, w.ConsoleWelcome, w.Steerable, w.Request, w.Settled, w.Follow, w.Shown),
                *(w.Paused, m.Ping, w.Leave, w.Settled),
            ],
            Link.VIEWER_CONTROLLER: [v.Watch, v.Watching, v.Ask, v.News, v.Look, v.Sight, m.Shutdown, v.Ask],
            Link.LEARNER_CONTROLLER: [n.LearnerHello, m.Ping, n.Sources, m.Partial, m.Finished, m.Shutdown, m.Status],
            Link.LEARNER_NODE: [n.Subscribe, n.Lesson, n.Learned, n.Lesson, m.Finish, n.Learned],
        }[link]
        for cls in path:
            pair.send(speaker(cls), EXAMPLE[cls])
            pair.settle()
            states.append(pair.ends[Side.LISTENS].state)
        order = list(State)
        assert all(order.index(one) <= order.index(other) for one, other in pairwise(states))
        assert states[-1] is State.ENDING
