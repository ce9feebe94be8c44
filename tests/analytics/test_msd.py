# SPDX-License-Identifier: Apache-2.0
"""Mean squared displacements against all pairs in NumPy, and against MDAnalysis."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from analytics.msd import Msd
from insitu.errors import OperatorError
from insitu.model import Step, Variable
from insitu.operator import Batch
from insitu.testing import batch, cut

ATOMS = Variable("x", np.dtype("f8"), None, ("atom", "axis"), units="nm", row=(3,))
NUMBERS = Variable("id", np.dtype("i4"), None, ("atom",))
BOX = (7.0, 5.0, 6.0)


def make(**keys):
    return Msd(**{"of": "x", "id": "id", "over": ["step", "space"], "window": 30, **keys})


def walk(steps, particles, size=0.4, seed=0):
    """Return the ways of particles that take random steps."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0, BOX, (particles, 3)) + rng.normal(0, size, (steps, particles, 3)).cumsum(axis=0)


def published(ways, there=None, dtype="f8", seed=0, first=0, spacing=1.0):
    """Return a batch of the particles that are there, in each step in another order."""
    rng = np.random.default_rng(seed)
    there = np.ones(ways.shape[:2], bool) if there is None else there
    orders = [rng.permutation(np.flatnonzero(each)) for each in there]
    made = batch(
        [replace(ATOMS, dtype=np.dtype(dtype)), NUMBERS],
        {"x": [x[order] for x, order in zip(ways, orders, strict=True)], "id": [7 * order - 9 for order in orders]},
    )
    steps = tuple(Step(first + k, 10 * k, spacing * k) for k in range(len(ways)))
    return Batch(steps, made.variables, made.start, made.arrays)


def fold(operator, *batches):
    state = operator.init()
    for one in batches:
        state = operator.update(state, one)
    return operator.finalize(state)


def all_pairs(ways, lags):
    """Average over all pairs of steps and particles in the plainest way; NaN is not there."""
    found = []
    for lag in range(lags + 1):
        several = [
            np.sum((ways[t + lag, p] - ways[t, p]) ** 2) for t in range(len(ways) - lag) for p in range(ways.shape[1])
        ]
        known = np.count_nonzero(~np.isnan(several))
        found.append((np.nanmean(several) if known else np.nan, known))
    return np.array(found).T


@pytest.mark.parametrize("particles", [1, 40])
@pytest.mark.parametrize("together", [7, 256])
def test_equals_all_pairs(monkeypatch, together, particles):
    monkeypatch.setattr("analytics.msd.TOGETHER", together)
    ways = walk(12, particles)
    found = fold(make(window=12), published(ways, spacing=0.5))
    wanted, count = all_pairs(ways, 11)
    np.testing.assert_allclose(found["msd"], wanted, rtol=1e-12)
    np.testing.assert_array_equal(found["count"], count)
    np.testing.assert_allclose(found["elapsed"], 0.5 * np.arange(12), rtol=1e-12)


