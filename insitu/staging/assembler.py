# SPDX-License-Identifier: Apache-2.0
"""Puts the ranks' parts of each step together on one staging node. No sockets, no clock, no threads.

A step goes through three states here:

========== ============================================================================ ============
state      meaning                                                                      leaves by
========== ============================================================================ ============
pending    some of the ranks that feed this node have published it                      the last one
closed     all of them have; the controller was told                                    `Commit`
committed  every rank has closed it on every node: it may be folded, or is dropped      folding
========== ============================================================================ ============

So what is folded was seen whole by the run, and steps are folded in the order of their sequence.

A node that is the only one sees each step whole by itself: once the controller has judged a combination of layouts, it
commits what is closed with them by itself (`approve`, `take_approved`): the way to the controller and back is saved.
"""

from dataclasses import dataclass
from typing import NamedTuple

from insitu.errors import RemoteProtocolError
from insitu.model import Block, Step
from insitu.wire.messages import Approve, Closed, ClosedStep, Commit, Moved, Publish, PublishLent, RankLayouts

#: The parts of one step: for each source its blocks by the variable's name. Part k of those that rank r has here is
#: source ``r + k * STRIDE``: in nearly every run the sources are the ranks.
Blocks = dict[int, dict[str, Block]]
#: More than there are ranks.
STRIDE = 1 << 32


def rank_of(source: int) -> int:
    """Return the rank that a source is a part of."""
    return source % STRIDE


def in_order(source: int) -> tuple[int, int]:
    """Tell the place of a source among others: a rank's parts stay together."""
    return rank_of(source), source


class ReadyStep(NamedTuple):
    """A committed step, to be folded; without blocks where it was dropped. `nbytes` tells what each rank sent of it.

    A step that is whole `elsewhere`, and of which no part came to this node, is known by its sequence alone.
    """

    step: Step
    blocks: Blocks
    nbytes: dict[int, int]
    elsewhere: bool = False


class ClosedHere(NamedTuple):
    """A step that all ranks which feed this node have published, and of each rank its layout."""

    step: Step
    layouts: RankLayouts
    nbytes: int
    disagree: tuple[int, ...]


def closed_message(member: int, several: list[ClosedHere]) -> Closed:
    """Put into one message what the controller is told of these steps."""
    layouts: dict[RankLayouts, int] = {}
    steps = tuple(
        ClosedStep(
            closed.step.sequence,
            closed.step.index,
            closed.step.time,
            layouts.setdefault(closed.layouts, len(layouts)),
            closed.nbytes,
            closed.disagree,
        )
        for closed in several
    )
    return Closed(member, tuple(layouts), steps)


@dataclass(slots=True)
class _Pending:
    step: Step
    blocks: dict[int, list[Block]]
    layouts: dict[int, int]
    nbytes: dict[int, int]
    disagree: list[int]
    closed: ClosedHere | None = None

    def close(self) -> ClosedHere:
        layouts = tuple(sorted(self.layouts.items()))
        self.closed = ClosedHere(self.step, layouts, sum(self.nbytes.values()), tuple(self.disagree))
        return self.closed


