# SPDX-License-Identifier: Apache-2.0
"""Where ranks that do not talk to each other can all stop: at a step that none of them has passed when it is told.

What is known of a rank is what has arrived of it at a staging node, and that is as old as the node's last word. So the
nodes are heard once more after a stop was asked for, and the step is put ahead of the newest one by what the fastest
rank does in `LEAD_S`. No sockets, no clock: whoever calls says what time it is, in seconds of one clock.
"""

from collections import deque
from collections.abc import Collection
from math import ceil

from insitu.wire.messages import Stop

#: How far ahead of the newest known step the end is put, at the pace so far: it may take as long to tell all ranks.
LEAD_S = 0.5
#: Over how long the pace is taken.
PACE_S = 1.0
#: How long the nodes' last word is waited for.
PATIENCE_S = 1.0


class Stopping:
    """Finds the step after which all ranks end.

    >>> stopping = Stopping()
    >>> for now, newest in ((0.0, 9), (0.5, 59), (1.0, 109)):
    ...     stopping.heard(node=0, newest=newest, now=now)
    >>> stopping.ask("enough", now=1.0)
    >>> stopping.decide([0], steps=100, now=1.0)
    >>> stopping.heard(node=0, newest=119, now=1.1)
    >>> stopping.decide([0], steps=100, now=1.1)
    Stop(at=169, reason='enough')
    """

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self._reason = ""
        self._asked_at: float | None = None
        self._heard: dict[int, deque[tuple[float, int]]] = {}

    def heard(self, node: int, newest: int, now: float) -> None:
        """A staging node says which is the newest sequence that any rank has published there (-1: none yet)."""
        words = self._heard.setdefault(node, deque())
        words.append((now, newest))
        while words[0][0] < now - PACE_S:
            words.popleft()

    def ask(self, reason: str, now: float) -> None:
        """All ranks are to end. The first reason counts."""
        if self._asked_at is None:
            self._asked_at, self._reason = now, reason

    def decide(self, nodes: Collection[int], steps: int, now: float) -> Stop | None:
        """Return what to tell all ranks, once; `nodes` are those that still speak, `steps` how many steps are known."""
        if self._asked_at is None or self.stop is not None:
            return None
        fresh = all(node in self._heard and self._heard[node][-1][0] > self._asked_at for node in nodes)
        if not fresh and now - self._asked_at < PATIENCE_S:
            return None
        newest = max([steps - 1, *(words[-1][1] for words in self._heard.values())])
        pace = max((_pace(words) for words in self._heard.values()), default=0.0)
        self.stop = Stop(newest + max(2, ceil(pace * LEAD_S)), self._reason)
        return self.stop


def _pace(words: deque[tuple[float, int]]) -> float:
    """Return the steps a second that a node was told of."""
    (first_s, first), (last_s, last) = words[0], words[-1]
    return (last - first) / (last_s - first_s) if last_s > first_s else 0.0
