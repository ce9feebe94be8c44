# SPDX-License-Identifier: Apache-2.0
"""The controller's side of all conversations: admits ranks and staging nodes, and lets steps and windows become whole.

One thread calls `turn` again and again; each call takes in what has arrived and answers it. What has to be decided is
decided elsewhere, without sockets: which steps are whole (`Tracker`), which windows are (`Gather`).
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from insitu.controller.admission import Peer, Terms, require_expected, why_not
from insitu.controller.consoles import Consoles
from insitu.controller.feeding import Feeding
from insitu.controller.followers import Followers
from insitu.controller.gather import Gather, Rows, Window
from insitu.controller.lastwords import LastWords
from insitu.controller.learners import Learners
from insitu.controller.record import ActionRecord
from insitu.controller.steering import Steering
from insitu.controller.tracker import Tracker
from insitu.controller.viewers import Viewers
from insitu.errors import RemoteProtocolError
from insitu.learner import Learner
from insitu.operator import Operator
from insitu.plan import Site
from insitu.steering.actions import Action
from insitu.wire import guard
from insitu.wire.learning import Dismiss, LearnerHello
from insitu.wire.messages import (
    Adopted,
    Bye,
    Closed,
    Commit,
    Counters,
    Dropped,
    Event,
    Fed,
    Finish,
    Finished,
    Held,
    Hello,
    Layout,
    Message,
    NodeGone,
    NodeHello,
    NodeWelcome,
    Offer,
    Partial,
    Ping,
    Refuse,
    Shutdown,
    Skip,
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

#: The one stream that a run has.
MEMBER = 0
#: How long a dead rank's last steps may still be on their way through the staging nodes.
LINGERS_S = 1.0
#: How long ranks are waited for where it matters to the plan on which hosts they are.
PLAN_S = 10.0
#: How often a sign of life is sent to everybody, which also shows who is gone.
PING_S = 2.0


class Service:
    """The controller of one run with `nodes` staging nodes.

    `journal` gets every event with its source, `deliver` every window and row that is complete, and `release` large
    states that nobody will ask for. `record` gets what became of actions; `schedule` are those of an earlier record.
    `followers` have the results that consoles follow. Where nodes record (`records`), none can join or leave.
    `traces` get what is told of traced steps, where any are.
    """

    def __init__(
        self,
        listener: Listener,
        terms: Terms,
        operators: Mapping[str, Operator],
        nodes: int,
        *,
        journal: Callable[[str, Event], None],
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
        self.tracker: Tracker | None = None
        self.gone: list[int] = []
        self.moved_at = time.monotonic()
        self._listener = listener
        self._terms = terms
        self._operators = operators
        self._expected_nodes = self._wanted = nodes
        self._records = records
        #: Staging nodes that are to leave, and those among them that were asked for all they have.
        self._leaving: set[int] = set()
        self._asked: set[int] = set()
        #: Staging nodes that have left in order.
        self.left: set[int] = set()
        self._learning = set(learners or ())
        self._journal = journal
        self._deliver = deliver
        self._release = release
        self._traces = traces
        self._gather: Gather | None = None
        self._feeding: Feeding | None = None
        self._peers: dict[bytes, Peer] = {}
        self._refused: set[bytes] = set()
        self._finished: set[int] = set()
        self._pinged_at = self._plan_by = 0.0
        self._gone_at: dict[int, float] = {}
        self._last_words = LastWords()
        self._concluded = ""
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
    def fed(self) -> list[int]:
        """The staging nodes that any rank feeds."""
        return self._feeding.fed if self._feeding is not None else []

    @property
    def streamed(self) -> bool:
        """Whether every rank has ended and every step is decided."""
        return self.tracker is not None and self.tracker.ended

    @property
    def drained(self) -> bool:
        """Whether every staging node and learner that is left has handed over all it has."""
        return self.learners.drained(self.failed) and all(
            node in self._finished or self.nodes[node].ended for node in self.fed
        )

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
        here = sum(not node.ended for number, node in self.nodes.items() if number not in self._leaving)
        return 0 if here and self._why_bound() else max(0, self._wanted - here)

    def expect_node(self) -> int:
        """Return the number of a staging node that will ask to take part. May be called by one other thread."""
        self._expected_nodes += 1
        return self._expected_nodes - 1

    def turn(self, timeout_s: float) -> None:
        """Wait for messages, at most `timeout_s`, and answer all that are there."""
        poll([self._listener, self._waker], timeout_s)
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
        self._decide()
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
        assert self.tracker is not None
        assert self.size is not None
        if not self._concluded:
            self._concluded = reason
            self._lose_all_ranks(self.size)
        if not wait:
            self._last_words.wait_no_longer()
        self._settle()
        self._decide()

    def _lose_all_ranks(self, size: int) -> None:
        self._gone_at.clear()
        for rank in range(size):
            if rank not in self.ranks or not self.ranks[rank].ended:
                self.gone.append(rank)
                self.steering.lose(rank, ended=False)
                self._rank_ended(rank, None)
            if rank in self.ranks:
                self.ranks[rank].ended = True

    def finish(self) -> None:
        """Ask the staging nodes for all that is left."""
        assert self.tracker is not None
        for node in self.fed:
            self._send(self.nodes[node], Finish(MEMBER, self.tracker.watermark + 1))

    def give_up_nodes(self, reason: str) -> None:
        """Wait no longer for staging nodes that have not handed over all they have."""
        for number in self.fed:
            if number not in self._finished and not self.nodes[number].ended:
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
        if not self.ranks[rank].ended and self.tracker is not None:
            self._gone_at.setdefault(rank, time.monotonic())

    def node_gone(self, node: int) -> None:
        """A staging node is gone, with what it held; others take its parts."""
        peer = self.nodes[node]
        if peer.ended:
            return
        peer.ended = True
        self._leaving.discard(node)
        if self.tracker is not None and self._gather is not None and node in self.fed:
            self.tracker.node_gone(node)
            decided = self.tracker.watermark
            self._last_words.lose(node)
            self._settle()
            for each in self.ranks.values():
                self._send(each, NodeGone(node))
            for operator in list(self._learning):
                self.fail(operator, f"staging node {node} is gone, and with it a part of every step")
            self._hand_over(self._gather.lose(node, decided))
            if self._records:
                self._end_recording(peer)
            self._take_over(node)

    def _end_recording(self, peer: Peer) -> None:
        """A node is gone that was to record a part of each step: what follows cannot be replayed."""
        steps = int(peer.counters.get("recorded_steps", 0))
        text = f"the recording ends after about {steps} steps: {peer.name} is gone, which had a part of each"
        self.unrecorded[peer.name] = text
        self._journal("controller", Event("error", "recording-stopped", text, {"node": peer.number}))

    def _take_over(self, node: int) -> None:
        """Have other staging nodes take the parts of one that is gone, from a step on that has not begun."""
        assert self._feeding is not None
        why = self._why_fixed()
        if why is None and node in self._feeding.needed:
            self._replan()
        what = f"every step from now on is dropped: {why}" if why else "others take its part as soon as all ranks can"
        text = f"Staging node {node} is gone; {what}."
        self._journal("controller", Event("error", "node-gone", text, {"node": node}))

    def _why_fixed(self) -> str | None:
        """Say why no part can go to another staging node."""
        if self._terms.folds or self._terms.at_home:
            name = (*self._terms.folds, *self._terms.at_home)[0]
            return f"'{name}' folds where it does (where: {'rank' if self._terms.folds else 'node'})"
        if self._feeding is not None and self._feeding.over:
            return "the simulation has ended"
        return None if any(not node.ended for node in self.nodes.values()) else "no other is left"

    def _why_bound(self) -> str | None:
        """Say why no staging node can join or leave."""
        if self._learning:
            return f"'{min(self._learning)}' learns from each of them"
        return "each of them records" if self._records else self._why_fixed()

    def _scale(self, nodes: int) -> Scaled:
        """Go on with so many staging nodes: those with the highest numbers leave, and others are recruited."""
        why = self._why_bound() if self._feeding is not None else "the simulation has not begun"
        if why is not None:
            return Scaled(self._wanted, why)
        self._wanted = nodes
        here = [number for number, node in sorted(self.nodes.items()) if not node.ended]
        self._leaving.update(here[nodes:])
        self._leaving.difference_update(set(here[:nodes]) - self._asked)
        self._replan()
        return Scaled(nodes, "")

    def _let_go(self) -> None:
        """Ask nodes that leave for all that they have, once no undecided step has a part there; let the others go."""
        assert self._feeding is not None
        assert self.tracker is not None
        assert self._gather is not None
        if self._feeding.waiting or self.tracker.watermark < self._feeding.since - 1:
            return
        for node in sorted(self._leaving - self._asked):
            self._asked.add(node)
            self._gather.leave(node)
            if node in self.fed:
                self._send(self.nodes[node], Finish(MEMBER, -1))
            else:
                self._depart(node)

    def _depart(self, node: int) -> None:
        """A node has left: ranks need not wait for its last word."""
        assert self._gather is not None
        self._send(self.nodes[node], Shutdown())
        self.nodes[node].ended = True
        self._leaving.discard(node)
        self.left.add(node)
        for each in self.ranks.values():
            self._send(each, NodeGone(node))
        self._hand_over(self._gather.left(node))
        self._journal("controller", Event("info", "node-left", f"Staging node {node} has left.", {"node": node}))

    def _replan(self) -> None:
        """Make the plan of the nodes that are there, and have the ranks adopt it."""
        assert self._feeding is not None
        assert self.tracker is not None
        begin = self.tracker.watermark + 1
        adopting = self._feeding.replan(begin, self._leaving)
        for rank in adopting:
            if rank not in self.ranks:  # it has published nothing, and is welcomed by the newest plan
                self._adopt(rank, Adopted(self._feeding.epoch, begin))

    def _adopt(self, rank: int, adopted: Adopted) -> None:
        """A rank goes by a newer plan; once all do, the plan holds."""
        assert self._feeding is not None
        assert self.tracker is not None
        nodes = self._feeding.adopt(rank, adopted)
        if nodes is None:
            raise RemoteProtocolError(f"Rank {rank} goes by plan {adopted.epoch}, which it was not sent.")
        assert self._gather is not None
        for node in nodes:
            self._gather.join(node, max(adopted.sequence, self.tracker.watermark + 1))
        self.tracker.adopt(rank, adopted.sequence, nodes)
        if adopted.epoch == self._feeding.epoch and not self._feeding.waiting:
            since, to = self._feeding.since, self._feeding.needed
            text = f"From sequence {since} on staging nodes {', '.join(map(str, to))} have all parts of the domain."
            self._journal("controller", Event("info", "replanned", text, {"sequence": since, "nodes": to}))

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
                reason = why_not(message, self._terms, self.size, self.ranks) or self._far_from_nodes(message)
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
                if self._feeding is not None and self._why_bound() is None:
                    self._replan()
                    share = "has a share" if message.node in self._feeding.needed else "gets no part: there are too few"
                    text = f"Staging node {message.node} on {message.host} has joined, and {share}."
                    self._journal(name, Event("info", "node-joined", text, {"node": message.node}))
            case LearnerHello(operator=operator):
                self.learners.require_expected(message, self._terms.run)
                peer = Peer(identity, session, f"learner {operator}", len(self._peers), message.host, message.pid)
                self._peers[identity] = peer
                self.learners.admit(peer, operator, message.process)
            case Watch():
                self.viewers.admit(identity, session, message)

    def _join(self, peer: Peer, size: int) -> None:
        if self.size is None:
            self.size = size
            self._plan_by = time.monotonic() + PLAN_S
        if self.tracker is not None:
            self._welcome(peer, size)
        else:
            self._plan()

    def _welcome(self, peer: Peer, size: int) -> None:
        assert self._feeding is not None
        terms, decided = self._terms, self.steering.join(peer.number, size)
        self._send(
            peer,
            Welcome(
                terms.run, self._feeding.shares(peer.number),
                terms.buffer_bytes, terms.max_wait_s, terms.policy, terms.every, terms.then,
                terms.spill_bytes, terms.spill_directory,
                terms.transport, terms.needs, replace(terms.steering, scheduled=len(decided)), terms.folds, terms.stays,
                terms.trace_seed, terms.trace_every,
            ),
        )  # fmt: skip
        if terms.folds and self.tracker is not None and self.tracker.watermark >= 0:
            # No step can be whole without this rank: what is decided was dropped.
            upto = self.tracker.watermark
            self._send(peer, Commit(MEMBER, upto, (), tuple(range(upto + 1))))
        for propose in decided:
            self._send(peer, propose)
        for part in self._feeding.parts(peer.number):
            if self.nodes[part.node].ended:
                self._send(peer, NodeGone(part.node))

    def _far_from_nodes(self, hello: Hello | ConsoleHello) -> str | None:
        """Say why a rank cannot take part where operators fold on the ranks' own machines."""
        if not self._terms.at_home or isinstance(hello, ConsoleHello):
            return None
        hosts = sorted({node.host for node in self.nodes.values()})
        parts = self._feeding.parts(hello.rank) if self._feeding is not None else []
        if hello.host in hosts and all(self.nodes[part.node].host == hello.host for part in parts):
            return None
        why = "came too late to be given one" if hello.host in hosts else f"has none on {hello.host}"
        return (
            f"'{self._terms.at_home[0]}' folds on a staging node of the rank's own machine (where: node), and rank "
            f"{hello.rank} {why} (there are some on {', '.join(hosts)}); start a Dask worker on each machine, with as "
            "many staging.nodes, or take where: staging"
        )

    def _site(self, peer: Peer | None) -> Site:
        """Where a peer runs; of one that is not there yet nobody knows."""
        return Site("") if peer is None else Site(peer.host, self._terms.rack_of(peer.host))

    def _plan(self) -> None:
        """Decide who feeds which node, and welcome the ranks that wait for that.

        Where nodes are on several hosts it matters which ranks are where: so all of them are waited for, but not for
        long, as each waits for its welcome.
        """
        if self.size is None or self.tracker is not None:
            return
        several = len({node.host for node in self.nodes.values()}) > 1
        if several and len(self.ranks) < self.size and time.monotonic() < self._plan_by:
            return
        self._begin(self.size)
        for rank in self.ranks.values():
            self._welcome(rank, self.size)

    def _begin(self, size: int) -> None:
        """Decide who feeds which node, by where they are."""
        sites = [self._site(self.ranks.get(rank)) for rank in range(size)]
        feeding = self._feeding = Feeding(MEMBER, sites, self.ranks, self.nodes, self._site, self._send)
        self.tracker = Tracker(MEMBER, feeding.routes)
        self._gather = Gather(self._operators, self.fed, feeding.homes if self._terms.folds else None)
        feeding.begin(ships=bool(self._terms.folds))
        self.learners.begin({node: self.nodes[node].address for node in self.fed})

    def _rank_ended(self, rank: int, steps: int | None) -> None:
        """No later step of any rank can be whole: the staging nodes need not wait for this rank's part of them.

        After how many `steps` a rank ended that said no goodbye, the staging nodes tell when they answer.
        """
        assert self.tracker is not None
        assert self._feeding is not None
        if steps is not None:
            self.tracker.rank_ended(rank, steps)
        else:
            self._last_words.ask(rank, (node for node in self._feeding.routes[rank] if not self.nodes[node].ended))
        self._settle()
        self._feeding.end(rank)

    def _settle(self) -> None:
        """End the ranks of which it is known how far they came; where nothing more will come, that is all."""
        assert self.tracker is not None
        for rank, newest in self._last_words.take():
            self.tracker.rank_ended(rank, (self.tracker.watermark if newest is None else newest) + 1)
        if self._concluded and not self._last_words.awaited:
            self.tracker.give_up(self._concluded)

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
        assert self.tracker is not None
        self._gone_at.pop(peer.number, None)  # its link was broken, and is there again
        match message:
            case Offer(variable):
                self.tracker.offer(variable)
            case Layout():
                self.tracker.layout(peer.number, message)
            case Dropped():
                self._dropped(peer, message, self.tracker)
            case Declare() | Reached() | Answer() | Standing():
                self.steering.hear(peer.number, message)
            case Event():
                self._event(peer, message)
            case Status(counters):
                peer.counters = counters
            case Tally(variables):
                peer.traffic = variables
            case Adopted():
                self._adopt(peer.number, message)
            case Spans(spans) if self._traces is not None:
                self._traces.hear(peer, spans)
            case Bye(steps, counters):
                self._bye(peer, steps, counters)

    def _dropped(self, peer: Peer, message: Dropped, tracker: Tracker) -> None:
        """The first rank that drops a step drops it for all, which need not spend room and time on it."""
        if tracker.drop(message.sequence, message.reason):
            for other in self.ranks.values():
                if other is not peer:
                    self._send(other, Skip((message.sequence,)))

    def _handle_node(self, peer: Peer, message: Message) -> None:
        match message:
            case Closed() if self.tracker is not None:
                self.tracker.closed(peer.number, message)
            case Fed(_, newest):
                self._fed(peer.number, newest)
            case Partial() if self._gather is not None:
                self._hand_over(self._gather.partial(peer.number, message))
            case Held() if message.operator in self.failed:
                self._release(message)
            case Held() if self._gather is not None:
                self._hand_over(self._gather.held(peer.number, message))
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
            case Finished() if peer.number in self._leaving:
                self._depart(peer.number)
            case Finished():
                self._finished.add(peer.number)
                if self._finished.issuperset(node for node in self.fed if not self.nodes[node].ended):
                    self._abandon()

    def _fed(self, node: int, newest: Iterable[tuple[int, int]]) -> None:
        """A staging node says how far it was fed by ranks that are gone."""
        assert self._feeding is not None
        for rank, sequence in newest:
            if self._last_words.asked(rank, node):
                self._last_words.hear(rank, node, self._feeding.published(rank, sequence))
        self._settle()

    def _abandon(self) -> None:
        """Take windows as they are, and let go of those that no node will make whole any more."""
        self._hand_over(self._gather.conclude() if self._gather else [])
        for operator, window, held in self._gather.abandon() if self._gather else []:
            text = f"Window {window} of operator '{operator}' is lost: not all staging nodes have the states of it."
            self._journal("controller", Event("error", "states-lost", text, {"operator": operator, "window": window}))
            for each in held:
                self._release(each)
        for operator, steps in self._gather.lost_steps.items() if self._gather else ():
            text = f"{steps} steps of operator '{operator}' yield nothing: their states were lost with a staging node."
            self._journal("controller", Event("error", "states-lost", text, {"operator": operator, "steps": steps}))

    def _peek(self, peek: Peek) -> list[int]:
        """Ask the staging nodes for a picture; return which."""
        nodes = [node for node in self.fed if not self.nodes[node].ended and node not in self._finished]
        for node in nodes:
            self._send(self.nodes[node], peek)
        return nodes

    def _hand_over(self, complete: Iterable[Window | Rows]) -> None:
        assert self.tracker is not None
        self._decide()  # a node that commits by itself says in the same breath what it closed and what came of it
        for done in complete:
            self._deliver(done)

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
        for held in self._gather.fail(operator) if self._gather else []:
            self._release(held)
        learns = operator in self._learning
        if learns:
            self._learning.discard(operator)
            self.learners.stop(operator)
        if learns or operator in self._terms.folds:
            for node in self.nodes.values():
                self._send(node, Dismiss(operator))

    def _bye(self, peer: Peer, steps: int, counters: Counters) -> None:
        assert self.tracker is not None
        peer.counters = counters
        peer.ended = True
        self.steering.lose(peer.number, ended=True)
        self._rank_ended(peer.number, steps)

    def _decide(self) -> None:
        if self.tracker is None:
            return
        self._miss_ranks()
        commit: Commit | None = self.tracker.decide()
        for node, approval in self.tracker.take_approvals():
            self._send(self.nodes[node], approval)  # first, so that what is approved is known to be folded
        if commit is not None:
            for node in set(self.fed) - self._asked:
                self._send(self.nodes[node], commit)
            for rank in self.ranks.values() if self._terms.folds else ():
                self._send(rank, commit)
        if self._leaving:
            self._let_go()
        for event in self.tracker.take_events():
            self._journal("controller", event)

    def _miss_ranks(self) -> None:
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
                self._rank_ended(rank, None)

    def _ping(self) -> None:
        """Send everybody a sign of life; whoever cannot be reached any more is gone."""
        self._pinged_at = time.monotonic()
        for peer in list(self._peers.values()):
            if not peer.ended:
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
