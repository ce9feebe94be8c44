# SPDX-License-Identifier: Apache-2.0
"""How a rank waits: never longer than `max_wait`, said aloud when it takes long, and not again once it was in vain."""

import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from insitu.client.link import NodeLink

log = logging.getLogger("insitu.client")

T = TypeVar("T")

#: A wait this long is worth a line in the simulation's own log, so that nobody has to guess why it stands still.
SAY_AFTER_S = 5.0
#: How long one poll may last; long enough to cost nothing, short enough that a wait's end is seen.
POLL_S = 0.1
#: Waits are counted by how long they lasted: up to each of these seconds, or longer.
WAITS_UP_TO_S = (0.001, 0.01, 0.1, 1.0, 10.0)


def waits_of(cause: str) -> list[str]:
    """Return the names of the counters of the waits for ``staging`` or the ``network``, by how long they lasted."""
    return [f"waits_{cause}_{k}" for k in range(len(WAITS_UP_TO_S) + 1)]


_WAITS = {f"wait_{cause}_s": waits_of(cause) for cause in ("staging", "network")}


class Patience:
    """The waits of one rank for its staging nodes. `pump` does for at most so many seconds what can be done.

    `shedding` is set when a wait has run out: no other one is begun until somebody takes it back.
    """

    def __init__(self, rank: int, max_wait_s: float, links: Sequence[NodeLink], pump: Callable[[float], None]) -> None:
        self.shedding = False
        self.max_wait_s = max_wait_s
        #: How long was waited for the nodes' folds, for the network, and where an action made this rank stand still.
        self.waited_s = {"wait_staging_s": 0.0, "wait_network_s": 0.0, "wait_action_s": 0.0}
        self.waits: Counter[str] = Counter()
        self._rank = rank
        self._links = links
        self._pump = pump

    def wait(self, done: Callable[[], T | None], what: str, where: int | str, vain: Callable[[], bool]) -> T | None:
        """Pump until `done` returns something, and return that; ``None`` after `max_wait_s`, or where it is in `vain`.

        `where` is the step, and `what` is waited for: both are for the line that says so.
        """
        if found := done():
            return found
        before = dict(self.waited_s)
        found = self._wait(done, what, where, vain)
        for cause, names in _WAITS.items():
            if (lasted := self.waited_s[cause] - before[cause]) > 0:
                self.waits[names[bisect_left(WAITS_UP_TO_S, lasted)]] += 1
        return found

    def _wait(self, done: Callable[[], T | None], what: str, where: int | str, vain: Callable[[], bool]) -> T | None:
        begin = now = time.monotonic()
        said = False
        while not (found := done()):
            self.shedding = self.shedding or now - begin > self.max_wait_s
            if self.shedding or vain():
                return None
            if now - begin > SAY_AFTER_S and not said:
                said = True
                log.warning("rank %d waits at step %s for %s: %s", self._rank, where, what, self._culprit())
            starved = any(link.starved for link in self._links)
            self._pump(min(POLL_S, self.max_wait_s))
            before, now = now, time.monotonic()
            self.waited_s["wait_staging_s" if starved else "wait_network_s"] += now - before
        return found

    def stand_still(self, wait_s: float) -> None:
        """Pump at most so long, because of an action: in a pause, or until it is decided."""
        begin = time.monotonic()
        self._pump(wait_s)
        self.waited_s["wait_action_s"] += time.monotonic() - begin

    def meet(self, timeout_s: float) -> None:
        """Pump until all staging nodes have said how much they take, or are gone; at most so long."""
        deadline = time.monotonic() + timeout_s
        while not all(link.met or link.given_up for link in self._links):
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                nodes = ", ".join(str(link.node) for link in self._links if not link.met)
                log.warning("rank %d: no answer from staging node %s within %g s", self._rank, nodes, timeout_s)
                return
            self._pump(min(POLL_S, remaining_s))

    def _culprit(self) -> str:
        """Name whom this rank waits for."""
        return ", ".join(
            f"staging node {link.node} "
            + (f"has used up its credit of {link.credit_bytes} bytes" if link.starved else "has not acknowledged")
            for link in self._links
            if not link.idle
        )
