# SPDX-License-Identifier: Apache-2.0
"""Connected regions against scipy.ndimage on the whole field, and against a flood fill where it is periodic."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from analytics import regions
from analytics.events import Events
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.operator import state_nbytes
from insitu.testing import batch

FIELD = Variable("u", np.dtype("f8"), (12, 9), ("y", "x"), units="m")
ATOMS = Variable("u", np.dtype("f8"), None, ("atom",))


def make(**keys):
    return Events(**{"of": "u", "over": "space", "threshold": 0.1, "largest": 200, **keys})


def smooth(shape, seed):
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 0.7, mode="wrap")


def blocks(data, *cuts, dtype="f8"):
    """Cut a field at these places along each dimension; a place that appears twice makes an empty block."""
    whole = replace(FIELD, dtype=np.dtype(dtype), shape=data.shape, dims=tuple("zyx"[-data.ndim :]))
    spans = [itertools.pairwise([0, *some, length]) for some, length in zip(cuts, data.shape, strict=True)]
    made = []
    for block in itertools.product(*map(list, spans)):
        piece = data[tuple(slice(*span) for span in block)]
        made.append(batch([whole], {"u": [piece]}, start={"u": tuple(first for first, _ in block)}))
    return made


def fold(operator, pieces):
    state = operator.init()
    for piece in pieces:
        state = operator.update(state, piece)
    return operator.finalize(state)


def by_scipy(data, beyond):
    labels, n = ndimage.label(beyond)
    each = range(1, n + 1)
    size = ndimage.sum_labels(beyond, labels, each).astype(int)
    order = np.argsort(-size, kind="stable")
    centroid = np.array(ndimage.center_of_mass(beyond, labels, each)).reshape(n, data.ndim)
    return n, size[order], centroid[order], ndimage.maximum(data, labels, each)[order] if n else np.zeros(0)


def flooded(beyond, periodic):
    """Return the cells of each region, in the plainest way."""
    left, found = {tuple(map(int, cell)) for cell in np.argwhere(beyond)}, []
    while left:
        found.append([left.pop()])
        for cell in found[-1]:  # which grows meanwhile
            for d, step in itertools.product(range(beyond.ndim), (-1, 1)):
                next_one = list(cell)
                next_one[d] += step
                if periodic[d]:
                    next_one[d] %= beyond.shape[d]
                if tuple(next_one) in left:
                    left.remove(tuple(next_one))
                    found[-1].append(tuple(next_one))
    return sorted((sorted(cells) for cells in found), key=lambda cells: (-len(cells), cells[0]))


CUTS = {
    "whole": [(), ()],
    "rows": [(1, 4, 4, 11), ()],
    "columns": [(), (3, 5)],
    "tiles": [(5, 6), (1, 4, 8)],
    "cells": [range(1, 12), range(1, 9)],
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cuts", CUTS)
def test_equals_scipy_on_the_whole_field(cuts, seed):
    data = smooth(FIELD.shape, seed)
    pieces = blocks(data, *CUTS[cuts])
    n, size, centroid, peak = by_scipy(data, data > 0.1)
    np.random.default_rng(seed).shuffle(pieces)
    found = fold(make(), pieces)
    assert found["number"] == n > 2
    assert found["cells"] == np.sum(data > 0.1)
    np.testing.assert_array_equal(found["size"][:n], size)
    np.testing.assert_allclose(found["centroid"][:n], centroid, rtol=1e-12)
    np.testing.assert_array_equal(found["peak"][:n], peak)
    assert np.all(found["size"][n:] == 0)
    assert np.all(np.isnan(found["centroid"][n:]))
    assert np.all(np.isnan(found["peak"][n:]))


@pytest.mark.parametrize("seed", range(3))
def test_any_tree_in_three_dimensions(seed):
    rng = np.random.default_rng(seed)
    data = smooth((6, 7, 8), seed)
    operator = make(side="below")
    states = [operator.update(operator.init(), piece) for piece in blocks(data, (2, 3), (4,), (1, 6))]
    while len(states) > 1:
        a, b = (states.pop(int(rng.integers(len(states)))) for _ in range(2))
        states.append(operator.merge(a, b))
    found = operator.finalize(states[0])
    n, size, centroid, depth = by_scipy(-data, data < 0.1)
    assert found["number"] == n
    np.testing.assert_array_equal(found["size"][:n], size)
    np.testing.assert_allclose(found["centroid"][:n], centroid, rtol=1e-12)
    np.testing.assert_array_equal(found["peak"][:n], -depth)


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("periodic", [("y",), ("x",), ("y", "x")], ids=str)
def test_the_end_of_a_periodic_dimension_meets_its_beginning(periodic, cuts):
    data = smooth(FIELD.shape, 14)
    wanted = flooded(data > 0.1, [dim in periodic for dim in FIELD.dims])
    found = fold(make(periodic=periodic), blocks(data, *CUTS[cuts]))
    assert found["number"] == len(wanted) < by_scipy(data, data > 0.1)[0]
    np.testing.assert_array_equal(found["size"][: len(wanted)], [len(cells) for cells in wanted])
    peaks = [max(data[cell] for cell in cells) for cells in wanted]
    np.testing.assert_array_equal(found["peak"][: len(wanted)], peaks)


def test_centroids_go_round_with_the_field():
    data = np.zeros((12, 9))
    data[4:7, 2:5] = 1.0
    for down, right in itertools.product(range(12), range(9)):
        moved = np.roll(data, (down, right), axis=(0, 1))
        centroid = fold(make(periodic=["y", "x"]), blocks(moved, (5,), (3,)))["centroid"][0]
        away = (centroid - [5 + down, 3 + right] + [6, 4.5]) % [12, 9] - [6, 4.5]
        np.testing.assert_allclose(away, 0, atol=1e-12)


def test_a_region_all_around_has_no_centroid_there():
    data = np.zeros((12, 9))
    data[3] = 1.0
    found = fold(make(periodic="x"), blocks(data, (), (4,)))
    assert found["size"][0] == 9
    np.testing.assert_array_equal(found["centroid"][0], [3, np.nan])


def test_only_the_largest_are_told():
    data = smooth(FIELD.shape, 0)
    every, some = (fold(make(largest=k), blocks(data, (5,), (4,))) for k in (200, 3))
    assert some["number"] == every["number"] > 3
    for name in ("size", "centroid", "peak"):
        np.testing.assert_array_equal(some[name], every[name][:3])


def test_a_state_forgets_faces_that_have_met():
    data = smooth((64, 64), 1)
    operator = make()
    states = [operator.update(operator.init(), piece) for piece in blocks(data, (32,), (32,))]
    assert state_nbytes(states[0]) < data[:32, :32].nbytes
    whole = operator.init()
    for state in states:
        whole = operator.merge(whole, state)
    kept = sum(face[side].shape[1] for face in whole["regions"]["faces"] for side in ("low", "high"))
    assert kept < 64  # those whose neighbour is not beyond


@pytest.mark.parametrize(
    ("dtype", "threshold"), [("i1", 0), ("u8", 2.0**63), ("i8", -(2.0**62)), ("f4", 0.1), ("f2", 0.1), ("?", 0.5)]
)
def test_every_real_dtype(dtype, threshold):
    kind = np.dtype(dtype).kind
    ends = [0, 1] if kind == "b" else [np.iinfo(dtype).min, np.iinfo(dtype).max] if kind in "iu" else [0.0625, 1]
    data = np.random.default_rng(2).choice(np.array(ends, dtype), FIELD.shape)
    found = fold(make(threshold=threshold), blocks(data, (5,), (4,), dtype=dtype))
    n, size, _, peak = by_scipy(data.astype("f8"), data == ends[1])
    np.testing.assert_array_equal(found["size"][:n], size)
    np.testing.assert_array_equal(found["peak"][:n], peak)


def test_what_equals_the_threshold_is_not_beyond_it():
    for side in ("above", "below"):
        assert fold(make(side=side), blocks(np.full(FIELD.shape, 0.1), (), ()))["number"] == 0


def test_nan_and_infinity():
    data = np.full(FIELD.shape, np.inf)
    data[6] = np.nan
    found = fold(make(), blocks(data, (6,), ()))
    assert found["size"][:3].tolist() == [54, 45, 0]
    assert found["peak"][0] == np.inf
    with pytest.raises(OperatorError, match=r"'u' is NaN in step 0 at cell \(6, 0\)"):
        fold(make(nan="fail"), blocks(data, (6,), ()))


@pytest.mark.parametrize("data", [np.zeros((12, 9)), np.zeros((0, 9)), np.zeros((12, 0))], ids=lambda data: data.shape)
def test_no_regions(data):
    found = fold(make(largest=2), blocks(data, (), ()))
    assert (found["number"], found["cells"], found["size"].tolist()) == (0, 0, [0, 0])
    assert found["centroid"].shape == (2, 2)
    assert fold(make(largest=2), [])["number"] == 0


def test_without_scipy_the_cure_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    regions.scipy_part.cache_clear()
    with pytest.raises(OperatorError, match=r"events needs the package scipy.*pip install 'insitu\[events\]'"):
        make().describe({"u": FIELD})


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        (ATOMS, "'u' is joined over the ranks and has no cells with neighbours"),
        (Variable("u", np.dtype("f8"), (), ()), "'u' is one number and has no cells with neighbours"),
        (replace(FIELD, dtype=np.dtype("c16")), "'u' is complex"),
        (replace(FIELD, dims=("y", "z")), "'u' has no dimension 'x', only y, z"),
    ],
)
def test_what_can_never_be_folded_is_refused_at_once(variable, sentence):
    with pytest.raises(OperatorError, match=sentence):
        make(periodic="x").describe({"u": variable})


def test_describe():
    described = make(largest=3).describe({"u": FIELD})
    assert {name: (v.dims, v.shape, v.units) for name, v in described.items()} == {
        "number": ((), (), "1"),
        "cells": ((), (), "1"),
        "size": (("event",), (3,), "1"),
        "centroid": (("event", "dimension"), (3, 2), "1"),
        "peak": (("event",), (3,), "m"),
    }


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"over": "step"}, "not possible here"),
        ({"largest": 0}, "greater than or equal to 1"),
        ({"threshold": np.nan}, "finite number"),
        ({"nan": "propagate"}, "'skip' or 'fail'"),
    ],
)
def test_wrong_keys_are_refused_with_the_cure(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        make(**keys)
