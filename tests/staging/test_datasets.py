# SPDX-License-Identifier: Apache-2.0
"""Kept blocks become as few chunks as there are nodes, whatever the ranks; what makes no array says why."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from insitu.config.function import Function
from insitu.errors import OperatorError
from insitu.model import Array, Extent, Step, Variable
from insitu.operator import Batch
from insitu.staging import datasets
from insitu.staging.datasets import Index, chunks_of, index_of, put_together
from insitu.staging.merging import Part

U = Variable("u", np.dtype("f8"), (6, 4), ("y", "x"))
ATOMS = Variable("u", np.dtype("i4"), None, ("atom", "axis"), row=(2,))
FIELD = np.arange(24.0).reshape(6, 4)


def node(of: Variable, blocks: Sequence[tuple[int, int, Extent, Array]], **keys: object) -> list[Part]:
    """The states of a node that kept blocks (rank, step, start, data)."""
    function = Function.model_validate({"use": "a:b", "of": "u", **keys})
    state = function.init()
    for rank, n, start, data in blocks:
        one = Batch((Step(n, 10 * n, float(n)),), {"u": of}, {"u": start}, {"u": (data,)}, rank)
        state = function.merge(function.update(function.init(), one), state)
    return [((), (), state)]


def tiles(rows: Sequence[int], columns: Sequence[int], steps: int = 2) -> list[tuple[int, int, Extent, Array]]:
    grid = [(a, b, c, d) for a, b in pairwise(rows) for c, d in pairwise(columns)]
    return [
        (rank, n, (a, c), FIELD[a:b, c:d] + 100 * n) for n in range(steps) for rank, (a, b, c, d) in enumerate(grid)
    ]


def read(of: Variable, nodes: Sequence[list[Part]]) -> tuple[Array, int]:
    """The whole array as its chunks make it up, and how many there are; their places are those of an array of U's."""
    indices = [index_of(parts) for parts in nodes]
    sequences = sorted({one.sequence for index in indices for one in index.pieces})
    chunks = chunks_of(of, indices, sequences)
    whole = np.full((len(sequences), *(of.shape or ())), np.nan)
    for chunk in chunks:
        start, count = chunk.box
        cells = tuple(slice(low, low + n) for low, n in zip(start, count, strict=True))
        values = put_together(nodes[chunk.node], "u", chunk.sequences, chunk.box, False, of.dtype)
        whole[(slice(sequences.index(chunk.sequences[0]), sequences.index(chunk.sequences[-1]) + 1), *cells)] = values
    return whole, len(chunks)


def test_a_nodes_blocks_are_one_chunk_where_they_fill_a_box() -> None:
    whole, chunks = read(U, [node(U, tiles([0, 1, 3], [0, 2, 4])), node(U, tiles([3, 6], [0, 1, 4]))])
    np.testing.assert_array_equal(whole, [FIELD, FIELD + 100])
    assert chunks == 2


def test_blocks_that_fill_no_box_are_a_chunk_for_each_place() -> None:
    first, *rest = tiles([0, 3, 6], [0, 2, 4], steps=1)
    whole, chunks = read(U, [node(U, [first, rest[0], rest[1]]), node(U, [rest[2]])])
    np.testing.assert_array_equal(whole[0], FIELD)
    assert chunks == 4


def test_chunks_stay_below_a_size_whatever_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "CHUNK_BYTES", 3 * FIELD.nbytes)
    whole, chunks = read(U, [node(U, tiles([0, 6], [0, 4], steps=8))])
    np.testing.assert_array_equal(whole, [FIELD + 100 * n for n in range(8)])
    assert chunks == 3


def test_cells_that_were_lost_are_missing() -> None:
    whole, _ = read(U, [node(U, tiles([0, 2, 6], [0, 4], steps=1)[:1])])
    np.testing.assert_array_equal(whole[0, :2], FIELD[:2])
    assert np.isnan(whole[0, 2:]).all()


def test_blocks_that_move_from_node_to_node_make_no_array() -> None:
    moved = [node(U, [(0, 0, (0, 0), FIELD[:3]), (0, 1, (3, 0), FIELD[3:])]), node(U, [(1, 0, (3, 0), FIELD[3:])])]
    with pytest.raises(OperatorError, match="blocks of 'u' moved within the window"):
        read(U, moved)


def test_rows_follow_each_other_by_rank_and_node() -> None:
    one = [(1, 0, (0, 0), np.full((2, 2), 10)), (0, 0, (0, 0), np.full((1, 2), 5)), (0, 1, (0, 0), np.full((2, 2), 6))]
    two = [(1, 0, (0, 0), np.full((1, 2), 11)), (2, 1, (0, 0), np.full((2, 2), 20))]
    nodes = [node(ATOMS, one), node(ATOMS, two)]
    chunks = chunks_of(ATOMS, [index_of(parts) for parts in nodes], [0, 1])
    assert [(chunk.node, chunk.sequences, chunk.box[1]) for chunk in chunks] == [
        (0, (0,), (3, 2)), (1, (0,), (1, 2)), (0, (1,), (2, 2)), (1, (1,), (2, 2)),
    ]  # fmt: skip
    values = [put_together(nodes[c.node], "u", c.sequences, c.box, True, ATOMS.dtype)[0, :, 0] for c in chunks]
    assert [each.tolist() for each in values] == [[5, 10, 10], [11], [6, 6], [20, 20]]


def test_numbers_of_rows_that_change_make_no_array() -> None:
    parts = node(ATOMS, [(0, 0, (0, 0), np.zeros((2, 2))), (0, 1, (0, 0), np.zeros((3, 2)))])
    with pytest.raises(
        OperatorError, match=r"'u' has 2 rows in one step of the window and 3 in another.*take window: 1"
    ):
        chunks_of(ATOMS, [index_of(parts)], [0, 1])


def test_what_is_not_selected_is_not_kept() -> None:
    parts = node(U, tiles([0, 3, 6], [0, 4]), select={"y": "::4"})
    index: Index = index_of(parts)
    assert sum(np.prod(one.count) for one in index.pieces) == 2 * 2 * 4
    kept = Function(use="a:b", of=("u",), select={"y": "::4"}).kept(U)
    assert kept.shape == (2, 4)
    whole, chunks = read(kept, [parts])
    np.testing.assert_array_equal(whole, [FIELD[::4], FIELD[::4] + 100])
    assert (chunks, index.steps) == (1, {0: (0, 0.0), 1: (10, 1.0)})
