# SPDX-License-Identifier: Apache-2.0
"""What the views Series and Training show of stored results."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from analytics.dmd import DMD
from analytics.predict import Predict
from analytics.sobol import Sobol
from analytics.train import Train
from insitu.dashboard.access import Role
from insitu.dashboard.page import encoded, page
from insitu.dashboard.sources import Finished
from insitu.dashboard.thresholds import thresholds
from insitu.dashboard.views import View, series, training
from insitu.dashboard.views.registry import VIEWS
from insitu.errors import OperatorError
from insitu.model import Variable
from insitu.results import Provenance, Result
from insitu.results.store import ResultStore

U = Variable("u", np.dtype("f4"), (6, 8), ("y", "x"), units="K")
CLASS = Variable("class", np.dtype("i8"), (6, 8), ("y", "x"))
WORDS = ("batches", "samples", "unseen", "reuse", "starving", "full", "learning_rate", "validation_loss")


def rows(count: int) -> list[Provenance]:
    return [Provenance(k, 10 * k, 10 * k + 9, 0.5 * k, 10, 0, complete=True) for k in range(count)]


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    (tmp_path / "config.yaml").write_text("run: melt\n")
    return ResultStore.create(tmp_path / "results.zarr", {})


def ended(folder: Path) -> Finished:
    run = Finished(folder)
    run.refresh(watched=True, reads=True)
    return run


def whole(view: View, run: Finished) -> str:
    """Make the page and its first update, as the server does."""
    assert "</html>" in page(view, list(VIEWS.values()), [run], Role.OPERATOR)
    return encoded(view.update([run], {}), [run], "")


def learnt(store: ResultStore, errors: Sequence[float] = (np.nan, 0.5, 0.1)) -> None:
    """A classifier that is trained, and a network that is asked, with a sample of each step."""
    common = {"use": "train", "inputs": ["u"], "targets": "class", "sample": "cell", "batch": 4}
    loss, buffer = {"kind": "cross_entropy", "classes": 3}, {"kind": "fifo", "capacity": "1 MiB"}
    keys = {"model": {"kind": "mlp", "hidden": [4]}, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
    train = Train.model_validate({key: value for key, value in common.items() if key != "use"} | keys | {
        "loss": loss, "buffer": buffer
    })  # fmt: skip
    store.declare_group("net", "window", train, train.describe({"u": U, "class": CLASS}), {})
    confusion = np.array([[5, 1, 0], [0, 4, 2], [0, 0, 9]])
    described = train.describe({"u": U, "class": CLASS})
    numbers = {name: described[name].dtype.type(k) for k, name in enumerate(WORDS)}
    for k, row in enumerate(rows(3)):
        found = {**numbers, "batches": np.int64(50 * (k + 1)), "loss": np.float64(1 / (k + 1)), "confusion": confusion}
        store.append([Result("net", row, {key: np.asarray(value) for key, value in found.items()})])
    predict = Predict(model="net", inputs=("u",), example=True)
    store.declare_group("trust", "window", predict, predict.describe({"u": U}), {})
    truth = np.arange(48, dtype="f4").reshape(6, 8)
    for error, row in zip(errors, rows(len(errors)), strict=True):
        values = {"error": error, "threshold": 0.2, "trusted": error < 0.2, "version": 1}
        values |= {"truth": truth, "prediction": truth * (1 - error)}
        store.append([Result("trust", row, {key: np.asarray(value) for key, value in values.items()})])


def test_a_network_is_shown_by_what_it_yields(store: ResultStore, tmp_path: Path) -> None:
    learnt(store)
    run = ended(tmp_path)
    update = training.update([run], {})
    assert update.sources["loss-net-0"]["x"] == [50, 100, 150]
    assert update.sources["loss-net-0"]["batches"] == pytest.approx([1, 1 / 2, 1 / 3])
    assert update.images["confusion-net-0"].values.tolist() == [[5, 1, 0], [0, 4, 2], [0, 0, 9]]
    assert dict(update.cards["cards-net-0"])["batches"] == "150"
    assert update.texts["say-net-0"].startswith("The network is the slower one")
    assert update.texts["say-trust-0"] == "trust may stand for the truth in 50 % of the steps that it was asked about."
    truth, made = update.images["truth-trust-0"], update.images["prediction-trust-0"]
    assert made.values == pytest.approx(truth.values * 0.9)
    assert (truth.low, truth.high, truth.labels) == (made.low, made.high, ("x", "y"))
    said = json.loads(whole(training, run))
    assert said["sources"]["error-trust-0"]["error"] == [None, 0.5, 0.1]


def test_a_network_that_was_not_asked_yet_has_no_empty_pictures(store: ResultStore, tmp_path: Path) -> None:
    learnt(store, [np.nan])
    update = training.update([ended(tmp_path)], {})
    assert update.texts["say-trust-0"] == "trust was not asked yet: there was no version of its model."
    assert update.sources["error-trust-0"]["x"] == []
    assert {"truth-trust-0", "prediction-trust-0"} <= set(update.hidden)


def test_a_sample_that_is_too_large_is_refused_before_the_run() -> None:
    large = Variable("u", np.dtype("f8"), (300, 300), ("y", "x"))
    with pytest.raises(OperatorError, match="example: a sample has 360000 bytes"):
        Predict(model="net", inputs=("u",), example=True).describe({"u": large})


def test_indices_are_bars_with_whiskers_and_eigenvalues_lie_about_a_circle(store: ResultStore, tmp_path: Path) -> None:
    members = {"u": Variable("u", np.dtype("f8"), (8,), ("member",))}
    sobol = Sobol(of="u", parameters=2)
    store.declare("ways", sobol, members, {})
    values = {key: np.zeros(each.shape or (), each.dtype) for key, each in sobol.describe(sobol.seen(members)).items()}
    values |= {"first": np.array([0.7, 0.2]), "first_low": np.array([0.6, 0.1]), "first_high": np.array([0.8, 0.3])}
    store.append([Result("ways", rows(1)[0], values)])
    dmd = DMD(of="u", components=2)
    store.declare("waves", dmd, {"u": U}, {})
    found = {key: np.zeros(each.shape or (), each.dtype) for key, each in dmd.describe({"u": U}).items()}
    store.append([Result("waves", rows(1)[0], found | {"eigenvalue": np.array([0.6 + 0.8j, np.nan])})])
    run = ended(tmp_path)
    update = series.update([run], {})
    bars = update.sources["ways.first-0"]
    assert (bars["y"], bars["low"], bars["high"]) == ([0.7, 0.2], [0.6, 0.1], [0.8, 0.3])
    assert "ways.first_low-0" not in update.sources
    assert (update.sources["waves.eigenvalue-0"]["x"][0], update.sources["waves.eigenvalue-0"]["y"][0]) == (0.6, 0.8)
    assert '"ways.total-0"' in whole(series, run)


def test_thresholds_are_those_of_the_rules(tmp_path: Path) -> None:
    conditions = ["stats.max > 0.9 and stats.max < 2", "stats.max > 0.9", "energy.ewm(3) < -1", "1 +"]
    told = {"steering": {"rules": [{"when": condition} for condition in conditions]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(told))
    assert thresholds(tmp_path) == {"stats.max": [0.9, 2.0], "energy": [-1.0]}
    (tmp_path / "config.yaml").write_text("run: melt\n")
    assert thresholds(tmp_path) == {}
