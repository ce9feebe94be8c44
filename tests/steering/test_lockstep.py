# SPDX-License-Identifier: Apache-2.0
"""However results arrive, the ticks are the same, in order, and none is held back longer than it must be."""

import random

from hypothesis import given
from hypothesis import strategies as st

from insitu.results import Provenance
from insitu.steering.lockstep import Lockstep, Observation, Tick


def observation(operator: str, last: int, length: int = 1) -> Observation:
    return Observation(operator, last - length + 1, last, Provenance(last, last, last, float(last), length, 0, True))


def shape(ticks: list[Tick]) -> list[tuple[int, list[str]]]:
    return [(tick.sequence, [each.operator for each in tick.observations]) for tick in ticks]


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 4), min_size=1),
    st.integers(0, 20),
    st.sets(st.integers(0, 20)),
    st.randoms(use_true_random=False),
)
def test_any_order_of_arrival_gives_the_same_ticks(
    lengths: dict[str, int], steps: int, dropped: set[int], random_: random.Random
) -> None:
    arriving = {
        name: [observation(name, last, n) for last in range(n - 1, steps, n) if n > 1 or last not in dropped]
        for name, n in lengths.items()
    }
    expected = {
        last: [name for name in lengths if any(each.last == last for each in arriving[name])] for last in range(steps)
    }
    lockstep, ticks = Lockstep(lengths), []
    queues = {name: list(each) for name, each in arriving.items() if each}
    while queues:
        name = random_.choice(sorted(queues))
        ticks += lockstep.add([queues[name].pop(0)])
        queues = {name: queue for name, queue in queues.items() if queue}
    ticks += lockstep.finish()
    assert shape(ticks) == [(last, names) for last, names in expected.items() if names]


def test_a_row_waits_for_no_window_that_ends_later() -> None:
    lockstep = Lockstep({"window": 100, "row": 1})
    assert shape(lockstep.add([observation("row", 98)])) == [(98, ["row"])]
    assert lockstep.add([observation("row", 99)]) == []
    assert shape(lockstep.add([observation("window", 99, 100)])) == [(99, ["window", "row"])]
    assert shape(lockstep.add([observation("row", 100)])) == [(100, ["row"])]


def test_an_operator_that_was_stopped_holds_nobody_back() -> None:
    lockstep = Lockstep({"a": 1, "b": 1})
    assert lockstep.add([observation("a", 0), observation("a", 1)]) == []
    assert shape(lockstep.fail("b")) == [(0, ["a"]), (1, ["a"])]
    assert shape(lockstep.add([observation("a", 2)])) == [(2, ["a"])]
    assert lockstep.add([observation("b", 2)]) == []
