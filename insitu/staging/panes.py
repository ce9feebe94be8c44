# SPDX-License-Identifier: Apache-2.0
"""The states of panes, and a queue of them whose total is known at any time: what sliding windows are merged from.

An operator can merge, but not take away, so that the oldest pane of a sliding window cannot be subtracted from it. The
queue has two stacks (Tangwongsan and others, PVLDB 8, 2015): new panes go onto the *back*, whose total is kept; panes
leave from the *front*, where each one is already merged with all behind it in the front. When the front is empty, the
back is turned over to it. A pane so takes part in three merges, however many windows it is in; and because states are
merged in the order of their panes, all that an operator promises of `merge` holds. At most twice as many states are
there as a window has panes. Windows of one pane are handed over as they are. Where states grow with their steps, merged
ones would be as large as all panes together: these are merged anew for each window.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from insitu.model import Extent, Step
from insitu.operator import Operator, State, state_nbytes

#: Where a state's cells lie, or ``None`` for a state without cells.
Place = tuple[Extent, Extent] | None


@dataclass(slots=True)
class Pane:
    """The states, by place, of some steps that follow each other.

    `steps` of the sequences `since` to `upto` were folded, from the one of index `first` to that of index `last` and
    its `time`; -1 where there are none.
    """

    key: int
    states: dict[Place, State] = field(default_factory=dict)
    steps: int = 0
    first: int = -1
    last: int = -1
    time: float = 0.0
    since: int = -1
    upto: int = -1

    @property
    def nbytes(self) -> int:
        return state_nbytes(list(self.states.values()))

    def see(self, steps: Sequence[Step]) -> None:
        """Note that these steps went by, be they folded or not."""
        self.since = steps[0].sequence if self.since < 0 else self.since
        self.upto = steps[-1].sequence

    def count(self, steps: Sequence[Step]) -> None:
        """Note that these steps are folded."""
        if not self.steps:
            self.first = steps[0].index
        self.steps += len(steps)
        self.last, self.time = steps[-1].index, steps[-1].time


class PaneQueue:
    """Closed panes, oldest first."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        #: From the newest pane to the oldest, each merged with the newer ones of the front.
        self._front: list[Pane] = []
        self._back: list[Pane] = []
        #: The back's total, as soon as it is more than one pane.
        self._sum: Pane | None = None

    def __len__(self) -> int:
        return len(self._front) + len(self._back)

    @property
    def nbytes(self) -> int:
        return sum(pane.nbytes for pane in (*self._front, *self._back, *([self._sum] if self._sum else ())))

    @property
    def seen(self) -> bool:
        """Whether any step went by."""
        return any(pane.since >= 0 for pane in (*self._front[-1:], *self._back))

    def push(self, pane: Pane) -> None:
        if self._back and not self._operator.grows:
            own = self._sum or self._copied(self._back[0])
            self._sum = self._merged(own, pane)
        self._back.append(pane)

    def pop(self) -> None:
        """Let go of the oldest pane."""
        if self._operator.grows:
            del self._back[0]
            return
        if not self._front:
            for pane in reversed(self._back):
                self._front.append(self._merged(pane, self._front[-1]) if self._front else pane)
            self._back, self._sum = [], None
        self._front.pop()

    def clear(self) -> None:
        """Let go of all."""
        self._front, self._back, self._sum = [], [], None

    def total(self) -> Pane:
        """Return all panes merged, for good: nothing here changes it, and nobody who changes it is noticed here.

        That of a single pane is the pane itself, which then has to be let go of.
        """
        if len(self) == 1:
            return (self._front or self._back)[0]
        if self._operator.grows:
            whole = self._copied(self._back[0]) if self._back else Pane(0)
            for pane in self._back[1:]:
                whole = self._merged(whole, pane)
            return whole
        back = self._sum or (self._back[0] if self._back else None)
        if not self._front:
            return self._copied(back or Pane(0))
        own = self._copied(self._front[-1])
        return self._merged(own, back) if back else own

    def _merged(self, a: Pane, b: Pane) -> Pane:
        """Return the newer pane `b` merged into `a`, which is used up; `b` stays as it is."""
        states = a.states
        for place, state in b.states.items():
            # By the law of `merge` nothing of `b` is kept that could be changed later, so only what is taken is copied.
            states[place] = self._operator.merge(states[place], state) if place in states else deepcopy(state)
        return Pane(
            a.key,
            states,
            a.steps + b.steps,
            a.first if a.steps else b.first,
            b.last if b.steps else a.last,
            b.time if b.steps else a.time,
            a.since if a.since >= 0 else b.since,
            b.upto if b.upto >= 0 else a.upto,
        )

    @staticmethod
    def _copied(pane: Pane) -> Pane:
        return deepcopy(pane)
