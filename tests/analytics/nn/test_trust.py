# SPDX-License-Identifier: Apache-2.0
"""Whether the gate's rate is its rate, and whether spread grows where a network has seen nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, confusion_matrix

from analytics.nn.conformal import TrustGate
from analytics.nn.judging import Classes, probabilities
from analytics.nn.learning import Network, network_of
from analytics.nn.models import Ensemble
from analytics.nn.predicting import ensemble, mc_dropout, predict
from analytics.nn.samples import Samples, Shapes
from analytics.nn.specs import Training, training
from analytics.nn.training import Trainer
from analytics.nn.versions import write_version
from analytics.predict import Predict
from insitu.errors import OperatorError
from insitu.learner import Taken, Workspace
from insitu.model import Step, Variable


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("kind", ["normal", "heavy"])
def test_false_alarms_come_at_their_rate(rate: float, kind: str) -> None:
    rng = np.random.default_rng(3)
    n, trials, alarms = 99, 4000, 0
    for _ in range(trials):
        scores = rng.normal(size=n + 1) if kind == "normal" else rng.standard_cauchy(size=n + 1)
        gate = TrustGate(rate)
        gate.calibrate(scores[:n])
        alarms += not gate.trusts(scores[n])
    expected = rate - (rate * (n + 1)) % 1 / (n + 1)  # the rank is rounded in favour of trust
    assert alarms / trials == pytest.approx(expected, abs=4 * np.sqrt(rate * (1 - rate) / trials))


def test_p_values_are_uniform_and_agree_with_the_gate() -> None:
    rng, gate = np.random.default_rng(0), TrustGate(0.1)
    gate.calibrate(rng.normal(size=199))
    for score in rng.normal(size=300):
        assert gate.trusts(score) == (gate.p_value(score) > gate.rate)


def test_nothing_is_trusted_while_too_little_is_known() -> None:
    gate = TrustGate(0.05)
    gate.calibrate(np.zeros(18))
    assert not gate.trusts(-1e9)
    gate.calibrate([np.nan, 0.0])
    assert gate.known == 19
    assert gate.trusts(0.0)
    assert not gate.trusts(float("nan"))
    again = TrustGate(0.05)
    again.load(gate.state())
    assert again.threshold == gate.threshold


def test_the_newest_scores_are_kept() -> None:
    gate = TrustGate(0.5, most=4)
    gate.calibrate(np.arange(10.0))
    gate.calibrate([10.0])
    assert sorted(gate.state()["scores"].tolist()) == [7.0, 8.0, 9.0, 10.0]


def test_rates_that_are_none_are_refused() -> None:
    with pytest.raises(OperatorError, match=r"rate: 1\.5 is no rate"):
        TrustGate(1.5)
    with pytest.raises(OperatorError, match=r"most: 5 scores are too few for a rate of 0.01; take 99 or more"):
        TrustGate(0.01, most=5)


def trained(batches: int, **keys: object) -> Trainer:
    """A trainer that has seen sin(2x) between -1 and 1."""
    x = np.random.default_rng(0).uniform(-1, 1, (400, 1)).astype(np.float32)
    model = {"kind": "mlp", "hidden": [32], "dropout": 0.02}
    rest = {"model": model, "batch": 16, "optimizer": {"learning_rate": 0.01}, "buffer": {"capacity": "64 KiB"}}
    trainer = Trainer(training(**rest | keys), Shapes((1,), (1,)))
    assert trainer.put(Samples(x, np.sin(2 * x), step=np.arange(400))) == 400
    for _ in range(batches):
        trainer.batch()
    return trainer


def test_networks_disagree_where_they_have_seen_nothing_and_the_gate_says_so() -> None:
    network = trained(250, ensemble=3).network()
    known = np.random.default_rng(1).uniform(-1, 1, (200, 1)).astype(np.float32)
    mean, spread = ensemble(network, known)
    assert np.abs(mean - np.sin(2 * known)).mean() < 0.15
    np.testing.assert_allclose(mean, predict(network, known), rtol=1e-5, atol=1e-6)
    gate = TrustGate(0.1)
    gate.calibrate(spread)
    refused = np.mean([not gate.trusts(score) for score in ensemble(network, known + 3)[1].ravel()])
    assert refused > 0.8
    _, noise = mc_dropout(network, known, passes=8, seed=1)
    assert (noise > 0).mean() > 0.9
    torch.manual_seed(123)
    assert np.array_equal(mc_dropout(network, known, passes=8, seed=1)[1], noise)


def test_the_first_of_an_ensemble_learns_as_if_it_were_alone() -> None:
    alone = trained(20, model={"kind": "mlp", "hidden": [8]}).network().module.state_dict()
    together = trained(20, model={"kind": "mlp", "hidden": [8]}, ensemble=2).network().module.state_dict()
    for name, weights in alone.items():
        assert torch.equal(together[f"each.0.{name}"], weights)
        assert not torch.equal(together[f"each.1.{name}"], weights)


def set_weights(network: Network, outputs: np.ndarray) -> None:
    """Make each hidden number 1, whatever goes in; output weights are (networks, 1, hidden)."""
    networks = network.module.each if isinstance(network.module, Ensemble) else [network.module]
    for one, weights in zip(networks, outputs, strict=True):
        first, *_, last = (part for part in one.modules() if isinstance(part, torch.nn.Linear))
        for part, value in ((first.weight, 0.0), (first.bias, 1.0), (last.bias, 0.0)):
            part.data.fill_(value)
        last.weight.data = torch.from_numpy(weights)


def uncertainty_of(spec: Training, outputs: np.ndarray, kind: dict[str, object], folder: Path) -> float:
    """What the operator says of a network with these output weights."""
    network = network_of(spec, Shapes((1,), (1,)))
    set_weights(network, outputs.astype(np.float32))
    write_version(folder, "net", network, spec, Shapes((1,), (1,)), {})
    operator = Predict.model_validate(
        {"model": str(folder / "net" / "1"), "inputs": "x", "targets": "y", "uncertainty": kind}
    )
    operator.require()
    place = {name: Variable(name, np.dtype("f8"), (), ()) for name in "xy"}
    asking = operator.begin(place, Workspace("trust", folder))
    asking.take(Taken(Step(0, 0, 0.0), {"x": np.array(0.3), "y": np.array(1.0)}))
    assert asking.work()
    [row] = asking.rows()
    assert row.values.keys() == operator.describe(place).keys()
    return float(row.values["uncertainty"])


def test_uncertainty_is_what_theory_says(tmp_path: Path) -> None:
    """Of y = Σ w z, each z left out with probability p: variance p / (1 - p) Σ w². Of several y their own deviation."""
    rng, p, hidden = np.random.default_rng(5), 0.25, 12
    w = rng.uniform(0.5, 1.5, (1, 1, hidden))
    model = {"kind": "mlp", "hidden": [hidden], "dropout": p}
    found = uncertainty_of(training(model=model), w, {"kind": "dropout", "samples": 4000}, tmp_path / "dropout")
    expected = np.sqrt(p / (1 - p) * (w**2).sum()) / w.sum()
    assert found == pytest.approx(expected, rel=0.05)  # of 4000 samples one sigma is 1.1 %
    w = rng.uniform(0.5, 1.5, (4, 1, hidden))
    model = {"kind": "mlp", "hidden": [hidden]}
    found = uncertainty_of(training(model=model, ensemble=4), w, {"kind": "ensemble"}, tmp_path / "ensemble")
    several = w.sum(axis=(1, 2))
    assert found == pytest.approx(several.std(ddof=1) / several.mean(), rel=1e-5)


def test_classes_are_judged_as_scikit_learn_does_and_calibration_is_what_it_is() -> None:
    rng, judge = np.random.default_rng(2), Classes(3)
    scores = rng.normal(0.0, 1.5, (20000, 3))
    sure = probabilities(scores)
    truth = (rng.uniform(size=(20000, 1)) > sure.cumsum(axis=1)).sum(axis=1)
    found = judge.judge(scores, truth)
    taken = sure.argmax(axis=1)
    np.testing.assert_array_equal(found["confusion"], confusion_matrix(truth, taken))
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, taken))
    assert found["error"] == pytest.approx(1 - sure[np.arange(20000), truth].mean())
    assert found["calibration_error"] < 0.01  # classes are drawn with these probabilities
    assert found["confidence"] == pytest.approx(found["accuracy"], abs=0.01)
    judge.renew()
    boasting = judge.judge(3 * scores, truth)
    assert boasting["calibration_error"] == pytest.approx(boasting["confidence"] - boasting["accuracy"], abs=1e-9)
    with pytest.raises(OperatorError, match="targets: 0 to 3 are no classes from 0 to 2"):
        judge.judge(scores[:2], np.array([0, 3]))


def test_a_network_of_classes_is_asked_and_the_gate_looks_at_its_uncertainty(tmp_path: Path) -> None:
    spec = training(model={"kind": "mlp", "hidden": [8]}, loss={"kind": "cross_entropy", "classes": 3}, ensemble=2)
    shapes = Shapes((2,), (), classes=True)
    network = network_of(spec, shapes)
    write_version(tmp_path, "net", network, spec, shapes, {})
    keys = {"model": str(tmp_path / "net" / "1"), "inputs": "x", "targets": "k", "sample": "row"}
    more = {"classes": 3, "uncertainty": "ensemble", "judge": "uncertainty", "false_alarms": 0.5, "example": True}
    operator = Predict.model_validate(keys | more)
    operator.require()
    place = {
        "x": Variable("x", np.dtype("f8"), (6, 2), ("row", "axis")),
        "k": Variable("k", np.dtype("i8"), (6,), ("row",)),
    }
    asking, rng = operator.begin(place, Workspace("trust", tmp_path)), np.random.default_rng(0)
    gate = TrustGate(0.5)
    for n in range(8):
        x, k = rng.normal(size=(6, 2)), rng.integers(0, 3, 6)
        asking.take(Taken(Step(n, n, 0.0), {"x": x, "k": k}))
        assert asking.work()
        [row] = asking.rows()
        assert row.values.keys() == operator.describe(place).keys()
        each = [probabilities(made) for made in network.each(torch.from_numpy(x.astype("f4"))).detach().numpy()]
        mean, deviation = np.mean(each, axis=0), np.std(each, axis=0, ddof=1)
        uncertainty = float(row.values["uncertainty"])
        assert uncertainty == pytest.approx(np.sqrt((deviation**2).sum() / (mean**2).sum()), rel=1e-5)
        assert (row.values["threshold"], row.values["trusted"]) == (gate.threshold, gate.trusts(uncertainty))
        gate.calibrate([uncertainty])
        scores = predict(network, x)
        assert row.values["accuracy"] == pytest.approx((scores.argmax(axis=1) == k).mean())
        assert (row.values["truth"], row.values["prediction"]) == (k[0], scores[0].argmax())
    for wrong, cure in (({"classes": 2}, "add classes: 3"), ({"classes": None, "judge": "error"}, "add classes: 3")):
        assert cure in str(Predict.model_validate(keys | more | wrong).fault())
    with pytest.raises(ValidationError, match="add uncertainty: ensemble"):
        Predict.model_validate(keys | {"judge": "uncertainty"})


def test_a_model_that_cannot_tell_is_refused_with_its_cure(tmp_path: Path) -> None:
    network = Trainer(training(model={"kind": "mlp", "hidden": [4]}), Shapes((1,), (1,))).network()
    with pytest.raises(OperatorError, match="the network has no dropout"):
        mc_dropout(network, np.zeros((2, 1)))
    with pytest.raises(OperatorError, match="cannot disagree with itself"):
        ensemble(network, np.zeros((2, 1)))
    one = training(model={"kind": "mlp", "hidden": [4]})
    for kind, cure in (("ensemble", "give it ensemble: 4"), ("dropout", "give its model dropout: 0.1")):
        with pytest.raises(OperatorError, match=cure):
            uncertainty_of(one, np.ones((1, 1, 4)), {"kind": kind}, tmp_path / kind)


@pytest.mark.parametrize(
    "model", [{"kind": "conv_autoencoder", "channels": [4]}, {"kind": "unet", "channels": [4, 4]}, {"kind": "resnet"}]
)
def test_convolutions_leave_out_channels(model: dict[str, object]) -> None:
    network = network_of(training(model=model | {"dropout": 0.3}), Shapes((8, 8)))
    x = np.random.default_rng(0).normal(size=(3, 8, 8))
    mean, noise = mc_dropout(network, x, passes=4)
    assert mean.shape == (3, 8, 8)
    assert noise.max() > 0
