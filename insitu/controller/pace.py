# SPDX-License-Identifier: Apache-2.0
"""Where the ranks are, and how far ahead of them an action is proposed. No sockets, no clock.

A step that is too near costs another attempt, or a wait of the ranks that come to it before the decision; one that is
too far makes the action late. The lead is learnt from both: it grows when a rank was late or had to wait, and shrinks
when every rank had the decision a step or more before it was due.
"""

from math import floor

#: A wait at the step shorter than this is none: it is what a look for news takes.
UNNOTICED_S = 0.0005
#: The largest lead, in steps; far above what any latency that is not a fault asks for.
MOST = 1 << 20


class Pace:
    """The positions of the ranks of one simulation, in boundaries passed.

    >>> pace = Pace()
    >>> pace.reached(0, 100, now=1.0), pace.reached(0, 200, now=2.0), pace.reached(1, 150, now=2.0)
    (None, None, None)
    >>> pace.passed(now=2.055)
    205
    >>> pace.next_boundary(now=2.055)
    206
    """

    def __init__(self) -> None:
        #: How many boundaries ahead of the one that is about to be passed.
        self.lead = 1
        self._reached: dict[int, tuple[int, float]] = {}
        self._speeds: dict[int, float] = {}
        self._proposed = 0

    def reached(self, rank: int, passed: int, now: float) -> None:
        """A rank has passed so many boundaries."""
        before, then = self._reached.get(rank, (passed, now))
        if passed < before:
            return
        if now - then > 0.02 and passed > before:
            self._speeds[rank] = (passed - before) / (now - then)
        if passed > before or rank not in self._reached:
            self._reached[rank] = (passed, now)

    def rest(self, rank: int) -> None:
        """A rank stands still."""
        self._speeds.pop(rank, None)

    def forget(self, rank: int) -> None:
        """A rank has ended or is gone."""
        self._reached.pop(rank, None)
        self._speeds.pop(rank, None)

    def passed(self, now: float) -> int:
        """Return how many boundaries the foremost rank has passed by now, as far as can be told."""
        return max(
            (
                passed + floor(self._speeds.get(rank, 0.0) * (now - then))
                for rank, (passed, then) in self._reached.items()
            ),
            default=0,
        )

    def next_boundary(self, now: float) -> int:
        """Return the boundary to propose."""
        self._proposed = self.passed(now)
        return self._proposed + self.lead

    def was_late(self) -> None:
        """A rank had passed the proposed boundary, or came to it long before the decision."""
        foremost = max((passed for passed, _ in self._reached.values()), default=0)
        self.lead = min(MOST, max(2 * self.lead, foremost - self._proposed + 1))

    def was_applied(self, waited_s: float, spare: int) -> None:
        """All ranks applied it: how long one waited for the decision, and how many boundaries early all had it."""
        if waited_s > UNNOTICED_S:
            self.lead += 1
        elif spare >= 1 and self.lead > 1:
            self.lead -= max(1, min(spare, self.lead - 1) // 2)
