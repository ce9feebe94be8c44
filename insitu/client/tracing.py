# SPDX-License-Identifier: Apache-2.0
"""Which steps of one rank are traced, and what is told of them.

A rank tells the controller in numbers what it did; it needs no tracing library, no thread and no way to a collector.
"""

from collections.abc import Callable, Mapping

from insitu.model import Step
from insitu.wire.messages import Message
from insitu.wire.tracing import Span, Spans, Traced, child_of, now_ns, root_of

#: Traced steps are at least this far apart, 20 a second: a trace has some ten spans of each operator and staging node.
APART_NS = 50_000_000

Counters = Mapping[str, int | float]


class Tracer:
    """Traces every so many steps of a rank, and fewer where these come faster than `APART_NS`.

    Sequences that are traced then are some of those that were, so that ranks which do it at different steps still have
    traces in common. Rank 0's span is the first of a step's trace, `seed` gives its context to the others.
    """

    def __init__(
        self,
        rank: int,
        member: int,
        seed: str,
        every: int,
        say: Callable[[Message], None],
        clock: Callable[[], int] = now_ns,
    ) -> None:
        self._rank = rank
        self._member = member
        self._seed = seed
        self._stride = every
        self._say = say
        self._clock = clock
        self._begin_ns = 0
        self._before: Counters = {}
        #: What is said ahead of the open step, where it is traced.
        self.traced: Traced | None = None

    def open(self, step: Step, counters: Counters) -> None:
        """A step begins: see whether it is traced."""
        self.traced = None
        if step.sequence % self._stride:
            return
        begin_ns = self._clock()
        if 0 <= begin_ns - self._begin_ns < APART_NS:
            self._stride *= 2
            return
        root = root_of(self._seed, self._member, step.sequence)
        self._begin_ns, self._before = begin_ns, counters
        self.traced = Traced(step.sequence, root if self._rank == 0 else child_of(root))

    def close(self, step: Step, counters: Counters, lost: str) -> None:
        """It is on its way, or dropped because it is `lost`: tell of it."""
        if self.traced is None:
            return
        context, self.traced = self.traced.context, None
        since = {name: counters[name] - self._before.get(name, 0) for name in counters}
        attributes: dict[str, bool | int | float | str] = {
            "insitu.rank": self._rank,
            "insitu.step": step.index,
            "insitu.sequence": step.sequence,
            "insitu.time": step.time,
            "insitu.wait.staging_s": since.get("wait_staging_s", 0.0),
            "insitu.wait.network_s": since.get("wait_network_s", 0.0),
            "messaging.system": "insitu",
            "messaging.operation.type": "send",
            "messaging.message.body.size": since["put_bytes"],
        }
        if lost:
            attributes["insitu.dropped"] = lost
        root = root_of(self._seed, self._member, step.sequence)
        span = Span(
            "publish", "producer", context, "" if context == root else root, self._begin_ns, self._clock(), attributes
        )
        self._say(Spans((span,)))
