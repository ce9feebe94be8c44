# SPDX-License-Identifier: Apache-2.0
"""Puts the results of several operators together by the step at which they end, however they arrive.

Results of different operators come from different staging nodes in any order. Who decides by them must not depend on
that: so all results that end at one step are one `Tick`, and ticks come in the order of their steps. A tick is given
out once every operator has either spoken of its step or can no longer do so. No sockets, no clock.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from insitu.results import Provenance, Result
from insitu.steering.series import Reference


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of one result: numbers of it, and the whole of it where that came to the controller.

    It covers the published steps from `first` to `last`, counted by their sequence. `result` is ``None`` where the
    arrays stay with the staging nodes.
    """

    operator: str
    first: int
    last: int
    provenance: Provenance
    numbers: Mapping[Reference, float] = field(default_factory=dict)
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """All results that end at the step of sequence `sequence`, in the order of the operators in the file."""

    sequence: int
    observations: tuple[Observation, ...]

    @property
    def step(self) -> int:
        """The author's index of that step."""
        return max(each.provenance.last_step for each in self.observations)

    @property
    def time(self) -> float:
        """Its physical time."""
        return max(each.provenance.time for each in self.observations)


class Lockstep:
    """The results of operators that yield one each so many published steps (`lengths`; 1: one for each step).

    >>> rows = Lockstep({"a": 1, "b": 1})
    >>> nothing = Provenance(0, 0, 0, 0.0, 1, 0, True)
    >>> rows.add([Observation("a", 0, 0, nothing), Observation("a", 1, 1, nothing)])
    []
    >>> [(tick.sequence, len(tick.observations)) for tick in rows.add([Observation("b", 1, 1, nothing)])]
    [(0, 1), (1, 2)]
    """

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self._lengths = dict(lengths)
        self._waiting: dict[str, deque[Observation]] = {name: deque() for name in lengths}
        #: Up to which sequence nothing more can come of an operator.
        self._upto = {name: length - 2 for name, length in lengths.items()}

    def add(self, observations: Sequence[Observation]) -> list[Tick]:
        """Take in results of one operator, in its order; return the ticks that are whole by them."""
        for each in observations:
            if each.operator in self._lengths:
                self._waiting[each.operator].append(each)
                self._upto[each.operator] = each.last + self._lengths[each.operator] - 1
        return self._take(min(self._upto.values(), default=-1))

    def fail(self, operator: str) -> list[Tick]:
        """Wait for an operator no longer: it was stopped."""
        if self._lengths.pop(operator, None) is None:
            return []
        del self._waiting[operator], self._upto[operator]
        return self._take(min(self._upto.values(), default=-1))

    def finish(self) -> list[Tick]:
        """Nothing more will come: return what is left."""
        lasts = [each.last for waiting in self._waiting.values() for each in waiting]
        return self._take(max(lasts, default=-1))

    def _take(self, upto: int) -> list[Tick]:
        ticks: dict[int, list[Observation]] = {}
        for waiting in self._waiting.values():
            while waiting and waiting[0].last <= upto:
                each = waiting.popleft()
                ticks.setdefault(each.last, []).append(each)
        return [Tick(sequence, tuple(ticks[sequence])) for sequence in sorted(ticks)]
