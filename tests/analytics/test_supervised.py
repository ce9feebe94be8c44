# SPDX-License-Identifier: Apache-2.0
"""Estimators of others that learn from targets, against themselves in a plain loop."""

import pickle
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from river import evaluate, linear_model, metrics
from sklearn.linear_model import SGDClassifier, SGDRegressor

from analytics.partial_fit import PartialFit
from analytics.pupils import Pupil
from analytics.river import River
from analytics.supervised import Supervised
from insitu.errors import OperatorError
from insitu.learner import Learning, Row, Taken, Workspace
from insitu.model import Step, Variable

STEPS, ROWS = 30, 10
RNG = np.random.default_rng(4)
X = RNG.normal(size=(STEPS, ROWS, 2))
FEED = np.where(np.arange(STEPS) < 15, 0.5, 1.0)
Y = 2 * X[..., 0] - X[..., 1] + 3 * FEED[:, None] + 0.01 * RNG.normal(size=(STEPS, ROWS))
VARIABLES = {
    "x": Variable("x", np.dtype("f8"), (ROWS, 2), ("member", "axis")),
    "y": Variable("y", np.dtype("f8"), (ROWS,), ("member",), units="K"),
    "parameters.feed": Variable("parameters.feed", np.dtype("f8"), (), ()),
}
KEYS: dict[str, Any] = {"inputs": ["x", "parameters.feed"], "targets": "y", "normalise": {"per": "none"}}
FLAT = np.concatenate([X, np.broadcast_to(FEED[:, None, None], (STEPS, ROWS, 1))], axis=2).astype("f4").reshape(-1, 3)
TARGETS = Y.astype("f4").reshape(-1).astype("f8")


def feed(learning: Learning, first: int, last: int, y: np.ndarray = Y) -> None:
    for n in range(first, last):
        assert learning.take(Taken(Step(n, n, float(n)), {"x": X[n], "y": y[n], "parameters.feed": np.array(FEED[n])}))
        while learning.work():
            pass


def run(operator: Supervised, folder: Path, y: np.ndarray = Y, first: int = 0, last: int = STEPS) -> list[Row]:
    learning = operator.begin(VARIABLES, Workspace("net", folder, tell=lambda text: None))
    feed(learning, first, last, y)
    learning.end()
    learning.close()
    rows = learning.rows()
    assert all(row.values.keys() == operator.describe(VARIABLES).keys() for row in rows)
    return rows


def kept(folder: Path) -> Pupil:
    pupil = pickle.loads((folder / "models" / "net" / "estimator.pickle").read_bytes())
    assert isinstance(pupil, Pupil)
    return pupil


def test_batches_are_asked_before_they_are_learned_as_in_a_plain_loop(tmp_path: Path) -> None:
    operator = PartialFit(estimator="sklearn.linear_model.SGDRegressor", options={"eta0": 0.05}, batch=10, **KEYS)
    rows = run(operator, tmp_path)
    alone, off = SGDRegressor(eta0=0.05, random_state=0), []
    for k in range(STEPS):
        x, y = FLAT[10 * k : 10 * k + 10].astype("f8"), TARGETS[10 * k : 10 * k + 10]
        off.append(alone.predict(x) - y if k else np.empty(0))
        alone.partial_fit(x, y)
    np.testing.assert_array_equal(kept(tmp_path).estimator.coef_, alone.coef_)
    np.testing.assert_array_equal(kept(tmp_path).predict(FLAT), alone.predict(FLAT.astype("f8")))
    assert [(row.first.index, row.last.index, row.steps) for row in rows] == [(0, 9, 10), (10, 19, 10), (20, 29, 10)]
    for k, row in enumerate(rows):
        some = np.concatenate(off[10 * k : 10 * k + 10])
        assert row.values["mae"] == pytest.approx(np.abs(some).mean())
        y = TARGETS[100 * k : 100 * k + 100][-len(some) :]
        assert row.values["r2"] == pytest.approx(1 - (some**2).sum() / ((y - y.mean()) ** 2).sum())
    assert int(rows[-1].values["samples"]) == STEPS * ROWS
    assert operator.describe(VARIABLES)["mae"].units == "K"


