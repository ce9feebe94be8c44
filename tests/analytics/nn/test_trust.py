# SPDX-License-Identifier: Apache-2.0
"""Whether the gate's rate is its rate, and whether spread grows where a network has seen nothing."""

import numpy as np
import pytest
import torch

from analytics.nn.conformal import TrustGate
from analytics.nn.predicting import ensemble, mc_dropout, predict
from analytics.nn.samples import Samples, Shapes
from analytics.nn.specs import training
from analytics.nn.training import Trainer
from insitu.errors import OperatorError


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


def test_networks_disagree_where_they_have_seen_nothing_and_the_gate_says_so() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (600, 1)).astype(np.float32)
    networks = []
    for seed in range(3):
        spec = training(
            model={"kind": "mlp", "hidden": [32], "dropout": 0.02},
            batch=16,
            seed=seed,
            optimizer={"learning_rate": 0.01},
            buffer={"capacity": "64 KiB"},
        )
        trainer = Trainer(spec, Shapes((1,), (1,)))
        assert trainer.put(Samples(x[:400], np.sin(2 * x[:400]), step=np.arange(400))) == 400
        for _ in range(250):
            trainer.batch()
        networks.append(trainer.network())
    known, strange = x[400:], x[400:] + 3
    mean, spread = ensemble(networks, known)
    assert np.abs(mean - np.sin(2 * known)).mean() < 0.15
    np.testing.assert_allclose(mean, np.mean([predict(network, known) for network in networks], axis=0), rtol=1e-5)
    gate = TrustGate(0.1)
    gate.calibrate(spread)
    refused = np.mean([not gate.trusts(score) for score in ensemble(networks, strange)[1].ravel()])
    assert refused > 0.8
    _, noise = mc_dropout(networks[0], known, passes=8, seed=1)
    assert (noise > 0).mean() > 0.9
    torch.manual_seed(123)
    assert np.array_equal(mc_dropout(networks[0], known, passes=8, seed=1)[1], noise)


def test_a_network_without_dropout_has_no_spread() -> None:
    trainer = Trainer(training(model={"kind": "mlp", "hidden": [4]}), Shapes((1,), (1,)))
    with pytest.raises(OperatorError, match="the network has no dropout"):
        mc_dropout(trainer.network(), np.zeros((2, 1)))
    with pytest.raises(OperatorError, match="an ensemble of 1 has no spread"):
        ensemble([trainer.network()], np.zeros((2, 1)))
