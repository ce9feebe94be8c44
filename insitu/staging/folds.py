# SPDX-License-Identifier: Apache-2.0
"""The states of one staging node, and how a row of committed steps becomes calls of `Operator.update`.

Whatever waits is folded as one batch, cut only where it must be: where a window ends, and where a rank's block moves or
changes its shape. A state then moves through memory once per batch instead of once per step.

An operator that raises is stopped, with its traceback; its siblings go on. That is why `Exception` is caught here, in
one place: an operator is foreign code.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from insitu.errors import OperatorError
from insitu.model import Block, Extent, Step
from insitu.operator import Batch, Operator, State, state_nbytes
from insitu.staging.assembler import ReadyStep
from insitu.wire.limits import STATES_BYTES
from insitu.wire.messages import Entry

#: Where a state's cells lie, or ``None`` for a state without cells.
Place = tuple[Extent, Extent] | None


@dataclass(frozen=True, slots=True)
class Yield:
    """What an operator has to hand over: of one window, or of all steps up to `upto` where it keeps steps."""

    operator: str
    window: int
    upto: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """An operator that raised, and will not be called again."""

    operator: str
    reason: str
    trace: str


@dataclass(slots=True)
class _Open:
    """An open window (or step): its states by place."""

    key: int
    states: dict[Place, State] = field(default_factory=dict)
    steps: int = 0
    first: int = -1
    last: int = -1
    time: float = 0.0

    def count(self, steps: Sequence[Step]) -> None:
        if not self.steps:
            self.first = steps[0].index
        self.steps += len(steps)
        self.last, self.time = steps[-1].index, steps[-1].time

    def entries(self) -> tuple[Entry, ...]:
        return tuple(
            Entry(self.key, self.steps, self.first, self.last, self.time, place, state)
            for place, state in self.states.items()
        )


class OperatorFolds:
    """One operator's states at this node, for one member."""

    def __init__(self, name: str, operator: Operator) -> None:
        self.name = name
        self.operator = operator
        self._open = _Open(0)
        self._described = False

    @property
    def nbytes(self) -> int:
        return state_nbytes(list(self._open.states.values()))

    def fold(self, steps: Sequence[ReadyStep]) -> Iterator[Yield]:
        """Fold steps that follow each other; yield what is complete."""
        if self.operator.keeps_steps:
            yield self._fold_each(steps)
            return
        for window, part in groupby(steps, key=self._window):
            inside = list(part)
            self._open.key = window
            self._fold_into(self._open, inside)
            if self._window_ends(window, inside[-1].step.sequence):
                yield self._take(inside[-1].step.sequence)

    def finish(self, steps: int) -> Iterator[Yield]:
        """Yield the window that is still open when the member has ended after `steps` steps."""
        last = self._window_of(steps - 1)
        if not self.operator.keeps_steps and steps and not self._window_ends(last, steps - 1):
            self._open.key = last
            yield self._take(steps - 1)

    def _window_of(self, sequence: int) -> int:
        window = self.operator.window
        return 0 if window == "run" else sequence // window

    def _window(self, ready: ReadyStep) -> int:
        return self._window_of(ready.step.sequence)

    def _window_ends(self, window: int, sequence: int) -> bool:
        return self._window_of(sequence + 1) != window

    def _take(self, upto: int) -> Yield:
        taken, self._open = self._open, _Open(self._open.key + 1)
        return Yield(self.name, taken.key, upto, taken.entries())

    def _fold_each(self, steps: Sequence[ReadyStep]) -> Yield:
        entries: list[Entry] = []
        for ready in steps:
            single = _Open(ready.step.sequence)
            self._fold_into(single, [ready])
            entries += single.entries()
            if (nbytes := state_nbytes(list(single.states.values()))) > STATES_BYTES:
                raise OperatorError(
                    f"Its state of one step takes {nbytes} bytes, and at most {STATES_BYTES} can be sent for each; "
                    "fold over: step instead, whose results stay at the staging nodes."
                )
        return Yield(self.name, -1, steps[-1].step.sequence, tuple(entries))

    def _fold_into(self, window: _Open, steps: Sequence[ReadyStep]) -> None:
        operator, states = self.operator, window.states
        whole = [ready for ready in steps if any(self._has_inputs(blocks) for blocks in ready.blocks.values())]
        if not whole:
            return
        window.count([ready.step for ready in whole])
        for rank in sorted({rank for ready in whole for rank in ready.blocks}):
            for place, batch in self._batches(rank, whole):
                states[place] = operator.update(states[place] if place in states else operator.init(), batch)

    def _has_inputs(self, blocks: Mapping[str, Block]) -> bool:
        return all(name in blocks for name in self.operator.inputs)

    def _batches(self, rank: int, steps: Iterable[ReadyStep]) -> Iterator[tuple[Place, Batch]]:
        """Cut a rank's blocks where their place changes; parts without cells are left out where cells are kept."""
        inputs = self.operator.inputs
        held = [
            (ready.step, [ready.blocks[rank][name] for name in inputs])
            for ready in steps
            if self._has_inputs(ready.blocks.get(rank, {}))
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
                {name: tuple(blocks[k].data for _, blocks in some) for k, name in enumerate(inputs)},
            )
            batch = self.operator.seen_batch(batch)
            self._describe(batch)
            yield self._state_of(place[0]), batch

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


def _place(blocks: Sequence[Block]) -> tuple[tuple[Extent, Extent], ...]:
    """Where the blocks lie, as far as it must stay the same within a batch: the rows of joined ones may change."""
    return tuple((block.start, (-1, *block.count[1:]) if block.variable.joined else block.count) for block in blocks)


Work = Callable[[OperatorFolds], Iterator[Yield]]


class Folds:
    """All operators of one node for one member, within `memory_bytes` for their states."""

    def __init__(self, operators: Mapping[str, Operator], memory_bytes: int) -> None:
        self._running = {name: OperatorFolds(name, operator) for name, operator in operators.items()}
        self._memory_bytes = memory_bytes

    @property
    def nbytes(self) -> int:
        return sum(folds.nbytes for folds in self._running.values())

    def fold(self, steps: Sequence[ReadyStep]) -> list[Yield | Failure]:
        """Fold committed steps that follow each other."""
        return self._each(lambda folds: folds.fold(steps))

    def finish(self, steps: int) -> list[Yield | Failure]:
        """Hand over what is open after the member's last step."""
        return self._each(lambda folds: folds.finish(steps))

    def _each(self, work: Work) -> list[Yield | Failure]:
        done: list[Yield | Failure] = []
        for name, folds in list(self._running.items()):
            try:
                done += work(folds)
                self._check_memory(folds)
            except Exception as error:  # noqa: BLE001 - an operator is foreign code; the failure is handed on
                del self._running[name]
                done.append(Failure(name, f"{type(error).__name__}: {error}", traceback.format_exc()))
        return done

    def _check_memory(self, folds: OperatorFolds) -> None:
        if self.nbytes > self._memory_bytes:
            raise OperatorError(
                f"Its states take {folds.nbytes} bytes, of {self.nbytes} in all, and the staging node has "
                f"{self._memory_bytes} for them; raise staging.memory or staging.nodes."
            )
