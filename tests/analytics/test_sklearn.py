# SPDX-License-Identifier: Apache-2.0
"""Estimators of scikit-learn against themselves on one process, and those that cannot be taught."""

import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import IncrementalPCA

from analytics.sampling import by_lot
from analytics.sklearn import Sklearn
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.testing import batch
from tests.analytics.places import read, variable

STEPS = np.random.default_rng(0).normal(size=(90, 6, 2)) * np.arange(1, 13).reshape(6, 2)
SHUFFLED = STEPS.reshape(90, 12)[by_lot(np.arange(90))]


@pytest.mark.parametrize("parts", [1, 3])
def test_learns_from_whole_steps_as_on_one_process(parts: int) -> None:
    """Bit for bit, wherever the cells of a step lie."""
    operator = Sklearn(
        of="u",
        sample=100,
        batch=30,
        estimator="sklearn.decomposition.IncrementalPCA",
        options={"n_components": 3},
        attributes=["components_", "explained_variance_", "n_samples_seen_"],
        apply="transform",
    )
    found = read(operator, [variable(6, 2)], {"u": STEPS}, parts=parts)
    expected = IncrementalPCA(3)
    for samples in np.split(SHUFFLED, 3):
        expected.partial_fit(samples)
    np.testing.assert_array_equal(found["components"], expected.components_)
    np.testing.assert_array_equal(found["explained_variance"], expected.explained_variance_)
    np.testing.assert_array_equal(found["applied"][:90], expected.transform(STEPS.reshape(90, 12)))
    assert np.isnan(found["applied"][90:]).all()
    assert (found["n_samples_seen"], found["samples"]) == (90, 90)
    np.testing.assert_array_equal(found["sampled"], [*range(90), *[-1] * 10])


def test_labels_of_steps_made_of_scalars() -> None:
    inputs = [Variable(name, np.dtype("f8"), (), ()) for name in ("T", "p")]
    warm = np.arange(40) % 3 == 0
    operator = Sklearn(
        of=["T", "p"],
        scale=[100, 1e5],
        sample=50,
        estimator="sklearn.cluster.MiniBatchKMeans",
        options={"n_clusters": 2, "n_init": 3},
        attributes="cluster_centers_",
        apply="predict",
    )
    fields = {"T": np.where(warm, 900.0, 300.0), "p": np.where(warm, 2e5, 1e5)}
    found = operator.finalize(operator.update(operator.init(), batch(inputs, fields)))
    np.testing.assert_allclose(np.sort(found["cluster_centers"], axis=0), [[3, 1], [9, 2]])
    assert found["applied"].dtype == np.int64
    assert len(set(zip(warm, found["applied"][:40], strict=True))) == 2


def test_learns_from_particles_of_all_ranks() -> None:
    atoms = Variable("x", np.dtype("f4"), None, ("atom", "axis"), row=(3,))
    rows = np.random.default_rng(1).normal(size=(900, 3)).astype("f4")
    operator = Sklearn(
        of="x",
        over=["step", "space"],
        sample=400,
        estimator="sklearn.cluster.MiniBatchKMeans",
        options={"n_clusters": 4, "n_init": 1, "random_state": 3},
        attributes="cluster_centers_",
    )
    state = operator.update(operator.init(), batch([atoms], {"x": np.split(rows, 9)}))
    expected = MiniBatchKMeans(4, n_init=1, random_state=3)
    for samples in np.array_split(state["rows"], 2):
        expected.partial_fit(samples)
    found = operator.finalize(state)
    np.testing.assert_array_equal(found["cluster_centers"], expected.cluster_centers_)
    assert (found["samples"], found["rows"]) == (400, 900)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ("sklearn.cluster.KMeans", "has no partial_fit"),
        ("sklearn.linear_model.SGDRegressor", "learns from targets"),
        ("sklearn.cluster.KMeens", "sklearn.cluster has no class KMeens"),
        ("sklearn.clusters.KMeans", "cannot be imported: .*such as sklearn.cluster.MiniBatchKMeans"),
        ("KMeans", "cannot be imported"),
    ],
)
def test_estimators_that_cannot_be_taught(estimator: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sklearn(of="u", estimator=estimator, attributes="mean_")


def test_keys_that_do_not_fit() -> None:
    scaler = "sklearn.preprocessing.StandardScaler"
    with pytest.raises(ValidationError, match=r"options: .* refuses \{'speed': 3\}"):
        Sklearn(of="u", estimator=scaler, options={"speed": 3}, attributes="mean_")
    with pytest.raises(ValidationError, match=r"apply: .* has no method predict"):
        Sklearn(of="u", estimator=scaler, attributes="mean_", apply="predict")
    with pytest.raises(ValidationError, match="apply: transform is of whole steps"):
        Sklearn(of="u", over="space", estimator=scaler, attributes="mean_", apply="transform")
    with pytest.raises(ValidationError, match="attributes: mean is no fitted attribute"):
        Sklearn(of="u", estimator=scaler, attributes="mean")
    with pytest.raises(OperatorError, match=r"no numbers in modes_ \(fitted are .*mean_"):
        Sklearn(of="u", estimator=scaler, attributes="modes_").describe({"u": variable(3)})


def test_steps_that_are_too_large_to_gather_are_refused() -> None:
    operator = Sklearn(of="u", estimator="sklearn.preprocessing.StandardScaler", attributes="mean_")
    with pytest.raises(OperatorError, match=r"has 5000 numbers, and at most 4096 .* use pca"):
        operator.describe({"u": variable(50, 100)})


def test_too_few_samples_are_told_by_the_estimator() -> None:
    operator = Sklearn(
        of="u",
        estimator="sklearn.decomposition.IncrementalPCA",
        options={"n_components": 3},
        attributes="components_",
    )
    with pytest.raises(OperatorError, match=r"IncrementalPCA cannot learn from 2 samples of 12 numbers"):
        read(operator, [variable(6, 2)], {"u": STEPS[:2]})


def test_says_what_to_install() -> None:
    program = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "sklearn":
            raise ModuleNotFoundError("No module named 'sklearn'", name=name)
sys.meta_path.insert(0, Missing())
from analytics.sklearn import Sklearn
try:
    Sklearn(of="u", estimator="sklearn.cluster.MiniBatchKMeans", attributes="cluster_centers_")
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install 'insitu[learn]'" in done.stdout
