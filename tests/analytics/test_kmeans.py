# SPDX-License-Identifier: Apache-2.0
"""Clusters against scikit-learn's k-means, and what a bounded sample keeps of them."""

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.cluster import KMeans as Batchwise

from analytics.kmeans import KMeans, clustered
from analytics.sampling import squared_distances
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.testing import batch
from tests.analytics.places import read, variable

ATOMS = Variable("x", np.dtype("f8"), None, ("atom", "axis"), units="nm", row=(3,))


def groups(counts: list[int], features: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Samples around points far from each other, in any order, and which point each is of."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    middles = 10 * rng.normal(size=(len(counts), features))
    return middles[labels] + rng.normal(size=(len(labels), features)), labels


@pytest.mark.parametrize("parts", [1, 3])
def test_steps_are_clustered_as_scikit_learn_does(parts: int) -> None:
    steps, labels = groups([30, 20, 10], 36)
    found = read(KMeans(of="u", clusters=3, sample=64), [variable(9, 4)], {"u": steps.reshape(-1, 9, 4)}, parts=parts)
    expected = Batchwise(3, n_init=10, random_state=0).fit(steps)
    by_time = [expected.labels_[np.flatnonzero(expected.labels_ == k)[0]] for k in range(3)]
    order = sorted(by_time, key=lambda k: np.flatnonzero(expected.labels_ == k)[0])
    np.testing.assert_allclose(found["centroids"].reshape(3, -1), expected.cluster_centers_[order], rtol=1e-10)
    np.testing.assert_allclose(found["inertia"], expected.inertia_ / 60, rtol=1e-10)
    np.testing.assert_array_equal(np.sort(found["share"] * 60), [10, 20, 30])
    assert len(set(zip(labels, found["label"][:60], strict=True))) == 3
    np.testing.assert_array_equal(found["sampled"], [*range(60), -1, -1, -1, -1])


def test_is_as_good_as_the_best_of_scikit_learn_where_nothing_is_clustered() -> None:
    samples = np.random.default_rng(3).normal(size=(800, 5))
    inertia = clustered(samples, 6)[1] * 800
    assert inertia < 1.02 * Batchwise(6, n_init=20, random_state=0).fit(samples).inertia_


def test_a_sample_of_particles_has_their_clusters() -> None:
    """Centroids are off by no more than four of the standard errors that the docstring states."""
    rows, labels = groups([4000, 3000, 1000], 3, seed=5)
    operator = KMeans(of="x", over=["step", "space"], clusters=3, sample=500)
    state = operator.update(operator.init(), batch([ATOMS], {"x": np.split(rows, 8)}))
    found = operator.finalize(state)
    assert (found["samples"], found["rows"]) == (500, 8000)
    means = np.array([rows[labels == k].mean(axis=0) for k in range(3)])
    order = np.argsort(means[:, 0])
    error = 4 / np.sqrt(found["share"] * 500)
    assert (np.abs(found["centroids"] - means[order]) < error[:, None]).all()
    np.testing.assert_allclose(found["share"], np.array([0.5, 0.375, 0.125])[order], atol=4 * 0.5 / np.sqrt(500))


def test_the_sample_is_uniform_over_the_steps_and_the_places_keep_the_same() -> None:
    operator = KMeans(of="u", clusters=1, sample=200)
    found = read(operator, [variable(2)], {"u": np.arange(8000.0).reshape(4000, 2)}, sizes=100, parts=2)
    tenths = np.bincount(found["sampled"] // 400)
    assert found["sampled"].max() < 4000
    assert (np.diff(found["sampled"]) > 0).all()
    assert ((tenths - 20) ** 2 / 20).sum() < 27.9  # chi square of 9 degrees, at 0.001
    np.testing.assert_allclose(found["centroids"][0], (2 * found["sampled"][:, None] + [0, 1]).mean(axis=0))


def test_scaled_variables_come_back_in_their_units() -> None:
    rng = np.random.default_rng(1)
    inputs = [variable(40, name="p", units="Pa"), variable(40, name="T", units="K")]
    hot = rng.random(40) < 0.5
    fields = {"p": [1e5 + 1e3 * rng.normal(size=40)], "T": [300 + 100 * hot + rng.normal(size=40)]}
    with pytest.raises(OperatorError, match=r"'p' in Pa, 'T' in K: .* give a scale"):
        KMeans(of=["p", "T"], over="space", clusters=2).describe({each.name: each for each in inputs})
    operator = KMeans(of=["p", "T"], over="space", clusters=2, scale=[1e5, 1])
    found = operator.finalize(operator.update(operator.init(), batch(inputs, fields)))
    for k, which in enumerate([hot, ~hot] if fields["p"][0][hot].mean() < fields["p"][0][~hot].mean() else [~hot, hot]):
        expected = [fields["p"][0][which].mean(), fields["T"][0][which].mean()]
        np.testing.assert_allclose(found["centroids"][k], expected, rtol=1e-12)


def test_fewer_samples_than_clusters_and_steps_that_are_not_finite() -> None:
    steps = [[1.0, 2.0], [np.nan, 0.0], [1.0, 2.0], [5.0, 6.0]]
    found = read(KMeans(of="u", clusters=3, sample=5), [variable(2)], {"u": steps}, parts=2)
    np.testing.assert_array_equal(found["label"], [0, 0, 1, -1, -1])
    np.testing.assert_array_equal(found["sampled"], [0, 2, 3, -1, -1])
    np.testing.assert_allclose(found["centroids"], [[1, 2], [5, 6], [np.nan, np.nan]])
    with pytest.raises(OperatorError, match="'u' is NaN"):
        read(KMeans(of="u", clusters=3, nan="fail"), [variable(2)], {"u": steps})


def test_places_that_lack_each_others_steps() -> None:
    operator = KMeans(of="u", clusters=1, sample=4)
    states = [
        operator.update(operator.init(), batch([variable(2)], {"u": [[first, first]]}, first=first)) for first in (0, 1)
    ]
    with pytest.raises(OperatorError, match="kept at every place"):
        operator.combine(*map(operator.summarize, states))


def test_distances_where_the_mean_is_large() -> None:
    values = np.random.default_rng(0).normal(size=(20, 30)) + 1e8
    expected = ((values[:, None] - values[None, :4]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(squared_distances(values, np.arange(4)), expected, rtol=1e-12, atol=1e-12)


def test_keys_that_do_not_fit() -> None:
    with pytest.raises(ValidationError, match="sample: 3 is less than the 8 clusters"):
        KMeans(of="u", clusters=8, sample=3)
    with pytest.raises(ValidationError, match="one number for each of"):
        KMeans(of=["u", "v"], clusters=2, scale=[1.0])
