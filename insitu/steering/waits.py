# SPDX-License-Identifier: Apache-2.0
"""Waiting with a limit, by what a process has had of its time: no clock in here."""


class Wait:
    """A wait of at most `limit_s`, begun at `now`, that looks again and again for what it waits for.

    However long ago the look before was, a look counts for a quarter of the limit at most: a process that was stopped
    itself (Ctrl-Z, a debugger, a machine that was frozen) has not listened meanwhile, and what came is taken in by the
    next look. So four looks at least come before the limit. Who looks each `look_s` waits as long as the clock says.

    >>> wait = Wait(1.0, now=10.0)
    >>> wait.look(10.2), wait.over
    (0.2, False)
    >>> wait.look(100.0), wait.over
    (0.45, False)
    """

    def __init__(self, limit_s: float, now: float) -> None:
        self.limit_s = limit_s
        #: What has counted so far.
        self.waited_s = 0.0
        self._looked_at = now

    @property
    def look_s(self) -> float:
        """The longest that one look may last, and the most that it counts."""
        return self.limit_s / 4

    @property
    def over(self) -> bool:
        """Whether the limit is reached."""
        return self.waited_s >= self.limit_s

    def look(self, now: float) -> float:
        """Count the time since the look before; return what has counted so far."""
        self.waited_s += min(now - self._looked_at, self.look_s)
        self._looked_at = now
        return self.waited_s
