# SPDX-License-Identifier: Apache-2.0
"""What a contract sends of a block: which cells, in which dtype, and what it says of numbers that do not fit."""

import numpy as np
import pytest

from insitu.client.contract import Contract, Sent
from insitu.model import Array, Variable
from insitu.wire.blocks import Range
from insitu.wire.messages import Event, Message, Need


def meet(need: Need, array: Array, said: list[Message] | None = None) -> tuple[Sent, Array]:
    """Return what a contract makes of a whole array, and what arrives."""
    contract = Contract(0, [need], ([] if said is None else said).append)
    dims = tuple(f"dim_{axis}" for axis in range(array.ndim))
    variable = Variable("u", array.dtype, array.shape, dims)
    sent = contract.sent(variable, (0,) * array.ndim, array.shape)
    assert sent is not None
    arrived = np.empty(sent.spec.count, sent.spec.variable.dtype)
    for step in (7, 8):
        with contract.watched(sent.spec.variable, step):
            np.copyto(arrived, sent.of(array), casting="same_kind")
    return sent, arrived


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "i8", "c16", "?"])
def test_only_floats_are_narrowed_and_as_numpy_rounds_them(kind: str, dtype: str) -> None:
    array = np.random.default_rng(0).normal(size=(5, 4)).astype(kind)
    sent, arrived = meet(Need("u", (), dtype, "none", 0.0), array)
    narrows = kind.startswith("f") and np.dtype(dtype).itemsize < array.itemsize
    assert sent.narrows is narrows
    assert sent.as_put is not narrows
    expected = array.astype(dtype) if narrows else array
    assert arrived.dtype == expected.dtype
    np.testing.assert_array_equal(arrived, expected)


def test_selection_and_dtype_come_together() -> None:
    array = np.arange(42.0).reshape(6, 7) / 3
    _, arrived = meet(Need("u", (Range("dim_1", 1, None, 2),), "float32", "none", 0.0), array)
    np.testing.assert_array_equal(arrived, array[:, 1::2].astype("f4"))


def test_numbers_that_become_infinite_are_told_of_once() -> None:
    said: list[Message] = []
    _, arrived = meet(Need("u", (), "float16", "none", 0.0), np.array([1.0, 70000.0, -70000.0]), said)
    np.testing.assert_array_equal(arrived, [1.0, np.inf, -np.inf])
    [event] = said
    assert isinstance(event, Event)
    assert (event.kind, event.details) == ("overflow", {"variable": "u", "step": 7, "dtype": "float16"})


def test_what_was_infinite_before_is_no_overflow() -> None:
    said: list[Message] = []
    meet(Need("u", (), "float16", "none", 0.0), np.array([np.inf, np.nan, 1e-30]), said)
    assert said == []


def test_steps_are_wanted_by_their_sequence() -> None:
    contract = Contract(0, [Need("u", (), "", "none", 0.0, Range("step", 2, 9, 3))], lambda message: None)
    assert [sequence for sequence in range(12) if contract.wants("u", sequence)] == [2, 5, 8]
    assert contract.wants("v", 3)
