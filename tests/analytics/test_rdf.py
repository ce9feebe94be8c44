# SPDX-License-Identifier: Apache-2.0
"""Radial distribution functions against all pairs in NumPy, and against MDAnalysis."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from analytics.rdf import Rdf
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.testing import batch, cut

ATOMS = Variable("x", np.dtype("f8"), None, ("atom", "axis"), units="nm", row=(3,))
BOX = (7.0, 5.0, 6.0)


def make(**keys):
    return Rdf(**{"of": "x", "over": ["step", "space"], "window": 10, "box": BOX, "cutoff": 2.5, "bins": 20, **keys})


def fold(operator, *batches):
    state = operator.init()
    for one in batches:
        state = operator.update(state, one)
    return operator.finalize(state)


def all_pairs(x, box, cutoff, bins):
    """Count the distances of all pairs in the plainest way."""
    i, j = np.triu_indices(len(x), 1)
    d = x[i] - x[j]
    d -= np.array(box) * np.rint(d / box)
    return np.histogram(np.sqrt((d * d).sum(axis=1)), bins, (0, cutoff))[0]


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("cutoff", [2.5, 2.4, 1.7, 0.9, 0.3])  # of one, two, and more cells in a direction
def test_equals_all_pairs_in_any_split(cutoff, dtype):
    rng = np.random.default_rng(1)
    steps = [rng.uniform(-20, 20, (n, 3)).astype(dtype) for n in (300, 299, 2, 1, 0)]
    wanted = sum(all_pairs(x.astype("f8"), BOX, cutoff, 20) for x in steps)
    whole = batch([replace(ATOMS, dtype=np.dtype(dtype))], {"x": steps})
    operator = make(cutoff=cutoff)
    for parts in (1, 2, 5):
        found = fold(operator, *cut(whole, parts))
        np.testing.assert_array_equal(found["count"], wanted)
    state = operator.init()
    for part in cut(whole, 3):
        state = operator.merge(operator.update(operator.init(), part), state)
    np.testing.assert_array_equal(operator.finalize(state)["count"], found["count"])


@pytest.mark.parametrize("parts", [1, 3])
def test_equals_mdanalysis(universe, parts):
    from MDAnalysis.analysis.rdf import InterRDF

    x = np.random.default_rng(5).uniform(0, BOX, (5, 400, 3)).astype("f4")
    atoms = universe(x, BOX).atoms
    wanted = InterRDF(atoms, atoms, nbins=20, range=(0, 2.5), exclusion_block=(1, 1)).run()
    whole = batch([replace(ATOMS, dtype=np.dtype("f4"))], {"x": x})
    found = fold(make(), *cut(whole, parts))
    np.testing.assert_allclose(2 * found["count"], wanted.results.count, atol=2)  # which computes in float32
    np.testing.assert_allclose(found["g"], wanted.results.rdf, rtol=1e-3)


def test_particles_without_order_have_one_everywhere():
    x = np.random.default_rng(2).uniform(0, 10, (20, 1000, 3))
    found = fold(make(cutoff=5, box=(10, 10, 10), bins=10, window=20), batch([ATOMS], {"x": x}))
    np.testing.assert_allclose(found["g"][1:], 1, atol=0.02)
    inside = 4 / 3 * np.pi * found["edges"][1:] ** 3 / 1000
    np.testing.assert_allclose(found["coordination"], 999 * inside, rtol=0.05)


def test_a_crystal_has_its_shells():
    """Face-centred cubic: 12 neighbours at a / √2, 6 at a, 24 at a √1.5."""
    corners = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    x = (corners + np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 1, 3)).reshape(-1, 3)
    found = fold(make(cutoff=1.4, box=(4, 4, 4), bins=14), batch([ATOMS], {"x": [x]}))
    np.testing.assert_allclose(found["coordination"][[6, 7, 8, 10, 11, 12]], [0, 12, 12, 18, 18, 42])
    assert found["count"].sum() == len(x) * 42 // 2


def test_numbers_of_particles_may_change():
    """The expected pairs are added up step by step, so a step of few particles weighs little."""
    x = np.random.default_rng(3).uniform(0, 10, (1200, 3))
    found = fold(make(cutoff=5, box=(10, 10, 10), bins=2), batch([ATOMS], {"x": [x[:1000], x[1000:], x[:0]]}))
    np.testing.assert_allclose(found["g"], 1, atol=0.03)


def test_a_stride_takes_some_steps_only():
    x = np.random.default_rng(4).uniform(0, 5, (10, 50, 3))
    operator = make(stride=4)
    state = operator.update(operator.init(), batch([ATOMS], {"x": x}, first=3))
    assert sorted(state["positions"]) == ["12", "4", "8"]
    np.testing.assert_array_equal(
        operator.finalize(state)["count"], sum(all_pairs(x[k], BOX, 2.5, 20) for k in (1, 5, 9))
    )


def test_too_few_particles():
    found = fold(make())
    assert np.all(np.isnan(found["g"]))
    assert np.all(np.isnan(found["coordination"]))
    found = fold(make(), batch([ATOMS], {"x": [np.zeros((1, 3))]}))
    assert np.all(np.isnan(found["g"]))
    assert np.all(found["coordination"] == 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_particle_without_a_place_is_refused(value):
    x = np.zeros((2, 4, 3))
    x[1, 2, 0] = value
    with pytest.raises(OperatorError, match="'x' is not finite in step 1 at row 2 of a rank"):
        fold(make(), batch([ATOMS], {"x": x}))


@pytest.mark.parametrize(
    "variable",
    [Variable("x", np.dtype("f8"), (8, 3), ("atom", "axis")), replace(ATOMS, row=(2,))],
)
def test_what_holds_no_positions_is_refused(variable):
    with pytest.raises(OperatorError, match=r"'x' holds no positions.*its dimensions are atom, axis"):
        make().describe({"x": variable})


def test_describe():
    described = make().describe({"x": ATOMS})
    assert {name: (v.dims, v.shape, v.units) for name, v in described.items()} == {
        "g": (("bin",), (20,), "1"),
        "coordination": (("bin",), (20,), "1"),
        "count": (("bin",), (20,), "1"),
        "edges": (("edge",), (21,), "nm"),
    }


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"cutoff": 2.51}, "more than half of the shortest side, 5.0"),
        ({"box": (1, 2)}, "Field required|at least 3"),
        ({"box": (1, 2, 0)}, "greater than 0"),
        ({"stride": 11}, "stride: 11 leaves some windows of 10 steps without any"),
        ({"window": "run"}, "would keep the positions of all steps; give a number of steps"),
        ({"over": "step"}, "not possible here"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        make(**keys)


def test_a_stride_needs_a_window():
    with pytest.raises(ValidationError, match="stride has no meaning with over: space"):
        Rdf(of="x", over="space", box=BOX, cutoff=1, bins=2, stride=2)
