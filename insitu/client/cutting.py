# SPDX-License-Identifier: Apache-2.0
"""Cuts a rank's steps into one message for each staging node, and says once what each kind of step consists of."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from insitu.client.link import NodeLink
from insitu.client.pool import Pool, Slot
from insitu.errors import InsituError
from insitu.model import Array, Step
from insitu.plan import Part
from insitu.wire.blocks import BlockSpec
from insitu.wire.messages import Buffer, Layout, Message, Publish, PublishLent

#: A message, the node that it goes to, and how much of that node's credit it takes.
Cut = tuple[NodeLink, Publish | PublishLent, int]


class TooLarge(InsituError):
    """A staging node can never take its part of a step."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A block of a step: where it lies in its array and in the arena (`slot`: none where it is elsewhere)."""

    spec: BlockSpec
    spec_id: int
    slot: Slot | None
    data: Array

    @property
    def nbytes(self) -> int:
        """What it takes where it lies: a slot is rounded up."""
        return self.data.nbytes if self.slot is None else self.slot.nbytes

    def place(self, part: Part) -> tuple[int, int]:
        """Return offset and size in the arena of the rows that go to a staging node; from 0 where it is elsewhere."""
        offset = 0 if self.slot is None else self.slot.offset
        if self.data.ndim == 0:
            return offset, self.data.nbytes
        rows, row_bytes = part.rows(len(self.data)), self.data.nbytes // max(1, len(self.data))
        return offset + rows.start * row_bytes, (rows.stop - rows.start) * row_bytes


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
        self._announced = 0

    @property
    def _fed(self) -> list[NodeLink]:
        """The nodes that have any part."""
        return [link for link in self._links if link.parts]

    def renew(self) -> None:
        """The parts of the nodes have changed: what is announced from now on has other blocks, and other numbers."""
        self._layouts.clear()

    def messages(self, step: Step, blocks: Sequence[Filled]) -> list[Cut]:
        """Return one message for each staging node. Raises `TooLarge`."""
        layout = self._layout([block.spec_id for block in blocks], [block.spec for block in blocks])
        messages: list[Cut] = []
        for link in self._fed:
            some, places, nbytes = self._part(link, blocks)
            fields = (step.sequence, step.index, step.time, layout)
            if link.lent:
                messages.append((link, PublishLent(*fields, places), nbytes))
            else:
                buffers = tuple(self._buffer(block, *place) for block, place in zip(some, places, strict=True))
                messages.append((link, Publish(*fields, buffers), nbytes))
        return messages

    def require_credit(self, blocks: Sequence[Filled]) -> None:
        """Raise `TooLarge` for a step of which a staging node can never take its part."""
        for link in self._fed:
            self._part(link, blocks)

    def _part(self, link: NodeLink, blocks: Sequence[Filled]) -> tuple[list[Filled], tuple[tuple[int, int], ...], int]:
        cut = [(block, part) for part in link.parts for block in blocks if self._goes_to(part, block.spec)]
        some = [block for block, _ in cut]
        places = tuple(block.place(part) for block, part in cut)
        nbytes = sum(size for _, size in places)
        if not link.accepts(nbytes):
            raise TooLarge(
                f"its {nbytes} bytes exceed the credit of {link.credit_bytes} bytes at staging node "
                f"{link.node}; raise staging.memory or staging.nodes"
            )
        return some, places, nbytes

    def _buffer(self, block: Filled, offset: int, nbytes: int) -> Buffer:
        """Return a part of a block as it is to be sent over tcp.

        The number of a joined variable's rows changes from step to step, and so no part of it is met again.
        """
        if block.spec.variable.joined:
            return self._pool.arena[offset : offset + nbytes]
        return self._pool.part(offset, nbytes)

    def _layout(self, spec_ids: Sequence[int], specs: Sequence[BlockSpec]) -> int:
        """Return the number of this combination of blocks; a new one is announced to all."""
        key = tuple(spec_ids)
        layout = self._layouts.get(key)
        if layout is None:
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
