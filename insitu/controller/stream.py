# SPDX-License-Identifier: Apache-2.0
"""The stream of one simulation: its steps and windows, from the moment when it is planned who feeds which node.

Which steps are whole is for `Tracker` to say, which windows are for `Gather`, and who feeds which node for `Feeding`.
Here they are put together: what a message of a rank or a staging node means for them, and who else has to hear of it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from insitu.controller.admission import Peer, Terms
from insitu.controller.feeding import Feeding, Send
from insitu.controller.gather import Gather, Rows, Window
from insitu.controller.lastwords import LastWords
from insitu.controller.tracker import Tracker
from insitu.errors import RemoteProtocolError
from insitu.model import Variable
from insitu.operator import Operator
from insitu.plan import Site
from insitu.wire.messages import (
    Adopted,
    Closed,
    Commit,
    Dropped,
    Event,
    Fed,
    Finish,
    Finished,
    Held,
    Layout,
    NodeGone,
    Offer,
    Partial,
    Shutdown,
    Skip,
)

#: The one stream that a run has.
MEMBER = 0

#: Is told of the variables that ranks put so far, as they put them and as they came whole.
Describe = Callable[[Mapping[str, Variable], Mapping[str, Variable]], None]

#: What ranks and staging nodes say about the stream.
FromRank = Offer | Layout | Dropped | Adopted
FromNode = Closed | Fed | Partial | Held | Finished


class Stream:
    """The stream of `size` ranks. `ranks` and `nodes` are the peers, as far as they are there.

    The first plan is that of the nodes that are there, by where the ranks are of which that is known; `begin` tells it.
    Of the operators `stopped` nothing is delivered. `journal`, `describe`, `deliver` and `release` are those of the
    `Service`.
    """

    def __init__(
        self,
        terms: Terms,
        operators: Mapping[str, Operator],
        size: int,
        ranks: Mapping[int, Peer],
        nodes: Mapping[int, Peer],
        stopped: Collection[str],
        *,
        send: Send,
        journal: Callable[[str, Event], None],
        describe: Describe,
        deliver: Callable[[Window | Rows], None],
        release: Callable[[Held], None],
    ) -> None:
        sites = [terms.site_of(ranks[rank].host) if rank in ranks else Site("") for rank in range(size)]
        self.feeding = Feeding(MEMBER, sites, ranks, nodes, lambda peer: terms.site_of(peer.host), send)
        self.tracker = Tracker(MEMBER, self.feeding.routes)
        self.size = size
        #: Staging nodes that are to leave, those among them that were asked for all they have, and that have left.
        self.leaving: set[int] = set()
        self._asked: set[int] = set()
        self.left: set[int] = set()
        self._terms = terms
        self._ranks = ranks
        self._nodes = nodes
        self._stopped = stopped
        self._send = send
        self._journal = journal
        self._describe = describe
        self._deliver = deliver
        self._release = release
        self._gather = Gather(operators, self.fed, self.feeding.homes if terms.folds else None)
        self._last_words = LastWords()
        self._described = 0
        #: Why no rank will say anything more; empty while they may.
        self.concluded = ""
        self._finished: set[int] = set()

    @property
    def fed(self) -> list[int]:
        """The staging nodes that any rank feeds, has fed or is going to."""
        return self.feeding.fed

    @property
    def unfinished(self) -> list[int]:
        """The staging nodes that are there and have not handed over all they have."""
        return [node for node in self.fed if node not in self._finished and not self._nodes[node].ended]

    def begin(self) -> None:
        """Tell the staging nodes who feeds them."""
        self.feeding.begin(ships=bool(self._terms.folds))

    def hear_rank(self, peer: Peer, message: FromRank) -> None:
        """Take in what a rank says. Raises `RemoteProtocolError` for a plan that it cannot know."""
        match message:
            case Offer(variable):
                self.tracker.offer(variable)
            case Layout():
                self.tracker.layout(peer.number, message)
            case Dropped():
                self._drop(peer, message)
            case Adopted():
                self._adopt(peer.number, message)

    def hear_node(self, node: int, message: FromNode) -> None:
        """Take in what a staging node says."""
        match message:
            case Closed():
                self.tracker.closed(node, message)
            case Fed(_, newest):
                self._end_by_word(node, newest)
            case Partial():
                self._hand_over(self._gather.partial(node, message))
            case Held() if message.operator in self._stopped:
                self._release(message)
            case Held():
                self._hand_over(self._gather.held(node, message))
            case Finished() if node in self.leaving:
                self._depart(node)
            case Finished():
                self._finished.add(node)
                if not self.unfinished:
                    self._abandon()

    def catch_up(self, peer: Peer) -> None:
        """Tell a rank that comes now what is decided already, and which of its nodes are gone."""
        upto = self.tracker.watermark
        if self._terms.folds and upto >= 0:
            # No step can be whole without this rank: what is decided was dropped.
            self._send(peer, Commit(MEMBER, upto, (), tuple(range(upto + 1))))
        for part in self.feeding.parts(peer.number):
            if self._nodes[part.node].ended:
                self._send(peer, NodeGone(part.node))

    def end_rank(self, rank: int, steps: int | None) -> None:
        """No later step of any rank can be whole: the staging nodes need not wait for this rank's part of them.

        After how many `steps` a rank ended that said no goodbye (``None``), the staging nodes tell when they answer.
        """
        if steps is not None:
            self.tracker.rank_ended(rank, steps)
        else:
            if rank in self._ranks:
                self.tracker.said(self._ranks[rank].published)
            self._last_words.ask(rank, (node for node in self.feeding.routes[rank] if not self._nodes[node].ended))
        self._settle()
        self.feeding.end(rank)

    def conclude(self, reason: str, wait: bool) -> None:
        """All ranks have ended, one way or another: decide on what is left, as `Service.conclude` says."""
        self.concluded = self.concluded or reason
        if not wait:
            self._last_words.wait_no_longer()
        self._settle()
        self.decide()

    def decide(self) -> None:
        """Decide on the steps that can be, and say so; let go of nodes that leave, once nothing there is undecided."""
        commit = self.tracker.decide()
        self._describe_new()
        for node, approval in self.tracker.take_approvals():
            self._send(self._nodes[node], approval)  # first, so that what is approved is known to be folded
        if commit is not None:
            for node in set(self.fed) - self._asked:
                self._send(self._nodes[node], commit)
            for rank in self._ranks.values() if self._terms.folds else ():
                self._send(rank, commit)
        if self.leaving:
            self._let_go()
        for event in self.tracker.take_events():
            self._journal("controller", event)

    def _describe_new(self) -> None:
        """Tell of variables before anything that is made of them can be delivered, which may be in the same turn."""
        tracker = self.tracker
        known = len(tracker.offered) + len(tracker.variables)
        # A whole step is what every rank has declared the variables of.
        if tracker.counts.whole and known > self._described:
            self._described = known
            self._describe(tracker.offered, tracker.variables)

    def finish(self) -> None:
        """Ask the staging nodes for all that is left."""
        for node in self.fed:
            self._send(self._nodes[node], Finish(MEMBER, self.tracker.watermark + 1))

    def fail(self, operator: str) -> None:
        """An operator is stopped: wait for nothing of it any more, and let go of what is held."""
        for held in self._gather.fail(operator):
            self._release(held)

    def lose(self, node: int) -> None:
        """A staging node is gone, with what it held; where it was fed, others take its parts from a step on."""
        self.leaving.discard(node)
        if node not in self.fed:
            return
        self.tracker.node_gone(node)
        decided = self.tracker.watermark
        self._last_words.lose(node)
        self._settle()
        for rank in self._ranks.values():
            self._send(rank, NodeGone(node))
        self._hand_over(self._gather.lose(node, decided))
        why = self.why_fixed()
        if why is None and node in self.feeding.needed:
            self.replan()
        what = f"every step from now on is dropped: {why}" if why else "others take its part as soon as all ranks can"
        text = f"Staging node {node} is gone; {what}."
        self._journal("controller", Event("error", "node-gone", text, {"node": node}))

    def why_fixed(self) -> str | None:
        """Say why no part can go to another staging node."""
        if self._terms.folds or self._terms.at_home:
            name = (*self._terms.folds, *self._terms.at_home)[0]
            return f"'{name}' folds where it does (where: {'rank' if self._terms.folds else 'node'})"
        if self.feeding.over:
            return "the simulation has ended"
        return None if any(not node.ended for node in self._nodes.values()) else "no other is left"

    def scale(self, nodes: int) -> None:
        """Go on with so many of the staging nodes that are there: those with the highest numbers leave."""
        here = [number for number, node in sorted(self._nodes.items()) if not node.ended]
        self.leaving.update(here[nodes:])
        self.leaving.difference_update(set(here[:nodes]) - self._asked)
        self.replan()

    def replan(self) -> None:
        """Make the plan of the nodes that are there and stay, and have the ranks adopt it."""
        begin = self.tracker.watermark + 1
        for rank in self.feeding.replan(begin, self.leaving):
            if rank not in self._ranks:  # it has published nothing, and is welcomed by the newest plan
                self._adopt(rank, Adopted(self.feeding.epoch, begin))

    def _adopt(self, rank: int, adopted: Adopted) -> None:
        """A rank goes by a newer plan; once all do, the plan holds."""
        feeding = self.feeding
        nodes = feeding.adopt(rank, adopted)
        if nodes is None:
            raise RemoteProtocolError(f"Rank {rank} goes by plan {adopted.epoch}, which it was not sent.")
        for node in nodes:
            self._gather.join(node, max(adopted.sequence, self.tracker.watermark + 1))
        self.tracker.adopt(rank, adopted.sequence, nodes)
        if adopted.epoch == feeding.epoch and not feeding.waiting:
            names = ", ".join(map(str, feeding.needed))
            text = f"From sequence {feeding.since} on staging nodes {names} have all parts of the domain."
            details = {"sequence": feeding.since, "nodes": feeding.needed}
            self._journal("controller", Event("info", "replanned", text, details))

    def _let_go(self) -> None:
        """Ask nodes that leave for all that they have, once no undecided step has a part there; let the others go."""
        if self.feeding.waiting or self.tracker.watermark < self.feeding.since - 1:
            return
        for node in sorted(self.leaving - self._asked):
            self._asked.add(node)
            self._gather.leave(node)
            if node in self.fed:
                self._send(self._nodes[node], Finish(MEMBER, -1))
            else:
                self._depart(node)

    def _depart(self, node: int) -> None:
        """A node has left: ranks need not wait for its last word."""
        self._send(self._nodes[node], Shutdown())
        self._nodes[node].ended = True
        self.leaving.discard(node)
        self.left.add(node)
        for rank in self._ranks.values():
            self._send(rank, NodeGone(node))
        self._hand_over(self._gather.left(node))
        self._journal("controller", Event("info", "node-left", f"Staging node {node} has left.", {"node": node}))

    def _drop(self, peer: Peer, dropped: Dropped) -> None:
        """The first rank that drops a step drops it for all, which need not spend room and time on it."""
        if self.tracker.drop(dropped.sequence, dropped.reason):
            for other in self._ranks.values():
                if other is not peer:
                    self._send(other, Skip((dropped.sequence,)))

    def _end_by_word(self, node: int, newest: Iterable[tuple[int, int]]) -> None:
        """A staging node says how far it was fed by ranks that are gone."""
        for rank, sequence in newest:
            if self._last_words.asked(rank, node):
                self._last_words.hear(rank, node, self.feeding.published(rank, sequence))
        self._settle()

    def _settle(self) -> None:
        """End the ranks of which it is known how far they came; where nothing more will come, that is all."""
        for rank, newest in self._last_words.take():
            self.tracker.rank_ended(rank, (self.tracker.watermark if newest is None else newest) + 1)
        if self.concluded and not self._last_words.awaited:
            self.tracker.give_up(self.concluded)

    def _hand_over(self, complete: Iterable[Window | Rows]) -> None:
        self.decide()  # a node that commits by itself says in the same breath what it closed and what came of it
        for done in complete:
            self._deliver(done)

    def _abandon(self) -> None:
        """Take windows as they are, and let go of those that no node will make whole any more."""
        self._hand_over(self._gather.conclude())
        for operator, window, held in self._gather.abandon():
            text = f"Window {window} of operator '{operator}' is lost: not all staging nodes have the states of it."
            self._journal("controller", Event("error", "states-lost", text, {"operator": operator, "window": window}))
            for each in held:
                self._release(each)
        for operator, steps in self._gather.lost_steps.items():
            text = f"{steps} steps of operator '{operator}' yield nothing: their states were lost with a staging node."
            self._journal("controller", Event("error", "states-lost", text, {"operator": operator, "steps": steps}))
