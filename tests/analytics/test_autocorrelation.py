# SPDX-License-Identifier: Apache-2.0
"""Autocorrelation against its definition, and against a process whose memory is known."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from analytics.autocorrelation import Autocorrelation
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.operator import Batch
from insitu.testing import batch, check_operator

FIELD = Variable("u", np.dtype("f8"), (5, 7), ("y", "x"), units="m")
LINE = Variable("u", np.dtype("f8"), (4,), ("x",))
SCALAR = Variable("u", np.dtype("f8"), (), ())
ATOMS = Variable("u", np.dtype("f8"), None, ("atom",))


def fold(operator, variable, data, sizes):
    state, first = operator.init(), 0
    for size in sizes:
        state = operator.update(state, batch([variable], {"u": data[first : first + size]}, first=first))
        first += size
    assert first == len(data)
    return operator.finalize(state)


def remembering(seed, phi, shape):
    """Return steps of x(t) = phi x(t - 1) + noise, in its stationary state."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    x[0] /= np.sqrt(1 - phi**2)
    for t in range(1, len(x)):
        x[t] += phi * x[t - 1]
    return x


def reference(x, lags, mean=np.mean):
    """Return the autocorrelation of one series, by its definition."""
    d = x - mean(x)
    covariance = [mean(d[: len(d) - lag] * d[lag:]) for lag in range(lags + 1)]
    return np.array(covariance) / covariance[0]


@pytest.mark.parametrize("nan", ["propagate", "skip"])
@pytest.mark.parametrize("lags", [1, 5, 40])
@pytest.mark.parametrize("variable", [FIELD, SCALAR, LINE], ids=str)
def test_laws(variable, lags, nan):
    check_operator(Autocorrelation(of="u", over="step", lags=lags, nan=nan), [variable])


@pytest.mark.parametrize("mean", [0.0, 1e8])
@pytest.mark.parametrize("sizes", [(60,), (1,) * 60, (3, 17, 8, 32)], ids=str)
def test_equals_the_definition(sizes, mean):
    data = remembering(1, 0.7, (60, 4))
    found = fold(Autocorrelation(of="u", over="step", lags=11), LINE, data + mean, sizes)
    rtol = 1e-10 if mean == 0 else 1e-7
    for cell in range(4):
        wanted = reference(data[:, cell], 11)
        np.testing.assert_allclose(found["autocorrelation"][:, cell], wanted, rtol=rtol, atol=rtol)
    assert np.all(found["count"] == 60)


@pytest.mark.parametrize("phi", [0.0, -0.5, 0.8])
def test_the_integrated_time_of_a_known_process(phi):
    data = remembering(2, phi, (5000, 60))
    operator = Autocorrelation(of="u", over="step", lags=130)
    found = fold(operator, replace(LINE, shape=(60,)), data, (500,) * 10)["integrated_time"]
    known = (1 + phi) / (1 - phi)
    assert np.mean(found) == pytest.approx(known, rel=0.03, abs=0.03)


def test_the_window_is_the_smallest_lag_of_five_times():
    data = remembering(3, 0.6, (400, 4))
    found = fold(Autocorrelation(of="u", over="step", lags=60), LINE, data, (400,))
    for cell in range(4):
        correlation = reference(data[:, cell], 60)
        window = next(w for w in range(5, 61) if w >= 5 * (1 + 2 * sum(correlation[1 : w + 1])))
        wanted = 1 + 2 * sum(correlation[1 : window + 1])
        np.testing.assert_allclose(found["integrated_time"][cell], wanted, rtol=1e-10)


def test_lags_that_do_not_reach_leave_the_integrated_time_open():
    found = fold(Autocorrelation(of="u", over="step", lags=4), LINE, remembering(4, 0.95, (300, 4)), (300,))
    assert np.all(np.isfinite(found["autocorrelation"]))
    assert np.all(np.isnan(found["integrated_time"]))


