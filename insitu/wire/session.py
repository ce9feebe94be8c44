# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: one session for each end of each link, without a socket and without a clock.

Rule 1: the transitions are the table below and nothing else. ``docs/wire-states.md`` is drawn from it.

Rule 2: a session holds what both ends know, so the same table serves both: a message that one may not send, the other
may not receive. The sender is told by `LocalProtocolError`, the receiver by `RemoteProtocolError`.

Rule 3: messages cross on the way, so no transition depends on which of two sides speaks first. In each state only one
side can move the link on (to refuse is the exception), and what was under way when a side said its last word is legal.
"""

from collections.abc import Sequence
from enum import Enum, auto
from math import prod
from typing import Any, cast

import numpy as np

from insitu.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from insitu.model import Array, Block, Extent
from insitu.wire import learning as n
from insitu.wire import messages as m
from insitu.wire import steering as w
from insitu.wire import tracing as t
from insitu.wire import viewing as v
from insitu.wire.blocks import BlockSpec
from insitu.wire.codec import Frame, decode, encode, kind
from insitu.wire.compression import expand
from insitu.wire.limits import SESSION_BLOCKS
from insitu.wire.messages import Buffer, Layout, Message, Publish, PublishEncoded, PublishLent


class Link(Enum):
    """Who is linked: the connecting side first."""

    RANK_CONTROLLER = "rank to controller"
    RANK_NODE = "rank to staging node"
    NODE_CONTROLLER = "staging node to controller"
    CONSOLE_CONTROLLER = "console to controller"
    VIEWER_CONTROLLER = "viewer to controller"
    LEARNER_CONTROLLER = "learner to controller"
    LEARNER_NODE = "learner to staging node"


class Side(Enum):
    """Which end of the link this is."""

    CONNECTS = auto()
    LISTENS = auto()


class State(Enum):
    """How far a link has come."""

    NEW = "nothing was said"
    ASKED = "the connecting side asked to take part"
    OPEN = "both sides speak"
    ENDING = "one side has said its last word"
    REFUSED = "the listening side does not take part"


Transitions = dict[type, State]


def _stays(state: State, *classes: type) -> Transitions:
    return dict.fromkeys(classes, state)


_REFUSED: Transitions = {m.Refuse: State.REFUSED}
_TO_RANK = (m.Ping, m.Skip, m.NodeGone, m.Replan, w.Propose, w.Decide, m.Commit)
_FROM_NODE = (
    *(m.Closed, m.Fed, m.Partial, m.Held, m.Event, m.Status, m.Finished, v.Glimpse),
    *(t.TracedWindow, t.Spans),
)
_FROM_LEARNER = (m.Partial, m.Event, m.Status, m.Finished, n.Join)
_TO_CONSOLE = (m.Ping, w.Steerable, w.Settled, w.Paused, w.Shown, w.Scaled)

#: What may be said in which state, and which state follows.
TRANSITIONS: dict[Link, dict[State, Transitions]] = {
    Link.RANK_CONTROLLER: {
        State.NEW: {m.Hello: State.ASKED} | _REFUSED,
        State.ASKED: {m.Welcome: State.OPEN} | _REFUSED,
        State.OPEN: _stays(
            State.OPEN,
            m.Offer,
            m.Layout,
            w.Declare,
            m.Dropped,
            w.Reached,
            w.Answer,
            w.Standing,
            m.Event,
            m.Status,
            m.Tally,
            m.Adopted,
            t.Spans,
            *_TO_RANK,
        )
        | {m.Bye: State.ENDING}
        | _REFUSED,
        State.ENDING: _stays(State.ENDING, *_TO_RANK) | _REFUSED,
        State.REFUSED: {},
    },
    Link.RANK_NODE: {
        # A rank need not wait for an answer: what it may send is a matter of its credit, which is none at first.
        State.NEW: {m.Attach: State.OPEN} | _REFUSED,
        State.OPEN: _stays(
            State.OPEN,
            *(m.Lend, m.Borrow, m.LendLane, m.BorrowLane),
            *(m.Layout, m.Publish, m.PublishLent, m.PublishEncoded, m.Ship, m.Credit, m.Ack),
            t.Traced,
        )
        | {m.Detach: State.ENDING}
        | _REFUSED,
        State.ENDING: _stays(State.ENDING, m.Borrow, m.BorrowLane, m.Credit, m.Ack) | _REFUSED,
        State.REFUSED: {},
    },
    Link.NODE_CONTROLLER: {
        State.NEW: {m.NodeHello: State.ASKED} | _REFUSED,
        State.ASKED: _stays(State.ASKED, m.Event, m.Status) | {m.NodeWelcome: State.OPEN} | _REFUSED,
        State.OPEN: _stays(
            State.OPEN,
            *(*_FROM_NODE, m.Ping, m.Feed, m.Moved, m.Approve, m.Commit, m.Finish, v.Peek, n.Dismiss),
        )
        | {m.Shutdown: State.ENDING}
        | _REFUSED,
        State.ENDING: _stays(State.ENDING, *_FROM_NODE) | _REFUSED,
        State.REFUSED: {},
    },
    Link.CONSOLE_CONTROLLER: {
        State.NEW: {w.ConsoleHello: State.ASKED} | _REFUSED,
        State.ASKED: {w.ConsoleWelcome: State.OPEN} | _REFUSED,
        State.OPEN: _stays(State.OPEN, w.Request, w.Follow, w.Scale, *_TO_CONSOLE) | {w.Leave: State.ENDING} | _REFUSED,
        State.ENDING: _stays(State.ENDING, *_TO_CONSOLE) | _REFUSED,
        State.REFUSED: {},
    },
    Link.VIEWER_CONTROLLER: {
        State.NEW: {v.Watch: State.ASKED} | _REFUSED,
        State.ASKED: {v.Watching: State.OPEN} | _REFUSED,
        State.OPEN: _stays(State.OPEN, m.Ping, v.Ask, v.News, v.Look, v.Sight) | {m.Shutdown: State.ENDING} | _REFUSED,
        State.ENDING: _stays(State.ENDING, v.Ask, v.Look) | _REFUSED,
        State.REFUSED: {},
    },
    Link.LEARNER_CONTROLLER: {
        State.NEW: {n.LearnerHello: State.ASKED} | _REFUSED,
        # Which nodes there are is known when the first rank has said how many of them there are.
        State.ASKED: _stays(State.ASKED, m.Ping, m.Event, m.Status)
        | {n.Sources: State.OPEN, m.Shutdown: State.ENDING}
        | _REFUSED,
        State.OPEN: _stays(State.OPEN, *_FROM_LEARNER, m.Ping, n.Meet) | {m.Shutdown: State.ENDING} | _REFUSED,
        State.ENDING: _stays(State.ENDING, *_FROM_LEARNER) | _REFUSED,
        State.REFUSED: {},
    },
    Link.LEARNER_NODE: {
        State.NEW: {n.Subscribe: State.OPEN} | _REFUSED,
        State.OPEN: _stays(State.OPEN, n.Lesson, n.Learned) | {m.Finish: State.ENDING} | _REFUSED,
        State.ENDING: _stays(State.ENDING, n.Learned) | _REFUSED,
        State.REFUSED: {},
    },
}

#: Who says what, of all links: the listening side these, the connecting side the others.
FROM_LISTENER = frozenset(
    {
        m.Welcome,
        m.Refuse,
        m.Ping,
        m.Skip,
        m.NodeGone,
        m.Replan,
        w.Propose,
        w.Decide,
        m.Borrow,
        m.BorrowLane,
        m.Credit,
        m.Ack,
        m.NodeWelcome,
        m.Feed,
        m.Moved,
        m.Approve,
        m.Commit,
        m.Finish,
        m.Shutdown,
        w.ConsoleWelcome,
        w.Steerable,
        w.Settled,
        w.Paused,
        w.Shown,
        w.Scaled,
        v.Watching,
        v.News,
        v.Sight,
        v.Peek,
        n.Sources,
        n.Lesson,
        n.Dismiss,
        n.Meet,
    }
)

#: What says or names a layout.
_NOTED = frozenset({m.Layout, m.Publish, m.PublishLent, m.PublishEncoded})

_FIRST: dict[type, Link] = {
    m.Hello: Link.RANK_CONTROLLER,
    m.Attach: Link.RANK_NODE,
    m.NodeHello: Link.NODE_CONTROLLER,
    w.ConsoleHello: Link.CONSOLE_CONTROLLER,
    v.Watch: Link.VIEWER_CONTROLLER,
    n.LearnerHello: Link.LEARNER_CONTROLLER,
    n.Subscribe: Link.LEARNER_NODE,
}


def link_of(frames: Sequence[Frame]) -> Link:
    """Return which kind of link a peer's first message opens.

    Raises `RemoteProtocolError` where it is none that opens a link.
    """
    first = kind(frames)
    if first not in _FIRST:
        names = ", ".join(cls.__name__ for cls in _FIRST)
        raise RemoteProtocolError(f"A peer's first message is {first.__name__}, but only one of {names} can be.")
    return _FIRST[first]


class Session:
    """One end of one link: frames in, messages out, and the other way round.

    `layouts` are those that the rank has announced, by id, on whichever end this is. Not safe for threads.

    >>> rank, node = Session(Link.RANK_NODE, Side.CONNECTS), Session(Link.RANK_NODE, Side.LISTENS)
    >>> node.receive(rank.send(m.Attach(m.VERSION, "melt", member=0, rank=3, host="n17", pid=4711)))
    Attach(version=2, run='melt', member=0, rank=3, host='n17', pid=4711)
    >>> rank.send(m.Credit(1 << 30))
    Traceback (most recent call last):
        ...
    insitu.errors.LocalProtocolError: Credit is said by the listening side of the link from rank to staging node.
    """

    def __init__(self, link: Link, side: Side) -> None:
        self.link = link
        self.side = side
        self._other = Side.CONNECTS if side is Side.LISTENS else Side.LISTENS
        self._table = TRANSITIONS[link]
        self.state = State.NEW
        self.layouts: dict[int, Layout] = {}
        self._blocks = 0

    def send(self, message: Message) -> list[Buffer]:
        """Return the frames of a message, and take it as sent.

        Raises `LocalProtocolError` when it is out of turn, or holds what no peer would take; nothing has then changed.
        """
        cls = type(message)
        state = self._state if cls in self._says else self._next(cls, self.side, LocalProtocolError)
        frames = encode(message)
        if cls in _NOTED:
            self._note(message, LocalProtocolError)
        if state is not self._state:
            self.state = state
        return frames

    def receive(self, frames: Sequence[Frame]) -> Message:
        """Return the message that the frames are.

        Raises `RemoteProtocolError` when they are none, or when it is out of turn.
        """
        message = decode(frames)
        cls = type(message)
        state = self._state if cls in self._hears else self._next(cls, self._other, RemoteProtocolError)
        if cls in _NOTED:
            self._note(message, RemoteProtocolError)
        if state is not self._state:
            self.state = state
        return message

    def blocks_of(self, publish: Publish) -> list[Block]:
        """Return the blocks that a message received here brings, by the layout that it names."""
        return blocks_of(publish, self.layouts[publish.layout])

    def decoded(self, publish: PublishEncoded) -> Publish:
        """Return a message received here with its buffers as they were before they were encoded.

        Allocates what its forms say, which is checked against the layout first, and by the caller against the credit.
        Raises `RemoteProtocolError` for what no layout and no codec gives.
        """
        layout = self.layouts[publish.layout]
        counts = [count_of(spec, form.nbytes) for spec, form in zip(layout.blocks, publish.forms, strict=True)]
        parts = zip(layout.blocks, counts, publish.forms, publish.buffers, strict=True)
        buffers = tuple(expand(form, buffer, spec.variable.dtype, count) for spec, count, form, buffer in parts)
        return Publish(publish.sequence, publish.index, publish.time, publish.layout, buffers)

    @property
    def state(self) -> State:
        """How far the link has come."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state = state
        # What leaves the state as it is, by who says it: this is asked for each message, and an enumeration is slow.
        stays = {cls for cls, then in self._table[state].items() if then is state}
        listener, connector = stays & FROM_LISTENER, stays - FROM_LISTENER
        self._says, self._hears = (listener, connector) if self.side is Side.LISTENS else (connector, listener)

    def _next(self, cls: type, side: Side, error: type[ProtocolError]) -> State:
        state = self._table[self._state].get(cls)
        speaker = Side.LISTENS if cls in FROM_LISTENER else Side.CONNECTS
        if state is None:
            raise error(f"{cls.__name__} has no place on the link from {self.link.value} when {self.state.value}.")
        if speaker is not side:
            name = "listening" if speaker is Side.LISTENS else "connecting"
            raise error(f"{cls.__name__} is said by the {name} side of the link from {self.link.value}.")
        return state

    def _note(self, message: Message, error: type[ProtocolError]) -> None:
        if type(message) is Layout:
            self._learn(message, error)
        else:
            self._check(cast("Publish | PublishLent | PublishEncoded", message), error)

    def _check(self, publish: Publish | PublishLent | PublishEncoded, error: type[ProtocolError]) -> None:
        layout = self.layouts.get(publish.layout)
        if layout is None:
            raise error(f"Publish.layout: layout {publish.layout} was not announced; {len(self.layouts)} were.")
        blocks = len(publish.places if isinstance(publish, PublishLent) else publish.buffers)
        if blocks != len(layout.blocks):
            raise error(f"{type(publish).__name__}: layout {layout.id} has {len(layout.blocks)} blocks, not {blocks}.")

    def _learn(self, layout: Layout, error: type[ProtocolError]) -> None:
        known = self.layouts.get(layout.id)
        if known == layout:
            return
        if known is not None:
            raise error(f"Layout.id: layout {layout.id} was announced with other blocks before; take a new number.")
        self._blocks += 1 + len(layout.blocks)
        if self._blocks > SESSION_BLOCKS:
            raise error(
                f"Layout.blocks: more than {SESSION_BLOCKS} blocks in all layouts of one rank; let it keep its part of "
                "each variable for longer."
            )
        self.layouts[layout.id] = layout


