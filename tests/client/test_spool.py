# SPDX-License-Identifier: Apache-2.0
"""Steps on a disk: the first in is the first out, as it was, within the bytes that there are."""

import os
import resource
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insitu.client.cutting import Filled
from insitu.client.spool import Spool
from insitu.errors import RunError
from insitu.model import Step, Variable
from insitu.wire.messages import BlockSpec

LIMIT = 1000


def step_of(sequence: int, *counts: int) -> tuple[Step, list[Filled]]:
    """A step of some blocks, each of other numbers."""
    blocks = []
    for k, count in enumerate(counts):
        data = np.random.default_rng((sequence, k)).integers(0, 256, count, np.uint8)
        variable = Variable(f"v{k}", data.dtype, (count,), ("x",))
        blocks.append(Filled(BlockSpec(variable, (0,), (count,)), k, None, data))
    return Step(sequence, sequence, float(sequence)), blocks


def taken(spool: Spool) -> tuple[int, list[np.ndarray], bool]:
    """Take the first step out."""
    record = spool.first
    assert record is not None
    into = [np.empty(count, spec.variable.dtype) for spec, _, count in record.blocks]
    whole = spool.read(into)
    assert spool.forget(record.step.sequence)
    return record.step.sequence, into, whole


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    one = Spool(str(tmp_path), LIMIT)
    yield one
    one.close()
    one.close()


@given(st.lists(st.one_of(st.none(), st.lists(st.integers(0, 400), max_size=3)), max_size=60))
def test_it_is_a_queue_within_its_bytes(orders: list[list[int] | None]) -> None:
    """None takes a step out, a list of counts puts one in. A queue in memory tells what is right."""
    spool, known, sequence = Spool("", LIMIT), deque[tuple[int, list[Filled]]](), 0
    try:
        for counts in orders:
            if counts is not None:
                step, blocks = step_of(sequence, *counts)
                if spool.push(step, blocks):
                    known.append((sequence, blocks))
                else:
                    assert known or sum(counts) > LIMIT
                sequence += 1
            elif known:
                number, blocks = known.popleft()
                got, arrays, whole = taken(spool)
                assert (got, whole) == (number, True)
                for array, block in zip(arrays, blocks, strict=True):
                    np.testing.assert_array_equal(array, block.data)
            assert len(spool) == len(known)
            assert spool.nbytes == sum(block.data.nbytes for _, blocks in known for block in blocks) <= LIMIT
            assert os.fstat(spool._file.fileno()).st_size <= LIMIT
    finally:
        spool.close()


def test_what_is_taken_out_makes_room_again_and_again(spool: Spool) -> None:
    for sequence in range(50):
        assert spool.push(*step_of(sequence, 300))
        assert spool.push(*step_of(100 + sequence, 300))
        assert [taken(spool)[0] for _ in range(2)] == [sequence, 100 + sequence]
    assert os.fstat(spool._file.fileno()).st_size == 0
    assert spool.counters == {"spilled": 100, "spilled_bytes": 30_000, "spill_peak_bytes": 600}


def test_the_file_has_no_name(spool: Spool, tmp_path: Path) -> None:
    assert spool.push(*step_of(0, 100))
    assert list(tmp_path.iterdir()) == []


def test_what_comes_back_otherwise_than_it_went_is_told(spool: Spool) -> None:
    for sequence in range(3):
        assert spool.push(*step_of(sequence, 100, 50))
    os.pwrite(spool._file.fileno(), b"\xff\x00", 148)
    os.ftruncate(spool._file.fileno(), 400)
    assert [taken(spool)[2] for _ in range(3)] == [False, True, False]


def test_a_step_in_the_middle_is_forgotten(spool: Spool) -> None:
    for sequence in range(3):
        assert spool.push(*step_of(sequence, 100))
    assert spool.forget(1)
    assert not spool.forget(1)
    assert [taken(spool)[0] for _ in range(2)] == [0, 2]


def test_a_full_disk_takes_the_step_whole_or_not_at_all(spool: Spool) -> None:
    """No file of this process may have more than 250 bytes for a while."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250, before[1]))
    try:
        assert spool.push(*step_of(0, 200))
        assert not spool.push(*step_of(1, 30, 30))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert spool.why == f"its spill in {spool.directory} takes no more (File too large)"
    assert spool.push(*step_of(2, 30, 30))
    assert [(number, whole) for number, _, whole in (taken(spool), taken(spool))] == [(0, True), (2, True)]


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be spilled to /.*nowhere .* variables\.'\*'\.spill_directory"):
        Spool(str(tmp_path / "nowhere"), LIMIT)
