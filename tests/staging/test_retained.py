# SPDX-License-Identifier: Apache-2.0
"""Retained steps: exact copies in so many bytes and so much time, of which those on different nodes fit together."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.model import Array, Block, Step, Variable
from insitu.staging import retained as module
from insitu.staging.assembler import ReadyStep
from insitu.staging.retained import BURST_S, HOLD_S, SHARE, Retained
from insitu.wire.limits import RETAINED


class Clock:
    """Time that passes when it is said to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Node:
    """What copies steps, each of which takes `cost_s`; `spent_s` is what they took in all."""

    def __init__(self, cost_s: float, limit_bytes: int = 1 << 20) -> None:
        self.clock, self.cost_s, self.spent_s = Clock(), cost_s, 0.0
        self.retained = Retained(limit_bytes, self.clock, self.clock)

    def run(self, sequences: range, every_s: float, batch: int = 1) -> None:
        for first in sequences[::batch]:
            several = [step_of(k) for k in range(first, min(first + batch, sequences.stop))]
            self.clock.now += every_s * len(several)
            if several[-1].step.sequence >= self.retained.due:
                before = self.clock.now
                self.retained.take(several)
                self.spent_s += self.clock.now - before

    @property
    def sequences(self) -> list[int]:
        return [each.step.sequence for each in self.retained.steps]


