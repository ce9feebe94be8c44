# SPDX-License-Identifier: Apache-2.0
"""Proposals come where the loss is, a share of them from everywhere, and each with the density that it says."""

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import kstest

from analytics.propose import Propose
from insitu.results import Provenance, Result
from insitu.steering.actions import Action

LOW, HIGH, PEAK = 2.0, 6.0, 5.0


def controller(**keys: Any) -> Propose:
    return Propose(**{"of": "trust", "sets": {"feed": (LOW, HIGH)}, "every": 1, **keys})


def row(feed: float, error: float, steps: int = 1) -> Result:
    arrays = {"error": np.array(error), "parameter_feed": np.array(feed), "version": np.array(1)}
    return Result("trust", Provenance(0, 0, 0, 0.0, steps, 0, complete=True), arrays)


def closed(propose: Propose, proposals: int) -> tuple[np.ndarray, list[str]]:
    """A simulation that takes each proposal, and has a loss with a narrow peak; return what was proposed, and why."""
    feed, feeds, whys = 3.0, [], []
    for _ in range(proposals):
        error = math.exp(-0.5 * ((feed - PEAK) / 0.2) ** 2)
        [action] = propose.on_result(row(feed, error), {"feed": feed})
        feed = float(action.values["feed"])  # type: ignore[arg-type]
        feeds.append(feed)
        whys.append(action.why)
    return np.array(feeds), whys


def test_proposals_come_where_the_loss_is_and_a_share_from_everywhere() -> None:
    feeds, whys = closed(controller(uniform=0.3, width=0.05, memory=200), 600)
    assert ((feeds >= LOW) & (feeds <= HIGH)).all()
    late, why = feeds[100:], np.array(whys[100:])
    near = np.array([text.startswith("near") for text in why])
    assert np.mean(~near) == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / len(why)))
    # Uniform, whatever was seen; the others where the loss is: two kernel widths and two of the peak.
    assert kstest((late[~near] - LOW) / (HIGH - LOW), "uniform").pvalue > 1e-3
    assert np.mean(np.abs(late[near] - PEAK) < 0.8) > 0.85
    assert np.mean(np.abs(late[~near] - PEAK) < 0.8) < 0.55


def test_the_density_is_one_and_weights_by_it_bring_back_the_uniform_mean() -> None:
    propose = controller(uniform=0.2, width=0.3, memory=50, learn=4)
    for feed, error in ((2.1, 0.3), (5.9, 1.0), (4.0, 0.1), (3.0, 0.5)):
        propose.on_result(row(feed, error), {})
    grid = np.linspace(LOW, HIGH, 4001)
    density = np.array([propose.density({"feed": feed}) for feed in grid])
    assert np.trapezoid(density, grid) / (HIGH - LOW) == pytest.approx(1.0, abs=1e-6)
    assert density.min() > 0.2
    known = propose._weights()
    rng = np.random.default_rng(0)
    drawn = np.array([propose._drawn(rng)[0][0] for _ in range(4000)])
    assert known is not None
    # Where they fall is what the density says.
    found, edges = np.histogram(drawn, 10, (0, 1))
    expected = [np.trapezoid(density[400 * k : 400 * k + 401], dx=1 / 4000) for k in range(10)]
    np.testing.assert_allclose(found / 4000, expected, atol=4 * np.sqrt(np.max(expected) / 4000))
    weights = 1 / np.interp(LOW + (HIGH - LOW) * drawn, grid, density)
    assert (weights * drawn).sum() / weights.sum() == pytest.approx(0.5, abs=0.03)
    assert len(edges) == 11


def test_a_proposal_each_so_many_steps_and_the_same_again_by_the_same_seed() -> None:
    def made(seed: int) -> list[Action]:
        propose = controller(every=5, seed=seed, learn=2)
        return [action for k in range(40) for action in propose.on_result(row(3.0 + k % 3, 0.1 * (k % 3)), {})]

    assert len(made(0)) == 8
    assert [action.values for action in made(0)] == [action.values for action in made(0)]
    assert made(0)[0].values != made(1)[0].values


def test_what_is_not_finite_is_passed_over_and_whole_numbers_stay_whole() -> None:
    propose = controller(learn=2)
    for error in (math.nan, math.inf):
        [action] = propose.on_result(row(3.0, error), {"feed": 3})
    assert type(action.values["feed"]) is int
    assert not propose._seen
    for feed in (3.0, 4.0):
        [action] = propose.on_result(row(feed, 0.5), {"feed": 3.0})
    assert action.why == "uniform: all losses are alike; density 1"


def test_mistakes_are_said() -> None:
    with pytest.raises(ValidationError, match="sets: feed: 3 is not below 3"):
        controller(sets={"feed": (3, 3)})
    with pytest.raises(ValidationError, match="learn: 9 parameters do not fit a memory of 5"):
        controller(learn=9, memory=5)
    with pytest.raises(ValueError, match=r"does not say what kill was .*name parameters.kill in its inputs"):
        controller(sets={"kill": (0, 1)}).on_result(row(3.0, 0.5), {})
