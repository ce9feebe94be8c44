# SPDX-License-Identifier: Apache-2.0
"""What a trainer notes from one row of its results to the next."""

import math
import time
from collections import deque

from insitu.model import Step


class Steps:
    """The steps since the row before.

    >>> steps = Steps()
    >>> for sequence in range(4):
    ...     steps.add(Step(sequence, 10 * sequence, 0.0))
    >>> steps.take(upto=2)
    (Step(sequence=0, index=0, time=0.0), Step(sequence=2, index=20, time=0.0), 3)
    >>> steps.last.index
    30
    """

    def __init__(self, last: Step | None = None) -> None:
        self.last = self.told = last or Step(-1, -1, 0.0)
        self._taken: deque[Step] = deque()

    def add(self, step: Step, *, counts: bool = True) -> None:
        """Note a step; one that does not count is another's to tell of."""
        self.last = step
        if counts:
            self._taken.append(step)

    def take(self, upto: float = math.inf) -> tuple[Step, Step, int]:
        """Return the first and the last step up to a sequence, and their number; without any, the last one told."""
        taken = []
        while self._taken and self._taken[0].sequence <= upto:
            taken.append(self._taken.popleft())
        if taken:
            self.told = taken[-1]
        return (taken[0] if taken else self.told), self.told, len(taken)


class Watch:
    """How long something lasted, all in all."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._sum_s = 0.0

    def begin(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def end(self) -> None:
        if self._since is not None:
            self._sum_s += time.monotonic() - self._since
            self._since = None

    def take(self) -> float:
        """Return the seconds since the last call."""
        now = time.monotonic()
        if self._since is not None:
            self._sum_s += now - self._since
            self._since = now
        found, self._sum_s = self._sum_s, 0.0
        return found
