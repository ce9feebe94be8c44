# SPDX-License-Identifier: Apache-2.0
"""What the ranks' blocks bring of a selection is what NumPy's slices take of the whole array, however it is cut up."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from insitu.model import Variable
from insitu.plan import Piece, Site, fault_of_cover, parts_by_rank
from insitu.selection import cut, faults_of_selection, selected
from insitu.wire.blocks import Range

ends = st.none() | st.integers(-14, 14)
DIMS = ("y", "x")


def slice_of(one: Range) -> slice:
    return slice(one.start, one.stop, one.step)


@st.composite
def selections(draw: st.DrawFn, dims: tuple[str, ...] = DIMS) -> list[Range]:
    some = draw(st.lists(st.sampled_from(dims), unique=True))
    return [Range(dim, draw(ends), draw(ends), draw(st.integers(1, 6))) for dim in some]


def partition(draw: st.DrawFn, length: int, parts: int) -> list[tuple[int, int]]:
    inner = sorted(draw(st.lists(st.integers(0, length), min_size=parts - 1, max_size=parts - 1)))
    return list(pairwise([0, *inner, length]))


@given(st.data(), selections())
def test_blocks_of_any_ranks_and_nodes_make_up_the_sliced_whole(data: st.DataObject, select: list[Range]) -> None:
    shape = (data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12)))
    whole = np.arange(np.prod(shape)).reshape(shape)
    variable = Variable("u", whole.dtype, shape, DIMS)
    by_dim = {one.dim: slice_of(one) for one in select}
    expected = whole[tuple(by_dim.get(dim, slice(None)) for dim in DIMS)]
    faults = faults_of_selection(variable, select)
    assert bool(faults) == (expected.size == 0)
    if faults:
        return
    assert selected(variable, select).shape == expected.shape
    rows = data.draw(st.integers(1, 4))
    blocks = [
        ((y, x), (y_end - y, x_end - x))
        for y, y_end in partition(data.draw, shape[0], rows)
        for x, x_end in partition(data.draw, shape[1], data.draw(st.integers(1, 2)))
    ]
    plan = parts_by_rank([Site("n0")] * len(blocks), [Site("n0")] * data.draw(st.integers(1, 2)))
    found, pieces = np.full(expected.shape, -1), []
    for rank, (start, count) in enumerate(blocks):
        part = cut(variable, select, start, count)
        block = whole[tuple(slice(first, first + n) for first, n in zip(start, count, strict=True))][part.cells]
        assert block.shape == part.count
        pieces.append(Piece(rank, part.start, part.count))
        for share in plan[rank]:  # the rows that a staging node gets
            some = share.rows(part.count[0])
            place = slice(part.start[0] + some.start, part.start[0] + some.stop)
            found[place, part.start[1] : part.start[1] + part.count[1]] = block[some]
    np.testing.assert_array_equal(found, expected)
    assert fault_of_cover(expected.shape, pieces) is None


@given(selections(("axis", "kind")), st.integers(0, 5))
def test_rows_of_joined_variables_keep_their_number(select: list[Range], rows: int) -> None:
    variable = Variable("v", np.dtype("f4"), None, ("atom", "axis", "kind"), row=(5, 4))
    data = np.arange(rows * 20).reshape(rows, 5, 4)
    by_dim = {one.dim: slice_of(one) for one in select}
    expected = data[:, by_dim.get("axis", slice(None)), by_dim.get("kind", slice(None))]
    if faults_of_selection(variable, select):
        assert 0 in expected.shape[1:]
        return
    part = cut(variable, select, (0, 0, 0), (0, 5, 4))
    assert part.start == (0, 0, 0)
    assert part.count == (0, *expected.shape[1:]) == (0, *selected(variable, select).row)
    np.testing.assert_array_equal(data[part.cells], expected)


def test_each_misfit_is_told_by_its_dim() -> None:
    field = Variable("u", np.dtype("f8"), (6, 8), DIMS)
    atoms = Variable("v", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
    assert faults_of_selection(field, [Range("z", 0, 1, 1), Range("x", 8, None, 1)]) == {
        "z": 'the dims of "u" are y, x',
        "x": 'it selects none of the 8 cells that "u" has along x',
    }
    assert "joined along atom" in faults_of_selection(atoms, [Range("atom", None, None, 2)])["atom"]
    assert faults_of_selection(Variable("E", np.dtype("f8"), (), ()), [Range("x", 0, 1, 1)]) == {
        "x": 'the dims of "E" are none'
    }


def test_of_nothing_nothing_can_be_selected_without_a_fault() -> None:
    empty = Variable("u", np.dtype("f8"), (0, 4), DIMS)
    select = [Range("y", None, None, 2)]
    assert faults_of_selection(empty, select) == {}
    assert selected(empty, select).shape == (0, 4)