def test_river_scores_what_its_own_progressive_validation_scores(tmp_path: Path) -> None:
    lr = {"estimator": "river.optim.SGD", "options": {"lr": 0.05}}
    name = "river.linear_model.LinearRegression"
    operator = River(estimator=name, options={"optimizer": lr}, batch=1, report=STEPS, **KEYS)
    [row] = run(operator, tmp_path)
    from river.optim import SGD

    stream = [(dict(enumerate(x)), y) for x, y in zip(FLAT.tolist(), TARGETS.tolist(), strict=True)]
    score = evaluate.progressive_val_score(iter(stream), linear_model.LinearRegression(SGD(0.05)), metrics.MAE())
    number = len(stream)  # River also judges the first, of which it knows nothing and says 0
    assert row.values["mae"] == pytest.approx((score.get() * number - abs(TARGETS[0])) / (number - 1))


def test_classes_are_told_apart(tmp_path: Path) -> None:
    labels = (X[..., 0] > 0).astype("i8")
    linear, tree = "sklearn.linear_model.SGDClassifier", "river.tree.HoeffdingTreeClassifier"
    for estimator, use in ((linear, PartialFit), (tree, River)):
        keys = {"inputs": "x", "targets": "y", "classes": 2, "report": STEPS}
        [row] = run(use(estimator=estimator, **keys), tmp_path / use.__name__, labels)
        assert float(row.values["accuracy"]) > 0.8
    alone = SGDClassifier(random_state=0).partial_fit(X[0], labels[0], classes=[0, 1])
    assert set(kept(tmp_path / "PartialFit").predict(X[0])) <= set(alone.classes_.astype(float))


def test_a_process_that_died_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analytics.pupils.CHECKPOINT_S", 0.0)
    operator = PartialFit(estimator="sklearn.linear_model.SGDRegressor", **KEYS)
    run(operator, tmp_path / "torn", last=20)
    run(operator, tmp_path / "torn", first=20)
    run(operator, tmp_path / "whole")
    np.testing.assert_array_equal(kept(tmp_path / "torn").estimator.coef_, kept(tmp_path / "whole").estimator.coef_)


def test_a_full_disk_leaves_the_checkpoint_before_whole_and_learning_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analytics.pupils.CHECKPOINT_S", 0.0)
    told: list[str] = []
    operator = PartialFit(estimator="sklearn.linear_model.SGDRegressor", **KEYS)
    place = Workspace("net", tmp_path, tell=told.append)
    learning = operator.begin(VARIABLES, place)
    feed(learning, 0, 10)
    before = place.checkpoint.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        feed(learning, 10, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert place.checkpoint.read_bytes() == before
    assert [path.name for path in place.checkpoint.parent.iterdir()] == ["net.ckpt"]
    assert "the checkpoint cannot be written, and the one before stays: [Errno 27]" in told[-1]
    feed(learning, 20, STEPS)
    assert pickle.loads(place.checkpoint.read_bytes()).samples == learning.counters()["samples"] == STEPS * ROWS


@pytest.mark.parametrize(
    ("use", "keys", "message"),
    [
        (
            PartialFit,
            {"estimator": "sklearn.cluster.MiniBatchKMeans"},
            "learns without targets; use: sklearn is for that",
        ),
        (PartialFit, {"estimator": "sklearn.linear_model.SGDClassifier"}, "say how many there are: classes: 2"),
        (River, {"estimator": "river.linear_model.LinearRegresion"}, "has no class LinearRegresion"),
        (River, {"estimator": "river.cluster.KMeans"}, "is no regressor and no classifier"),
        (River, {"estimator": "river.linear_model.LinearRegression", "classes": 2}, "tells no classes; leave it out"),
        (River, {"estimator": "river.linear_model.LinearRegression", "options": {"speed": 3}}, "refuses {'speed': 3}"),
        (River, {"estimator": "river.linear_model.LinearRegression", "targets": "time"}, "names no variable"),
    ],
)
def test_what_cannot_be_taught_is_said_with_its_cure(use: type[Supervised], keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        use.model_validate(KEYS | keys)


def test_one_number_is_learned_and_it_is_finite(tmp_path: Path) -> None:
    operator = River(estimator="river.linear_model.LinearRegression", **KEYS | {"targets": "x"})
    with pytest.raises(OperatorError, match="targets: x are 2 numbers of each sample, and one is learned"):
        operator.describe(VARIABLES)
    broken = np.where(np.arange(STEPS)[:, None] == 7, np.nan, Y)
    with pytest.raises(OperatorError, match="targets of step 7 are not finite"):
        run(River(estimator="river.linear_model.LinearRegression", **KEYS), tmp_path, broken)
