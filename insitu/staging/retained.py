# SPDX-License-Identifier: Apache-2.0
"""The newest committed steps of a staging node, copied into a ring of bytes of its own, for who looks at the run.

No sockets, no threads. Copying has a budget of time as the ring has one of bytes:

Rule 1: a node retains the sequences that are multiples of its *stride*, a power of two. Powers of two nest: what the
node with the largest stride retains, all others do too, though none of them talks to another.

Rule 2: copying earns `SHARE` of the time that passes, and `BURST_S` at most. A step that is due while more was spent
than earned is left out, and the stride doubles. So no more is ever spent than was earned, and one copy.

Rule 3: when the time since the last copy has earned more than two of them, the stride halves.

The copies lie one behind the other, and the newest takes the place of the oldest. The bytes are taken once, when the
first step comes, and used again and again. A step that somebody reads stays for `HOLD_S`, though others find no room;
of many that are read, the last ones, at most `HELD` and half of the ring.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from insitu.model import Array, Block, Step
from insitu.staging.assembler import ReadyStep
from insitu.text import size
from insitu.wire.limits import RETAINED, WHOLE

#: The part of a node's time that goes into copies, and how much of it can be saved up for steps that follow closely.
SHARE = 0.02
BURST_S = 0.02
#: How many copies the time since the last one must have earned until the stride halves: after that it has still earned
#: more than one for each, also where no copy takes as long as the other.
SPARE = 2.5
#: How much a costly copy still counts after the next one. Nodes that forgot it at once would change their strides all
#: the time where memory is not always as fast, and have few steps in common.
FADES = 0.75
#: How long a step that was asked for stays: until who reads it in pieces has asked for the next one, which takes some
#: 50 ms. A ring of a few steps has no room for others meanwhile.
HOLD_S = 0.3
#: How many of these: who reads one after the other must not keep new ones out.
HELD = 4
#: Where copies begin: what NumPy and the processor like best.
_ALIGNED = 64


@dataclass(slots=True)
class RetainedStep:
    """A copy: the blocks of each variable, and which bytes of the ring they take. Without blocks none lie here."""

    step: Step
    blocks: dict[str, list[Block]]
    begin: int
    end: int


class Retained:
    """The retained steps of one node, in at most `limit_bytes`; 0 retains none.

    `clock` counts seconds, and `busy` those in which this thread has the processor: a copy does not cost more because
    others want it too.
    """

    def __init__(
        self,
        limit_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.thread_time,
    ) -> None:
        #: The first sequence for which `take` is to be called: the only thing that a step costs that is not retained.
        self.due = 0 if limit_bytes else WHOLE
        self.stride = 1
        #: Oldest first.
        self.steps: deque[RetainedStep] = deque()
        #: Why nothing is retained, where that will not change by itself.
        self.why = "" if limit_bytes else "this run retains no steps: staging.retain is 0 B"
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._busy = busy
        self._ring: Array | None = None
        self._held: list[tuple[int, float]] = []
        self._head = 0
        self._balance_s = BURST_S
        self._counted_at = self._copied_at = clock()
        self._cost_s = 0.0
        self._last = -1

    def take(self, several: Sequence[ReadyStep]) -> None:
        """Copy those that are due, in the order of their sequence. A step that was dropped is none."""
        for ready in several:
            if ready.step.sequence % self.stride or not (ready.blocks or ready.elsewhere):
                continue
            self.relax()
            if self._balance_s < 0:
                self.stride *= 2
                break
            begin_s = self._busy()
            copied = self._copy(ready)
            cost_s = self._busy() - begin_s
            self._copied_at = self._counted_at
            self._balance_s -= cost_s
            if copied:
                self._cost_s = max(cost_s, FADES * self._cost_s)
        self._last = several[-1].step.sequence
        self._plan()

    def relax(self) -> None:
        """Retain more of the steps where there is time to; to be called now and then, also while none come."""
        self._earn(self._clock())
        if self.stride > 1 and (self._counted_at - self._copied_at) * SHARE > SPARE * self._cost_s:
            self.stride //= 2
            self._plan()

    def forget(self, before: int) -> None:
        """Forget the steps before a sequence: parts of them were on nodes that have left."""
        while self.steps and self.steps[0].step.sequence < before:
            self.steps.popleft()

    def read(self, since: int, variable: str) -> RetainedStep | None:
        """Return the first step since this sequence that has the variable, and keep it for a while.

        Where no retained step has a block of it, this node has no part of it, as far as it knows: then the first step.
        """
        if not self.steps or self.steps[-1].step.sequence < since:
            return None
        candidates = [each for each in self.steps if each.step.sequence >= since]
        found = next((each for each in candidates if variable in each.blocks), None)
        if found is None and not any(variable in each.blocks for each in self.steps):
            found = next(iter(candidates), None)
        if found is not None:
            self._hold(found)
        return found

    def newest(self, variable: str) -> int | None:
        """Return the sequence of the newest step of which a block of the variable lies here."""
        return next((each.step.sequence for each in reversed(self.steps) if variable in each.blocks), None)

    def told(self, variable: str) -> Array:
        """Return a row for each step: its sequence, its index, and whether a block of the variable lies here."""
        rows = [(each.step.sequence, each.step.index, variable in each.blocks) for each in self.steps]
        return np.array(rows, np.int64).reshape(-1, 3)

    def _hold(self, read: RetainedStep) -> None:
        """Let a step stay for a while; of those before it, the last ones that leave half of the ring to others."""
        sizes = {each.step.sequence: each.end - each.begin for each in self.steps}
        before = [each for each in reversed(self._held) if each[0] != read.step.sequence and each[0] in sizes]
        self._held = [(read.step.sequence, self._clock() + HOLD_S)]
        room = self._limit_bytes // 2 - sizes[read.step.sequence]
        for each in before[: HELD - 1]:
            room -= sizes[each[0]]
            if room < 0:
                break
            self._held.insert(0, each)

    def _plan(self) -> None:
        self.due = _after(self._last, self.stride) if self._limit_bytes else WHOLE

    def _earn(self, now: float) -> None:
        self._balance_s = min(BURST_S, self._balance_s + SHARE * (now - self._counted_at))
        self._counted_at = now

    def _copy(self, ready: ReadyStep) -> bool:
        """Copy a step into the ring; return whether there is room for it, or some could be made."""
        if not self._limit_bytes:
            return False
        blocks = [block for parts in ready.blocks.values() for block in parts.values()]
        nbytes = max(_ALIGNED, sum(_aligned(block.data.nbytes) for block in blocks))
        if nbytes > self._limit_bytes:
            self.why = f"a step takes {size(nbytes)} on a staging node, and staging.retain is {size(self._limit_bytes)}"
            return False
        self.why = ""
        begin = self._room(nbytes)
        if begin is None or (self._ring is None and not self._allocate()):
            return False
        assert self._ring is not None
        retained = RetainedStep(ready.step, {}, begin, begin + nbytes)
        for block in blocks:
            retained.blocks.setdefault(block.variable.name, []).append(_copied(block, self._ring[begin:]))
            begin += _aligned(block.data.nbytes)
        self.steps.append(retained)
        self._head = retained.end
        return True

    def _allocate(self) -> bool:
        try:
            self._ring = np.empty(self._limit_bytes, np.uint8)
        except MemoryError:
            self.why = f"a staging node has no {size(self._limit_bytes)} for them; lower staging.retain"
            self._limit_bytes = 0
        return self._limit_bytes > 0

    def _room(self, nbytes: int) -> int | None:
        """Make room behind the newest step, or where the ring begins; return where, or ``None`` where one stays."""
        wraps = self._head + nbytes > self._limit_bytes
        begin = 0 if wraps else self._head

        def goes(each: RetainedStep) -> bool:
            return (begin < each.end and each.begin < begin + nbytes) or (wraps and each.begin >= self._head)

        out = list(takewhile(goes, self.steps))  # they lie in the order in which they came
        if len(self.steps) - len(out) == RETAINED:
            out = [self.steps[0]]
        held = {sequence for sequence, until in self._held if until > self._counted_at}
        if any(each.step.sequence in held for each in out):
            return None
        for _ in out:
            self.steps.popleft()
        return begin


def _after(sequence: int, stride: int) -> int:
    """Return the first multiple of the stride behind a sequence."""
    return (sequence // stride + 1) * stride


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNED) * _ALIGNED


def _copied(block: Block, room: Array) -> Block:
    data = room[: block.data.nbytes].view(block.data.dtype).reshape(block.data.shape)
    data[...] = block.data
    return Block(block.variable, block.start, data)
