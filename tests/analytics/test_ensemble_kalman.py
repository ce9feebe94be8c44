# SPDX-License-Identifier: Apache-2.0
"""The ensemble Kalman filter against Kalman's own, which is exact for linear and Gaussian problems."""

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from analytics.ensemble_kalman import EnsembleKalman, Method, analyse, gaspari_cohn
from insitu.model import Array
from insitu.steering.controller import Parameters, Result
from tests.analytics.results import result

H = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]])
R = np.array([[0.5, 0.1], [0.1, 0.3]])
SEEN = np.array([1.0, -0.5])


def ensemble(size: int, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    return random.normal(size=(size, 3)) @ np.array([[1.0, 0.3, 0.0], [0.0, 0.8, 0.2], [0.0, 0.0, 0.5]]) + [
        1.0,
        2.0,
        3.0,
    ]


def kalman(mean: Array, covariance: Array, h: Array, r: Array, seen: Array) -> tuple[Array, Array]:
    """The textbook's update."""
    gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + r)
    return mean + gain @ (seen - h @ mean), (np.eye(len(mean)) - gain @ h) @ covariance


@pytest.mark.parametrize("size", [5, 40])
@pytest.mark.parametrize("noise", [R, np.array([0.5, 0.3])])
def test_the_transform_is_exactly_kalmans_of_the_ensembles_own_covariance(size: int, noise: Array) -> None:
    members = ensemble(size)
    covariance = R if noise.ndim == 2 else np.diag(noise)
    mean, spread = kalman(members.mean(axis=0), np.cov(members.T), H, covariance, SEEN)
    after = analyse(members, members @ H.T, SEEN, noise, method="etkf")
    np.testing.assert_allclose(after.mean(axis=0), mean, atol=1e-12)
    np.testing.assert_allclose(np.cov(after.T), spread, atol=1e-12)


def test_the_stochastic_filters_mean_is_exact_and_its_covariance_comes_near() -> None:
    members = ensemble(20_000)
    mean, spread = kalman(members.mean(axis=0), np.cov(members.T), H, R, SEEN)
    after = analyse(members, members @ H.T, SEEN, R, method="stochastic", random=np.random.default_rng(1))
    np.testing.assert_allclose(after.mean(axis=0), mean, atol=1e-10)
    np.testing.assert_allclose(np.cov(after.T), spread, atol=0.02)


