# SPDX-License-Identifier: Apache-2.0
"""Covariance and its lags against NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from analytics.covariance import Covariance
from insitu.errors import OperatorError
from insitu.model import Step, Variable
from insitu.operator import Batch
from insitu.testing import batch, check_operator

U = Variable("u", np.dtype("f8"), (6, 11), ("y", "x"), units="m s-1")
V = Variable("v", np.dtype("f8"), (6, 11), ("y", "x"), units="K")
ATOMS = [Variable(name, np.dtype("f8"), None, ("atom", "axis"), row=(3,)) for name in "uv"]
WAYS = ["step", "space", ["step", "space"]]


def related(seed, shape, mean=0.0):
    rng = np.random.default_rng(seed)
    u = rng.normal(size=shape)
    return mean + u, 2 * mean + 0.5 * u + rng.normal(size=shape)


def fold(operator, u, v, sizes, lost=()):
    """Fold steps in batches of these sizes, without those that are lost."""
    state, first = operator.init(), 0
    inputs = [replace(x, shape=u.shape[1:], dims=x.dims[: u.ndim - 1], dtype=a.dtype) for x, a in ((U, u), (V, v))]
    for size in sizes:
        whole = batch(inputs, {"u": u[first : first + size], "v": v[first : first + size]}, first=first)
        kept = [k for k, step in enumerate(whole.steps) if step.sequence not in lost]
        steps = [whole.steps[k] for k in kept]
        arrays = {name: [a[k] for k in kept] for name, a in whole.arrays.items()}
        state = operator.update(state, Batch(steps, whole.variables, whole.start, arrays))
        first += size
    assert first == len(u)
    return operator.finalize(state)


def reference(u, v):
    """Return NumPy's covariance and correlation of two arrays along their first axis."""
    flat = [x.reshape(len(x), -1).astype("f8") for x in (u, v)]
    both = [(np.cov(a, b)[0, 1], np.corrcoef(a, b)[0, 1]) for a, b in zip(flat[0].T, flat[1].T, strict=True)]
    return [np.reshape(each, u.shape[1:]) for each in np.transpose(both)]


@pytest.mark.parametrize("over", WAYS, ids=str)
@pytest.mark.parametrize("nan", ["propagate", "skip"])
def test_laws(over, nan):
    check_operator(Covariance(of=["u", "v"], over=over, nan=nan), [U, V])
    check_operator(Covariance(of="u", over=over, nan=nan), [U])


@pytest.mark.parametrize("over", WAYS[1:], ids=str)
def test_laws_of_particles(over):
    check_operator(Covariance(of=["u", "v"], over=over), ATOMS)


@pytest.mark.parametrize("lags", [1, 30])
@pytest.mark.parametrize("nan", ["propagate", "skip"])
def test_laws_of_lags(lags, nan):
    def with_nan(variable, shape, rng):
        return np.where(rng.random(shape) < 0.1, np.nan, rng.normal(size=shape))

    operator = Covariance(of=["u", "v"], over="step", lags=lags, nan=nan)
    check_operator(operator, [U, V])
    check_operator(operator, [U, V], values=with_nan)


