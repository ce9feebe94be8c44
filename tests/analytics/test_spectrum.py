# SPDX-License-Identifier: Apache-2.0
"""The spectrum against SciPy's Welch and periodogram."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.signal import periodogram, welch

from analytics.spectrum import Spectrum
from insitu.errors import OperatorError
from insitu.model import Step, Variable
from insitu.operator import Batch
from insitu.testing import batch, check_operator, cut

FIELD = Variable("u", np.dtype("f8"), (5, 7), ("y", "x"), units="m")
LINE = Variable("u", np.dtype("f8"), (4,), ("x",), units="m")
SCALAR = Variable("u", np.dtype("f4"), (), ())
ATOMS = Variable("u", np.dtype("f8"), None, ("atom",))


def held(data, sequences, spacing=1.0, variable=LINE):
    """Return a batch of steps with these sequence numbers, `spacing` apart in time."""
    made = batch([replace(variable, shape=np.shape(data)[1:])], {"u": data})
    steps = tuple(Step(s, s, s * spacing) for s in sequences)
    return Batch(steps, made.variables, made.start, made.arrays)


def folded(operator, data, first=0, sizes=None, **keys):
    """Return the state of steps folded in batches of these sizes, beginning with the number `first`."""
    state, done = operator.init(), 0
    for size in sizes or (len(data),):
        state = operator.update(state, held(data[done : done + size], range(first + done, first + done + size), **keys))
        done += size
    assert done == len(data)
    return state


@pytest.mark.parametrize("segment", [2, 3, 8, 17, 40])
@pytest.mark.parametrize("keys", [{}, {"per": "time"}, {"nan": "skip"}], ids=str)
def test_laws(segment, keys):
    operator = Spectrum(of="u", over="step", segment=segment, **keys)
    check_operator(operator, [FIELD])
    check_operator(operator, [SCALAR])
    check_operator(operator, [replace(LINE, dtype=np.dtype("u1"))])


@pytest.mark.parametrize("mean", [0.0, 1e8])
@pytest.mark.parametrize("segment", [2, 7, 16, 32])
@pytest.mark.parametrize("sizes", [(100,), (1,) * 100, (3, 8, 50, 39)], ids=str)
def test_equals_scipy(sizes, segment, mean):
    data = np.random.default_rng(1).normal(size=(100, 4)).cumsum(axis=0)
    operator = Spectrum(of="u", over="step", segment=segment)
    found = operator.finalize(folded(operator, data + mean, sizes=sizes))
    frequencies, density = welch(data, nperseg=segment, axis=0)
    np.testing.assert_allclose(found["frequencies"], frequencies, rtol=1e-12)
    rtol = 1e-10 if mean == 0 else 1e-6
    np.testing.assert_allclose(found["density"], density, rtol=rtol, atol=rtol * density.max() * 1e-2)


def test_per_time_equals_scipy():
    data = np.random.default_rng(2).normal(size=(64, 4))
    operator = Spectrum(of="u", over="step", segment=16, per="time")
    found = operator.finalize(folded(operator, data, sizes=(10, 54), spacing=0.02))
    frequencies, density = welch(data, 50.0, nperseg=16, axis=0)
    np.testing.assert_allclose(found["frequencies"], frequencies, rtol=1e-12)
    np.testing.assert_allclose(found["density"], density, rtol=1e-10)


def test_each_window_has_segments_of_its_own():
    data = np.random.default_rng(3).normal(size=(90, 4))
    operator = Spectrum(of="u", over="step", segment=8, window=30)
    for first in (0, 30, 60):
        state = folded(operator, data[first : first + 30], first, sizes=(7, 23))
        _, density = welch(data[first : first + 30], nperseg=8, axis=0)
        np.testing.assert_allclose(operator.finalize(state)["density"], density, rtol=1e-10)
        assert state["kept"] == []


@pytest.mark.parametrize("seed", range(5))
def test_segments_are_completed_whatever_the_order_of_merges(seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(60, 4))
    operator = Spectrum(of="u", over="step", segment=12)
    cuts = [0, *sorted(rng.choice(np.arange(1, 60), 9, replace=False)), 60]
    states = [folded(operator, data[a:b], a) for a, b in pairwise(cuts)]
    while len(states) > 1:
        a, b = (states.pop(int(rng.integers(len(states)))) for _ in range(2))
        states.append(operator.merge(a, b))
    _, density = welch(data, nperseg=12, axis=0)
    np.testing.assert_allclose(operator.finalize(states[0])["density"], density, rtol=1e-10)


def test_a_state_keeps_only_what_may_be_completed():
    operator = Spectrum(of="u", over="step", segment=8)
    state = folded(operator, np.zeros((400, 4)), sizes=(8,) * 50)
    assert [each["at"] for each in state["kept"]] == [396, 397, 398, 399]
    state = folded(operator, np.zeros((400, 4)), first=10, sizes=(8,) * 50)
    assert [each["at"] for each in state["kept"]] == [10, 11, 12, 13, 14, 15, *range(404, 410)]


def test_a_segment_with_a_lost_step_is_left_out():
    data = np.random.default_rng(4).normal(size=(40, 4))
    operator = Spectrum(of="u", over="step", segment=8)
    kept = [k for k in range(40) if k != 18]
    state = operator.update(operator.init(), held(data[kept[:25]], kept[:25]))
    state = operator.update(state, held(data[kept[25:]], kept[25:]))
    found = operator.finalize(state)
    whole = [k for k in range(0, 33, 4) if not k <= 18 < k + 8]
    density = np.mean([welch(data[k : k + 8], nperseg=8, axis=0)[1] for k in whole], axis=0)
    np.testing.assert_allclose(found["density"], density, rtol=1e-10)
    assert np.all(found["segments"] == len(whole))
    assert [each["at"] for each in state["kept"]] == [36, 37, 38, 39]


class TestNan:
    data = np.random.default_rng(5).normal(size=(40, 4))
    data[5, 1] = np.nan

    def found(self, nan):
        operator = Spectrum(of="u", over="step", segment=8, nan=nan)
        return operator.finalize(folded(operator, self.data))

    def test_propagate(self):
        assert np.isnan(self.found("propagate")["density"]).all(axis=0).tolist() == [False, True, False, False]

    def test_skip(self):
        found = self.found("skip")
        assert found["segments"].tolist() == [9, 7, 9, 9]
        _, density = welch(self.data[8:], nperseg=8, axis=0)
        np.testing.assert_allclose(found["density"][:, 1], density[:, 1], rtol=1e-10)

    def test_fail(self):
        with pytest.raises(OperatorError, match=r"'u' is NaN in step 5 at cell \(1,\)"):
            self.found("fail")


def test_infinite_values_make_their_cell_nan_without_a_warning():
    data = np.ones((8, 4))
    data[3, 2] = np.inf
    operator = Spectrum(of="u", over="step", segment=8)
    density = operator.finalize(folded(operator, data))["density"]
    assert np.isnan(density).all(axis=0).tolist() == [False, False, True, False]


@pytest.mark.parametrize("value", [0.1, 1e8 / 3])
def test_what_does_not_vary_has_no_power(value):
    operator = Spectrum(of="u", over="step", segment=6)
    assert np.all(operator.finalize(folded(operator, np.full((20, 4), value)))["density"] == 0.0)


@pytest.mark.parametrize("per", ["step", "time"])
def test_without_a_whole_segment_the_density_is_nan(per):
    operator = Spectrum(of="u", over="step", segment=8, per=per)
    found = operator.finalize(folded(operator, np.zeros((7, 4))))
    assert np.all(np.isnan(found["density"]))
    assert np.all(found["segments"] == 0)
    assert np.all(np.isnan(found["frequencies"])) == (per == "time")


@pytest.mark.parametrize("times", [[0.0] * 8, [0, 1, 2, 3, 4, 5, 6, 7.5], [7, 6, 5, 4, 3, 2, 1, 0]], ids=str)
def test_uneven_times_are_refused(times):
    made = batch([LINE], {"u": np.zeros((8, 4))})
    steps = tuple(Step(k, k, float(t)) for k, t in enumerate(times))
    operator = Spectrum(of="u", over="step", segment=8, per="time")
    with pytest.raises(OperatorError, match=r"'u' has no spectrum per time: its steps are .* apart in time"):
        operator.update(operator.init(), Batch(steps, made.variables, made.start, made.arrays))


def test_states_of_other_spacing_are_refused():
    operator = Spectrum(of="u", over="step", segment=8, per="time")
    a = folded(operator, np.zeros((8, 4)))
    b = folded(operator, np.zeros((8, 4)), first=8, spacing=2.0)
    with pytest.raises(OperatorError, match="its steps are 1 to 2 apart in time"):
        operator.merge(a, b)


def test_more_cells_than_are_transformed_at_a_time():
    data = np.random.default_rng(6).normal(size=(96, 30_000)).astype("f4")
    operator = Spectrum(of="u", over="step", segment=32)
    found = operator.finalize(folded(operator, data, variable=replace(LINE, dtype=np.dtype("f4"))))
    _, density = welch(data[:, -3:].astype("f8"), nperseg=32, axis=0)
    np.testing.assert_allclose(found["density"][:, -3:], density, rtol=1e-10)


VOLUME = Variable("u", np.dtype("f8"), (4, 9, 6), ("z", "y", "x"), units="m")


def along(dimension, blocks, **keys):
    """Return the spectrum along a dimension of blocks, which are folded one after another."""
    operator = Spectrum(**{"of": "u", "over": ["step", "space"], "along": dimension, **keys})
    state = operator.init()
    for block in blocks:
        state = operator.update(state, block)
    return operator.finalize(state)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u8"])
@pytest.mark.parametrize("parts", [1, 3, 7])  # of 4 layers: some blocks are empty
@pytest.mark.parametrize("dimension", ["y", "x"])
def test_lines_equal_scipy_in_any_split(dimension, parts, dtype):
    data = (100 + 30 * np.random.default_rng(7).normal(size=(3, 4, 9, 6))).astype(dtype)
    blocks = cut(batch([replace(VOLUME, dtype=np.dtype(dtype))], {"u": data}), parts)
    axis = 1 + VOLUME.dims.index(dimension)
    others = tuple({0, 1, 2, 3} - {axis})
    real = data.astype("f8")
    frequencies, wanted = welch(real, nperseg=data.shape[axis], axis=axis)
    found = along(dimension, blocks)
    np.testing.assert_allclose(found["frequencies"], frequencies, rtol=1e-12)
    np.testing.assert_allclose(found["density"], wanted.mean(axis=others), rtol=1e-10, atol=1e-10)
    assert found["segments"] == data.size / data.shape[axis]
    frequencies, wanted = periodogram(real, 4.0, axis=axis)
    found = along(dimension, blocks, periodic=True, spacing=0.25)
    np.testing.assert_allclose(found["frequencies"], frequencies, rtol=1e-12)
    np.testing.assert_allclose(found["density"], wanted.mean(axis=others), rtol=1e-10, atol=1e-10)


def test_the_sum_of_a_periodic_spectrum_is_the_variance():
    data = np.random.default_rng(8).normal(size=(1, 4, 9, 6)) + 1e8
    found = along("y", [batch([VOLUME], {"u": data})], periodic=True, spacing=0.5)
    variance = data.var(axis=2).mean()
    assert np.sum(found["density"]) * found["frequencies"][1] == pytest.approx(variance, rel=1e-6)


def test_more_lines_than_are_transformed_at_a_time(monkeypatch):
    data = np.random.default_rng(9).normal(size=(1, 4, 9, 6))
    whole = along("y", [batch([VOLUME], {"u": data})])
    for size in (1, 8 * 9 * 4, 8 * 9 * 14):
        monkeypatch.setattr("analytics.spectrum.BLOCK_BYTES", size)
        np.testing.assert_allclose(along("y", [batch([VOLUME], {"u": data})])["density"], whole["density"], rtol=1e-12)


def test_a_line_that_is_cut_is_refused_with_the_cure():
    blocks = cut(batch([VOLUME], {"u": np.zeros((1, 4, 9, 6))}), 2)
    with pytest.raises(OperatorError, match=r"holds the cells 2 to 3 of 'u' along 'z', which has 4.*name a dimension"):
        along("z", blocks[1:])


@pytest.mark.parametrize(("nan", "segments"), [("propagate", 24), ("skip", 23)])
def test_nan_in_a_line(nan, segments):
    data = np.random.default_rng(10).normal(size=(1, 4, 9, 6))
    data[0, 2, 5, 3] = np.nan
    found = along("y", [batch([VOLUME], {"u": data})], nan=nan)
    assert found["segments"] == segments
    lines = welch(data[0], nperseg=9, axis=1)[1]
    wanted = np.nanmean(lines, axis=(0, 2)) if nan == "skip" else np.full(5, np.nan)
    np.testing.assert_allclose(found["density"], wanted, rtol=1e-10)


def test_lines_that_do_not_vary_have_no_power():
    assert np.all(along("y", [batch([VOLUME], {"u": np.full((1, 4, 9, 6), 0.1)})])["density"] == 0.0)


def test_no_lines():
    assert along("y", [])["segments"] == 0
    found = along("y", [batch([VOLUME], {"u": np.zeros((1, 0, 9, 6))})])
    assert found["segments"] == 0
    assert np.all(np.isnan(found["density"]))


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        (ATOMS, "'u' is joined over the ranks and has no cells along 'y'"),
        (FIELD, "'u' has no dimension 'z', only y, x; name one of these"),
        (replace(VOLUME, shape=(1, 9, 6)), "'u' has one cell along 'z'"),
    ],
)
def test_lines_that_can_never_be_are_refused_at_once(variable, sentence):
    dimension = "y" if variable is ATOMS else "z"
    with pytest.raises(OperatorError, match=sentence):
        Spectrum(of="u", over="space", along=dimension).describe({"u": variable})


def test_describe():
    described = Spectrum(of="u", over="step", segment=8).describe({"u": FIELD})
    assert {name: (v.dims, v.shape, v.units) for name, v in described.items()} == {
        "density": (("frequency", "y", "x"), (5, 5, 7), "(m)2"),
        "frequencies": (("frequency",), (5,), "1"),
        "segments": (("y", "x"), (5, 7), "1"),
    }
    described = Spectrum(of="u", over="space", along="x", spacing=0.1).describe({"u": FIELD})
    assert {name: (v.dims, v.shape, v.units) for name, v in described.items()} == {
        "density": (("frequency",), (4,), ""),
        "frequencies": (("frequency",), (4,), ""),
        "segments": ((), (), "1"),
    }


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [(replace(LINE, dtype=np.dtype("c16")), "'u' is complex"), (ATOMS, "'u' is joined over the ranks")],
)
def test_what_can_never_be_folded_is_refused_at_once(variable, sentence):
    with pytest.raises(OperatorError, match=sentence):
        Spectrum(of="u", over="step", segment=8).describe({"u": variable})


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"segment": 1}, "greater than or equal to 2"),
        ({"window": 10, "segment": 11}, "segment: 11 is longer than the window of 10 steps"),
        ({"over": "space"}, "along is needed with over: space"),
        ({"over": "space", "along": "x"}, "segment has no meaning with over: space; leave it out"),
        ({"periodic": True}, "periodic has no meaning with over: step; leave it out"),
        ({"segment": None}, "segment is needed with over: step"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Spectrum(**{"of": "u", "over": "step", "segment": 8, **keys})
