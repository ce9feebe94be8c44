# SPDX-License-Identifier: Apache-2.0
"""Profiles against NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from analytics.profile import Profile
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.testing import batch, cut

FIELD = Variable("u", np.dtype("f8"), (4, 5, 6), ("z", "y", "x"), units="K")
ATOMS = Variable("v", np.dtype("f8"), None, ("atom", "axis"), units="m s-1", row=(2,))
PLACES = Variable("place", np.dtype("f8"), None, ("atom", "axis"), units="m", row=(3,))
HEIGHTS = Variable("height", np.dtype("f8"), None, ("atom",), units="m")

ROWS = (50, 0, 1, 20_000)
RNG = np.random.default_rng(1)
VALUES = [RNG.normal(5.0, 2.0, (n, 2)) for n in ROWS]
POSITIONS = [RNG.uniform(-1.0, 11.0, (n, 3)) for n in ROWS]
SLAB = {"of": "v", "along": "place", "axis": "y", "range": (0, 10), "bins": 7, "over": ["step", "space"]}


def atoms(values=VALUES, positions=POSITIONS, first=0):
    return batch([ATOMS, PLACES], {"v": values, "place": positions}, first=first)


def fold(operator, *batches):
    state = operator.init()
    for one in batches:
        state = operator.update(state, one)
    return operator.finalize(state)


def check_bins(found, values, positions, bins=7, low=0.0, high=10.0):
    edges = np.linspace(low, high, bins + 1)
    where = np.digitize(positions, edges) - 1
    np.testing.assert_array_equal(found["count"], np.bincount(where[(where >= 0) & (where < bins)], minlength=bins))
    assert found["outside"] == np.sum((positions < low) | (positions > high))
    for k in range(bins):
        np.testing.assert_allclose(found["mean"][k], values[where == k].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found["variance"][k], values[where == k].var(axis=0, ddof=1), rtol=1e-12)


class TestParticles:
    def test_equals_numpy(self):
        found = fold(Profile(**SLAB), atoms())
        check_bins(found, np.concatenate(VALUES), np.concatenate(POSITIONS)[:, 1])

    def test_density_is_per_step_and_volume_however_many_ranks_there_are(self):
        parts = [part for first in (0, 4) for part in cut(atoms(first=first), 3)]
        found = fold(Profile(**SLAB, area=2.5), *parts)
        np.testing.assert_allclose(found["density"], found["count"] / (8 * 2.5 * 10 / 7), rtol=1e-15)
        alone = fold(Profile(**{**SLAB, "over": "space"}), atoms(VALUES[:1], POSITIONS[:1]))
        np.testing.assert_allclose(alone["density"], alone["count"] / (10 / 7), rtol=1e-15)

    def test_periodic_positions_are_moved_into_the_range(self):
        found = fold(Profile(**SLAB, periodic=True), atoms())
        check_bins(found, np.concatenate(VALUES), np.concatenate(POSITIONS)[:, 1] % 10.0)

    def test_positions_of_one_number(self):
        heights = [p[:, 2] for p in POSITIONS]
        one = batch([ATOMS, HEIGHTS], {"v": VALUES, "height": heights})
        found = fold(Profile(of="v", along="height", range=(0, 10), bins=7, over=["step", "space"]), one)
        check_bins(found, np.concatenate(VALUES), np.concatenate(heights))

    def test_density_alone(self):
        operator = Profile(of="place", along="place", axis="z", range=(0, 10), bins=4, over="space")
        assert operator.inputs == ("place",)
        found = fold(operator, batch([PLACES], {"place": POSITIONS[:1]}))
        np.testing.assert_array_equal(found["count"], np.histogram(POSITIONS[0][:, 2], 4, (0, 10))[0])
        assert list(found) == ["count", "density", "edges", "outside"]

    def test_digits_are_kept_where_the_mean_is_large(self):
        values = [v + 1e8 for v in VALUES]
        exact = np.concatenate([v - 1e8 for v in values])
        where = np.concatenate(POSITIONS)[:, 1]
        found = fold(
            Profile(**SLAB), *(atoms([v], [p], k) for k, (v, p) in enumerate(zip(values, POSITIONS, strict=True)))
        )
        inside = (where >= 0) & (where < 10 / 7)
        np.testing.assert_allclose(found["variance"][0], exact[inside].var(axis=0, ddof=1), rtol=1e-7)

    def test_nan(self):
        values = np.array([[1.0, 2.0], [np.nan, 4.0], [3.0, 6.0]])
        positions = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, np.nan, 0.0]])
        found = fold(Profile(**SLAB), atoms([values], [positions]))
        assert (found["count"][0], found["outside"]) == (2, 1)
        np.testing.assert_array_equal(found["mean"][0], [np.nan, 3.0])
        found = fold(Profile(**SLAB, nan="skip"), atoms([values], [positions]))
        assert (found["count"][0], found["outside"]) == (1, 1)
        np.testing.assert_array_equal(found["mean"][0], [1.0, 2.0])
        with pytest.raises(OperatorError, match=r"'v' is NaN in step 0 at row \(1, 0\)"):
            fold(Profile(**SLAB, nan="fail"), atoms([values], [positions]))
        with pytest.raises(OperatorError, match=r"'place' is NaN in step 0 at row \(2, 1\)"):
            fold(Profile(**SLAB, nan="fail"), atoms([values[:1].repeat(3, 0)], [positions]))

    def test_infinite_positions_are_outside(self):
        positions = [np.array([[0.0, np.inf, 0.0], [0.0, -np.inf, 0.0]])]
        for periodic in (False, True):
            found = fold(Profile(**SLAB, periodic=periodic), atoms(VALUES[0][None, :2], positions))
            assert (found["count"].sum(), found["outside"]) == (0, 2)

    def test_different_particles_are_refused(self):
        with pytest.raises(OperatorError, match="'v' has 50 rows in step 0 and 'place' has 1"):
            fold(Profile(**SLAB), atoms(VALUES[:1], POSITIONS[2:3]))


@pytest.mark.parametrize("along", ["z", "y", "x"])
class TestCells:
    @pytest.mark.parametrize("dtype", ["f8", "f4"])
    def test_equals_numpy_on_blocks(self, along, dtype):
        field = replace(FIELD, dtype=np.dtype(dtype))
        data = np.random.default_rng(2).normal(50.0, 20.0, (9, *FIELD.shape)).astype(dtype)
        found = fold(Profile(of="u", along=along, over=["step", "space"]), *cut(batch([field], {"u": data}), 3))
        others = tuple(d for d in range(4) if d != 1 + FIELD.dims.index(along))
        np.testing.assert_allclose(found["mean"], data.astype("f8").mean(axis=others), rtol=1e-12)
        np.testing.assert_allclose(found["variance"], data.astype("f8").var(axis=others, ddof=1), rtol=1e-12)
        assert np.all(found["count"] == data.size // len(found["count"]))

    def test_nan(self, along):
        data = np.random.default_rng(3).normal(size=(1, *FIELD.shape))
        data[0, 1, 2, 3] = np.nan
        others = tuple(d for d in range(4) if d != 1 + FIELD.dims.index(along))
        one = batch([FIELD], {"u": data})
        found = fold(Profile(of="u", along=along, over="space"), one)
        np.testing.assert_allclose(found["mean"], data.mean(axis=others), rtol=1e-12)
        found = fold(Profile(of="u", along=along, over="space", nan="skip"), one)
        np.testing.assert_allclose(found["mean"], np.nanmean(data, axis=others), rtol=1e-12)
        np.testing.assert_array_equal(found["count"], np.sum(~np.isnan(data), axis=others))


def test_describe():
    described = Profile(**SLAB, area=1.0).describe({"v": ATOMS, "place": PLACES})
    assert {name: (v.dims, v.shape, v.units) for name, v in described.items()} == {
        "count": (("bin",), (7,), "1"),
        "mean": (("bin", "axis"), (7, 2), "m s-1"),
        "variance": (("bin", "axis"), (7, 2), "(m s-1)2"),
        "density": (("bin",), (7,), "(m)-3"),
        "edges": (("edge",), (8,), "m"),
        "outside": ((), (), "1"),
    }
    described = Profile(of="u", along="y", over="space").describe({"u": FIELD})
    wanted = dict.fromkeys(("count", "mean", "variance"), (("y",), (5,)))
    assert {name: (v.dims, v.shape) for name, v in described.items()} == wanted


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"along": "y", "range": None, "bins": None, "axis": None}, "'v' is joined over the ranks.*positions in along"),
        ({"of": "u", "along": "w"}, "'u' has no dimension 'w', only z, y, x"),
        ({**SLAB, "of": "u"}, "'u' has cells that stay in place.*leave range out"),
        ({**SLAB, "along": "height"}, "'height' is one number per row and has no axis y; leave axis out"),
        ({**SLAB, "axis": 3}, "'place' has 3 components per row, and axis is 3"),
        (
            {"of": "v", "along": "place", "range": (0, 1), "bins": 3},
            "'place' has 3 components per row, and axis is None",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused_at_once(keys, sentence):
    operator = Profile(**{"of": "v", "over": "space", **{k: v for k, v in keys.items() if v is not None}})
    variables = {"u": FIELD, "v": ATOMS, "place": PLACES, "height": HEIGHTS}
    with pytest.raises(OperatorError, match=sentence):
        operator.describe({name: variables[name] for name in operator.inputs})


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"range": (0, 1)}, "range needs bins beside it"),
        ({"bins": 3}, "bins belongs to positions, and these need a range; without one, along: z is a dimension"),
        ({"axis": "z"}, "axis belongs to positions"),
        ({"range": (1, 0), "bins": 3}, "low below high"),
        ({"range": (0, 1), "bins": 3, "area": 0}, "greater than 0"),
        ({"over": "step"}, r"over: \['step'\] is not possible here, take \['space', 'step'\] or \['space'\]"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Profile(**{"of": "u", "along": "z", "over": "space", **keys})