def blocks_of(publish: Publish, layout: Layout) -> list[Block]:
    """Return the blocks of a message: read-only views of its buffers, in the order of the layout.

    Raises `RemoteProtocolError` for a buffer that has another size than its block, or not a whole number of rows where
    the variable is joined. Frames below 8 KiB may lie anywhere in memory, and those that are not aligned are copied.
    """
    pairs = zip(layout.blocks, publish.buffers, strict=True)
    return [Block(spec.variable, spec.start, _array(spec, buffer)) for spec, buffer in pairs]


def nbytes_of(buffer: Any) -> int:
    """Return the size of any buffer."""
    return memoryview(buffer).nbytes


def count_of(spec: BlockSpec, nbytes: int) -> Extent:
    """Return the count of a block of so many bytes. Raises `RemoteProtocolError` where it can have none."""
    variable, count = spec.variable, spec.count
    if variable.joined:
        row_bytes = prod(variable.row) * variable.dtype.itemsize
        if nbytes % row_bytes if row_bytes else nbytes:
            raise _wrong_size(spec, nbytes, f"a multiple of its rows of {row_bytes}")
        return (nbytes // row_bytes if row_bytes else 0, *variable.row)
    if nbytes != prod(count) * variable.dtype.itemsize:
        raise _wrong_size(spec, nbytes, f"the {prod(count) * variable.dtype.itemsize} of count {count}")
    return count


def _array(spec: BlockSpec, buffer: Any) -> Array:
    variable, nbytes = spec.variable, nbytes_of(buffer)
    count = count_of(spec, nbytes)
    if nbytes == 0:
        array: Array = np.empty(count, variable.dtype)
    else:
        array = np.frombuffer(buffer, variable.dtype).reshape(count)
        if not array.flags.aligned:
            array = array.copy()
    array.flags.writeable = False
    return array


def _wrong_size(spec: BlockSpec, nbytes: int, expected: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"Publish.buffers: '{spec.variable.name}' has {nbytes} bytes, not {expected}.")
