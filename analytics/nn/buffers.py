# SPDX-License-Identifier: Apache-2.0
"""Buffers between a stream that comes once and a network that learns from a sample more than once.

All three hold samples up to a capacity in bytes, hand out whole batches of *different* samples, and never lose a sample
that no batch has held: `put` then takes fewer rows than it was given, and the caller waits. After `over` they drain, so
that training ends. They are those of Melissa (L. Meyer et al., SC 2023):

=============  =================================================  ==================================
kind           a batch                                            a sample leaves
=============  =================================================  ==================================
`Fifo`         the oldest samples                                 when drawn
`Firo`         uniform over what is held                          when drawn `max_reuse` times
`Reservoir`    uniform over what is held, drawn before or not     when room is needed, at random among those
                                                                  that were drawn; when drawn
                                                                  `max_reuse` times; after `over`, when drawn
=============  =================================================  ==================================

A batch is to be had while more than `threshold` samples are held; after `over`, while any is.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from analytics.nn.draws import BATCHES, EVICTIONS, Draws
from analytics.nn.samples import Ids, Rows, Storage, row_nbytes
from analytics.nn.specs import Spill
from analytics.nn.spilling import INDEX, Spilling
from insitu.errors import OperatorError
from insitu.model import Array, Extent
from insitu.operator import State
from insitu.text import size

Columns = Mapping[str, tuple[Extent, np.dtype[Any]]]

#: What a slot takes beside its sample: its id, its place in the order and back, and how often it was drawn.
OVERHEAD = 4 * 4


class Buffer(ABC):
    """Samples in `capacity` bytes of memory, all of it counted, and with `spill` more of them on a disk.

    Slots are never moved: `_order` holds their numbers, the held ones first. Nothing waits, and nothing is locked: one
    thread at a time.
    """

    #: How often a sample may be drawn where nothing is said.
    reuse: ClassVar[int]

    def __init__(
        self,
        columns: Columns,
        capacity: int,
        batch: int,
        threshold: int | None = None,
        max_reuse: int | None = None,
        seed: int = 0,
        spill: Spill | None = None,
    ) -> None:
        spilled = 0 if spill is None else spill.capacity // row_nbytes(columns)
        memory = max(0, capacity - spilled * (OVERHEAD + INDEX)) // (row_nbytes(columns) + OVERHEAD)
        self.slots = memory + spilled
        self.batch = batch
        self.threshold = batch if threshold is None else threshold
        self.max_reuse = self.reuse if max_reuse is None else max_reuse
        if self.slots <= max(self.threshold, batch):
            raise OperatorError(
                f"a buffer of {size(capacity)} holds {self.slots} samples of {size(row_nbytes(columns))}, which must "
                f"be more than its threshold ({self.threshold}) and a batch ({batch}); raise its capacity"
            )
        if self.threshold < batch - 1:
            raise OperatorError(
                f"threshold: {self.threshold} samples make no batch of {batch}; take {batch - 1} or more"
            )
        self.over = False
        self.held = 0
        #: Samples that were put, and draws of samples.
        self.received = self.drawn = 0
        if spill is None:
            self._storage = Storage(columns, self.slots)
        else:
            self._storage = Spilling(columns, memory, spilled, spill.directory)
        self._ids = np.empty(self.slots, np.uint32)
        self._draws = np.zeros(self.slots, np.int32)
        self._order = np.arange(self.slots, dtype=np.int32)
        self._seed = seed

    @property
    def nbytes(self) -> int:
        """Bytes of memory, which are allocated once."""
        return self._storage.nbytes + sum(a.nbytes for a in (self._ids, self._draws, self._order))

    @property
    def spilled_nbytes(self) -> int:
        """Bytes on the disk."""
        return self._storage.spilled_nbytes

    @property
    def room(self) -> int:
        """How many samples `put` would take now."""
        return self.slots - self.held

    @property
    def ready(self) -> bool:
        """Whether there is a batch to be had."""
        return self.held > (0 if self.over else self.threshold)

    @property
    def drained(self) -> bool:
        """Whether no batch will ever be had again."""
        return self.over and not self.held

    def put(self, ids: Ids, rows: Rows) -> int:
        """Take as many of the first samples as there is room for, and return how many."""
        taken = min(len(ids), self.room)
        if taken:
            slots = self._allot(taken)
            self._ids[slots] = ids[:taken]
            self._draws[slots] = 0
            self._storage.write(slots, {name: values[:taken] for name, values in rows.items()})
            self.received += taken
        return taken

    def get(self, batch: int) -> tuple[Ids, dict[str, Array]] | None:
        """Return ids and rows of batch number `batch`, or ``None`` where none is to be had.

        The number chooses the draws: the same buffer and number give the same batch. A copy, which is the caller's.
        """
        if not self.ready:
            return None
        slots = self._choose(batch, min(self.batch, self.held))
        found = self._ids[slots], self._storage.read(slots)
        self._draws[slots] += 1
        self.drawn += len(slots)
        self._let_go(slots)
        return found

    def state(self) -> State:
        """Return all that is held in memory, in order; it is copied. What is on the disk goes with the process."""
        slots = self._held()
        slots = slots[self._storage.in_memory(slots)]
        arrays = {"ids": self._ids[slots], "draws": self._draws[slots]}
        counts = {"over": self.over, "received": self.received, "drawn": self.drawn}
        return counts | arrays | {"rows": self._storage.read(slots)}

    def load(self, state: State) -> None:
        """Hold what `state` holds; its samples must fit."""
        held = len(state["ids"])
        if held > self.slots:
            raise OperatorError(f"a checkpoint of {held} samples does not fit a buffer of {self.slots}; raise capacity")
        self.held, self.over = held, bool(state["over"])
        self.received, self.drawn = int(state["received"]), int(state["drawn"])
        self._order[:] = np.arange(self.slots)
        slots = self._held()
        self._ids[slots], self._draws[slots] = state["ids"], state["draws"]
        self._storage.write(slots, state["rows"])

    def _held(self) -> Array:
        return self._order[: self.held]

    @abstractmethod
    def _allot(self, number: int) -> Array:
        """Return slots for new samples."""

    @abstractmethod
    def _choose(self, batch: int, number: int) -> Array:
        """Return the slots of a batch."""

    @abstractmethod
    def _let_go(self, slots: Array) -> None:
        """Free those of a batch's slots whose samples leave."""


