# SPDX-License-Identifier: Apache-2.0
"""Extremes against a sort of everything."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from analytics.extremes import Extremes
from insitu.errors import OperatorError
from insitu.model import Step, Variable
from insitu.operator import Batch
from insitu.testing import batch, check_operator

FIELD = Variable("u", np.dtype("f8"), (6, 11), ("y", "x"), units="m")
SCALAR = Variable("u", np.dtype("f8"), (), ())
ATOMS = Variable("u", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
MASSES = Variable("u", np.dtype("f8"), None, ("atom",))
WAYS = ["space", ["step", "space"]]


def fold(operator, variable, data, start=None, first=0):
    state = operator.update(operator.init(), batch([variable], {"u": data}, start=start, first=first))
    return operator.finalize(state)


def reference(data, k, sign):
    """Return the k best of an array of steps: values, places, steps; of equal ones the first."""
    every = sorted((-sign * value, *at) for at, value in np.ndenumerate(data) if not np.isnan(value))[:k]
    return [-sign * each[0] for each in every], [list(each[2:]) for each in every], [each[1] for each in every]


@pytest.mark.parametrize("variable", [FIELD, replace(FIELD, dtype=np.dtype("u1")), SCALAR, ATOMS, MASSES], ids=str)
@pytest.mark.parametrize("over", WAYS, ids=str)
def test_laws(over, variable):
    check_operator(Extremes(of="u", over=over, largest=4, smallest=3), [variable])


@pytest.mark.parametrize("over", WAYS, ids=str)
@pytest.mark.parametrize("nan", ["propagate", "skip"])
def test_laws_where_many_are_equal_or_nan(over, nan):
    def few(variable, shape, rng):
        return rng.choice([0.0, 1.0, np.nan] if nan == "skip" else [0.0, 1.0], shape)

    check_operator(Extremes(of="u", over=over, largest=50, smallest=2, nan=nan), [FIELD], values=few)


@pytest.mark.parametrize("k", [1, 5, 66, 400])
@pytest.mark.parametrize("kind", ["normal", "few", "constant", "rising"])
def test_equals_a_sort(kind, k):
    rng = np.random.default_rng(1)
    data = {
        "normal": rng.normal(size=(4, 6, 11)),
        "few": rng.integers(0, 4, (4, 6, 11)).astype("f8"),
        "constant": np.zeros((4, 6, 11)),
        "rising": np.arange(4.0 * 66).reshape(4, 6, 11),
    }[kind]
    found = fold(Extremes(of="u", over=["step", "space"], largest=k, smallest=k), FIELD, data)
    for side, sign in (("largest", 1), ("smallest", -1)):
        value, place, step = reference(data, k, sign)
        n = len(value)
        np.testing.assert_array_equal(found[side][:n], value)
        np.testing.assert_array_equal(found[f"{side}_place"][:n], place)
        np.testing.assert_array_equal(found[f"{side}_index"][:n], step)
        assert np.all(np.isnan(found[side][n:]))
        assert np.all(found[f"{side}_place"][n:] == -1)
        assert np.all(found[f"{side}_index"][n:] == -1)


@pytest.mark.parametrize("mean", [0.0, 1e8])
def test_pieces_of_a_large_array(mean):
    data = mean + np.random.default_rng(2).normal(size=(1, 300, 700))
    found = fold(Extremes(of="u", over="space", largest=20, smallest=20), replace(FIELD, shape=(300, 700)), data)
    order = np.argsort(data[0], axis=None)
    np.testing.assert_array_equal(found["largest"], data[0].flat[order[::-1][:20]])
    np.testing.assert_array_equal(found["smallest"], data[0].flat[order[:20]])
    assert np.ravel_multi_index(tuple(found["smallest_place"].T), (300, 700)).tolist() == order[:20].tolist()


def test_places_are_those_of_the_global_array():
    data = np.zeros((1, 2, 3))
    data[0, 1, 2] = 5.0
    operator = Extremes(of="u", over="space", largest=1)
    assert fold(operator, FIELD, data, start={"u": (4, 7)})["largest_place"].tolist() == [[5, 9]]


def test_steps_have_the_index_of_their_author():
    operator = Extremes(of="u", over=["step", "space"], largest=2)
    held = batch([SCALAR], {"u": [3.0, 4.0]})
    steps = Step(0, 100, 0.1), Step(1, 200, 0.2)
    state = operator.update(operator.init(), Batch(steps, held.variables, held.start, held.arrays))
    assert operator.finalize(state)["largest_index"].tolist() == [200, 100]


def test_joined_variables_have_the_place_in_the_row_alone():
    operator = Extremes(of="u", over="space", largest=2)
    found = fold(operator, ATOMS, [[[0.0, 1.0, 2.0], [7.0, 0.0, 0.0]]])
    assert found["largest_place"].tolist() == [[0], [2]]
    assert list(fold(operator, MASSES, [[1.0, 2.0, 3.0]])) == ["largest"] == list(operator.describe({"u": MASSES}))


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "g", "?", "i1", "u2", "i4", "u4", "i8", "u8"])
def test_every_real_dtype(dtype):
    data = np.random.default_rng(3).integers(0, 2 if dtype == "?" else 100, (3, 6, 11)).astype(dtype)
    operator = Extremes(of="u", over=["step", "space"], largest=9, smallest=9)
    found = fold(operator, replace(FIELD, dtype=np.dtype(dtype)), data)
    for side, sign in (("largest", 1), ("smallest", -1)):
        value, place, step = reference(data.astype("f8"), 9, sign)
        assert found[side].tolist() == value
        assert found[f"{side}_place"].tolist() == place
        assert found[f"{side}_index"].tolist() == step


class TestNan:
    data = np.array([[1.0, np.nan, 3.0, np.inf, -np.inf]])
    line = replace(FIELD, shape=(5,), dims=("x",))

    def test_propagate(self):
        found = fold(Extremes(of="u", over="space", largest=2), self.line, self.data)
        assert np.all(np.isnan(found["largest"]))
        assert np.all(found["largest_place"] == -1)

    def test_skip(self):
        found = fold(Extremes(of="u", over="space", largest=5, smallest=2, nan="skip"), self.line, self.data)
        np.testing.assert_equal(found["largest"], [np.inf, 3.0, 1.0, -np.inf, np.nan])
        assert found["largest_place"].tolist() == [[3], [2], [0], [4], [-1]]
        assert found["smallest"].tolist() == [-np.inf, 1.0]

    def test_fail(self):
        with pytest.raises(OperatorError, match=r"'u' is NaN in step 7 at cell \(1,\)"):
            fold(Extremes(of="u", over="space", largest=2, nan="fail"), self.line, self.data, first=7)


@pytest.mark.parametrize("over", WAYS, ids=str)
def test_no_values_leave_nan_and_minus_one(over):
    found = fold(Extremes(of="u", over=over, smallest=2), ATOMS, [np.zeros((0, 3))])
    assert np.all(np.isnan(found["smallest"]))
    assert np.all(found["smallest_place"] == -1)


def test_describe_names_what_is_asked_for():
    described = Extremes(of="u", over=["step", "space"], largest=3).describe({"u": FIELD})
    assert {name: (v.dims, v.shape, v.units) for name, v in described.items()} == {
        "largest": (("nth_largest",), (3,), "m"),
        "largest_place": (("nth_largest", "dimension"), (3, 2), "1"),
        "largest_index": (("nth_largest",), (3,), "1"),
    }
    assert list(Extremes(of="u", over="space", smallest=3).describe({"u": SCALAR})) == ["smallest"]
    with pytest.raises(OperatorError, match="'u' is complex"):
        Extremes(of="u", over="space", largest=1).describe({"u": replace(FIELD, dtype=np.dtype("c8"))})


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "leave nothing to find"),
        ({"largest": -1}, "greater than or equal to 0"),
        ({"largest": 1 << 17}, "less than or equal to 65536"),
        ({"largest": 1, "over": "step"}, "is not possible here"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Extremes(**{"of": "u", "over": "space", **keys})
