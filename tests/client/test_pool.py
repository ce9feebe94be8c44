# SPDX-License-Identifier: Apache-2.0
"""Slots never overlap, never leave the arena, and all of it can be had again once they are given back."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from insitu.client.pool import ALIGNMENT, Pool, Slot

ARENA = 64 * ALIGNMENT


@given(st.lists(st.tuples(st.booleans(), st.integers(0, ARENA // 3), st.integers(0, 100)), max_size=60))
def test_slots_are_disjoint_and_nothing_is_lost(moves: list[tuple[bool, int, int]]) -> None:
    pool = Pool(np.zeros(ARENA, np.uint8))
    taken: list[Slot] = []
    for take, nbytes, which in moves:
        if take:
            slot = pool.take(nbytes)
            if slot is not None:
                taken.append(slot)
                assert nbytes <= slot.nbytes
                assert slot.offset + slot.nbytes <= ARENA
                assert slot.offset % ALIGNMENT == 0
        elif taken:
            pool.give(taken.pop(which % len(taken)))
        spans = sorted((slot.offset, slot.offset + slot.nbytes) for slot in taken)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
        assert pool.taken_bytes == sum(slot.nbytes for slot in taken)
    for slot in taken:
        pool.give(slot)
    assert pool.take(ARENA) == Slot(0, ARENA)


def test_the_lowest_slot_is_used_again_first() -> None:
    pool = Pool(np.zeros(ARENA, np.uint8))
    slots = [pool.take(ALIGNMENT) for _ in range(4)]
    assert slots[0] is not None
    assert slots[2] is not None
    pool.give(slots[2])
    pool.give(slots[0])
    assert pool.take(1) == slots[0]


def test_what_is_larger_than_the_arena_never_fits() -> None:
    pool = Pool(np.zeros(ARENA + 7, np.uint8))
    assert pool.could_fit(ARENA)
    assert not pool.could_fit(ARENA + 1)


def test_arrays_of_any_shape_and_dtype_lie_in_their_slot() -> None:
    pool = Pool(np.zeros(ARENA, np.uint8))
    pool.take(1)
    for dtype, count in (("f8", (3, 4)), ("c16", (2,)), ("i2", ()), ("f4", (0, 5)), ("?", (7,))):
        slot = pool.take(np.dtype(dtype).itemsize * int(np.prod(count)))
        assert slot is not None
        array = pool.array(slot, np.dtype(dtype), count)
        assert (array.shape, array.dtype) == (count, np.dtype(dtype))
        array[...] = 1
        assert array.flags.aligned