class Assembler:
    """The steps of one member at one staging node. `ranks` are those that feed the node, or will.

    Where `begin` is not 0, they do when `moved` says so, and nothing before that sequence is here.
    """

    def __init__(self, ranks: tuple[int, ...], begin: int = 0) -> None:
        self._known = frozenset(ranks)
        #: Who feeds the node, and from which sequence on that will change, in the order in which it was said.
        self._ranks = frozenset() if begin else self._known
        self._moves: list[Moved] = []
        self._pending: dict[int, _Pending] = {}
        self._approved: dict[RankLayouts, tuple[str, ...]] = {}
        self._newest: dict[int, int] = {}
        self._committed = begin - 1

    def __len__(self) -> int:
        """How many steps are here that the controller has not decided on."""
        return len(self._pending)

    @property
    def decided(self) -> int:
        """How many steps are committed or dropped, by the controller or by this node itself."""
        return self._committed + 1

    def publish(self, rank: int, message: Publish | PublishLent, blocks: list[Block], nbytes: int) -> ClosedHere | None:
        """Take in a rank's part of a step, blocks of `nbytes` in all; return the step if it is closed by it.

        A rank that comes too late for a step which was dropped changes nothing. Raises `RemoteProtocolError` for a rank
        that does not feed this node.
        """
        if rank not in self._known:
            raise RemoteProtocolError(
                f"Rank {rank} does not feed this staging node, which takes {sorted(self._known)}."
            )
        sequence = message.sequence
        self._newest[rank] = sequence
        if sequence <= self._committed:
            return None
        step = Step(sequence, message.index, message.time)
        pending = self._pending.get(sequence)
        if pending is None:
            pending = self._pending[sequence] = _Pending(step, {}, {}, {}, [])
        elif pending.step != step:
            pending.disagree.append(rank)
        pending.blocks[rank] = blocks
        pending.layouts[rank] = message.layout
        pending.nbytes[rank] = nbytes
        return pending.close() if self._is_closed(pending) else None

    def left_by(self, ranks: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Return, of those who feed the node and are none of these ranks, the newest sequence that they published."""
        return tuple((rank, self._newest.get(rank, -1)) for rank in sorted(self._known.difference(ranks)))

    def feed(self, ranks: tuple[int, ...]) -> list[ClosedHere]:
        """Of those who fed the node only these ranks still do, for others have ended; return the steps this closes."""
        waiting = self._open()
        self._known = frozenset(ranks)
        self._ranks &= self._known
        self._moves = [move for move in self._moves if move.rank in self._known]
        return [pending.close() for pending in waiting if self._is_closed(pending)]

    def moved(self, move: Moved) -> list[ClosedHere]:
        """From some sequence on a rank feeds the node, or feeds it no more; return the steps that this closes."""
        waiting = self._open()
        if move.rank in self._known:
            self._moves.append(move)
            self._settle()
        return [pending.close() for pending in waiting if self._is_closed(pending)]

    def _open(self) -> list[_Pending]:
        return [pending for pending in self._pending.values() if not self._is_closed(pending)]

    def _settle(self) -> None:
        """Let go of changes that hold for all steps to come."""
        while self._moves and self._moves[0].sequence <= self._committed + 1:
            self._ranks = _after(self._moves.pop(0), self._ranks)

    def _is_closed(self, pending: _Pending) -> bool:
        """Whether all ranks that feed the node at this step have published it.

        A rank that has moved here may have published it before this node hears of that. Then it may be closed twice,
        the first time without the rank, which the controller knows not to be all.
        """
        ranks = self._ranks
        for move in self._moves:
            if move.sequence <= pending.step.sequence:
                ranks = _after(move, ranks)
        return ranks <= pending.blocks.keys()

    def is_late(self, sequence: int) -> bool:
        """Whether a step was decided on without this part."""
        return sequence <= self._committed

    def approve(self, message: Approve) -> None:
        """From now on steps that are closed with these layouts need no word of the controller."""
        self._approved[message.layouts] = message.without

    def is_approved(self, closed: ClosedHere) -> bool:
        return closed.layouts in self._approved and not closed.disagree

    def take_approved(self) -> list[ReadyStep]:
        """Return the steps that this node has committed by itself, in order."""
        ready: list[ReadyStep] = []
        while pending := self._pending.get(self._committed + 1):
            closed = pending.closed
            if closed is None or not self.is_approved(closed):
                break
            self._committed += 1
            ready.append(self._ready(self._committed, False, self._approved[closed.layouts]))
        return ready

    def commit(self, message: Commit) -> list[ReadyStep]:
        """Return the steps that the controller has decided on, in order."""
        without = dict(message.without)
        ready = [
            self._ready(sequence, sequence in message.dropped, without.get(sequence, ()))
            for sequence in range(self._committed + 1, message.upto + 1)
        ]
        self._committed = max(self._committed, message.upto)
        self._settle()
        return ready

    def _ready(self, sequence: int, dropped: bool, without: tuple[str, ...]) -> ReadyStep:
        pending = self._pending.pop(sequence, None)
        if pending is None:
            return ReadyStep(Step(sequence, -1, 0.0), {}, {}, elsewhere=not dropped)
        if dropped:
            return ReadyStep(pending.step, {}, pending.nbytes)
        blocks: Blocks = {}
        for rank, parts in pending.blocks.items():
            taken = [block for block in parts if block.variable.name not in without] if without else parts
            blocks[rank] = {block.variable.name: block for block in taken}
            if len(blocks[rank]) < len(taken):
                blocks |= _by_source(rank, taken)
        return ReadyStep(pending.step, blocks, pending.nbytes)


def _by_source(rank: int, blocks: list[Block]) -> Blocks:
    """Tell the parts of one rank apart: each has a block of a variable."""
    sources: Blocks = {rank: {}}
    for block in blocks:
        source = rank
        while block.variable.name in sources.setdefault(source, {}):
            source += STRIDE
        sources[source][block.variable.name] = block
    return sources


def _after(move: Moved, ranks: frozenset[int]) -> frozenset[int]:
    return ranks | {move.rank} if move.feeds else ranks - {move.rank}
