# SPDX-License-Identifier: Apache-2.0
"""Which steps a rank traces, and what it tells of them."""

from insitu.client.tracing import APART_NS, Tracer
from insitu.model import Step
from insitu.wire.messages import Message
from insitu.wire.tracing import Spans, root_of

COUNTERS = {"put_bytes": 100, "wait_staging_s": 0.5, "wait_network_s": 0.0}


class Rank:
    """A rank whose steps take `step_ns` by the test's clock."""

    def __init__(self, number: int, every: int, step_ns: int) -> None:
        self.now_ns = 10**18
        self.step_ns = step_ns
        self.said: list[Message] = []
        self.tracer = Tracer(number, 0, "5eed", every, self.said.append, lambda: self.now_ns)

    def publish(self, sequence: int, lost: str = "") -> None:
        step = Step(sequence, 10 * sequence, 0.5)
        self.tracer.open(step, COUNTERS)
        self.now_ns += self.step_ns
        self.tracer.close(step, COUNTERS | {"put_bytes": 180, "wait_staging_s": 0.75}, lost)

    @property
    def traced(self) -> list[int]:
        return [
            int(span.attributes["insitu.sequence"]) for one in self.said if isinstance(one, Spans) for span in one.spans
        ]


def test_one_step_of_so_many_is_traced_and_says_what_it_took() -> None:
    rank = Rank(3, 4, APART_NS)
    for sequence in range(9):
        rank.publish(sequence, lost="no room" if sequence == 8 else "")
    assert rank.traced == [0, 4, 8]
    first, last = rank.said[0].spans[0], rank.said[2].spans[0]
    assert first.parent == root_of("5eed", 0, 0)
    assert first.context != first.parent
    assert first.end_ns - first.begin_ns == APART_NS
    assert first.attributes["messaging.message.body.size"] == 80
    assert first.attributes["insitu.wait.staging_s"] == 0.25
    assert (first.attributes.get("insitu.dropped"), last.attributes["insitu.dropped"]) == (None, "no room")


def test_rank_0_begins_the_trace() -> None:
    rank = Rank(0, 4, 1)
    rank.publish(0)
    span = rank.said[0].spans[0]
    assert (span.context, span.parent) == (root_of("5eed", 0, 0), "")


def test_a_fast_rank_traces_at_most_20_steps_a_second_and_those_that_others_trace() -> None:
    fast, slower = Rank(0, 1, 100_000), Rank(1, 1, 110_000)
    for sequence in range(20_000):
        fast.publish(sequence)
        slower.publish(sequence)
    assert len(fast.traced) <= 20 * (fast.now_ns - 10**18) / 1e9 + 1
    assert len(fast.traced) > 10
    both = set(fast.traced) & set(slower.traced)
    assert len(both) > 0.7 * len(fast.traced)
