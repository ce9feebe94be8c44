# SPDX-License-Identifier: Apache-2.0
"""Quantiles against NumPy."""

import math
import sys
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from analytics import bins, sketches
from analytics.quantiles import Quantiles
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.testing import batch

FIELD = Variable("u", np.dtype("f8"), (6, 11), ("y", "x"), units="mol/L")
ATOMS = Variable("u", np.dtype("f8"), None, ("atom",))
ONE = Variable("u", np.dtype("f8"), (1,), ("x",))
LEVELS = (0.95, 0.0, 0.05, 0.5, 1.0, 1 / 3)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
FOUND = {"method": "histogram", "range": "auto", "bins": 64}


def fold(operator, variable, *arrays):
    state = operator.init()
    for data in arrays:
        state = operator.update(state, batch([variable], {"u": data}))
    return operator.finalize(state)


def exact(data, axis=None):
    return np.quantile(data.astype("f8"), LEVELS, axis=axis, method="inverted_cdf")


class TestHistogram:
    @pytest.mark.parametrize("dtype", ["f8", ">f4", "i8"])
    @pytest.mark.parametrize(("over", "axis"), [("step", 0), (["step", "space"], None)], ids=str)
    def test_given_range_is_right_to_a_bin(self, over, axis, dtype):
        data = np.random.default_rng(1).normal(50, 10, (20, 6, 11)).astype(dtype)
        operator = Quantiles(of="u", over=over, method="histogram", range=(0, 100), bins=200, levels=LEVELS)
        found = fold(operator, replace(FIELD, dtype=np.dtype(dtype)), data[:9], data[9:])
        np.testing.assert_allclose(found["quantile"], exact(data, axis), rtol=0, atol=0.5)
        assert np.all(found["count"] == (data.size if axis is None else 20))
        np.testing.assert_array_equal(found["levels"], LEVELS)

    @pytest.mark.parametrize("offset", [0, 1e8])
    @pytest.mark.parametrize("scale", [1e-5, 1, 1e5])
    @pytest.mark.parametrize(("over", "axis"), [("step", 0), (["step", "space"], None)], ids=str)
    def test_found_bins_carry_the_unit_of_the_data(self, over, axis, scale, offset):
        data = scale * (offset + np.random.default_rng(2).normal(size=(100, 6, 11)) * np.arange(1, 12))
        found = fold(Quantiles(of="u", over=over, levels=LEVELS, **FOUND), FIELD, data[:9], data[9:])
        bound = 2 / 63 * np.ptp(data, axis=axis)
        assert np.all(np.abs(found["quantile"] - exact(data, axis)) <= bound)

    def test_accuracy_is_as_told(self):
        rng = np.random.default_rng(3)
        for tail, told in ((lambda x: x, 0.015), (np.exp, 0.04)):
            data = tail(rng.normal(size=(1000, 6, 11)))
            found = fold(Quantiles(of="u", over="step", **FOUND), FIELD, *np.split(data, 125))
            error = found["quantile"] - np.quantile(data, (0.05, 0.5, 0.95), axis=0, method="inverted_cdf")
            assert math.sqrt(np.mean(error**2)) < told * data.std()

    @settings(max_examples=50)
    @given(st.lists(st.lists(FINITE, max_size=5), min_size=1, max_size=4), st.integers(4, 20))
    def test_found_bins_for_any_numbers_in_any_tree(self, parts, number):
        operator = Quantiles(of="u", over="step", method="histogram", range="auto", bins=number, levels=(0, 0.5, 1))
        states = [operator.update(operator.init(), batch([ONE], {"u": [[x] for x in part]})) for part in parts if part]
        found = operator.finalize(reduce(operator.merge, states, operator.init()))
        values = np.array([x for part in parts for x in part])
        assert found["count"] == values.size
        whole = fold(operator, ONE, values.reshape(-1, 1)) if values.size else found
        np.testing.assert_array_equal(found["quantile"].ravel(), whole["quantile"].ravel())
        if values.size:
            # Half of it each: twice the width of a bin may be more than a float can be.
            width = values.max() / (number - 1) - values.min() / (number - 1)
            bound = max(width, 2.0**-1001, np.abs(values).max() * 2.0**-51)
            wanted = np.quantile(values, (0, 0.5, 1), method="inverted_cdf")
            for got, value in zip(found["quantile"].ravel(), wanted, strict=True):
                assert abs(got / 2 - value / 2) <= bound

    def test_equal_values_are_exact(self):
        found = fold(Quantiles(of="u", over="step", **FOUND), FIELD, np.full((5, 6, 11), 0.1))
        np.testing.assert_allclose(found["quantile"], 0.1, rtol=1e-15)

    def test_outside_of_the_range_it_is_infinite(self):
        operator = Quantiles(of="u", over="step", method="histogram", range=(0, 1), bins=10)
        found = fold(operator, ONE, [[-5.0], [0.5], [7.0]])
        np.testing.assert_allclose(found["quantile"].ravel(), [-np.inf, 0.55, np.inf])

    def test_more_steps_than_can_be_counted(self, monkeypatch):
        monkeypatch.setattr(bins, "MOST_STEPS", 4)
        with pytest.raises(OperatorError, match="up to 4 steps of a window; take a shorter window"):
            fold(Quantiles(of="u", over="step", **FOUND), ONE, np.ones((3, 1)), np.ones((2, 1)))


