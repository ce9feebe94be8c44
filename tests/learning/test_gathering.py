# SPDX-License-Identifier: Apache-2.0
"""Whole steps from the parts that staging nodes send."""

import numpy as np
import pytest

from insitu.learning.gathering import Gathering
from insitu.model import Array, Variable
from insitu.wire.blocks import BlockSpec
from insitu.wire.learning import Lesson

FIELD = Variable("u", np.dtype("f8"), (4, 3), ("y", "x"))
ROWS = Variable("v", np.dtype("f8"), None, ("particle", "axis"), row=(2,))


def lesson(sequence: int, *parts: tuple[int, Variable, tuple[int, ...], Array]) -> Lesson:
    blocks = []
    for rank, variable, start, data in parts:
        blocks.append((rank, BlockSpec(variable, start, (0, *data.shape[1:]) if variable.joined else data.shape)))
    return Lesson(sequence, 10 * sequence, 0.5 * sequence, tuple(blocks), tuple(data for *_, data in parts))


@pytest.mark.parametrize("first", [0, 1])
def test_parts_of_two_nodes_make_the_whole_in_whatever_order_they_come(first: int) -> None:
    u, v = np.arange(12.0).reshape(4, 3), np.arange(10.0).reshape(5, 2)
    lessons = {
        0: lesson(0, (0, FIELD, (0, 0), u[:1]), (1, FIELD, (1, 0), u[1:3]), (0, ROWS, (0, 0), v[:2])),
        1: lesson(0, (1, FIELD, (3, 0), u[3:]), (1, ROWS, (0, 0), v[2:])),
    }
    gathering = Gathering([0, 1], ["u", "v"])
    gathering.add(first, lessons[first])
    assert gathering.next() is None
    gathering.add(1 - first, lessons[1 - first])
    found = gathering.next()
    assert found is not None
    sequence, taken = found
    assert taken is not None
    assert (sequence, taken.step.index, taken.step.time) == (0, 0, 0.0)
    np.testing.assert_array_equal(taken.fields["u"], u)
    np.testing.assert_array_equal(taken.fields["v"], v)
    assert gathering.variables == {"u": FIELD, "v": ROWS}
    assert gathering.next() is None


def test_a_step_without_one_of_the_variables_is_left_out_and_counted() -> None:
    u = np.ones((4, 3))
    gathering = Gathering([0], ["u"])
    for sequence, parts in ((0, ()), (1, ((0, FIELD, (0, 0), u),)), (2, ((0, ROWS, (0, 0), np.ones((4, 2))),))):
        gathering.add(0, lesson(sequence, *parts))
    found = [gathering.next() for _ in range(4)]
    assert [each and (each[0], each[1] is None) for each in found] == [(0, True), (1, False), (2, True), None]
    assert gathering.left_out == 2


def test_what_is_sent_again_after_a_restart_counts_once() -> None:
    gathering = Gathering([0, 1], ["u"])
    u = np.ones((4, 3))
    for sequence in (5, 6):
        gathering.add(0, lesson(sequence, (0, FIELD, (0, 0), u[:2])))
    gathering.add(1, lesson(6, (1, FIELD, (2, 0), u[2:])))  # the node's step 5 was taken before the restart
    found = gathering.next()
    assert found is not None
    assert found[0] == 6
    assert gathering.next() is None
