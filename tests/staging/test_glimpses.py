# SPDX-License-Identifier: Apache-2.0
"""Pictures of a step: the thinned parts of all blocks make up what slicing the whole array gives."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu.model import Array, Block, Step, Variable
from insitu.staging import glimpses as module
from insitu.staging.assembler import ReadyStep
from insitu.staging.glimpses import WAITING, Glimpses
from insitu.staging.retained import Retained
from insitu.wire.blocks import Range
from insitu.wire.viewing import NEWEST, Glimpse, Peek


def everything(variable: str) -> bool:
    return True


def step_of(*blocks: Block, sequence: int = 3) -> ReadyStep:
    parts = {rank: {block.variable.name: block} for rank, block in enumerate(blocks)}
    return ReadyStep(Step(sequence, 10 * sequence, 0.5), parts, {})


def look(blocks: list[Block], **peek: object) -> Glimpse:
    glimpses = Glimpses(Retained(0), everything)
    glimpses.ask(Peek(**{"number": 1, "variable": "u", "select": (), "most": 1 << 20} | peek))  # type: ignore[arg-type]
    [glimpse] = glimpses.of([step_of(*blocks)])
    return glimpse


def assembled(glimpse: Glimpse, shape: tuple[int, ...]) -> Array:
    """Put the pieces together, each cell once."""
    whole = np.full(shape, np.nan, np.float32)
    for (start, count), piece in zip(glimpse.pieces, glimpse.buffers, strict=True):
        where = tuple(slice(low, low + length) for low, length in zip(start, count, strict=True))
        assert np.all(np.isnan(whole[where]))
        whole[where] = piece
    assert not np.any(np.isnan(whole))
    return whole


def cut(field: Array, cuts: list[int], **changes: object) -> list[Block]:
    dims = ("y", "x", "z")[: field.ndim]
    variable = Variable("u", field.dtype, field.shape, dims, **changes)  # type: ignore[arg-type]
    edges = [0, *sorted(cuts), len(field)]
    return [Block(variable, (low, *(0,) * (field.ndim - 1)), field[low:high]) for low, high in pairwise(edges)]


@settings(max_examples=60)
@given(st.integers(1, 30), st.integers(1, 30), st.lists(st.integers(0, 30), max_size=4), st.integers(1, 200))
def test_the_pieces_of_all_blocks_are_the_field_with_strides(
    rows: int, columns: int, cuts: list[int], most: int
) -> None:
    field = np.arange(float(rows * columns)).reshape(rows, columns)
    glimpse = look(cut(field, [min(at, rows) for at in cuts]), most=most)
    y, x = glimpse.stride
    thin = field[::y, ::x]
    assert thin.size <= most
    np.testing.assert_array_equal(assembled(glimpse, thin.shape), thin.astype("f4"))


def test_a_slice_is_taken_from_the_blocks_that_have_it() -> None:
    field = np.arange(6.0 * 4 * 5).reshape(6, 4, 5)
    y, z = Range("y", 4, None, 1), Range("z", -4, -1, 2)
    for select, wanted in (((y,), field[4:]), ((z,), field[:, :, -4:-1:2]), ((y, z), field[4:, :, -4:-1:2])):
        glimpse = look(cut(field, [2, 3]), select=select)
        np.testing.assert_array_equal(assembled(glimpse, wanted.shape), wanted.astype("f4"))


def test_of_particles_every_so_many_are_shown() -> None:
    variable = Variable("u", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
    blocks = [Block(variable, (0, 0), np.full((n, 3), float(n))) for n in (100, 0, 50)]
    glimpse = look(blocks, most=90)
    rows = np.concatenate([np.asarray(piece) for piece in glimpse.buffers])
    assert glimpse.stride == (5, 1)
    assert rows.shape == (30, 3)


@pytest.mark.parametrize(
    ("peek", "why"),
    [
        ({"select": (Range("t", 0, 1, 1),)}, 'the dims of "u" are y, x'),
        ({"select": (Range("y", 6, 7, 1),)}, 'it selects none of the 6 cells that "u" has along y'),
    ],
)
def test_what_cannot_be_shown_is_said(peek: dict[str, object], why: str) -> None:
    glimpse = look(cut(np.zeros((6, 4)), [3]), **peek)
    assert (glimpse.why, glimpse.buffers) == (why, ())


def test_numbers_that_are_no_float32_are_shown_all_the_same() -> None:
    for field, shown in (
        (np.array([3 + 4j, 0]), [5, 0]),
        (np.array([True, False]), [1, 0]),
        (np.array([1e300, -1e300]), [np.inf, -np.inf]),
    ):
        [piece] = look(cut(field, [])).buffers
        assert np.asarray(piece).tolist() == shown


def test_a_single_number_is_one_piece() -> None:
    variable = Variable("u", np.dtype("f8"), (), ())
    glimpse = look([Block(variable, (), np.array(2.5))])
    assert glimpse.pieces == (((), ()),)
    assert np.asarray(glimpse.buffers[0]).tolist() == 2.5


def test_a_look_waits_for_a_step_that_has_the_variable_and_is_answered_once() -> None:
    glimpses = Glimpses(Retained(0), everything)
    [block] = cut(np.zeros((2, 2)), [])
    glimpses.ask(Peek(7, "u", (), 10))
    assert glimpses.of([ReadyStep(Step(0, 0, 0.0), {0: {}}, {})]) == []
    found = glimpses.of([step_of(block, sequence=k) for k in (1, 2)])
    assert [(one.number, one.sequence) for one in found] == [(7, 1)]
    assert glimpses.of([step_of(block)]) == []


def test_a_node_to_which_nobody_sends_the_variable_shows_nothing_of_the_next_step() -> None:
    glimpses = Glimpses(Retained(0), lambda variable: variable == "u")
    [block] = cut(np.zeros((2, 2)), [])
    glimpses.ask(Peek(7, "energy", (), 10))
    [found] = glimpses.of([step_of(block, sequence=k) for k in (1, 2)])
    assert (found.number, found.sequence, found.variable, found.why) == (7, 1, None, "")
    [newest] = glimpses.ask(Peek(8, "energy", (), 10, NEWEST))
    assert (newest.variable, newest.why) == (None, "")


def test_looks_that_nobody_waits_for_are_forgotten() -> None:
    glimpses = Glimpses(Retained(0), everything)
    for number in range(2 * WAITING):
        glimpses.ask(Peek(number, "u", (), 10))
    found = glimpses.of([step_of(*cut(np.zeros((2, 2)), []))])
    assert [one.number for one in found] == list(range(WAITING, 2 * WAITING))


def test_exact_cells_are_those_of_a_retained_step() -> None:
    field, y = np.arange(24, dtype="i2").reshape(6, 4), Range("y", 1, None, 2)
    retained = Retained(1 << 20)
    glimpses = Glimpses(retained, everything)
    peek = Peek(1, "u", (y,), None, 4)
    assert glimpses.ask(peek) == []
    for sequence in (3, 4):
        steps = [step_of(*cut(field + sequence, [2, 3]), sequence=sequence)]
        retained.take(steps)
        found = glimpses.of(steps)
        assert len(found) == sequence - 3
    for glimpse in (*found, *glimpses.ask(peek)):
        assert (glimpse.sequence, glimpse.index) == (4, 40)
        assert all(np.asarray(piece).dtype == np.int16 for piece in glimpse.buffers)
        np.testing.assert_array_equal(assembled(glimpse, (3, 4)), (field + 4)[1::2])
    [told] = glimpses.ask(Peek(2, "u", (), 0))
    assert np.asarray(told.buffers[0]).tolist() == [[3, 30, True], [4, 40, True]]
    assert told.variable is not None
    assert told.variable.shape == (6, 4)


def test_steps_of_which_nodes_that_have_left_had_parts_are_none() -> None:
    retained = Retained(1 << 20)
    retained.take([step_of(*cut(np.zeros((2, 2)), []), sequence=k) for k in range(4)])
    [told] = Glimpses(retained, everything).ask(Peek(1, "u", (), 0, begin=2))
    assert np.asarray(told.buffers[0])[:, 0].tolist() == [2, 3]


def test_more_cells_than_one_message_has_are_said_to_be_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIGHT_BYTES", 100)
    retained = Retained(1 << 20)
    retained.take([step_of(*cut(np.zeros((6, 4)), [3]))])
    [glimpse] = Glimpses(retained, everything).ask(Peek(1, "u", (), None, 0))
    assert glimpse.why == "192 B of it lie on a staging node, which sends 100 B at once; select less"
    assert glimpse.buffers == ()


def test_what_retains_nothing_says_so_at_once() -> None:
    for most in (0, None):
        [glimpse] = Glimpses(Retained(0), everything).ask(Peek(1, "u", (), most, 0))
        assert "staging.retain is 0 B" in glimpse.why


def test_where_the_simulation_stands_still_the_newest_retained_step_can_be_shown() -> None:
    retained = Retained(1 << 20)
    glimpses, newest = Glimpses(retained, everything), Peek(1, "u", (), 10, NEWEST)
    assert glimpses.ask(newest) == []  # then it is the next
    assert [each.sequence for each in glimpses.of([step_of(*cut(np.zeros((2, 2)), []), sequence=2)])] == [2]
    retained.take([step_of(*cut(np.zeros((2, 2)), []), sequence=k) for k in (3, 4)])
    assert [each.sequence for each in glimpses.ask(newest)] == [4]
    assert glimpses.ask(Peek(2, "u", (), 10)) == []


def test_what_is_shown_is_a_copy() -> None:
    field = np.zeros((4, 4), np.float32)
    [piece] = look(cut(field, [])).buffers
    field[:] = 1
    assert not np.any(piece)
