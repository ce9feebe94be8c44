# SPDX-License-Identifier: Apache-2.0
"""Means and deviations against NumPy."""

import numpy as np
import pytest

from analytics.nn.normalising import Normaliser

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("per", "axes"), [("feature", 0), ("channel", (0, 2, 3)), ("all", (0, 1, 2, 3))])
def test_means_and_deviations_are_numpys(per: str, axes: int | tuple[int, ...]) -> None:
    x = RNG.normal(1e4, 1.0, (90, 3, 4, 5)).astype(np.float32)
    normaliser = Normaliser((3, 4, 5), per)
    for part in np.array_split(x, 7):
        normaliser.fold(part)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(normaliser.mean.ravel(), wide.mean(axis=axes).ravel(), rtol=1e-7)
    np.testing.assert_allclose(normaliser.std.ravel(), wide.std(axis=axes, ddof=1).ravel(), rtol=1e-6)
    scaled = (x - normaliser.mean) / normaliser.std
    np.testing.assert_allclose(scaled.mean(axis=axes), 0, atol=1e-2)


def test_frozen_means_stay_and_following_ones_do_not() -> None:
    x = RNG.normal(0.0, 1.0, (50, 2)).astype(np.float32)
    frozen, following = Normaliser((2,), freeze=20), Normaliser((2,), freeze=None)
    for normaliser in (frozen, following):
        normaliser.fold(x[:15])
        assert not normaliser.frozen
        normaliser.fold(x[15:])
    assert frozen.frozen
    assert frozen.seen == 20
    np.testing.assert_allclose(frozen.mean, x[:20].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(following.mean, x.mean(axis=0), rtol=1e-5)
    frozen.fold(x + 100)
    np.testing.assert_allclose(frozen.mean, x[:20].mean(axis=0), rtol=1e-5)


def test_what_does_not_vary_is_not_scaled() -> None:
    normaliser = Normaliser((2,), freeze=None)
    normaliser.fold(np.array([[3.0, 1.0]], np.float32))
    assert normaliser.std.tolist() == [1.0, 1.0], "one sample says nothing about deviations"
    normaliser.fold(np.array([[3.0, 2.0], [3.0, 3.0]], np.float32))
    assert normaliser.std.tolist() == [1.0, 1.0]
    assert normaliser.mean.tolist() == [3.0, 2.0]
    none = Normaliser((2,), "none")
    none.fold(np.full((4, 2), 7.0, np.float32))
    assert none.mean.ravel().tolist() == [0.0]


@pytest.mark.parametrize("per", ["feature", "channel", "all"])
def test_what_several_learn_is_what_one_learns_from_it_all(per: str) -> None:
    x = RNG.normal(5.0, 2.0, (40, 3, 2)).astype(np.float32)
    whole, a, b, nothing = (Normaliser((3, 2), per, freeze=None) for _ in range(4))
    whole.fold(x)
    a.fold(x[:13])
    b.fold(x[13:])
    packs = np.stack([each.packed() for each in (a, nothing, b)])
    a.unite(packs)
    b.unite(packs)
    np.testing.assert_array_equal(a.std, b.std)
    assert not a.united
    np.testing.assert_allclose(a.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(a.std, whole.std, rtol=1e-6)
    again = Normaliser((3, 2), per, freeze=None)
    again.load(whole.state())
    again.fold(x)
    whole.fold(x)
    np.testing.assert_array_equal(again.std, whole.std)


def test_those_who_learn_together_freeze_together() -> None:
    a, b = Normaliser((1,), freeze=10), Normaliser((1,), freeze=10)
    a.fold(np.zeros((6, 1), np.float32))
    b.fold(np.ones((4, 1), np.float32))
    packs = np.stack([a.packed(), b.packed()])
    a.unite(packs)
    assert a.united
    assert a.mean == pytest.approx(0.4)
    a.fold(np.full((4, 1), 9.0, np.float32))
    assert a.mean == pytest.approx(0.4)


def test_scalars_have_one_of_each() -> None:
    for per in ("feature", "channel", "all"):
        normaliser = Normaliser((), per)
        normaliser.fold(np.array([1.0, 3.0], np.float32))
        assert normaliser.mean == 2.0
