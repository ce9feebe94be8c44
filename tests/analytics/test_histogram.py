# SPDX-License-Identifier: Apache-2.0
"""Histograms against NumPy."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from analytics.histogram import Grid, Histogram
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.testing import batch

FIELD = Variable("u", np.dtype("f8"), (6, 11), ("y", "x"), units="mol/L")
ATOMS = Variable("u", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def fold(operator, variable, *batches):
    state = operator.init()
    for data in batches:
        state = operator.update(state, batch([variable], {"u": data}))
    return operator.finalize(state)


@pytest.mark.parametrize("over", ["space", ["step", "space"]], ids=str)
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (341, 3), (342, 3), (5000, 3)], ids=str)
def test_given_range_equals_numpy(over, shape):
    data = np.random.default_rng(1).normal(size=shape)
    found = fold(Histogram(of="u", over=over, bins=37, range=(-2, 1.5)), ATOMS, [data])
    wanted, edges = np.histogram(data, 37, (-2, 1.5))
    np.testing.assert_array_equal(found["count"], wanted)
    np.testing.assert_allclose(found["edges"], edges, rtol=1e-15)
    assert (found["underflow"], found["overflow"]) == (np.sum(data < -2), np.sum(data > 1.5))


def test_by_cell_equals_numpy():
    data = np.random.default_rng(2).normal(size=(20, 6, 11))
    found = fold(Histogram(of="u", over="step", bins=7, range=(-2, 1.5)), FIELD, data[:9], data[9:])
    for y, x in np.ndindex(6, 11):
        np.testing.assert_array_equal(found["count"][:, y, x], np.histogram(data[:, y, x], 7, (-2, 1.5))[0])
    np.testing.assert_array_equal(found["underflow"], np.sum(data < -2, axis=0))
    np.testing.assert_array_equal(found["overflow"], np.sum(data > 1.5, axis=0))


@pytest.mark.parametrize("dtype", ["f4", ">f4", "?", "i8", "u8"])
def test_every_dtype(dtype):
    data = np.random.default_rng(3).integers(0, 2 if dtype == "?" else 100, (4, 6, 11)).astype(dtype)
    variable = replace(FIELD, dtype=np.dtype(dtype))
    found = fold(Histogram(of="u", over=["step", "space"], bins=8, range=(0, 64)), variable, data)
    np.testing.assert_array_equal(found["count"], np.histogram(data.astype("f8"), 8, (0, 64))[0])


def test_edges_belong_to_the_bin_above_but_the_last_to_the_last():
    found = fold(Histogram(of="u", over="space", bins=4, range=(0, 4)), FIELD, [np.arange(66.0).reshape(6, 11)])
    np.testing.assert_array_equal(found["count"], [1, 1, 1, 2])
    assert found["overflow"] == 61


@pytest.mark.parametrize("range_", [(0.0, 1.0), "auto"])
def test_what_is_not_finite_is_counted_apart(range_):
    data = [[[0.1, 0.2, 0.9], [np.nan, np.inf, -np.inf], [np.nan, -np.inf, np.nan]]]
    found = fold(Histogram(of="u", over="space", bins=8, range=range_), ATOMS, data)
    assert found["count"].sum() == 3
    assert (found["underflow"], found["overflow"], found["nan"]) == (2, 1, 3)


def test_fail_names_variable_step_and_place():
    data = [[[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, np.nan, 0.0]]]
    with pytest.raises(OperatorError, match=r"'u' is NaN in step 1 at row \(1, 1\)"):
        fold(Histogram(of="u", over="space", bins=8, range=(0, 1), nan="fail"), ATOMS, data)


class TestFoundRange:
    """What `range: auto` promises, for any finite numbers."""

    operator = Histogram(of="u", over=["step", "space"], bins=16, range="auto")
    variable = Variable("u", np.dtype("f8"), None, ("n",))

    @given(st.lists(st.lists(FINITE, max_size=5), min_size=1, max_size=5))
    def test_any_order_gives_the_same_which_numpy_gives_too(self, parts):
        found = fold(self.operator, self.variable, *([part] for part in parts))
        for order in itertools.islice(itertools.permutations(parts), 6):
            state = self.operator.init()
            for part in order:
                one = batch([self.variable], {"u": [part]})
                state = self.operator.merge(self.operator.update(self.operator.init(), one), state)
            other = self.operator.finalize(state)
            for name, values in found.items():
                np.testing.assert_array_equal(values, other[name], err_msg=name)
        values = np.array([x for part in parts for x in part])
        assert found["count"].sum() == values.size
        if values.size and np.all(np.isfinite(found["edges"])):
            np.testing.assert_array_equal(found["count"], np.histogram(values, found["edges"])[0])

    @given(FINITE, FINITE, st.integers(4, 1000))
    def test_the_grid_covers_all_and_could_not_be_finer(self, a, b, bins):
        low, high = min(a, b), max(a, b)
        grid = Grid.over(low, high, bins)
        edges = grid.edges(bins)
        assert edges[0] <= low
        assert high < edges[-1]
        assert np.all(np.diff(edges[np.isfinite(edges)]) > 0)
        finer = [math.floor(math.ldexp(x, 1 - grid.exponent)) for x in (low, high)]
        too_fine = grid.exponent == -1000 or max(map(abs, finer)) >= 2**51
        assert too_fine or finer[1] - finer[0] >= bins

    def test_many_pieces(self):
        data = np.random.default_rng(4).standard_cauchy(300_000)
        found = fold(self.operator, self.variable, [data])
        np.testing.assert_array_equal(found["count"], np.histogram(data, found["edges"])[0])

    def test_no_data_has_no_edges(self):
        assert np.all(np.isnan(fold(self.operator, self.variable, [[]])["edges"]))


def test_describe_names_bins_and_edges():
    described = Histogram(of="u", over="step", bins=7, range=(0, 1)).describe({"u": FIELD})
    assert (described["count"].dims, described["count"].shape) == (("bin", "y", "x"), (7, 6, 11))
    assert (described["edges"].dims, described["edges"].shape) == (("edge",), (8,))
    assert described["edges"].units == "mol/L"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"range": [1, 1]}, r"expected \[low, high\] with low below high and both finite, got \[1.0, 1.0\]"),
        ({"range": [0, float("inf")]}, "both finite"),
        ({"range": "auto", "over": "step"}, r"give \[low, high\]"),
        ({"range": "auto", "bins": 3}, "needs 4 bins or more, got 3"),
        ({"bins": 0}, "greater than or equal to 1"),
        ({"nan": "propagate"}, "'skip' or 'fail'"),
        ({"of": ["u", "v"]}, "make one entry for each"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Histogram(**{"of": "u", "over": "space", "bins": 4, "range": [0, 1], **keys})


def test_complex_is_refused():
    with pytest.raises(OperatorError, match="'u' is complex"):
        Histogram(of="u", over="space", bins=4, range="auto").describe({"u": replace(FIELD, dtype=np.dtype("c16"))})
