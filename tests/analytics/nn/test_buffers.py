# SPDX-License-Identifier: Apache-2.0
"""The laws of buffers, under any order of puts and gets."""

import os
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.nn.buffers import KINDS, OVERHEAD, Buffer, Fifo, Firo, Reservoir
from analytics.nn.specs import Spill
from analytics.nn.spilling import INDEX
from insitu.errors import OperatorError

COLUMNS = {"x": ((3,), np.dtype("f4")), "y": ((), np.dtype("i8"))}
ROW = 3 * 4 + 8 + OVERHEAD


def a_buffer(kind: str, slots: int, batch: int, **options: Any) -> Buffer:
    return KINDS[kind](COLUMNS, slots * ROW, batch, **options)


def spilling(kind: str, slots: int, memory: int, batch: int, **options: Any) -> Buffer:
    """A buffer of so many slots, of which so many are in memory."""
    more, row = slots - memory, ROW - OVERHEAD
    spill = Spill(capacity=more * row)
    return KINDS[kind](COLUMNS, memory * ROW + more * (OVERHEAD + INDEX), batch, spill=spill, **options)


def put(buffer: Buffer, first: int, number: int) -> int:
    ids = np.arange(first, first + number, dtype=np.uint32)
    return buffer.put(ids, {"x": np.repeat(ids, 3).reshape(-1, 3).astype("f4"), "y": ids.astype("i8")})


#: kind, slots, batch, threshold above a batch, reuse, and what is done: puts of so many, or a batch.
CASES = st.tuples(
    st.sampled_from(["fifo", "firo", "reservoir"]),
    st.integers(5, 24),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 4),
    st.lists(st.one_of(st.integers(1, 9), st.none()), max_size=60),
    st.integers(0, 3),
)


@given(CASES)
def test_laws(case: tuple[str, int, int, int, int, list[int | None], int]) -> None:
    kind, slots, batch, above, reuse, actions, seed = case
    max_reuse = 1 if kind == "fifo" else reuse
    buffer = a_buffer(kind, slots, batch, threshold=min(batch + above, slots - 1), max_reuse=max_reuse, seed=seed)
    assert buffer.nbytes <= slots * ROW
    came, draws, number = 0, Counter[int](), 0

    def get() -> bool:
        nonlocal number
        ready, held = buffer.ready, buffer.held
        found = buffer.get(number)
        assert (found is not None) == ready
        if found is None:
            assert held <= (0 if buffer.over else buffer.threshold)
            return False
        ids, rows = found
        assert len(set(ids.tolist())) == len(ids) == min(batch, held)
        np.testing.assert_array_equal(rows["y"], ids)
        np.testing.assert_array_equal(rows["x"], np.repeat(ids, 3).reshape(-1, 3))
        if kind == "fifo":
            assert ids.tolist() == list(range(sum(draws.values()), sum(draws.values()) + len(ids)))
        draws.update(ids.tolist())
        number += 1
        return True

    for action in actions:
        if action is None:
            get()
        else:
            room = buffer.room
            taken = put(buffer, came, action)
            assert taken == min(action, room)
            came += taken
        assert buffer.held <= slots
        # A sample that no batch has held is still there: nothing was lost to make room.
        assert came - len(draws) <= buffer.held
    buffer.over = True
    while get():
        pass
    assert buffer.drained
    assert not buffer.held
    assert set(draws) == set(range(came)), "every sample is drawn at least once"
    assert all(1 <= count <= max_reuse for count in draws.values())
    if kind == "firo":
        assert all(count == max_reuse for count in draws.values())
    assert buffer.received == came
    assert buffer.drawn == sum(draws.values())


@given(st.sampled_from(["fifo", "firo", "reservoir"]), st.integers(0, 30))
def test_a_loaded_buffer_goes_on_as_the_one_that_was_saved(kind: str, before: int) -> None:
    reuse = {"fifo": 1, "firo": 3, "reservoir": 5}[kind]

    def run(interrupted: bool) -> list[list[int]]:
        buffer, came, found = a_buffer(kind, 12, 3, max_reuse=reuse, seed=1), 0, []
        for number in range(40):
            if interrupted and number == before:
                again = a_buffer(kind, 12, 3, max_reuse=reuse, seed=1)
                again.load(buffer.state())
                buffer = again
            came += put(buffer, came, 1 + number % 3)
            drawn = buffer.get(number)
            found.append([] if drawn is None else drawn[0].tolist())
        return found

    assert run(interrupted=True) == run(interrupted=False)