class Fifo(Buffer):
    """First in, first out: every sample once, in the order of the stream."""

    reuse = 1

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.max_reuse != 1:
            raise OperatorError(f"max_reuse: {self.max_reuse} has no meaning for fifo, which draws each sample once")
        self._first = 0

    def load(self, state: State) -> None:
        self._first = 0
        super().load(state)

    def _held(self) -> Array:
        return self._ring(0, self.held)

    def _allot(self, number: int) -> Array:
        self.held += number
        return self._ring(self.held - number, number)

    def _choose(self, batch: int, number: int) -> Array:
        return self._ring(0, number)

    def _let_go(self, slots: Array) -> None:
        self.held -= len(slots)
        self._first = (self._first + len(slots)) % self.slots

    def _ring(self, after: int, number: int) -> Array:
        return (self._first + after + np.arange(number)) % self.slots


class _Pool(Buffer):
    """Samples that are drawn at random: `_where` says at which place of the order a slot is."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._where = np.arange(self.slots, dtype=np.int32)
        self._random = Draws(self._seed, BATCHES)

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._where.nbytes

    def load(self, state: State) -> None:
        super().load(state)
        self._where[:] = np.arange(self.slots)

    def _allot(self, number: int) -> Array:
        self.held += number
        return self._order[self.held - number : self.held]

    def _choose(self, batch: int, number: int) -> Array:
        return self._order[self._random.distinct(batch, number, self.held)]

    def _let_go(self, slots: Array) -> None:
        leaving = slots[self._draws[slots] >= self.max_reuse]
        self._to_the_end(leaving, self.held)
        self.held -= len(leaving)

    def _to_the_end(self, slots: Array, end: int) -> None:
        """Bring slots to the last places before `end`, by swaps with those that are there."""
        places = self._where[slots]
        begin = end - len(slots)
        stay = np.ones(len(slots), bool)
        stay[places[places >= begin] - begin] = False
        self._swap(places[places < begin], np.flatnonzero(stay) + begin)

    def _swap(self, here: Array, there: Array) -> None:
        self._order[here], self._order[there] = self._order[there], self._order[here]
        self._where[self._order[here]], self._where[self._order[there]] = here, there


class Firo(_Pool):
    """First in, random out: every sample `max_reuse` times (Melissa's pseudo-epochs), 1 where nothing is said."""

    reuse = 1


class Reservoir(_Pool):
    """Samples stay while there is room, so that the network never waits for a slow stream.

    The first `unseen` places of the order are those that no batch has held; they are never evicted.
    """

    reuse = np.iinfo(np.int32).max

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.unseen = 0
        self._evictions = Draws(self._seed, EVICTIONS)

    @property
    def room(self) -> int:
        return self.slots - self.unseen

    def state(self) -> State:
        return super().state() | {"unseen": int(self._storage.in_memory(self._order[: self.unseen]).sum())}

    def load(self, state: State) -> None:
        super().load(state)
        self.unseen = int(state["unseen"])

    def _allot(self, number: int) -> Array:
        evicted = number - (self.slots - self.held)
        if evicted > 0:
            # `received` numbers this eviction: it grows with every put.
            places = self._evictions.distinct(self.received, evicted, self.held - self.unseen) + self.unseen
            self._to_the_end(self._order[places], self.held)
            self.held -= evicted
        # The new ones lie behind those that were seen: the two change places, as far as they overlap.
        moved = min(number, self.held - self.unseen)
        here, there = (
            np.arange(self.unseen, self.unseen + moved),
            np.arange(self.held + number - moved, self.held + number),
        )
        self._swap(here, there)
        self.held += number
        self.unseen += number
        return self._order[self.unseen - number : self.unseen]

    def _let_go(self, slots: Array) -> None:
        new = slots[self._where[slots] < self.unseen]
        self._to_the_end(new, self.unseen)
        self.unseen -= len(new)
        leaving = slots if self.over else slots[self._draws[slots] >= self.max_reuse]
        self._to_the_end(leaving, self.held)
        self.held -= len(leaving)


#: The kinds that a configuration names.
KINDS: dict[str, type[Buffer]] = {"fifo": Fifo, "firo": Firo, "reservoir": Reservoir}
