# SPDX-License-Identifier: Apache-2.0
"""Cuts a rank's steps into one message for each staging node, and says once what each kind of step consists of."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from insitu.client.link import NodeLink
from insitu.client.pool import Pool, Slot
from insitu.errors import InsituError
from insitu.model import Array, Step
from insitu.plan import Part
from insitu.wire.blocks import BlockSpec
from insitu.wire.messages import Buffer, Layout, Message, Publish, PublishLent

#: A message, the node that it goes to, and how much of that node's credit it takes.
Cut = tuple[NodeLink, Publish | PublishLent, int]


#: Rows of a block that go to a node: which block of the step, bytes before them, bytes of theirs.
_Rows = tuple[int, int, int]


class TooLarge(InsituError):
    """A staging node can never take its part of a step."""


class Filled(NamedTuple):
    """A block of a step: where it lies in its array and in the arena (`slot`: none where it is elsewhere)."""

    spec: BlockSpec
    spec_id: int
    slot: Slot | None
    data: Array

    @property
    def nbytes(self) -> int:
        """What it takes where it lies: a slot is rounded up."""
        return self.data.nbytes if self.slot is None else self.slot.nbytes

    @property
    def offset(self) -> int:
        """Where it begins in the arena; 0 where it is elsewhere."""
        return 0 if self.slot is None else self.slot.offset

    def rows(self, part: Part) -> tuple[int, int]:
        """Return offset and size within the block of the rows that go to a staging node, in bytes."""
        if self.data.ndim == 0:
            return 0, self.data.nbytes
        rows, row_bytes = part.rows(len(self.data)), self.data.nbytes // max(1, len(self.data))
        return rows.start * row_bytes, (rows.stop - rows.start) * row_bytes


class Cutter:
    """Cuts the steps of rank `rank`, which lie in `pool`, for its `links`. `say` tells the controller.

    Variables that the rank folds itself and nobody else needs stay (`stays`).
    """

    def __init__(
        self,
        rank: int,
        pool: Pool,
        links: Sequence[NodeLink],
        say: Callable[[Message], None],
        stays: Collection[str] = (),
    ) -> None:
        self._stays = frozenset(stays)
        self._rank = rank
        self._pool = pool
        self._links = links
        self._say = say
        self._layouts: dict[tuple[int, ...], int] = {}
        #: Of each layout what of its blocks goes where, as far as that stays the same.
        self._known: dict[int, list[tuple[NodeLink, list[_Rows]]]] = {}
        self._announced = 0

    @property
    def _fed(self) -> list[NodeLink]:
        """The nodes that have any part."""
        return [link for link in self._links if link.parts]

    def renew(self) -> None:
        """The parts of the nodes have changed: what is announced from now on has other blocks, and other numbers."""
        self._layouts.clear()
        self._known.clear()

    def messages(self, step: Step, blocks: Sequence[Filled]) -> list[Cut]:
        """Return one message for each staging node. Raises `TooLarge`."""
        layout = self._layout(blocks)
        messages: list[Cut] = []
        for link, rows in self._rows(layout, blocks):
            places = tuple([(blocks[k].offset + skipped, size) for k, skipped, size in rows])
            nbytes = sum([size for _, size in places])
            self._require(link, nbytes)
            fields = (step.sequence, step.index, step.time, layout)
            if link.lent:
                messages.append((link, PublishLent(*fields, places), nbytes))
            else:
                some = [blocks[k] for k, _, _ in rows]
                buffers = tuple(self._buffer(block, *place) for block, place in zip(some, places, strict=True))
                messages.append((link, Publish(*fields, buffers), nbytes))
        return messages

    def require_credit(self, blocks: Sequence[Filled]) -> None:
        """Raise `TooLarge` for a step of which a staging node can never take its part."""
        for link, rows in self._cut(blocks):
            self._require(link, sum(size for _, _, size in rows))

    def _rows(self, layout: int, blocks: Sequence[Filled]) -> list[tuple[NodeLink, list[_Rows]]]:
        """Return which rows go where: the same for each step of a layout, but for joined variables."""
        known = self._known.get(layout)
        if known is None:
            known = self._cut(blocks)
            if not any(block.spec.variable.joined for block in blocks):
                self._known[layout] = known
        return known

    def _cut(self, blocks: Sequence[Filled]) -> list[tuple[NodeLink, list[_Rows]]]:
        return [
            (
                link,
                [
                    (k, *block.rows(part))
                    for part in link.parts
                    for k, block in enumerate(blocks)
                    if self._goes_to(part, block.spec)
                ],
            )
            for link in self._fed
        ]

    def _require(self, link: NodeLink, nbytes: int) -> None:
        """Raise `TooLarge` where a staging node can never take so much."""
        if not link.accepts(nbytes):
            raise TooLarge(
                f"its {nbytes} bytes exceed the credit of {link.credit_bytes} bytes at staging node "
                f"{link.node}; raise staging.memory or staging.nodes"
            )

    def _buffer(self, block: Filled, offset: int, nbytes: int) -> Buffer:
        """Return a part of a block as it is to be sent over tcp.

        The number of a joined variable's rows changes from step to step, and so no part of it is met again.
        """
        if block.spec.variable.joined:
            return self._pool.arena[offset : offset + nbytes]
        return self._pool.part(offset, nbytes)

    def _layout(self, blocks: Sequence[Filled]) -> int:
        """Return the number of this combination of blocks; a new one is announced to all."""
        key = tuple([block.spec_id for block in blocks])
        layout = self._layouts.get(key)
        if layout is None:
            specs = [block.spec for block in blocks]
            layout = self._layouts[key] = self._announced
            self._announced += 1
            self._say(Layout(layout, tuple(specs)))
            for link in self._fed:
                parts = tuple(
                    _part_of(spec, part) for part in link.parts for spec in specs if self._goes_to(part, spec)
                )
                link.layout(Layout(layout, parts))
        return layout

    def _goes_to(self, part: Part, spec: BlockSpec) -> bool:
        """A 0-d block goes from rank 0 to one node; of all others each node gets its rows, be they none."""
        if spec.variable.name in self._stays:
            return False
        return spec.variable.ndim > 0 or (self._rank == 0 and part.high == part.of)


def _part_of(spec: BlockSpec, part: Part) -> BlockSpec:
    """Where the rows of a block lie that belong to a part."""
    if spec.variable.ndim == 0:
        return spec
    rows = part.rows(spec.count[0])
    start = (spec.start[0] if spec.variable.joined else spec.start[0] + rows.start, *spec.start[1:])
    return BlockSpec(spec.variable, start, (rows.stop - rows.start, *spec.count[1:]))