class TestSketch:
    operator = Quantiles(of="u", over=["step", "space"], method="kll", k=200, levels=LEVELS)

    def test_few_values_are_exact(self):
        data = np.random.default_rng(4).normal(size=200)
        found = fold(self.operator, ATOMS, [data[:150], data[150:]])
        np.testing.assert_array_equal(found["quantile"], exact(data))
        assert found["count"] == 200

    @pytest.mark.parametrize("scale", [1e-5, 1e5])
    def test_rank_error_of_merged_sketches(self, scale):
        """The sketch draws lots that have no seed: the bound holds in 99 of 100 cases, so twice the bound is asked."""
        promised = 2.3 / 200**0.97
        rng = np.random.default_rng(5)
        for _ in range(10):
            data = scale * np.exp(rng.normal(size=(10, 5000)))
            states = [self.operator.update({}, batch([ATOMS], {"u": [part]})) for part in data]
            found = self.operator.finalize(reduce(self.operator.merge, states))
            ranks = np.searchsorted(np.sort(data.ravel()), found["quantile"], side="right") / data.size
            assert np.all(np.abs(ranks - LEVELS) < 2 * promised)
            assert found["count"] == data.size

    def test_the_promise_is_that_of_the_library(self):
        for k in (200, 1000, 4000):
            promised = sketches.datasketches().kll_doubles_sketch.get_normalized_rank_error(k, False)
            assert promised == pytest.approx(2.3 / k**0.97, rel=0.03)

    def test_larger_than_a_piece(self):
        data = np.arange(3 * sketches.PIECE + 1.0)
        found = fold(replace_k(self.operator, 4000), ATOMS, [data])
        np.testing.assert_allclose(found["quantile"], exact(data), atol=0.002 * data.size)
        assert found["count"] == data.size

    def test_without_the_library_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasketches", None)
        sketches.datasketches.cache_clear()
        with pytest.raises(OperatorError, match=r"pip install 'insitu\[sketches\]', or take method: histogram"):
            self.operator.describe({"u": FIELD})


def replace_k(operator, k):
    return operator.model_copy(update={"k": k})


@pytest.mark.parametrize(
    "keys",
    [{"over": "step", **FOUND}, {"over": ["step", "space"], **FOUND}, {"over": ["step", "space"], "method": "kll"}],
    ids=str,
)
class TestNotFinite:
    data = np.array([[1.0], [np.nan], [3.0], [np.inf], [-np.inf]])

    def test_propagate(self, keys):
        found = fold(Quantiles(of="u", **keys), ONE, self.data)
        assert np.all(np.isnan(found["quantile"]))
        assert found["count"] == 4

    def test_skip(self, keys):
        found = fold(Quantiles(of="u", levels=(0, 0.5, 0.75, 1), nan="skip", **keys), ONE, self.data)
        np.testing.assert_allclose(found["quantile"].ravel(), [-np.inf, 1, 3, np.inf], atol=0.1)
        assert found["count"] == 4

    def test_fail(self, keys):
        with pytest.raises(OperatorError, match=r"'u' is NaN in step 1 at cell \(0,\)"):
            fold(Quantiles(of="u", nan="fail", **keys), ONE, self.data)

    def test_no_data(self, keys):
        found = fold(Quantiles(of="u", **keys), ONE)
        assert np.all(np.isnan(found["quantile"]))
        assert found["count"] == 0


def test_describe():
    described = Quantiles(of="u", over="step", **FOUND).describe({"u": FIELD})
    assert {name: (v.dims, v.shape, v.units) for name, v in described.items()} == {
        "quantile": (("level", "y", "x"), (3, 6, 11), "mol/L"),
        "levels": (("level",), (3,), "1"),
        "count": (("y", "x"), (6, 11), "1"),
    }


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"method": "rm"}, "'histogram' or 'kll'"),
        ({"method": "kll"}, "no sketch for every cell; take method: histogram, or over: space"),
        ({"method": "kll", "over": "space", "bins": 3}, "bins and range belong to method: histogram"),
        ({"method": "histogram"}, "needs bins, and a range"),
        ({**FOUND, "bins": 3}, "needs 4 bins or more, got 3"),
        ({**FOUND, "range": (1, 1)}, "low below high"),
        ({**FOUND, "k": 100}, "k belongs to method: kll"),
        ({**FOUND, "levels": [1.5]}, "less than or equal to 1"),
        ({**FOUND, "levels": []}, "at least 1 item"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Quantiles(**{"of": "u", "over": "step", **keys})


def test_what_has_no_order_or_no_cells_is_refused():
    with pytest.raises(OperatorError, match="'u' is complex"):
        Quantiles(of="u", over="step", **FOUND).describe({"u": replace(FIELD, dtype=np.dtype("c16"))})
    with pytest.raises(OperatorError, match="'u' is joined"):
        Quantiles(of="u", over="step", **FOUND).describe({"u": ATOMS})
