# SPDX-License-Identifier: Apache-2.0
"""What a picture becomes for who is attached; ``docs/attach.md`` attaches to a run that goes on."""

from pathlib import Path

import numpy as np
import pytest

import insitu
from insitu.attaching.run import _array
from insitu.dashboard.pictures import assembled, ranges_of
from insitu.errors import LocalProtocolError, RunError
from insitu.model import Array, Block, Step, Variable
from insitu.staging.assembler import ReadyStep
from insitu.staging.glimpses import Glimpses
from insitu.staging.retained import Retained
from insitu.wire.viewing import Peek, Sight

U = Variable("u", np.dtype("f8"), (6, 8), ("y", "x"), "K", "temperature")
WHOLE = np.arange(48.0).reshape(6, 8)


def seen(select: dict[str, int | slice], most: int, variable: Variable = U, data: Array = WHOLE) -> Sight:
    """What one staging node shows of a step of two ranks."""
    glimpses = Glimpses(Retained(0))
    glimpses.ask(Peek(1, variable.name, ranges_of(select), most))
    blocks = {
        rank: {variable.name: Block(variable, (3 * rank, 0), part)} for rank, part in enumerate((data[:3], data[3:]))
    }
    [glimpse] = glimpses.of([ReadyStep(Step(4, 40, 0.4), blocks, {})])
    fields = ("variable", "sequence", "index", "time", "stride", "pieces", "why", "retained", "buffers")
    return Sight(1, 1, *(getattr(glimpse, field) for field in fields))


@pytest.mark.parametrize(
    ("select", "most", "cells"),
    [
        ({}, 48, np.s_[:, :]),
        ({}, 12, np.s_[::2, ::2]),
        ({"y": 4}, 8, np.s_[4, :]),
        ({"x": -7}, 3, np.s_[::2, 1]),
        ({"y": slice(1, None, 2), "x": slice(2, 7)}, 6, np.s_[1::4, 2:7:2]),
    ],
)
def test_a_picture_has_the_cells_and_their_indices(
    select: dict[str, int | slice], most: int, cells: tuple[slice, slice]
) -> None:
    array = _array("u", assembled([seen(select, most)], select), select)
    np.testing.assert_array_equal(array, WHOLE[cells])
    assert (array.name, array.attrs) == ("u", {"units": "K", "long_name": "temperature"})
    assert (int(array.step), float(array.time)) == (40, 0.4)
    for dim, index in zip("yx", cells, strict=True):
        np.testing.assert_array_equal(array[dim], np.arange(U.shape[U.dims.index(dim)])[index])


def test_of_a_joined_variable_there_are_rows_without_indices() -> None:
    particles = Variable("p", np.dtype("f8"), None, ("particle", "axis"), row=(8,))
    array = _array("p", assembled([seen({}, 48, particles)], {}), {})
    assert sorted(map(tuple, array.values)) == sorted(map(tuple, WHOLE))
    assert set(array.coords) == {"step", "time"}


def test_what_cannot_be_seen_is_said() -> None:
    with pytest.raises(LocalProtocolError, match="'u' cannot be seen: the dims of \"u\" are y, x"):
        _array("u", assembled([seen({"z": 1}, 48)], {"z": 1}), {"z": 1})


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Cannot read the contact file .*contact\.json"):
        insitu.attach(tmp_path)
