# SPDX-License-Identifier: Apache-2.0
"""The controller's side of all conversations: admits ranks and staging nodes, and lets steps and windows become whole.

One thread calls `turn` again and again; each call takes in what has arrived and answers it. What has to be decided is
decided elsewhere, without sockets: of steps and windows in the `Stream`, which there is once all is planned.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from insitu.controller.admission import Peer, Terms, require_expected, why_far, why_not
from insitu.controller.consoles import Consoles
from insitu.controller.followers import Followers
from insitu.controller.gather import Rows, Window
from insitu.controller.learners import Learners
from insitu.controller.record import ActionRecord
from insitu.controller.steering import Steering
from insitu.controller.stream import Describe, Stream
from insitu.controller.tracker import Tracker
from insitu.controller.viewers import Viewers
from insitu.errors import RemoteProtocolError
from insitu.learner import Learner
from insitu.operator import Operator
from insitu.steering.actions import Action
from insitu.wire import guard
from insitu.wire.learning import Dismiss, LearnerHello
from insitu.wire.messages import (
    Adopted,
    Bye,
    Closed,
    Dropped,
    Event,
    Fed,
    Finished,
    Held,
    Hello,
    Layout,
    Message,
    NodeHello,
    NodeWelcome,
    Offer,
    Partial,
    Ping,
    Refuse,
    Shutdown,
    Status,
    Tally,
    Welcome,
)
from insitu.wire.session import Link, Session, Side, link_of
from insitu.wire.sockets import Listener, Waker, poll
from insitu.wire.steering import Answer, ConsoleHello, Declare, Reached, Scaled, Standing
from insitu.wire.tracing import Spans, TracedWindow
from insitu.wire.viewing import Glimpse, Peek, Watch

if TYPE_CHECKING:
    from insitu.controller.tracing import Traces  # with OpenTelemetry, which few runs need

#: How long a dead rank's last steps may still be on their way through the staging nodes.
LINGERS_S = 1.0
#: How long ranks are waited for where it matters to the plan on which hosts they are.
PLAN_S = 10.0
#: How often a sign of life is sent to everybody, which also shows who is gone.
PING_S = 2.0


class Service:
    """The controller of one run with `nodes` staging nodes.

    `journal` gets every event with its source, `describe` the variables as soon as there are more of them, `deliver`
    every window and row that is complete, after their variables, and `release` large states that nobody will ask for.
    `record` gets what became of actions; `schedule` are those of an earlier record. `followers` have the results that
    consoles follow. Where nodes record (`records`), none can join or leave. `traces` get what is told of traced steps,
    where any are.
    """

    def __init__(
        self,
        listener: Listener,
        terms: Terms,
        operators: Mapping[str, Operator],
        nodes: int,
        *,
        journal: Callable[[str, Event], None],
        describe: Describe,
        deliver: Callable[[Window | Rows], None],
        release: Callable[[Held], None],
        record: ActionRecord,
        snapshot: Callable[["Service"], dict[str, Any]],
        learners: Mapping[str, Learner] | None = None,
        records: bool = False,
        schedule: Iterable[tuple[int, Action]] = (),
        followers: Followers | None = None,
        traces: "Traces | None" = None,
    ) -> None:
        self.ranks: dict[int, Peer] = {}
        self.nodes: dict[int, Peer] = {}
        self.failed: dict[str, str] = {}
        #: Where the recording has ended early, and why.
        self.unrecorded: dict[str, str] = {}
        self.size: int | None = None
        self.gone: list[int] = []
        self.moved_at = time.monotonic()
        self._listener = listener
        self._terms = terms
        self._operators = operators
        self._expected_nodes = self._wanted = nodes
        self._records = records
        self._learning = set(learners or ())
        self._journal = journal
        self._describe = describe
        self._deliver = deliver
        self._release = release
        self._traces = traces
        self._stream: Stream | None = None
        self._peers: dict[bytes, Peer] = {}
        self._refused: set[bytes] = set()
        self._pinged_at = self._plan_by = 0.0
        self._gone_at: dict[int, float] = {}
        #: The staging nodes that cannot be looked at any more, and since when all steps are whole on the others.
        self._unseen: set[int] = set()
        self._whole_since = 0
        self._waker = Waker()
        self.steering = Steering(terms.steering, self._say, journal, record, schedule, self._waker.wake)
        followers = followers or Followers()
        followers.begin(self._waker.wake)
        self._consoles = Consoles(self.steering, followers, self._send, self._scale)
        self.learners = Learners(learners or {}, send=self._send, deliver=deliver, event=self._event)
        self.viewers = Viewers(terms.run, send=listener.send, peek=self._peek, snapshot=lambda: snapshot(self))

    @property
    def staged(self) -> bool:
        """Whether all staging nodes and learners are there."""
        return len(self.nodes) == self._expected_nodes and self.learners.here

    @property
    def tracker(self) -> Tracker | None:
        """What became of the steps; ``None`` until it is planned who feeds which node."""
        return None if self._stream is None else self._stream.tracker

    @property
    def fed(self) -> list[int]:
        """The staging nodes that any rank feeds."""
        return [] if self._stream is None else self._stream.fed

    @property
    def left(self) -> set[int]:
        """The staging nodes that have left in order."""
        return set() if self._stream is None else self._stream.left

    @property
    def streamed(self) -> bool:
        """Whether every rank has ended and every step is decided."""
        return self._stream is not None and self._stream.tracker.ended

    @property
    def drained(self) -> bool:
        """Whether every staging node and learner that is left has handed over all it has."""
        return self.learners.drained(self.failed) and not (self._stream is not None and self._stream.unfinished)

    @property
    def encrypted(self) -> bool:
        """Whether only those with the run's keys get in."""
        return self._listener.encrypted

    @property
    def refused_clients(self) -> int:
        """How often somebody without them was refused, here or by a staging node."""
        by_nodes = sum(int(node.counters.get("refused_clients", 0)) for node in self.nodes.values())
        return self._listener.refused.total() + by_nodes

    @property
    def lacking(self) -> int:
        """How many staging nodes are missing of those that are wanted, where more could be of use."""
        leaving = set() if self._stream is None else self._stream.leaving
        here = sum(not node.ended for number, node in self.nodes.items() if number not in leaving)
        return 0 if here and self._why_bound() else max(0, self._wanted - here)

    def expect_node(self) -> int:
        """Return the number of a staging node that will ask to take part. May be called by one other thread."""
        self._expected_nodes += 1
        return self._expected_nodes - 1

    def turn(self, timeout_s: float) -> None:
        """Wait for messages, at most `timeout_s`, and answer all that are there."""
        poll([self._listener, self._waker], min(timeout_s, self.viewers.due_s(time.monotonic())))
        self._waker.clear()
        while (arrived := self._listener.receive()) is not None:
            identity, frames = arrived
            if identity in self._refused:
                continue
            try:
                self._receive(identity, frames)
            except RemoteProtocolError as error:
                self._drop_peer(identity, str(error))
        for reason in self._listener.new_refusals():
            self._journal("controller", guard.event(reason))
        self._plan()
        if self._stream is not None:
            self._miss_ranks(self._stream)
            self._stream.decide()
        self.steering.turn(time.monotonic())
        self._consoles.turn()
        self.viewers.answer(time.monotonic())
        if time.monotonic() - self._pinged_at > PING_S:
            self._ping()

    def stop(self, reason: str) -> None:
        """Ask all ranks to end after the same step."""
        self.steering.ask(Action("stop", by="run", why=reason))

    def conclude(self, reason: str, wait: bool) -> None:
        """Nothing more will come from any rank: decide on what is left.

        With `wait`, the staging nodes first say what they have of each rank; the stream has ended when they have. May
        be called again, to wait no longer.
        """
        assert self._stream is not None
        if not self._stream.concluded:
            self._lose_all_ranks(self._stream)
        self._stream.conclude(reason, wait)

    def _lose_all_ranks(self, stream: Stream) -> None:
        self._gone_at.clear()
        for rank in range(stream.size):
            if rank not in self.ranks or not self.ranks[rank].ended:
                self.gone.append(rank)
                self.steering.lose(rank, ended=False)
                stream.end_rank(rank, None)
            if rank in self.ranks:
                self.ranks[rank].ended = True

    def finish(self) -> None:
        """Ask the staging nodes for all that is left."""
        assert self._stream is not None
        self._stream.finish()

    def give_up_nodes(self, reason: str) -> None:
        """Wait no longer for staging nodes that have not handed over all they have."""
        for number in self._stream.unfinished if self._stream is not None else ():
            self._journal(self.nodes[number].name, Event("error", "node-stuck", f"It is given up: {reason}."))
            self.node_gone(number)

    def shut_down(self) -> None:
        """Let everybody go."""
        self.viewers.shut_down()
        self.learners.shut_down()
        for node in self.nodes.values():
            self._send(node, Shutdown())
        self.close()

    def close(self) -> None:
        """Answer what is still asked for, and take no more requests. May be called twice."""
        self.steering.close()
        self._waker.close()

    def rank_gone(self, rank: int) -> None:
        """A rank cannot be reached: unless its goodbye is still on the way, it will publish nothing more."""
        if not self.ranks[rank].ended and self._stream is not None:
            self._gone_at.setdefault(rank, time.monotonic())

    def node_gone(self, node: int) -> None:
        """A staging node is gone, with what it held; others take its parts."""
        peer = self.nodes[node]
        if peer.ended:
            return
        peer.ended = True
        if self._stream is None:
            return
        if node in self.fed:
            for operator in list(self._learning):
                self.fail(operator, f"staging node {node} is gone, and with it a part of every step")
            if self._records:
                self._end_recording(peer)
        self._stream.lose(node)

    def _end_recording(self, peer: Peer) -> None:
        """A node is gone that was to record a part of each step: what follows cannot be replayed."""
        steps = int(peer.counters.get("recorded_steps", 0))
        text = f"the recording ends after about {steps} steps: {peer.name} is gone, which had a part of each"
        self.unrecorded[peer.name] = text
        self._journal("controller", Event("error", "recording-stopped", text, {"node": peer.number}))

    def _why_bound(self) -> str | None:
        """Say why no staging node can join or leave."""
        if self._learning:
            return f"'{min(self._learning)}' learns from each of them"
        if self._records:
            return "each of them records"
        return None if self._stream is None else self._stream.why_fixed()

    def _scale(self, nodes: int) -> Scaled:
        """Go on with so many staging nodes: those with the highest numbers leave, and others are recruited."""
        if self._stream is None:
            return Scaled(self._wanted, "the simulation has not begun")
        if (why := self._why_bound()) is not None:
            return Scaled(self._wanted, why)
        self._wanted = nodes
        self._stream.scale(nodes)
        return Scaled(nodes, "")

    def _receive(self, identity: bytes, frames: list[memoryview]) -> None:
        if identity in self.viewers:
            self.viewers.receive(identity, frames)
            return  # whoever looks at a run does not move it
        peer = self._peers.get(identity)
        if peer is None:
            session = Session(link_of(frames), Side.LISTENS)
            self._admit(identity, session, session.receive(frames))
        else:
            message = peer.session.receive(frames)
            peer.heard_at = time.monotonic()
            self._handle(peer, message)
            if isinstance(message, Status | Tally | Glimpse):
                return  # a node says how it does for as long as it lives, though nothing moves any more
        self.moved_at = time.monotonic()

    def _admit(self, identity: bytes, session: Session, message: Message) -> None:
        match message:
            case Hello() | ConsoleHello():
                reason = why_not(message, self._terms, self.size, self.ranks) or self._why_far(message)
                name = f"rank {message.rank}" if isinstance(message, Hello) else f"console of {message.user}"
                if reason is not None:
                    self._journal(name, Event("error", f"{name.split()[0]}-refused", reason))
                    self._listener.send(identity, session.send(Refuse(reason)))
                    return
                number = message.rank if isinstance(message, Hello) else len(self._peers)
                peer = self._peers[identity] = Peer(identity, session, name, number, message.host, message.pid)
                if isinstance(message, Hello):
                    self.ranks[message.rank] = peer
                    self._join(peer, message.size)
                else:
                    self._consoles.admit(peer, self._terms.run)
            case NodeHello():
                require_expected(message, self._terms.run, self._expected_nodes, self.nodes)
                name = f"staging node {message.node}"
                peer = Peer(
                    identity, session, name, message.node, message.host, message.pid, message.address, message.local
                )
                self._peers[identity] = self.nodes[message.node] = peer
                self._send(peer, NodeWelcome(self._terms.run))
                if self._stream is not None and self._why_bound() is None:
                    self._stream.replan()
                    taken = message.node in self._stream.feeding.needed
                    share = "has a share" if taken else "gets no part: there are too few"
                    text = f"Staging node {message.node} on {message.host} has joined, and {share}."
                    self._journal(name, Event("info", "node-joined", text, {"node": message.node}))
            case LearnerHello(operator=operator):
                self.learners.require_expected(message, self._terms.run)
                peer = Peer(identity, session, f"learner {operator}", len(self._peers), message.host, message.pid)
                self._peers[identity] = peer
                self.learners.admit(peer, operator, message.process)
            case Watch():
                self.viewers.admit(identity, session, message)
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} is said to staging nodes, not to the controller.")

    def _join(self, peer: Peer, size: int) -> None:
        if self.size is None:
            self.size = size
            self._plan_by = time.monotonic() + PLAN_S
        if self._stream is not None:
            self._welcome(peer, self._stream)
        else:
            self._plan()

    def _welcome(self, peer: Peer, stream: Stream) -> None:
        terms, decided = self._terms, self.steering.join(peer.number, stream.size)
        self._send(
            peer,
            Welcome(
                terms.run, stream.feeding.shares(peer.number),
                terms.buffer_bytes, terms.max_wait_s, terms.policy, terms.every, terms.then,
                terms.spill_bytes, terms.spill_directory,
                terms.transport, terms.needs, replace(terms.steering, scheduled=len(decided)), terms.folds, terms.stays,
                terms.trace_seed, terms.trace_every, terms.free,
            ),
        )  # fmt: skip
        stream.catch_up(peer)
        for propose in decided:
            self._send(peer, propose)

    def _why_far(self, hello: Hello | ConsoleHello) -> str | None:
        if isinstance(hello, ConsoleHello):
            return None
        parts = () if self._stream is None else self._stream.feeding.parts(hello.rank)
        return why_far(hello, self._terms, self.nodes, parts)

    def _plan(self) -> None:
        """Decide who feeds which node, and welcome the ranks that wait for that.

        Where nodes are on several hosts it matters which ranks are where: so all of them are waited for, but not for
        long, as each waits for its welcome.
        """
        if self.size is None or self._stream is not None:
            return
        several = len({node.host for node in self.nodes.values()}) > 1
        if several and len(self.ranks) < self.size and time.monotonic() < self._plan_by:
            return
        stream = self._stream = Stream(
            self._terms, self._operators, self.size, self.ranks, self.nodes, self.failed,
            send=self._send, journal=self._journal, describe=self._describe, deliver=self._deliver,
            release=self._release,
        )  # fmt: skip
        stream.begin()
        self.learners.begin({node: self.nodes[node].address for node in stream.fed})
        for rank in self.ranks.values():
            self._welcome(rank, stream)

    def _handle(self, peer: Peer, message: Message) -> None:
        match peer.session.link:
            case Link.RANK_CONTROLLER:
                self._handle_rank(peer, message)
            case Link.CONSOLE_CONTROLLER:
                self._consoles.hear(peer, message)
            case Link.LEARNER_CONTROLLER:
                self.learners.hear(peer, message)
            case _:
                self._handle_node(peer, message)

    def _handle_rank(self, peer: Peer, message: Message) -> None:
        assert self._stream is not None  # a rank says nothing before its welcome
        self._gone_at.pop(peer.number, None)  # its link was broken, and is there again
        match message:
            case Offer() | Layout() | Dropped() | Adopted():
                self._stream.hear_rank(peer, message)
            case Declare() | Reached() | Answer() | Standing():
                self.steering.hear(peer.number, message)
            case Event():
                self._event(peer, message)
            case Status(counters):
                peer.counters = counters
            case Tally(variables):
                peer.traffic = variables
            case Spans(spans) if self._traces is not None:
                self._traces.hear(peer, spans)
            case Bye(steps, counters):
                peer.counters = counters
                peer.ended = True
                self.steering.lose(peer.number, ended=True)
                self._stream.end_rank(peer.number, steps)

    def _handle_node(self, peer: Peer, message: Message) -> None:
        match message:
            case Closed() | Fed() | Partial() | Held() | Finished() if self._stream is not None:
                self._stream.hear_node(peer.number, message)
            case Event():
                self._event(peer, message)
            case Status(counters):
                peer.counters = counters
            case Glimpse():
                self.viewers.glimpse(peer.number, message)
            case TracedWindow() if self._traces is not None:
                self._traces.note(message)
            case Spans(spans) if self._traces is not None:
                self._traces.hear(peer, spans)

    def _peek(self, peek: Peek) -> list[int]:
        """Let the staging nodes show something; return which. No step is whole that others have had parts of."""
        if self._stream is None:
            return []
        nodes = self._stream.unfinished
        if (left := set(self._stream.fed).difference(nodes)) != self._unseen:
            self._unseen, self._whole_since = left, self._stream.tracker.watermark + 1
        for node in nodes:
            self._send(self.nodes[node], replace(peek, begin=self._whole_since))
        return nodes

    def _event(self, peer: Peer, event: Event) -> None:
        self._journal(peer.name, event)
        operator, reason = str(event.details.get("operator")), str(event.details.get("reason", event.text))
        if event.kind == "operator-stopped":
            self.fail(operator, reason)
        elif event.kind in ("learner-restarted", "learner-lost"):
            self._lose_learner(operator, int(event.details.get("process", 0)), event.kind == "learner-lost", reason)
        elif event.kind == "recording-stopped":
            self.unrecorded[peer.name] = event.text

    def _lose_learner(self, operator: str, process: int, for_good: bool, reason: str) -> None:
        """A learner's process has died. The others go on; where there are none, the operator is stopped."""
        if not self.learners.lose(operator, process, for_good=for_good):
            self.fail(operator, reason)
        elif for_good:
            for node in self.nodes.values():
                self._send(node, Dismiss(operator, process))

    def fail(self, operator: str, reason: str) -> None:
        """An operator is stopped: what comes of it from elsewhere is not waited for any more."""
        self.failed.setdefault(operator, reason)
        if self._stream is not None:
            self._stream.fail(operator)
        learns = operator in self._learning
        if learns:
            self._learning.discard(operator)
            self.learners.stop(operator)
        if learns or operator in self._terms.folds:
            for node in self.nodes.values():
                self._send(node, Dismiss(operator))

    def _miss_ranks(self, stream: Stream) -> None:
        """Take for dead whose connection is closed, once its goodbye has had time to come."""
        for rank, gone_at in list(self._gone_at.items()):
            if time.monotonic() - gone_at > LINGERS_S:
                del self._gone_at[rank]
                peer = self.ranks[rank]
                peer.ended = True
                self.gone.append(rank)
                self.steering.lose(rank, ended=False)
                text = f"Rank {rank} is gone: its connection is closed, and it said no goodbye."
                self._journal(peer.name, Event("error", "rank-gone", text))
                stream.end_rank(rank, None)

    def _ping(self) -> None:
        """Send everybody a sign of life; whoever cannot be reached any more is gone."""
        self._pinged_at = time.monotonic()
        for peer in list(self._peers.values()):
            waits = (
                self._stream is None and peer.session.link is Link.RANK_CONTROLLER
            )  # for its welcome, the first word
            if not peer.ended and not waits:
                self._send(peer, Ping())
        self.viewers.ping()

    def _say(self, rank: int, message: Message) -> None:
        self._send(self.ranks[rank], message)

    def _send(self, peer: Peer, message: Message) -> None:
        if peer.ended:
            return
        if not self._listener.send(peer.identity, peer.session.send(message)):
            self._unreachable(peer)

    def _unreachable(self, peer: Peer) -> None:
        match peer.session.link:
            case Link.RANK_CONTROLLER:
                self.rank_gone(peer.number)
            case Link.CONSOLE_CONTROLLER:
                self._consoles.lose(peer)
            case Link.LEARNER_CONTROLLER:
                peer.ended = True  # its staging node starts it anew, or says that the operator is stopped
            case _:
                self.node_gone(peer.number)

    def _drop_peer(self, identity: bytes, reason: str) -> None:
        """Whoever breaks the protocol is not listened to any more; nobody else suffers."""
        self._refused.add(identity)
        self.viewers.forget(identity)
        peer = self._peers.pop(identity, None)
        self._journal(peer.name if peer else "unknown", Event("error", "protocol", reason))
        if peer is not None:
            self._unreachable(peer)
