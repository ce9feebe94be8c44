# SPDX-License-Identifier: Apache-2.0
"""What one rank alone can see to be wrong is said at the put, with variable, rank, step, value and cure."""

from typing import Any

import numpy as np
import pytest

from insitu.client.catalogue import Catalogue, Put
from insitu.client.contract import Contract
from insitu.errors import LocalProtocolError
from insitu.wire.messages import Message, Need, Offer


def a_put(data: Any, **given: Any) -> tuple[Any, Put]:
    defaults: dict[str, Any] = {"start": None, "shape": None, "dims": None, "units": "", "long_name": "", "halo": 0}
    return data, Put(**{**defaults, **given})


def a_catalogue(rank: int = 0, said: list[Message] | None = None) -> Catalogue:
    needs = [Need("u", (), "", "none", 0.0), Need("energy", (), "", "none", 0.0)]
    return Catalogue(rank, Contract(rank, needs, ([] if said is None else said).append))


def admit(catalogue: Catalogue, put: tuple[Any, Put], name: str = "u", step: int = 7) -> Any:
    known, data = catalogue.admit(name, *put, step)
    assert known.sent is not None
    return known.sent.spec, known.sent.spec_id, data


def test_a_global_block_keeps_its_place() -> None:
    spec, _, data = admit(a_catalogue(), a_put(np.ones((2, 3)), start=(4, 0), shape=(6, 3), dims=("y", "x"), units="m"))
    assert (spec.start, spec.count, spec.variable.shape) == ((4, 0), (2, 3), (6, 3))
    assert spec.variable.dims == ("y", "x")
    assert data.shape == (2, 3)


def test_without_a_shape_blocks_are_joined_and_rows_may_change() -> None:
    catalogue = a_catalogue()
    spec, first, _ = admit(catalogue, a_put(np.ones((5, 3))))
    assert spec.variable.joined
    assert spec.count == (0, 3)
    again, second, data = admit(catalogue, a_put(np.ones((9, 3))))
    assert (again, second) == (spec, first)
    assert data.shape == (9, 3)


@pytest.mark.parametrize("halo", [1, (1, 1), ((1, 1), (1, 1))])
def test_halo_cells_are_cut_off_before_anything_else(halo: Any) -> None:
    array = np.arange(30.0).reshape(5, 6)
    put = a_put(array, start=(0, 0), shape=(3, 4), halo=halo)
    catalogue = a_catalogue()
    for _ in range(2):  # the second put takes the short way
        spec, _, data = admit(catalogue, put)
        np.testing.assert_array_equal(data, array[1:-1, 1:-1])
        assert spec.count == (3, 4)


def test_a_one_sided_halo() -> None:
    _, _, data = admit(a_catalogue(), a_put(np.arange(5.0), start=(0,), shape=(4,), halo=((0, 1),)))
    np.testing.assert_array_equal(data, np.arange(4.0))


def test_empty_blocks_and_scalars_are_legal() -> None:
    spec, _, data = admit(a_catalogue(), a_put(np.empty((0, 4)), start=(2, 0), shape=(2, 4)))
    assert spec.count == (0, 4)
    assert data.size == 0
    spec, _, _ = admit(a_catalogue(), a_put(3), "energy")
    assert spec.variable.shape == ()
    assert not spec.variable.joined


@pytest.mark.parametrize(
    ("put", "says"),
    [
        (a_put(["a"]), "cannot be published"),
        (a_put(np.ones(3, np.longdouble)), "cannot be published"),
        (a_put(np.ones(3), dims=("x\n",)), "is no name"),
        (a_put(np.ones(3), shape=(4,)), "say where it begins"),
        (a_put(np.ones(3), start=(0,)), "needs the global shape"),
        (a_put(np.ones(3), start=(2,), shape=(4,)), "reaches beyond"),
        (a_put(np.ones(3), start=(-1,), shape=(4,)), "at least 0"),
        (a_put(np.ones(3), start=(0.5,), shape=(4,)), "at least 0"),
        (a_put(np.ones(3), start=(0, 0), shape=(4, 4)), "differ in length"),
        (a_put(np.ones((3, 3)), dims=("x",)), "2 different names"),
        (a_put(np.ones((3, 3)), dims=("x", "x")), "2 different names"),
        (a_put(np.ones(3), start=(0,), shape=(1,), halo=2), "halo 2 does not fit"),
        (a_put(np.ones((3, 3)), halo=(1,)), "1 entries for 2"),
    ],
)
def test_a_put_that_can_never_be_right(put: Put, says: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"put of 'u' by rank 3 at step 7: .*" + says):
        admit(a_catalogue(3), put)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (a_put(np.ones(4, "f4"), shape=(4,)), "dtype changed"),
        (a_put(np.ones(4), shape=(4,), units="m"), "units changed"),
        (a_put(np.ones(5), shape=(5,)), "shape changed"),
        (a_put(np.ones(4)), "shape changed"),
        (a_put(np.ones(4), shape=(4,), dims=("y",)), "dims changed"),
    ],
)
def test_a_variable_does_not_change_in_mid_run(now: Put, says: str) -> None:
    catalogue = a_catalogue()
    admit(catalogue, a_put(np.ones(4), shape=(4,)))
    with pytest.raises(LocalProtocolError, match=says):
        admit(catalogue, now)
    admit(catalogue, a_put(np.ones(4), shape=(4,)))  # what was right stays right


def test_a_block_may_move_and_equal_places_have_equal_numbers() -> None:
    catalogue = a_catalogue()
    numbers = [admit(catalogue, a_put(np.ones(2), start=(k,), shape=(4,)))[1] for k in (0, 2, 0)]
    assert numbers[0] == numbers[2] != numbers[1]


def test_what_nobody_needs_is_checked_and_offered_once_but_not_sent() -> None:
    said: list[Message] = []
    catalogue = a_catalogue(0, said)
    for _ in range(2):
        known, _ = catalogue.admit("idle", *a_put(np.ones(4), shape=(4,)), 7)
        assert known.sent is None
    assert said == [Offer(known.variable)]
    with pytest.raises(LocalProtocolError, match="shape changed"):
        catalogue.admit("idle", *a_put(np.ones(5), shape=(5,)), 8)