@pytest.mark.parametrize("mean", [0.0, 1e8])
@pytest.mark.parametrize("sizes", [(20,), (1,) * 20, (3, 8, 2, 7)], ids=str)
def test_over_steps_equals_numpy(sizes, mean):
    u, v = related(1, (20, 6, 11), mean)
    found = fold(Covariance(of=["u", "v"], over="step"), u, v, sizes)
    covariance, correlation = reference(u - mean, v - 2 * mean)
    assert np.all(found["count"] == 20)
    rtol = 1e-10 if mean == 0 else 1e-7
    np.testing.assert_allclose(found["covariance"], covariance, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found["correlation"], correlation, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("over", WAYS[1:], ids=str)
@pytest.mark.parametrize("mean", [0.0, 1e8])
@pytest.mark.parametrize("cells", [2, 2047, 2048, 5000])
def test_over_space_equals_numpy(cells, mean, over):
    u, v = related(2, (1 if over == "space" else 3, cells), mean)
    found = fold(Covariance(of=["u", "v"], over=over), u, v, (len(u),))
    covariance, correlation = reference((u - mean).reshape(-1), (v - 2 * mean).reshape(-1))
    rtol = 1e-10 if mean == 0 else 1e-7
    np.testing.assert_allclose(found["covariance"], covariance, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found["correlation"], correlation, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("cells", [0, 1, 1023, 1024, 1025, 3000])
def test_tiles_and_what_is_left_of_them(cells):
    u, v = related(3, (9, cells))
    found = fold(Covariance(of=["u", "v"], over="step"), u, v, (8, 1))
    assert found["covariance"].shape == (cells,)
    if cells:
        np.testing.assert_allclose(found["covariance"], reference(u, v)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mean", [0.0, 1e8])
@pytest.mark.parametrize("sizes", [(40,), (1,) * 40, (3, 17, 8, 12)], ids=str)
def test_lags_equal_numpy(sizes, mean):
    u, v = related(4, (40, 5), mean)
    found = fold(Covariance(of=["u", "v"], over="step", lags=7), u, v, sizes)
    for lag in range(8):
        covariance, correlation = reference(u[: 40 - lag] - mean, v[lag:] - 2 * mean)
        assert np.all(found["count"][lag] == 40 - lag)
        rtol = 1e-10 if mean == 0 else 1e-7
        np.testing.assert_allclose(found["covariance"][lag], covariance, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(found["correlation"][lag], correlation, rtol=rtol, atol=rtol)


def test_a_lost_step_makes_fewer_pairs_never_others():
    u, v = related(5, (30, 4))
    lost = (4, 11, 20)
    found = fold(Covariance(of=["u", "v"], over="step", lags=3), u, v, (3, 8, 2, 8, 9), lost)
    for lag in range(4):
        at = [k for k in range(30 - lag) if k not in lost and k + lag not in lost]
        assert np.all(found["count"][lag] == len(at))
        pairs = u[at], v[[k + lag for k in at]]
        np.testing.assert_allclose(found["covariance"][lag], reference(*pairs)[0], rtol=1e-10)


def test_a_state_keeps_only_the_fields_at_its_ends():
    operator = Covariance(of="u", over="step", lags=3)
    state = operator.init()
    for first in range(0, 400, 8):
        state = operator.update(state, batch([U], {"u": np.ones((8, 6, 11))}, first=first))
    assert [each["at"] for each in state["kept"]] == [0, 1, 2, 397, 398, 399]


@pytest.mark.parametrize("over", WAYS[::2], ids=str)
def test_pairs_of_different_dtypes(over):
    u = np.random.default_rng(6).integers(0, 100, (11, 6, 11)).astype(">f4")
    v = np.random.default_rng(7).normal(size=u.shape)
    found = fold(Covariance(of=["u", "v"], over=over), u, v, (8, 3))
    whole = (u, v) if over == "step" else (u.reshape(-1), v.reshape(-1))
    np.testing.assert_allclose(found["covariance"], reference(*whole)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("lags", [0, 2])
@pytest.mark.parametrize("over", WAYS[::2], ids=str)
def test_skip_leaves_the_pair_out(over, lags):
    if lags and over != "step":
        return
    u, v = related(8, (19, 3, 2))
    u[np.random.default_rng(9).random(u.shape) < 0.2] = np.nan
    v[np.random.default_rng(10).random(v.shape) < 0.2] = np.nan
    if not lags:
        u[2, 0, 0], v[2, 0, 0] = np.inf, np.nan  # left out like any other
    found = fold(Covariance(of=["u", "v"], over=over, nan="skip", lags=lags), u, v, (8, 1, 2, 8))
    for cell in np.ndindex((3, 2) if over == "step" else ()):
        a, b = u[:19, *cell].reshape(-1), v[:19, *cell].reshape(-1)
        for lag in range(lags + 1):
            x, y = a[: len(a) - lag], b[lag:]
            known = ~(np.isnan(x) | np.isnan(y))
            at = (lag, *cell) if lags else cell
            assert found["count"][at] == known.sum()
            np.testing.assert_allclose(found["covariance"][at], np.cov(x[known], y[known])[0, 1], rtol=1e-10)


@pytest.mark.parametrize("over", WAYS[::2], ids=str)
def test_nan_propagates(over):
    u, v = related(11, (9, 2, 2))
    v[3, 0, 1] = np.nan
    found = fold(Covariance(of=["u", "v"], over=over), u, v, (8, 1))
    wanted = [[False, True], [False, False]] if over == "step" else True
    np.testing.assert_array_equal(np.isnan(found["covariance"]), wanted)
    np.testing.assert_array_equal(np.isnan(found["correlation"]), wanted)
    assert np.all(found["count"] == (9 if over == "step" else 36))


def test_nan_fails_naming_variable_step_and_place():
    held = batch([U, V], {"u": np.zeros((2, 6, 11)), "v": np.full((2, 6, 11), np.nan)}, first=7)
    operator = Covariance(of=["u", "v"], over="step", nan="fail")
    with pytest.raises(OperatorError, match=r"'v' is NaN in step 7 at cell \(0, 0\)"):
        operator.update(operator.init(), held)


@pytest.mark.parametrize("over", WAYS[::2], ids=str)
@pytest.mark.parametrize("value", [0.1, 1e8 / 3])
def test_what_does_not_vary_has_no_correlation(over, value):
    u, v = np.full((13, 2, 2), value), related(12, (13, 2, 2))[1]
    found = fold(Covariance(of=["u", "v"], over=over), u, v, (3, 7, 3))
    assert np.all(found["covariance"] == 0.0)
    assert np.all(np.isnan(found["correlation"]))


def test_undefined_results_are_nan_without_a_warning():
    operator = Covariance(of=["u", "v"], over="space")
    found = fold(operator, np.ones((1, 1)), np.ones((1, 1)), (1,))
    assert found["count"] == 1
    assert np.isnan(found["covariance"])
    found = operator.finalize(operator.update(operator.init(), batch(ATOMS, {n: [np.zeros((0, 3))] for n in "uv"})))
    assert found["count"] == 0
    assert np.isnan(found["covariance"])
    found = fold(Covariance(of=["u", "v"], over="step", lags=5), *related(13, (3, 2)), (3,))
    assert found["count"][:, 0].tolist() == [3, 2, 1, 0, 0, 0]
    assert np.all(np.isnan(found["covariance"][2:]))


def test_describe_speaks_cf():
    described = Covariance(of=["u", "v"], over="step", lags=2).describe({"u": U, "v": V})
    assert [v.units for v in described.values()] == ["1", "(m s-1) (K)", "1"]
    assert all(v.dims == ("lag", "y", "x") and v.shape == (3, 6, 11) for v in described.values())
    assert described["covariance"].long_name == "covariance of u and v"
    assert Covariance(of="u", over="space").describe({"u": U})["covariance"].units == "(m s-1)2"


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ([replace(U, dtype=np.dtype("c16")), V], "'u' is complex"),
        ([U, replace(V, shape=(6, 12))], r"'u' \(6, 11\) and 'v' \(6, 12\) cannot be paired value by value"),
        ([ATOMS[0], V], r"'u' is joined over the ranks"),
    ],
)
def test_what_can_never_be_paired_is_refused_at_once(inputs, sentence):
    with pytest.raises(OperatorError, match=sentence):
        Covariance(of=["u", "v"], over="step").describe({v.name: v for v in inputs})


@pytest.mark.parametrize("start", [(0, 0), (6, 0)])
def test_blocks_that_do_not_match_are_refused(start):
    count = (3, 11) if start == (0, 0) else (6, 11)
    held = Batch(
        (Step(0, 5, 0.0),),
        {"u": U, "v": V},
        {"u": (0, 0), "v": start},
        {"u": (np.zeros((6, 11)),), "v": (np.zeros(count),)},
    )
    operator = Covariance(of=["u", "v"], over="step")
    with pytest.raises(OperatorError, match="'u' and 'v' cannot be paired value by value in step 5"):
        operator.update(operator.init(), held)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"of": ["u", "v", "w"]}, r"takes one or two variables, got 3 \(u, v, w\)"),
        ({"lags": -1}, "greater than or equal to 0"),
        ({"lags": 2, "over": "space"}, "lags: 2 needs over: step"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Covariance(**{"of": ["u", "v"], "over": "step", **keys})
