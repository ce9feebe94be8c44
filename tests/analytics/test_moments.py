# SPDX-License-Identifier: Apache-2.0
"""Moments against NumPy and SciPy."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from analytics.moments import Moments
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.testing import batch

FIELD = Variable("u", np.dtype("f8"), (6, 11), ("y", "x"), units="mol/L")
ATOMS = Variable("u", np.dtype("f8"), None, ("atom",), units="1")
REFERENCES = {
    "mean": np.mean,
    "variance": lambda x, axis: np.var(x, axis, ddof=1),
    "skewness": stats.skew,
    "kurtosis": lambda x, axis: stats.kurtosis(x, axis, fisher=False),
    "min": np.min,
    "max": np.max,
}
#: Over steps alone, and over everything, as the axis of an array with steps first.
AXES = [("step", 0), (["step", "space"], None)]


def fold(operator, variable, data, sizes):
    """Fold steps in batches of these sizes."""
    state, first = operator.init(), 0
    for size in sizes:
        some = batch([variable], {"u": data[first : first + size]}, first=first)
        state = operator.update(state, some)
        first += size
    assert first == len(data)
    return operator.finalize(state)


@pytest.mark.parametrize("sizes", [(20,), (1,) * 20, (3, 8, 2, 7), (16, 4)], ids=str)
@pytest.mark.parametrize(("over", "axis"), AXES, ids=str)
def test_equals_numpy_and_scipy(over, axis, sizes):
    data = np.random.default_rng(1).gamma(2.0, size=(20, *FIELD.shape))
    found = fold(Moments(of="u", over=over, orders=4), FIELD, data, sizes)
    assert np.all(found["count"] == data.size // found["count"].size)
    for name, reference in REFERENCES.items():
        np.testing.assert_allclose(found[name], reference(data, axis=axis), rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("cells", [0, 1, 7, 4095, 4096, 4097, 10_000])
@pytest.mark.parametrize(("over", "axis"), AXES, ids=str)
def test_tiles_and_what_is_left_of_them(over, axis, cells):
    field = replace(FIELD, shape=(cells,), dims=("x",))
    data = np.random.default_rng(2).normal(3.0, 2.0, (9, cells))
    found = fold(Moments(of="u", over=over, orders=4), field, data, (8, 1))
    if cells == 0:
        assert np.all(np.isnan(found["mean"]))
        return
    for name, reference in REFERENCES.items():
        np.testing.assert_allclose(found[name], reference(data, axis=axis), rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("over", "axis"), AXES, ids=str)
def test_digits_are_kept_where_the_mean_is_large(over, axis):
    data = np.random.default_rng(3).normal(1e8, 1.0, (1000, 6, 11))
    found = fold(Moments(of="u", over=over, orders=4), FIELD, data, (8,) * 125)
    for name in ("mean", "variance", "kurtosis"):
        # The deviations are exact where they are taken from 1e8, so the reference loses nothing.
        wanted = REFERENCES[name](data - 1e8, axis=axis) + (1e8 if name == "mean" else 0.0)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-7, err_msg=name)
    np.testing.assert_allclose(found["skewness"], REFERENCES["skewness"](data - 1e8, axis=axis), atol=1e-6)


@pytest.mark.parametrize("dtype", ["f2", ">f4", "g", "i8"])
@pytest.mark.parametrize(("over", "axis"), AXES, ids=str)
def test_every_real_dtype(over, axis, dtype):
    field = replace(FIELD, dtype=np.dtype(dtype))
    data = np.random.default_rng(4).integers(0, 100, (11, *FIELD.shape)).astype(dtype)
    found = fold(Moments(of="u", over=over, orders=4), field, data, (8, 3))
    for name in ("mean", "variance", "min", "max"):
        wanted = REFERENCES[name](data.astype("f8"), axis=axis)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize(("over", "axis"), AXES, ids=str)
class TestNan:
    data = np.where(np.random.default_rng(5).random((19, 6, 11)) < 0.3, np.nan, 1.0) * np.arange(19)[:, None, None]
    sizes = (8, 1, 2, 8)

    def test_propagate(self, over, axis):
        found = fold(Moments(of="u", over=over), FIELD, self.data, self.sizes)
        assert np.all(found["count"] == self.data.size // found["count"].size)
        for name in ("mean", "variance", "min", "max"):
            wanted = np.isnan(REFERENCES[name](self.data, axis=axis))
            np.testing.assert_array_equal(np.isnan(found[name]), wanted, err_msg=name)

    def test_skip(self, over, axis):
        found = fold(Moments(of="u", over=over, orders=4, nan="skip"), FIELD, self.data, self.sizes)
        np.testing.assert_array_equal(found["count"], np.sum(~np.isnan(self.data), axis=axis))
        np.testing.assert_allclose(found["mean"], np.nanmean(self.data, axis=axis), rtol=1e-12)
        np.testing.assert_allclose(found["variance"], np.nanvar(self.data, axis=axis, ddof=1), rtol=1e-12)
        np.testing.assert_array_equal(found["min"], np.nanmin(self.data, axis=axis))
        np.testing.assert_array_equal(found["max"], np.nanmax(self.data, axis=axis))

    def test_skip_where_nothing_is_left(self, over, axis):
        found = fold(Moments(of="u", over=over, orders=4, nan="skip"), FIELD, np.full((9, 6, 11), np.nan), (8, 1))
        assert np.all(found["count"] == 0)
        assert all(np.all(np.isnan(found[name])) for name in ("mean", "variance", "min", "max"))

    def test_fail_names_variable_step_and_place(self, over, axis):
        data = np.zeros((2, 6, 11))
        data[1, 2, 3] = np.nan
        operator = Moments(of="u", over=over, nan="fail")
        held = batch([FIELD], {"u": data}, first=40, start={"u": (100, 200)})
        with pytest.raises(OperatorError, match=r"'u' is NaN in step 41 at cell \(102, 203\)"):
            operator.update(operator.init(), held)


@pytest.mark.parametrize("over", ["step", "space"])
def test_infinity_leaves_extremes_and_count_right(over):
    data = np.array([[1.0, 2.0], [np.inf, 3.0], [-np.inf, 4.0]])
    field = replace(FIELD, shape=(2,), dims=("x",))
    found = fold(Moments(of="u", over=over), field, data, (3,))
    first = (lambda x: x[0]) if over == "step" else (lambda x: x)
    assert (first(found["min"]), first(found["max"])) == (-np.inf, np.inf)
    assert not np.isfinite(first(found["mean"]))
    assert first(found["count"]) == (3 if over == "step" else 6)


def test_undefined_results_are_nan_without_a_warning():
    found = fold(Moments(of="u", over="space", orders=4), ATOMS, [[2.0]], (1,))
    assert found["mean"] == 2.0
    assert np.isnan(found["variance"])
    found = fold(Moments(of="u", over="space", orders=4), ATOMS, [[2.0, 2.0]], (1,))
    assert found["variance"] == 0.0
    assert np.isnan(found["skewness"])
    assert np.isnan(found["kurtosis"])


#: Numbers of any size, most of which have no finite binary fraction.
CONSTANTS = np.concatenate([
    [0.0, 0.1, 1 / 3, 1e8 / 3, -0.7, 5e-324, 1e-300, 1e154, 1.7e308],
    (lambda rng: rng.normal(size=200) * 10.0 ** rng.integers(-300, 300, 200))(np.random.default_rng(6)),
])  # fmt: skip


@pytest.mark.parametrize("nan", ["propagate", "skip"])
@pytest.mark.parametrize(
    "steps", [2, 3, 4, 5, 7, 8, 9, 16, 100]
)  # one by one, and by eight lanes of which some are empty
class TestWhatDoesNotVary:
    def check(self, found, wanted):
        np.testing.assert_array_equal(found["mean"], wanted)
        np.testing.assert_array_equal(found["variance"], 0.0)
        assert np.all(np.isnan(found["skewness"]))
        assert np.all(np.isnan(found["kurtosis"]))

    def test_by_cell(self, steps, nan):
        field = replace(FIELD, shape=CONSTANTS.shape, dims=("x",))
        data = np.tile(CONSTANTS, (steps, 1))
        if nan == "skip":
            data[1::3, ::2] = np.nan
            data[0, 1::2] = np.nan
            data = np.vstack([data, data])
        operator = Moments(of="u", over="step", orders=4, nan=nan)
        self.check(fold(operator, field, data, (len(data),)), CONSTANTS)
        self.check(fold(operator, field, data, (1,) * len(data)), CONSTANTS)

    def test_over_space(self, steps, nan):
        field = replace(FIELD, shape=(37 * steps,), dims=("x",))  # up to 3,700 values: two tiles
        operator = Moments(of="u", over="space", orders=4, nan=nan)
        for constant in CONSTANTS[:30]:
            data = np.full((1, 37 * steps), constant)
            if nan == "skip":
                data[0, ::5] = np.nan
            self.check(fold(operator, field, data, (1,)), constant)


@pytest.mark.parametrize("over", ["step", "space"])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_nothing_but_nan_has_no_moments(over, steps):
    data = np.full((steps, 5000), np.nan)
    field = replace(FIELD, shape=(5000,), dims=("x",))
    over = over if over == "step" else ["step", "space"]
    found = fold(Moments(of="u", over=over, orders=4), field, data, (steps,))
    assert all(np.all(np.isnan(found[name])) for name in REFERENCES)


@pytest.mark.parametrize("dtype", ["i8", "f4"])
@pytest.mark.parametrize(("over", "axis"), AXES, ids=str)
def test_the_ends_of_a_dtype_do_not_overflow(over, axis, dtype):
    about = np.finfo(dtype) if dtype == "f4" else np.iinfo(dtype)
    data = np.random.default_rng(7).choice(np.array([about.min, about.max], dtype), (20, 6, 11))
    found = fold(Moments(of="u", over=over, orders=4), replace(FIELD, dtype=np.dtype(dtype)), data, (20,))
    for name, reference in REFERENCES.items():
        wanted, atol = reference(data.astype("f8"), axis=axis), 1e-12 * (float(about.max) if name == "mean" else 1)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-12, atol=atol, err_msg=name)


def test_describe_speaks_cf():
    described = Moments(of="u", over="step", orders=4).describe({"u": FIELD})
    assert [v.units for v in described.values()] == ["1", "mol/L", "(mol/L)2", "1", "1", "mol/L", "mol/L"]
    assert all(v.dims == ("y", "x") and v.shape == (6, 11) for v in described.values())
    assert described["variance"].long_name == "variance of u"


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        (replace(FIELD, dtype=np.dtype("c16")), "'u' is complex"),
        (ATOMS, "'u' is joined over the ranks"),
    ],
)
def test_what_can_never_be_folded_is_refused_at_once(variable, sentence):
    with pytest.raises(OperatorError, match=sentence):
        Moments(of="u", over="step").describe({"u": variable})


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"of": ["u", "v"]}, r"takes one variable, got 2 \(u, v\); make one entry for each"),
        ({"orders": 5}, "less than or equal to 4"),
        ({"orders": 0, "extremes": False}, "leaves nothing to compute"),
        ({"nan": "ignore"}, "'propagate', 'skip' or 'fail'"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Moments(**{"of": "u", "over": "step", **keys})


def test_warm_up_compiles_what_the_first_update_needs():
    from analytics.kernels.cells import fold_cells

    fold_cells.cache_clear()  # kernels that have not been called yet, though they may be in the cache on disk
    operator = Moments(of="u", over="step", orders=4)
    operator.warm_up()
    compiled = fold_cells("float64", 4, True, False)
    ready = len(compiled.signatures)
    assert ready
    fold(operator, FIELD, np.zeros((3, 6, 11)), (3,))
    assert len(compiled.signatures) == ready
