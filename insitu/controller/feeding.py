# SPDX-License-Identifier: Apache-2.0
"""Who feeds which staging node: the first plan of a run, and those that follow when nodes come and go. No sockets.

A plan that follows moves whole parts, and is numbered: its *epoch*. Nobody stops for it. Nodes hear who is going to
feed them and give credit; each rank adopts the plan at a step of its own, and says which (`Adopted`); the nodes that
this concerns hear of it (`Moved`), and so does the tracker, which knows for each step whose parts make it whole. The
plan holds for all from the last of these steps on. Before all have adopted a plan there may be another one.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from insitu.controller.admission import Peer
from insitu.plan import Part, Site, homes, moved, parts_by_rank
from insitu.wire.messages import Adopted, Feed, Message, Moved, Replan, Share

#: Tells a peer something, unless it has ended.
Send = Callable[[Peer, Message], None]


class Feeding:
    """The plans of `member`, whose ranks are at `sites`; `nodes` and `ranks` are the peers, as far as they are there.

    `site` tells where a peer is. The first plan is that of the nodes that are there.
    """

    def __init__(
        self,
        member: int,
        sites: Sequence[Site],
        ranks: Mapping[int, Peer],
        nodes: Mapping[int, Peer],
        site: Callable[[Peer], Site],
        send: Send,
    ) -> None:
        self._member = member
        self._sites = sites
        self._ranks = ranks
        self._nodes = nodes
        self._site = site
        self._send = send
        self._ended: set[int] = set()
        here = self._here()
        numbers = sorted(here)
        first = parts_by_rank(sites, [here[number] for number in numbers])
        self._plans = [[[part._replace(node=numbers[part.node]) for part in parts] for parts in first]]
        #: The nodes that each rank feeds, since which sequence, and all that it was ever told to feed.
        self.routes = [_nodes_of(parts) for parts in self._plans[0]]
        self._since = [0] * len(sites)
        self._ever = [set(route) for route in self.routes]
        #: The ranks that have not adopted the newest plan, and the step from which on those that have all did.
        self.waiting: set[int] = set()
        self.since = 0

    @property
    def fed(self) -> list[int]:
        """The staging nodes that any rank feeds, has fed or is going to."""
        return sorted({node for nodes in self._ever for node in nodes})

    @property
    def needed(self) -> list[int]:
        """The staging nodes of the newest plan."""
        return sorted({part.node for parts in self._plans[-1] for part in parts})

    @property
    def epoch(self) -> int:
        """The number of the newest plan."""
        return len(self._plans) - 1

    @property
    def over(self) -> bool:
        """Whether all ranks have ended."""
        return len(self._ended) == len(self._sites)

    @property
    def homes(self) -> list[int]:
        """For each rank the staging node that takes the states which it folds itself."""
        return homes(self._plans[0])

    def begin(self, ships: bool) -> None:
        """Tell the nodes of the first plan who feeds them, and who ships states to them where ranks fold."""
        for node in self.fed:
            ship = tuple(rank for rank, home in enumerate(self.homes) if home == node) if ships else ()
            self._send(self._nodes[node], Feed(self._member, len(self._sites), self.feeders(node), ship))

    def parts(self, rank: int) -> Sequence[Part]:
        """Return a rank's parts by the newest plan."""
        return self._plans[-1][rank]

    def shares(self, rank: int) -> tuple[Share, ...]:
        """Return a rank's parts by the newest plan, as it is told."""
        return tuple(
            Share(part.node, self._nodes[part.node].address, part.low, part.high, part.of, self._nodes[part.node].local)
            for part in self.parts(rank)
        )

    def feeders(self, node: int) -> tuple[int, ...]:
        """The ranks that feed a staging node, or did, or are going to, and have not ended."""
        return tuple(rank for rank, nodes in enumerate(self._ever) if node in nodes and rank not in self._ended)

    def end(self, rank: int) -> None:
        """A rank has ended: its nodes need not wait for its part of later steps."""
        self._ended.add(rank)
        self.waiting.discard(rank)
        for node in sorted(self._ever[rank]):
            self._send(self._nodes[node], Feed(self._member, len(self._sites), self.feeders(node)))

    def replan(self, begin: int, without: Collection[int] = ()) -> list[int]:
        """Make the plan of the nodes that are there, `without` some; return the ranks that have to adopt it.

        New nodes are told nothing before sequence `begin`. Where no part has to move there is no new plan. There must
        be a node left.
        """
        here = {number: site for number, site in self._here().items() if number not in without}
        plan = moved(self._plans[-1], self._sites, here)
        if plan == self._plans[-1]:
            return []
        known, self._plans = self.fed, [*self._plans, plan]
        for rank, parts in enumerate(plan):
            self._ever[rank] |= _nodes_of(parts)
        for node in self.needed:
            late = 0 if node in known else max(1, begin)
            self._send(self._nodes[node], Feed(self._member, len(self._sites), self.feeders(node), (), late))
        self.waiting = set(range(len(plan))) - self._ended
        for rank in sorted(self.waiting):
            if rank in self._ranks:
                self._send(self._ranks[rank], Replan(self.epoch, self.shares(rank)))
        return sorted(self.waiting)

    def adopt(self, rank: int, adopted: Adopted) -> frozenset[int] | None:
        """A rank goes by a plan from some step on; return its nodes, or ``None`` for a plan that there is not."""
        if adopted.epoch > self.epoch:
            return None
        before, after = self.routes[rank], _nodes_of(self._plans[adopted.epoch][rank])
        for node in sorted(before ^ after):
            self._send(self._nodes[node], Moved(self._member, rank, adopted.sequence, node in after))
        self.routes[rank] = after
        self._since[rank] = adopted.sequence
        if adopted.epoch == self.epoch:
            self.waiting.discard(rank)
            self.since = max(self.since, adopted.sequence)
        return after

    def published(self, rank: int, newest: int) -> int:
        """Return up to where a rank has published, of which a node of its route says the newest that it has."""
        return max(newest, self._since[rank] - 1)

    def _here(self) -> dict[int, Site]:
        return {number: self._site(peer) for number, peer in self._nodes.items() if not peer.ended}


def _nodes_of(parts: Sequence[Part]) -> frozenset[int]:
    return frozenset(part.node for part in parts)
