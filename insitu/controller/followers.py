# SPDX-License-Identifier: Apache-2.0
"""Results on their way to the consoles that follow an operator.

Whoever has a result in hand, in whatever thread, calls `show` and goes on; the controller's thread takes what waits.
The newest result of each operator is kept, so that whoever comes later begins with it. What goes to a console is small:
results that stay with the staging nodes are not fetched for it.
"""

import math
import queue
import threading
from collections.abc import Callable, Collection

from insitu.results import Result
from insitu.wire.steering import Shown

#: A larger result is for the store, and for those who read it there.
RESULT_BYTES = 1 << 20


class Followers:
    """The operators that consoles follow. `made` are those of which results are made at all, of `operators`."""

    def __init__(self, operators: Collection[str] = (), made: Collection[str] = ()) -> None:
        self._operators = operators
        self._made = made
        self._newest: dict[str, Shown] = {}
        self._followed: set[str] = set()
        self._waiting: queue.SimpleQueue[Shown] = queue.SimpleQueue()
        self._wake: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def begin(self, wake: Callable[[], None]) -> None:
        """Say how the controller's thread is told that something waits."""
        self._wake = wake

    def show(self, result: Result) -> None:
        """There is a result. From any thread; those of one operator in their order."""
        nbytes = sum(array.nbytes for array in result.arrays.values())
        if nbytes > RESULT_BYTES:
            self.withhold(result.operator, f"a result has {nbytes} bytes, and consoles get at most {RESULT_BYTES}")
            return
        of = result.provenance
        time = of.time if math.isfinite(of.time) else None
        self._put(
            Shown(
                result.operator, "", of.index, of.first_step, of.last_step, time, of.steps, of.dropped, of.complete,
                dict(result.arrays),
            )
        )  # fmt: skip

    def withhold(self, operator: str, why: str) -> None:
        """Its results are not for consoles, or there will be none. From any thread."""
        self._put(_nothing(operator, why))

    def follow(self, operator: str) -> Shown | None:
        """A console follows an operator: return what there is of it now. In the controller's thread."""
        if operator not in self._operators:
            return _nothing(operator, f"no operator is called '{operator}'; there are {', '.join(self._operators)}")
        if operator not in self._made:
            return _nothing(operator, "nothing is made of what it folds; name it under outputs")
        with self._lock:
            self._followed.add(operator)
            return self._newest.get(operator)

    def take(self) -> list[Shown]:
        """Return what waits, in its order. In the controller's thread."""
        waiting = []
        while not self._waiting.empty():
            waiting.append(self._waiting.get())
        return waiting

    def _put(self, shown: Shown) -> None:
        with self._lock:
            self._newest[shown.operator] = shown
            if shown.operator not in self._followed:
                return
            self._waiting.put(shown)
        self._wake()


def _nothing(operator: str, why: str) -> Shown:
    return Shown(operator, why, -1, -1, -1, None, 0, 0, False, {})
