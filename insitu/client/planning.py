# SPDX-License-Identifier: Apache-2.0
"""To which staging nodes a rank's parts go: by the plan it was welcomed with, and by each one that follows.

A rank adopts a plan between two steps, when all nodes of the plan have given it credit. It waits for none of them, nor
for another rank: each adopts the plan at a step of its own, and tells the controller which. What it has published
before goes where it was going.
"""

from collections.abc import Callable

from insitu.client.link import NodeLink
from insitu.plan import Part
from insitu.wire.messages import Replan, Share


def parts_of(shares: tuple[Share, ...]) -> dict[int, tuple[Part, ...]]:
    """Return the parts of each staging node, in the order of the nodes."""
    nodes = sorted({share.node for share in shares})
    return {node: tuple(Part(*_fields(share)) for share in shares if share.node == node) for node in nodes}


class Planning:
    """The links of one rank, of which those with parts are fed. `connect` makes one for a share, without any part."""

    def __init__(self, links: list[NodeLink], connect: Callable[[Share], NodeLink]) -> None:
        self._links = links
        self._connect = connect
        self._next: Replan | None = None

    def begin(self, shares: tuple[Share, ...]) -> None:
        """Link the nodes of the first plan, which holds from the first step on."""
        self._meet(shares)
        self._assign(shares)

    def prepare(self, replan: Replan) -> None:
        """Link the nodes of a plan that this rank is to adopt, those that are not."""
        self._meet(replan.shares)
        self._next = replan

    @property
    def ready(self) -> bool:
        """Whether all nodes of the next plan take the parts of this rank."""
        if self._next is None:
            return False
        nodes = {share.node for share in self._next.shares}
        return all(link.met and not link.given_up for link in self._links if link.node in nodes)

    def adopt(self) -> int:
        """Go by the next plan from now on; return its epoch."""
        plan, self._next = self._next, None
        assert plan is not None
        self._assign(plan.shares)
        return plan.epoch

    def _meet(self, shares: tuple[Share, ...]) -> None:
        for share in shares:
            if all(link.node != share.node for link in self._links):
                self._links.append(self._connect(share))

    def _assign(self, shares: tuple[Share, ...]) -> None:
        parts = parts_of(shares)
        for link in self._links:
            link.parts = parts.get(link.node, ())


def _fields(share: Share) -> tuple[int, int, int, int]:
    return share.node, share.low, share.high, share.of