@pytest.mark.parametrize(("method", "size"), [("etkf", 60), ("stochastic", 4000)])
def test_a_sequence_of_forecasts_and_updates_follows_the_exact_filter(method: Method, size: int) -> None:
    """A rotating and decaying state of two numbers of which one is seen, with noise in the model: 30 steps."""
    random = np.random.default_rng(7)
    turn = 0.98 * np.array([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
    h, r, q = np.array([[1.0, 0.0]]), np.array([[0.04]]), 0.01 * np.eye(2)
    truth, mean, spread = np.array([1.0, 0.0]), np.zeros(2), np.eye(2)
    members = random.normal(size=(size, 2))
    for _ in range(30):
        truth = turn @ truth + random.multivariate_normal(np.zeros(2), q)
        seen = h @ truth + random.normal(0, 0.2, 1)
        mean, spread = kalman(turn @ mean, turn @ spread @ turn.T + q, h, r, seen)
        members = members @ turn.T + random.multivariate_normal(np.zeros(2), q, len(members))
        members = analyse(members, members @ h.T, seen, r, method=method, random=random)
    np.testing.assert_allclose(members.mean(axis=0), mean, atol=1.2 / math.sqrt(size))
    np.testing.assert_allclose(np.cov(members.T), spread, atol=0.2 / math.sqrt(size))


def test_localisation_leaves_alone_what_is_far_away() -> None:
    """Of 40 cells in a row one is seen; with few members, chance correlations would change all the others too."""
    random, cells = np.random.default_rng(2), np.arange(40)
    smooth = np.exp(-((cells[:, None] - cells) ** 2) / 20)
    members = random.multivariate_normal(np.zeros(40), smooth, 15)
    far = np.abs(cells - 10.0)[:, None]
    taper = (gaspari_cohn(far, 5.0), np.ones((1, 1)))
    seen = np.array([2.0])
    exact, _ = kalman(np.zeros(40), smooth, np.eye(40)[10:11], np.array([[0.01]]), seen)

    def error(**keys: Any) -> tuple[float, Array]:
        after = analyse(members, members[:, 10:11], seen, np.array([0.01]), method="stochastic", random=random, **keys)
        change = after.mean(axis=0) - members.mean(axis=0)
        return float(np.abs(change + members.mean(axis=0) - exact)[25:].max()), after

    with_taper, after = error(taper=taper)
    np.testing.assert_array_equal(after[:, 21:], members[:, 21:])
    assert np.abs(after[:, 10].mean() - 2.0) < 0.1
    assert with_taper < error()[0]


def test_gaspari_cohn_is_smooth_positive_definite_and_ends() -> None:
    distance = np.linspace(0, 3, 3001)
    weights = gaspari_cohn(distance, 1.0)
    assert weights[0] == 1
    assert np.all(weights[distance >= 2] == 0)
    assert np.abs(np.diff(weights, 2)).max() < 1e-5
    places = np.random.default_rng(0).uniform(0, 5, 60)
    assert np.linalg.eigvalsh(gaspari_cohn(places[:, None] - places, 1.0)).min() > -1e-12


def decay(members: Array, seen: Result, parameters: Parameters) -> tuple[Array, Array]:
    """A model of parameters alone: amplitude times exp(-rate t), seen twice; and with one sensor that predicts NaN."""
    time = seen.provenance.time
    values = members[:, 0] * np.exp(-members[:, 1] * time)
    broken = np.full(len(members), np.nan if time > 4 else 0.0)
    return members, np.stack([values, 2 * values, broken], axis=1)


def controller(**keys: Any) -> EnsembleKalman:
    prior = {"amplitude": {"mean": 2.0, "std": 1.0}, "rate": {"mean": 1.0, "std": 0.7, "scale": "log"}}
    model = f"{__name__}:decay"
    return EnsembleKalman.model_validate(
        {"of": "series", "model": model, "prior": prior, "noise": 0.02, "sets": {"k": "rate"}, "size": 100} | keys
    )


@pytest.mark.parametrize("method", ["etkf", "stochastic"])
def test_parameters_of_a_model_are_found_from_noisy_results(method: str) -> None:
    random, each, actions = np.random.default_rng(3), controller(method=method), []
    for n in range(30):
        time = 0.1 * n
        seen = 3.0 * math.exp(-0.5 * time) * np.array([1.0, 2.0, 0.0]) + random.normal(0, 0.02, 3)
        seen[2] = math.nan  # a sensor that is broken
        actions += each.on_result(result(seen, n, time), {})
    assert each.estimate() == pytest.approx({"amplitude": 3.0, "rate": 0.5}, rel=0.02)
    assert actions[-1].values == {"k": each.estimate()["rate"]}
    assert np.all(each.members[:, 1] > 0)
    spread = np.std(np.log(each.members[:, 1]))
    assert abs(math.log(each.estimate()["rate"] / 0.5)) < 4 * spread < 0.1


def test_nothing_seen_changes_nothing() -> None:
    each = controller(inflation=1.5)
    before = each.members.copy()
    each.on_result(result([math.nan] * 3), {})
    np.testing.assert_array_equal(each.members, before)


def test_the_same_seed_draws_the_same_members() -> None:
    np.testing.assert_array_equal(controller(seed=4).members, controller(seed=4).members)
    assert not np.array_equal(controller(seed=4).members, controller(seed=5).members)


def test_inflation_widens_what_the_update_then_narrows() -> None:
    plain, wide = controller(), controller(inflation=1.5)
    for each in (plain, wide):
        each.on_result(result([3.0, 6.0, 0.0]), {})
    assert np.std(wide.members[:, 0]) >= np.std(plain.members[:, 0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sets": {"k": "rat"}}, "k is to be 'rat', which is not in prior: amplitude, rate"),
        ({"model": "no_such_module:f"}, "no_such_module"),
        ({"prior": {"rate": {"mean": -1, "std": 1, "scale": "log"}}, "sets": {}}, "mean: -1 must be above 0"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        controller(**keys)


def test_localising_the_transform_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be localised; take stochastic"):
        analyse(ensemble(5), ensemble(5) @ H.T, SEEN, R, method="etkf", taper=(np.ones((3, 2)), np.ones((2, 2))))