@pytest.mark.parametrize("mean", [0.0, 1e8])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_any_dimension_and_place(dimensions, mean):
    ways = walk(9, 20)[:, :, :dimensions] + mean
    moved = batch(
        [replace(ATOMS, row=(dimensions,)), NUMBERS], {"x": ways, "id": np.tile(np.arange(20), (9, 1))}
    )  # fmt: skip
    np.testing.assert_allclose(fold(make(window=9), moved)["msd"], all_pairs(ways - mean, 8)[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_jumps_in_a_periodic_box_are_undone_in_any_split(parts, dtype):
    ways = walk(25, 30)
    assert np.ptp(ways, axis=0).max() > 4  # some go round the box
    pieces = cut(published(np.mod(ways, BOX), dtype=dtype), parts)
    operator = make(box=BOX)
    found = fold(operator, *pieces)
    rtol = 1e-10 if dtype == "f8" else 1e-5
    np.testing.assert_allclose(found["msd"][:25], all_pairs(ways, 24)[0], rtol=rtol, atol=rtol)
    state = operator.init()
    for piece in pieces:
        for step in piece.split():
            state = operator.merge(operator.update(operator.init(), step), state)
    np.testing.assert_array_equal(operator.finalize(state)["msd"], found["msd"])


def test_equals_mdanalysis(universe):
    from MDAnalysis.analysis.msd import EinsteinMSD

    ways = walk(20, 50).astype("f4")
    wanted = EinsteinMSD(universe(ways), select="all", msd_type="xyz", fft=False).run().results.timeseries
    found = fold(make(window=20), *cut(published(ways, dtype="f4"), 3))
    np.testing.assert_allclose(found["msd"], wanted, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("box", [None, BOX])
def test_particles_come_and_go(box):
    rng = np.random.default_rng(4)
    ways, there = walk(10, 25, size=0.1), rng.random((10, 25)) < 0.7
    wanted, count = all_pairs(np.where(there[:, :, np.newaxis], ways, np.nan), 9)
    found = fold(make(window=10, box=box), published(ways if box is None else np.mod(ways, box), there))
    np.testing.assert_allclose(found["msd"], wanted, rtol=1e-9)
    np.testing.assert_array_equal(found["count"], count)


def test_lost_steps_are_no_steps():
    ways = walk(10, 15)
    kept = [0, 1, 3, 4, 8]  # none are six apart
    steps = published(ways).split()
    found = fold(make(window=10), *(steps[k] for k in kept))
    missing = ways.copy()
    missing[[k for k in range(10) if k not in kept]] = np.nan
    np.testing.assert_allclose(found["msd"][:9], all_pairs(missing, 8)[0], rtol=1e-12)
    np.testing.assert_array_equal(found["elapsed"], [0, 1, 2, 3, 4, 5, np.nan, 7, 8, np.nan])
    np.testing.assert_array_equal(np.isnan(found["msd"]), np.isnan(found["elapsed"]))


def test_a_stride_takes_some_steps_only():
    ways = walk(24, 10)
    operator = make(window=12, stride=5)
    state = operator.update(operator.init(), published(ways[:12], first=12))
    assert sorted(state) == ["15", "20"]
    found = operator.finalize(state)
    np.testing.assert_allclose(found["msd"][:2], all_pairs(ways[[3, 8]], 1)[0], rtol=1e-12)
    assert found["count"].tolist() == [20, 10, 0]


def test_lags_are_as_many_as_asked_for():
    ways = walk(12, 10)
    np.testing.assert_allclose(fold(make(lags=4), published(ways))["msd"], all_pairs(ways, 4)[0], rtol=1e-12)


def test_diffusion_of_a_random_walk():
    """Each step adds its variance in each dimension: 3 x 0.01."""
    found = fold(make(window=30, lags=10), published(walk(30, 2000, size=0.1)))
    np.testing.assert_allclose(found["msd"], 0.03 * np.arange(11), rtol=0.05)


def test_nothing():
    for found in (fold(make()), fold(make(), published(np.zeros((4, 0, 3))))):
        assert np.all(np.isnan(found["msd"]))
        assert np.all(found["count"] == 0)
    found = fold(make(), published(np.zeros((1, 3, 3))))
    assert found["count"].tolist() == [3] + [0] * 29


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_particle_without_a_place_is_refused(value):
    x = np.zeros((2, 4, 3))
    x[1, 2, 0] = value
    with pytest.raises(OperatorError, match="'x' is not finite in step 1 at row 2 of a rank"):
        fold(make(), batch([ATOMS, NUMBERS], {"x": x, "id": [range(4)] * 2}))


def test_a_particle_that_is_there_twice_is_refused():
    held = batch([ATOMS, NUMBERS], {"x": np.zeros((2, 4, 3)), "id": [[0, 1, 2, 3], [3, 1, 2, 1]]})
    with pytest.raises(OperatorError, match="the particle with 'id' 1 is there more than once in step 1"):
        fold(make(), *cut(held, 2))


def test_other_numbers_of_rows_are_refused():
    with pytest.raises(OperatorError, match="'x' has 4 rows in step 0 and 'id' has 3"):
        fold(make(), batch([ATOMS, NUMBERS], {"x": np.zeros((1, 4, 3)), "id": [range(3)]}))


@pytest.mark.parametrize("dtype", ["u8", "i8"])
def test_numbers_may_be_of_any_size(dtype):
    numbers = replace(NUMBERS, dtype=np.dtype(dtype))
    ends = np.array([np.iinfo(dtype).max, np.iinfo(dtype).max - 1, np.iinfo(dtype).min], dtype)
    held = batch([ATOMS, numbers], {"x": [np.eye(3), np.eye(3)[::-1]], "id": [ends, ends[::-1]]})
    assert fold(make(), held)["msd"][1] == 0.0


@pytest.mark.parametrize(
    ("inputs", "keys", "sentence"),
    [
        ({"x": Variable("x", np.dtype("f8"), (8, 3), ("atom", "axis"))}, {}, "'x' holds no positions"),
        ({"id": replace(NUMBERS, dtype=np.dtype("f8"))}, {}, "'id' does not number particles.*it is float64"),
        ({"x": replace(ATOMS, row=(2,))}, {"box": BOX}, "'x' has 2 numbers per row, and box 3 sides"),
        ({"x": replace(ATOMS, dtype=np.dtype("c16"))}, {}, "'x' is complex"),
    ],
)
def test_what_can_never_be_folded_is_refused_at_once(inputs, keys, sentence):
    with pytest.raises(OperatorError, match=sentence):
        make(**keys).describe({"x": ATOMS, "id": NUMBERS} | inputs)


def test_describe():
    described = make(window=30, stride=4).describe({"x": ATOMS, "id": NUMBERS})
    assert {name: (v.dims, v.shape, v.units) for name, v in described.items()} == {
        "msd": (("lag",), (8,), "(nm)2"),
        "elapsed": (("lag",), (8,), ""),
        "count": (("lag",), (8,), "1"),
    }


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"window": "run"}, "would keep the positions of all steps; give a number of steps"),
        ({"stride": 30}, "takes one step of a window of 30, which has no displacement"),
        ({"lags": 30}, "lags: 30 are more than the 29 that a window of 30 steps has"),
        ({"over": "space"}, "not possible here"),
        ({"box": ()}, "at least 1"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        make(**keys)
