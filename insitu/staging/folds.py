# SPDX-License-Identifier: Apache-2.0
"""The states of one staging node, and how a row of committed steps becomes calls of `Operator.update`.

Whatever waits is folded as one batch, cut only where it must be: where a window ends, and where a rank's block moves or
changes its shape. A state then moves through memory once per batch instead of once per step.

An operator that raises is stopped, with its traceback; its siblings go on. That is why `Exception` is caught here, in
one place: an operator is foreign code.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, groupby, takewhile
from operator import itemgetter

from insitu.errors import OperatorError
from insitu.model import Block, Extent, Step
from insitu.operator import Batch, Operator
from insitu.staging.assembler import ReadyStep, in_order, rank_of
from insitu.staging.panes import Pane, PaneQueue, Place
from insitu.wire.limits import STATES_BYTES
from insitu.wire.messages import Entry
from insitu.wire.tracing import now_ns


@dataclass(frozen=True, slots=True)
class Yield:
    """What an operator has to hand over: of one window, or of all steps up to `upto` where it keeps steps.

    The window is that of the sequences `since` to `upto`, and `full` unless the stream ended before it.
    """

    operator: str
    window: int
    since: int
    upto: int
    full: bool
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """An operator that raised, and will not be called again."""

    operator: str
    reason: str
    trace: str


class OperatorFolds:
    """One operator's states at this node, for one member; the steps before sequence `begin` are folded elsewhere."""

    def __init__(self, name: str, operator: Operator, begin: int = 0) -> None:
        self.name = name
        self.operator = operator
        self._inputs = frozenset(operator.inputs)
        self._panes = operator.panes
        self._closed = PaneQueue(operator)
        self._open: Pane | None = None
        #: The pane after the last closed one, the next window to be handed over, and whether it has steps of its own.
        self._next = 0
        self._due = 0
        self._fresh = False
        #: Whether this begins in the middle of the stream, where the first step may be in windows that began before.
        self._joins = begin > 0
        if begin and not self._panes.by_time:
            self._begin_at(self._panes.pane(Step(begin, 0, 0.0)))
        #: Of windows of time: the first of the dropped steps behind the last one whose time is known, if there are any.
        self._undated: int | None = None
        self._described = False
        self._step = 0

    @property
    def nbytes(self) -> int:
        return self._closed.nbytes + (self._open.nbytes if self._open else 0)

    @property
    def at(self) -> str:
        """Where folding has come to: what is said of a failure."""
        return f"step {self._step}" if self.operator.keeps_steps else f"window {self._due}"

    def blank(self) -> "OperatorFolds":
        """Return one that has come as far, and has folded nothing: for steps that are folded elsewhere."""
        other = OperatorFolds(self.name, self.operator)
        other._next, other._due = self._next, self._due
        other._open = Pane(self._open.key) if self._open else None
        for _ in range(len(self._closed)):
            other._closed.push(Pane(0))
        return other

    def fold(self, steps: Sequence[ReadyStep]) -> Iterator[Yield]:
        """Fold steps that follow each other; yield what is complete."""
        if self.operator.keeps_steps:
            yield self._fold_each(steps)
            return
        if self._panes.by_time:
            steps = self._timed(steps)
        for pane, part in groupby(self._in_panes(steps), key=itemgetter(0)):
            inside = [ready for _, ready in part]
            yield from self._move_to(pane)
            assert self._open is not None
            self._fresh = True
            if self._undated is not None and self._open.since < 0:
                self._open.since = self._undated  # they may have been of this pane, too
            self._open.see([ready.step for ready in inside])
            self._note_undated(inside)
            self._fold_into(self._open, inside)
            if self._panes.is_last(inside[-1].step):
                yield from self._close()

    def leave(self) -> Iterator[Yield]:
        """Yield all windows that any step is in, none of them full, for others fold the steps that follow."""
        if self.operator.keeps_steps:
            return
        if self._open is not None:
            self._closed.push(self._open)
            self._open = None
        while self._closed.seen:
            yield self._handed_over(full=False)

    def finish(self, steps: int) -> Iterator[Yield]:
        """Yield the window that is still open when the member has ended after `steps` steps."""
        if self.operator.keeps_steps or not steps:
            return
        if self._open is not None:
            self._closed.push(self._open)
            self._open = None
        if self._fresh:
            yield self._handed_over(full=False)

    def _note_undated(self, steps: Sequence[ReadyStep]) -> None:
        """Note the dropped steps at the end of these: nobody knows in which pane they would have been."""
        if not self._panes.by_time:
            return
        for ready in steps:
            if ready.blocks or ready.elsewhere:
                self._undated = None
            elif self._undated is None:
                self._undated = ready.step.sequence

    def _timed(self, steps: Sequence[ReadyStep]) -> Sequence[ReadyStep]:
        """Leave out steps whose time only others know, and begin with the first one whose time is known."""
        if self._joins:
            self._note_undated(list(takewhile(lambda ready: not ready.blocks, steps)))
        steps = [ready for ready in steps if not ready.elsewhere]
        if self._joins:
            steps = list(dropwhile(lambda ready: not ready.blocks, steps))
            self._joins = not steps
            if steps:
                self._begin_at(self._panes.pane(steps[0].step))
        return steps

    def _begin_at(self, pane: int) -> None:
        """Begin with the windows that this pane is in."""
        self._due = max(0, self._panes.earliest(pane))
        self._next = self._due * self._panes.stride
        for _ in range(pane - self._next):
            self._closed.push(Pane(self._next))
            self._next += 1

    def _in_panes(self, steps: Sequence[ReadyStep]) -> list[tuple[int, ReadyStep]]:
        """Return steps with their panes.

        Of a dropped one the time may not be known: it counts to the pane before, and to the next one that has any step.
        """
        low = self._open.key if self._open else self._next
        found = []
        for ready in steps:
            if not self._panes.by_time or ready.blocks:
                pane = self._panes.pane(ready.step)
                if pane < low and self._panes.by_time:
                    raise OperatorError(
                        f"step {ready.step.index} has time {ready.step.time:g}, which is "
                        + ("before zero" if pane < 0 else "before that of an earlier step")
                        + f"; with window: {self.operator.window} times must not be negative and not go back"
                    )
                low = max(low, pane)
            found.append((low, ready))
        return found

    def _move_to(self, pane: int) -> Iterator[Yield]:
        """Close the panes before this one, those among them that had no step, and open it."""
        if self._open is not None and self._open.key != pane:
            yield from self._close()
        if self._open is None:
            yield from self._skip_to(pane)
            self._open = Pane(pane)

    def _skip_to(self, pane: int) -> Iterator[Yield]:
        """Close panes without any step; those that are in no window of interest are not even counted."""
        if self._panes.by_time and not len(self._closed):
            # The stream begins here, or nothing of before is left: windows that would begin before it are left out.
            self._due = max(self._due, pane // self._panes.stride)
            self._next = self._due * self._panes.stride
        elif self._panes.by_time and pane - self._next > self._panes.count:
            for _ in range(self._panes.count):
                yield from self._close()
            self._closed.clear()
            self._due = max(self._due, self._panes.earliest(pane))
            self._next = max(self._next, self._due * self._panes.stride)
        while self._next < pane:
            yield from self._close()

    def _close(self) -> Iterator[Yield]:
        """Close the open pane, or one that had no step; yield the window that ends with it."""
        pane, self._open = self._open or Pane(self._next), None
        self._next = pane.key + 1
        self._closed.push(pane)
        if self._panes.window_at(pane.key) == self._due:
            if self._closed.seen or not self._panes.by_time:
                yield self._handed_over(full=True)
            else:
                self._leave()

    def _handed_over(self, full: bool) -> Yield:
        """Return the window that is due, and let go of what no other window needs."""
        whole = self._closed.total()
        entries = tuple(
            Entry(self._due, whole.steps, whole.first, whole.last, whole.time, place, state)
            for place, state in whole.states.items()
        )
        done = Yield(self.name, self._due, whole.since, whole.upto, full, entries)
        self._leave()
        return done

    def _leave(self) -> None:
        for _ in range(min(self._panes.stride, len(self._closed))):
            self._closed.pop()
        self._due += 1
        self._fresh = False

    def _fold_each(self, steps: Sequence[ReadyStep]) -> Yield:
        entries: list[Entry] = []
        for ready in steps:
            self._step = ready.step.index
            single = Pane(ready.step.sequence)
            self._fold_into(single, [ready])
            entries += [
                Entry(single.key, single.steps, single.first, single.last, single.time, place, state)
                for place, state in single.states.items()
            ]
            if (nbytes := single.nbytes) > STATES_BYTES:
                raise OperatorError(
                    f"Its state of one step takes {nbytes} bytes, and at most {STATES_BYTES} can be sent for each; "
                    "fold over: step instead, whose results stay at the staging nodes."
                )
        return Yield(self.name, -1, -1, steps[-1].step.sequence, True, tuple(entries))

    def _fold_into(self, window: Pane, steps: Sequence[ReadyStep]) -> None:
        operator, states = self.operator, window.states
        whole = [ready for ready in steps if any(map(self._has_inputs, ready.blocks.values()))]
        if not whole:
            return
        window.count([ready.step for ready in whole])
        for source in sorted({source for ready in whole for source in ready.blocks}, key=in_order):
            for place, batch in self._batches(source, whole):
                states[place] = operator.update(states[place] if place in states else operator.init(), batch)

    def _has_inputs(self, blocks: Mapping[str, Block]) -> bool:
        return self._inputs <= blocks.keys() if self.operator.needs_all else not self._inputs.isdisjoint(blocks)

    def _batches(self, source: int, steps: Iterable[ReadyStep]) -> Iterator[tuple[Place, Batch]]:
        """Cut a source's blocks where their place changes; parts without cells are left out where cells are kept."""
        inputs = self.operator.inputs
        held = [
            (ready.step, [ready.blocks[source][name] for name in inputs if name in ready.blocks[source]])
            for ready in steps
            if self._has_inputs(ready.blocks.get(source, {}))
        ]
        for place, row in groupby(held, key=lambda item: _place(item[1])):
            some = list(row)
            first = some[0][1]
            if self.operator.keeps_cells and 0 in first[0].count:
                continue
            batch = Batch(
                tuple(step for step, _ in some),
                {block.variable.name: block.variable for block in first},
                {block.variable.name: block.start for block in first},
                {one.variable.name: tuple(blocks[k].data for _, blocks in some) for k, one in enumerate(first)},
                rank_of(source),
            )
            batch = self.operator.seen_batch(batch)
            self._describe(batch)
            yield self._state_of(place[0][1:]), batch

    def _state_of(self, place: tuple[Extent, Extent]) -> Place:
        """Return where the cells of a state lie, whose blocks lie at `place`."""
        if not self.operator.keeps_cells:
            return None
        start, count = place
        return (start[1:], count[1:]) if self.operator.over_members else place

    def _describe(self, batch: Batch) -> None:
        """Let the operator object to its inputs before the first fold."""
        if not self._described:
            self.operator.describe(batch.variables)
            self._described = True


def _place(blocks: Sequence[Block]) -> tuple[tuple[str, Extent, Extent], ...]:
    """Where the blocks lie, as far as it must stay the same within a batch: the rows of joined ones may change."""
    return tuple(
        (block.variable.name, block.start, (-1, *block.count[1:]) if block.variable.joined else block.count)
        for block in blocks
    )


Work = Callable[[OperatorFolds], Iterator[Yield]]
#: Called when an operator has folded, with its name and the time at which it began, in nanoseconds since 1970.
Watch = Callable[[str, int], None]


class Folds:
    """All operators of one node, or rank, for one member, within `memory_bytes` for their states.

    Whose that memory is, and what makes it larger, say `whose` and `cure`. It begins with sequence `begin`.
    """

    def __init__(
        self,
        operators: Mapping[str, Operator],
        memory_bytes: int,
        whose: str = "staging node",
        cure: str = "raise staging.memory or staging.nodes",
        begin: int = 0,
    ) -> None:
        self._whose, self._cure = whose, cure
        self._running = {name: OperatorFolds(name, operator, begin) for name, operator in operators.items()}
        self._memory_bytes = memory_bytes

    @property
    def nbytes(self) -> int:
        return sum(folds.nbytes for folds in self._running.values())

    def fold(self, steps: Sequence[ReadyStep], watch: Watch | None = None) -> list[Yield | Failure]:
        """Fold committed steps that follow each other; `watch` is told of each operator when it began."""
        return self._each(lambda folds: folds.fold(steps), watch)

    def leave(self) -> list[Yield | Failure]:
        """Hand over all that is open, as no step will follow here."""
        return self._each(lambda folds: folds.leave())

    def finish(self, steps: int) -> list[Yield | Failure]:
        """Hand over what is open after the member's last step."""
        return self._each(lambda folds: folds.finish(steps))

    def _each(self, work: Work, watch: Watch | None = None) -> list[Yield | Failure]:
        done: list[Yield | Failure] = []
        for name, folds in list(self._running.items()):
            begin_ns = 0 if watch is None else now_ns()
            try:
                done += work(folds)
                self._check_memory(folds)
            except Exception as error:  # noqa: BLE001 - an operator is foreign code; the failure is handed on
                del self._running[name]
                reason = f"in {folds.at}: {type(error).__name__}: {error}"
                done.append(Failure(name, reason, traceback.format_exc()))
            if watch is not None:
                watch(name, begin_ns)
        return done

    def _check_memory(self, folds: OperatorFolds) -> None:
        if self.nbytes > self._memory_bytes:
            raise OperatorError(
                f"Its states take {folds.nbytes} bytes, of {self.nbytes} in all, and the {self._whose} has "
                f"{self._memory_bytes} for them; {self._cure}."
            )
