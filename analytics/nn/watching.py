# SPDX-License-Identifier: Apache-2.0
"""What a trainer notes from one row of its results to the next."""

import time

from insitu.model import Step


class Steps:
    """The steps since the row before."""

    def __init__(self, last: Step | None = None) -> None:
        self.last = last or Step(-1, -1, 0.0)
        self._first: Step | None = None
        self._number = 0

    def add(self, step: Step) -> None:
        self._first = self._first or step
        self.last = step
        self._number += 1

    def take(self) -> tuple[Step, Step, int]:
        found = self._first or self.last, self.last, self._number
        self._first, self._number = None, 0
        return found


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