def test_a_lost_step_leaves_correlations_of_steps_as_far_apart():
    data, lost = remembering(5, 0.7, (50, 4)), (7, 20, 21)
    operator = Autocorrelation(of="u", over="step", lags=6)
    whole = batch([LINE], {"u": data})
    kept = [k for k in range(50) if k not in lost]
    arrays = {"u": [whole["u"][k] for k in kept]}
    found = operator.finalize(
        operator.update(operator.init(), Batch([whole.steps[k] for k in kept], whole.variables, whole.start, arrays))
    )
    holed = data.copy()
    holed[list(lost)] = np.nan
    for cell in range(4):
        wanted = reference(holed[:, cell], 6, np.nanmean)
        np.testing.assert_allclose(found["autocorrelation"][:, cell], wanted, rtol=1e-10)
    assert np.all(found["count"] == 47)


def test_skip_leaves_out_nan():
    data = remembering(6, 0.7, (50, 4))
    data[np.random.default_rng(7).random(data.shape) < 0.1] = np.nan
    found = fold(Autocorrelation(of="u", over="step", lags=6, nan="skip"), LINE, data, (8, 1, 41))
    for cell in range(4):
        wanted = reference(data[:, cell], 6, np.nanmean)
        np.testing.assert_allclose(found["autocorrelation"][:, cell], wanted, rtol=1e-10)
    np.testing.assert_array_equal(found["count"], np.sum(~np.isnan(data), axis=0))


def test_propagate_and_fail():
    data = remembering(8, 0.5, (20, 4))
    data[3, 1] = np.nan
    found = fold(Autocorrelation(of="u", over="step", lags=2), LINE, data, (20,))
    assert np.isnan(found["autocorrelation"]).all(axis=0).tolist() == [False, True, False, False]
    assert np.isnan(found["integrated_time"])[1]
    assert np.all(found["count"] == 20)
    with pytest.raises(OperatorError, match=r"'u' is NaN in step 3 at cell \(1,\)"):
        fold(Autocorrelation(of="u", over="step", lags=2, nan="fail"), LINE, data, (20,))


@pytest.mark.parametrize("data", [np.full(9, 0.1), np.full(9, 1e8 / 3), np.ones(1)], ids=["0.1", "1e8/3", "one step"])
def test_what_does_not_vary_has_no_autocorrelation(data):
    found = fold(Autocorrelation(of="u", over="step", lags=3), SCALAR, data, (1,) * len(data))
    assert np.all(np.isnan(found["autocorrelation"]))
    assert np.isnan(found["integrated_time"])


def test_a_lag_of_no_pairs_is_nan():
    found = fold(Autocorrelation(of="u", over="step", lags=5), LINE, remembering(9, 0.5, (3, 4)), (3,))
    assert np.isnan(found["autocorrelation"]).all(axis=1).tolist() == [False] * 3 + [True] * 3


def test_describe():
    described = Autocorrelation(of="u", over="step", lags=3).describe({"u": FIELD})
    assert {name: (v.dims, v.shape, v.units) for name, v in described.items()} == {
        "count": (("y", "x"), (5, 7), "1"),
        "autocorrelation": (("lag", "y", "x"), (4, 5, 7), "1"),
        "integrated_time": (("y", "x"), (5, 7), "1"),
    }


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [(replace(LINE, dtype=np.dtype("c16")), "'u' is complex"), (ATOMS, "'u' is joined over the ranks")],
)
def test_what_can_never_be_folded_is_refused_at_once(variable, sentence):
    with pytest.raises(OperatorError, match=sentence):
        Autocorrelation(of="u", over="step", lags=1).describe({"u": variable})


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"lags": 0}, "greater than or equal to 1"),
        ({"over": "space"}, "is not possible here"),
        ({"of": ["u", "v"]}, "takes one variable, got 2"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Autocorrelation(**{"of": "u", "over": "step", "lags": 3, **keys})