def test_draws_are_uniform_over_what_is_held() -> None:
    reservoir = a_buffer("reservoir", 40, 4)
    put(reservoir, 0, 20)
    counts = Counter[int]()
    for number in range(2000):
        found = reservoir.get(number)
        assert found is not None
        counts.update(found[0].tolist())
    expected = 2000 * 4 / 20
    chi_squared = sum((counts[k] - expected) ** 2 / expected for k in range(20))
    assert chi_squared < 43.8  # 19 degrees of freedom, 1 in 1,000


def test_a_reservoir_keeps_a_network_busy_that_is_faster_than_the_stream() -> None:
    """Melissa's comparison: a stream four times slower than training, in ticks."""

    def stalls(buffer: Buffer) -> int:
        came = waited = number = 0
        for tick in range(8000):
            came += put(buffer, came, 1) if tick % 4 == 0 else 0
            if buffer.get(number) is None:
                waited += 1
            else:
                number += 1
        return waited

    assert stalls(a_buffer("firo", 600, 1, threshold=100)) > 6000
    assert stalls(a_buffer("reservoir", 600, 1, threshold=100)) == pytest.approx(400, abs=10)


def test_a_full_reservoir_evicts_only_what_was_drawn() -> None:
    reservoir = a_buffer("reservoir", 8, 2, threshold=2)
    assert isinstance(reservoir, Reservoir)
    assert put(reservoir, 0, 100) == 8
    assert reservoir.room == 0
    found = reservoir.get(0)
    assert found is not None
    assert reservoir.room == 2
    assert put(reservoir, 8, 5) == 2
    assert not set(found[0].tolist()) & set(reservoir.state()["ids"].tolist())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fifo(COLUMNS, 3 * ROW, 4), "holds 3 samples of 20 B, which must be more than its threshold"),
        (lambda: Firo(COLUMNS, 9 * ROW, 4, threshold=1), "threshold: 1 samples make no batch of 4; take 3 or more"),
        (lambda: Fifo(COLUMNS, 9 * ROW, 4, max_reuse=2), "max_reuse: 2 has no meaning for fifo"),
    ],
)
def test_what_cannot_work_is_refused(make: Any, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        make()


def test_a_state_that_does_not_fit_is_refused() -> None:
    large, small = a_buffer("firo", 20, 2), a_buffer("firo", 10, 2)
    put(large, 0, 20)
    with pytest.raises(OperatorError, match="a checkpoint of 20 samples does not fit a buffer of 10"):
        small.load(large.state())


@pytest.mark.parametrize("kind", ["fifo", "firo", "reservoir"])
def test_a_buffer_that_spills_draws_what_one_in_memory_draws(kind: str) -> None:
    """To the last bit, so the draws are as uniform as those are."""
    plain, spills = a_buffer(kind, 200, 16), spilling(kind, 200, 40, 16)
    assert spills.nbytes <= 40 * ROW + 160 * (OVERHEAD + INDEX)
    first = number = 0
    for k in range(60):
        plain.over = spills.over = k > 40
        assert put(plain, first, 40) == put(spills, first, 40)
        first += 40
        for _ in range(1 + k % 3):
            found, same = plain.get(number), spills.get(number)
            number += 1
            assert (found is None) == (same is None)
            if found is not None and same is not None:
                np.testing.assert_array_equal(found[0], same[0])
                for name in COLUMNS:
                    np.testing.assert_array_equal(found[1][name], same[1][name])
    assert spills.spilled_nbytes > 0


def test_a_checkpoint_has_what_is_in_memory() -> None:
    buffer = spilling("reservoir", 60, 20, 4)
    put(buffer, 0, 50)
    buffer.get(0)
    again = spilling("reservoir", 60, 20, 4)
    again.load(buffer.state())
    assert again.held == 20
    assert 0 < again.unseen == buffer.state()["unseen"] <= 20
    ids, rows = again.get(1) or (None, {})
    np.testing.assert_array_equal(rows["y"], ids)


def test_a_disk_that_fails_is_said(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"spill: .*nowhere takes no file"):
        KINDS["firo"](COLUMNS, 4096, 4, spill=Spill(capacity="1 KiB", directory=str(tmp_path / "nowhere")))
    buffer = spilling("firo", 400, 20, 4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OperatorError, match=r"takes no more samples: .*; lower its capacity"):
            put(buffer, 0, 400)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    buffer = spilling("fifo", 40, 20, 4)
    put(buffer, 0, 40)
    os.pwrite(buffer._storage._descriptor, b"!", 3)  # type: ignore[attr-defined]
    assert buffer.get(0) is not None
    with pytest.raises(OperatorError, match="came back damaged"):
        _ = [buffer.get(number) for number in range(10)]
