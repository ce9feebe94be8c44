# SPDX-License-Identifier: Apache-2.0
"""Closed steps of a rank, in its memory until no staging node needs them any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from insitu.client.cutting import Cutter, Filled
from insitu.client.folding import Folding
from insitu.client.link import NodeLink
from insitu.client.pool import Pool, Slot
from insitu.client.spool import Record
from insitu.model import Step
from insitu.wire.tracing import Traced


@dataclass(slots=True)
class _Kept:
    """The slots of a step that is needed by some: its staging nodes, and this rank where it folds."""

    step: Step
    slots: list[Slot]
    needed_by: int


class Outbox:
    """The steps that wait in `pool`, or are under way to the `links`, cut by `cutter`, or wait for `folding`."""

    def __init__(self, pool: Pool, links: Sequence[NodeLink], cutter: Cutter, folding: Folding | None = None) -> None:
        self.put_bytes = 0
        #: The first sequence of the newest plan.
        self.planned_from = 0
        self._folding = folding
        self._pool = pool
        self._links = links
        self._cutter = cutter
        self._kept: dict[int, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._kept

    @property
    def idle(self) -> bool:
        """Whether the staging nodes need nothing of this rank any more."""
        return all(link.idle for link in self._links)

    @property
    def unsent(self) -> list[Step]:
        """The steps of which not all nodes were sent their part."""
        return [
            self._kept[sequence].step
            for sequence in sorted({one.sequence for link in self._links for one in link.unsent})
        ]

    @property
    def waits(self) -> bool:
        """Whether any step waits to be sent."""
        return any(link.oldest_unsent is not None for link in self._links)

    @property
    def replaceable(self) -> int | None:
        """The sequence from which on no staging node was sent any part.

        Steps of before the newest plan may have been sent to nodes that have no part any more.
        """
        oldest = [link.oldest_unsent for link in self._links if link.parts]
        unsent = [sequence for sequence in oldest if sequence is not None]
        first = max(unsent) if len(unsent) == len(oldest) and unsent else None
        return first if first is not None and first >= self.planned_from else None

    def queue(self, step: Step, blocks: Sequence[Filled], traced: Traced | None = None) -> None:
        """Let a step wait for its staging nodes, which are told first if it is traced.

        Raises `TooLarge` where one of them can never take its part.
        """
        messages = self._cutter.messages(step, blocks)
        slots = [one.slot for one in blocks if one.slot is not None]
        held = self._folding is not None and self._folding.hold(step, blocks)
        self._kept[step.sequence] = _Kept(step, slots, len(messages) + held)
        for link, message, nbytes in messages:
            if traced is not None:
                link.trace(traced)
            link.publish(message, nbytes)
        self.put_bytes += sum([block.data.nbytes for block in blocks])

    def step(self, sequence: int) -> Step:
        """Return a step that is here."""
        return self._kept[sequence].step

    def done(self, sequence: int) -> None:
        """One of those who needed a step's memory needs it no more."""
        kept = self._kept[sequence]
        kept.needed_by -= 1
        if kept.needed_by == 0:
            self._forget(sequence)

    def withdraw(self, sequence: int) -> Step:
        """Take back a step that waits; its memory is free."""
        for link in self._links:
            link.withdraw(sequence)
        if self._folding is not None:
            self._folding.forget(sequence)
        return self._forget(sequence)

    def room_for(self, record: Record) -> list[Filled] | None:
        """Return memory for a step that is elsewhere, or ``None`` where there is not enough for all of it."""
        blocks: list[Filled] = []
        for spec, spec_id, count in record.blocks:
            dtype = spec.variable.dtype
            slot = self._pool.take(prod(count) * dtype.itemsize)
            if slot is None:
                self.free(blocks)
                return None
            blocks.append(Filled(spec, spec_id, slot, self._pool.array(slot, dtype, count)))
        return blocks

    def free(self, blocks: Sequence[Filled]) -> None:
        """Give back the memory of blocks that nobody is going to have."""
        for block in blocks:
            if block.slot is not None:
                self._pool.give(block.slot)

    def _forget(self, sequence: int) -> Step:
        kept = self._kept.pop(sequence)
        for slot in kept.slots:
            self._pool.give(slot)
        return kept.step