@pytest.fixture
def slow_copies(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """Nodes whose copies take time of their own clocks."""
    nodes: list[Node] = []
    copied = module._copied

    def copy(block: Block, room: Array) -> Block:
        for node in nodes:
            node.clock.now += node.cost_s
        return copied(block, room)

    monkeypatch.setattr(module, "_copied", copy)
    return nodes


def step_of(sequence: int, length: int = 4, dtype: str = "f8") -> ReadyStep:
    variable = Variable("u", np.dtype(dtype), (length,), ("x",))
    data = (np.arange(length) + sequence).astype(dtype)
    return ReadyStep(Step(sequence, 10 * sequence, 0.5 * sequence), {0: {"u": Block(variable, (0,), data)}}, {})


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 600), st.sampled_from(["f8", "f4", "?"])), max_size=40), st.integers(1, 3000))
def test_copies_stay_exact_within_the_budget(steps: list[tuple[int, str]], limit_bytes: int) -> None:
    node = Node(0.0, limit_bytes)
    for k, (length, dtype) in enumerate(steps):
        ready = step_of(k, length, dtype)
        if k >= node.retained.due:
            node.retained.take([ready])
        ready.blocks[0]["u"].data[:] = 0  # the rank uses its memory again
    found = list(node.retained.steps)
    for each in found:
        expected = step_of(each.step.sequence, *steps[each.step.sequence]).blocks[0]["u"].data
        [block] = each.blocks["u"]
        assert block.data.dtype == expected.dtype
        np.testing.assert_array_equal(block.data, expected)
    assert node.sequences == sorted(node.sequences)
    places = sorted((each.begin, each.end) for each in found)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(places))
    assert not places or places[-1][1] <= limit_bytes
    if steps and -(-steps[-1][0] * np.dtype(steps[-1][1]).itemsize // 64) * 64 <= limit_bytes >= 64:
        assert node.sequences[-1] == len(steps) - 1


def test_memory_is_taken_once_and_used_again() -> None:
    node = Node(0.0, 64 * 8)
    assert node.retained._ring is None
    node.run(range(3), 1.0)
    ring = node.retained._ring
    node.run(range(3, 100), 1.0)
    assert node.retained._ring is ring
    assert node.sequences == list(range(92, 100))
    assert all(np.shares_memory(each.blocks["u"][0].data, ring) for each in node.retained.steps)


def test_however_small_there_are_not_too_many() -> None:
    node = Node(0.0)
    node.run(range(RETAINED + 50), 1.0)
    assert node.sequences == list(range(50, RETAINED + 50))


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(("every_s", "cost_s"), [(1e-4, 1e-4), (1e-3, 3e-5), (1e-3, 1e-2), (0.1, 1e-3)])
def test_copying_takes_its_share_of_the_time_and_not_more(
    slow_copies: list[Node], every_s: float, cost_s: float, batch: int
) -> None:
    node = Node(cost_s)
    slow_copies.append(node)
    node.run(range(8_000), every_s, batch)
    assert node.spent_s <= SHARE * node.clock.now + BURST_S + cost_s
    assert node.spent_s >= SHARE * node.clock.now / 8 or node.retained.stride == 1


def test_the_stride_follows_the_pace_of_the_steps(slow_copies: list[Node]) -> None:
    node = Node(1e-3)
    slow_copies.append(node)
    node.run(range(10_000), 1e-3)
    assert node.retained.stride in (32, 64, 128)
    node.run(range(10_000, 10_400), 0.2)
    assert node.retained.stride == 1
    assert node.sequences[-100:] == list(range(10_300, 10_400))


def test_after_a_burst_a_pause_is_enough(slow_copies: list[Node]) -> None:
    """The next step may be the last for long: it must not be left out for what many others have cost before."""
    node = Node(1e-3)
    slow_copies.append(node)
    node.run(range(10_000), 1e-4)
    for _ in range(100):  # as often as a node says how it does, while the simulation stands still
        node.clock.now += 0.1
        node.retained.relax()
    assert node.retained.stride == 1
    node.run(range(10_000, 10_001), 0.1)
    assert node.sequences[-1] == 10_000


@pytest.mark.parametrize("costs_s", [(1e-4, 1e-3), (1e-3, 7e-3), (0.0, 2e-3)])
def test_what_the_slowest_node_retains_all_others_do(slow_copies: list[Node], costs_s: tuple[float, float]) -> None:
    found = []
    for cost_s in costs_s:
        slow_copies[:] = [Node(cost_s)]
        slow_copies[0].run(range(10_000), 1e-3)
        found.append(slow_copies[0].sequences)
    quick, slow = found
    both = [sequence for sequence in slow if sequence >= quick[0]]
    assert both
    assert set(both) <= set(quick)


def test_a_step_that_is_read_stays_for_a_while() -> None:
    node = Node(0.0, 64 * 4)
    node.run(range(4), 0.01)
    read = node.retained.read(1, "u")
    assert read is not None
    node.run(range(4, 30), 0.01)
    assert node.sequences[0] == 1
    np.testing.assert_array_equal(read.blocks["u"][0].data, np.arange(4.0) + 1)
    node.clock.now += HOLD_S
    node.run(range(30, 40), 0.01)
    assert node.sequences == [36, 37, 38, 39]


def test_who_reads_all_steps_leaves_half_of_the_ring_to_new_ones() -> None:
    node = Node(0.0, 64 * 8)
    node.run(range(8), 0.001)
    for sequence in range(8):
        assert node.retained.read(sequence, "u") is not None
    node.run(range(8, 12), 0.001)
    assert node.sequences == list(range(4, 12))
    node.run(range(12, 20), 0.001)
    assert node.sequences[:4] == [4, 5, 6, 7]


def test_a_step_that_is_too_large_is_said_to_be() -> None:
    node = Node(0.0, 512)
    node.retained.take([step_of(0, 1000)])
    assert node.sequences == []
    assert node.retained.why == "a step takes 7.81 KiB on a staging node, and staging.retain is 512 B"
    assert "staging.retain is 0 B" in Retained(0).why
    assert Retained(0).due > 1 << 62


def test_a_ring_that_no_memory_could_hold_is_none() -> None:
    retained = Retained(1 << 62)
    retained.take([step_of(0), step_of(1)])
    assert retained.why == "a staging node has no 4.19e+06 TiB for them; lower staging.retain"
    assert retained.due > 1 << 62


def test_what_was_dropped_is_no_step_and_what_lies_elsewhere_is_one() -> None:
    retained = Retained(1 << 20, Clock())
    elsewhere = ReadyStep(Step(1, -1, 0.0), {}, {}, elsewhere=True)
    retained.take([ReadyStep(Step(0, 0, 0.0), {}, {}), elsewhere, step_of(2)])
    assert retained.told("u").tolist() == [[1, -1, False], [2, 20, True]]
    assert retained.told("v").tolist() == [[1, -1, False], [2, 20, False]]


def test_a_reader_gets_the_first_step_that_has_the_variable() -> None:
    retained = Retained(1 << 20, Clock())
    without = ReadyStep(Step(1, 10, 0.5), {0: {}}, {})
    retained.take([step_of(0), without, step_of(2)])
    for since, found in ((0, 0), (1, 2), (2, 2)):
        step = retained.read(since, "u")
        assert step is not None
        assert step.step.sequence == found
    assert retained.read(3, "u") is None
    other = retained.read(1, "v")  # a node without any part of it has nothing to wait for
    assert other is not None
    assert other.step.sequence == 1
    retained.forget(2)
    assert retained.read(0, "v") is not None
    assert [each.step.sequence for each in retained.steps] == [2]
